"""What rounding does to a Lanczos run that keeps no vectors: lost orthogonality and repeated Ritz values, from the coefficients."""

from __future__ import annotations

import numpy as np

from .tridiagonal import ritz

_NO_WEIGHT = 1e-3


def estimated_loss(alphas: np.ndarray, betas: np.ndarray, rounding: float, n: int) -> float:
    """Largest inner product of two Lanczos vectors, by Simon's recurrence.

    The inner products ``omega_{j,i}`` of the vectors obey the recurrence of the vectors themselves, with a rounding error in
    each step: ``beta_j omega_{j+1,i} = beta_i omega_{j,i+1} + (alpha_i - alpha_j) omega_{j,i} + beta_{i-1} omega_{j,i-1}
    - beta_{j-1} omega_{j-1,i}`` (H. Simon, *The Lanczos algorithm with partial reorthogonalization*, Math. Comp. 42, 1984,
    equation 2.11). The errors are taken with the sign that makes things worse.

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Coefficients, shape (k,), the last beta being the residual norm.
    rounding : float
        Unit of rounding of products and vectors.
    n : int
        Length of the vectors.

    Returns
    -------
    float
        Between 0 and 1.
    """
    k = len(alphas)
    scale = float(np.max(np.abs(alphas), initial=0.0) + np.max(betas, initial=0.0))
    if k < 2 or scale == 0.0:
        return 0.0
    error = rounding * np.sqrt(n) * scale / 2
    previous, current = np.zeros(k + 1), np.zeros(k + 1)
    current[0] = 1.0
    worst = 0.0
    for j in range(k):
        if betas[j] == 0.0:
            break
        following = np.zeros(k + 1)
        i = np.arange(j)
        local = (alphas[i] - alphas[j]) * current[i] + betas[i] * current[i + 1]
        local[1:] += betas[i[1:] - 1] * current[i[1:] - 1]
        local -= (betas[j - 1] if j else 0.0) * previous[i]
        following[i] = (local + np.sign(local) * error) / betas[j]
        following[j] = error / betas[j]
        following[j + 1] = 1.0
        worst = max(worst, float(np.max(np.abs(following[: j + 1]))))
        if not worst < 1.0:
            return 1.0
        previous, current = current, following
    return worst


def count_ghosts(alphas: np.ndarray, betas: np.ndarray, rounding: float) -> int:
    """Ritz values that rounding made: copies of another one, and new copies that have hardly any weight yet.

    A copy lies within rounding of its neighbour. A new one has a weight far below the unit of rounding: its eigenvector begins
    with a zero, which is the test of J. Cullum and R. Willoughby (*Lanczos Algorithms for Large Symmetric Eigenvalue
    Computations*, 1985, section 4.5) for an eigenvalue of the matrix without its first row and column.

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Coefficients, shape (k,), the last beta being the residual norm.
    rounding : float
        Unit of rounding.

    Returns
    -------
    int
        Number of Ritz values that stand for nothing new.
    """
    k = len(alphas)
    if k < 2:
        return 0
    values, vectors = ritz(alphas, betas)
    tolerance = 4 * rounding * float(np.max(np.abs(values)))
    first = np.flatnonzero(np.diff(values, prepend=-np.inf) > tolerance)
    sizes = np.diff(np.append(first, k))
    alone = first[sizes == 1]
    return int(np.sum(sizes - 1) + np.sum(vectors[0, alone] ** 2 <= _NO_WEIGHT * rounding))
