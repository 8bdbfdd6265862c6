"""Gram matrices of random samples, a panel of samples at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._memory import format_bytes
from ...backends import Array
from ...backends.numpy_backend import matmul
from .ensemble import EnsembleOperator, rows_that_fit
from .entries import normal_entries


class GramOperator(EnsembleOperator):
    """``sum_i a_i x_i x_i^H`` of n Gaussian samples x_i of p variables, in panels of samples: rows are the conjugates of x_i.

    Each panel multiplies twice while it is in the cache. Where the samples do not fit the budget but the p x p matrix does, that
    matrix is formed once, from panels that are not kept.

    Parameters
    ----------
    p, n : int
        Variables and samples.
    population : ndarray or None
        Variances of the variables, shape (p,).
    weights : ndarray or None
        a_i, shape (n,); without them ``1 / n`` each, and then the samples are held scaled.
    dtype : dtype
        Of the samples.
    domain : str
        Of the random stream.
    seed, memory_budget, backend
        As in `EnsembleOperator`.
    """

    def __init__(
        self,
        p: int,
        n: int,
        dtype: Any,
        *,
        population: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        domain: str,
        seed: int,
        memory_budget: Any,
        backend: Any,
    ) -> None:
        self.num_samples, self.population, self.weights, self.domain = n, population, weights, domain
        self._gram: Array | None = None
        positive = weights is None or bool(np.all(weights >= 0))
        super().__init__(
            (p, p), dtype, seed=seed, memory_budget=memory_budget, positive_semidefinite=True if positive else None, backend=backend
        )

    def _cut(self, entries: int) -> Iterator[tuple[int, int]]:
        return rows_that_fit(self.num_samples, self.shape[0], entries)

    @property
    def num_bytes(self) -> int:
        """Bytes of the samples."""
        return self.num_samples * self.shape[0] * self.dtype.itemsize

    @property
    def gram_bytes(self) -> int:
        """Bytes of the p x p matrix."""
        return self.shape[0] ** 2 * self.dtype.itemsize

    @property
    def gram_stored(self) -> bool:
        """Whether the p x p matrix is held instead of the samples, from the first product on; to form it takes a sum in double too."""
        needed = self.gram_bytes + self.shape[0] ** 2 * self._wide.itemsize
        return not self.stored and needed <= self.memory_budget

    def _panel(self, first: int, last: int) -> np.ndarray:
        p = self.shape[0]
        scale = 1 / math.sqrt(self.num_samples) if self.weights is None else 1.0
        flat = normal_entries(first * p, last * p, scale=scale, seed=self.seed, domain=self.domain, dtype=self.dtype)
        panel = flat.reshape(last - first, p)
        if self.population is not None:
            panel *= np.sqrt(self.population).astype(panel.real.dtype)
        return panel

    def _weights_of(self, first: int, last: int) -> Array | None:
        if self.weights is None:
            return None
        return self.backend.asarray(self.weights[first:last].astype(self.dtype))

    def _matmat(self, x: Array) -> Array:
        rows = x.T
        if self.gram_stored:
            if self._gram is None:
                self._gram = self._form_gram()
            return matmul(rows, self._gram).T
        out = self._zeros(x.shape[1])
        for first, last, panel in self._each():
            inner = self._times_adjoint(rows, panel)
            weights = self._weights_of(first, last)
            out += matmul(inner if weights is None else inner * weights, panel)
        return self._rounded(out).T

    def _form_gram(self) -> Array:
        """The transpose of the matrix, which multiplies rows."""
        gram = self._zeros(self.shape[0])
        for first, last, panel in self._each():
            weights = self._weights_of(first, last)
            gram += matmul(self.backend.conj(panel).T, panel if weights is None else weights[:, None] * panel)
        return self._rounded(gram)

    def _details(self) -> str:
        samples = f"{self.num_samples} samples, "
        if self.gram_stored:
            return f"{samples}formed once and stored, {format_bytes(self.gram_bytes)}, seed {self.seed}"
        return samples + super()._details()
