"""The Krylov space of curvature and gradient, grown one product at a time."""

from __future__ import annotations

import math

import numpy as np

from ...backends import Array
from ...krylov.eigen_result import EigenResult
from ...krylov.errors import NonFiniteProductError
from ...krylov.recurrence import ProductError, Recurrence
from ...krylov.storage import plan_basis
from ...krylov.tridiagonal import ritz
from ...operators import LinearOperator


class KrylovSpace:
    """Orthonormal basis of the space of ``g, A g, A^2 g, ...``, fully reorthogonalised, and A in it.

    Parameters
    ----------
    operator : LinearOperator
        Real symmetric operator A of shape (n, n).
    gradient : array
        Vector g, shape (n,), on the operator's backend.
    num_steps : int
        Most dimensions that will be asked for; memory is planned for so many vectors and taken as the space grows.
    test_symmetry : bool
        Whether products that disagree are an error; False for operators that are symmetric by construction, whose products may be
        mostly rounding.

    Attributes
    ----------
    gradient_norm : float
        Norm of g.
    lowest : EigenResult, optional
        The lowest eigenpair of A, roughly, once somebody has looked for it.
    refined : EigenResult, optional
        The same to the tolerance of the problem, once that was needed.
    """

    def __init__(self, operator: LinearOperator, gradient: Array, num_steps: int, *, test_symmetry: bool = True) -> None:
        backend, n = operator.backend, operator.shape[0]
        self._operator, self._n, self.test_symmetry = operator, n, test_symmetry
        self.gradient_norm = float(backend.norm(gradient))
        self.lowest: EigenResult | None = None
        self.refined: EigenResult | None = None
        self._state: Recurrence | None = None
        if self.gradient_norm > 0.0:
            rows = backend.empty((1, n), operator.dtype)
            backend.scale_into(gradient, 1.0 / self.gradient_norm, rows[0, :])
            # A norm of tiny numbers is rounded: the recurrence wants a unit vector.
            backend.scale_into(rows[0, :], 1.0 / float(backend.norm(rows[0, :])), rows[0, :])
            plan = plan_basis(operator, min(num_steps, n), 1, "full", None)
            self._state = Recurrence(operator, rows, plan=plan, test_symmetry=test_symmetry)

    @property
    def operator(self) -> LinearOperator:
        """The operator; an equal one may take its place, so that its products are counted elsewhere."""
        return self._operator

    @operator.setter
    def operator(self, operator: LinearOperator) -> None:
        self._operator = operator
        if self._state is not None:
            self._state.operator = operator

    @property
    def size(self) -> int:
        """Dimension so far."""
        return 0 if self._state is None else len(self._state.alphas)

    @property
    def complete(self) -> bool:
        """Whether the space can grow no further: it is invariant under A up to rounding."""
        return self._state is None or self._state.exhausted or self.size == self._n

    def grow(self) -> None:
        """One more dimension, by one product.

        Raises
        ------
        NonFiniteProductError
            A FloatingPointError: when the product is not finite.
        ValueError
            When the products show that the operator is not symmetric.
        """
        assert self._state is not None
        try:
            self._state.step()
            self._state.fetch()
        except ProductError as error:
            raise NonFiniteProductError(f"{error}.", None, self.size) from error

    def jacobi(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Diagonal and off-diagonal of A in the first `size` basis vectors, each of shape (size,); the last entry leads out."""
        assert self._state is not None
        alphas, betas = (np.array([row[0] for row in rows[:size]]) for rows in (self._state.alphas, self._state.betas))
        if size == self._n:
            betas[-1] = 0.0
        return alphas, betas

    def ritz(self, size: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Ritz values ascending, Ritz vectors in the basis as columns, and the coefficient that leads out."""
        alphas, betas = self.jacobi(size)
        values, vectors = ritz(alphas, betas)
        return values, vectors, float(betas[-1])

    def lift(self, coefficients: np.ndarray) -> Array:
        """The vector with these coefficients in the basis, shape (n,)."""
        assert self._state is not None
        return self._state._bases[0].combine(np.asarray(coefficients, dtype=np.float64)[None, :])[0]

    def overlaps(self, vector: Array, size: int) -> np.ndarray:
        """Inner products with the first `size` basis vectors, shape (size,), float64."""
        assert self._state is not None
        return self._state._bases[0].coefficients(vector, size).astype(np.float64)

    def vector(self, index: int) -> Array:
        """One basis vector, not to be written to; ``index = size`` is the one that the next product is taken with."""
        assert self._state is not None
        return self._state._bases[0].row(index)

    def without(self, vector: Array, size: int) -> tuple[Array, float]:
        """The part of a vector outside the first `size` dimensions, normalised, and its norm before."""
        backend, rest = self._operator.backend, vector + 0
        for _ in range(2 if size else 0):
            rest = rest - self.lift(self.overlaps(rest, size))
        norm = float(backend.norm(rest))
        return (rest / norm if norm > math.sqrt(np.finfo(np.float64).tiny) else rest), norm
