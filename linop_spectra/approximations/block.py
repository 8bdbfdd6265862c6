"""Block-diagonal approximations: diagonal blocks of a partition of the rows, dense where they are small."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from scipy import linalg

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..curvature.blocks import BlockOperator, layer_of
from ..krylov import solve
from ..operators import LinearOperator, block_diagonal, submatrix
from ..operators.matrix import MatrixOperator
from .approximation import Approximation, require_invertible

By = Literal["layer", "parameter"]
DENSE_LIMIT = 512
"""Order up to which a block is formed, by as many products as it has rows."""
_TOLERANCE, _ENOUGH = 1e-8, 1e-4
"""Relative residual that is asked for, and what is taken without a word where rounding allows no less."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """One diagonal block.

    Attributes
    ----------
    name : str
        Of the layer, the parameter or the place in the partition.
    index : numpy.ndarray
        Its rows in the whole matrix, shape (m,).
    operator : LinearOperator
        The block, shape (m, m).
    dense : bool
        Whether it is an explicit matrix; else each of its products costs one with the whole matrix.
    """

    name: str
    index: np.ndarray
    operator: LinearOperator
    dense: bool

    @functools.cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, ascending, and eigenvectors of a dense block, on the host."""
        matrix = self.operator.backend.to_numpy(self.operator.matrix)  # type: ignore[attr-defined]
        values, vectors = linalg.eigh(matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64))
        return values, vectors


