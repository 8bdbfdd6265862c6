r"""Block-diagonal matrices whose blocks are Kronecker products, or diagonal in the eigenvectors of one."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..backends import Array, Backend
from ..curvature.blocks import BlockOperator
from ..operators import LinearOperator
from .approximation import Approximation, check_damping, require_invertible


class FactoredBlock(abc.ABC):
    """A symmetric block for parameters that form a matrix, or a vector, anywhere among the others.

    Parameters
    ----------
    names : tuple of str
        The parameters in it.
    places : numpy.ndarray
        Where their numbers are in the vector of parameters, shape (rows, columns) or (rows,).

    Attributes
    ----------
    names, places
        As above.
    """

    def __init__(self, names: tuple[str, ...], places: np.ndarray) -> None:
        self.names, self.places = names, places

    @abc.abstractmethod
    def apply(self, x: Array) -> Array:
        """Product with vectors in rows, shape (k, size)."""

    @property
    @abc.abstractmethod
    def eigenvalues(self) -> np.ndarray:
        """In the order of the eigenvectors, shape of `places`, in double precision."""

    @abc.abstractmethod
    def in_eigenvectors(self, x: Array, factors: Array) -> Array:
        """``V diag(factors) V^T`` times vectors in rows; `factors` has the shape of `places`."""

    @abc.abstractmethod
    def eigenvector(self, index: int) -> np.ndarray:
        """One eigenvector, shape (size,)."""

    def solve_factored(self, x: Array, damping: float, identity: float) -> Array:
        """The inverse with damping put into the factors, times vectors in rows; the exact one where there are no factors."""
        return self.in_eigenvectors(x, 1.0 / (self.eigenvalues + damping + identity))


class KroneckerBlock(FactoredBlock):
    r"""The Kronecker product :math:`R \otimes C` of positive semidefinite factors, of which `R` acts on rows and `C` on columns.

    Parameters
    ----------
    names, places
        As in `FactoredBlock`.
    rows, columns : array
        `R` and `C` in double precision, on the backend.
    backend : Backend
        Where products are computed.
    dtype : dtype
        In which products are computed.
    """

    def __init__(
        self, names: tuple[str, ...], places: np.ndarray, rows: Array, columns: Array, backend: Backend, dtype: np.dtype
    ) -> None:
        super().__init__(names, places)
        self.rows, self.columns = backend.to_numpy(rows), backend.to_numpy(columns)
        self._backend, self._dtype = backend, dtype
        self._factors = backend.asarray(rows, dtype=dtype), backend.asarray(columns, dtype=dtype)

    def apply(self, x: Array) -> Array:
        """``R X C`` for each vector."""
        left, right = self._factors
        return self._between(x, left, right)

    def _between(self, x: Array, left: Array, right: Array) -> Array:
        shape = (x.shape[0], *self.places.shape)
        return self._backend.reshape(left @ (self._backend.reshape(x, shape) @ right), (x.shape[0], self.places.size))

    @cached_property
    def bases(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Eigenvalues and eigenvectors of both factors."""
        return _eigh(self.rows), _eigh(self.columns)

    @cached_property
    def _vectors(self) -> tuple[Array, Array]:
        (_, u), (_, v) = self.bases
        return self._backend.asarray(u, dtype=self._dtype), self._backend.asarray(v, dtype=self._dtype)

    @property
    def eigenvalues(self) -> np.ndarray:
        """Products of those of the factors."""
        (left, _), (right, _) = self.bases
        return left[:, None] * right[None, :]

    def in_eigenvectors(self, x: Array, factors: Array) -> Array:
        """``U (factors * (U^T X V)) V^T`` for each vector."""
        u, v = self._vectors
        shape = (x.shape[0], *self.places.shape)
        inside = self._backend.reshape(self._between(x, u.T, v), shape) * self._backend.asarray(factors, dtype=self._dtype)
        return self._between(inside, u, v.T)

    def eigenvector(self, index: int) -> np.ndarray:
        """The Kronecker product of two."""
        (_, u), (_, v) = self.bases
        i, j = np.unravel_index(index, self.places.shape)
        return np.kron(u[:, i], v[:, j])

    def solve_factored(self, x: Array, damping: float, identity: float) -> Array:
        r"""The inverse of :math:`(R + \sqrt\delta/\pi\, I) \otimes (C + \pi \sqrt\delta\, I)` (Martens and Grosse, 2015, section 6.3)."""
        (left, _), (right, _) = self.bases
        root = (damping + identity) ** 0.5
        means = right.mean(), left.mean()
        balance = (means[0] / means[1]) ** 0.5 if min(means) > 0 else 1.0
        both = (left + root / balance)[:, None] * (right + root * balance)[None, :]
        return self.in_eigenvectors(x, 1.0 / both)


