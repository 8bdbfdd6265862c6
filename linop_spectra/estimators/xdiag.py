"""XDiag: the diagonal of what a few products span, exactly, and of the rest from the same vectors, each left out in turn.

Epperly, Tropp and Webber (2024), section 4. The estimate from vector i is

    t_i = diag(Q_i Q_i^H A) + conj(omega_i) * (I - Q_i Q_i^H) A omega_i,

where ``Q_i`` spans the products of the other vectors. As for the trace (`leave_out`), the errors of two of them are correlated, and
leaving out both says by how much, without bias and entry by entry: with ``t_i^(j)``, the estimate without vector j at all,

    Var mean(t) = s^2 / m + mean over pairs of (t_i - t_i^(j)) (t_j - t_j^(i)).

Vectors of signs cannot be mixed as Gaussian ones can, so that the second term stays noisy, and is not let below zero. For more
than 33 vectors it is the mean over the pairs of neighbours up to 16 places apart, which is as unbiased.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np

from ..backends import Array, Backend
from ..krylov.basis import DenseBasis
from ..krylov.orthonormal import OrthonormalRows

_NEIGHBOURS = 16
_ROUNDING = 100 * float(np.finfo(np.float64).eps)


class XDiagForms:
    """Vectors, products and the basis that they span.

    Attributes
    ----------
    complete : bool
        Whether the basis is known to span the whole range.
    single : array or None
        The only sample there is, where one product was allowed.
    """

    def __init__(self, backend: Backend, n: int, dtype: np.dtype) -> None:
        self.backend, self.n, self.dtype = backend, n, np.dtype(dtype)
        self.range = OrthonormalRows(backend, n, dtype)
        self._images = DenseBasis(backend, n, dtype)  # A^H Q
        self._probes = DenseBasis(backend, n, dtype)
        self._columns: list[int] = []  # of R, one for each probe
        self._kept: list[int] = []  # columns of R that were independent
        self.complete = False
        self.single: Array | None = None

    @property
    def rank(self) -> int:
        """Rows of the basis."""
        return self.range.rank

    @contextlib.contextmanager
    def undone_by_failure(self) -> Iterator[None]:
        """Context that, left by an exception, forgets what was taken in within it."""
        kept, columns, probes, complete = len(self._kept), len(self._columns), self._probes.length, self.complete
        try:
            with self.range.undone_by_failure():
                yield
        except BaseException:
            del self._kept[kept:], self._columns[columns:]
            self._probes.length, self.complete = probes, complete
            raise

    def append(self, rows: Array, products: Array) -> int:
        """Take in vectors and products; returns how many were independent."""
        first, before = self.range.count, self.rank
        for i, independent in enumerate(self.range.append(products)):
            if independent:
                self._kept.append(first + i)
                self._columns.append(len(self._kept) - 1)
                self._probes.append()[...] = rows[i, :]
        self.complete = self.rank == self.n
        return self.rank - before

    def append_spanning(self, products: Array) -> int:
        """Take in the product of a vector on the sphere: a dependent one means that the range is complete."""
        first, (independent,) = self.range.count, self.range.append(products)
        if independent:
            self._kept.append(first)
        self.complete = not independent or self.rank == self.n
        return int(independent)

    def append_images(self, images: Array) -> None:
        """Take in products of the adjoint with the newest rows of the basis."""
        for i in range(images.shape[0]):
            self._images.append()[...] = images[i, :]

    def estimate(self, wide: Callable[[Array], Array], constant: Callable[[float], Array]) -> tuple[Array, Array, float]:
        """Value and variance of each entry, and degrees of freedom.

        Parameters
        ----------
        wide : callable
            Real part in double precision.
        constant : callable
            A real array of shape (n,) filled with a number.
        """
        if self.single is not None:
            return self.single, constant(0.0 if self.n == 1 else math.inf), 1.0
        conj = self.backend.conj
        inside = constant(0.0)
        for a in range(self._images.length):
            inside += wide(self.range.basis.row(a) * conj(self._images.row(a)))
        m = len(self._columns)
        if self.complete:
            return inside, constant(0.0), math.inf
        if not m:
            return inside, constant(math.inf), 1.0
        R = self.range.coefficients[:, self._kept]
        S = np.linalg.inv(R).conj().T[:, self._columns]
        lengths = np.linalg.norm(S, axis=0)
        S, rest = S / lengths, 1.0 / lengths  # directions that only vector i spans, and the length of its product there
        f, e = self.range.basis.combine(S.T), self._images.combine(S.T)
        mean, squares = constant(0.0), constant(0.0)
        for i in range(m):
            term = conj(self._probes.row(i)) * float(rest[i]) - conj(e[i, :])
            change = wide(f[i, :] * term) - mean
            mean += change * (1.0 / (i + 1))
            squares += change * change * (i / (i + 1))
        if m < 2:
            return inside + mean, constant(math.inf), 1.0
        variance = squares * (1.0 / (m * (m - 1)))
        C = S.conj().T @ S
        covariance = constant(0.0)
        if m <= 2 * _NEIGHBOURS + 1:
            pairs = [(i, j) for i in range(m) for j in range(i)]
        else:
            pairs = [(i, (i + offset) % m) for i in range(m) for offset in range(1, _NEIGHBOURS + 1)]
        for i, j in pairs:
            covariance += self._change(i, j, C, rest, f, e, wide) * self._change(j, i, C, rest, f, e, wide)
        covariance *= 1.0 / len(pairs)
        # Not below zero: the larger of a number and zero is half of it plus half of its modulus.
        return inside + mean, variance + 0.5 * (covariance + (covariance * covariance) ** 0.5), m - 1.0

    def _change(
        self, i: int, j: int, C: np.ndarray, rest: np.ndarray, f: Array, e: Array, wide: Callable[[Array], Array]
    ) -> Array:
        """``t_i - t_i^(j)``: the direction that leaving out j takes away as well, in both parts of the estimate."""
        c = complex(C[i, j]) if self.dtype.kind == "c" else float(np.real(C[i, j]))
        size = max(1.0 - abs(c) ** 2, _ROUNDING)
        image = e[j, :] - e[i, :] * c + self._probes.row(i) * (c * float(rest[i]))
        return wide((f[j, :] - f[i, :] * c) * self.backend.conj(image)) * (1.0 / size)
