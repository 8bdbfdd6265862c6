"""Losses as negative logarithms of likelihoods that targets are drawn from, by numbers of the host that are the same in all frameworks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from ...curvature.linearization import Noise


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A distribution of targets given a batch's outputs; the loss is its negative logarithm up to a constant.

    Attributes
    ----------
    noise : {"uniform", "normal"}
        Distribution of the numbers that targets are drawn by.
    shape : tuple of int
        How many of them.
    gradient : callable
        From the numbers, float64, to the gradient of the summed loss in the outputs.
    """

    noise: Noise
    shape: tuple[int, ...]
    gradient: Callable[[np.ndarray], np.ndarray]


def _on_host(x: Any) -> np.ndarray:
    return np.asarray(x).astype(np.float64)


def gaussian(outputs: Any) -> Likelihood:
    """Independent normal elements of variance 1/2, whose negative logarithm is the squared difference."""
    return Likelihood("normal", tuple(outputs.shape), lambda noise: -math.sqrt(2.0) * noise)


def bernoulli(outputs: Any) -> Likelihood:
    """Independent labels from logits; a label is one where the uniform number is below its probability."""

    def gradient(noise: np.ndarray) -> np.ndarray:
        probability = special.expit(_on_host(outputs))
        return np.asarray(probability - (noise < probability))

    return Likelihood("uniform", tuple(outputs.shape), gradient)


def categorical(outputs: Any, weights: Any) -> Likelihood:
    """Independent classes from logits along the last axis, one for each position, each with a weight."""

    def gradient(noise: np.ndarray) -> np.ndarray:
        p = special.softmax(_on_host(outputs), axis=-1)
        chosen = (np.cumsum(p, axis=-1) <= noise[..., None]).sum(axis=-1, keepdims=True)
        # Rounding may leave the last cumulative probability below one.
        chosen = np.minimum(chosen, p.shape[-1] - 1)
        np.put_along_axis(p, chosen, np.take_along_axis(p, chosen, axis=-1) - 1.0, axis=-1)
        return np.asarray(np.sqrt(_on_host(weights))[..., None] * p)

    return Likelihood("uniform", tuple(outputs.shape[:-1]), gradient)
