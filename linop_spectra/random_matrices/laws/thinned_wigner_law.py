"""What is known of the law of a thinned (percolated) Wigner matrix: its atom at zero and its moments."""

from __future__ import annotations

import functools
import math

import numpy as np

from .law import check_positive, check_whole


def thinned_wigner_atom(degree: float) -> float:
    """Share of zero eigenvalues of a Wigner matrix of which each entry is kept with probability ``degree / n``.

    It is that of the adjacency matrix of a sparse random graph: on a tree the rank does not depend on the weights, as long as
    they are not zero.

    Parameters
    ----------
    degree : float
        d, mean number of entries in a row.

    Returns
    -------
    float
        ``x + exp(-d x) + d x exp(-d x) - 1`` with x the smallest root of ``x = exp(-d exp(-d x))``.

    Raises
    ------
    ValueError
        When the degree is not positive.

    References
    ----------
    C. Bordenave, M. Lelarge and J. Salez, *The rank of diluted random graphs*, Ann. Probab. 39 (2011), theorem 13.

    Examples
    --------
    >>> from linop_spectra.random_matrices.laws.thinned_wigner_law import thinned_wigner_atom
    >>> [round(thinned_wigner_atom(degree), 4) for degree in (1, 2, 5)]
    [0.4559, 0.2161, 0.0074]
    """
    from scipy import optimize, special

    d = check_positive("degree", degree, "the mean number of entries in a row")
    # x = exp(-y) and y = d exp(-d x): the fixed points of x -> exp(-d x) solve it, and are the only ones up to d = e.
    fixed = float(special.lambertw(d).real) / d
    if d <= math.e:
        x = fixed
    else:
        def excess(t: float) -> float:
            return t - math.exp(-d * math.exp(-d * t))

        # Negative at zero, and positive between the two lowest roots; the symmetric one is the middle of three.
        top = fixed * (1 - 1e-6)
        x = fixed if excess(top) <= 0 else float(optimize.brentq(excess, 0.0, top, xtol=1e-300, rtol=1e-15))
    y = math.exp(-d * x)
    return x + y + d * x * y - 1


def thinned_wigner_moment(degree: float, k: int) -> float:
    """Limit of the mean k-th power of the eigenvalues of a thinned Gaussian Wigner matrix of unit variance.

    Entries are kept with probability ``degree / n`` and have the variance ``1 / degree``.

    Parameters
    ----------
    degree : float
        d, mean number of entries in a row.
    k : int
        Of the moment. Those of odd order are zero; the second is 1, the fourth ``2 + 3 / d``.

    Returns
    -------
    float
        The moment. As d grows it tends to that of the semicircle. The law has no bounded support: moments grow faster than any
        exponential.

    Raises
    ------
    ValueError
        When the degree is not positive or `k` is not a whole number of at least 0.

    Notes
    -----
    The mean number of closed walks from the root of a Galton-Watson tree with Poisson(d) children, each edge that is walked 2 l times
    weighed by ``(2 l - 1)!! / d^l``. A walk from a child that the parent visits l times is one closed walk cut at l - 1 of its
    returns, and visits of different children interleave: exponential generating functions in the number of returns multiply.

    References
    ----------
    O. Khorunzhy, M. Shcherbina and V. Vengerovsky, *Eigenvalue distribution of large weighted random graphs*, J. Math. Phys. 45 (2004).

    Examples
    --------
    >>> from linop_spectra.random_matrices.laws.thinned_wigner_law import thinned_wigner_moment
    >>> [round(thinned_wigner_moment(3.0, k), 6) for k in (0, 2, 4)]
    [1.0, 1.0, 3.0]
    """
    d = check_positive("degree", degree, "the mean number of entries in a row")
    k = check_whole("k", k, 0)
    return 0.0 if k % 2 else float(_walks(d, k // 2)[k // 2].sum())


@functools.lru_cache(maxsize=32)
def _walks(degree: float, half: int) -> np.ndarray:
    """Weight of closed walks of half-length n from the root that return to it r times, at [n, r]; shape (half + 1, half + 1)."""
    size = half + 1
    factorial = np.array([float(math.factorial(r)) for r in range(size)])
    # `log` is d times the series of one child in y^l / l!; `walks` over r! is its exponential. Both by powers of x (half the length).
    log, walks = np.zeros((size, size)), np.zeros((size, size))
    walks[0, 0] = 1.0
    for n in range(1, size):
        for visits in range(1, n + 1):
            inner = n - visits
            cuts = sum(walks[inner, r] * math.comb(r + visits - 1, r) for r in range(inner + 1))
            weight = math.prod(range(1, 2 * visits, 2)) / degree**visits
            log[n, visits] = degree * weight * cuts / factorial[visits]
        # n E_n = sum of j L_j E_(n - j), from the derivative of the exponential.
        total = np.zeros(size)
        for j in range(1, n + 1):
            total += j * np.convolve(log[j], walks[n - j] / factorial)[:size]
        walks[n] = total / n * factorial
    return walks
