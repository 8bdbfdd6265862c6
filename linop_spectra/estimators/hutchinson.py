"""Traces as averages of quadratic forms: of unit vectors, of random signs, and of random signs outside of a subspace (Hutch++)."""

from __future__ import annotations

import abc
import dataclasses
import math

import numpy as np

from ..backends import Array
from ..krylov.basis import DenseBasis
from ..krylov.orthonormal import OrthonormalRows
from ..operators import LinearOperator
from .sampling import BLOCK, ScaledProducts, half_width, mean_with_error, multiply, random_rows, unit_rows


@dataclasses.dataclass(frozen=True)
class Found:
    """What a sampler knows so far: value, statistical error with its degrees of freedom, and rounding error."""

    value: float
    error: float
    dof: float
    rounding: float


class TraceSampler(abc.ABC):
    """Base of the samplers of a trace."""

    method = ""
    doubling = True

    def __init__(self, operator: LinearOperator, seed: int) -> None:
        self.operator, self.seed, self.spent = operator, seed, 0
        self.n = operator.shape[0]
        self._multiply = ScaledProducts(operator)

    @property
    def useful(self) -> bool:
        """Whether there is an estimate already."""
        return self.spent > 0

    @abc.abstractmethod
    def advance(self, limit: int) -> int:
        """Take a block of at most `limit` products; returns how many."""

    @abc.abstractmethod
    def found(self) -> Found:
        """Estimate from the products so far."""

    def met(self, tol: float) -> bool:
        """Whether half the 95 % interval is within `tol` times the modulus of the estimate."""
        now = self.found()
        return half_width(now.error, now.dof) + now.rounding <= tol * abs(now.value)

    @property
    def unit(self) -> float:
        """Power of two that everything here is multiplied by, so that squares of it are numbers."""
        return self._multiply.unit

    @property
    def largest(self) -> float:
        """Largest norm of a product so far."""
        return self._multiply.largest

    def take_over(self, other: TraceSampler) -> None:
        """Go on in the unit of another sampler, whose products are used here."""
        self._multiply = ScaledProducts(self.operator, other._multiply)

    @property
    def rounding(self) -> float:
        """Rounding of a quadratic form: ``4 eps |z| |A z|`` with the largest product seen, ``|z|^2 = n``."""
        return 4 * self.operator.unit_rounding * math.sqrt(self.n) * self.largest

    def _forms(self, rows: Array, products: Array) -> list[float]:
        backend = self.operator.backend
        forms = np.real(backend.fetch([backend.dot(rows[i, :], products[i, :]) for i in range(rows.shape[0])]))
        return [float(form) for form in forms]


class Hutchinson(TraceSampler):
    """Average of ``z^H A z`` over vectors of random signs (Hutchinson, 1989).

    With `keep`, the first block is kept in `first` for whoever wants to use it for more.
    """

    method = "hutchinson"
    doubling = False

    def __init__(self, operator: LinearOperator, seed: int, *, keep: int = 0) -> None:
        super().__init__(operator, seed)
        self.samples: list[float] = []
        self.first: tuple[Array, Array] | None = None
        self._keep = keep

    def advance(self, limit: int) -> int:
        """One block of signs."""
        count = min(self._keep if self._keep and not self.spent else BLOCK, limit)
        rows = random_rows(self.operator, range(self.spent, self.spent + count), "sign", self.seed, "trace")
        products = self._multiply(rows, self.spent)
        self.samples += self._forms(rows, products)
        if self._keep and not self.spent:
            self.first = rows, products
        self.spent += count
        return count

    def found(self) -> Found:
        """Mean and standard error of the mean."""
        return Found(*mean_with_error(np.array(self.samples)), self.rounding)


