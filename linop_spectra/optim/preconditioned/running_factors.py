"""Kronecker factors that are followed over mini-batches: moving averages, their eigenvectors, and the damped inverse, in a flat state."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ...approximations.ekfac import Projected
from ...approximations.example_gradients import monte_carlo_ggn
from ...approximations.kfac import Moments, Sharing, checked_columns, collect
from ...approximations.weight_gradients import Arrangements, BatchGradients, Columns, FisherKind
from ...backends import Array, Backend
from ...curvature.fisher import fisher_operator
from ...curvature.out_of_memory import in_smaller_plans
from ..evaluation import Start

Kind = Literal["kfac", "ekfac"]
Others = Literal["auto", "exact", "diagonal"]
State = Mapping[str, Any]

_FEW_NUMBERS = 64
"""Parameters without factors, all together, up to which ``"auto"`` takes a product for each number."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Parameters with a block of their own.

    Attributes
    ----------
    kind : {"kronecker", "dense", "diagonal", "zero"}
        What is known of it.
    names : list of str
        The parameters.
    shape : list of int
        Rows and columns, or numbers alone.
    """

    kind: str
    names: list[str]
    shape: list[int]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class FactorOptions:
    """How factors are measured, see `linop_spectra.optim.KFAC`."""

    kind: Kind
    fisher: FisherKind
    num_samples: int
    sharing: Sharing
    others: Others


class _Moments(Moments):
    """With the number of batches."""

    batches = 0

    def add(self, gradients: BatchGradients, columns: Any) -> int:
        self.batches += 1
        return super().add(gradients, columns)


class _Basis:
    """Eigenvectors in the form in which the second pass of EKFAC takes them."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray) -> None:
        self.bases = (None, rows), (None, columns)


def blocks_of(state: State) -> list[Block]:
    """The blocks that a state holds factors of, in the order of its entries."""
    return [Block(*block) for block in json.loads(state["structure"])]


