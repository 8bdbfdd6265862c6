"""Rectangular Gaussian matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...backends import Array, Backend
from ...backends.numpy_backend import matmul
from ...operators import LinearOperator
from ..laws.law import check_positive, check_whole
from .ensemble import EnsembleOperator, rows_that_fit
from .entries import normal_entries


class GaussianOperator(EnsembleOperator):
    """A matrix of independent normal entries of variance ``variance / n``, in panels of rows."""

    def __init__(
        self, m: int, n: int, variance: float, dtype: Any, *, seed: int, memory_budget: Any, backend: Any, domain: str = "ensemble/gaussian"
    ) -> None:
        self.variance, self.domain = variance, domain
        super().__init__((m, n), dtype, hermitian=None, seed=seed, memory_budget=memory_budget, backend=backend)

    def _cut(self, entries: int) -> Iterator[tuple[int, int]]:
        return rows_that_fit(*self.shape, entries)

    @property
    def num_bytes(self) -> int:
        """Bytes of the matrix."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def _panel(self, first: int, last: int) -> np.ndarray:
        n = self.shape[1]
        scale = math.sqrt(self.variance / n)
        entries = normal_entries(first * n, last * n, scale=scale, seed=self.seed, domain=self.domain, dtype=self.dtype)
        return entries.reshape(last - first, n)

    def _matmat(self, x: Array) -> Array:
        rows, out = x.T, self.backend.empty((x.shape[1], self.shape[0]), self.dtype)
        for first, last, panel in self._each():
            out[:, first:last] = matmul(rows, panel.T)
        return out.T

    def _rmatmat(self, x: Array) -> Array:
        conj, rows, out = self.backend.conj, x.T, self._zeros(x.shape[1])
        for first, last, panel in self._each():
            out += conj(matmul(conj(rows[:, first:last]), panel))
        return self._rounded(out).T


def gaussian(
    m: int,
    n: int,
    *,
    variance: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """A rectangular matrix of independent normal entries; square, it is of the Ginibre ensemble.

    Entries have mean zero and ``E |x_ij|^2 = variance / n``. The squares of the singular values follow `MarchenkoPastur` of the ratio
    ``m / n``, and the eigenvalues of a square one fill the disk of radius ``sqrt(variance)`` evenly (circular law).

    Parameters
    ----------
    m, n : int
        Rows and columns.
    variance : float
        n times that of the entries.
    seed : int
        The matrix is a function of seed, n, variance and dtype, the same on every backend; more rows leave the first ones unchanged.
    dtype : dtype
        A complex type gives complex entries.
    memory_budget : int, float, str or None
        Bytes or text such as ``"4GB"``; by default 40 % of the memory. A matrix that takes more is made anew in every product, by
        panels: bit for bit the same.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (m, n), with a product with its adjoint.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.gaussian import gaussian
    >>> x = gaussian(200, 800, seed=0)
    >>> bool(abs(np.linalg.norm(x.to_dense(), 2) - 1.5) < 0.05)
    True
    """
    m, n = check_whole("m", m, 1), check_whole("n", n, 1)
    variance = check_positive("variance", variance, "n times that of the entries")
    return GaussianOperator(m, n, variance, dtype, seed=seed, memory_budget=memory_budget, backend=backend)
