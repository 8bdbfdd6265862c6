r"""Matrices :math:`J^\top K J` whose middle part acts on the outputs of all batches at once.

A Gauss-Newton matrix treats each output by itself, so that one pass over the batches is enough. Where the middle part mixes
outputs of different batches (means over the examples of a class), the Jacobian of all batches comes first, then `K` in NumPy, then
the transposed Jacobian of all batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import Array, to_numpy
from .cache import LinearizationCache
from .finite_differences import _direction, _least, _relative, _slope_of_outputs, small_objective
from .matrices import CurvatureOperator
from .out_of_memory import cut, in_smaller_plans

if TYPE_CHECKING:
    from .objective import Objective

Kernel = Callable[[np.ndarray], np.ndarray]
_BLOCK_SHARE = 0.05
_NEGLIGIBLE = 1e-8


class OutputSpace:
    """The Jacobian of the outputs of all batches, between parameter vectors of the core and numbers on the host.

    The outputs of all batches are one long vector, batch after batch. Within a batch they stand in C order or as `places` says.

    Parameters
    ----------
    objective : Objective
        Model, parameters and data.
    sizes : sequence of int
        Number of outputs of each batch.
    places : sequence of numpy.ndarray or None
        For each batch, the place in C order of each of its outputs; None for C order itself.
    """

    def __init__(self, objective: Objective, sizes: Sequence[int], places: Sequence[np.ndarray | None]) -> None:
        self.objective = objective
        ends = np.cumsum(sizes).tolist()
        self.batches = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.num_outputs = int(sum(sizes))
        self._places = list(places)
        self._linearizations = LinearizationCache(objective)
        functions = objective.functions
        bytes_each = functions.num_parameters * functions.dtype.itemsize + 3 * 8 * self.num_outputs
        self.block = max(1, int(_BLOCK_SHARE * functions.memory_budget) // bytes_each)
        """Vectors that may go through both passes at a time."""

    def push(self, x: Array, active: np.ndarray | None = None) -> np.ndarray:
        """Jacobian times a block of vectors.

        Parameters
        ----------
        x : array
            Columns, shape (num_parameters, k).
        active : numpy.ndarray, optional
            One boolean for each batch: False leaves its outputs zero, at no cost.

        Returns
        -------
        numpy.ndarray
            Rows, shape (k, num_outputs), float64.
        """
        return np.concatenate(self._planned(x.shape[1], lambda block: self._push(x[:, block], active)))

    def _push(self, x: Array, active: np.ndarray | None) -> np.ndarray:
        functions, k = self.objective.functions, x.shape[1]
        rows, done = np.zeros((k, self.num_outputs)), [batch.start for batch in self.batches]
        with functions.session():
            columns = [functions.to_native(x[:, j]) for j in range(k)]
            for part in self._linearizations.parts(k):
                if active is not None and not active[part.index]:
                    continue
                first = done[part.index]
                for j, v in enumerate(columns):
                    flat = functions.flat_outputs(part.linearization.jvp(v))
                    rows[j, first : first + flat.size] = flat
                    done[part.index] = first + flat.size
        for batch, place in zip(self.batches, self._places, strict=True):
            if place is not None:
                rows[:, batch] = rows[:, batch][:, place]
        return rows

    def _planned(self, k: int, compute: Callable[[slice], Any]) -> list[Any]:
        """What `compute` gives for blocks of `k` vectors, by as small a plan as memory asks for."""
        kept = self._linearizations

        def run() -> list[Any]:
            width = 1 if kept.one_by_one else k
            return [compute(slice(first, min(first + width, k))) for first in range(0, k, width)]

        def retreat() -> bool:
            return kept.retreat() and (kept.pieces.count == 1 or self._rows_are_examples())

        return in_smaller_plans(run, retreat, lambda: f"{kept.sentence()}, one vector at a time")

    def _rows_are_examples(self) -> bool:
        """Whether the outputs of pieces of a batch, one after another, are those of the batch; looked at on two examples."""
        functions, point = self.objective.functions, self.objective.point
        pair = functions.take(next(iter(self.objective.data)), np.arange(2))
        with functions.session():
            outputs = [
                np.asarray(functions.flat_outputs(functions.outputs_at(point, part)), dtype=float)
                for part in (pair, *cut(functions, pair, 2, 2))
            ]
        whole, halves = outputs[0], np.concatenate(outputs[1:])
        tolerance = 100 * functions.unit_rounding * float(np.abs(whole).max(initial=0.0))
        return whole.shape == halves.shape and bool(np.abs(whole - halves).max(initial=0.0) <= tolerance)

    def pull(self, k: int, outputs: Callable[[int, int], np.ndarray | None]) -> Array:
        """Transposed Jacobian times `k` vectors of output space.

        Parameters
        ----------
        k : int
            How many.
        outputs : callable
            ``outputs(j, index)`` gives what vector `j` holds for the batch `index`, of any shape with that many numbers; None stands
            for zeros and costs nothing.

        Returns
        -------
        array
            Rows, shape (k, num_parameters), on the objective's backend.
        """
        functions = self.objective.functions
        rows = functions.backend.empty((k, functions.num_parameters), functions.dtype)
        self._planned(k, lambda block: self._pull(range(block.start, block.stop), outputs, rows))
        return rows

    def _pull(self, block: range, outputs: Callable[[int, int], np.ndarray | None], rows: Array) -> None:
        functions, done = self.objective.functions, [0] * len(self.batches)
        touched = set()
        with functions.session():
            totals = {j: functions.accumulator(rows[j]) for j in block}
            for part in self._linearizations.parts(len(block)):
                first = done[part.index]
                for j, total in totals.items():
                    numbers = outputs(j, part.index)
                    if numbers is not None:
                        like = part.linearization.outputs
                        done[part.index] = first + math.prod(like.shape)
                        own = self._in_order(numbers, part.index)[first : done[part.index]]
                        total.add(part.linearization.vjp(functions.outputs_from(own, like)))
                        touched.add(j)
            for j in touched:
                totals[j].finish(1.0)
        for j in set(block) - touched:
            rows[j] = 0

    def _in_order(self, numbers: np.ndarray, index: int) -> np.ndarray:
        """A batch's numbers in C order."""
        place = self._places[index]
        flat = np.ascontiguousarray(numbers, dtype=self.objective.functions.dtype).reshape(-1)
        if place is None:
            return flat
        ordered = np.empty_like(flat)
        ordered[place] = flat
        return ordered

    def engine(self) -> str:
        """How products with the Jacobian and its transpose are computed."""
        return f"{'; '.join(self._linearizations.engines())}; {self._linearizations.sentence()}."

    @property
    def started(self) -> bool:
        """Whether anything was multiplied yet."""
        return bool(self._linearizations.engines())


