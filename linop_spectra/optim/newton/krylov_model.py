"""A quadratic model of the loss in the Krylov space of curvature and gradient."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...backends import Array
from ...krylov.lanczos import RunOptions, run_lanczos
from ...krylov.tridiagonal import ritz
from ...operators import LinearOperator


@dataclasses.dataclass(frozen=True, eq=False)
class KrylovModel:
    r"""Ritz pairs of a matrix A in the Krylov space of a vector g, by Lanczos with full reorthogonalisation.

    Attributes
    ----------
    values : numpy.ndarray
        Ritz values ascending, shape (k,).
    vectors : array
        Ritz vectors as rows, orthonormal, shape (k, n).
    coefficients : numpy.ndarray
        Inner products of g with the Ritz vectors, shape (k,).
    residual_norms : numpy.ndarray
        Norms of :math:`A y_i - \theta_i y_i`, shape (k,).
    invariant : bool
        Whether the space is invariant under A up to rounding: g has no part outside, and the model is exact.
    """

    values: np.ndarray
    vectors: Array
    coefficients: np.ndarray
    residual_norms: np.ndarray
    invariant: bool

    def lift(self, operator: LinearOperator, coefficients: np.ndarray) -> Array:
        """The vector with these coefficients in the Ritz basis, shape (n,)."""
        return operator.backend.combine(np.asarray(coefficients, dtype=np.float64)[None, :], self.vectors)[0]


def krylov_model(operator: LinearOperator, gradient: Array, num_steps: int, *, test_symmetry: bool = True) -> KrylovModel:
    """Model from at most `num_steps` products; fewer where the Krylov space is invariant before or of full dimension.

    Without `test_symmetry`, for operators that are symmetric by construction, products that are mostly rounding are no error: those of a
    classifier in single precision are, where it is sure of all its examples.

    Raises
    ------
    NonFiniteProductError
        A FloatingPointError: when a product is not finite.
    """
    n = operator.shape[0]
    run = run_lanczos(
        operator, min(num_steps, n), num_probes=1, start=gradient, reorthogonalize="full",
        options=RunOptions(measure_noise=False, test_symmetry=test_symmetry),
    )  # fmt: skip
    if run.status != "complete":
        raise KeyboardInterrupt
    alphas, betas = run.jacobi()
    values, small = ritz(alphas, betas)
    vectors = run.vectors.bases[0].combine(small.T)  # type: ignore[union-attr]
    residuals = np.abs(betas[-1] * small[-1])
    scale = max(float(np.abs(values).max(initial=0.0)), np.finfo(np.float64).tiny)
    rounding = float(np.finfo(operator.dtype).eps)
    invariant = len(alphas) == n or float(betas[-1]) <= 10 * np.sqrt(len(alphas)) * rounding * scale
    return KrylovModel(values, vectors, float(run.start_norms[0]) * small[0], residuals, bool(invariant))
