"""A Keras model on the torch backend as a torch module whose parameters are named and substituted like any other's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..curvature import BatchLoss, Objective
from .keras import plain_loss
from .keras_layers import KerasLayers
from .torch import torch_objective
from .torch.functions import TorchFunctions, TorchPoint
from .torch.linearization import TorchLinearization
from .torch.vectors import Only, Tensors


class KerasModule(torch.nn.Module):
    """Copies of a Keras model's variables, and its layers as a function of them.

    Parameters
    ----------
    layers : KerasLayers
        The model.
    classes_first : bool
        Whether outputs with more than two axes get their last axis, the one of the classes, moved to dimension 1, where torch's
        cross-entropy has it.
    """

    filter_axis = -1
    """Outputs come last in weights of Keras."""

    def __init__(self, layers: KerasLayers, classes_first: bool) -> None:
        super().__init__()
        self._held, self._classes_first = [layers], classes_first
        self._names = tuple(layers.trainable) + tuple(layers.rest)
        self._found: dict[str, Tensor] | None = None
        if layers.batch_statistics:
            # By a layer of its own kind torch's adapter knows that an example's outputs depend on the others; it is never run.
            self.batch_statistics = torch.nn.BatchNorm1d(1, affine=False, track_running_stats=False).eval()
        for name, variable in layers.trainable.items():
            self.register_parameter(name, torch.nn.Parameter(variable.value.detach().clone()))
        for name, variable in layers.rest.items():
            self.register_buffer(name, variable.value.detach().clone())

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModule:
        made = KerasModule(self._held[0], self._classes_first)
        memo[id(self)] = made
        for name in self._names:
            value = getattr(self, name)
            copied = value.detach().clone()
            if isinstance(value, torch.nn.Parameter):
                made.register_parameter(name, torch.nn.Parameter(copied, requires_grad=value.requires_grad))
            else:
                made.register_buffer(name, copied)
        made.training = self.training
        return made

    def forward(self, inputs: Any) -> Any:
        """The model on a batch's inputs."""
        with self._holding() as statistics:
            outputs = self._held[0].call(inputs)
            if self._found is not None:
                self._found.update((name, value.detach()) for name, value in statistics().items())
        if self._classes_first and isinstance(outputs, Tensor) and outputs.ndim > 2:
            return outputs.movedim(-1, 1)
        return outputs

    def ordered_names(self, count: int, chosen: Sequence[str]) -> tuple[str, ...] | None:
        """Names of what a list of so many arrays stands for, in the order of Keras."""
        return self._held[0].ordered_names(count, chosen)

    def regularization(self) -> Tensor:
        """Sum of the regularisers."""
        with self._holding():
            total: Tensor = self._held[0].regularization()
        return total

    @property
    def statistics(self) -> Collection[str]:
        """Names of the moving statistics of batch normalisation."""
        return self._held[0].statistics.keys()

    @contextlib.contextmanager
    def collected_statistics(self) -> Iterator[dict[str, Tensor]]:
        """Context in which batch normalisation works as in training; what it gives fills with the statistics of the batch."""
        self._found = {}
        try:
            yield self._found
        finally:
            self._found = None

    def _holding(self) -> contextlib.AbstractContextManager[Callable[[], dict[str, Any]]]:
        layers = self._held[0]
        values = [getattr(self, name) for name in self._names]
        wide = all(value.dtype == torch.float64 for value in values if value.is_floating_point())
        return layers.holding(
            [*layers.trainable.values(), *layers.rest.values()], values, "float64" if wide else None,
            collect=self._found is not None,
        )  # fmt: skip


class RegularizedFunctions(TorchFunctions):
    """`TorchFunctions` whose loss has the regularisers in it, once for each term, so that the objective has them once."""

    def regularization(self, parameters: Tensors, rest: Mapping[str, Tensor]) -> Tensor:
        """Sum of the regularisers."""
        values = {
            name: value.to(dtype) for name, value, dtype in zip(self.names, parameters, self._layout.model_dtypes, strict=True)
        }
        total: Tensor = self._module.call(lambda model, _: model.regularization(), values, dict(rest), None)
        return total

    def pure_loss(self, parameters: Tensors, rest: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The batch's summed loss."""
        total, terms = self.loss.total(self.pure_outputs(parameters, rest, batch), batch)
        return total + float(terms) * self.regularization(parameters, rest)

    def differentiable_loss(self, point: TorchPoint, batch: Any) -> tuple[Tensors, Tensor, float, float]:
        """Leaves, summed loss with a graph, its value, and the number of terms."""
        leaves, total, loss_sum, num_terms = super().differentiable_loss(point, batch)
        own = num_terms * self.regularization(leaves, point.rest)
        return leaves, total + own, loss_sum + float(own.detach()), num_terms

    def loss_sum(self, point: TorchPoint, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms."""
        loss_sum, num_terms = super().loss_sum(point, batch)
        with torch.no_grad():
            return loss_sum + num_terms * float(self.regularization(point.leaves, point.rest)), num_terms

    def loss_of(self, point: TorchPoint, outputs: Tensor, batch: Any) -> tuple[float, float]:
        """Summed loss and number of terms, given the outputs at a point."""
        loss_sum, num_terms = super().loss_of(point, outputs, batch)
        with torch.no_grad():
            return loss_sum + num_terms * float(self.regularization(point.leaves, point.rest)), num_terms

    def linearize(self, point: TorchPoint, batch: Any, *, num_products: int | None) -> RegularizedLinearization:
        """Derivatives at `point`, made when asked for."""
        return RegularizedLinearization(self, point, batch, num_products)

    def in_double_precision(self, point: TorchPoint, batch: Any) -> tuple[Any, TorchPoint, Any]:
        """Copies of everything in float64."""
        plain, double, part = super().in_double_precision(point, batch)
        functions = RegularizedFunctions(plain._module, plain.loss, plain.backend, plain.memory_budget, None)
        functions._unused, functions._random_state = plain._unused, plain._random_state
        return functions, double, part


class RegularizedLinearization(TorchLinearization):
    """One batch's derivatives, where the regularisers belong to the residual: the Gauss-Newton matrix knows nothing of them."""

    _functions: RegularizedFunctions

    def residual(self, v: Tensors, only: Only = None) -> Tensors:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`."""
        product, terms = super().residual(v, only), self.num_terms
        leaves = self._functions.leaves(self._point)
        total = self._functions.regularization(leaves, self._point.rest)
        gradient = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        places = range(len(leaves)) if only is None else only
        live = [(g, v[i]) for i, g in enumerate(gradient) if i in places and g is not None and g.requires_grad]
        if not live:
            return product
        own = torch.autograd.grad([g for g, _ in live], [leaves[i] for i in places], [piece for _, piece in live], allow_unused=True)
        rows = dict(zip(places, own, strict=True))
        return tuple(p if rows.get(i) is None else p + terms * rows[i] for i, p in enumerate(product))


def keras_torch_objective(layers: KerasLayers, loss: Any, data: Any, **options: Any) -> Objective:
    """The objective of a Keras model on the torch backend."""
    plain = plain_loss(loss)
    objective = torch_objective(KerasModule(layers, plain == "cross_entropy"), plain, data, **options)
    if not layers.regularized or isinstance(loss, BatchLoss):
        return objective
    base: Any = objective.functions
    functions = RegularizedFunctions(base._module, base.loss, base.backend, base.memory_budget, options["batch_size"])
    return Objective(functions, functions.initial_point(), functions.batches(data), objective.weight_decay)
