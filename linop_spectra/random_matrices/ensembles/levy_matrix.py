"""Wigner matrices with heavy-tailed entries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from ...backends import Backend
from ...operators import LinearOperator
from ..laws.law import check_positive, check_whole
from .ensemble_arguments import check_real
from .entries import normal_entries
from .wigner import WignerOperator


class LevyOperator(WignerOperator):
    """A symmetric matrix with entries of a symmetric Pareto law."""

    diagonal_factor = 1.0

    def __init__(self, n: int, alpha: float, dtype: np.dtype, *, seed: int, memory_budget: Any, backend: Any) -> None:
        self.alpha = alpha
        super().__init__(n, 1.0, "goe", dtype, seed=seed, memory_budget=memory_budget, backend=backend, domain="ensemble/levy")

    def _entries(self, start: int, stop: int) -> np.ndarray:
        normals = normal_entries(start, stop, scale=1.0, seed=self.seed, domain=self.domain, dtype=np.dtype(np.float64))
        # The probability to lie beyond a normal on either side is uniform; its power has the Pareto law.
        beyond = special.log_ndtr(-np.abs(normals)) + math.log(2)
        return np.copysign(np.exp(-beyond / self.alpha), normals) * self.shape[0] ** (-1 / self.alpha)

    def _details(self) -> str:
        return super()._details().replace("GOE", f"Pareto entries of exponent {self.alpha:g}", 1)


def levy_matrix(
    n: int,
    alpha: float,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """A symmetric matrix of independent heavy-tailed entries: a Levy matrix, whose spectrum has no edge.

    Entries are ``n^(-1 / alpha)`` times a symmetric Pareto variable, ``P(|x| > t) = t^-alpha`` for t above one. For alpha below 2 the
    entries have no variance, and the limit of the spectrum is no semicircle but a symmetric law whose density falls off like
    ``|x|^-(1 + alpha)``; the largest eigenvalues are the largest entries.

    Parameters
    ----------
    n : int
        Order.
    alpha : float
        Exponent of the tails, between 0 and 2.
    seed : int
        The matrix is a function of seed, n, alpha and dtype, the same on every backend.
    dtype : dtype
        float32 or float64; entries are made in double precision and rounded.
    memory_budget : int, float, str or None
        As in `wigner`.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian.

    Raises
    ------
    ValueError
        When an argument is out of range.
    TypeError
        When `dtype` is not real.

    References
    ----------
    P. Cizeau and J.-P. Bouchaud, *Theory of Levy matrices*, Phys. Rev. E 50 (1994); G. Ben Arous and A. Guionnet, *The spectrum of heavy
    tailed random matrices*, Comm. Math. Phys. 278 (2008).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.levy_matrix import levy_matrix
    >>> dense = levy_matrix(300, 1.0, seed=0).to_dense()
    >>> bool(abs(np.linalg.norm(dense, 2) / np.abs(dense).max() - 1) < 0.2)
    True
    """
    n = check_whole("n", n, 1)
    alpha = check_positive("alpha", alpha, "the exponent of the tails")
    if alpha >= 2:
        raise ValueError(f"The argument alpha is {alpha:g}, but must be below 2: from there on the entries have a variance; see wigner.")
    return LevyOperator(
        n, alpha, check_real(dtype, "Levy matrices are real symmetric"), seed=seed, memory_budget=memory_budget, backend=backend
    )