class RescaledBlock(KroneckerBlock):
    """A block with the eigenvectors of a Kronecker product and eigenvalues of its own.

    Parameters
    ----------
    base : KroneckerBlock
        Whose eigenvectors these are.
    eigenvalues : numpy.ndarray
        Shape of ``base.places``.
    """

    def __init__(self, base: KroneckerBlock, eigenvalues: np.ndarray) -> None:
        FactoredBlock.__init__(self, base.names, base.places)
        self.rows, self.columns, self._backend, self._dtype = base.rows, base.columns, base._backend, base._dtype
        self.__dict__["bases"] = base.bases
        self._values = eigenvalues
        self._own = self._backend.asarray(eigenvalues, dtype=self._dtype)

    def apply(self, x: Array) -> Array:
        """In the eigenvectors."""
        return self.in_eigenvectors(x, self._own)

    @property
    def eigenvalues(self) -> np.ndarray:
        """Its own."""
        return self._values

    def solve_factored(self, x: Array, damping: float, identity: float) -> Array:
        """There are no factors to damp."""
        return FactoredBlock.solve_factored(self, x, damping, identity)


class DenseBlock(FactoredBlock):
    """An explicit matrix.

    Parameters
    ----------
    names, places
        As in `FactoredBlock`; places of shape (rows,).
    matrix : array
        Symmetric, on the backend.
    backend : Backend
        Where products are computed.
    dtype : dtype
        In which products are computed.
    """

    def __init__(self, names: tuple[str, ...], places: np.ndarray, matrix: Array, backend: Backend, dtype: np.dtype) -> None:
        super().__init__(names, places)
        self.matrix = np.asarray(backend.to_numpy(matrix), dtype=np.float64)
        self._backend, self._dtype = backend, dtype
        self._own = backend.asarray(self.matrix, dtype=dtype)

    def apply(self, x: Array) -> Array:
        """The product."""
        return x @ self._own

    @cached_property
    def _basis(self) -> tuple[np.ndarray, np.ndarray]:
        return _eigh(self.matrix)

    @property
    def eigenvalues(self) -> np.ndarray:
        """In ascending order."""
        return self._basis[0]

    def in_eigenvectors(self, x: Array, factors: Array) -> Array:
        """By all eigenvectors."""
        vectors = self._backend.asarray(self._basis[1], dtype=self._dtype)
        return ((x @ vectors) * self._backend.asarray(factors, dtype=self._dtype)) @ vectors.T

    def eigenvector(self, index: int) -> np.ndarray:
        """One of them."""
        return self._basis[1][:, index]


class ZeroBlock(FactoredBlock):
    """Zeros, for parameters that the outputs do not depend on."""

    def __init__(self, names: tuple[str, ...], places: np.ndarray, backend: Backend, dtype: np.dtype) -> None:
        super().__init__(names, places)
        self._backend, self._dtype = backend, dtype

    def apply(self, x: Array) -> Array:
        """Zeros."""
        return x * 0

    @property
    def eigenvalues(self) -> np.ndarray:
        """Zeros."""
        return np.zeros(self.places.shape)

    def in_eigenvectors(self, x: Array, factors: Array) -> Array:
        """The eigenvectors are the axes."""
        return x * self._backend.asarray(factors, dtype=self._dtype)

    def eigenvector(self, index: int) -> np.ndarray:
        """An axis."""
        return np.eye(1, self.places.size, index)[0]


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of a matrix known to be positive semidefinite, so that negative ones are rounding."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.maximum(values, 0.0), vectors


