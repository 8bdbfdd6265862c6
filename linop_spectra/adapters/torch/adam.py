"""The diagonal that Adam divides by, from an optimiser's state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ...backends import Array
from ...curvature import Objective
from ..common import listed


def adam_preconditioner(objective: Objective, optimizer: Any, *, model: Any = None, eps: float | None = None) -> Array:
    r"""Diagonal :math:`P = \sqrt{\hat v} + \epsilon` of Adam, with the bias-corrected second moments :math:`\hat v = v / (1 - \beta_2^t)`.

    Parameters
    ----------
    objective : Objective
        Of a torch model; says which parameters, in which order.
    optimizer : torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam or dict
        The optimiser, or its ``state_dict()``. With ``amsgrad`` the largest second moments count.
    model : torch.nn.Module, optional
        The model that the optimiser trains, to find its parameters by name. Without it (or for a state dict) the names that the
        optimiser was given count, and where there are none, the order: then it must hold exactly the objective's parameters (for a
        state dict with `model`: the model's), in their order.
    eps : float, optional
        Instead of the optimiser's own.

    Returns
    -------
    array
        Shape (num_parameters,), for `linop_spectra.curvature.preconditioned`.

    Raises
    ------
    TypeError, ValueError
        When there are no second moments, or they belong to other parameters.

    References
    ----------
    D. P. Kingma and J. Ba, *Adam: a method for stochastic optimization*, ICLR (2015), algorithm 1.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.adapters.torch.adam import adam_preconditioner
    >>> from linop_spectra.curvature import preconditioned
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> x, y = torch.randn(10, 3), torch.randn(10, 1)
    >>> torch.nn.functional.mse_loss(model(x), y).backward()
    >>> optimizer.step()
    >>> objective = ls.objective(model, "mse", (x, y))
    >>> preconditioned(objective.hessian(), adam_preconditioner(objective, optimizer, model=model)).shape
    (4, 4)
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in objective.unflatten(objective.parameters()).items()}
    known = second_moments(optimizer, eps)
    names = _names(optimizer, model)
    if names is None:
        if len(known) != len(shapes):
            raise ValueError(
                f"The optimiser holds {len(known)} parameters without names, but the objective has {len(shapes)}, so that they cannot be "
                "told apart; pass model=, or make the optimiser from model.named_parameters()."
            )
        names = list(shapes)
    by_name = dict(zip(names, known, strict=True))
    found = {}
    for name, shape in shapes.items():
        if name not in by_name:
            raise ValueError(f"The optimiser does not hold the parameter {name!r}; it has {listed(names)}.")
        value = by_name[name]
        if value is None:
            raise ValueError(
                f"The optimiser has no second moment (exp_avg_sq) of the parameter {name!r}: it has taken no step with it, or is no Adam."
            )
        if tuple(value.shape) != shape:
            raise ValueError(
                f"The second moment of the parameter {name!r} has shape {tuple(value.shape)}, but the parameter {shape}; pass model=, so "
                "that parameters are found by name."
            )
        found[name] = value
    return objective.flatten(found)


def second_moments(optimizer: Any, eps: float | None = None) -> list[torch.Tensor | None]:
    """The diagonal for each parameter of the optimiser, in its order; None where there is no state."""
    groups, state = _parts(optimizer)
    out: list[torch.Tensor | None] = []
    for group in groups:
        for parameter in group["params"]:
            own = state.get(parameter, {})
            moment = own.get("max_exp_avg_sq", own.get("exp_avg_sq"))
            if moment is None or "step" not in own or float(own["step"]) <= 0:
                out.append(None)
                continue
            beta, small = float(group["betas"][1]), float(group["eps"] if eps is None else eps)
            correction = -math.expm1(float(own["step"]) * math.log(beta)) if beta > 0 else 1.0
            out.append((moment.detach().double() / correction).sqrt() + small)
    return out


def _parts(optimizer: Any) -> tuple[Sequence[Mapping[str, Any]], Mapping[Any, Any]]:
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer.param_groups, optimizer.state
    if isinstance(optimizer, Mapping) and "param_groups" in optimizer and "state" in optimizer:
        return optimizer["param_groups"], optimizer["state"]
    raise TypeError(
        f"The argument optimizer is a {type(optimizer).__name__}, but must be a torch.optim.Adam (or AdamW, NAdam) or its state_dict()."
    )


def _names(optimizer: Any, model: Any) -> list[str] | None:
    """Names of the optimiser's parameters in its order, as far as they can be known."""
    groups, _ = _parts(optimizer)
    if model is not None and isinstance(optimizer, torch.optim.Optimizer):
        return names_by_identity(groups, model.named_parameters())
    if all("param_names" in group for group in groups):
        return [name for group in groups for name in group["param_names"]]
    if model is not None:
        names = [name for name, _ in model.named_parameters()]
        if sum(len(group["params"]) for group in groups) == len(names):
            return names
    return None


def names_by_identity(groups: Sequence[Mapping[str, Any]], named: Iterable[tuple[str, Any]]) -> list[str]:
    """Names of the parameters of an optimiser's groups, in their order; empty for those that are not among the named ones."""
    known: dict[int, str] = {}
    for name, parameter in named:
        known.setdefault(id(parameter), name)
    return [known.get(id(parameter), "") for group in groups for parameter in group["params"]]
