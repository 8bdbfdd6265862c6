"""Tridiagonal matrices with the eigenvalues of the Gaussian and Wishart ensembles of any beta, in memory of order n.

Householder reflections bring a Gaussian matrix to tridiagonal form, and what they leave is known in law: independent normal and
chi variables (Dumitriu and Edelman, 2002). The eigenvalues have exactly the law of those of the dense matrix, at any order, and for
beta that no dense matrix has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...backends import Backend
from ..laws.law import check_positive, check_whole
from .banded import BandedOperator
from .ensemble_arguments import check_real, check_seed
from .entries import chi_square_entries, normal_entries

_REAL = "the tridiagonal matrix is real for every beta, and a real matrix multiplies complex vectors too"


class TridiagonalOperator(BandedOperator):
    """A symmetric tridiagonal matrix, and its two diagonals on the host.

    Attributes
    ----------
    diagonal : ndarray
        Shape (n,), of the type of the matrix.
    off_diagonal : ndarray
        Shape (n - 1,). With `diagonal` the arguments of ``scipy.linalg.eigvalsh_tridiagonal``.
    """

    def __init__(
        self,
        diagonal: np.ndarray,
        off_diagonal: np.ndarray,
        dtype: np.dtype,
        *,
        positive_semidefinite: bool | None,
        details: str,
        backend: Any,
    ) -> None:
        self.diagonal, self.off_diagonal = diagonal.astype(dtype), off_diagonal.astype(dtype)
        diagonals = np.zeros((2 if len(diagonal) > 1 else 1, len(diagonal)), dtype)
        diagonals[0] = self.diagonal
        diagonals[1:, :-1] = self.off_diagonal
        super().__init__(diagonals, positive_semidefinite=positive_semidefinite, details=details, backend=backend)


def tridiagonal_wigner(
    n: int,
    *,
    variance: float = 1.0,
    beta: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
    backend: str | Backend | None = None,
) -> TridiagonalOperator:
    """A tridiagonal matrix with exactly the eigenvalue law of `wigner`, whose spectrum follows the `Semicircle` law.

    The diagonal is normal of variance ``2 variance / (beta n)``, and ``beta n / variance`` times the square of the j-th entry beside
    it, j from 1 to n - 1, is chi-square with ``beta (n - j)`` degrees of freedom; all are independent. Every beta has the same
    limit; it sets how strongly eigenvalues repel each other.

    Parameters
    ----------
    n : int
        Order. An order of a million takes about a second to make and 16 MB to hold.
    variance : float
        Of the limiting law.
    beta : float
        1 gives the eigenvalues of the orthogonal, 2 of the unitary, 4 of the symplectic Gaussian ensemble; any positive number.
    seed : int
        The matrix is a function of seed, n, variance, beta and dtype, the same on every backend.
    dtype : dtype
        float32 or float64; entries are made in double precision and rounded.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    TridiagonalOperator
        Shape (n, n), Hermitian, with attributes `diagonal` and `off_diagonal`. Only the eigenvalues have the law of the dense
        ensemble; its eigenvectors are not spread evenly, so start Krylov methods at random, as they do by themselves. Started at the
        first unit vector, Lanczos gives back the two diagonals.

    Raises
    ------
    ValueError
        When an argument is out of range.
    TypeError
        When `dtype` is not real.

    References
    ----------
    I. Dumitriu and A. Edelman, *Matrix models for beta ensembles*, J. Math. Phys. 43 (2002), theorem 2.12.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from scipy.linalg import eigvalsh_tridiagonal
    >>> from linop_spectra.random_matrices import Semicircle
    >>> from linop_spectra.random_matrices.ensembles.tridiagonal import tridiagonal_wigner
    >>> a = tridiagonal_wigner(1000, beta=2, seed=1)
    >>> eigenvalues = eigvalsh_tridiagonal(a.diagonal, a.off_diagonal)
    >>> bool(np.abs(Semicircle().cdf(eigenvalues) - (np.arange(1000) + 0.5) / 1000).max() < 8 / 1000)
    True
    """
    n, seed = check_whole("n", n, 1), check_seed(seed)
    variance = check_positive("variance", variance, "that of the limiting law")
    beta = check_positive("beta", beta, "1 for the orthogonal and 2 for the unitary ensemble")
    real = check_real(dtype, _REAL)
    domain = "ensemble/tridiagonal_wigner"
    diagonal = normal_entries(
        0, n, scale=math.sqrt(2 * variance / (beta * n)), seed=seed, domain=f"{domain}/diagonal", dtype=np.dtype(np.float64)
    )
    squares = chi_square_entries(beta * np.arange(n - 1, 0, -1), seed=seed, domain=f"{domain}/off_diagonal")
    off_diagonal = np.sqrt(squares * (variance / (beta * n)))
    details = f"beta {beta:g}, seed {seed}"
    return TridiagonalOperator(diagonal, off_diagonal, real, positive_semidefinite=None, details=details, backend=backend)


def tridiagonal_wishart(
    p: int,
    n: int,
    *,
    variance: float = 1.0,
    beta: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
    backend: str | Backend | None = None,
) -> TridiagonalOperator:
    """A tridiagonal matrix with exactly the eigenvalue law of `wishart`, whose spectrum follows `MarchenkoPastur`.

    It is ``B B^T`` for a bidiagonal B: ``beta n / variance`` times the squares of the diagonal of B are chi-square with
    ``beta n, beta (n - 1), ...`` degrees of freedom, and below the diagonal ``beta (p - 1), beta (p - 2), ...``.

    Parameters
    ----------
    p : int
        Variables: the order of the matrix.
    n : int
        Samples; the rank is at most n.
    variance : float
        Of the entries of the data.
    beta : float
        1 gives the eigenvalues for real, 2 for complex data; any positive number.
    seed : int
        The matrix is a function of seed, p, n, variance, beta and dtype, the same on every backend.
    dtype : dtype
        float32 or float64.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    TridiagonalOperator
        Shape (p, p), Hermitian and positive semidefinite, with attributes `diagonal` and `off_diagonal`. Only the eigenvalues have
        the law of the dense ensemble.

    Raises
    ------
    ValueError
        When an argument is out of range.
    TypeError
        When `dtype` is not real.

    References
    ----------
    I. Dumitriu and A. Edelman, *Matrix models for beta ensembles*, J. Math. Phys. 43 (2002), theorem 3.4.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.tridiagonal import tridiagonal_wishart
    >>> a = tridiagonal_wishart(100_000, 400_000, seed=1)
    >>> ls.eigsh(a, k=1, which="LA").eigenvalues.round(2)
    array([2.25])
    """
    p, n, seed = check_whole("p", p, 1), check_whole("n", n, 1), check_seed(seed)
    variance = check_positive("variance", variance, "that of the entries of the data")
    beta = check_positive("beta", beta, "1 for real and 2 for complex data")
    real = check_real(dtype, _REAL)
    domain, scale = "ensemble/tridiagonal_wishart", variance / (beta * n)
    # Where the samples run out, the reflections have emptied the rest of the matrix: zero degrees of freedom.
    step = np.arange(p, dtype=np.float64)
    along = chi_square_entries(beta * np.maximum(n - step, 0), seed=seed, domain=f"{domain}/diagonal") * scale
    left = np.where(step < n, p - 1 - step, 0)[:-1]
    below = chi_square_entries(beta * left, seed=seed, domain=f"{domain}/off_diagonal") * scale
    diagonal = along + np.concatenate([[0.0], below])
    off_diagonal = np.sqrt(along[:-1] * below)
    details = f"{n} samples, beta {beta:g}, seed {seed}"
    return TridiagonalOperator(diagonal, off_diagonal, real, positive_semidefinite=True, details=details, backend=backend)
