"""A JAX model and its loss as functions of parameters and batch."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...backends import Array, Backend
from ...curvature import Accumulator, Batches
from ...curvature.cache import DATA_SHARE, OPERATOR_SHARE
from ...curvature.data import BatchSizes
from ...curvature.linearization import Each, Noise
from ...curvature.non_finite import NonFiniteLossError, require_finite_loss, require_terms
from ..array_batches import ArrayBatches
from ..common import HIDDEN_STATISTICS, NO_RUNNING_STATISTICS, listed
from ..loss_sentences import BATCH_STATISTICS
from ..parameter_files import read_arrays
from .batch_structure import BatchStructure, take_apart
from .context import curvature_mode, double_precision
from .errors import explained
from .inspection import bytes_out, ends_in, needed, reached
from .linearization import JaxLinearization
from .losses import OutputLoss, per_example
from .models import PureModel
from .programs import Programs, Totals
from .vectors import Layout, Leaves, TreeSum

_DOUBLE = np.dtype(np.float64)
_UNUSED = (
    "The loss of the batch does not depend on the parameters {names}: their rows and columns of the matrices are zero there. Leave them "
    "out with parameters= to save their memory."
)


@dataclasses.dataclass(frozen=True, eq=False)
class JaxPoint:
    """Parameters to differentiate at, with the model's other arrays."""

    leaves: Leaves
    constants: tuple[jax.Array, ...]