class OutputSpaceOperator(CurvatureOperator):
    r"""A symmetric matrix :math:`J^\top K J` with the Jacobian :math:`J` of the outputs of all batches; weight decay adds nothing.

    Parameters
    ----------
    space : OutputSpace
        The Jacobian; operators that share it share what is kept for their products.
    kernel : callable
        `K`, from an array of shape (num_outputs,), float64, to another one; linear, symmetric and positive semidefinite.
    name : str
        For the printed tree.
    remake : callable
        The same operator of another objective, for the check against finite differences.
    active : numpy.ndarray, optional
        One boolean for each batch: False where `K` neither looks at its outputs nor changes them.
    """

    def __init__(
        self,
        space: OutputSpace,
        kernel: Kernel,
        name: str,
        remake: Callable[[Objective], OutputSpaceOperator],
        active: np.ndarray | None = None,
    ) -> None:
        super().__init__(space.objective, positive_semidefinite=True)
        self.name = name
        self._space, self._kernel, self._remake, self._active = space, kernel, remake, active

    @property
    def identity_multiple(self) -> float:
        """None: the matrix is that of the loss alone."""
        return 0.0

    def _matmat(self, x: Array) -> Array:
        space, k = self._space, x.shape[1]
        rows = self.backend.empty((k, self.shape[0]), self.dtype)
        for first in range(0, k, space.block):
            last = min(first + space.block, k)
            outputs = space.push(x[:, first:last], self._active)
            for row in outputs:
                row[:] = self._kernel(row)

            def of_batch(j: int, index: int, outputs: np.ndarray = outputs) -> np.ndarray | None:
                return None if self._active is not None and not self._active[index] else outputs[j, space.batches[index]]

            rows[first:last] = space.pull(last - first, of_batch)
        return rows.T

    @property
    def engine(self) -> str:
        """How products are computed, and why so; before the first product this question costs one product."""
        if not self._space.started:
            self._matmat(self.backend.asarray(self.objective.parameters()).reshape(-1, 1))
        return (
            "The Jacobian of all batches comes first and the transposed one after it, so that batches that are not kept are passed over "
            f"twice in each product. {self._space.engine()}"
        )

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance from differences of the outputs, in double precision on a small part of the data.

        The vector relies on reverse mode for the transposed Jacobian; the quadratic form, which is compared too, does not.
        """
        small = small_objective(self.objective)
        operator = self._remake(small)
        space = operator._space
        theta, v, scale = _direction(small, seed)
        product = to_numpy(operator @ v)
        (batch,) = small.batches()

        def error_at(step: float) -> float:
            slope, place = _slope_of_outputs(small, batch, theta, v, step), space._places[0]
            slope = slope if place is None else slope[place]
            curved = operator._kernel(slope)
            reference = to_numpy(space.pull(1, lambda j, index: curved))[0]
            form = float(slope @ curved)
            # A part may vanish (the means of two classes have no spread); then there is only rounding to compare.
            whole = to_numpy(space.pull(1, lambda j, index: slope))[0] / space.num_outputs
            least = _NEGLIGIBLE * float(np.linalg.norm(whole))
            vector = _relative(float(np.linalg.norm(product - reference)), max(float(np.linalg.norm(reference)), least))
            return max(vector, _relative(abs(float(v @ product) - form), max(abs(form), least * float(np.linalg.norm(v)))))

        with small.functions.session():
            return _least(error_at, scale)

    def _describe(self) -> str:
        return f"the operator {self.name} of shape {self.shape}"

    def _details(self) -> str:
        return self.name
