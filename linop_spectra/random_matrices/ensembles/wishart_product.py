"""Products of rectangular Gaussian matrices, squared."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator
from ...operators.algebra import ProductOperator, adjoint_of
from ..laws.law import check_whole
from .ensemble_arguments import budget_in_bytes
from .gaussian import GaussianOperator
from .wishart import WishartOperator


def wishart_product(
    dims: Any,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The matrix ``X X^H`` of a product ``X = X_1 X_2 ... X_K`` of Gaussian matrices, as in deep linear networks.

    With ``dims = (p, n_1, ..., n_K)`` the matrix X_k has n_(k-1) rows (the first p) and n_k columns, and entries of variance ``1 / n_k``.
    The spectrum follows `WishartProduct`, the free multiplicative convolution of the `MarchenkoPastur` laws of the ratios ``p / n_k``,
    which is also that of a product of K independent p x p Wishart matrices: the moment series ``w = sum_j m_j z^-j`` solves
    ``w z = (1 + w) prod_k (1 + w p / n_k)``. Equal dimensions give `FussCatalan`, K = 1 the law of `wishart`. The rank is the smallest
    dimension.

    Parameters
    ----------
    dims : sequence of int
        The order p, then the columns of every factor; two numbers at least.
    seed : int
        The matrix is a function of seed, dims and dtype, the same on every backend up to the rounding of products.
    dtype : dtype
        A complex type gives complex factors.
    memory_budget : int, float, str or None
        Of all factors together: bytes or text such as ``"4GB"``; by default 40 % of the memory. A factor that takes more than its equal
        share is made anew in every product, by panels; the last one once, the others once before and once after it.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (p, p), Hermitian and positive semidefinite.

    Raises
    ------
    ValueError
        When an argument is out of range.

    References
    ----------
    R. Mueller, *On the asymptotic eigenvalue distribution of concatenated vector-valued fading channels*, IEEE Trans. Inf. Theory 48
    (2002).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.wishart_product import wishart_product
    >>> eigenvalues = np.linalg.eigvalsh(wishart_product((300, 300, 300), seed=0).to_dense())
    >>> bool(abs(np.mean(eigenvalues**2) - 3) < 0.2)
    True
    """
    if isinstance(dims, (str, bytes)) or not hasattr(dims, "__len__") or len(dims) < 2:
        raise ValueError(
            f"The argument dims must list the order and the columns of every factor, two whole numbers at least, but is {dims!r}; "
            "for three square factors of order 100 pass (100, 100, 100, 100)."
        )
    sizes = [check_whole(f"dims[{position}]", size, 1) for position, size in enumerate(dims)]
    count = len(sizes) - 1
    share = max(1, budget_in_bytes(memory_budget, backend) // count)

    def domain(factor: int) -> str:
        return f"ensemble/wishart_product/{factor}"

    # The last factor meets its own adjoint, so that it need be made only once in a product.
    middle = WishartOperator(sizes[-2], sizes[-1], None, dtype, seed=seed, memory_budget=share, backend=backend, domain=domain(count))
    outer: list[LinearOperator] = [
        GaussianOperator(sizes[k - 1], sizes[k], 1.0, dtype, seed=seed, memory_budget=share, backend=backend, domain=domain(k))
        for k in range(1, count)
    ]
    if not outer:
        return middle
    return ProductOperator((*outer, middle, *(adjoint_of(factor) for factor in reversed(outer))))
