"""Wishart matrices: sample covariance matrices of Gaussian data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator
from ..laws.law import check_whole
from .gram import GramOperator


class WishartOperator(GramOperator):
    """``X X^H / n`` for a p x n matrix X of independent entries."""

    def __init__(
        self,
        p: int,
        n: int,
        population: np.ndarray | None,
        dtype: Any,
        *,
        seed: int,
        memory_budget: Any,
        backend: Any,
        domain: str = "ensemble/wishart",
    ) -> None:
        super().__init__(p, n, dtype, population=population, domain=domain, seed=seed, memory_budget=memory_budget, backend=backend)


def wishart(
    p: int,
    n: int,
    *,
    population: Any = None,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The sample covariance matrix ``X X^H / n`` of n Gaussian samples of p variables.

    The columns of X are independent. Without `population` its entries are standard normal, and the spectrum follows
    `MarchenkoPastur` of the ratio ``p / n``.

    Parameters
    ----------
    p : int
        Variables: the order of the matrix.
    n : int
        Samples.
    population : array, optional
        Eigenvalues of the population covariance, shape (p,), none negative: variances of the variables. By rotational
        invariance a diagonal covariance is no restriction on the spectrum.
    seed : int
        The matrix is a function of seed, p, n, population and dtype, the same on every backend up to the rounding of products.
        Its random numbers are apart from those of probes with the same seed.
    dtype : dtype
        Of X. A complex type gives complex entries with ``E |x_ij|^2 = 1``.
    memory_budget : int, float, str or None
        Bytes or text such as ``"4GB"``; by default 40 % of the memory. X is held when it fits; else the p x p matrix is formed
        once and held when that fits; else every product makes X anew, once, at about 20 ns an entry and thread, 4 MB at a time
        (less for a smaller budget, but one sample at least): bit for bit the same X. Then pass many vectors at once.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (p, p), Hermitian and positive semidefinite.

    Raises
    ------
    ValueError
        When `p`, `n`, `population`, `seed` or `memory_budget` is out of range.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> a = ls.random_matrices.wishart(100, 400, seed=0)
    >>> law = ls.random_matrices.MarchenkoPastur(ratio=100 / 400)
    >>> eigenvalues = np.linalg.eigvalsh(a.to_dense())
    >>> bool(abs(np.mean(eigenvalues <= 1.0) - law.cdf(1.0)) < 0.03)
    True
    """
    p, n = check_whole("p", p, 1), check_whole("n", n, 1)
    variances = None
    if population is not None:
        variances = np.asarray(population)
        if variances.dtype.kind not in "biuf" or variances.shape != (p,) or not np.all((variances >= 0) & np.isfinite(variances)):
            raise ValueError(
                f"The argument population must be {p} finite numbers that are not negative, one variance for each variable, "
                f"but has shape {variances.shape} and dtype {variances.dtype}"
                + (f" with smallest entry {variances.min()!r}." if variances.dtype.kind in "biuf" and variances.size else ".")
            )
        variances = variances.astype(np.float64)
    return WishartOperator(p, n, variances, dtype, seed=seed, memory_budget=memory_budget, backend=backend)
