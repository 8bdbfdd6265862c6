"""First and second moments of gradient methods along one eigenvector, by powers of small matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..optimizer import check_number


def gains(eigenvalues: np.ndarray, num_steps: Any, learning_rate: Any, momentum: float, nesterov: bool) -> np.ndarray:
    """Expected position after each of `num_steps`, from position one without velocity, shape (..., k)."""
    first = np.zeros((eigenvalues.size, 2))
    first[:, 0] = 1.0
    return _advanced(lambda eta: recursion(eigenvalues, eta, momentum, nesterov)[0], first, num_steps, learning_rate, momentum)


def variances(eigenvalues: np.ndarray, num_steps: Any, learning_rate: Any, momentum: float, nesterov: bool) -> np.ndarray:
    """Variance of the position by gradient noise of variance one, after each of `num_steps`, shape (..., k)."""
    first = np.zeros((eigenvalues.size, 4))
    first[:, 3] = 1.0

    def matrix(eta: float) -> np.ndarray:
        A, b = recursion(eigenvalues, eta, momentum, nesterov)
        (a, c), (d, e) = (A[:, 0, 0], A[:, 0, 1]), (A[:, 1, 0], A[:, 1, 1])
        one, zero = np.ones(eigenvalues.size), np.zeros(eigenvalues.size)
        rows = [
            [a * a, 2 * a * c, c * c, b[0] ** 2 * one],
            [a * d, a * e + c * d, c * e, b[0] * b[1] * one],
            [d * d, 2 * d * e, e * e, b[1] ** 2 * one],
            [zero, zero, zero, one],
        ]
        return np.moveaxis(np.array(rows), 2, 0)

    return _advanced(matrix, first, num_steps, learning_rate, momentum)


def recursion(eigenvalues: np.ndarray, eta: float, momentum: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    r"""Matrices of position and velocity, shape (k, 2, 2), and what noise of the gradient adds to the two, shape (2,).

    With :math:`g = \lambda x + \xi` and :math:`v' = \beta v + g`, heavy ball has :math:`x' = x - \eta v'` and Nesterov's method
    :math:`x' = x - \eta (g + \beta v')`.
    """
    h, one = np.asarray(eigenvalues, dtype=np.float64), np.ones(len(eigenvalues))
    of_gradient, of_velocity = (1 + momentum, momentum**2) if nesterov else (1.0, momentum)
    A = np.array([[1 - eta * of_gradient * h, -eta * of_velocity * one], [h, momentum * one]])
    return np.moveaxis(A, 2, 0), np.array([-eta * of_gradient, 1.0])


def _advanced(matrix: Any, state: np.ndarray, num_steps: Any, learning_rate: Any, momentum: float) -> np.ndarray:
    """First components of ``matrix^t state`` for every t, shape (..., k)."""
    check_number("momentum", momentum, below=1.0)
    steps = np.asarray(num_steps)
    if steps.dtype.kind not in "iu" or (steps < 0).any():
        raise ValueError(f"The argument num_steps must hold whole numbers of at least 0, but is {num_steps!r}.")
    rates = np.asarray(learning_rate, dtype=np.float64)
    if rates.ndim > 1 or not (np.isfinite(rates) & (rates > 0)).all():
        raise ValueError("The argument learning_rate must be positive and finite, one number or one for each step.")
    last = int(steps.max(initial=0))
    if rates.ndim and rates.size < last:
        raise ValueError(f"The argument learning_rate has {rates.size} entries, but num_steps goes up to {last}; pass one for each step.")
    constant = None if rates.ndim else matrix(float(rates))
    found, at = {}, 0
    with np.errstate(over="ignore", invalid="ignore"):
        for target in np.unique(steps):
            if constant is not None:
                power = np.linalg.matrix_power(constant, int(target) - at)
                state = (power @ state[:, :, None])[:, :, 0]
            else:
                for eta in rates[at:target]:
                    state = (matrix(float(eta)) @ state[:, :, None])[:, :, 0]
            at = int(target)
            found[at] = np.where(np.isnan(state[:, 0]), np.inf, state[:, 0])
    return np.array([found[int(t)] for t in steps.ravel()]).reshape(*steps.shape, state.shape[0])