class Exact(TraceSampler):
    """Sum of ``e_i^H A e_i`` over the unit vectors."""

    method = "exact"

    def __init__(self, operator: LinearOperator, seed: int = 0) -> None:
        super().__init__(operator, seed)
        self.total = self._modulus = self._largest = 0.0

    @property
    def useful(self) -> bool:
        """Only the whole sum is."""
        return self.spent == self.n

    def advance(self, limit: int) -> int:
        """One block of unit vectors."""
        indices = range(self.spent, min(self.spent + min(BLOCK, limit), self.n))
        rows = unit_rows(self.operator, indices)
        products, norms = multiply(self.operator, rows, self.spent)  # sums need no unit of their own
        self._largest = max(self._largest, float(norms.max()))
        forms = self._forms(rows, products)
        self.total += math.fsum(forms)
        self._modulus += math.fsum(map(abs, forms))
        self.spent += len(indices)
        return len(indices)

    def found(self) -> Found:
        """The sum; its rounding is that of the diagonal entries."""
        return Found(self.total, 0.0, math.inf, self.operator.unit_rounding * (self._modulus + math.sqrt(self.n) * self._largest))


class HutchPlusPlus(TraceSampler):
    """Hutch++: exact in a subspace, Hutchinson outside of it.

    A third of the products finds a basis Q of the range, a third takes the trace in it exactly, and a third samples
    ``z^H (I - Q Q^H) A (I - Q Q^H) z`` with other signs. Given Q these samples are independent and unbiased for what is left, so that their
    own spread is an honest error. All products are used again when the budget grows: when Q does, the components of the new
    rows are taken out of the samples by the products with those rows.
    """

    method = "hutch++"

    def __init__(self, operator: LinearOperator, seed: int) -> None:
        super().__init__(operator, seed)
        backend, n, dtype = operator.backend, self.n, operator.dtype
        self.range = OrthonormalRows(backend, n, dtype)
        self._probes = DenseBasis(backend, n, dtype)  # z, without components along Q
        self._products = DenseBasis(backend, n, dtype)  # A z, likewise
        self.inside = 0.0

    def advance(self, limit: int) -> int:
        """A block of each third; only samples where the limit allows no more, or the range is found."""
        if self.range.rank == self.n:
            return 0
        share = min(BLOCK, limit // 3) if limit > 3 else 0
        if self.range.count > self.range.rank:  # another vector adds nothing
            share = 0
            if self._probes.length > 1 and self.found().error <= self.rounding:
                return 0
        spent = 0
        if share:
            signs = random_rows(self.operator, range(self.range.count, self.range.count + share), "sign", self.seed, "trace range")
            images = self._multiply(signs, self.spent)
            with self.range.undone_by_failure():
                new = sum(self.range.append(images))
                spent = share + self._grow(new, self.spent + share)
        # What three does not divide goes to the samples.
        count = min(max(share, BLOCK if not share else 0) + ((limit - 3 * share) if limit - 3 * share < 3 else 0), limit - spent)
        if count and self.range.rank < self.n:
            self._sample(count, self.spent + spent)
            spent += count
        self.spent += spent
        return spent

    def _grow(self, new: int, done: int) -> int:
        """Products with the new rows of Q."""
        if not new:
            return 0
        backend, rows = self.operator.backend, self.range.newest(new)
        images = self._multiply(rows, done)
        self.inside += math.fsum(self._forms(rows, images))
        for i in range(self._probes.length):
            probe, product = self._probes.row(i), self._products.row(i)
            coefficients = backend.gemv_t(rows, probe)
            backend.gemv_n_sub(rows, coefficients, probe)
            backend.gemv_n_sub(images, coefficients, product)
        return new

    def _sample(self, count: int, done: int) -> None:
        first = self._probes.length
        signs = random_rows(self.operator, range(first, first + count), "sign", self.seed, "trace")
        for i in range(count):
            for _ in range(2):
                self.range.basis.remove_components(signs[i, :], self.range.rank)
        products = self._multiply(signs, done)
        for i in range(count):
            self._probes.append()[...] = signs[i, :]
            self._products.append()[...] = products[i, :]

    def found(self) -> Found:
        """Exact part plus the mean of the samples."""
        if self.range.rank == self.n:
            return Found(self.inside, 0.0, math.inf, self.rounding)
        backend = self.operator.backend
        pairs = [backend.dot(self._probes.row(i), self._products.row(i)) for i in range(self._probes.length)]
        mean, error, dof = mean_with_error(np.real(backend.fetch(pairs)).astype(np.float64))
        return Found(self.inside + mean, error, dof, self.rounding)