class JaxFunctions:
    """The JAX adapter's `linop_spectra.curvature.ModelFunctions`.

    Parameters
    ----------
    model : PureModel
        Our copy of the model.
    loss : OutputLoss
        The loss.
    backend : Backend
        Arrays of the core.
    memory_budget : int
        Bytes.
    batch_size : int or None
        For data given as two arrays.
    """

    _unused_warning = _UNUSED

    def __init__(self, model: PureModel, loss: OutputLoss, backend: Backend, memory_budget: int, batch_size: int | None) -> None:
        self._model, self.loss, self.backend, self.memory_budget = model, loss, backend, memory_budget
        self._batch_size, self._sizes = batch_size, BatchSizes(self._choose_batch_size)
        self._layout = layout = Layout(model.names, model.leaves, backend, model.device)
        self.names, self.num_parameters, self.dtype = layout.names, layout.num_parameters, layout.dtype
        self.blocks: Mapping[str, slice] = layout.blocks
        self.unit_rounding = max(float(jnp.finfo(dtype).eps) for dtype in layout.model_dtypes)
        self.averages, self.convex_loss = loss.averages, loss.convex
        self.gauss_newton_refusal: str | None = loss.gauss_newton_refusal
        self.fisher_refusal: str | None = loss.fisher_refusal
        self.example_refusal: str | None = loss.example_refusal or (BATCH_STATISTICS if model.batch_statistics else None)
        self.programs = Programs(model, loss)
        self.forward_mode_failure = ""
        self._wants_double = self.dtype == _DOUBLE
        self._inspected: set[BatchStructure] = set()
        self._unused: set[int] = set()
        self._in_double: JaxFunctions | None = None
        self.of_variables: dict[Any, tuple[Programs, set[BatchStructure], set[int]]] = {}
        self.weight_programs: dict[Any, Any] = {}
        self._batches = ArrayBatches(
            self._array, np.asarray, lambda x: isinstance(x, jax.Array), model.dtype, pairs=loss.needs_pairs
        )
        self.sequence, self.labels = self._batches.sequence, self._batches.labels

    def _array(self, array: Any, dtype: np.dtype | None) -> jax.Array:
        with double_precision(self._wants_double):
            return jax.device_put(jnp.array(array, dtype=dtype, copy=True), self._layout.device)

    # -- parameters and vectors ----------------------------------------------------------------------------------------

    def initial_point(self) -> JaxPoint:
        """The parameters that the model had when it was copied."""
        with self.session():
            leaves = tuple(x.astype(dtype) for x, dtype in zip(self._model.leaves, self._layout.leaf_dtypes, strict=True))
        return JaxPoint(leaves, self._model.constants)

    def point_from(self, source: Any, base: JaxPoint) -> JaxPoint:
        """Parameters from a vector, a tree like the model's own, a mapping of names, or a file."""
        if isinstance(source, str | os.PathLike):
            source = read_arrays(
                source,
                "parameters of a JAX model come from .npz or .safetensors files whose entries are named like the objective's blocks. "
                "Restore other checkpoints (orbax, msgpack) yourself and pass the tree.",
            )
        with self.session():
            named = self._named(source)
            if named is None:
                return JaxPoint(self._values(source), base.constants)
            constants = list(base.constants)
            for i, (name, current) in enumerate(zip(self._model.constant_names, base.constants, strict=True)):
                if name in named:
                    value = named[name]
                    if tuple(np.shape(value)) != current.shape:
                        raise ValueError(
                            f"The entry {name!r} has shape {current.shape}, but the array given has {tuple(np.shape(value))}."
                        )
                    constants[i] = jax.device_put(jnp.array(value, dtype=current.dtype, copy=True), self._layout.device)
            return JaxPoint(self._layout.from_named(named), tuple(constants))

    def _named(self, source: Any) -> dict[str, Any] | None:
        """The arrays of a tree by name; None for vectors and for plain sequences of arrays in order."""
        if isinstance(source, Mapping) and all(name in source for name in self.names):
            return dict(source)
        if isinstance(source, np.ndarray | jax.Array) or np.isscalar(source):
            return None
        named = self._model.named(source)
        if named is None or (isinstance(source, list | tuple) and not all(name in named for name in self.names)):
            return None
        return named

    def _values(self, source: Any) -> Leaves:
        if isinstance(source, list | tuple) and any(hasattr(item, "shape") for item in source):
            return self._layout.from_sequence(source)
        return self._layout.leaves(source)

    def flat(self, point: JaxPoint) -> Array:
        """The parameters as a vector of the core."""
        with self.session():
            return self._layout.flat(point.leaves)

    def flatten(self, tree: Any) -> Array:
        """Arrays in a tree like the parameters', by name or in order, as a vector of the core."""
        with self.session():
            named = self._named(tree)
            return self._layout.flat(self._layout.from_named(named) if named is not None else self._layout.from_sequence(list(tree)))

    def unflatten(self, vector: Any) -> dict[str, jax.Array]:
        """A vector as named arrays."""
        with self.session():
            return self._layout.unflatten(vector)

    def named_leaves(self, tree: Any) -> dict[str, Any]:
        """The leaves of a tree like the model's parameters by name, in the tree's order.

        Raises
        ------
        ValueError
            When the tree is another one.
        """
        named = self._model.named(tree)
        if named is None or not all(name in named for name in self.names):
            raise ValueError(f"The tree does not hold the parameters {listed(self.names)}.")
        return named

    def to_native(self, vector: Array) -> Leaves:
        """A vector of the core as arrays."""
        with self.session():
            return self._layout.to_native(vector)

    def accumulator(self, out: Array) -> TreeSum:
        """A sum of arrays that ends in `out`."""
        return self._layout.accumulator(out)

    # -- one batch, with checks ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Settings under which second derivatives are right."""
        with curvature_mode(self._wants_double), explained():
            yield

    def arguments(self, point: JaxPoint, batch: Any) -> tuple[Any, ...]:
        """What every program takes first."""
        structure, arrays = take_apart(batch)
        return structure, point.leaves, point.constants, arrays

    def accepted(self, totals: Totals, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms, once the values of a batch are found right."""
        problems = jax.device_get(totals.problems)
        for index, problem in enumerate(problems):
            if bool(problem):
                raise ValueError(self.loss.explain(index, batch))
        loss_sum, num_terms = float(totals.total), float(totals.terms)
        require_finite_loss(loss_sum)
        require_terms(num_terms)
        return loss_sum, num_terms

    def inspect(self, arguments: tuple[Any, ...]) -> None:
        """Look once at a batch of each form: refuse parameters that matter without a gradient, and say which count for nothing."""
        structure = arguments[0]
        if structure in self._inspected:
            return
        jaxpr = self.programs.gradient.trace(*arguments, self.one).jaxpr.jaxpr
        count, inputs, outputs = len(self.names), len(jaxpr.invars), len(jaxpr.outvars)
        # The inputs begin with the parameters and end with the seed of the gradient; the outputs begin with the gradient.
        with_gradient = reached(jaxpr, [False] * (inputs - 1) + [True])[:count]
        used = needed(jaxpr, [i == count for i in range(outputs)])[:count]
        self._refuse_detached([self.names[i] for i in range(count) if used[i] and not with_gradient[i]])
        if self.loss.sigmoid_refusal is not None and ends_in(self.programs.outputs.trace(*arguments).jaxpr.jaxpr, "logistic"):
            raise ValueError(self.loss.sigmoid_refusal)
        self._inspected.add(structure)
        new = [i for i in range(count) if not used[i] and i not in self._unused]
        if new:
            self._unused.update(new)
            warnings.warn(self._unused_warning.format(names=listed([self.names[i] for i in new])), UserWarning, stacklevel=2)

    def _refuse_detached(self, names: list[str]) -> None:
        """Raise where the loss changes with parameters that no gradient reaches."""
        if names:
            raise ValueError(
                f"The loss changes with the parameters {listed(names)}, but no gradient reaches them: they pass through "
                "lax.stop_gradient, integers or comparisons; leave them out with parameters=."
            )

    @property
    def one(self) -> jax.Array:
        """The seed of a gradient."""
        return jnp.ones((), dtype=self.dtype)

    def loss_sum(self, point: JaxPoint, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms."""
        arguments = self.arguments(point, batch)
        if self.loss.sigmoid_refusal is not None:
            self.inspect(arguments)
        return self.accepted(self.programs.totals(*arguments), batch)

    def forward_passes(self, points: Sequence[JaxPoint], batch: Any) -> Iterator[tuple[float, float, Any]]:
        """Summed loss (NaN where it is not finite), number of terms and outputs at each of several points."""
        if self.loss.sigmoid_refusal is not None:
            self.inspect(self.arguments(points[0], batch))
        for point in points:
            outputs, totals = self.programs.forward_pass(*self.arguments(point, batch))
            try:
                yield *self.accepted(totals, batch), outputs
            except NonFiniteLossError:
                yield float("nan"), 0.0, outputs

    def points_at_once(self, point: JaxPoint, batch: Any) -> int:
        """Points that a forward pass takes together, where that is less work: a mapped program saves less than it costs to compile."""
        return 1

    def with_running_statistics(self, points: Sequence[JaxPoint], batches: Batches) -> list[JaxPoint]:
        """The points with running statistics of batch normalisation from one pass over `batches` in training mode."""
        names = self.programs.model.statistics
        if names is None:
            raise TypeError(HIDDEN_STATISTICS.format(kind="function of parameters and inputs", fix="pass the flax module itself"))
        if not names:
            raise ValueError(NO_RUNNING_STATISTICS)
        places, seen = [self.programs.model.constant_names.index(name) for name in names], 0
        made = [list(point.constants) for point in points]
        batches.plan(points[0])
        with self.session():
            for batch in batches:
                examples = batches.count(batch)
                for point, constants in zip(points, made, strict=True):
                    for place, value in zip(places, self.programs.statistics(*self.arguments(point, batch)), strict=True):
                        before = constants[place] if seen else value  # those that it came with do not count
                        mixed = before + (value - before) * (examples / (seen + examples))
                        constants[place] = mixed.astype(point.constants[place].dtype)
                seen += examples
        return [JaxPoint(point.leaves, tuple(constants)) for point, constants in zip(points, made, strict=True)]

    def add_gradient(self, point: JaxPoint, batch: Any, total: Accumulator) -> tuple[float, float]:
        """Add the gradient of the summed loss to `total`."""
        arguments = self.arguments(point, batch)
        self.inspect(arguments)
        gradient, totals = self.programs.gradient(*arguments, self.one)
        found = self.accepted(totals, batch)
        total.add(gradient)
        return found

    def linearize(self, point: JaxPoint, batch: Any, *, num_products: int | None) -> JaxLinearization:
        """Derivatives at `point`, made when asked for."""
        return JaxLinearization(self, point, batch, num_products)

    def outputs_at(self, point: JaxPoint, batch: Any) -> Any:
        """The model's outputs."""
        return self.programs.outputs(*self.arguments(point, batch))

    def output_gradient(self, outputs: Any, batch: Any) -> Any:
        """Gradient of the summed loss in the outputs."""
        structure, arrays = take_apart(batch)
        return self.programs.output_gradient(structure, outputs, arrays)

    def retained_bytes(self, point: JaxPoint, batch: Any) -> int:
        """Memory that the linearised gradient of the batch holds, by its types; nothing is computed."""
        arguments = self.arguments(point, batch)
        try:
            traced = self.programs.linearized_gradient.trace(*arguments)
        except Exception as error:
            # A kernel may have a first derivative only, which is enough for some matrices.
            try:
                traced = self.programs.pulled_outputs.trace(*arguments)
            except Exception:
                raise error from None
        return bytes_out(traced.jaxpr.jaxpr)

    # -- outputs as numbers of the host, and the loss as a likelihood --------------------------------------------------

    def flat_outputs(self, outputs: Any) -> np.ndarray:
        """Outputs on the host in C order, shape (num_outputs,), of the core's type."""
        return np.asarray(outputs).astype(self.dtype).reshape(-1)

    def outputs_from(self, flat: np.ndarray, like: Any) -> jax.Array:
        """Numbers of the host in the shape, type and place of `like`."""
        with double_precision(self._wants_double):
            array = jnp.array(np.asarray(flat).reshape(like.shape), dtype=like.dtype, copy=True)
            return jax.device_put(array, self._layout.device)

    def noise_of(self, outputs: Any, batch: Any) -> tuple[Noise, tuple[int, ...]]:
        """Kind and shape of the random numbers that targets are drawn by."""
        likelihood = self.loss.likelihood(outputs, batch)
        return likelihood.noise, likelihood.shape

    def sampled_gradient(self, outputs: Any, batch: Any, noise: np.ndarray) -> jax.Array:
        """Gradient of the summed loss in the outputs, for targets drawn from the model's own likelihood."""
        likelihood = self.loss.likelihood(outputs, batch)
        gradient = likelihood.gradient(np.asarray(noise, dtype=np.float64).reshape(likelihood.shape))
        return self.outputs_from(gradient, outputs)

    def rank_one(self, g: Any, u: Any, each: Each) -> Any:
        """``g <g, u>`` over each example, or over each term of the loss."""
        if each == "term":
            return self.loss.rank_one(g, u)
        if g.ndim == 0 or (g.ndim < 2 and self.loss.has_class_axis):
            raise ValueError(
                f"The model's outputs of shape {tuple(g.shape)} are one example without an axis of examples, but gradients of "
                "single examples are asked for; give inputs and targets a first axis of length one."
            )
        return per_example(g, u)

    # -- data ----------------------------------------------------------------------------------------------------------

    def prepare(self, raw: Any) -> Any:
        """A user's batch in JAX."""
        return self._batches.prepare(raw)

    def take(self, batch: Any, indices: np.ndarray) -> Any | None:
        """Some examples of a batch; None where it cannot be cut."""
        with double_precision(self._wants_double):
            return self._batches.take(batch, indices)

    def batches(self, data: Any) -> Batches:
        """A user's data as batches."""
        sizes = None if self._model.batch_statistics else self._sizes
        return self._batches.batches(data, self._batch_size, int(DATA_SHARE * self.memory_budget), sizes)

    def _choose_batch_size(self, point: JaxPoint, batch: Any) -> int:
        """All examples where what is kept of them fits an operator's share of the budget; otherwise batches of an eighth of it."""
        examples, share = self._batches.num_examples(batch), OPERATOR_SHARE * self.memory_budget
        with self.session():
            size = self.retained_bytes(point, batch) if self.take(batch, np.arange(1)) is not None else 0
        if size <= share:
            return examples
        return max(1, -(-examples // int(np.ceil(8 * size / share))))

    # -- functions of something else than the parameters ---------------------------------------------------------------

    def of_inputs(self, point: JaxPoint, batch: Any) -> tuple[JaxFunctions, JaxPoint]:
        """Functions of the batch's inputs, with their present values as the point."""
        from .variables import InputFunctions

        functions = InputFunctions(self, point, batch)
        return functions, functions.initial_point()

    def of_activation(self, point: JaxPoint, batch: Any, layer: str) -> tuple[JaxFunctions, JaxPoint]:
        """Functions of what is added to the outputs of a layer or to a named array, with zeros as the point."""
        from .variables import ActivationFunctions

        functions = ActivationFunctions(self, point, batch, layer)
        return functions, functions.initial_point()

    def weight_uses(self, point: JaxPoint, batch: Any) -> Any:
        """A forward pass in which every use of a weight is seen."""
        from .weight_uses import JaxWeightUses

        return JaxWeightUses(self, point, batch)

    # -- the same in double precision ----------------------------------------------------------------------------------

    def in_double_precision(self, point: JaxPoint, batch: Any) -> tuple[JaxFunctions, JaxPoint, Any]:
        """Copies of everything in float64; made once, because they compile anew."""
        if self._wants_double and not any(_is_narrow(x) for x in (*self._model.leaves, *point.constants)):
            return self, point, batch
        with double_precision(True):
            if self._in_double is None:
                model = self._model.converted(_DOUBLE)
                made = JaxFunctions(model, self.loss, self.backend, self.memory_budget, None)
                self._in_double = made
            made = self._in_double
            made._unused |= self._unused
            leaves = tuple(leaf.astype(jnp.float64) for leaf in point.leaves)
            constants = tuple(x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in point.constants)
            return made, JaxPoint(leaves, constants), made.prepare(batch)


def _is_narrow(x: jax.Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating)) and x.dtype != _DOUBLE
