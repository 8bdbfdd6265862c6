"""Self-check of an operator by a handful of products."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..results import html_table
from .base import LinearOperator
from .interop import aslinearoperator


@dataclasses.dataclass(frozen=True)
class OperatorCheck:
    """What a few random products say about an operator; all errors are relative to the size of the products.

    Attributes
    ----------
    passed : bool
        Whether every error is below its tolerance.
    determinism_error : float
        Distance of two products with the same vector.
    linearity_error : float
        ``|A(u + 2v) - Au - 2Av|``.
    symmetry_error : float or None
        ``|<u, Av> - <Au, v>|``; None when the operator does not claim to be Hermitian.
    adjoint_error : float or None
        ``|<u, Av> - <A^H u, v>|``; None when there is no separate adjoint product.
    finite_difference_error : float or None
        Distance of a product from central differences of the gradient in double precision (of the outputs for a
        Gauss-Newton matrix); None for an operator that is no derivative.
    finite : bool
        Whether every product was finite.
    tolerance : float
        Bound on determinism, linearity, symmetry and adjoint errors.
    finite_difference_tolerance : float
        Bound on the finite-difference error.
    """

    passed: bool
    determinism_error: float
    linearity_error: float
    symmetry_error: float | None
    adjoint_error: float | None
    finite_difference_error: float | None
    finite: bool
    tolerance: float
    finite_difference_tolerance: float

    def _rows(self) -> list[tuple[str, str]]:
        def line(error: float | None, bound: float) -> str:
            if error is None:
                return "does not apply"
            return f"{error:.1e} ({'ok' if error <= bound else 'TOO LARGE'}, bound {bound:.0e})"

        return [
            ("check", "passed" if self.passed else "FAILED"),
            ("finite products", "yes" if self.finite else "NO"),
            ("determinism", line(self.determinism_error, self.tolerance)),
            ("linearity", line(self.linearity_error, self.tolerance)),
            ("symmetry", line(self.symmetry_error, self.tolerance)),
            ("adjoint", line(self.adjoint_error, self.tolerance)),
            ("finite differences", line(self.finite_difference_error, self.finite_difference_tolerance)),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:20s} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())


def check_operator(A: Any, *, seed: int = 0, finite_differences: bool = True) -> OperatorCheck:
    """Check an operator: finite, deterministic, linear, symmetric where it says so, and a true derivative.

    Symmetry alone is not enough: a wrong Hessian can be exactly symmetric. A derivative operator is therefore also compared
    with central differences of the gradient in double precision, on a small part of its data.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        The operator.
    seed : int
        Of the random vectors.
    finite_differences : bool
        Whether to compare a derivative operator with finite differences.

    Returns
    -------
    OperatorCheck
        Errors and the verdict; prints as a table.

    Notes
    -----
    Costs five products with single vectors, one more for an operator with a separate adjoint, and for a derivative operator
    two gradients.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.check_operator(ls.diagonal_operator(np.arange(5.0))).passed
    True
    >>> skew = ls.aslinearoperator(np.triu(np.ones((5, 5))), hermitian=True)
    >>> ls.check_operator(skew).passed
    False
    """
    operator = aslinearoperator(A)
    backend, (m, n) = operator.backend, operator.shape
    # Normal entries, so that an operator that is not linear is seen at the scale of real vectors.
    pair = backend.probes(n, (0, 1), kind="normal", seed=seed, domain="check", dtype=operator.dtype)
    u, v = pair[0, :], pair[1, :]
    left = backend.probes(m, (2,), kind="normal", seed=seed, domain="check", dtype=operator.dtype)[0, :]

    def size(x: Any) -> float:
        return float(backend.to_numpy(backend.norm(x)))

    def inner(x: Any, y: Any) -> complex:
        return complex(backend.to_numpy(backend.dot(x, y)))

    def contiguous(x: Any) -> Any:
        return backend.asarray(x, dtype=operator.dtype) + 0  # a copy of our own, safe to reuse

    av, again, au = (contiguous(operator.matvec(x)) for x in (v, v, u))
    combined = contiguous(operator.matvec(u + 2 * v))
    finite = all(np.isfinite(size(x)) for x in (av, again, au, combined))
    scale = max(size(av), size(au), np.finfo(operator.dtype).tiny)
    tolerance = operator.unit_rounding**0.6  # 4e-10 in double precision, 7e-5 in single
    with np.errstate(invalid="ignore", over="ignore"):  # products that are not finite are in the verdict
        determinism = size(av - again) / scale
        linearity = size(combined - au - 2 * av) / (size(combined) + size(au) + 2 * size(av) + np.finfo(operator.dtype).tiny)
    symmetry = adjoint = None
    if operator.hermitian:
        # Relative to the lengths, not to the inner product, which may vanish.
        symmetry = abs(inner(u, av) - inner(au, v)) / (size(u) * size(av) + size(au) * size(v) + np.finfo(operator.dtype).tiny)
        symmetry *= float(np.sqrt(n))  # two random directions meet at an angle of about 1 / sqrt(n)
    else:
        try:
            back = contiguous(operator.rmatvec(left))
        except TypeError:
            back = None  # no adjoint product was given
        if back is not None:
            adjoint = abs(inner(left, av) - inner(back, v)) / (size(left) * size(av) + size(back) * size(v) + np.finfo(operator.dtype).tiny)
            adjoint *= float(np.sqrt(n))
    difference = operator.derivative_error(seed) if finite_differences and finite else None
    difference_tolerance = 1e-4
    bounded = [determinism, linearity, symmetry or 0.0, adjoint or 0.0]
    passed = finite and all(error <= tolerance for error in bounded) and (difference is None or difference <= difference_tolerance)
    return OperatorCheck(
        bool(passed), determinism, linearity, symmetry, adjoint, difference, bool(finite), tolerance, difference_tolerance
    )


def require_hermitian(operator: LinearOperator, purpose: str, *, seed: int = 0) -> None:
    """Raise unless an operator is square and Hermitian; where it does not say, test two random products.

    Raises
    ------
    ValueError
        When the operator is not square, says that it is not Hermitian, or fails the test.
    """
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"{purpose} needs a square Hermitian operator, but this one has shape {operator.shape}.")
    if operator.hermitian is True:
        return
    if operator.hermitian is False:
        raise ValueError(
            f"{purpose} needs a Hermitian (real: symmetric) operator, but this one is not (its attribute hermitian is False). "
            "Pass the symmetric part (A + A.H) / 2."
        )
    backend, n = operator.backend, operator.shape[0]
    rows = backend.probes(n, (0, 1), kind="normal", seed=seed, domain="symmetry test", dtype=operator.dtype)
    u, v, products = rows[0, :], rows[1, :], operator.matmat(rows.T)
    au, av = (backend.asarray(products[:, i], dtype=operator.dtype) + 0 for i in range(2))
    numbers = backend.fetch([backend.dot(u, av), backend.dot(au, v), backend.norm(au), backend.norm(av)])
    difference = abs(numbers[0] - numbers[1])
    scale = float(np.real(numbers[2] + numbers[3]))  # the standard size of <u, Av> for normal u
    if not difference <= np.sqrt(operator.unit_rounding) * scale:
        raise ValueError(
            f"{purpose} needs a Hermitian (real: symmetric) operator, but two random products of this one disagree: "
            f"<u, Av> = {numbers[0]:.6g} and <Au, v> = {numbers[1]:.6g}. "
            "Pass the symmetric part (A + A.H) / 2, or compute the products in a wider type if they are merely noisy."
        )

