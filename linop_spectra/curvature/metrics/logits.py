r"""Clustering of logit gradients and spread of the logits: the two ingredients of the random model of Fort and Ganguli (2019).

With the gradient :math:`\partial z_k^\mu / \partial w` of logit k of example :math:`\mu`, the mean cosine of pairs of one logit and one
class (SLSC), of one logit (SL), and of different logits (DL).
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ..objective import Objective
from .metric import Metric
from .source import require_objective

MOST_OUTPUTS = 4096


def logit_metrics(obj: Objective, *, per_class: int | None = None, seed: int = 0) -> dict[str, Metric]:
    r"""Clustering of the logit gradients, ``q_slsc``, ``q_sl`` and ``q_dl``, and ``logit_deviation``; no units.

    The kernel :math:`J J^\top` of a few examples of each class (as many products with their Jacobian as they have outputs), and one
    forward pass over all data. Expected over networks and stages of training: SLSC > SL, and DL near zero. In the model of independent
    clusters :math:`q_{SL} = \sigma_c^2 / (\sigma_c^2 + \sigma_E^2)`.

    Parameters
    ----------
    obj : Objective
        Of a classifier: outputs of shape (examples, classes), and class labels as targets.
    per_class : int, optional
        Examples of each class, at least 2; by default up to 4, as many as keep the kernel small.
    seed : int
        Of the choice of examples.

    Returns
    -------
    dict of str to Metric
        Cosines with the standard error of a jackknife over the examples, which is the sampling of the data already (``sampling_error``
        repeats it nowhere); the deviation of the logits from the mean of their example, with its sampling error over all examples.

    Raises
    ------
    TypeError, ValueError
        When outputs or targets have another form, or the kernel would be too large.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import metrics
    >>> _ = torch.manual_seed(0)
    >>> inputs, targets = torch.randn(30, 5), torch.arange(30) % 3
    >>> found = metrics.logit_metrics(ls.objective(torch.nn.Linear(5, 3), "cross_entropy", (inputs, targets)))
    >>> abs(found["q_dl"].value) < 1e-6  # different rows of one layer
    True
    """
    began, objective = time.perf_counter(), require_objective(obj, "clustering of logit gradients")
    spread, classes = _spread(objective)
    counts = np.unique(np.concatenate([objective.functions.labels(batch) for batch in objective.batches()]), return_counts=True)
    smallest = int(counts[1][counts[0] >= 0].min(initial=np.iinfo(np.int64).max))
    present = int((counts[0] >= 0).sum())
    if per_class is None:
        per_class = max(2, min(4, smallest, 512 // max(1, classes * present)))
    if isinstance(per_class, bool) or not isinstance(per_class, int | np.integer) or per_class < 2:
        raise ValueError(f"The argument per_class must be a whole number of at least 2, but is {per_class!r}: one example has no pair.")
    if per_class * present * classes > MOST_OUTPUTS:
        raise ValueError(
            f"The kernel of {per_class} examples of each of {present} classes with {classes} logits has the order "
            f"{per_class * present * classes}, over "
            f"{MOST_OUTPUTS}; pass data of fewer classes."
        )
    chosen = objective.subset(int(per_class), seed)
    labels = np.concatenate([chosen.functions.labels(batch) for batch in chosen.batches()])
    kernel = np.asarray(chosen.ntk().to_dense(), dtype=np.float64)
    if kernel.shape[0] != labels.size * classes:
        raise ValueError(f"The kernel has the order {kernel.shape[0]}, but there are {labels.size} examples with {classes} logits.")
    norms = np.sqrt(np.maximum(np.diag(kernel), 0.0))
    if not (norms > 0).all():
        raise ValueError("The gradient of a logit is zero, so that its direction is not defined.")
    cosines = (kernel / np.outer(norms, norms)).reshape(labels.size, classes, labels.size, classes)
    seconds = time.perf_counter() - began
    whole = clustering(cosines, labels)
    # Each example takes its rows and columns with it.
    without = np.array([clustering(cosines[kept][:, :, kept], labels[kept]) for kept in _all_but_one(labels.size)])
    count = labels.size
    errors = np.sqrt((count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    notes = ("same logit, same class", "same logit", "different logits")
    out = {
        name: Metric(
            float(value),
            standard_error=float(error),
            degrees_of_freedom=float(count - 1),
            seconds=seconds,
            name=name,
            least=-1.0,
            most=1.0,
            method=f"kernel of {count} examples",
            note=f"mean cosine of logit gradients, {note}",
            num_matvecs=0,
        )
        for name, value, error, note in zip(("q_slsc", "q_sl", "q_dl"), whole, errors, notes, strict=True)
    }
    out["logit_deviation"] = spread
    return out


def clustering(cosines: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Mean cosines of pairs of logit gradients: same logit and class, same logit, different logits.

    Parameters
    ----------
    cosines : numpy.ndarray
        Shape (examples, classes, examples, classes).
    labels : numpy.ndarray
        Class of each example, shape (examples,).

    Examples
    --------
    >>> identical = np.eye(2)[None, :, None, :] * np.ones((3, 1, 3, 1))
    >>> clustering(identical, np.array([0, 0, 1]))
    (1.0, 1.0, 0.0)
    """
    examples, classes = cosines.shape[:2]
    same_logit = np.einsum("ikjk->ij", cosines) / classes
    others = ~np.eye(examples, dtype=bool)
    same_class = others & (labels[:, None] == labels[None, :])
    own = [float(same_logit[same_class & (labels == label)[:, None]].mean()) for label in np.unique(labels) if (labels == label).sum() > 1]
    different = float("nan")
    if classes > 1:
        total = float(cosines.sum()) - float(same_logit.sum()) * classes
        different = total / (examples**2 * classes * (classes - 1))
    return (float(np.mean(own)) if own else float("nan")), float(same_logit[others].mean()), different


def _spread(objective: Objective) -> tuple[Metric, int]:
    """Deviation of the logits from the mean of their example, and the number of classes."""
    began, functions = time.perf_counter(), objective.functions
    if functions.gauss_newton_refusal is not None:
        raise TypeError(functions.gauss_newton_refusal)
    squares: list[np.ndarray] = []
    classes = 0
    with functions.session():
        for batch in objective.batches():
            outputs: Any = functions.outputs_at(objective.point, batch)
            shape = tuple(getattr(outputs, "shape", ()))
            if len(shape) != 2 or shape[1] < 2:
                raise ValueError(f"Logits of shape (examples, classes) are needed, but the outputs have shape {tuple(shape)}.")
            classes = int(shape[1])
            flat = np.asarray(functions.flat_outputs(outputs), dtype=np.float64).reshape(shape)
            squares.append(((flat - flat.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / (classes - 1))
    found = np.concatenate(squares)
    value = math.sqrt(float(found.mean()))
    error = float(np.std(found, ddof=1) / math.sqrt(found.size) / (2 * value)) if found.size > 1 and value > 0 else 0.0
    metric = Metric(
        value,
        sampling_error=error,
        sampling_degrees=float(max(found.size - 1, 1)),
        num_examples=float(found.size),
        seconds=time.perf_counter() - began,
        name="logit_deviation",
        note="of the logits about the mean of their example",
        least=0.0,
        method="one forward pass",
    )
    return metric, classes


def _all_but_one(count: int) -> list[np.ndarray]:
    return [np.delete(np.arange(count), index) for index in range(count)]
