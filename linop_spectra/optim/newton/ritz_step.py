"""Steps along Ritz vectors, each divided by the modulus of its curvature."""

from __future__ import annotations

import math

import numpy as np

from ...backends import Array, Backend
from ..evaluation import Start
from ..optimizer import NO_GRADIENT, Proposal

_RAISE = 10.0


def inverse_moduli(values: np.ndarray, damping: float, rounding: float) -> tuple[np.ndarray, int]:
    r"""The factors :math:`1 / (|\theta_i| + \delta)`, zero where the denominator is rounding, and how many are.

    Parameters
    ----------
    values : numpy.ndarray
        Ritz values, shape (k,).
    damping : float
        At least zero.
    rounding : float
        Relative rounding of the products that they came from.

    Returns
    -------
    numpy.ndarray
        Shape (k,).
    int
        Number of zeros among them.
    """
    moduli = np.abs(values)
    # What Lanczos with full reorthogonalisation makes of an eigenvalue zero.
    threshold = 10 * math.sqrt(len(values)) * rounding * float(moduli.max(initial=0.0))
    left_out = moduli + damping <= threshold
    return np.where(left_out, 0.0, 1.0 / np.where(left_out, 1.0, moduli + damping)), int(left_out.sum())


def left_out_sentence(left_out: int, total: int) -> str:
    """What a user should know of Ritz values that are rounding; empty where there are none."""
    if not left_out:
        return ""
    return f"{left_out} of {total} Ritz values are zero up to rounding: without damping the step leaves their directions alone."


def joined(*sentences: str) -> str:
    """The sentences that are not empty, in one message."""
    return " ".join(sentence for sentence in sentences if sentence)


def lift(backend: Backend, coefficients: np.ndarray, vectors: Array) -> Array:
    """The vector with these coefficients in the basis of the rows of `vectors`, shape (n,)."""
    return backend.combine(np.asarray(coefficients, dtype=np.float64)[None, :], vectors)[0]


def project(backend: Backend, vectors: Array, x: Array) -> np.ndarray:
    """Inner products of `x` with the rows of `vectors` on the host, accumulated in double precision, shape (k,)."""
    return backend.fetch([backend.dot(vectors[i, :], x) for i in range(vectors.shape[0])])


def no_gradient(start: Start, *, damping: float, learning_rate: float = math.nan) -> Proposal:
    """The step of a method that moves along the gradient where there is none."""
    return Proposal(
        0 * start.gradient, predicted_decrease=0.0, loss_after=start.loss, damping=damping, learning_rate=learning_rate,
        message=NO_GRADIENT,
    )  # fmt: skip


def far_off(start: Start, proposal: Proposal, actual_decrease: float) -> str:
    """What to say where the loss, on the data of the gradient, rose by more than the quadratic promised it to fall."""
    rounding = 10 * float(np.finfo(start.objective.dtype).eps) * abs(start.loss)
    if actual_decrease < -max(proposal.predicted_decrease, 0.0) - rounding:
        return (
            f"The loss rose by {-actual_decrease:.3g} where the quadratic promised a fall by {proposal.predicted_decrease:.3g}; raise "
            "the damping, or measure curvature on more data."
        )
    return ""


def raised(extra: float, values: np.ndarray) -> float:
    """What is added to the damping after a step that was rejected: the largest modulus of a Ritz value, then ten times more each time."""
    largest = float(np.abs(values).max(initial=0.0))
    return _RAISE * extra if extra else largest or 1.0


def relaxed(extra: float, values: np.ndarray, damping: float) -> float:
    """What is left of it after a step that was accepted: a tenth, until that is a thousandth of what it is added to."""
    smaller = extra / _RAISE
    return smaller if smaller > 1e-3 * max(float(np.abs(values).max(initial=0.0)), damping) else 0.0
