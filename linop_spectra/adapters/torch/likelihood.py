"""The model's outputs as numbers of the host, and losses as negative logarithms of likelihoods that targets are drawn from."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...curvature.linearization import Each, Noise
from .vectors import as_tensor

if TYPE_CHECKING:
    from .losses import OutputLoss

TORCH_LOSSES = " (or torch's modules of them)"
"""What else than a name stands for the losses that have a likelihood."""
NEGATIVE_WEIGHTS = (
    "A loss with negative weights is no negative logarithm of a likelihood, so that there is no exact or Monte-Carlo Fisher matrix; "
    "make all weights at least zero, or ask for fisher('empirical') or ggn()."
)
_NUMBERS_AT_ONCE = 1 << 22


class Likelihood(abc.ABC):
    """A distribution of targets given a batch's outputs; the loss is its negative logarithm up to a constant."""

    noise: Noise
    shape: tuple[int, ...]
    """Of the noise."""

    @abc.abstractmethod
    def gradient(self, noise: Tensor) -> Tensor:
        """Gradient of the summed loss in the outputs, for targets drawn by means of `noise` (in double precision)."""


class Gaussian(Likelihood):
    """Independent normal elements of variance 1/2, whose negative logarithm is the squared difference."""

    noise: Noise = "normal"

    def __init__(self, outputs: Tensor) -> None:
        self._outputs, self.shape = outputs, tuple(outputs.shape)

    def gradient(self, noise: Tensor) -> Tensor:
        """``2 (outputs - targets)``."""
        return (-math.sqrt(2.0) * noise).to(self._outputs.dtype)


class Bernoulli(Likelihood):
    """Independent labels from logits, each with a weight; a label is one where the uniform number is below its probability."""

    noise: Noise = "uniform"

    def __init__(self, outputs: Tensor, weight: Tensor) -> None:
        self._outputs, self._weight, self.shape = outputs, weight, tuple(outputs.shape)

    def gradient(self, noise: Tensor) -> Tensor:
        """``sqrt(weight) (probability - label)``."""
        probability = torch.sigmoid(self._outputs.double())
        residual = probability - (noise < probability).double()
        return self._weight.sqrt() * residual.to(self._outputs.dtype)


class Categorical(Likelihood):
    """Independent classes from logits along an axis, one for each position, each with a weight (zero where it is masked)."""

    noise: Noise = "uniform"

    def __init__(self, outputs: Tensor, weight: Tensor, axis: int) -> None:
        self._outputs, self._weight, self._axis = outputs, weight, axis
        self.shape = tuple(outputs.shape[:axis] + outputs.shape[axis + 1 :])

    def gradient(self, noise: Tensor) -> Tensor:
        """``sqrt(weight) (probabilities - one-hot class)``; the class is the first whose cumulative probability exceeds the noise."""
        axis, outputs = self._axis, self._outputs
        p = torch.softmax(outputs, axis)
        p.scatter_add_(axis, self._classes(noise.unsqueeze(axis)), torch.full_like(p.narrow(axis, 0, 1), -1.0))
        return self._weight.sqrt() * p

    def _classes(self, noise: Tensor) -> Tensor:
        """Drawn classes, with an axis of length one for the classes."""
        axis, outputs = self._axis, self._outputs
        # Double precision, so that the class does not depend on the framework; a few examples at a time, because of its memory.
        rows = outputs.shape[0] if axis == 0 else max(1, _NUMBERS_AT_ONCE * outputs.shape[0] // outputs.numel())
        found = [
            (torch.softmax(some.double(), axis).cumsum(axis) <= numbers).sum(axis, keepdim=True)
            for some, numbers in zip(outputs.split(rows), noise.split(noise.shape[0] if axis == 0 else rows), strict=True)
        ]
        # Rounding may leave the last cumulative probability below one.
        return torch.cat(found).clamp_(max=outputs.shape[axis] - 1)


def per_element(g: Tensor, u: Tensor) -> Tensor:
    """``g <g, u>`` for each element."""
    return g.square() * u


def per_position(g: Tensor, u: Tensor, axis: int) -> Tensor:
    """``g <g, u>`` with the inner product along `axis`."""
    return g * (g * u).sum(axis, keepdim=True)


def per_example(g: Tensor, u: Tensor) -> Tensor:
    """``g <g, u>`` with the inner product over all axes but the first."""
    if g.ndim < 2:
        return per_element(g, u)
    return g * (g * u).sum(tuple(range(1, g.ndim)), keepdim=True)


class OutputSpace:
    """The part of `TorchFunctions` that is about outputs alone."""

    loss: OutputLoss
    dtype: np.dtype

    def flat_outputs(self, outputs: Tensor) -> np.ndarray:
        """Outputs on the host in C order, shape (num_outputs,), of the core's type."""
        return np.asarray(outputs.detach().cpu().double().reshape(-1).numpy(), dtype=self.dtype)

    def outputs_from(self, flat: np.ndarray, like: Tensor) -> Tensor:
        """Numbers of the host in the shape, type and place of `like`."""
        return as_tensor(np.ascontiguousarray(flat)).to(like.device, like.dtype, copy=True).reshape(like.shape)

    def noise_of(self, outputs: Tensor, batch: Any) -> tuple[Noise, tuple[int, ...]]:
        """Kind and shape of the random numbers that targets are drawn by."""
        likelihood = self.loss.likelihood(outputs.detach(), batch)
        return likelihood.noise, likelihood.shape

    def sampled_gradient(self, outputs: Tensor, batch: Any, noise: np.ndarray) -> Tensor:
        """Gradient of the summed loss in the outputs, for targets drawn from the model's own likelihood."""
        with torch.no_grad():
            numbers = torch.from_numpy(np.array(noise, dtype=np.float64)).to(outputs.device)
            return self.loss.likelihood(outputs.detach(), batch).gradient(numbers)

    def rank_one(self, g: Tensor, u: Tensor, each: Each) -> Tensor:
        """``g <g, u>`` over each example, or over each term of the loss."""
        if each == "term":
            return self.loss.rank_one(g, u)
        self.loss.require_examples(g)
        return per_example(g, u)