def measure(
    start: Start, options: FactorOptions, seed: int, state: State, decay: float, *, invert: bool, known: Arrangements | None = None
) -> dict[str, Any]:
    """Entries of the state after one more measurement.

    Parameters
    ----------
    start : Start
        Whose data of the curvature are measured; counts what it costs.
    options : FactorOptions
        How.
    seed : int
        Of drawn targets.
    state : mapping
        Factors before; may hold none.
    decay : float
        Weight of those.
    invert : bool
        Whether to find the eigenvectors anew; must be True where there are none.
    known : dict, optional
        How the model was found to arrange its examples; filled on.

    Raises
    ------
    ValueError
        When the model has other layers than the state, or a parameter that has no factors and is too large for an exact block.
    """
    objective, backend = start.curvature, start.backend
    drawn = {"num_samples": options.num_samples, "seed": seed} if options.fisher == "mc" else {"num_samples": 1, "seed": 0}
    columns = checked_columns(objective, options.fisher, drawn["num_samples"], drawn["seed"], options.sharing)
    known = {} if known is None else known

    def compute() -> tuple[_Moments, int]:
        moments = _Moments(objective, options.sharing, include_bias=True)
        return moments, collect(objective, columns, moments, None, "Kronecker factors", known)

    moments, passes = in_smaller_plans(compute, objective._pieces.retreat, objective._pieces.sentence)
    start.num_gradients += -(-passes // moments.batches)
    blocks, order, fresh = _found(start, moments, columns, options.others, seed)
    structure = json.dumps([dataclasses.astuple(block) for block in blocks])
    if state.get("structure", structure) != structure:
        raise ValueError(
            "The model uses its parameters in other layers than those whose factors are in the optimiser's state; make a new optimiser."
        )
    entries: dict[str, Any] = {"structure": structure, "order": order}
    for name, value in fresh.items():
        entries[name] = decay * state[name] + (1 - decay) * value if name in state and decay else value
    if invert:
        entries |= _bases(backend, blocks, entries, objective.dtype)
    if options.kind == "ekfac":
        entries |= _rescaled(start, moments, columns, blocks, state, entries, decay, known)
    return entries


def _found(
    start: Start, moments: _Moments, columns: Columns, others: Others, seed: int
) -> tuple[list[Block], np.ndarray, dict[str, Array]]:
    """The blocks, where their numbers are in the vector of parameters, and the moments of this data."""
    objective, backend, layers = start.curvature, start.backend, moments.layers
    blocks: list[Block] = []
    places: list[np.ndarray] = []
    fresh: dict[str, Array] = {}

    def add(kind: str, names: tuple[str, ...], where: np.ndarray, **arrays: Any) -> None:
        fresh.update({f"{len(blocks)}/{name}": backend.asarray(array, dtype=np.float64) for name, array in arrays.items()})
        blocks.append(Block(kind, list(names), list(where.shape)))
        places.append(where.ravel())

    for layer in moments.layers.weights:
        block = moments.kronecker(layer)
        add("kronecker", block.names, block.places, rows=block.rows, columns=block.columns)
    for bias in layers.biases:
        dense = moments.bias_block(bias)
        add("dense", dense.names, dense.places, matrix=dense.matrix)
    if others == "auto":
        numbers = sum(_place(objective, name).size for name in layers.small)
        drawable = objective.functions.fisher_refusal is None
        others = "diagonal" if numbers > _FEW_NUMBERS and drawable else "exact"
    if layers.small and others == "exact":
        matrix = start.count(
            objective.ggn()
            if columns.kind == "exact"
            else fisher_operator(objective, columns.kind, num_samples=columns.num_samples, seed=columns.seed)
        )
        for name in layers.small:
            own = np.array(backend.to_numpy(matrix.block(name).to_dense()), dtype=np.float64)  # type: ignore[attr-defined]
            own -= matrix.identity_multiple * np.eye(len(own))  # type: ignore[attr-defined]
            add("dense", (name,), _place(objective, name), matrix=(own + own.T) / 2)
    elif layers.small:
        start.num_gradients += 1
        diagonal = (monte_carlo_ggn(objective, each="batch", seed=seed).diagonal - objective.weight_decay).clip(0.0, None)
        for name in layers.small:
            add("diagonal", (name,), _place(objective, name), values=diagonal[objective.blocks[name]])
    for name in layers.unused:
        add("zero", (name,), _place(objective, name))
    return blocks, np.concatenate(places), fresh


def _place(objective: Any, name: str) -> np.ndarray:
    place = objective.blocks[name]
    return np.arange(place.start, place.stop)


def _bases(backend: Backend, blocks: list[Block], entries: State, dtype: np.dtype) -> dict[str, Any]:
    """Eigenvalues in double precision and eigenvectors in that of the model, by the host."""
    found: dict[str, Any] = {}
    for i, block in enumerate(blocks):
        for name in {"kronecker": ("rows", "columns"), "dense": ("matrix",)}.get(block.kind, ()):
            matrix = backend.to_numpy(entries[f"{i}/{name}"])
            values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
            found[f"{i}/{name} eigenvalues"] = backend.asarray(np.maximum(values, 0.0))
            found[f"{i}/{name} eigenvectors"] = backend.asarray(vectors, dtype=dtype)
    return found


def _rescaled(
    start: Start, moments: _Moments, columns: Columns, blocks: list[Block], state: State, entries: State, decay: float,
    arrangements: Arrangements,
) -> dict[str, Any]:  # fmt: skip
    r"""Second moments in the eigenvectors, averaged with those before.

    Where the eigenvectors have changed, the old second moments come over as the diagonal, in the new eigenvectors, of the matrix that they
    stood for: :math:`s'_{ij} = \sum_{kl} (u'_i \cdot u_k)^2 (v'_j \cdot v_l)^2 s_{kl}`.
    """
    objective, backend = start.curvature, start.backend

    def vectors(held: State, i: int) -> list[np.ndarray]:
        return [np.asarray(backend.to_numpy(held[f"{i}/{name} eigenvectors"]), dtype=np.float64) for name in ("rows", "columns")]

    known: State = {**state, **entries}
    numbers = [i for i, block in enumerate(blocks) if block.kind == "kronecker"]
    bases = [_Basis(*vectors(known, i)) for i in numbers]

    def compute() -> tuple[Projected, int]:
        projected = Projected(objective, moments.layers, bases)  # type: ignore[arg-type]
        return projected, collect(objective, columns, projected, None, "eigenvalues", arrangements)

    projected, passes = in_smaller_plans(compute, objective._pieces.retreat, objective._pieces.sentence)
    start.num_gradients += -(-passes // moments.batches)
    found: dict[str, Any] = {}
    for i, values in zip(numbers, projected.eigenvalues(), strict=True):
        name, turned = f"{i}/eigenvalues", f"{i}/rows eigenvectors" in entries
        if name in state and decay:
            before = np.asarray(backend.to_numpy(state[name]))
            if turned:
                left, right = (new.T @ old for new, old in zip(vectors(entries, i), vectors(state, i), strict=True))
                before = left**2 @ before @ (right**2).T
            values = decay * before + (1 - decay) * values
        found[name] = backend.asarray(values)
    return found


def precondition(backend: Backend, state: State, vector: Array, shift: float, *, factored: bool) -> Array:
    r"""The inverse of the blocks plus `shift` times the identity, times a vector of shape (n,).

    Parameters
    ----------
    backend : Backend
        Of the arrays.
    state : mapping
        With factors and eigenvectors.
    vector : array
        Shape (n,).
    shift : float
        Zero or positive.
    factored : bool
        Put the root of the shift into the factors of each Kronecker product instead (Martens and Grosse, 2015, section 6.3).

    Raises
    ------
    ValueError
        When the shift is zero and the blocks have no inverse.
    """
    rows = backend.gather(vector[None, :], state["order"])
    blocks, first = blocks_of(state), 0
    shifted = [_shifted(state, i, block, shift, factored) for i, block in enumerate(blocks)]
    if shift == 0:
        _require_inverse(blocks, shifted, backend.dtype_of(vector))
    out = backend.empty(tuple(rows.shape), backend.dtype_of(vector))
    for i, (block, values) in enumerate(zip(blocks, shifted, strict=True)):
        last = first + block.size
        x, dtype = rows[0, first:last], backend.dtype_of(vector)
        if block.kind == "kronecker":
            u, v = state[f"{i}/rows eigenvectors"], state[f"{i}/columns eigenvectors"]
            inside = backend.asarray((u.T @ backend.reshape(x, tuple(block.shape)) @ v) / values, dtype=dtype)
            out[0, first:last] = backend.reshape(u @ inside @ v.T, (block.size,))
        elif block.kind == "dense":
            u = state[f"{i}/matrix eigenvectors"]
            out[0, first:last] = u @ backend.asarray((u.T @ x) / values, dtype=dtype)
        else:
            out[0, first:last] = x / values
        first = last
    return backend.scatter(out, state["order"], vector.shape[0])[0]


def _shifted(state: State, i: int, block: Block, shift: float, factored: bool) -> Any:
    """Eigenvalues of a block with damping, as they meet its eigenvectors; a number for zeros."""
    if block.kind == "zero":
        return shift
    if block.kind == "diagonal":
        return state[f"{i}/values"] + shift
    if block.kind == "dense":
        return state[f"{i}/matrix eigenvalues"] + shift
    if f"{i}/eigenvalues" in state:
        return state[f"{i}/eigenvalues"] + shift
    left, right = state[f"{i}/rows eigenvalues"], state[f"{i}/columns eigenvalues"]
    if not factored:
        return left[:, None] * right[None, :] + shift
    means = float(right.sum()) / len(right), float(left.sum()) / len(left)
    balance = (means[0] / means[1]) ** 0.5 if min(means) > 0 else 1.0
    return (left + shift**0.5 / balance)[:, None] * (right + shift**0.5 * balance)[None, :]


def _require_inverse(blocks: list[Block], shifted: list[Any], dtype: np.dtype) -> None:
    """Raise where an eigenvalue is no more than rounding of the largest one of its block."""
    for block, values in zip(blocks, shifted, strict=True):
        smallest, largest = (0.0, 0.0) if isinstance(values, float) else (float(values.min()), float(values.max()))
        if not smallest > 16 * float(np.finfo(dtype).eps) * largest:
            raise ValueError(
                f"The argument damping is 0, but the block of {', '.join(map(repr, block.names))} has no inverse: its eigenvalues lie "
                f"between {smallest:.3g} and {largest:.3g}. Pass a positive damping."
            )
