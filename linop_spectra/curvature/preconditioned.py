r"""Curvature in the metric of a preconditioner, :math:`P^{-1/2} A P^{-1/2}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backends import Array
from ..operators import LinearOperator, aslinearoperator
from ..operators.diagonal import DiagonalOperator
from .blocks import BlockOperator


class PreconditionedOperator(LinearOperator):
    """A symmetric matrix scaled by a diagonal from both sides.

    Attributes
    ----------
    inner : LinearOperator
        The matrix.
    scale : array
        Diagonal of the inverse root of the preconditioner, shape (n,).
    """

    def __init__(self, inner: LinearOperator, scale: Array) -> None:
        self.inner, self.scale = inner, scale
        super().__init__(
            inner.shape,
            inner.dtype,
            hermitian=inner.hermitian,
            positive_semidefinite=inner.positive_semidefinite,
            backend=inner.backend,
        )

    def _matmat(self, x: Array) -> Array:
        return self.scale[:, None] * self.inner.matmat(self.scale[:, None] * x)

    def _rmatmat(self, x: Array) -> Array:
        return self.scale[:, None] * self.inner.rmatmat(self.scale[:, None] * x)

    @property
    def engine(self) -> str:
        """How products of the matrix inside are computed."""
        return getattr(self.inner, "engine", "")

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Rows of each parameter; empty where the matrix inside knows none."""
        return getattr(self.inner, "blocks", {})

    def block(self, name: str) -> BlockOperator:
        """Diagonal block of one parameter or of a layer; see `CurvatureOperator.block`."""
        return BlockOperator(self, name)

    def derivative_error(self, seed: int = 0) -> float | None:
        """That of the matrix inside."""
        return self.inner.derivative_error(seed)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


def preconditioned(A: Any, preconditioner: Any) -> PreconditionedOperator:
    r"""The matrix :math:`P^{-1/2} A P^{-1/2}`, whose largest eigenvalue limits the learning rate of a preconditioned method.

    Its eigenvalues are those of :math:`P^{-1} A`. With the diagonal that Adam divides by, they are the preconditioned Hessian of
    adaptive optimisers (Cohen et al., *Adaptive gradient methods at the edge of stability*, 2022).

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Square matrix of order n.
    preconditioner : array, mapping or diagonal operator
        The diagonal of P, positive: shape (n,); or named arrays, one for each parameter, for an operator that was made from an
        objective; or what `diagonal_operator` returns.

    Returns
    -------
    PreconditionedOperator
        Symmetric where `A` is.

    Raises
    ------
    TypeError, ValueError
        When the preconditioner has another length, holds anything that is not positive and finite, or is no diagonal.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.curvature import preconditioned
    >>> preconditioned(np.array([[4.0, 2.0], [2.0, 9.0]]), [4.0, 9.0]).to_dense().round(4)
    array([[1.    , 0.3333],
           [0.3333, 1.    ]])
    """
    operator = aslinearoperator(A)
    backend, n = operator.backend, operator.shape[0]
    if operator.shape != (n, n):
        raise ValueError(f"The argument A has shape {operator.shape}, but only a square matrix can be preconditioned from both sides.")
    if isinstance(preconditioner, LinearOperator):
        if not isinstance(preconditioner, DiagonalOperator):
            raise TypeError(
                f"The argument preconditioner is {preconditioner._describe()}, of which no inverse root is known; pass a diagonal, or "
                "use compress(A, R) with an operator R that multiplies with the inverse root itself."
            )
        preconditioner = preconditioner.diagonal
    if isinstance(preconditioner, Mapping):
        objective = getattr(operator, "objective", None)
        if objective is None:
            raise TypeError(
                "The argument preconditioner is a mapping of named arrays, but A does not know the names of its rows; pass an array of "
                "shape (n,), for instance objective.flatten(mapping)."
            )
        preconditioner = objective.flatten(preconditioner)
    # Roots in double precision: second moments of single precision may be as small as 1e-30.
    diagonal = np.asarray(backend.to_numpy(backend.asarray(preconditioner)))
    if diagonal.shape != (n,):
        raise ValueError(f"The argument preconditioner has shape {diagonal.shape}, but must be a diagonal of shape ({n},).")
    if diagonal.dtype.kind not in "biuf" or not (np.isfinite(diagonal) & (diagonal > 0)).all():
        raise ValueError(
            "The argument preconditioner holds entries that are not positive and finite, of which there is no inverse root; add a small "
            "positive number to the diagonal."
        )
    scale = backend.asarray((1.0 / np.sqrt(diagonal.astype(np.float64))).astype(operator.dtype))
    return PreconditionedOperator(operator, scale)
