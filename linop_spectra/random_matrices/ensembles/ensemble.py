"""Random matrices that are held where they fit, and made anew in every product where they do not."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._memory import format_bytes, parse_budget
from ...backends import Array, Backend
from ...backends.numpy_backend import matmul
from ...operators import LinearOperator
from .ensemble_arguments import check_seed

PANEL_BYTES = 1 << 22
"""Size of the pieces that a matrix is made and multiplied in; they are used while they are in the cache."""


class EnsembleOperator(LinearOperator):
    """A random matrix that is a list of panels, a pure function of the seed.

    A subclass lists its panels as pairs (first, last) of rows, makes one by ``_panel``, and multiplies with all of them in
    ``_matmat``. Held or made anew, the panels and the operations on them are the same, and so are the products, to the bit.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    dtype : dtype
        Of the entries.
    seed : int
        Of the generator.
    memory_budget : int, float, str or None
        The panels are held when they take no more; see `parse_budget`.
    hermitian, positive_semidefinite : bool or None
        Whether it is known to be so.
    backend : str, Backend or None
        Where panels and vectors live. Panels are made on the host and uploaded.
    """

    seed: int
    memory_budget: int

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: Any,
        *,
        seed: int,
        memory_budget: int | float | str | None,
        hermitian: bool | None = True,
        positive_semidefinite: bool | None = None,
        backend: str | Backend | None,
    ) -> None:
        super().__init__(shape, dtype, hermitian=hermitian, positive_semidefinite=positive_semidefinite, backend=backend)
        self.seed = check_seed(seed)
        self.memory_budget = parse_budget(memory_budget, total=self.backend.total_memory())
        self._held: list[Array] | None = None

    @abc.abstractmethod
    def _cut(self, entries: int) -> Iterator[tuple[int, int]]:
        """Panels of about so many entries each, and of one row at least."""

    @abc.abstractmethod
    def _panel(self, first: int, last: int) -> np.ndarray:
        """The rows `first` to `last`, made from the seed, on the host."""

    @property
    @abc.abstractmethod
    def num_bytes(self) -> int:
        """Bytes of the random entries."""

    def panels(self) -> Iterator[tuple[int, int]]:
        """Pairs (first, last) of rows, in order; made on the way, because a huge matrix has many."""
        return self._cut(max(1, min(PANEL_BYTES, self.memory_budget) // self.dtype.itemsize))

    @property
    def stored(self) -> bool:
        """Whether the matrix is held in memory, from the first product on; else every product makes it anew."""
        return self.num_bytes <= self.memory_budget

    def _each(self) -> Iterator[tuple[int, int, Array]]:
        """Panels with their rows, from memory or made on the way."""
        if self.stored and self._held is None:
            self._held = [self.backend.asarray(self._panel(first, last)) for first, last in self.panels()]
        for index, (first, last) in enumerate(self.panels()):
            yield first, last, self.backend.asarray(self._panel(first, last)) if self._held is None else self._held[index]

    @property
    def _wide(self) -> np.dtype:
        return np.dtype(np.complex128 if self.dtype.kind == "c" else np.float64)

    def _zeros(self, k: int, length: int | None = None) -> Array:
        """Rows in double precision, of the length of the rows of the matrix, to sum over many panels in."""
        out = self.backend.empty((k, self.shape[1] if length is None else length), self._wide)
        out[...] = 0.0
        return out

    def _rounded(self, rows: Array) -> Array:
        return self.backend.contiguous(rows, self.dtype)

    def _times_adjoint(self, rows: Array, panel: Array) -> Array:
        """``rows @ panel.conj().T`` without a conjugate copy of the panel."""
        conj = self.backend.conj
        return conj(matmul(conj(rows), panel.T))

    def _details(self) -> str:
        size = format_bytes(self.num_bytes)
        how = f"stored, {size}" if self.stored else f"regenerated in every product, {size} by pieces"
        return f"{how}, seed {self.seed}"


def rows_that_fit(total: int, width: int, entries: int) -> Iterator[tuple[int, int]]:
    """Cut `total` rows of `width` entries each into panels of at most `entries` entries, and at least one row."""
    step = max(1, entries // width)
    for first in range(0, total, step):
        yield first, min(first + step, total)
