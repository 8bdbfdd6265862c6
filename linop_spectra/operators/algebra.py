"""Sums, products, scalings, adjoints and transposes of operators; sums and products are flattened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backends import Array
from .base import LinearOperator


def same_backend(operators: tuple[LinearOperator, ...]) -> Any:
    """The backend that all operators share."""
    names = {operator.backend.name for operator in operators}
    if len(names) > 1:
        raise ValueError(
            f"The operators live on different backends ({', '.join(sorted(names))}); build all of them on one, with backend=."
        )
    return operators[0].backend


def all_true(values: list[bool | None]) -> bool | None:
    """True when all are; None when one is not known or (for sums) may cancel."""
    return True if all(value is True for value in values) else None


class SumOperator(LinearOperator):
    """Sum of operators of equal shape."""

    def __init__(self, terms: tuple[LinearOperator, ...]) -> None:
        self.terms = terms
        super().__init__(
            terms[0].shape,
            np.result_type(*(term.dtype for term in terms)),
            hermitian=all_true([term.hermitian for term in terms]),
            positive_semidefinite=all_true([term.positive_semidefinite for term in terms]),
            backend=same_backend(terms),
        )

    def _total(self, products: Iterator[Array], rows: int, k: int) -> Array:
        # In an array of our own: a term that occurs twice may return one buffer twice.
        total = self.backend.empty((k, rows), self.dtype).T
        total[...] = next(products)
        for product in products:
            total += product
        return total

    def _matmat(self, x: Array) -> Array:
        return self._total((term.matmat(x) for term in self.terms), self.shape[0], x.shape[1])

    def _rmatmat(self, x: Array) -> Array:
        return self._total((term.rmatmat(x) for term in self.terms), self.shape[1], x.shape[1])

    def _children(self) -> tuple[LinearOperator, ...]:
        return self.terms


class ProductOperator(LinearOperator):
    """Product of operators, the last one applied first."""

    def __init__(self, factors: tuple[LinearOperator, ...]) -> None:
        self.factors = factors
        self._leaves = [_leaves(factor) for factor in factors]
        mirrored, middle = _mirrored(factors)
        super().__init__(
            (factors[0].shape[0], factors[-1].shape[1]),
            np.result_type(*(factor.dtype for factor in factors)),
            hermitian=True if mirrored and (middle is None or middle.hermitian) else None,
            positive_semidefinite=True if mirrored and (middle is None or middle.positive_semidefinite) else None,
            backend=same_backend(factors),
        )

    def _matmat(self, x: Array) -> Array:
        factors = self.factors
        for position in range(len(factors) - 1, -1, -1):
            x = factors[position].matmat(self._apart(x, position, position + 1))
        return x

    def _rmatmat(self, x: Array) -> Array:
        for position, factor in enumerate(self.factors):
            x = factor.rmatmat(self._apart(x, position, position - 1))
        return x

    def _apart(self, x: Array, position: int, before: int) -> Array:
        """What one factor made, for the next; copied where both share an operator, which may make it in a buffer of its own."""
        if 0 <= before < len(self.factors) and not self._leaves[position].isdisjoint(self._leaves[before]):
            return x + 0
        return x

    def _children(self) -> tuple[LinearOperator, ...]:
        return self.factors


def _leaves(operator: LinearOperator) -> frozenset[int]:
    """The operators that an operator is made of in the end."""
    children = operator._children()
    return frozenset().union(*map(_leaves, children)) if children else frozenset((id(operator),))


def _mirrored(factors: tuple[LinearOperator, ...]) -> tuple[bool, LinearOperator | None]:
    """Whether the product reads ``A ... M ... A^H``, and the operator M in the middle, if any."""
    left, right = 0, len(factors) - 1
    while left < right:
        a, b = factors[left], factors[right]
        adjoints = (isinstance(b, AdjointOperator) and b.inner is a) or (isinstance(a, AdjointOperator) and a.inner is b)
        if not (adjoints or (a is b and a.hermitian is True)):
            return False, None
        left, right = left + 1, right - 1
    return True, factors[left] if left == right else None


class ScaledOperator(LinearOperator):
    """An operator times a number."""

    def __init__(self, factor: complex, inner: LinearOperator) -> None:
        self.factor, self.inner = factor, inner
        real = np.isreal(factor)
        dtype = inner.dtype if real else np.result_type(inner.dtype, np.complex64)
        super().__init__(
            inner.shape,
            dtype,
            hermitian=inner.hermitian if real else None,
            positive_semidefinite=inner.positive_semidefinite if real and factor.real >= 0 else None,
            backend=inner.backend,
        )

    def _matmat(self, x: Array) -> Array:
        return self.factor * self.backend.asarray(self.inner.matmat(x), dtype=self.dtype)

    def _rmatmat(self, x: Array) -> Array:
        return np.conj(self.factor).item() * self.backend.asarray(self.inner.rmatmat(x), dtype=self.dtype)

    def _details(self) -> str:
        return f"times {self.factor:g}"

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


class AdjointOperator(LinearOperator):
    """Conjugate transpose of an operator."""

    def __init__(self, inner: LinearOperator) -> None:
        self.inner = inner
        super().__init__(
            inner.shape[::-1],
            inner.dtype,
            hermitian=inner.hermitian,
            positive_semidefinite=inner.positive_semidefinite,
            backend=inner.backend,
        )

    def _matmat(self, x: Array) -> Array:
        return self.inner.rmatmat(x)

    def _rmatmat(self, x: Array) -> Array:
        return self.inner.matmat(x)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


class TransposedOperator(LinearOperator):
    """Transpose of a complex operator, without conjugation."""

    def __init__(self, inner: LinearOperator) -> None:
        self.inner = inner
        super().__init__(
            inner.shape[::-1],
            inner.dtype,
            hermitian=inner.hermitian,
            positive_semidefinite=inner.positive_semidefinite,
            backend=inner.backend,
        )

    def _matmat(self, x: Array) -> Array:
        return self.backend.conj(self.inner.rmatmat(self.backend.conj(x)))

    def _rmatmat(self, x: Array) -> Array:
        return self.backend.conj(self.inner.matmat(self.backend.conj(x)))

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


def sum_of(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    """``a + b``, flattened."""
    if a.shape != b.shape:
        raise ValueError(f"Operators of shapes {a.shape} and {b.shape} cannot be added: the shapes must be equal.")
    return SumOperator(_parts(a, SumOperator, "terms") + _parts(b, SumOperator, "terms"))


def product_of(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    """``a @ b``, flattened."""
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"Operators of shapes {a.shape} and {b.shape} cannot be multiplied: the inner lengths must be equal.")
    return ProductOperator(_parts(a, ProductOperator, "factors") + _parts(b, ProductOperator, "factors"))


def _parts(operator: LinearOperator, kind: type, name: str) -> tuple[LinearOperator, ...]:
    return getattr(operator, name) if type(operator) is kind else (operator,)


def scaled(factor: Any, operator: LinearOperator) -> LinearOperator:
    """``factor * operator``; factors are collected into one."""
    number = complex(factor)
    value = number.real if number.imag == 0 else number
    if not np.isfinite(value):
        raise ValueError(f"An operator was multiplied by {factor!r}; the factor must be finite.")
    if isinstance(operator, ScaledOperator):
        return scaled(value * operator.factor, operator.inner)
    return ScaledOperator(value, operator)


def adjoint_of(operator: LinearOperator) -> LinearOperator:
    """Conjugate transpose; that of a Hermitian operator is itself."""
    if operator.hermitian:
        return operator
    return operator.inner if isinstance(operator, AdjointOperator) else AdjointOperator(operator)


def transpose_of(operator: LinearOperator) -> LinearOperator:
    """Transpose; that of a real operator is its adjoint."""
    if operator.dtype.kind != "c":
        return adjoint_of(operator)
    return operator.inner if isinstance(operator, TransposedOperator) else TransposedOperator(operator)
