"""XTrace and XNysTrace: traces that are exact where the spectrum is large, from vectors that all do two things at once.

The products are here, the algebra of the small matrices and the standard error in `leave_out`.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from ..backends import Array, Backend
from ..krylov.basis import DenseBasis
from ..krylov.orthonormal import OrthonormalRows
from ..operators import LinearOperator
from .hutchinson import Found, TraceSampler
from .leave_out import Forms, NystromForms, RangeForms, mean_and_variance
from .sampling import BLOCK, random_rows

_SHIFT = 10.0
"""Units of rounding that XNysTrace adds to the diagonal, so that the core of a matrix of low rank can be inverted."""


class _LeaveOneOut(TraceSampler):
    """What XTrace and XNysTrace share.

    Parameters
    ----------
    operator : LinearOperator
        Square operator.
    seed : int
        Of the vectors, uniform on the sphere.
    first : tuple of arrays, optional
        Vectors and their products that are there already, as rows: they span the space but do not probe.
    """

    def __init__(self, operator: LinearOperator, seed: int, first: tuple[Array, Array] | None) -> None:
        super().__init__(operator, seed)
        self.probes = DenseBasis(operator.backend, self.n, operator.dtype)
        self.spanning = 0
        self._first = first
        self._known: tuple[int, Found] | None = None

    @property
    def probing(self) -> int:
        """Vectors that probe."""
        return self.probes.length - self.spanning

    def _more(self, count: int) -> Array:
        first = self.probing
        return random_rows(self.operator, range(first, first + count), "sphere", self.seed, "trace sphere")

    def found(self) -> Found:
        """Mean of the leave-one-out estimates and its standard error."""
        if self._known is None or self._known[0] != self.spent:
            self._known = self.spent, self._evaluate()
        return self._known[1]

    @abc.abstractmethod
    def _evaluate(self) -> Found:
        """Mean and standard error from all vectors."""

    def _summary(self, forms: Forms, shift: float) -> Found:
        if self.probing < 2:
            return Found(float(np.mean(forms.estimates()[0])) - shift, math.inf, 1.0, self.rounding + shift)
        value, variance = mean_and_variance(forms, self.seed)
        return Found(float(value) - shift, math.sqrt(float(variance)), self.probing - 1.0, self.rounding + shift)


class XTrace(_LeaveOneOut):
    """XTrace for any square operator (Epperly, Tropp and Webber, 2024, section 2).

    Half of the products finds the range, the other half multiplies its orthonormal basis.
    """

    method = "xtrace"

    def __init__(self, operator: LinearOperator, seed: int, first: tuple[Array, Array] | None = None) -> None:
        super().__init__(operator, seed, first)
        self.range = OrthonormalRows(operator.backend, self.n, operator.dtype)
        self._images = DenseBasis(operator.backend, self.n, operator.dtype)  # A Q
        self._captured = False
        wide = self.range.coefficients.dtype
        self._H, self._W, self._T, self._gram = (np.zeros((0, 0), dtype=wide) for _ in range(4))

    def advance(self, limit: int) -> int:
        """A block of vectors and as many images of basis vectors."""
        if self._captured or self.range.rank == self.n:
            return 0
        if self._first is not None:
            rows, products = self._first
            spent, count = 0, rows.shape[0]
            if limit < count:
                return 0
        else:
            # One product alone is one sample; from two on they come in pairs.
            count = min(BLOCK, limit // 2, self.n - self.range.rank) if limit > 1 else (0 if self.probes.length else 1)
            if count == 0:
                return 0
            rows = self._more(count)
            products, spent = self._multiply(rows, self.spent), count
        rank, given = self.range.rank, self._first is not None
        with self.range.undone_by_failure():
            independent = self.range.append(products)
            new = self.range.rank - rank
            if new and limit > 1:
                images = self._multiply(self.range.newest(new), self.spent + spent)
                spent += new
                for i in range(new):
                    self._images.append()[...] = images[i, :]
        chosen = [i for i, good in enumerate(independent) if good]
        if given:
            # Random signs may depend on one another; only what is independent of them counts.
            self.spanning, self._first = new, None
            self.range.keep(chosen)
        else:
            # A product inside of the space of the others, of a random vector, means that the space is the whole range.
            self._captured = new < count
        for i in chosen:
            self.probes.append()[...] = rows[i, :]
        self.spent += spent
        return self.advance(limit) if given and not spent else spent

    def _evaluate(self) -> Found:
        backend, rank, p = self.operator.backend, self.range.rank, self.spanning
        if self._images.length < rank:  # one product, and none with the basis
            form = float(np.real(backend.fetch([backend.dot(self.probes.row(0), self._product_of_first())])[0]))
            return Found(form, 0.0 if self.n == 1 else math.inf, 1.0, self.rounding)
        self._H = extended_gram(backend, self._H, self.range.basis, self._images)
        if self._captured or rank == self.n:
            return Found(float(np.real(np.trace(self._H))), 0.0, math.inf, 4 * self.rounding)
        self._W = extended_gram(backend, self._W, self.range.basis, self.probes)
        self._T = extended_gram(backend, self._T, self._images, self.probes)
        self._gram = extended_gram(backend, self._gram, self.probes, self.probes)
        if not self.probing:
            return Found(float(np.real(np.trace(self._H))), math.inf, 1.0, self.rounding)
        forms = RangeForms.of(self.range.coefficients, self._H, self._W[:, p:], self._T[:, p:], self._gram[p:, p:], self.n)
        return self._summary(forms, 0.0)

    def _product_of_first(self) -> Any:
        row = self.operator.backend.empty((self.n,), self.operator.dtype)
        self.operator.backend.scale_into(self.range.basis.row(0), float(np.real(self.range.coefficients[0, 0])), row)
        return row


class XNysTrace(_LeaveOneOut):
    """XNysTrace for positive semidefinite operators (Epperly, Tropp and Webber, 2024, section 3); one product for each vector.

    A shift at the level of rounding keeps the core of a matrix of low rank invertible; it is taken off the estimate again.
    """

    method = "xnystrace"

    def __init__(self, operator: LinearOperator, seed: int, allowed: int, first: tuple[Array, Array] | None = None) -> None:
        super().__init__(operator, seed, first)
        self.range = OrthonormalRows(operator.backend, self.n, operator.dtype)  # of A + shift
        self._shifted = DenseBasis(operator.backend, self.n, operator.dtype)
        self._allowed = allowed
        self._shift: float | None = None
        wide = self.range.coefficients.dtype
        self._core, self._gram = (np.zeros((0, 0), dtype=wide) for _ in range(2))

    def advance(self, limit: int) -> int:
        """A block of vectors."""
        if self._first is not None:
            (rows, products), spent = self._first, 0
            self.spanning, self._first = rows.shape[0], None
            self._add(rows, products)
        count = min(BLOCK, limit, self.n - self.probes.length)
        if count <= 0 or (self.largest == 0.0 and self.probing):
            return 0
        rows = self._more(count)
        products, spent = self._multiply(rows, self.spent), count
        self._add(rows, products)
        self.spent += spent
        return spent

    def _norms(self, rows: Array) -> np.ndarray:
        backend = self.operator.backend
        return np.asarray(backend.fetch([backend.norm(rows[i, :]) for i in range(rows.shape[0])]))

    def _add(self, rows: Array, products: Array) -> None:
        if self._shift is None:
            size = math.sqrt(float(np.mean(np.real(self._norms(products)) ** 2)))  # about the Frobenius norm
            unit = max(self.operator.unit_rounding, float(np.finfo(self.operator.dtype).eps))
            self._shift = _SHIFT * unit * size * math.sqrt(min(self._allowed, self.n) / self.n)
        products += rows * self._shift
        self.range.append(products)
        for i in range(rows.shape[0]):
            self.probes.append()[...] = rows[i, :]
            self._shifted.append()[...] = products[i, :]

    def _evaluate(self) -> Found:
        backend, m = self.operator.backend, self.probes.length
        shift = self.n * (self._shift or 0.0)
        if self.largest == 0.0:
            return Found(0.0, 0.0, math.inf, 0.0)
        self._core = extended_gram(backend, self._core, self.probes, self._shifted)
        self._gram = extended_gram(backend, self._gram, self.probes, self.probes)
        self._check(self._core)
        if m == 1 and self.n > 1:
            return Found(float(np.real(self._core[0, 0])) - shift, math.inf, 1.0, self.rounding + shift)
        forms = NystromForms.of(self.range.coefficients, self._core, self._gram, self.n, self.probing)
        if m == self.n:  # nothing is left to chance
            values, vectors = np.linalg.eigh((self._core + self._core.conj().T) / 2)
            factor = self.range.coefficients @ (vectors / np.sqrt(np.maximum(values, np.finfo(float).eps * values[-1])))
            return Found(float(np.sum(np.abs(factor) ** 2)) - shift, 0.0, math.inf, 10 * (self.rounding + shift))
        return self._summary(forms, shift)

    def _check(self, core: np.ndarray) -> None:
        """Raise unless the quadratic forms are those of a positive semidefinite operator."""
        rounding = math.sqrt(self.operator.unit_rounding)
        skew = float(np.max(np.abs(core - core.conj().T)))
        size = max(float(np.max(np.abs(core))), math.sqrt(self.n) * self.largest)
        lowest = float(np.linalg.eigvalsh((core + core.conj().T) / 2)[0])
        if skew > rounding * size:
            raise ValueError("The argument method is 'xnystrace', which needs a Hermitian operator, but this one is not: use 'xtrace'.")
        if lowest < -rounding * size:
            raise ValueError(
                "The argument method is 'xnystrace', which needs a positive semidefinite operator, but this one has a negative "
                f"quadratic form ({lowest / self.n / self.unit:.3g} for a vector of about unit length): use 'xtrace' or 'hutch++'."
            )


def extended_gram(backend: Backend, known: np.ndarray, left: DenseBasis, right: DenseBasis) -> np.ndarray:
    """``conj(left) right^T`` of all rows, shape (left, right), where its upper left part is known."""
    rows, columns = known.shape
    out = np.zeros((left.length, right.length), dtype=known.dtype)
    out[:rows, :columns] = known
    for j in range(columns, right.length):
        out[:, j] = left.coefficients(right.row(j), left.length)
    for i in range(rows, left.length):
        if columns:
            out[i, :columns] = np.conj(right.coefficients(left.row(i), columns))
    return out
