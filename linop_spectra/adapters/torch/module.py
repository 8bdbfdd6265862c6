"""A user's module as our own: copied, unwrapped, its modes fixed, and callable with any parameters."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...curvature.out_of_memory import is_out_of_memory
from ..common import listed, matching_names
from .errors import leaf_variables, refuse_references
from .forward_pass import ForwardPass, needs_replacements, refuse_rescaling
from .modes import check_batch_norm, refuse_stochastic, set_batch_norm
from .repairs import repair


class _Program(torch.nn.Module):
    """Holds the model, so that a function of it can be called under substituted parameters."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Any, batch: Any) -> Any:
        return function(self.model, batch)


def unwrapped(model: Any) -> Any:
    """The module inside wrappers for compilation and data parallelism."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def private_copy(model: Any) -> Any:
    """A deep copy that shares nothing with the user's model and has no wrappers inside.

    Raises
    ------
    TypeError
        When the model cannot be copied.
    """
    model = unwrapped(model)
    memo: dict[int, Any] = {}
    for module in model.modules():
        # Tensors that are results of computations (as of hooks that normalise weights) cannot be copied by copy.deepcopy.
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        for module in reversed(list(model.modules())):
            if unwrapped(module) is not module:
                memo[id(module)] = copy.deepcopy(unwrapped(module), memo)
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"The argument model ({type(model).__name__}) cannot be copied by copy.deepcopy ({type(error).__name__}: {error}); "
            "remove what cannot be copied from its attributes, so that later training does not change the objective."
        ) from error


def refuse_scripts(model: Any) -> None:
    """Raise when the model holds code compiled by ``torch.jit``, under which parameters cannot be substituted.

    Raises
    ------
    TypeError
        When there is a ``torch.jit.ScriptModule``.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"The module {name or 'model'!r} is compiled by torch.jit ({type(module).__name__}), which does not let its parameters "
                "be substituted; pass the Python module that it was made from."
            )


def trainable_parameters(model: Any, patterns: str | list[str] | None) -> dict[str, Tensor]:
    """The parameters that count, by name; a tied one once, under its first name.

    Raises
    ------
    TypeError, ValueError
        When there are none, or some cannot be differentiated together.
    """
    everything = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in everything.items():
        if isinstance(parameter, torch.nn.parameter.UninitializedTensorMixin):
            raise ValueError(
                f"The parameter {name!r} has no shape yet: the model has a lazy layer; run one batch through it first."
            )
    trainable = {name: parameter for name, parameter in everything.items() if parameter.requires_grad}
    if not trainable:
        raise ValueError("The argument model has no parameter that requires a gradient; set requires_grad on those that count.")
    wanted = set(matching_names(trainable, patterns))
    first_names: dict[int, str] = {}
    chosen_ids = set()
    for name, parameter in trainable.items():
        first_names.setdefault(id(parameter), name)
        if name in wanted:
            chosen_ids.add(id(parameter))
    chosen = {name: trainable[name] for key, name in first_names.items() if key in chosen_ids}
    for name, parameter in chosen.items():
        if not parameter.is_floating_point():
            raise TypeError(
                f"The parameter {name!r} has dtype {parameter.dtype}, but curvature needs real floating parameters; leave it "
                "out with parameters=, or set its requires_grad to False."
            )
        if parameter.numel() == 0:
            raise ValueError(f"The parameter {name!r} is empty (shape {tuple(parameter.shape)}); leave it out with parameters=.")
    devices = sorted({str(parameter.device) for parameter in chosen.values()})
    if len(devices) > 1:
        raise ValueError(f"The parameters are on several devices ({', '.join(devices)}); move the model to one of them.")
    if devices == ["meta"]:
        raise ValueError(
            f"The parameters {listed(list(chosen))} are on the device 'meta' and hold no numbers; load the model first."
        )
    return chosen


