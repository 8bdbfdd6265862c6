"""Gaussian Wigner matrices with planted directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator, low_rank
from ...operators.algebra import SumOperator
from .ensemble_arguments import Ensemble
from .spikes import planted_directions, planted_spikes
from .wigner import wigner


class SpikedWignerOperator(SumOperator):
    """Noise plus a term of low rank.

    Attributes
    ----------
    spikes : ndarray
        Strengths, shape (r,).
    directions : ndarray
        Orthonormal columns on the host, shape (n, r).
    noise : LinearOperator
        The matrix without its spikes.
    """

    def __init__(self, noise: LinearOperator, spikes: np.ndarray, directions: np.ndarray) -> None:
        self.noise, self.spikes, self.directions = noise, spikes, directions
        super().__init__((noise, low_rank(directions, spikes, backend=noise.backend)))


def spiked_wigner(
    n: int,
    spikes: Any,
    *,
    variance: float = 1.0,
    directions: Any = None,
    seed: int = 0,
    ensemble: Ensemble = "goe",
    dtype: Any = None,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> SpikedWignerOperator:
    """A Gaussian Wigner matrix plus ``sum_i theta_i u_i u_i^H``: the `Semicircle` law and outliers.

    With s the square root of `variance`, a spike ``|theta| > s`` brings an eigenvalue to ``theta + variance / theta`` whose eigenvector
    has the squared overlap ``1 - variance / theta^2`` with u; weaker ones leave no trace (Baik, Ben Arous and Peche, 2005;
    Feral and Peche, 2007).

    Parameters
    ----------
    n : int
        Order.
    spikes : float or array
        Strengths theta_i of either sign, shape (r,).
    variance : float
        Of the noise.
    directions : array, optional
        u_i, orthonormal columns, shape (n, r); by default uniformly random ones, a function of seed, n and r.
    seed : int
        The noise is ``wigner(n, seed=seed, ...)`` with the same options.
    ensemble : {"goe", "gue"}
        Real symmetric or complex Hermitian.
    dtype : dtype, optional
        Real for ``"goe"`` (float64 by default), complex for ``"gue"`` (complex128).
    memory_budget : int, float, str or None
        As in `wigner`.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    SpikedWignerOperator
        Shape (n, n), Hermitian, with attributes `spikes`, `directions` and `noise`.

    Raises
    ------
    ValueError
        When an argument is out of range, or `directions` is not orthonormal.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.spiked_wigner import spiked_wigner
    >>> a = spiked_wigner(1000, [4.0, -3.0], seed=0)
    >>> pairs = ls.eigsh(a, k=2, which="BE")
    >>> [bool(abs(value - known) < 0.2) for value, known in zip(pairs.eigenvalues, [-3 - 1 / 3, 4 + 1 / 4])]
    [True, True]
    >>> bool(abs((a.directions[:, 0] @ pairs.eigenvectors[:, 1]) ** 2 - (1 - 1 / 16)) < 0.05)
    True
    """
    noise = wigner(n, variance=variance, seed=seed, ensemble=ensemble, dtype=dtype, memory_budget=memory_budget, backend=backend)
    strengths = planted_spikes(spikes, n)
    return SpikedWignerOperator(noise, strengths, planted_directions(directions, n, len(strengths), seed=seed, dtype=noise.dtype))