class FactoredOperator(LinearOperator):
    """Blocks along the diagonal, plus a multiple of the identity.

    Parameters
    ----------
    layers : sequence of FactoredBlock
        They cover every place once.
    blocks : mapping of str to slice
        Rows of each parameter.
    identity_multiple : float
        Of weight decay.
    dtype : dtype
        Type of vectors.
    backend : Backend
        Of vectors.
    """

    def __init__(
        self, layers: Sequence[FactoredBlock], blocks: Mapping[str, slice], identity_multiple: float, dtype: Any, backend: Backend
    ) -> None:
        self.layers, self.blocks, self.identity_multiple = tuple(layers), blocks, identity_multiple
        order = np.concatenate([layer.places.ravel() for layer in layers])
        positive = True if identity_multiple >= 0 else None
        super().__init__((order.size,) * 2, dtype, hermitian=True, positive_semidefinite=positive, backend=backend)
        in_order = bool((order == np.arange(order.size)).all())
        self._order: np.ndarray | None = None if in_order else order
        self._back: np.ndarray | None = None if in_order else np.argsort(order)

    def _matmat(self, x: Array) -> Array:
        product = self.map_layers(x, lambda layer, rows: layer.apply(rows))
        return product + self.identity_multiple * x if self.identity_multiple else product

    def map_layers(self, x: Array, function: Any) -> Array:
        """What ``function(layer, rows)`` makes of the rows of each layer, for columns of shape (n, k)."""
        backend = self.backend
        rows = x.T if self._order is None else backend.gather(x.T, self._order)
        out, first = backend.empty(tuple(rows.shape), self.dtype), 0
        for layer in self.layers:
            last = first + layer.places.size
            out[:, first:last] = function(layer, backend.contiguous(rows[:, first:last], self.dtype))
            first = last
        return (out if self._back is None else backend.gather(out, self._back)).T

    def block(self, name: str) -> BlockOperator:
        """Diagonal block of a parameter, a layer, or all that match a pattern; see `CurvatureOperator.block`."""
        return BlockOperator(self, name)

    def _details(self) -> str:
        kinds = [type(layer).__name__ for layer in self.layers]
        return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


