"""Wishart matrices: sample covariance matrices of Gaussian data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._memory import format_bytes
from ..backends import Array, Backend
from ..backends.numpy_backend import matmul
from ..operators import LinearOperator
from .ensemble import EnsembleOperator, rows_that_fit
from .entries import normal_entries
from .law import check_whole


class WishartOperator(EnsembleOperator):
    """``X X^H / n`` for a p x n matrix X, in panels of samples: rows of ``X^H``'s conjugate, scaled.

    Each panel multiplies twice while it is in the cache. Where X does not fit the budget but the p x p matrix does, that matrix is
    formed once, from panels that are not kept.
    """

    def __init__(
        self, p: int, n: int, population: np.ndarray | None, dtype: Any, *, seed: int, memory_budget: Any, backend: Any
    ) -> None:
        self.num_samples, self.population = n, population
        self._gram: Array | None = None
        super().__init__(p, dtype, seed=seed, memory_budget=memory_budget, positive_semidefinite=True, backend=backend)

    def _cut(self, entries: int) -> Iterator[tuple[int, int]]:
        return rows_that_fit(self.num_samples, self.shape[0], entries)

    @property
    def num_bytes(self) -> int:
        """Bytes of X."""
        return self.num_samples * self.shape[0] * self.dtype.itemsize

    @property
    def gram_bytes(self) -> int:
        """Bytes of the p x p matrix."""
        return self.shape[0] ** 2 * self.dtype.itemsize

    @property
    def gram_stored(self) -> bool:
        """Whether the p x p matrix is held instead of X, from the first product on; to form it takes a sum in double precision too."""
        needed = self.gram_bytes + self.shape[0] ** 2 * self._wide.itemsize
        return not self.stored and needed <= self.memory_budget

    def _panel(self, first: int, last: int) -> np.ndarray:
        p = self.shape[0]
        flat = normal_entries(
            first * p, last * p, scale=1 / math.sqrt(self.num_samples), seed=self.seed, domain="ensemble/wishart", dtype=self.dtype
        )
        panel = flat.reshape(last - first, p)
        if self.population is not None:
            panel *= np.sqrt(self.population).astype(panel.real.dtype)
        return panel

    def _matmat(self, x: Array) -> Array:
        rows = x.T
        if self.gram_stored:
            if self._gram is None:
                self._gram = self._form_gram()
            return matmul(rows, self._gram).T
        out = self._zeros(x.shape[1])
        for _, _, panel in self._each():
            out += matmul(self._times_adjoint(rows, panel), panel)
        return self._rounded(out).T

    def _form_gram(self) -> Array:
        """The transpose of ``X X^H / n``, which multiplies rows."""
        gram = self._zeros(self.shape[0])
        for _, _, panel in self._each():
            gram += matmul(self.backend.conj(panel).T, panel)
        return self._rounded(gram)

    def _details(self) -> str:
        samples = f"{self.num_samples} samples, "
        if self.gram_stored:
            return f"{samples}formed once and stored, {format_bytes(self.gram_bytes)}, seed {self.seed}"
        return samples + super()._details()


def wishart(
    p: int,
    n: int,
    *,
    population: Any = None,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The sample covariance matrix ``X X^H / n`` of n Gaussian samples of p variables.

    The columns of X are independent. Without `population` its entries are standard normal, and the spectrum follows
    `MarchenkoPastur` of the ratio ``p / n``.

    Parameters
    ----------
    p : int
        Variables: the order of the matrix.
    n : int
        Samples.
    population : array, optional
        Eigenvalues of the population covariance, shape (p,), none negative: variances of the variables. By rotational
        invariance a diagonal covariance is no restriction on the spectrum.
    seed : int
        The matrix is a function of seed, p, n, population and dtype, the same on every backend up to the rounding of products.
        Its random numbers are apart from those of probes with the same seed.
    dtype : dtype
        Of X. A complex type gives complex entries with ``E |x_ij|^2 = 1``.
    memory_budget : int, float, str or None
        Bytes or text such as ``"4GB"``; by default 40 % of the memory. X is held when it fits; else the p x p matrix is formed
        once and held when that fits; else every product makes X anew, once, at about 20 ns an entry and thread, 4 MB at a time
        (less for a smaller budget, but one sample at least): bit for bit the same X. Then pass many vectors at once.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (p, p), Hermitian and positive semidefinite.

    Raises
    ------
    ValueError
        When `p`, `n`, `population`, `seed` or `memory_budget` is out of range.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> a = ls.random_matrices.wishart(100, 400, seed=0)
    >>> law = ls.random_matrices.MarchenkoPastur(ratio=100 / 400)
    >>> eigenvalues = np.linalg.eigvalsh(a.to_dense())
    >>> bool(abs(np.mean(eigenvalues <= 1.0) - law.cdf(1.0)) < 0.03)
    True
    """
    p, n = check_whole("p", p, 1), check_whole("n", n, 1)
    variances = None
    if population is not None:
        variances = np.asarray(population)
        if variances.dtype.kind not in "biuf" or variances.shape != (p,) or not np.all((variances >= 0) & np.isfinite(variances)):
            raise ValueError(
                f"The argument population must be {p} finite numbers that are not negative, one variance for each variable, "
                f"but has shape {variances.shape} and dtype {variances.dtype}"
                + (f" with smallest entry {variances.min()!r}." if variances.dtype.kind in "biuf" and variances.size else ".")
            )
        variances = variances.astype(np.float64)
    return WishartOperator(p, n, variances, dtype, seed=seed, memory_budget=memory_budget, backend=backend)