class BlockApproximation(Approximation):
    """Diagonal blocks of a matrix, zeros elsewhere.

    `solve` is in closed form for dense blocks; for others it is iterative, by `linop_spectra.solve` to a relative residual of 1e-8, or to
    where rounding ends it. It warns where that is above 1e-4.

    Parameters
    ----------
    blocks : sequence of Block
        In any order; their rows make up the whole.
    **about
        As for `Approximation`.

    Attributes
    ----------
    blocks : tuple of Block
        As above.
    """

    def __init__(self, blocks: Sequence[Block], **about: Any) -> None:
        self.blocks = tuple(blocks)
        order = np.concatenate([block.index for block in self.blocks])
        self._order = None if np.array_equal(order, np.arange(len(order))) else order
        super().__init__(block_diagonal([block.operator for block in self.blocks]), "block", **about)

    def _matmat(self, x: Array) -> Array:
        return self._reordered(self.inner.matmat, x)

    def _reordered(self, apply: Any, x: Array) -> Array:
        """`apply` in the order of the blocks."""
        if self._order is None:
            return apply(x)
        gathered = self.backend.gather(x.T, self._order)
        return self.backend.scatter(apply(gathered.T).T, self._order, self.shape[0]).T

    def _solve(self, x: Array, damping: float) -> Array:
        def by_block(columns: Array) -> Array:
            rows, first = self.backend.empty((columns.shape[1], self.shape[0]), self.dtype), 0
            for block in self.blocks:
                last = first + len(block.index)
                rows[:, first:last] = self._solve_block(block, columns[first:last, :], damping).T
                first = last
            return rows.T

        return self._reordered(by_block, x)

    def _solve_block(self, block: Block, x: Array, damping: float) -> Array:
        if not block.dense:
            return self._solve_iteratively(block, x, damping)
        values, vectors = block.pairs
        sums = values + damping
        require_invertible(float(abs(sums).min()), float(abs(sums).max()), damping, f"The block {block.name!r}")
        basis = self.backend.asarray(np.ascontiguousarray(vectors), dtype=self.dtype)
        inverse = self.backend.asarray(1 / sums, dtype=self.dtype)
        return basis @ (inverse[:, None] * (self.backend.conj(basis).T @ x))

    def _solve_iteratively(self, block: Block, x: Array, damping: float) -> Array:
        with warnings.catch_warnings():
            # In single precision nothing of a high condition number comes to 1e-8: what was reached is judged here.
            warnings.simplefilter("ignore")
            found = solve(block.operator, x, shift=damping, tol=_TOLERANCE)
        norms = np.real(self.backend.fetch([self.backend.norm(x[:, column]) for column in range(x.shape[1])])).astype(np.float64)
        reached = float(np.max(np.divide(found.residual_norms, norms, out=np.zeros_like(norms), where=norms > 0), initial=0.0))
        if reached > _ENOUGH and found.status != "interrupted":
            warnings.warn(
                f"The block {block.name!r} plus damping {damping:g} was solved to a relative residual of {reached:.2g} only, by "
                f"{found.num_iterations} iterations; pass a larger damping, or dense_limit={len(block.index)}, with which it is formed.",
                stacklevel=5,
            )
        return found.x

    def eigenvalues(self) -> np.ndarray | None:
        """Those of all blocks in ascending order, shape (n,); None where a block is not dense."""
        if not all(block.dense for block in self.blocks):
            return None
        return np.sort(np.concatenate([block.pairs[0] for block in self.blocks]))

    def top_vectors(self, k: int) -> Array | None:
        """Eigenvectors of the k eigenvalues of largest modulus, shape (n, k); None where a block is not dense."""
        if not all(block.dense for block in self.blocks):
            return None
        candidates = [(-abs(value), number, j) for number, block in enumerate(self.blocks) for j, value in enumerate(block.pairs[0])]
        chosen = sorted(candidates)[:k]
        vectors = np.zeros((self.shape[0], len(chosen)), dtype=self.dtype)
        for column, (_, number, j) in enumerate(chosen):
            vectors[self.blocks[number].index, column] = self.blocks[number].pairs[1][:, j]
        return self.backend.asarray(vectors)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Order of each block."""
        return tuple(len(block.index) for block in self.blocks)


def block_approximation(
    source: LinearOperator,
    *,
    partition: Any = None,
    by: By | None = None,
    dense_limit: int = DENSE_LIMIT,
    progress: Progress = None,
) -> BlockApproximation:
    """Diagonal blocks of a matrix; see `approximate`."""
    began = time.perf_counter()
    groups = _groups(source, partition, by)
    if isinstance(dense_limit, bool) or not isinstance(dense_limit, int | np.integer) or dense_limit < 0:
        raise ValueError(f"The argument dense_limit must be a whole number of at least 0, but is {dense_limit!r}.")
    stored = isinstance(source, MatrixOperator)
    names = {} if partition is not None else _parameters(source, by or "layer")
    rows = sum(len(index) for index in groups.values() if len(index) <= dense_limit)
    blocks, spent = [], 0
    with ProgressBar(progress, rows, "diagonal blocks", unit="product") as bar:
        for name, index in groups.items():
            whole = submatrix(source, index) if name not in names else BlockOperator(source, names[name])
            if len(index) > dense_limit:
                blocks.append(Block(name, index, whole, False))
                continue
            matrix = _read(source, index) if stored else None
            if matrix is None:
                matrix = whole.to_dense()
                spent += len(index)
            symmetric = (matrix + source.backend.conj(matrix).T) * 0.5
            blocks.append(Block(name, index, MatrixOperator(symmetric, source.dtype, True, source.backend), True))
            bar.advance(len(index))
    dense = sum(block.dense for block in blocks)
    words = f"{len(blocks)} blocks" + ("" if dense == len(blocks) else f", {dense} of them dense")
    approximation = BlockApproximation(blocks, method=words, source_matvecs=spent, seconds=time.perf_counter() - began)
    if source.positive_semidefinite:  # so are its principal blocks
        approximation.positive_semidefinite = True
    return approximation


def _read(source: Any, index: np.ndarray) -> Array | None:
    """Rows and columns of an explicit matrix on the host, without products."""
    if source.backend.name != "numpy":
        return None
    matrix = source.matrix
    if hasattr(matrix, "tocsr"):
        return np.asarray(matrix.tocsr()[index][:, index].toarray())
    return np.asarray(matrix)[np.ix_(index, index)].astype(source.dtype)


def _parameters(source: LinearOperator, by: By) -> dict[str, str]:
    """What `BlockOperator` takes for each group of parameters, where a name stands for exactly that group."""
    from ..curvature.blocks import members

    places: Mapping[str, slice] = getattr(source, "blocks", {})
    wanted = _by_name(places, by)
    return {name: name for name, own in wanted.items() if members(places, name) == own}


def _by_name(places: Mapping[str, slice], by: By) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for name in places:
        group = name if by == "parameter" else layer_of(name)
        groups[group] = (*groups.get(group, ()), name)
    return groups


def _groups(source: LinearOperator, partition: Any, by: By | None) -> dict[str, np.ndarray]:
    n = source.shape[0]
    if partition is not None and by is not None:
        raise ValueError("The arguments partition and by exclude each other; by='layer' or 'parameter' is for an objective's own blocks.")
    if by is not None and by not in get_args(By):
        raise ValueError(f"The argument by is {by!r}, but must be 'layer' or 'parameter'; for other blocks pass partition=.")
    if partition is None:
        places = getattr(source, "blocks", None)
        if not isinstance(places, Mapping):
            raise ValueError(
                "The kind 'block' needs partition= for an operator that does not know its parameters: the orders of consecutive blocks, or "
                "a list of slices or of arrays of rows."
            )
        rows = {name: np.arange(place.start, place.stop) for name, place in places.items()}
        return {group: np.concatenate([rows[name] for name in own]) for group, own in _by_name(places, by or "layer").items()}
    return partition_of(partition, n)


def partition_of(partition: Any, n: int) -> dict[str, np.ndarray]:
    """A partition of n rows as arrays of rows by name.

    Parameters
    ----------
    partition : int, sequence or mapping
        The order of all blocks (the last one may be smaller); a list of orders of consecutive blocks; or a list, or a mapping from names,
        of slices, arrays of rows and arrays of n booleans.
    n : int
        Number of rows.

    Returns
    -------
    dict of str to numpy.ndarray
        In the given order.

    Raises
    ------
    ValueError
        When a row is in no block or in two, or a block is empty.

    Examples
    --------
    >>> partition_of([1, 2], 3)
    {'0': array([0]), '1': array([1, 2])}
    >>> partition_of({"odd": slice(1, None, 2), "even": [0, 2]}, 4)
    {'odd': array([1, 3]), 'even': array([0, 2])}
    """
    if isinstance(partition, int | np.integer) and not isinstance(partition, bool):
        if not 1 <= partition <= n:
            raise ValueError(f"The argument partition is {partition}, but blocks of a matrix of order {n} have an order from 1 to {n}.")
        partition = [min(int(partition), n - first) for first in range(0, n, int(partition))]
    named = partition.items() if isinstance(partition, Mapping) else ((str(i), part) for i, part in enumerate(_listed(partition)))
    parts = {str(name): part for name, part in named}
    if parts and all(isinstance(part, int | np.integer) and not isinstance(part, bool) for part in parts.values()):
        sizes = [int(part) for part in parts.values()]
        if min(sizes) < 1 or sum(sizes) != n:
            raise ValueError(f"The argument partition has orders that add up to {sum(sizes)}, but the matrix has {n} rows.")
        ends = np.cumsum(sizes).tolist()
        return {name: np.arange(end - size, end) for name, end, size in zip(parts, ends, sizes, strict=True)}
    groups = {}
    for name, part in parts.items():
        try:
            index = part if isinstance(part, slice) else np.asarray(part)
            groups[name] = np.atleast_1d(np.arange(n)[index if isinstance(index, slice) or index.size else index.astype(int)])
        except IndexError as error:
            raise ValueError(f"The block {name!r} of the argument partition does not fit {n} rows: {error}.") from error
        if groups[name].ndim != 1 or len(groups[name]) == 0:
            raise ValueError(f"The block {name!r} of the argument partition is empty or no list of rows; each block needs at least one.")
    counts = np.bincount(np.concatenate(list(groups.values())), minlength=n) if groups else np.zeros(n, dtype=int)
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        where = "no block" if counts[wrong[0]] == 0 else f"{counts[wrong[0]]} blocks"
        raise ValueError(
            f"The argument partition is none: row {wrong[0]} is in {where} ({len(wrong)} of {n} rows are not in exactly one). "
            "Each row belongs to exactly one block."
        )
    return groups


def _listed(partition: Any) -> list[Any]:
    try:
        return list(partition)
    except TypeError:
        raise ValueError(
            f"The argument partition is a {type(partition).__name__}, but must be the order of the blocks, a list of orders, or a list or "
            "mapping of slices or arrays of rows."
        ) from None
