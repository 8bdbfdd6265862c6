"""Diagonals of curvature matrices for methods that refresh them while they train, and the windows of convolutions to average them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...approximations.example_gradients import monte_carlo_ggn
from ...backends import Array
from ...curvature import Objective
from ...curvature.weight_uses import SupportsWeightUses
from ..evaluation import Matrix, Start
from ..optimizer import check_number

Window = tuple[slice, tuple[int, int], int]
"""Where a kernel's numbers are, their shape as a matrix with the positions of the window along one axis, and that axis."""


def hutchinson_diagonal(start: Start, matrix: Matrix, num_samples: int, seed: int, domain: str) -> Array:
    r"""Mean of :math:`z \odot Az` over vectors of random signs, shape (n,), at `num_samples` products.

    An unbiased estimate of the diagonal with variance :math:`\sum_{j \ne i} A_{ij}^2` of an entry and sample (Bekas, Kokiopoulou and Saad,
    2007). The signs follow from seed and step.
    """
    operator = start.operator(matrix)
    indices = range(start.step * num_samples, (start.step + 1) * num_samples)
    signs = operator.backend.probes(operator.shape[0], indices, kind="sign", seed=seed, domain=domain, dtype=operator.dtype)
    return (signs * operator.matmat(signs.T).T).sum(0) / num_samples


def drawn_diagonal(start: Start, num_samples: int, seed: int) -> Array:
    """Squared gradients of whole batches for targets drawn from the model, shape (n,), at a gradient for each sample."""
    start.num_gradients += num_samples
    return monte_carlo_ggn(start.curvature, num_samples=num_samples, each="batch", seed=seed_of_step(seed, start.step)).diagonal


def seed_of_step(seed: int, step: int) -> int:
    """A seed for what a step draws; unlike ``seed + step`` it is another one for each pair."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def check_betas(betas: Any) -> tuple[float, float]:
    """Both decay rates as numbers from zero to below one.

    Raises
    ------
    ValueError
        When they are not two, or not in that range.
    """
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"The argument betas is {betas!r}, but must be two numbers: decays of the gradient's and of the curvature's mean.")
    return check_number("betas[0]", betas[0], below=1.0), check_number("betas[1]", betas[1], below=1.0)


def convolution_windows(objective: Objective) -> list[Window]:
    """Kernels that a forward pass over one batch is seen to convolve with, whichever way the framework lays them out.

    Kernels of grouped and transposed convolutions, and those of models that do not show their layers, are not among them.
    """
    functions = objective.functions
    shapes = {name: tuple(int(n) for n in value.shape) for name, value in objective.unflatten(objective.parameters()).items()}
    if not any(len(shape) > 2 for shape in shapes.values()) or not isinstance(functions, SupportsWeightUses):
        return []
    if functions.gauss_newton_refusal is not None:
        return []
    with functions.session():
        uses = functions.weight_uses(objective.point, next(iter(objective.batches()))).uses
    found: dict[str, Window] = {}
    for use in uses:
        if use.kind != "convolution" or use.weight is None or use.places is None:
            continue
        place, shape = objective.blocks[use.weight], shapes[use.weight]
        matrix = _by_window(shape, use.places[0] - place.start) if use.places.size == place.stop - place.start else None
        if matrix is not None:
            found[use.weight] = (place, *matrix)
    return list(found.values())


def _by_window(shape: tuple[int, ...], one_output: np.ndarray) -> tuple[tuple[int, int], int] | None:
    """Shape of a kernel as a matrix with its window along one axis, and that axis, given the places of the weights of one output.

    The axis of outputs is the one along which these places do not move; that of channels is beside it, at the same end of the shape.

    Examples
    --------
    >>> kernel = np.arange(4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
    >>> _by_window(kernel.shape, kernel[0].ravel()), _by_window((3, 3, 2, 4), np.arange(72).reshape(3, 3, 2, 4)[..., 0].ravel())
    (((8, 9), 1), ((9, 8), 0))
    """
    coordinates = np.unravel_index(one_output, shape)
    still = [axis for axis, own in enumerate(coordinates) if (own == own[0]).all()]
    axes = [axis for axis in still if shape[axis] > 1] or still
    ends = {axis for axis in axes if axis in (0, len(shape) - 1) or len(shape) > 3}
    if len(ends) != 1:  # a single output of a window of one, or of one channel: nothing tells
        return None
    (output,) = ends
    last = output >= len(shape) - 2
    window = int(np.prod(shape[:-2] if last else shape[2:]))
    rest = int(np.prod(shape)) // window
    return ((window, rest), 0) if last else ((rest, window), 1)


def averaged(objective: Objective, diagonal: Array, windows: Sequence[Window]) -> Array:
    """A diagonal with the mean over its window in place of each number of a kernel."""
    backend = objective.functions.backend
    result = diagonal + 0
    for place, shape, axis in windows:
        kernel = backend.reshape(diagonal[place], shape)
        mean = kernel.sum(axis) / shape[axis]
        result[place] = backend.reshape((mean[None, :] if axis == 0 else mean[:, None]) + 0 * kernel, (place.stop - place.start,))
    return result
