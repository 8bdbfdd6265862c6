"""A loss that takes the model and a whole batch, for what does not split into outputs and targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, init=False)
class BatchLoss:
    """A loss as a function of the model and a batch of any kind: a tuple, a dict, an object.

    Parameters
    ----------
    fn : callable, optional
        ``fn(model, batch) -> (sum, number_of_terms)``: the summed loss as a scalar of the framework, and how many terms were
        summed (examples, tokens that are not masked, ...). The objective is the sum over all batches divided by the number
        over all batches, so that uneven batches and masks are exact.
    outputs, loss : callable, optional
        The same in two steps, which the Gauss-Newton matrix needs: ``outputs(model, batch)`` gives an array and
        ``loss(outputs, batch) -> (sum, number_of_terms)``.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> def masked(model, batch):
    ...     errors = (model(batch["x"]) - batch["y"]).square().sum(dim=1)
    ...     return (batch["mask"] * errors).sum(), batch["mask"].sum()
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> batch = {"x": torch.eye(2), "y": torch.zeros(2, 1), "mask": torch.tensor([1.0, 0.0])}
    >>> ls.objective(model, ls.BatchLoss(masked), [batch]).hessian().to_dense()
    array([[2., 0.],
           [0., 0.]], dtype=float32)
    """

    fn: Callable[[Any, Any], Any] | None
    outputs: Callable[[Any, Any], Any] | None
    loss: Callable[[Any, Any], Any] | None

    def __init__(
        self,
        fn: Callable[[Any, Any], Any] | None = None,
        *,
        outputs: Callable[[Any, Any], Any] | None = None,
        loss: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        split = outputs is not None or loss is not None
        if (fn is not None) == split or (split and (outputs is None or loss is None)):
            raise TypeError(
                "BatchLoss takes either one function, BatchLoss(fn) with fn(model, batch) -> (sum, number_of_terms), or both of "
                "outputs=fn(model, batch) and loss=fn(outputs, batch)."
            )
        for name, value in (("fn", fn), ("outputs", outputs), ("loss", loss)):
            if value is not None and not callable(value):
                raise TypeError(f"The argument {name} of BatchLoss is a {type(value).__name__}, but must be a function.")
            object.__setattr__(self, name, value)
