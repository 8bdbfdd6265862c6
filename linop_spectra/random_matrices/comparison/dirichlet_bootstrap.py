"""Lanczos coefficients of random matrices that follow a law, drawn without any matrix: the Dirichlet bootstrap.

A probe that is uniform on the sphere gives n eigenvalues the weights Dirichlet(1/2, ..., 1/2), for complex matrices
Dirichlet(1, ..., 1), whatever the eigenvectors are. Two things make this cheap at any n and true to finite matrices.

Weights of a Dirichlet law add up exactly: many eigenvalues at one place have together the weight of one place whose parameter is
the sum of theirs. The n eigenvalues are therefore replaced by the nodes of a Gauss rule of the law with parameters ``n w / 2``, four
nodes for each Lanczos step, so that means, variances and third moments of what the steps see are unchanged.

The eigenvalues of a random matrix are not the quantiles of its law. They are off by about 1/n, which is little beside the
``n^(-1/2)`` of the probes, but the coefficients of step j feel it ``j`` times, and all probes alike. Its law is universal: on an
interval mapped to [-1, 1], the sum of the Chebyshev polynomials of degree m over the eigenvalues is off by a normal variable of
variance ``m / (2 beta)`` and mean ``(2 / beta - 1) / 2`` for even m, independent (K. Johansson, *On fluctuations of eigenvalues of
random Hermitian matrices*, Duke Math. J. 91 (1998); beta is 1 for real and 2 for complex matrices). The nodes are moved by it.
Both hold up to somewhat less than ``sqrt(n)`` steps: later coefficients show single eigenvalues, of which a limiting law says
nothing.
"""

from __future__ import annotations

import math

import numpy as np

from ..laws.law import SpectralLaw

NODES_PER_STEP = 4
"""Nodes of the Gauss rule that stands for a large spectrum, over the number of Lanczos steps."""
STEPS_OF_ROOT = 0.5
"""Lanczos coefficients that a law determines, over the square root of the number of eigenvalues."""
LEAST_STEPS = 4
_TINY = 1e-290
_COLUMNS = 2048


def most_steps(law: SpectralLaw, n: int) -> int:
    """Number of Lanczos steps whose coefficients a law of n eigenvalues determines; those in its atoms do not count.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> most_steps(ls.random_matrices.Semicircle(), 10_000), most_steps(ls.random_matrices.MarchenkoPastur(ratio=4.0), 10_000)
    (50, 25)
    """
    in_atoms = math.fsum(mass for _, mass in law.atoms) if law.support else 0.0
    return max(LEAST_STEPS, int(STEPS_OF_ROOT * math.sqrt(n * (1 - in_atoms))))


