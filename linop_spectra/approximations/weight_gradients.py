r"""Gradients of single examples layer by layer: :math:`\sum_s g_{ns} a_{ns}^\top`, without a matrix for each example.

The vectors :math:`c` run over columns whose products :math:`c c^\top` sum up to the middle part `M` of a matrix :math:`J^\top M J`: the
square root of the loss's Hessian in the outputs (exact), gradients for drawn targets (Monte-Carlo), or those for the targets of the data
(empirical). Each gives one backward pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from ..backends import Array
from ..curvature.cache import Part
from ..curvature.examples import count_examples, random_numbers, require_sum_over_rows
from ..curvature.linearization import Batch, Linearization, Outputs
from ..curvature.objective import Objective
from ..curvature.out_of_memory import cut
from ..curvature.weight_uses import RecordedUses

FisherKind = Literal["exact", "mc", "empirical"]
Arrangement = tuple[int, bool]
"""The axis that holds the examples, and whether each example's positions stand together there."""
Arrangements = dict[object, Arrangement | None]
"""By the keys of uses; None where examples cannot be told apart."""

_NUMBERS_AT_ONCE = 1 << 20
_NEGLIGIBLE = 1e-6
_FEW, _MANY = 3, 64


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which backward passes a matrix is made of.

    Attributes
    ----------
    kind : {"exact", "mc", "empirical"}
        Which middle part.
    num_samples, seed : int
        Of drawn targets.
    """

    kind: FisherKind
    num_samples: int
    seed: int

    def of(self, objective: Objective, batch: Batch, linearization: Linearization, start: int) -> Iterator[Outputs]:
        """The columns of one batch, in the outputs; `start` counts random numbers of earlier batches."""
        functions, outputs = objective.functions, linearization.outputs
        if self.kind == "empirical":
            yield linearization.loss_gradient()
        elif self.kind == "mc":
            kind, shape = functions.noise_of(outputs, batch)
            for sample in range(self.num_samples):
                noise = random_numbers(kind, math.prod(shape), seed=self.seed, sample=sample, start=start).reshape(shape)
                yield functions.sampled_gradient(outputs, batch, noise) / math.sqrt(self.num_samples)
        else:
            for column in _square_root(objective, batch, linearization):
                yield functions.outputs_from(np.ascontiguousarray(column.ravel(), dtype=objective.dtype), outputs)

    def most(self, size: int) -> int:
        """How many columns there are at most for examples with so many outputs."""
        return {"exact": size, "mc": self.num_samples, "empirical": 1}[self.kind]

    def numbers(self, objective: Objective, batch: Batch, outputs: Outputs) -> int:
        """Random numbers that a batch takes."""
        return math.prod(objective.functions.noise_of(outputs, batch)[1]) if self.kind == "mc" else 0


def _square_root(objective: Objective, batch: Batch, linearization: Linearization) -> Iterator[np.ndarray]:
    """Columns of the square root of the loss's Hessian in the outputs of each example, shape (num_examples, num_outputs_of_one) each."""
    functions, outputs = objective.functions, linearization.outputs
    examples = objective.data.count(batch)
    size = functions.flat_outputs(outputs).size // examples

    def hessian_of(u: np.ndarray) -> np.ndarray:
        native = functions.outputs_from(np.ascontiguousarray(u.ravel(), dtype=objective.dtype), outputs)
        return functions.flat_outputs(linearization.loss_hessian(native)).reshape(examples, size)

    diagonal, waves = hessian_of(np.ones((examples, size))), np.cos(np.arange(examples * size)).reshape(examples, size)
    waves = waves.astype(objective.dtype)
    if diagonal.min() >= 0 and (abs(hessian_of(waves) - diagonal * waves) <= 4 * np.finfo(objective.dtype).eps * diagonal).all():
        for j in range(size):
            column = np.zeros((examples, size))
            column[:, j] = np.sqrt(diagonal[:, j])
            yield column
        return
    needed = 3 * 8 * examples * size * size
    if needed > functions.memory_budget:
        raise ValueError(
            f"The argument fisher is 'exact', which takes {size:,} backward passes and matrices of that order for each of {examples:,} "
            f"examples in a batch, because an example has {size:,} outputs; pass fisher='mc', or a smaller batch_size."
        )
    hessian = np.empty((examples, size, size))
    for j in range(size):
        unit = np.zeros((examples, size))
        unit[:, j] = 1.0
        hessian[:, :, j] = hessian_of(unit)
    values, vectors = np.linalg.eigh((hessian + hessian.transpose(0, 2, 1)) / 2)
    largest, rounding = abs(values).max(), 64 * size * float(np.finfo(objective.dtype).eps)
    # Rounding of saturated probabilities may be of any size in comparison.
    if not functions.convex_loss and values.min() < -float(np.finfo(objective.dtype).eps) ** 0.5 * largest:
        raise ValueError(
            "The Hessian of the loss in the outputs has negative eigenvalues, so that it has no square root to send back through the "
            "model; use a loss that is convex in the outputs, or fisher='empirical'."
        )
    for j in range(size - 1, -1, -1):
        scale = np.sqrt(np.where(values[:, j] > rounding * largest, values[:, j], 0.0))
        if scale.any():
            yield vectors[:, :, j] * scale[:, None]


