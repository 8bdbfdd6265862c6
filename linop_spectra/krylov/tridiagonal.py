"""The symmetric tridiagonal eigenproblem, on the host in double precision."""

from __future__ import annotations

import numpy as np
from scipy import linalg
from scipy.linalg import lapack


def ritz(alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the Jacobi matrix of a Lanczos run.

    Parameters
    ----------
    alphas : numpy.ndarray
        Diagonal, shape (k,).
    betas : numpy.ndarray
        Off-diagonal entries, shape (k,) or (k - 1,); a last one beyond the matrix (the residual norm) is not used.

    Returns
    -------
    values : numpy.ndarray
        Ritz values in ascending order, shape (k,).
    vectors : numpy.ndarray
        Orthonormal eigenvectors as columns, shape (k, k).
    """
    k = len(alphas)
    if k == 1:
        return np.array(alphas, dtype=np.float64), np.ones((1, 1))
    # Scaled to order one: LAPACK compares with absolute thresholds on tiny or huge matrices.
    scale = max(np.max(np.abs(alphas)), np.max(np.abs(betas[: k - 1])))
    if scale == 0.0:
        return np.zeros(k), np.eye(k)
    values, vectors, failed = lapack.dstev(np.asarray(alphas) / scale, np.asarray(betas[: k - 1]) / scale)
    if failed:
        raise FloatingPointError("The eigenvalue problem of the Jacobi matrix failed: its coefficients are not finite.")
    return values * scale, vectors


def extreme_ritz(alphas: np.ndarray, betas: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Smallest and largest Ritz value, each with its residual norm; the other pairs are not computed.

    Parameters
    ----------
    alphas, betas : numpy.ndarray
        Coefficients, shape (k,), the last beta being the residual norm.
    """
    k = len(alphas)
    scale = max(float(np.max(np.abs(alphas))), float(np.max(betas[: k - 1], initial=0.0)))
    if k <= 40 or scale == 0.0:  # the whole problem is the quicker one
        values, vectors = ritz(alphas, betas)
        residuals = np.abs(betas[-1] * vectors[-1])
        return (float(values[0]), float(residuals[0])), (float(values[-1]), float(residuals[-1]))
    ends = []
    for index in (0, k - 1):
        value, vector = linalg.eigh_tridiagonal(alphas / scale, betas[: k - 1] / scale, select="i", select_range=(index, index))
        ends.append((float(value[0]) * scale, float(abs(betas[-1] * vector[-1, 0]))))
    return ends[0], ends[1]