class PureModule:
    """Our own copy of a model, callable with given parameters and buffers, and never changed.

    Parameters
    ----------
    model : torch.nn.Module
        The user's model; it is left alone.
    patterns : str, list of str or None
        Names of the parameters that count.
    batch_norm : {"eval", "train"} or None
        Mode of batch normalisation.
    dtype : torch.dtype or None
        Precision to convert the copy to.
    """

    def __init__(self, model: Any, patterns: str | list[str] | None, batch_norm: str | None, dtype: torch.dtype | None) -> None:
        model = unwrapped(model)
        refuse_scripts(model)
        refuse_stochastic(model)
        refuse_rescaling(model)
        check_batch_norm(model, batch_norm)
        own = private_copy(model)
        # Kept only as long as the user, or a reference inside the copy, keeps them.
        self._originals = {name: weakref.ref(parameter) for name, parameter in model.named_parameters()}
        names = list(trainable_parameters(own, patterns))
        set_batch_norm(own, batch_norm)
        repair(own)
        # Recurrent layers hold their weights in a list of their own, which a substitution does not reach.
        for module in own.modules():
            if isinstance(module, torch.nn.RNNBase):
                module.register_forward_pre_hook(_refresh_flat_weights)
            # Language models run layers again in the backward pass where this is set; the memory budget decides that here.
            if getattr(module, "gradient_checkpointing", None) is True:
                module.gradient_checkpointing = False
        self._adopt(own, names, dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Without the references to the user's own parameters, which mean nothing in another process."""
        return vars(self) | {"_originals": {}}

    def converted(self, dtype: torch.dtype, at: Mapping[str, Tensor] | None = None) -> PureModule:
        """A copy in another precision; constant rows of embeddings are those of the parameters `at`, whatever is substituted."""
        made = object.__new__(PureModule)
        made._originals = self._originals
        made._adopt(private_copy(self.model), list(self.parameters), dtype)
        made._fixed = dict(at) if at is not None else {}
        return made

    def _adopt(self, own: Any, names: list[str], dtype: torch.dtype | None) -> None:
        if dtype is not None:
            own = own.to(dtype)
        self._program = _Program(own).requires_grad_(False)
        self._references_checked = False
        parameters = dict(own.named_parameters(remove_duplicate=False))
        self.parameters = {name: parameters[name].detach() for name in names}
        chosen = {id(parameters[name]) for name in names}
        self.rest: dict[str, Tensor] = {
            name: tensor.detach() for name, tensor in own.named_parameters() if id(tensor) not in chosen
        } | dict(own.named_buffers())
        self._buffers = frozenset(name for name, _ in own.named_buffers())
        self._replaces = needs_replacements(own)
        self._double = all(p.dtype == torch.float64 for p in own.parameters() if p.is_floating_point())
        self._double_works = False
        self._fixed: dict[str, Tensor] = {}

    @property
    def model(self) -> Any:
        """The copy."""
        return self._program.model

    def by_name(self, source: Any, chosen: Sequence[str]) -> Any:
        """Ordered arrays by name, where the model has an order of its own; anything else as it is."""
        ordered_names = getattr(self.model, "ordered_names", None)
        if ordered_names is None or not isinstance(source, list | tuple) or not all(hasattr(item, "shape") for item in source):
            return source
        names = ordered_names(len(source), chosen)
        return source if names is None else dict(zip(names, source, strict=True))

    def filter_axis(self, name: str) -> int:
        """Axis of a parameter along which the weights of different outputs lie: the first, but for transposed convolutions."""
        whole = getattr(self.model, "filter_axis", None)
        if whole is not None:
            return int(whole)
        return 1 if getattr(self.model.get_submodule(name.rpartition(".")[0]), "transposed", False) else 0

    def call(self, function: Any, parameters: dict[str, Tensor], rest: dict[str, Tensor], batch: Any) -> Any:
        """``function(model, batch)`` under these parameters; buffers are cloned, so that writing to them changes nothing."""
        state = {f"model.{name}": value for name, value in parameters.items()}
        for name, value in rest.items():
            state[f"model.{name}"] = value.clone() if name in self._buffers else value
        result = self._run(state, parameters, function, batch)
        graph = _graph_of(result)
        if graph is not None and not self._references_checked:
            self._refuse_references(graph, state, parameters, function, batch)
            self._references_checked = True
        return result

    def _refuse_references(self, graph: Any, state: dict[str, Tensor], parameters: dict[str, Tensor], function: Any, batch: Any) -> None:
        """Raise when the copy computes with the user's own parameters, or with its own in place of those substituted."""
        originals = {name: reference() for name, reference in self._originals.items()}
        refuse_references(graph, {id(tensor): name for name, tensor in originals.items() if tensor is not None})
        if len(leaf_variables(graph)) < sum(tensor.requires_grad for tensor in parameters.values()):
            # Some are unused, or used behind our back. The copy's own show in a graph only while they require gradients.
            for tensor in self.model.parameters():
                tensor.requires_grad_(tensor.is_floating_point() or tensor.is_complex())
            try:
                graph = _graph_of(self._run(state, parameters, function, batch))
            finally:
                self._program.requires_grad_(False)
            refuse_references(graph, {id(tensor): name for name, tensor in self.model.named_parameters()})

    def _run(self, state: dict[str, Tensor], parameters: dict[str, Tensor], function: Any, batch: Any) -> Any:
        if not (self._double or self._replaces):
            return torch.func.functional_call(self._program, state, (function, batch))
        fixed = {id(value): self._fixed[name] for name, value in parameters.items() if name in self._fixed}
        try:
            with ForwardPass(double=self._double, fixed=fixed):
                result = torch.func.functional_call(self._program, state, (function, batch))
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            if not self._double or self._double_works or is_out_of_memory(error):
                raise
            # The model relies on narrower types somewhere: if that is all, it gets them.
            with ForwardPass(double=False, fixed=fixed):
                result = torch.func.functional_call(self._program, state, (function, batch))
            self._double = False
        self._double_works = True
        return result


def _graph_of(result: Any) -> Any:
    parts = result if isinstance(result, tuple) else (result,)
    return next((part.grad_fn for part in parts if isinstance(part, Tensor)), None)


def _refresh_flat_weights(module: Any, inputs: Any) -> None:
    module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
