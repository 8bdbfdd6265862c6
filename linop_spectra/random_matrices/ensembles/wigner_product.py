"""Wigner matrices of low rank: a small one seen through a rectangular Gaussian matrix."""

from __future__ import annotations

from typing import Any

from ...backends import Backend
from ...operators import LinearOperator
from ...operators.algebra import ProductOperator, adjoint_of
from ..laws.law import check_positive, check_whole
from .ensemble_arguments import Ensemble, budget_in_bytes, ensemble_dtype
from .gaussian import GaussianOperator
from .wigner import WignerOperator


def wigner_product(
    n: int,
    rank: int,
    *,
    variance: float = 1.0,
    seed: int = 0,
    ensemble: Ensemble = "goe",
    dtype: Any = None,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The matrix ``X W X^H`` of a Wigner matrix W of order r and an n x r Gaussian matrix X: a symmetric law with an atom at zero.

    W has the variance `variance`, X entries of variance ``1 / r``. For r < n the atom is exactly ``1 - r / n``, and of the other
    eigenvalues half are negative in the mean. The spectrum follows the law `WignerProduct` of the ratio ``c = n / r``: in the limit its
    second moment is ``variance c`` and its fourth ``2 variance^2 c^2 (1 + c)``. Granziol (*Beyond random matrix theory for deep
    networks*, 2020) proposes such matrices for Hessians.

    Parameters
    ----------
    n : int
        Order.
    rank : int
        r, the order of W and the columns of X; it may exceed n, and then the rank is n.
    variance : float
        Of W.
    seed : int
        The matrix is a function of seed, n, rank, variance, ensemble and dtype, the same on every backend up to the rounding of products.
    ensemble : {"goe", "gue"}
        Real symmetric or complex Hermitian.
    dtype : dtype, optional
        Real for ``"goe"`` (float64 by default), complex for ``"gue"`` (complex128).
    memory_budget : int, float, str or None
        Of both together, of ``n r + r^2 / 2`` entries: bytes or text such as ``"4GB"``; by default 40 % of the memory. What takes more than
        its half is made anew in every product, by panels.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (n, n), Hermitian. A product costs ``4 n r + 2 r^2`` operations, never ``n^2``.

    Raises
    ------
    ValueError
        When an argument is out of range.
    TypeError
        When `dtype` does not fit the ensemble.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.wigner_product import wigner_product
    >>> eigenvalues = np.linalg.eigvalsh(wigner_product(200, 40, seed=0).to_dense())
    >>> float(np.mean(np.abs(eigenvalues) < 1e-10))
    0.8
    """
    n, rank = check_whole("n", n, 1), check_whole("rank", rank, 1)
    variance = check_positive("variance", variance, "that of the Wigner matrix")
    resolved = ensemble_dtype(ensemble, dtype)
    share = max(1, budget_in_bytes(memory_budget, backend) // 2)
    domain = f"ensemble/wigner_product/{ensemble}"
    inner = WignerOperator(rank, variance, ensemble, resolved, seed=seed, memory_budget=share, backend=backend, domain=f"{domain}/inner")
    outer = GaussianOperator(n, rank, 1.0, resolved, seed=seed, memory_budget=share, backend=backend, domain=f"{domain}/outer")
    return ProductOperator((outer, inner, adjoint_of(outer)))
