"""What the gradient of an objective, and the noise of its batches, see of the curvature."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...curvature import Objective
from ..evaluation import Matrix, check_matrix, make_matrix
from ..newton.krylov_model import KrylovModel, krylov_model


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredModes:
    """Modes of a noisy quadratic.

    Attributes
    ----------
    eigenvalues, noise, start : numpy.ndarray
        Ritz values, variance of the gradient and square of the position along each, shape (k,).
    minimum : float
        Loss of the quadratic at its stationary point.
    num_matvecs : int
        Products.
    """

    eigenvalues: np.ndarray
    noise: np.ndarray
    start: np.ndarray
    minimum: float
    num_matvecs: int


def measured_modes(
    objective: Objective, matrix: Matrix, num_steps: int, batch_size: int | None, num_noise_vectors: int
) -> MeasuredModes:
    """Gauss rules of the curvature from the gradient, and from differences of batch gradients; see `NoisyQuadratic.measured`.

    Expectations of the loss are linear in the squares of the first positions and in the variances of the noise, so that the modes of
    different runs stand side by side.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"The argument objective is a {type(objective).__name__}, but must be an objective made by linop_spectra.objective."
        )
    check_matrix(matrix)
    operator = make_matrix(matrix, objective)
    backend = operator.backend
    loss, gradient = objective.value_and_gradient()
    values, noise, start, minimum = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)], loss
    if float(backend.norm(gradient)) > 0:
        model = krylov_model(operator, gradient, num_steps)
        h = _without_zero(model)
        values, noise, start = [h], [np.zeros(h.size)], [(model.coefficients / h) ** 2]
        minimum = loss - 0.5 * float((model.coefficients**2 / h).sum())
    total = objective.num_examples
    if batch_size is not None and batch_size < total:
        if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise ValueError(f"The argument batch_size must be a whole number of at least 1, but is {batch_size!r}.")
        parts = objective.per_batch()
        if len(parts) < 2:
            raise ValueError(
                "The noise of batches is measured by comparing them, but the objective has one batch; make it with a smaller batch_size."
            )
        differences = [part.gradient() - gradient for part in parts]
        squares = np.array([float(backend.norm(one)) ** 2 for one in differences])
        sizes = np.array([part.num_examples for part in parts], dtype=np.float64)
        # Unbiased for the variance of one example, as in `HessianVariance`; batches drawn without replacement have 1 / B - 1 / N of it.
        per_example = float((sizes * squares).sum()) / (len(parts) - 1)
        variance = per_example * (1 / batch_size - 1 / total)
        chosen = [i for i in np.unique(np.linspace(0, len(parts) - 1, num_noise_vectors).round().astype(int)) if squares[i] > 0]
        for i in chosen:
            model = krylov_model(operator, differences[i], num_steps)
            h = _without_zero(model)
            values.append(h)
            noise.append(variance / len(chosen) * model.coefficients**2 / squares[i])
            start.append(np.zeros(h.size))
    if not sum(part.size for part in values):
        raise ValueError("The gradient is zero, and there is no noise: nothing moves, and there is nothing to predict.")
    return MeasuredModes(np.concatenate(values), np.concatenate(noise), np.concatenate(start), minimum, operator.num_matvecs)


def _without_zero(model: KrylovModel) -> np.ndarray:
    """Ritz values, moved away from zero by rounding: positions are the gradient over them."""
    floor = np.finfo(np.float64).eps * max(float(np.abs(model.values).max()), np.finfo(np.float64).tiny)
    return np.where(np.abs(model.values) < floor, floor, model.values)
