"""Gaussian Wigner matrices with a given diagonal."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator, diagonal_operator
from ...operators.algebra import SumOperator
from .ensemble_arguments import Ensemble, numbers_or_law
from .wigner import wigner


class DeformedWignerOperator(SumOperator):
    """A diagonal matrix plus noise.

    Attributes
    ----------
    diagonal : ndarray
        Of the matrix without noise, on the host, shape (n,).
    noise : LinearOperator
        The Wigner matrix.
    """

    def __init__(self, diagonal: np.ndarray, noise: LinearOperator) -> None:
        self.diagonal, self.noise = diagonal, noise
        super().__init__((diagonal_operator(diagonal.astype(noise.dtype), backend=noise.backend), noise))


def deformed_wigner(
    diagonal: Any,
    *,
    n: int | None = None,
    variance: float = 1.0,
    seed: int = 0,
    ensemble: Ensemble = "goe",
    dtype: Any = None,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> DeformedWignerOperator:
    """A given diagonal matrix plus a Gaussian Wigner matrix: the free convolution of its law with the `Semicircle`.

    The Cauchy transform of the limit solves ``G(z) = G_D(z - variance G(z))`` (Pastur, 1972). Because the noise is invariant under
    rotations, a diagonal matrix stands for any Hermitian one with these eigenvalues. An entry theta apart from the others brings an
    outlier to ``H(theta) = theta + variance G_D(theta)`` where ``H'(theta) > 0``; the squared overlap with its unit vector is
    ``H'(theta)``.

    Parameters
    ----------
    diagonal : array or law
        Real, shape (n,); or a law, whose quantiles at ``(i + 1/2) / n`` are taken.
    n : int, optional
        Order; needed for a law.
    variance : float
        Of the noise.
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
    DeformedWignerOperator
        Shape (n, n), Hermitian, with attributes `diagonal` and `noise`.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    The sum of two free semicircles is a semicircle:

    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices import Semicircle
    >>> from linop_spectra.random_matrices.ensembles.deformed_wigner import deformed_wigner
    >>> a = deformed_wigner(Semicircle(variance=0.5), n=500, variance=1.0, seed=0)
    >>> eigenvalues = np.linalg.eigvalsh(a.to_dense())
    >>> bool(np.abs(Semicircle(variance=1.5).cdf(eigenvalues) - (np.arange(500) + 0.5) / 500).max() < 8 / 500)
    True
    """
    values = numbers_or_law("diagonal", diagonal, "n", n)
    noise = wigner(len(values), variance=variance, seed=seed, ensemble=ensemble, dtype=dtype, memory_budget=memory_budget, backend=backend)
    return DeformedWignerOperator(values, noise)
