"""Gaussian Wigner matrices: the Gaussian orthogonal and unitary ensembles."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...backends import Array, Backend
from ...backends.numpy_backend import matmul
from ...operators import LinearOperator
from ..laws.law import check_positive, check_whole
from .ensemble import EnsembleOperator
from .ensemble_arguments import Ensemble, ensemble_dtype
from .entries import normal_entries


class WignerOperator(EnsembleOperator):
    """A matrix of the Gaussian orthogonal or unitary ensemble, in panels of its lower triangle.

    The panel (first, last) is the block of those rows and of the columns before `last`. It multiplies as it stands and, its part
    left of the diagonal block, as its adjoint, so that only half of the matrix is made or held.
    """

    diagonal_factor = math.sqrt(2)
    """Of the real parts on the diagonal: that of a complex entry has half of the variance, so both ensembles have the same."""

    def __init__(
        self,
        n: int,
        variance: float,
        ensemble: Ensemble,
        dtype: np.dtype,
        *,
        seed: int,
        memory_budget: Any,
        backend: Any,
        domain: str | None = None,
    ) -> None:
        self.variance, self.ensemble = variance, ensemble
        self.domain = f"ensemble/{ensemble}" if domain is None else domain
        super().__init__((n, n), dtype, seed=seed, memory_budget=memory_budget, backend=backend)

    def _cut(self, entries: int) -> Iterator[tuple[int, int]]:
        n, first = self.shape[0], 0
        while first < n:
            # The largest `last` with (last - first) last <= entries.
            last = min(n, max(first + 1, (first + math.isqrt(first**2 + 4 * entries)) // 2))
            yield first, last
            first = last

    @functools.cached_property
    def num_bytes(self) -> int:
        """Bytes of the lower triangle, and of what the panels have beyond it where the triangle fits the budget."""
        n = self.shape[0]
        triangle = n * (n + 1) // 2 * self.dtype.itemsize
        if triangle > self.memory_budget:
            return triangle
        return sum((last - first) * last for first, last in self.panels()) * self.dtype.itemsize

    def _entries(self, start: int, stop: int) -> np.ndarray:
        """A range of the lower triangle, row by row, in double precision."""
        scale = math.sqrt(self.variance / self.shape[0])
        return normal_entries(start, stop, scale=scale, seed=self.seed, domain=self.domain, dtype=self._wide)

    def _panel(self, first: int, last: int) -> np.ndarray:
        packed = self._entries(first * (first + 1) // 2, last * (last + 1) // 2)
        panel = np.empty((last - first, last), self.dtype)
        place, diagonal = 0, np.empty(last - first)
        for row in range(last - first):
            length = first + row + 1
            panel[row, :length] = packed[place : place + length]
            place += length
            diagonal[row] = packed[place - 1].real * self.diagonal_factor
        square = panel[:, first:]
        upper = np.triu_indices(last - first, 1)
        square[upper] = square.T[upper].conj()
        np.fill_diagonal(square, diagonal)
        return panel

    def _matmat(self, x: Array) -> Array:
        rows, out = x.T, self._zeros(x.shape[1])
        for first, last, panel in self._each():
            out[:, first:last] += matmul(rows[:, :last], panel.T)
            if first > 0:
                conj = self.backend.conj
                out[:, :first] += conj(matmul(conj(rows[:, first:last]), panel[:, :first]))
        return self._rounded(out).T

    def _details(self) -> str:
        return f"{self.ensemble.upper()}, {super()._details()}"


def wigner(
    n: int,
    *,
    variance: float = 1.0,
    seed: int = 0,
    ensemble: Ensemble = "goe",
    dtype: Any = None,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """A Gaussian Wigner matrix, whose spectrum follows the `Semicircle` law.

    Entries off the diagonal have mean zero and ``E |a_ij|^2 = variance / n``, and the spectrum fills
    ``[-2 sqrt(variance), 2 sqrt(variance)]``. On the diagonal the variance is ``2 variance / n`` for ``"goe"`` and ``variance / n``
    for ``"gue"``.

    Parameters
    ----------
    n : int
        Order.
    variance : float
        Of the limiting law.
    seed : int
        The matrix is a function of seed, n, variance, ensemble and dtype, the same on every backend. Its random numbers are
        apart from those of probes with the same seed.
    ensemble : {"goe", "gue"}
        Real symmetric or complex Hermitian.
    dtype : dtype, optional
        Real for ``"goe"`` (float64 by default), complex for ``"gue"`` (complex128). Entries are made in double precision and
        rounded.
    memory_budget : int, float, str or None
        Bytes or text such as ``"4GB"``; by default 40 % of the memory. Half of the matrix, about ``n^2 / 2`` entries, is
        held when it fits. Otherwise every product makes it anew, at about 20 ns an entry and thread, 4 MB at a time (less for a
        smaller budget, but one row at least): bit for bit the same matrix. Then pass many vectors at once: a block of them
        costs hardly more than one.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian.

    Raises
    ------
    ValueError
        When `n`, `variance`, `seed`, `ensemble` or `memory_budget` is out of range.
    TypeError
        When `dtype` does not fit the ensemble.

    References
    ----------
    I. Dumitriu and A. Edelman, *Matrix models for beta ensembles*, J. Math. Phys. 43 (2002), have the exact law of its Lanczos
    coefficients: with variance 1, ``alpha_j ~ N(0, 2 / n)`` and ``n beta_j^2 ~ chi^2_{n - 1 - j}``, independent.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> a = ls.random_matrices.wigner(500, seed=1)
    >>> bool(np.abs(np.linalg.eigvalsh(a.to_dense())).max() < 2.2)
    True

    A spike of strength 3 is a term of rank one. It pulls one eigenvalue out of the bulk, to 3 + 1 / 3:

    >>> u = np.ones((500, 1)) / np.sqrt(500)
    >>> spiked = a + ls.low_rank(u, [3.0])
    >>> bool(abs(ls.eigsh(spiked, k=1, which="LA").eigenvalues[0] - (3 + 1 / 3)) < 0.2)
    True
    """
    n = check_whole("n", n, 1)
    variance = check_positive("variance", variance, "n times that of the entries")
    resolved = ensemble_dtype(ensemble, dtype)
    return WignerOperator(n, variance, ensemble, resolved, seed=seed, memory_budget=memory_budget, backend=backend)
