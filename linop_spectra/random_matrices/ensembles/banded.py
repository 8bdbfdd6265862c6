"""Hermitian band matrices by their diagonals, on every backend."""

from __future__ import annotations

import numpy as np

from ..._memory import format_bytes
from ...backends import Array, Backend, get_backend
from ...operators import LinearOperator

_CHUNK = 1 << 14
"""Columns multiplied at a time on the host: what is read and written then stays in the cache."""


class BandedOperator(LinearOperator):
    """A Hermitian matrix by its diagonal and the diagonals below it.

    Parameters
    ----------
    diagonals : ndarray
        Shape (bandwidth + 1, n): entry (k, j) is the matrix entry in row j + k and column j. The first diagonal is real.
    periodic : bool
        Whether rows count modulo n; otherwise entries below the last row are ignored.
    positive_semidefinite : bool or None
        Whether it is known to be so.
    details : str
        For the printed tree.
    backend : str, Backend or None
        Where diagonals and vectors live.
    """

    def __init__(
        self,
        diagonals: np.ndarray,
        *,
        periodic: bool = False,
        positive_semidefinite: bool | None = None,
        details: str = "",
        backend: str | Backend | None = None,
    ) -> None:
        resolved = get_backend(backend)
        self.diagonals, self.periodic, self.details = resolved.asarray(diagonals), periodic, details
        n = diagonals.shape[1]
        super().__init__((n, n), diagonals.dtype, hermitian=True, positive_semidefinite=positive_semidefinite, backend=resolved)

    @property
    def bandwidth(self) -> int:
        """Diagonals on either side of the main one."""
        return int(self.diagonals.shape[0]) - 1

    def _matmat(self, x: Array) -> Array:
        rows, n = x.T, self.shape[0]
        out = self.backend.empty((x.shape[1], n), self.dtype)
        conjugates = self.backend.conj(self.diagonals)
        # On a device one large piece is best.
        step = max(256, _CHUNK // x.shape[1]) if self.backend.name == "numpy" else n
        for first in range(0, n, step):
            last = min(first + step, n)
            out[:, first:last] = self.diagonals[0, first:last] * rows[:, first:last]
        for first in range(0, n, step):
            last = min(first + step, n)
            for k in range(1, self.bandwidth + 1):
                self._add(rows, out, conjugates, k, first, min(last, n - k), k)
                if self.periodic:
                    self._add(rows, out, conjugates, k, max(first, n - k), last, k - n)
        return out.T

    def _add(self, rows: Array, out: Array, conjugates: Array, k: int, first: int, last: int, offset: int) -> None:
        """The entries of one diagonal in columns `first` to `last`, and their mirror images."""
        if first < last:
            out[:, first + offset : last + offset] += self.diagonals[k, first:last] * rows[:, first:last]
            out[:, first:last] += conjugates[k, first:last] * rows[:, first + offset : last + offset]

    def _details(self) -> str:
        size = self.diagonals.shape[0] * self.shape[0] * self.dtype.itemsize
        return ", ".join([f"bandwidth {self.bandwidth}", format_bytes(size), *filter(None, [self.details])])
