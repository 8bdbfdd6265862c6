"""Sample covariance matrices with planted directions in the population."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator, identity, low_rank
from ...operators.algebra import ProductOperator
from .spikes import planted_directions, planted_spikes
from .wishart import wishart


class SpikedWishartOperator(ProductOperator):
    """``R S R`` for a Wishart matrix S and the square root R of the population covariance.

    Attributes
    ----------
    spikes : ndarray
        Population eigenvalues that are not one, shape (r,).
    directions : ndarray
        Orthonormal columns on the host, shape (p, r).
    noise : LinearOperator
        S, the matrix without its spikes.
    """

    def __init__(self, noise: LinearOperator, spikes: np.ndarray, directions: np.ndarray) -> None:
        self.noise, self.spikes, self.directions = noise, spikes, directions
        root = identity(noise.shape[0], dtype=noise.dtype, backend=noise.backend) + low_rank(
            directions, np.sqrt(spikes) - 1, backend=noise.backend
        )
        super().__init__((root, noise, root))


def spiked_wishart(
    p: int,
    n: int,
    spikes: Any,
    *,
    directions: Any = None,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> SpikedWishartOperator:
    """The sample covariance of n Gaussian samples whose population covariance is ``I + sum_i (l_i - 1) u_i u_i^H``.

    The bulk follows `MarchenkoPastur` of the ratio ``c = p / n``. A population eigenvalue ``l > 1 + sqrt(c)`` brings an eigenvalue
    to ``l (1 + c / (l - 1))``, with squared overlap ``(1 - c / (l - 1)^2) / (1 + c / (l - 1))``, and so does ``l < 1 - sqrt(c)`` below the
    bulk; those between leave no trace (Baik, Ben Arous and Peche, 2005; Paul, 2007).

    Parameters
    ----------
    p : int
        Variables: the order of the matrix.
    n : int
        Samples.
    spikes : float or array
        Population eigenvalues l_i, none negative, shape (r,).
    directions : array, optional
        u_i, orthonormal columns, shape (p, r); by default uniformly random ones, a function of seed, p and r.
    seed : int
        The data are those of ``wishart(p, n, seed=seed)``, multiplied by the square root of the population covariance.
    dtype : dtype
        A complex type gives complex data.
    memory_budget : int, float, str or None
        As in `wishart`.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    SpikedWishartOperator
        Shape (p, p), Hermitian and positive semidefinite, with attributes `spikes`, `directions` and `noise`.

    Raises
    ------
    ValueError
        When an argument is out of range, or `directions` is not orthonormal.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.spiked_wishart import spiked_wishart
    >>> a = spiked_wishart(400, 1600, 5.0, seed=0)
    >>> top = ls.eigsh(a, k=1, which="LA").eigenvalues[0]
    >>> bool(abs(top - 5 * (1 + 0.25 / 4)) < 0.7)
    True
    """
    noise = wishart(p, n, seed=seed, dtype=dtype, memory_budget=memory_budget, backend=backend)
    values = planted_spikes(spikes, p, least=0.0)
    return SpikedWishartOperator(noise, values, planted_directions(directions, p, len(values), seed=seed, dtype=noise.dtype))