def draw_coefficients(
    law: SpectralLaw, n: int, num_steps: int, num_probes: int, count: int, rng: np.random.Generator, *, beta: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos coefficients of `count` random matrices of order n that follow `law`.

    Parameters
    ----------
    law : SpectralLaw
        The law.
    n : int
        Order.
    num_steps : int
        Steps k, at most about ``sqrt(n)``; see `most_steps`.
    num_probes : int
        Probes p for each matrix.
    count : int
        Matrices.
    rng : numpy.random.Generator
        Source of the draws.
    beta : int
        1 for real symmetric and 2 for complex Hermitian matrices.

    Returns
    -------
    alphas : numpy.ndarray
        Shape (count, p, k).
    betas : numpy.ndarray
        Shape (count, p, k - 1). Zeros follow where the law has fewer than k places.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> law = ls.random_matrices.Semicircle()
    >>> alphas, betas = draw_coefficients(law, 1000, 5, 1, 400, np.random.default_rng(0))
    >>> bool(abs(alphas[:, 0, 2].std() - np.sqrt(2 / 1000)) < 0.01)
    True
    """
    places, masses = base_measure(law, num_steps)
    moved = np.repeat(places[:, None] + _fluctuation(law, places, n, count, rng, beta), num_probes, axis=1)
    weights = np.maximum(rng.gamma(np.maximum(beta * n / 2 * masses, _TINY), size=(count * num_probes, len(places))), _TINY).T
    weights = weights / weights.sum(axis=0)
    alphas, betas = jacobi_coefficients(moved, weights, num_steps)
    return alphas.reshape(count, num_probes, num_steps), betas.reshape(count, num_probes, num_steps - 1)


def base_measure(law: SpectralLaw, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and masses that stand for a law: its atoms where it has few of them and nothing else, or a Gauss rule of it."""
    nodes = NODES_PER_STEP * num_steps
    if not law.support and len(law.atoms) <= nodes:
        places, masses = (np.array(part, dtype=np.float64) for part in zip(*law.atoms, strict=True))
        return places, masses / masses.sum()
    places, masses = law.gauss_rule(nodes)
    return places, np.maximum(masses, 0.0) / masses.sum()


def law_coefficients(law: SpectralLaw, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the law itself, of shapes (k,) and (k - 1,), followed by zeros where it has fewer places."""
    places, masses = base_measure(law, num_steps)
    alphas, betas = jacobi_coefficients(places, masses[:, None], num_steps)
    return alphas[0], betas[0]


def _fluctuation(law: SpectralLaw, places: np.ndarray, n: int, count: int, rng: np.random.Generator, beta: int) -> np.ndarray:
    """How far the eigenvalues near each place are from where the law has them, shape (places, count)."""
    moves = np.zeros((len(places), count))
    degrees = np.arange(1, len(places) + 1)
    for low, high in law.support:
        inside = (places > low) & (places < high)
        if not np.any(inside):
            continue
        x = places[inside]
        angle = np.arccos(np.clip((2 * x - low - high) / (high - low), -1, 1))
        normals = rng.standard_normal((len(degrees), count))
        sums = np.sqrt(degrees / (2 * beta))[:, None] * normals + ((2 / beta - 1) / 2 * (degrees % 2 == 0))[:, None]
        excess = 2 / np.pi * np.sin(np.outer(angle, degrees)) @ (sums / degrees[:, None])  # eigenvalues above each place, too many
        spacing = 1 / (n * np.asarray(law.pdf(x), dtype=np.float64))
        moves[inside] = excess * spacing[:, None]
    return moves


def jacobi_coefficients(places: np.ndarray, weights: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Jacobi coefficients of many discrete measures at once: what Lanczos gives in exact arithmetic on a diagonal matrix.

    By inserting one place after the other with rotations, as Rutishauser, Kahan, Pal and Walker do (W. B. Gragg and W. J. Harrod,
    *The numerically stable reconstruction of Jacobi matrices from spectral data*, Numer. Math. 44 (1984)). It is backward stable
    without any reorthogonalisation, and the first coefficients need none of the later ones.

    Parameters
    ----------
    places : numpy.ndarray
        Distinct places, shape (m,) for all measures or (m, count).
    weights : numpy.ndarray
        Positive masses, shape (m, count): one measure for each column.
    num_steps : int
        Steps k.

    Returns
    -------
    alphas : numpy.ndarray
        Shape (count, k).
    betas : numpy.ndarray
        Shape (count, k - 1). Rows are padded with zeros where a measure has fewer than k places.

    Examples
    --------
    >>> import numpy as np
    >>> alphas, betas = jacobi_coefficients(np.array([-1.0, 1.0]), np.array([[0.5], [0.5]]), 2)
    >>> alphas.round(12), betas.round(12)
    (array([[0., 0.]]), array([[1.]]))
    """
    weights = np.asarray(weights, dtype=np.float64)
    m, count = weights.shape
    places = np.asarray(places, dtype=np.float64)
    # Scaled to order one, so that products of weights and squared places neither overflow nor vanish.
    scale = float(np.max(np.abs(places), initial=0.0)) or 1.0
    scaled = np.broadcast_to((places / scale).reshape(m, -1), (m, count))
    alphas, betas = np.zeros((count, num_steps)), np.zeros((count, num_steps - 1))
    for first in range(0, count, _COLUMNS):  # columns at a time that stay in the cache
        part = slice(first, min(first + _COLUMNS, count))
        a, b = _insert_all(scaled[:, part], np.maximum(weights[:, part], _TINY), num_steps)
        alphas[part], betas[part] = a.T * scale, np.sqrt(b[1:].T) * scale
    return alphas, betas


def _insert_all(places: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and squared off-diagonal (the first is the mass), each of shape (k, count)."""
    m, count = weights.shape
    diagonal, squares = np.zeros((k, count)), np.zeros((k, count))
    diagonal[0], squares[0] = places[0], weights[0]
    rho, gamma, sigma, t, new, step, mass = (np.empty(count) for _ in range(7))
    for i in range(1, m):
        np.copyto(mass, weights[i])
        gamma.fill(1.0)
        t.fill(0.0)
        if i < k:
            diagonal[i] = places[i]
        for a, b in zip(diagonal[: i + 1], squares[: i + 1], strict=True):
            np.add(b, mass, out=rho)
            np.maximum(rho, _TINY, out=rho)
            np.multiply(gamma, rho, out=new)
            np.divide(b, rho, out=gamma)
            np.divide(mass, rho, out=sigma)
            np.copyto(b, new)
            np.subtract(a, places[i], out=step)
            np.multiply(sigma, step, out=step)
            np.multiply(gamma, t, out=new)
            np.subtract(step, new, out=step)
            np.subtract(t, step, out=new)
            np.add(a, new, out=a)
            np.copyto(t, step)
            np.maximum(sigma, _TINY, out=sigma)
            np.divide(t, sigma, out=mass)
            np.multiply(mass, t, out=mass)
    return diagonal, squares
