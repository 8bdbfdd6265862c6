"""A torch model and its loss as pure functions of parameters and batch."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backends import Array, Backend
from ...curvature import Accumulator, Batches
from ...curvature.cache import DATA_SHARE, OPERATOR_SHARE
from ...curvature.data import BatchSizes
from ...curvature.non_finite import NonFiniteLossError, require_finite_loss, require_terms
from ..common import listed
from ..loss_sentences import BATCH_STATISTICS
from .batches import TorchBatches, leaves, map_leaves
from .context import RandomState, curvature_mode
from .custom_losses import require_scalar
from .errors import explained
from .graph_size import graph_bytes
from .layer_derivatives import HigherDerivative
from .likelihood import OutputSpace
from .linearization import TorchLinearization
from .losses import OutputLoss
from .modes import has_recurrence, uses_batch_statistics
from .module import PureModule
from .nested_derivatives import ElementaryNorms, Watch, mentions_mixed_precision
from .parameter_files import read_parameters, without_wrappers
from .second_derivatives import second_derivatives
from .several_points import Together
from .vectors import Layout, Only, Tensors, TensorSum, filled

_MEASURED_EXAMPLES, _MEASURED_SHARE = 16, 16
"""A batch is measured on a sixteenth of its examples, and on at most 16."""


@dataclasses.dataclass(frozen=True, eq=False)
class TorchPoint:
    """Parameters to differentiate at, with the buffers and the other parameters that belong to them."""

    leaves: Tensors
    rest: Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class GradientGraph:
    """A batch's summed loss and its gradient in `leaves`, both with a graph; its value, the number of its terms; what is in closed form."""

    leaves: Tensors
    total: Tensor
    gradient: Tensors
    loss_sum: float
    num_terms: float
    closed_forms: str


