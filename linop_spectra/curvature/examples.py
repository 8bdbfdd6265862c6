"""Gradients of single examples: when there are any, and the random targets of a likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from ..backends import random_vector
from .cache import Part
from .linearization import Noise, Outputs

if TYPE_CHECKING:
    from .objective import Objective


def require_examples(objective: Objective) -> None:
    """Raise unless the loss shows what belongs to each example.

    Raises
    ------
    TypeError
        When it does not, with the reason.
    """
    if objective.functions.example_refusal is not None:
        raise TypeError(objective.functions.example_refusal)


def require_sum_over_rows(objective: Objective, part: Part) -> None:
    """Raise when the loss of a batch mixes the rows of the outputs, as contrastive losses do: looks at its Hessian there.

    Raises
    ------
    ValueError
        When moving the first row changes the gradient in others.
    """
    functions = objective.functions
    if functions.fisher_refusal is None:  # a loss with a likelihood has independent targets
        return
    outputs = part.linearization.outputs
    flat = functions.flat_outputs(outputs)
    own = flat.size // int(outputs.shape[0]) if len(outputs.shape) else flat.size
    moved = np.zeros_like(flat)
    moved[:own] = 1 + np.arange(own) / own
    others = functions.flat_outputs(part.linearization.loss_hessian(functions.outputs_from(moved, outputs)))[own:]
    if others.any():
        raise ValueError(
            "The loss of a batch is no sum over the rows of its outputs: it mixes examples, so that there is no gradient of a single one. "
            "Use fisher('exact') or ggn(), or make each group of examples that belong together one row."
        )


def count_examples(objective: Objective, part: Part, outputs: Outputs) -> int:
    """Rows of a batch's outputs, which must be its examples.

    Raises
    ------
    ValueError
        When there are more or fewer of them than examples in the batch.
    """
    rows = int(outputs.shape[0]) if len(outputs.shape) else 1
    examples = objective.data.count(part.batch)
    if rows != examples:
        raise ValueError(
            f"The outputs of a batch of {examples} examples have {rows} rows, but gradients of single examples need one row for each; "
            "let the model (or the outputs= of a BatchLoss) return arrays with the examples along the first axis, and let the first "
            "array of each batch have them there, too."
        )
    return rows


def random_numbers(kind: Noise, count: int, *, seed: int, sample: int, start: int) -> np.ndarray:
    """Numbers `start` to ``start + count`` of the stream of one sample, in double precision; the same in every framework.

    Examples
    --------
    >>> whole = random_numbers("uniform", 6, seed=0, sample=1, start=0)
    >>> bool((whole[4:] == random_numbers("uniform", 2, seed=0, sample=1, start=4)).all())
    True
    """
    stop = start + count
    normal = random_vector(
        stop, kind="normal", seed=seed, domain="fisher", index=sample, dtype=np.dtype(float), start=start, stop=stop
    )
    return normal if kind == "normal" else np.asarray(special.ndtr(normal))
