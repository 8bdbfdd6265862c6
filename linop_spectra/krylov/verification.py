"""A search for eigenpairs that were missed: copies of multiple eigenvalues, above all."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ..backends import Array
from ..operators import LinearOperator
from .thick_restart import Which
from .tridiagonal import extreme_ritz

Verdict = Literal["missed", "complete", "open"]
_FIRST_LOOK = 5
_FEWEST = 20
_NOISE = 100.0
_RESOLVED = 0.3  # error of the end of what is left, in units of its distance from the wanted eigenvalues


def project_out(operator: LinearOperator, rows: Array, w: Array) -> None:
    """Remove the components along orthonormal rows from `w`, in place."""
    operator.backend.gemv_n_sub(rows, operator.backend.gemv_t(rows, w), w)


def find_missed(
    operator: LinearOperator, values: np.ndarray, vectors: Array, which: Which, *, norm: float, margin: float, most: int, seed: int
) -> tuple[Verdict, int]:
    """Look for an eigenvalue that belongs among the wanted ones and is not there.

    A Krylov space of one vector holds one eigenvector of each eigenvalue, whatever its multiplicity, and may pass over a member of a
    cluster. So a short Lanczos run from a fresh random vector, in the space orthogonal to the pairs that were found, looks at
    what is left. A Ritz value there beyond the last wanted eigenvalue proves that one is missing. The run ends when the end of
    what is left has been resolved as being inside, or after `most` products. The more an omission would change the result,
    the fewer steps show it.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator of order n.
    values : numpy.ndarray
        Wanted eigenvalues that were found, ascending, shape (k,).
    vectors : array
        Their eigenvectors as rows, shape (k, n).
    which : {"LM", "LA", "SA", "BE"}
        Which were wanted.
    norm : float
        Of the operator, by an estimate.
    margin : float
        What an eigenvalue must exceed the last wanted one by.
    most : int
        Products that may be spent.
    seed : int
        Of the random vector.

    Returns
    -------
    tuple of (str, int)
        ``"missed"`` where one is missing, ``"complete"`` where the end of what is left was resolved as lying inside, ``"open"``
        where the products did not suffice to tell; and the products spent.
    """
    n, backend = operator.shape[0], operator.backend
    most = min(max(most, _FEWEST), n - len(values))
    if most < 1:
        return "complete", 0
    v, previous, w = (backend.empty((n,), operator.dtype) for _ in range(3))
    v[...] = backend.probes(n, (0,), kind="sphere", seed=seed, domain="eigsh verification", dtype=operator.dtype)[0, :]
    for _ in range(2):
        project_out(operator, vectors, v)
        backend.scale_into(v, 1.0 / _host(operator, backend.norm(v)), v)
    noise = _NOISE * float(np.finfo(operator.dtype).eps) * norm
    alphas: list[float] = []
    betas: list[float] = []
    look, resolved = _FIRST_LOOK, False
    while len(alphas) < most:
        w[...] = operator.matmat(v[:, None])[:, 0]
        if betas:
            backend.axpy(-betas[-1], previous, w)
        alphas.append(_host(operator, backend.dot(v, w)))
        backend.axpy(-alphas[-1], v, w)
        # Last of all: rounding along the pairs that were found would grow from step to step, as that of a far outlier does.
        project_out(operator, vectors, w)
        betas.append(_host(operator, backend.norm(w)))
        if not math.isfinite(betas[-1]):
            raise FloatingPointError("A product with the operator holds NaN or infinity.")
        # A residual of the size of rounding in the whole operator: what comes after it would be made of nothing else.
        exhausted = betas[-1] <= noise
        if exhausted or len(alphas) in (look, most):
            look += max(_FIRST_LOOK, look // 4)
            excess, error = _excess(extreme_ritz(np.array(alphas), np.array(betas)), values, which)
            if excess > margin:
                return "missed", len(alphas)
            # Twice in a row: a Ritz value may rest for a while at an eigenvalue below the one it goes to.
            inside = excess + error < 0 and error <= _RESOLVED * -excess
            if exhausted or len(alphas) == n - len(values) or (inside and resolved):
                return "complete", len(alphas)
            resolved = inside
        backend.scale_into(w, 1.0 / betas[-1], previous)
        v, previous = previous, v
    return "open", len(alphas)


def _host(operator: LinearOperator, scalar: Any) -> float:
    return float(scalar.real) if operator.backend.eager_scalars else float(np.real(operator.backend.to_numpy(scalar)))


End = tuple[float, float]


def _excess(ends: tuple[End, End], values: np.ndarray, which: Which) -> End:
    """How far the end of what is left lies beyond the last wanted eigenvalue, and how well it is known."""
    (lowest, low_error), (highest, high_error) = ends
    k = len(values)
    if which == "LM":
        smallest = float(np.min(np.abs(values)))
        return max((abs(lowest) - smallest, low_error), (abs(highest) - smallest, high_error))
    low = {"LA": 0, "SA": k}.get(which, k // 2)
    sides = []
    if low < k:
        sides.append((highest - float(values[low]), high_error))
    if low:
        sides.append((float(values[low - 1]) - lowest, low_error))
    return max(sides)