class TorchFunctions(OutputSpace):
    """The torch adapter's `linop_spectra.curvature.ModelFunctions`.

    Parameters
    ----------
    module : PureModule
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

    def __init__(
        self, module: PureModule, loss: OutputLoss, backend: Backend, memory_budget: int, batch_size: int | None
    ) -> None:
        self._module, self.loss, self.backend, self.memory_budget = module, loss, backend, memory_budget
        self._batch_size, self._sizes = batch_size, BatchSizes(self._choose_batch_size)
        self._layout = layout = Layout(module.parameters, backend)
        self.names, self.num_parameters, self.dtype = layout.names, layout.num_parameters, layout.dtype
        self.blocks: Mapping[str, slice] = layout.blocks
        self.unit_rounding = max(float(torch.finfo(dtype).eps) for dtype in layout.model_dtypes)
        self.averages, self.convex_loss = loss.averages, loss.convex
        self.gauss_newton_refusal: str | None = loss.gauss_newton_refusal
        model = module.model
        self._recurrent, self._batch_statistics = has_recurrence(model), uses_batch_statistics(model)
        self.fisher_refusal: str | None = loss.fisher_refusal
        self.example_refusal: str | None = loss.example_refusal or (BATCH_STATISTICS if self._batch_statistics else None)
        self.forward_mode_failure = ""
        self.forward_mode_works = False
        self.differentiates_inside = False  # the model or the loss does, as far as is known
        self._watched = False
        self.together = Together(self)
        self._may_round = mentions_mixed_precision(model)
        self._unused: set[int] = set()
        self._writes_to_batch: bool | None = None
        self._random_state = RandomState(layout.device)
        types = {p.dtype for p in model.parameters() if p.is_floating_point()}
        self._batches = TorchBatches(
            layout.device, types.pop() if len(types) == 1 else None, pairs=type(loss).outputs is OutputLoss.outputs
        )
        self.prepare, self.sequence = self._batches.prepare, self._batches.sequence
        self.labels, self.take = self._batches.labels, self._batches.take

    # -- parameters and vectors ----------------------------------------------------------------------------------------

    def initial_point(self) -> TorchPoint:
        """The parameters that the model had when it was copied."""
        copies = tuple(
            p.to(dtype) for p, dtype in zip(self._module.parameters.values(), self._layout.leaf_dtypes, strict=True)
        )
        return TorchPoint(copies, self._module.rest)

    @torch.inference_mode(False)
    def point_from(self, source: Any, base: TorchPoint) -> TorchPoint:
        """Parameters from a vector, a mapping of names, or a file."""
        if isinstance(source, str | os.PathLike):
            source = read_parameters(source)
        source = self._module.by_name(source, self.names)
        if isinstance(source, Mapping):
            state = without_wrappers(source)
            rest = dict(base.rest)
            for name, current in base.rest.items():
                if name in state:
                    value = torch.as_tensor(state[name]).detach()
                    if value.shape != current.shape:
                        raise ValueError(
                            f"The entry {name!r} has shape {tuple(current.shape)}, but the array given has {tuple(value.shape)}."
                        )
                    rest[name] = value.to(current.device, current.dtype, copy=True)
            return TorchPoint(self._layout.from_tree(state), rest)
        if isinstance(source, list | tuple) and any(hasattr(item, "shape") for item in source):
            return TorchPoint(self._layout.from_tree(source), base.rest)
        return TorchPoint(self._layout.leaves(source), base.rest)

    def flat(self, point: TorchPoint) -> Array:
        """The parameters as a vector of the core."""
        return self._layout.flat(point.leaves)

    def flatten(self, tree: Any) -> Array:
        """Named or ordered arrays as a vector of the core."""
        return self._layout.flat(self._layout.from_tree(self._module.by_name(tree, self.names)))

    def unflatten(self, vector: Any) -> dict[str, Tensor]:
        """A vector as named tensors."""
        return self._layout.unflatten(vector)

    def to_native(self, vector: Array) -> Tensors:
        """A vector of the core as tensors."""
        return self._layout.to_native(vector)

    def accumulator(self, out: Array) -> TensorSum:
        """A sum of tensors that ends in `out`."""
        return self._layout.accumulator(out)

    # -- pure functions, safe inside transforms ------------------------------------------------------------------------

    def pure_outputs(self, parameters: Tensors, rest: Mapping[str, Tensor], batch: Any) -> Any:
        """The model's outputs."""
        values = {
            name: value if value.dtype == dtype else value.to(dtype)
            for name, value, dtype in zip(self.names, parameters, self._layout.model_dtypes, strict=True)
        }

        def call(own: Any) -> Any:
            return self._module.call(self.loss.outputs, values, dict(rest), own)

        if not self._watched:
            with Watch() as watch:
                outputs = self._untouched(call, batch)
            self._watched = True
            self.unit_rounding = max(self.unit_rounding, watch.rounding)
            if not watch.found:
                return outputs
            self.differentiates_inside = True
        with ElementaryNorms() if self.differentiates_inside else contextlib.nullcontext():
            return self._untouched(call, batch)

    def _untouched(self, call: Callable[[Any], Any], batch: Any) -> Any:
        """``call`` of a batch that may be written to: containers are always copied, arrays where the first call wrote to some."""
        if self._writes_to_batch is False:
            return call(map_leaves(batch, lambda tensor: tensor))
        own = map_leaves(batch, Tensor.clone)
        tensors = leaves(own)  # of before: a function may put other arrays into the containers
        versions = [tensor._version for tensor in tensors]
        outputs = call(own)
        if self._writes_to_batch is None:
            self._writes_to_batch = any(t._version != v for t, v in zip(tensors, versions, strict=True))
        return outputs

    @property
    def looked(self) -> bool:
        """Whether a forward pass has shown how the model rounds, and whether it writes to its batch."""
        return self._watched and self._writes_to_batch is False

    def pure_loss(self, parameters: Tensors, rest: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The batch's summed loss."""
        return self.loss.total(self.pure_outputs(parameters, rest, batch), batch)[0]

    # -- one batch, with checks ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Settings under which second derivatives are right."""
        with curvature_mode(self._layout.device, recurrent=self._recurrent), explained():
            yield

    def frozen_randomness(self) -> contextlib.AbstractContextManager[None]:
        """The random state of the functions' creation, for whatever a forward pass may draw."""
        return self._random_state.frozen()

    def leaves(self, point: TorchPoint) -> Tensors:
        """Parameters as leaves of a new graph."""
        return tuple(leaf.detach().requires_grad_() for leaf in point.leaves)

    def differentiable_outputs(self, parameters: Tensors, point: TorchPoint, batch: Any) -> Any:
        """Outputs with a graph."""
        with self.frozen_randomness():
            return self.pure_outputs(parameters, point.rest, batch)

    def differentiable_loss(self, point: TorchPoint, batch: Any) -> tuple[Tensors, Tensor, float, float]:
        """Leaves, summed loss with a graph, its value, and the number of terms."""
        leaves = self.leaves(point)
        outputs = self.differentiable_outputs(leaves, point, batch)
        loss_sum, num_terms, total = self._totals(outputs, batch)
        return leaves, total, loss_sum, num_terms

    def differentiable_gradient(self, point: TorchPoint, batch: Any, *, scale: float = 1.0) -> GradientGraph:
        """The gradient of the summed loss with a graph, in which large layers have their second derivatives in closed form.

        Sizes are judged as though arrays were `scale` times as large.
        """
        try:
            with second_derivatives(curved=True, wanted=not self.differentiates_inside, scale=scale) as layers:
                leaves, total, loss_sum, num_terms = self.differentiable_loss(point, batch)
            gradient = self.checked_gradient(point, batch, total, leaves, create_graph=True)
        except HigherDerivative:
            self.differentiates_inside = True
            return self.differentiable_gradient(point, batch)
        return GradientGraph(leaves, total, gradient, loss_sum, num_terms, layers.sentence if layers is not None else "")

    def checked_loss(self, outputs: Any, batch: Any) -> tuple[float, float]:
        """Value of the summed loss and number of terms."""
        return self._totals(outputs, batch)[:2]

    def _totals(self, outputs: Any, batch: Any) -> tuple[float, float, Tensor]:
        seen = outputs.detach() if isinstance(outputs, Tensor) else outputs
        self.loss.check(seen, batch)
        total, terms = self.loss.total(outputs, batch)
        require_scalar(total, "a mean over the examples, or a pair (sum, number_of_terms)")
        loss_sum, num_terms = float(total.detach()), float(terms)
        require_finite_loss(loss_sum)
        require_terms(num_terms)
        return loss_sum, num_terms, total

    def checked_gradient(
        self,
        point: TorchPoint,
        batch: Any,
        outputs: Tensor,
        leaves: Tensors,
        *,
        weights: Tensor | None = None,
        create_graph: bool = False,
        retain_graph: bool | None = None,
        only: Only = None,
    ) -> Tensors:
        """Gradient in the leaves, zero for parameters that are really unused; others without a gradient are refused."""
        indices = range(len(leaves)) if only is None else only
        if not outputs.requires_grad:
            found: tuple[Tensor | None, ...] = (None,) * len(indices)
        else:
            inputs = [leaves[i] for i in indices]
            found = torch.autograd.grad(
                outputs, inputs, weights, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
            )
        self._note_unused([i for i, g in zip(indices, found, strict=True) if g is None], point, batch)
        return filled(leaves, indices, found)

    def _note_unused(self, indices: Sequence[int], point: TorchPoint, batch: Any) -> None:
        """Say once which parameters count for nothing; raise when one matters although no gradient reaches it."""
        new = [i for i in indices if i not in self._unused]
        if not new:
            return
        with torch.no_grad():
            # Uneven shifts, because many losses do not see a constant one.
            moved = [leaf + _waves(leaf) if i in new else leaf for i, leaf in enumerate(point.leaves)]
            with self.frozen_randomness():
                before = float(self.pure_loss(point.leaves, point.rest, batch))
            with self.frozen_randomness():
                after = float(self.pure_loss(tuple(moved), point.rest, batch))
        names = listed([self.names[i] for i in new])
        if not abs(after - before) <= 1e-5 * abs(before):
            raise ValueError(
                f"The loss changes with the parameters {names}, but no gradient reaches them: they are detached, or pass through "
                "activation checkpointing with use_reentrant=True (use False); leave detached ones out with parameters=."
            )
        self._unused.update(new)
        warnings.warn(
            f"The loss of the batch does not depend on the parameters {names}: their rows and columns of the matrices are zero "
            "there. Leave them out with parameters= to save their memory.",
            UserWarning,
            stacklevel=2,
        )

    def loss_sum(self, point: TorchPoint, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms."""
        with torch.no_grad(), self.frozen_randomness():
            return self.checked_loss(self.pure_outputs(point.leaves, point.rest, batch), batch)

    def loss_of(self, point: TorchPoint, outputs: Tensor, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms, given the outputs at a point."""
        with torch.no_grad(), self.frozen_randomness():
            return self.checked_loss(outputs, batch)

    def forward_passes(self, points: Sequence[TorchPoint], batch: Any) -> Iterator[tuple[float, float, Tensor]]:
        """Summed loss (NaN where it is not finite), number of terms and outputs at each of several points."""
        for point, outputs in zip(points, self.together.outputs(points, batch), strict=True):
            try:
                yield *self.loss_of(point, outputs, batch), outputs
            except NonFiniteLossError:
                yield float("nan"), 0.0, outputs

    def points_at_once(self, point: TorchPoint, batch: Any) -> int:
        """Points that a forward pass takes together, where that is less work."""
        return self.together.count(point, batch)

    def add_gradient(self, point: TorchPoint, batch: Any, total: Accumulator) -> tuple[float, float]:
        """Add the gradient of the summed loss to `total`."""
        leaves, loss, loss_sum, num_terms = self.differentiable_loss(point, batch)
        total.add(self.checked_gradient(point, batch, loss, leaves))
        return loss_sum, num_terms

    def linearize(self, point: TorchPoint, batch: Any, *, num_products: int | None) -> TorchLinearization:
        """Derivatives at `point`, made when asked for."""
        return TorchLinearization(self, point, batch, num_products)

    def outputs_at(self, point: TorchPoint, batch: Any) -> Tensor:
        """The model's outputs."""
        with torch.no_grad(), self.frozen_randomness():
            return self.pure_outputs(point.leaves, point.rest, batch)

    def look(self, point: TorchPoint, batches: Batches) -> None:
        """Find out how the model rounds, by a forward pass on one example where its code leaves that open."""
        if self._watched or not self._may_round:
            return
        batch = next(iter(batches))
        one = self.take(batch, np.arange(1))
        with self.session():
            try:
                self.outputs_at(point, batch if one is None else one)
            except (RuntimeError, ValueError, TypeError, IndexError):  # it insists on its batch size, or fails in the product as well
                self._watched = False
                self.outputs_at(point, batch)

    def of_inputs(self, point: TorchPoint, batch: Any) -> tuple[Any, TorchPoint]:
        """The loss of one batch as a function of its inputs."""
        from .variables import InputFunctions

        functions = InputFunctions(self, point, batch)
        return functions, functions.initial_point()

    def of_activation(self, point: TorchPoint, batch: Any, layer: str) -> tuple[Any, TorchPoint]:
        """The loss of one batch as a function of what is added to a layer's outputs."""
        from .variables import ActivationFunctions

        functions = ActivationFunctions(self, point, batch, layer)
        return functions, functions.initial_point()

    def with_running_statistics(self, points: Sequence[TorchPoint], batches: Batches) -> list[TorchPoint]:
        """The points with running statistics of batch normalisation from one pass over `batches` in training mode."""
        from .running_statistics import with_running_statistics

        return with_running_statistics(self, points, batches)

    def filter_axis(self, name: str) -> int:
        """Axis of a parameter along which the weights of different outputs lie."""
        return self._module.filter_axis(name)

    def weight_uses(self, point: TorchPoint, batch: Any) -> Any:
        """A forward pass in which every use of a weight is seen."""
        from .weight_uses import TorchWeightUses

        return TorchWeightUses(self, point, batch)

    def output_gradient(self, outputs: Tensor, batch: Any) -> Tensor:
        """Gradient of the summed loss in the outputs."""
        return self.loss.gradient(outputs, batch)

    def retained_bytes(self, point: TorchPoint, batch: Any) -> int:
        """Memory that the graph of the batch's gradient holds, extrapolated from a few examples where they can be cut out."""
        part, factor = batch, 1.0
        examples = self._batches.num_examples(batch)
        count = min(_MEASURED_EXAMPLES, max(1, examples // _MEASURED_SHARE))
        if examples > count:
            smaller = self.take(batch, np.arange(count))
            if smaller is not None:
                part, factor = smaller, examples / count
        try:
            if self._writes_to_batch is None:
                self.outputs_at(point, part)  # the copies of a first call would count
            return self._measured_bytes(point, part, factor)
        except (RuntimeError, ValueError, TypeError, IndexError):
            if part is batch:
                raise
            return self._measured_bytes(point, batch, 1.0)  # the model insists on its batch size, or says what is wrong with it

    def _measured_bytes(self, point: TorchPoint, batch: Any, scale: float) -> int:
        graph = self.differentiable_gradient(point, batch, scale=scale)
        ends = graph_bytes((g.detach() for g in graph.gradient), graph.leaves)
        held_anyway = (*graph.leaves, *point.rest.values(), *leaves(batch), *graph.gradient)
        return ends + int(scale * graph_bytes(graph.gradient, held_anyway))

    # -- data ----------------------------------------------------------------------------------------------------------

    def batches(self, data: Any) -> Batches:
        """A user's data as batches."""
        sizes = None if self._batch_statistics else self._sizes
        return self._batches.batches(data, self._batch_size, int(DATA_SHARE * self.memory_budget), sizes)

    def _choose_batch_size(self, point: TorchPoint, batch: Any) -> int:
        """All examples where their graph fits an operator's share of the budget; otherwise batches of an eighth of it."""
        examples, share = self._batches.num_examples(batch), OPERATOR_SHARE * self.memory_budget
        with self.session():
            size = self.retained_bytes(point, batch) if self.take(batch, np.arange(1)) is not None else 0
        if size <= share:
            return examples
        batches = int(np.ceil(8 * size / share))
        return max(1, -(-examples // batches))

    # -- the same in double precision ----------------------------------------------------------------------------------

    def in_double_precision(self, point: TorchPoint, batch: Any) -> tuple[Any, TorchPoint, Any]:
        """Copies of everything in float64."""
        module = self._module.converted(torch.float64, dict(zip(self.names, point.leaves, strict=True)))
        functions = TorchFunctions(module, self.loss, self.backend, self.memory_budget, None)
        functions._unused = set(self._unused)
        functions._random_state = self._random_state
        rest = {name: value.double() if value.is_floating_point() else value for name, value in point.rest.items()}
        return functions, TorchPoint(tuple(leaf.double() for leaf in point.leaves), rest), functions.prepare(batch)


def _waves(tensor: Tensor) -> Tensor:
    return torch.cos(torch.arange(tensor.numel(), device=tensor.device)).to(tensor.dtype).view(tensor.shape)
