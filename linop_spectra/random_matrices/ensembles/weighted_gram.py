"""Weighted Gram matrices of Gaussian vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator
from ..laws.law import check_positive, check_whole
from .ensemble_arguments import real_numbers
from .gram import GramOperator


def weighted_gram(
    weights: Any,
    dimension: int,
    *,
    variance: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The matrix ``(1 / N) sum_i a_i x_i x_i^H`` of N Gaussian vectors with weights a_i: a random Gauss-Newton matrix.

    Its spectrum follows `WeightedGramLaw`: the Stieltjes transform m, the mean of ``1 / (lambda - z)``, solves
    ``m = 1 / (-z + s sum_i w_i / (1 + w_i s D m))`` with ``w_i = a_i / N``, s the variance and D the dimension.

    Parameters
    ----------
    weights : array
        a_i, real, shape (N,): curvatures of the loss, say. Negative ones make the matrix indefinite.
    dimension : int
        D: order of the matrix.
    variance : float
        Of the entries of x_i; of a complex entry, ``E |x|^2``.
    seed : int
        The matrix is a function of seed, weights, dimension, variance and dtype, the same on every backend up to the rounding of
        products.
    dtype : dtype
        A complex type gives complex vectors.
    memory_budget : int, float, str or None
        Bytes or text such as ``"4GB"``; by default 40 % of the memory. The vectors are held when they fit; else the matrix is formed
        once and held when that fits; else every product makes the vectors anew, once, by panels.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (D, D), Hermitian, and positive semidefinite when no weight is negative.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.weighted_gram import weighted_gram
    >>> a = weighted_gram(np.repeat([0.1, 1.0], 400), 200, seed=0)
    >>> eigenvalues = np.linalg.eigvalsh(a.to_dense())
    >>> bool(abs(eigenvalues.mean() - 0.55) < 0.01)
    True
    """
    values, dimension = real_numbers("weights", weights), check_whole("dimension", dimension, 1)
    variance = check_positive("variance", variance, "that of the entries of the vectors")
    return GramOperator(
        dimension,
        len(values),
        dtype,
        weights=values * (variance / len(values)),
        domain="ensemble/weighted_gram",
        seed=seed,
        memory_budget=memory_budget,
        backend=backend,
    )
