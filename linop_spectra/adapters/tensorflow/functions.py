"""A TensorFlow model and its loss as pure functions of parameters and batch."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from ...backends import Array, Backend
from ...curvature import Accumulator, Batches
from ...curvature.cache import DATA_SHARE, OPERATOR_SHARE
from ...curvature.data import BatchSizes
from ...curvature.linearization import Each, Noise
from ...curvature.non_finite import NonFiniteLossError, require_finite_loss, require_terms
from ..array_batches import ArrayBatches
from ..batch_leaves import leaves
from ..common import HIDDEN_STATISTICS, NO_RUNNING_STATISTICS, listed
from ..loss_sentences import BATCH_STATISTICS
from ..parameter_files import read_arrays
from .compiled import Compiled
from .context import curvature_mode
from .linearization import TensorFlowLinearization
from .losses import OutputLoss, per_example
from .program import Program, finfo_eps
from .vectors import Layout, VectorSum, as_tensor, checked_value

Product = Callable[[Any], Any]

_BACKWARD_FACTOR = 4
"""Memory of a Hessian product in units of what the forward pass computes, about."""
_RETAINED_FACTOR = 3
"""What is kept for many products, in the same units; one to two in networks of all kinds."""


@dataclasses.dataclass(frozen=True, eq=False)
class TensorFlowPoint:
    """Parameters to differentiate at, as one flat tensor, with the values of all other variables."""

    flat: Any
    rest: tuple[Any, ...]


class TensorFlowFunctions:
    """The TensorFlow adapter's `linop_spectra.curvature.ModelFunctions`.

    Parameters
    ----------
    program : Program
        The model.
    loss : OutputLoss
        The loss.
    backend : Backend
        Arrays of the core.
    memory_budget : int
        Bytes.
    batch_size : int or None
        For data given as two arrays.
    """

    def __init__(self, program: Program, loss: OutputLoss, backend: Backend, memory_budget: int, batch_size: int | None) -> None:
        self.program, self.loss, self.backend, self.memory_budget = program, loss, backend, memory_budget
        self._batch_size, self._sizes = batch_size, BatchSizes(self._choose_batch_size)
        self._layout = layout = Layout(program.names, program.initial, backend)
        self.compiled = Compiled(program, loss, layout)
        self.names, self.num_parameters, self.dtype = layout.names, layout.num_parameters, layout.dtype
        self.blocks: Mapping[str, slice] = layout.blocks
        self.unit_rounding = max(finfo_eps(dtype) for dtype in (*layout.dtypes, *program.compute_dtypes))
        self.averages, self.convex_loss = loss.averages, loss.convex
        self.gauss_newton_refusal, self.fisher_refusal = loss.gauss_newton_refusal, loss.fisher_refusal
        self.example_refusal = loss.example_refusal or (BATCH_STATISTICS if program.batch_statistics else None)
        self.regularized = loss.regularized and program.is_regularized
        self._unused: set[int] = set()
        self._double: TensorFlowFunctions | None = None
        self.weight_graphs: dict[Any, Any] = {}
        self.derived: dict[Any, Compiled] = {}
        """Graphs of the same model and loss as functions of inputs and activations."""
        types = {value.dtype for value in (*program.initial, *program.initial_rest) if value.dtype.is_floating}
        whole = {dtype for dtype in types if dtype in (tf.float32, tf.float64)}
        self._batches = ArrayBatches(
            _to_native,
            lambda array: np.asarray(array.numpy()),
            tf.is_tensor,
            np.dtype(whole.pop().as_numpy_dtype) if len(whole) == 1 else None,
            pairs=loss.pairs,
        )
        self.prepare, self.sequence = self._batches.prepare, self._batches.sequence
        self.labels = self._batches.labels

    # -- parameters and vectors ----------------------------------------------------------------------------------------

    @cached_property
    def _initial_point(self) -> TensorFlowPoint:
        return TensorFlowPoint(self._layout.join(self.program.initial), tuple(self.program.initial_rest))

    def initial_point(self) -> TensorFlowPoint:
        """The parameters that the model had when it was read."""
        return self._initial_point

    def point_from(self, source: Any, base: TensorFlowPoint) -> TensorFlowPoint:
        """Parameters from a vector, a mapping of names, a list in order, or a file."""
        if isinstance(source, str | os.PathLike):
            own = self.program.read_file(source)
            otherwise = "parameters come from .npz or .safetensors files, those of a Keras model from .weights.h5 and .keras files too."
            source = read_arrays(source, otherwise) if own is None else own
        if isinstance(source, list | tuple) and any(hasattr(item, "shape") for item in source):
            names = self.program.ordered_names(len(source))
            if names is None:
                raise ValueError(
                    f"{len(source)} arrays were given, but this objective has {len(self.names)} parameters and the model "
                    f"{len(self.names) + len(self.program.rest_names)} variables."
                )
            source = dict(zip(names, source, strict=True))
        if not isinstance(source, Mapping):
            return TensorFlowPoint(self._layout.from_vector(source), base.rest)
        rest = [
            checked_value(name, source[name], tuple(current.shape), current.dtype) if name in source else current
            for name, current in zip(self.program.rest_names, base.rest, strict=True)
        ]
        return TensorFlowPoint(self._layout.from_tree(source), tuple(rest))

    def pieces(self, point: TensorFlowPoint) -> list[Any]:
        """The parameters one by one."""
        return self._layout.split(point.flat)

    def flat(self, point: TensorFlowPoint) -> Array:
        """The parameters as a vector of the core."""
        return self._layout.flat(point.flat)

    def flatten(self, tree: Any) -> Array:
        """Named or ordered arrays as a vector of the core."""
        return self._layout.flat(self._layout.from_tree(tree))

    def unflatten(self, vector: Any) -> dict[str, Any]:
        """A vector as named tensors."""
        return self._layout.unflatten(vector)

    def to_native(self, vector: Array) -> Any:
        """A vector of the core as a flat tensor."""
        return as_tensor(vector)

    def accumulator(self, out: Array) -> VectorSum:
        """A sum of flat tensors that ends in `out`."""
        return VectorSum(out)

    # -- one batch -----------------------------------------------------------------------------------------------------

    def session(self) -> AbstractContextManager[None]:
        """Settings under which products are right."""
        return curvature_mode()

    def outputs_at(self, point: TensorFlowPoint, batch: Any) -> Any:
        """The model's outputs."""
        return self.compiled("outputs", point.flat, point.rest, batch)

    def checked_loss(self, point: TensorFlowPoint, outputs: Any, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms, after a look at outputs and targets."""
        if not self.loss.split:
            return _checked_totals(*outputs)
        self.loss.check(outputs, batch)
        return _checked_totals(*self.compiled("loss", point.flat, point.rest, batch, outputs))

    def loss_sum(self, point: TensorFlowPoint, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms."""
        return self.checked_loss(point, self.outputs_at(point, batch), batch)

    def forward_passes(self, points: Sequence[TensorFlowPoint], batch: Any) -> Iterator[tuple[float, float, Any]]:
        """Summed loss (NaN where it is not finite), number of terms and outputs at each of several points."""
        for point in points:
            outputs = self.outputs_at(point, batch)
            try:
                yield *self.checked_loss(point, outputs, batch), outputs
            except NonFiniteLossError:
                yield float("nan"), 0.0, outputs

    def points_at_once(self, point: TensorFlowPoint, batch: Any) -> int:
        """Points that a forward pass takes together, where that is less work: they go one after the other."""
        return 1

    def with_running_statistics(self, points: Sequence[TensorFlowPoint], batches: Batches) -> list[TensorFlowPoint]:
        """The points with moving statistics of batch normalisation from one pass over `batches` in training mode."""
        names = self.program.statistics
        if names is None:
            raise TypeError(HIDDEN_STATISTICS.format(kind="tf.Module", fix="make the model a Keras model"))
        if not names:
            raise ValueError(NO_RUNNING_STATISTICS)
        places, seen = [self.program.rest_names.index(name) for name in names], 0
        rests = [list(point.rest) for point in points]
        batches.plan(points[0])
        with self.session():
            for batch in batches:
                examples = batches.count(batch)
                for point, rest in zip(points, rests, strict=True):
                    for place, value in zip(places, self.compiled("statistics", point.flat, point.rest, batch), strict=True):
                        before = rest[place] if seen else value  # those that it came with do not count
                        rest[place] = before + (value - before) * (examples / (seen + examples))
                seen += examples
        return [TensorFlowPoint(point.flat, tuple(rest)) for point, rest in zip(points, rests, strict=True)]

    def add_gradient(self, point: TensorFlowPoint, batch: Any, total: Accumulator) -> tuple[float, float]:
        """Add the gradient of the summed loss to `total`."""
        self._look_first("gradient", point, batch)
        gradient, outputs, loss, terms = self.compiled("gradient", point.flat, point.rest, batch)
        if self.loss.split:
            self.loss.check(outputs, batch)
        totals = _checked_totals(loss, terms)
        self._note_unused(point, batch)
        total.add(gradient)
        return totals

    def product(self, kind: str, point: TensorFlowPoint, batch: Any, v: Any, *, look: bool) -> tuple[Any, float]:
        """A matrix of the summed loss ("hessian", "gauss-newton", "residual") times `v`, and the number of terms.

        `look` asks whether outputs and targets fit.
        """
        self._look_first(kind, point, batch)
        product, *others = self.compiled(kind, point.flat, point.rest, batch, v)
        return product, self._terms_of(kind, point, batch, others, look)

    def linearized(self, kind: str, point: TensorFlowPoint, batch: Any, v: Any, *, look: bool) -> tuple[Product, float] | None:
        """The same as a function of vectors like `v`, which shares what they have in common; None where the graph cannot be cut."""
        self._look_first(kind, point, batch)
        linearized = self.compiled.linearized(kind, point.flat, point.rest, batch, v)
        if linearized is None:
            return None
        inputs = (point.flat, *point.rest, *leaves(batch))
        kept, others = linearized.start(inputs)
        return functools.partial(linearized.product, inputs, kept), self._terms_of(kind, point, batch, others, look)

    def _terms_of(self, kind: str, point: TensorFlowPoint, batch: Any, others: Sequence[Any], look: bool) -> float:
        outputs, loss, terms = others
        if look and self.loss.split:
            self.loss.check(outputs, batch)
        found = _checked_totals(loss, terms)[1]
        if kind == "hessian":
            self._note_unused(point, batch)
        return found

    def linearize(self, point: TensorFlowPoint, batch: Any, *, num_products: int | None) -> TensorFlowLinearization:
        """Derivatives at `point`, made when asked for."""
        return TensorFlowLinearization(self, point, batch, num_products)

    def retained_bytes(self, point: TensorFlowPoint, batch: Any) -> int:
        """Memory that a kept linearization holds beside parameters: that of a few arrays for each of the forward pass, and the batch."""
        graph = self.compiled.graph("outputs", point.flat, point.rest, batch)
        return _RETAINED_FACTOR * (self.compiled.bytes_of_outputs_graph(graph, batch) + self._batches.num_bytes(batch))

    def output_gradient(self, outputs: Any, batch: Any) -> Any:
        """Gradient of the summed loss in the outputs."""
        point = self.initial_point()
        return self.compiled("output gradient", point.flat, point.rest, batch, outputs)

    def _look_first(self, kind: str, point: TensorFlowPoint, batch: Any) -> None:
        """Before a graph is traced: a forward pass says in plain words what does not fit."""
        if not self.compiled.known(kind, batch):
            self.loss_sum(point, batch)

    def _note_unused(self, point: TensorFlowPoint, batch: Any) -> None:
        """Say once which parameters count for nothing; raise when one matters although no gradient reaches it."""
        new = sorted(self.compiled.unused - self._unused)
        if not new:
            return
        names = listed([self.names[i] for i in new])
        # Uneven shifts, because many losses do not see a constant one.
        shift = np.zeros(self.num_parameters)
        for i in new:
            block = self.blocks[self.names[i]]
            shift[block] = np.cos(np.arange(block.stop - block.start))
        moved = TensorFlowPoint(point.flat + tf.cast(shift, point.flat.dtype), point.rest)
        before, after = self.loss_sum(point, batch)[0], self.loss_sum(moved, batch)[0]
        if not abs(after - before) <= 1e-5 * abs(before):
            raise ValueError(
                f"The loss changes with the parameters {names}, but no gradient reaches them: a stop_gradient or an operation without "
                "a derivative lies between; leave them out with parameters=."
            )
        self._unused.update(new)
        warnings.warn(
            f"The loss of the batch does not depend on the parameters {names}: their rows and columns of the matrices are zero there. "
            "Leave them out with parameters= to save their memory.",
            UserWarning,
            stacklevel=2,
        )

    # -- outputs as numbers of the host, and the loss as a likelihood --------------------------------------------------

    def flat_outputs(self, outputs: Any) -> np.ndarray:
        """Outputs on the host in C order, shape (num_outputs,), of the core's type."""
        return np.asarray(outputs.numpy(), dtype=self.dtype).reshape(-1)

    def outputs_from(self, flat: np.ndarray, like: Any) -> Any:
        """Numbers of the host in the shape and type of `like`."""
        return tf.reshape(tf.cast(tf.convert_to_tensor(np.asarray(flat)), like.dtype), like.shape)

    def noise_of(self, outputs: Any, batch: Any) -> tuple[Noise, tuple[int, ...]]:
        """Kind and shape of the random numbers that targets are drawn by."""
        return self.loss.noise_of(outputs)

    def sampled_gradient(self, outputs: Any, batch: Any, noise: np.ndarray) -> Any:
        """Gradient of the summed loss in the outputs, for targets drawn from the model's own likelihood."""
        point, numbers = self.initial_point(), tf.convert_to_tensor(np.asarray(noise, dtype=np.float64))
        return self.compiled("sampled gradient", point.flat, point.rest, batch, outputs, numbers)

    def rank_one(self, g: Any, u: Any, each: Each) -> Any:
        """``g <g, u>`` over each example, or over each term of the loss."""
        if each == "term":
            return self.loss.rank_one(g, u)
        self.loss.require_examples(g)
        return per_example(g, u)

    # -- the loss as a function of something else ----------------------------------------------------------------------

    def of_inputs(self, point: TensorFlowPoint, batch: Any) -> tuple[TensorFlowFunctions, TensorFlowPoint]:
        """The loss of one batch as a function of its inputs."""
        from .variables import input_functions

        return input_functions(self, point, batch)

    def of_activation(self, point: TensorFlowPoint, batch: Any, layer: str) -> tuple[TensorFlowFunctions, TensorFlowPoint]:
        """The loss of one batch as a function of what is added to a layer's outputs."""
        from .variables import activation_functions

        return activation_functions(self, point, batch, layer)

    def weight_uses(self, point: TensorFlowPoint, batch: Any) -> Any:
        """A forward pass in which every use of a weight is seen."""
        from .weight_uses import TensorFlowWeightUses

        return TensorFlowWeightUses(self, point, batch)

    # -- data ----------------------------------------------------------------------------------------------------------

    def take(self, batch: Any, indices: np.ndarray) -> Any | None:
        """Some examples of a batch; None where it cannot be cut."""
        return self._batches.take(batch, indices)

    def batches(self, data: Any) -> Batches:
        """A user's data as batches."""
        sizes = None if self.program.batch_statistics else self._sizes
        return self._batches.batches(data, self._batch_size, int(DATA_SHARE * self.memory_budget), sizes)

    def _choose_batch_size(self, point: TensorFlowPoint, batch: Any) -> int:
        """All examples where a product on them fits an operator's share of the budget; otherwise batches of an eighth of it."""
        examples, share = self._batches.num_examples(batch), OPERATOR_SHARE * self.memory_budget
        if self.take(batch, np.arange(1)) is None:
            return examples
        with self.session():
            graph = self.compiled.graph("outputs", point.flat, point.rest, batch)
        size = _BACKWARD_FACTOR * self.compiled.bytes_of_outputs_graph(graph, batch)
        if size <= share:
            return examples
        return max(1, -(-examples // int(np.ceil(8 * size / share))))

    # -- the same in double precision ----------------------------------------------------------------------------------

    def in_double_precision(self, point: TensorFlowPoint, batch: Any) -> tuple[Any, TensorFlowPoint, Any]:
        """Copies of everything in float64."""
        everything = (*self._layout.dtypes, *self.program.compute_dtypes)
        if all(dtype == tf.float64 for dtype in everything):
            return self, point, batch  # graphs are pure: there is nothing to copy
        if self._double is None:
            program = self.program.converted(tf.float64)
            self._double = type(self)(program, self.loss, self.backend, self.memory_budget, None)
        functions = self._double
        functions._unused |= self._unused
        rest = tuple(tf.cast(value, tf.float64) if value.dtype.is_floating else value for value in point.rest)
        return functions, TensorFlowPoint(tf.cast(point.flat, tf.float64), rest), functions.prepare(batch)


def _checked_totals(loss: Any, terms: Any) -> tuple[float, float]:
    loss_sum, num_terms = float(loss), float(terms)
    require_finite_loss(loss_sum)
    require_terms(num_terms)
    return loss_sum, num_terms


def _to_native(array: Any, dtype: np.dtype | None) -> Any:
    if isinstance(array, tf.Variable):
        array = tf.identity(array)
    if not tf.is_tensor(array):
        array = tf.convert_to_tensor(np.array(array))  # copied: the user's array may change
    return array if dtype is None else tf.cast(array, tf.as_dtype(dtype))
