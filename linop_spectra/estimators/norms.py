"""Norms of an operator from products with vectors."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ..krylov import eigsh
from ..krylov.lanczos import check_count
from ..operators import aslinearoperator
from ..results import Estimate


def spectral_norm(A: Any, *, tol: float = 1e-6, seed: int = 0, time_budget: float | None = None) -> Estimate:
    """Spectral norm, the largest singular value.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n); one that is not known to be Hermitian needs a product with its adjoint.
    tol : float
        Relative tolerance of the residual.
    seed : int
        Seed of the starting vector.
    time_budget : float, optional
        Seconds.

    Returns
    -------
    Estimate
        The value is a lower bound; ``quadrature_error`` is the residual norm: some singular value lies within it. Which one
        is not certain: a starting vector that happens to be orthogonal to the leading singular vector would miss it.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> round(ls.spectral_norm(ls.diagonal_operator(np.linspace(-3.0, 2.0, 500))).value, 6)
    3.0
    """
    operator = aslinearoperator(A)
    if operator.hermitian:
        pair = eigsh(operator, k=1, which="LM", tol=tol, seed=seed, time_budget=time_budget)
        return Estimate(
            float(abs(pair.eigenvalues[0])), quadrature_error=float(pair.residual_norms[0]), num_matvecs=pair.num_matvecs,
            seconds=pair.seconds, method="thick-restart Lanczos", converged=bool(pair.converged[0]),
        )  # fmt: skip
    small = operator.H @ operator if operator.shape[0] >= operator.shape[1] else operator @ operator.H
    pair = eigsh(small, k=1, which="LA", tol=tol, seed=seed, time_budget=time_budget)
    value = math.sqrt(max(float(pair.eigenvalues[0]), 0.0))
    # The square root carries an error r in sigma^2 to about r / (2 sigma) in sigma.
    error = float(pair.residual_norms[0]) / (2 * value) if value > 0 else math.sqrt(float(pair.residual_norms[0]))
    return Estimate(
        value, quadrature_error=error, num_matvecs=2 * pair.num_matvecs, seconds=pair.seconds,
        method="thick-restart Lanczos on the Gram operator", converged=bool(pair.converged[0]),
    )  # fmt: skip


def frobenius_norm(A: Any, *, num_matvecs: int = 100, seed: int = 0) -> Estimate:
    """Frobenius norm, from ``E |A z|^2`` over vectors of random signs; exact where n products are allowed.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Operator of shape (m, n).
    num_matvecs : int
        Products allowed.
    seed : int
        Seed of the signs.

    Returns
    -------
    Estimate
        The standard error is carried over from that of the squared norm.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.frobenius_norm(ls.diagonal_operator(np.array([3.0, 4.0]))).value
    5.0
    """
    operator = aslinearoperator(A)
    backend, (m, n) = operator.backend, operator.shape
    allowed = check_count("num_matvecs", num_matvecs)
    exact = n <= allowed
    began = time.perf_counter()
    squares: list[Any] = []
    own = backend.empty((m,), operator.dtype)
    for first in range(0, n if exact else allowed, 8):
        count = min(8, (n if exact else allowed) - first)
        if exact:
            rows = backend.asarray(np.eye(count, n, first, dtype=operator.dtype))
        else:
            rows = backend.probes(n, range(first, first + count), kind="sign", seed=seed, domain="trace", dtype=operator.dtype)
        products = operator.matmat(rows.T)
        for i in range(count):
            own[...] = products[:, i]
            squares.append(backend.dot(own, own))
    values = np.real(backend.fetch(squares))
    if not np.all(np.isfinite(values)):
        raise FloatingPointError("A product with the operator holds NaN or infinity, so it has no norm.")
    seconds = time.perf_counter() - began
    if exact:
        return Estimate(math.sqrt(float(values.sum())), num_matvecs=len(values), seconds=seconds, method="exact")
    norm = math.sqrt(float(values.mean()))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(
        norm, standard_error=error / (2 * norm) if norm > 0 else 0.0, num_matvecs=len(values),
        degrees_of_freedom=max(len(values) - 1, 1), seconds=seconds, method="hutchinson",
    )  # fmt: skip