class KroneckerApproximation(Approximation):
    """A block-diagonal approximation with Kronecker-factored eigenvectors; made by `kfac` and `ekfac`.

    Parameters
    ----------
    inner : FactoredOperator
        The matrix.
    kind : {"kfac", "ekfac"}
        Whether the blocks are Kronecker products, or only diagonal in their eigenvectors.
    method : str
        How it was found.
    source_matvecs : int
        Products that exact blocks cost.
    num_backward : int
        Backward passes over the data.
    seconds : float
        Wall-clock time.

    Attributes
    ----------
    layers : tuple of FactoredBlock
        The blocks, each with its parameters' ``names``, ``places`` in the vector and ``eigenvalues``; those of Kronecker products with the
        factors ``rows`` and ``columns``.
    blocks : mapping of str to slice
        Rows of each parameter.
    num_backward
        As above.
    """

    inner: FactoredOperator

    def __init__(
        self, inner: FactoredOperator, kind: str, *, method: str, source_matvecs: int = 0, num_backward: int = 0, seconds: float = 0.0
    ) -> None:
        super().__init__(inner, kind, method=method, source_matvecs=source_matvecs, seconds=seconds)
        self.num_backward = num_backward

    @property
    def layers(self) -> tuple[FactoredBlock, ...]:
        """The blocks."""
        return self.inner.layers

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Rows of each parameter."""
        return self.inner.blocks

    def block(self, name: str) -> BlockOperator:
        """Diagonal block of a parameter, a layer, or all that match a pattern; see `CurvatureOperator.block`."""
        return self.inner.block(name)

    def solve(self, b: Any, *, damping: float = 0.0, factored: bool = False) -> Array:
        r"""Inverse of the approximation plus a multiple of the identity, times vectors.

        Parameters
        ----------
        b : array
            Right-hand sides, shape (n,) or (n, k).
        damping : float
            Added to every eigenvalue; zero or positive. Weight decay is in the matrix already.
        factored : bool
            True puts its root into the factors of each Kronecker product instead, as optimisers do (Martens and Grosse, 2015, section
            6.3): the inverse of another matrix, :math:`(R + \sqrt\delta/\pi\, I) \otimes (C + \pi \sqrt\delta\, I)`.

        Returns
        -------
        array
            Solution in the shape of `b`.

        Raises
        ------
        ValueError
            When `b` has another length, `damping` is negative, or the sum has no inverse; when `factored` is asked of EKFAC.
        """
        if not factored:
            return super().solve(b, damping=damping)
        if self.kind != "kfac":
            raise ValueError(f"The argument factored belongs to Kronecker products, but the kind is {self.kind!r}; leave it out.")
        damping, identity = check_damping(damping), self.inner.identity_multiple
        if not damping + identity > 0:
            raise ValueError(f"The argument factored needs a positive damping, but damping is {damping!r}.")
        x = self.backend.asarray(b)
        if len(x.shape) not in (1, 2) or x.shape[0] != self.shape[0]:
            raise ValueError(
                f"The argument b must have shape ({self.shape[0]},) or ({self.shape[0]}, k), but has shape {tuple(x.shape)}."
            )
        columns = self.backend.contiguous((x if len(x.shape) == 2 else x[:, None]).T, self.dtype).T
        solution = self.inner.map_layers(columns, lambda layer, rows: layer.solve_factored(rows, damping, identity))
        return solution if len(x.shape) == 2 else solution[:, 0]

    def _solve(self, x: Array, damping: float) -> Array:
        shift = damping + self.inner.identity_multiple
        spectrum = self.eigenvalues() + damping
        require_invertible(float(abs(spectrum).min()), float(abs(spectrum).max()), damping, self._describe())
        return self.inner.map_layers(x, lambda layer, rows: layer.in_eigenvectors(rows, 1.0 / (layer.eigenvalues + shift)))

    def eigenvalues(self) -> np.ndarray:
        """All eigenvalues in ascending order, shape (n,), float64; in closed form."""
        return np.sort(np.concatenate([layer.eigenvalues.ravel() for layer in self.layers])) + self.inner.identity_multiple

    def top_vectors(self, k: int) -> Array:
        """Orthonormal eigenvectors of the k eigenvalues of largest modulus, shape (n, k)."""
        values = np.concatenate([layer.eigenvalues.ravel() for layer in self.layers]) + self.inner.identity_multiple
        ends = np.cumsum([layer.places.size for layer in self.layers])
        vectors = np.zeros((self.shape[0], k))
        for column, index in enumerate(np.argsort(-abs(values), kind="stable")[:k]):
            which = int(np.searchsorted(ends, index, side="right"))
            layer = self.layers[which]
            vectors[layer.places.ravel(), column] = layer.eigenvector(int(index) - int(ends[which]) + layer.places.size)
        return self.backend.asarray(vectors, dtype=self.dtype)

    def trace(self) -> float:
        """Sum of the eigenvalues, in closed form."""
        return float(self.eigenvalues().sum())

    def frobenius_norm(self) -> float:
        """Root of the sum of squared eigenvalues, in closed form."""
        return float(np.linalg.norm(self.eigenvalues()))

    def logdet(self, *, damping: float = 0.0) -> float:
        """Logarithm of the determinant of the approximation plus `damping` times the identity; minus infinity for a singular one."""
        values = self.eigenvalues() + check_damping(damping)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.log(values).sum())
