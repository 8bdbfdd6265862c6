r"""Softmax cross-entropy recognised by its values: classes, weights and masks of an objective's examples.

With logits `z`, the summed loss has at each position the gradient :math:`s\,p(z) - d` with the softmax `p`, the weight `s` of the position
and its target `d`, which sums to `s`. Gradients at two made-up sets of logits give `s` and `d`, whatever form the targets have and
whatever is masked or weighted, in every framework; a third one at the model's own outputs confirms them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from .._memory import format_bytes
from ..backends import random_vector
from .linearization import Batch, ModelFunctions, Outputs

if TYPE_CHECKING:
    from .objective import Objective

_NEEDS = "The class structure needs softmax cross-entropy with one class for each example"


class _NotOneClass(ValueError):
    """Softmax cross-entropy, but with targets that are no classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Classification:
    """The examples of a classification objective.

    An example is a position of the outputs with its target: for outputs with more axes than two (tokens, pixels) each position is one.

    Attributes
    ----------
    probabilities : numpy.ndarray
        Softmax of the outputs, shape (num_positions, num_classes), float64.
    targets : numpy.ndarray
        Class of each position, shape (num_positions,); -1 where it is masked.
    weights : numpy.ndarray
        What the loss of each position is multiplied by in the objective, the division by the number of terms included; shape
        (num_positions,), zero where it is masked.
    sizes : tuple of int
        Number of outputs of each batch.
    places : tuple of numpy.ndarray or None
        For each batch, the place in C order of each (position, class); None where that is C order.
    smoothing : float
        What label smoothing gives to each wrong class.
    """

    probabilities: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    sizes: tuple[int, ...]
    places: tuple[np.ndarray | None, ...]
    smoothing: float

    @property
    def num_classes(self) -> int:
        """Outputs of each position."""
        return int(self.probabilities.shape[1])

    @property
    def batches(self) -> list[slice]:
        """Positions of each batch."""
        ends = np.cumsum(self.sizes).tolist()
        return [slice((end - size) // self.num_classes, end // self.num_classes) for end, size in zip(ends, self.sizes, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    probabilities: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    wrong: np.ndarray
    place: np.ndarray | None


def read_classes(objective: Objective) -> Classification:
    """Classes, weights and probabilities of all examples, from one pass over the data.

    Parameters
    ----------
    objective : Objective
        With a softmax cross-entropy, however it was written: by name, as a function of outputs and targets, weighted, masked.

    Returns
    -------
    Classification
        What was found.

    Raises
    ------
    TypeError
        When the loss is another one.
    ValueError
        When targets are distributions over classes, weights are negative, or classes have different numbers.
    MemoryError
        When the probabilities do not fit the objective's memory budget.
    """
    functions = objective.functions
    if functions.gauss_newton_refusal is not None:
        raise TypeError(functions.gauss_newton_refusal)
    parts: dict[int, list[_Part]] = {}
    sizes: list[int] = []
    terms = 0.0
    with functions.session():
        for index, batch in enumerate(objective.batches()):
            terms += functions.loss_sum(objective.point, batch)[1]
            outputs = functions.outputs_at(objective.point, batch)
            shape = tuple(int(length) for length in outputs.shape)
            sizes.append(math.prod(shape))
            _check_memory(sum(sizes), functions.memory_budget)
            gradients = _gradients(functions, outputs, batch)
            found: dict[int, _Part] = {}
            failures: list[Exception] = []
            for axis in parts if parts else _class_axes(shape):
                try:
                    found[axis] = _recognise(gradients, shape, axis, functions.unit_rounding)
                except (TypeError, ValueError) as failure:
                    failures.append(failure)
            if not found:
                raise next((failure for failure in failures if isinstance(failure, _NotOneClass)), failures[0])
            parts = {axis: [*(parts[axis] if index else []), part] for axis, part in found.items()}
    chosen = next(iter(parts.values()))
    classes = {part.probabilities.shape[1] for part in chosen}
    if len(classes) > 1:
        raise ValueError(f"The batches have outputs for different numbers of classes ({sorted(classes)}); all need the same.")
    scale = objective.scale(terms)
    wrong = np.concatenate([part.wrong for part in chosen])
    tolerance = 4 * math.sqrt(functions.unit_rounding)
    if wrong.size and np.ptp(wrong) > tolerance:
        raise _NotOneClass(_one_class_sentence())
    return Classification(
        probabilities=np.concatenate([part.probabilities for part in chosen]),
        targets=np.concatenate([part.targets for part in chosen]),
        weights=scale * np.concatenate([part.weights for part in chosen]),
        sizes=tuple(sizes),
        places=tuple(part.place for part in chosen),
        smoothing=float(wrong.mean()) if wrong.size and wrong.mean() > tolerance else 0.0,
    )


def _class_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where the classes may be: along dimension 1 as in torch, or along the last one as everywhere else."""
    if len(shape) < 3:
        return (len(shape) - 1,)
    return (1, len(shape) - 1)


def _gradients(functions: ModelFunctions, outputs: Outputs, batch: Batch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits with the loss's gradient: at two made-up places, and at the outputs."""
    size = int(functions.flat_outputs(outputs).size)
    made_up = [
        random_vector(size, kind="normal", seed=0, domain="made-up logits", index=index, dtype=functions.dtype) for index in range(2)
    ]
    found = []
    for logits in (*(functions.outputs_from(flat, outputs) for flat in made_up), outputs):
        gradient = functions.output_gradient(logits, batch)
        # The logits come back as well, because the framework may have rounded them.
        found.append(tuple(np.asarray(functions.flat_outputs(array), dtype=np.float64) for array in (logits, gradient)))
    return [(logits, gradient) for logits, gradient in found]


def _recognise(gradients: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...], axis: int, rounding: float) -> _Part:
    """One batch, with its classes along `axis`.

    Raises
    ------
    TypeError
        When the loss is no softmax cross-entropy along that axis.
    ValueError
        When it is, but its targets are no classes.
    """
    if not shape or shape[axis] < 2:
        raise TypeError(f"{_NEEDS}, but the outputs of shape {shape} hold fewer than two classes.")
    classes, place = shape[axis], None
    if axis != len(shape) - 1:
        place = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), axis, -1).reshape(-1)

    def by_position(flat: np.ndarray) -> np.ndarray:
        return (flat if place is None else flat[place]).reshape(-1, classes)

    (p1, g1), (p2, g2), (p, g) = (
        (special.softmax(by_position(logits), axis=1), by_position(gradient)) for logits, gradient in gradients
    )
    used = (g1 != 0).any(axis=1) | (g2 != 0).any(axis=1)
    difference = p1 - p2
    weights = np.where(used, ((g1 - g2) * difference).sum(axis=1) / (difference**2).sum(axis=1), 0.0)
    # Rounding of the loss's own arithmetic; for weights of exactly one it is known away.
    weights[np.abs(weights - 1) < 100 * rounding] = 1.0
    s, tolerance = weights[:, None], math.sqrt(rounding)
    d = s * p1 - g1
    error = np.maximum(np.abs(g1 - g2 - s * difference), np.abs(g - (s * p - d))).max(axis=1, initial=0.0)
    error = np.maximum(error, np.abs(g1.sum(axis=1)))
    if not (error <= tolerance * np.abs(weights)).all():
        raise TypeError(
            f"{_NEEDS}, but the loss is another function of the outputs (of shape {shape}, classes along dimension {axis}); "
            "use ggn(), which needs no classes, or loss='cross_entropy'."
        )
    if (weights < 0).any():
        raise ValueError(
            f"{_NEEDS}, but {int((weights < 0).sum())} positions of a batch have negative weights, so that the parts would not be "
            "positive semidefinite."
        )
    share = np.sort(d[used] / s[used], axis=1)
    wrong, right = share[:, :-1], share[:, -1]
    if wrong.size and (np.ptp(wrong) > 4 * tolerance or (right - wrong[:, -1] < 4 * tolerance).any()):
        raise _NotOneClass(_one_class_sentence())
    targets = np.where(used, d.argmax(axis=1), -1)
    return _Part(p, targets, weights, wrong[:, :1].reshape(-1), place)


def _one_class_sentence() -> str:
    return (
        f"{_NEEDS}, but targets of a batch are distributions over the classes (soft targets, or label smoothing together with class "
        "weights); pass class numbers or one-hot targets."
    )


def _check_memory(num_outputs: int, budget: int) -> None:
    needed = 4 * 8 * num_outputs
    if needed > budget:
        raise MemoryError(
            f"The class structure works on the probabilities of all examples at once: with {num_outputs:,} outputs so far about "
            f"{format_bytes(needed)}, over the memory_budget of {format_bytes(budget)}; pass fewer examples (subset), or a larger "
            "memory_budget."
        )