class BatchGradients:
    """The recorded uses of one batch, with their axes of examples known.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    batch : object
        A prepared batch.
    recorded : RecordedUses
        Its forward pass.
    known : dict
        Arrangements by the keys of uses, found on earlier batches; filled on.

    Attributes
    ----------
    count : int
        Examples.
    lost : dict of int to str
        Uses in which examples cannot be told apart, and why.
    """

    def __init__(self, objective: Objective, batch: Batch, recorded: RecordedUses, known: Arrangements) -> None:
        self.objective, self.recorded = objective, recorded
        self.count = objective.data.count(batch)
        self._arrangements: list[Arrangement | None] = []
        if self.count == 1:
            self._arrangements = [(-1, True)] * len(recorded.uses)
        else:
            keys = [(use.key, len(recorded.leading(i))) for i, use in enumerate(recorded.uses)]
            if any(key not in known for key in keys):
                self._few(batch, keys)._find(keys, known)
            self._arrangements = [known[key] for key in keys]
        self.lost = {i: recorded.uses[i].kind for i, found in enumerate(self._arrangements) if found is None}

    def _few(self, batch: Batch, keys: Sequence[object]) -> BatchGradients:
        """The same for a few of many examples, which tell as much, where the model takes them."""
        functions = self.objective.functions
        part = functions.take(batch, np.arange(_FEW)) if self.count >= _MANY else None
        if part is None:
            return self
        try:
            recorded = functions.weight_uses(self.objective.point, part)  # type: ignore[attr-defined]
        except (RuntimeError, ValueError, TypeError, IndexError):  # it insists on its batch size
            return self
        if [(use.key, len(recorded.leading(i))) for i, use in enumerate(recorded.uses)] != keys:
            return self
        few = object.__new__(BatchGradients)
        few.objective, few.recorded, few.count = self.objective, recorded, _FEW
        return few

    def _find(self, keys: Sequence[object], known: Arrangements) -> None:
        """Where gradients of single examples arrive tells how the examples are arranged."""
        functions, outputs = self.objective.functions, self.recorded.outputs
        size = functions.flat_outputs(outputs).size
        candidates: dict[object, set[Arrangement]] = {}
        for i, key in enumerate(keys):
            axes = [axis for axis, length in enumerate(self.recorded.leading(i)) if length % self.count == 0 and length > 0]
            candidates.setdefault(key, {(axis, together) for axis in axes for together in (True, False)})
        for example in (0, self.count - 1):
            probe = np.zeros((self.count, size // self.count), dtype=self.objective.dtype)
            probe[example] = np.cos(np.arange(probe.shape[1]) + 1.0)
            u = functions.outputs_from(np.ascontiguousarray(probe.ravel()), outputs)
            for key, gradient in zip(keys, self.recorded.output_gradients(u), strict=True):
                seen = abs(functions.backend.to_numpy(gradient)).max(axis=-1)
                places = np.nonzero(seen > _NEGLIGIBLE * seen.max()) if seen.size and seen.max() > 0 else None
                if places is None:
                    continue
                for axis, together in list(candidates[key]):
                    each = seen.shape[axis] // self.count
                    own = places[axis] // each if together else places[axis] % self.count
                    if (own != example).any():
                        candidates[key].discard((axis, together))
        # An axis as long as there are examples may be read in both ways, which are then one.
        known |= {key: min(found, key=lambda a: (a[0], not a[1])) if found else None for key, found in candidates.items()}

    def gradients(self, u: Outputs) -> list[Array]:
        """Gradients of ``<u, outputs>`` in what each use gives."""
        return self.recorded.output_gradients(u)

    def pieces(self, number: int) -> Iterator[tuple[int, int]]:
        """Ranges of examples for which inputs of a use are of moderate size."""
        leading = self.recorded.leading(number)
        size = math.prod(leading) * max(1, self.recorded.uses[number].num_inputs)
        step = max(1, min(self.count, _NUMBERS_AT_ONCE * self.count // max(1, size)))
        return ((first, min(first + step, self.count)) for first in range(0, self.count, step))

    def inputs(self, number: int, first: int, last: int, *, biased: bool) -> Array:
        """Inputs of a use for some examples, shape (last - first, positions, num_inputs), in double precision.

        Where there is a bias, each has a one behind it.
        """
        use, leading, backend = self.recorded.uses[number], self.recorded.leading(number), self.objective.functions.backend
        axis, together = self._arrangement(number)
        if axis == 0 and together:
            each = leading[0] // self.count
            part = self.recorded.inputs(number, first * each, last * each)
            count, axis = last - first, 0
        else:
            part = self.recorded.inputs(number, 0, leading[0] if leading else 1)
            count = self.count
        width = use.num_inputs
        if use.kind == "embedding":
            indices = self._arranged(part, len(leading), axis, together, count)
            if count != last - first:
                indices = indices[first:last]
            numbers = backend.to_numpy(indices).astype(np.int64)
            return backend.asarray(np.eye(width)[numbers])  # no embedding has a bias
        found = self._arranged(part, len(leading), axis, together, count)
        if count != last - first:
            found = found[first:last]
        if not biased:
            return backend.contiguous(found, np.float64)
        wide = backend.empty((*found.shape[:-1], width + 1), np.float64)
        wide[..., :-1] = found
        wide[..., -1] = 1.0
        return wide

    def positions(self, number: int, gradient: Array, first: int = 0, last: int | None = None) -> Array:
        """A gradient of `gradients` for some examples, shape (last - first, positions, num_outputs), in double precision."""
        axis, together = self._arrangement(number)
        leading, last = self.recorded.leading(number), self.count if last is None else last
        if axis == 0 and together:
            each = leading[0] // self.count
            found = self._arranged(gradient[first * each : last * each], len(leading), 0, True, last - first)
        else:
            found = self._arranged(gradient, len(leading), axis, together, self.count)[first:last]
        return self.objective.functions.backend.contiguous(found, np.float64)

    def _arrangement(self, number: int) -> Arrangement:
        found = self._arrangements[number]
        assert found is not None
        return found

    def _arranged(self, x: Array, leading: int, axis: int, together: bool, count: int) -> Array:
        """An array with its axes of examples and positions as two, those of features as one (where it has some)."""
        backend = self.objective.functions.backend
        shape = tuple(int(length) for length in x.shape)
        features = shape[leading:]
        if axis >= 0:
            each = shape[axis] // count
            split = (count, each) if together else (each, count)
            x = backend.reshape(x, (*shape[:axis], *split, *shape[axis + 1 :]))
            place = axis if together else axis + 1
            for i in range(place, 0, -1):
                x = x.swapaxes(i, i - 1)
        return backend.reshape(x, (count, math.prod(shape[:leading]) // count, *features))


def walk(
    objective: Objective, columns: Columns, *, holds: bool, known: Arrangements | None = None
) -> Iterator[tuple[BatchGradients, Linearization, Iterator[Outputs]]]:
    """All batches with their recorded uses, derivatives in the outputs, and columns.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    columns : Columns
        Of the middle part.
    holds : bool
        Whether the gradients of all columns are held at once: batches are then cut, as far as they can be, until those fit an eighth of
        the memory budget.
    known : dict, optional
        How earlier walks with the same model found its examples arranged, which takes two small passes; filled on.
    """
    functions = objective.functions
    known = {} if known is None else known
    start, looked = 0, False
    waiting = objective._pieces.batches()
    queue: list[Batch] = []
    while True:
        batch = queue.pop(0) if queue else next(waiting, None)
        if batch is None:
            return
        linearization = functions.linearize(objective.point, batch, num_products=2)
        _ = linearization.num_terms  # looks whether outputs and targets fit
        outputs = linearization.outputs
        part = Part(batch, linearization, kept=False)
        count_examples(objective, part, outputs)
        if not looked:
            require_sum_over_rows(objective, part)
            looked = True
        recorded = functions.weight_uses(objective.point, batch)  # type: ignore[attr-defined]
        if holds:
            count = objective.data.count(batch)
            numbers = sum(math.prod(recorded.leading(i)) * use.num_outputs for i, use in enumerate(recorded.uses))
            size = 8 * numbers * columns.most(functions.flat_outputs(outputs).size // count)
            pieces = min(count, -(-8 * size // functions.memory_budget))
            parts = cut(functions, batch, count, pieces) if pieces > 1 else [batch]
            if len(parts) > 1:
                queue = parts + queue
                continue
        own = BatchGradients(objective, batch, recorded, known)
        yield own, linearization, columns.of(objective, batch, linearization, start)
        start += columns.numbers(objective, batch, outputs)
