"""Sample covariance matrices of a population with given eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Backend
from ...operators import LinearOperator
from ...operators.algebra import ProductOperator, adjoint_of
from .ensemble_arguments import numbers_or_law
from .haar_rotation import RotationMethod, haar_rotation
from .wishart import wishart


class SampleCovarianceOperator(ProductOperator):
    """``Q S Q^H`` for a sample covariance S of independent variables and a rotation Q.

    Attributes
    ----------
    population_eigenvalues : ndarray
        Shape (p,), on the host.
    rotation : LinearOperator
        Q, whose columns are the eigenvectors of the population covariance.
    """

    def __init__(self, population_eigenvalues: np.ndarray, unrotated: LinearOperator, rotation: LinearOperator) -> None:
        self.population_eigenvalues, self.rotation = population_eigenvalues, rotation
        super().__init__((rotation, unrotated, adjoint_of(rotation)))


def sample_covariance(
    population_eigenvalues: Any,
    n: int,
    *,
    p: int | None = None,
    basis: RotationMethod | None = None,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """The sample covariance ``T^(1/2) X X^H T^(1/2) / n`` of n Gaussian samples with population covariance T.

    The spectrum follows `GeneralizedMarchenkoPastur` of the population's eigenvalues and the ratio ``p / n`` (Marchenko and Pastur, 1967;
    Silverstein, 1995), whatever the eigenvectors of T are.

    Parameters
    ----------
    population_eigenvalues : array or law
        Eigenvalues of T, none negative, shape (p,); or a law on them, whose quantiles at ``(i + 1/2) / p`` are taken.
    n : int
        Samples.
    p : int, optional
        Variables; needed for a law.
    basis : {None, "fast", "exact"}
        Eigenvectors of T: the unit vectors, a random basis by fast transforms, or a uniform one that is held; see `haar_rotation`.
    seed : int
        The matrix is a function of seed, the eigenvalues, n, basis and dtype, the same on every backend up to the rounding of products.
        Without a basis it is ``wishart(p, n, population=population_eigenvalues)``.
    dtype : dtype
        A complex type gives complex data.
    memory_budget : int, float, str or None
        As in `wishart`.
    backend : str, Backend or None
        Where the vectors live; NumPy by default.

    Returns
    -------
    LinearOperator
        Shape (p, p), Hermitian and positive semidefinite. With a basis it has the attributes `population_eigenvalues` and `rotation`.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.sample_covariance import sample_covariance
    >>> a = sample_covariance(np.repeat([1.0, 5.0], 100), 2000, seed=0)
    >>> eigenvalues = np.linalg.eigvalsh(a.to_dense())
    >>> int(np.sum(eigenvalues < 2)), bool(abs(eigenvalues[0] - 0.557) < 0.05), bool(abs(eigenvalues[-1] - 7.546) < 0.4)
    (100, True, True)
    """
    values = numbers_or_law("population_eigenvalues", population_eigenvalues, "p", p, least=0.0)
    unrotated = wishart(len(values), n, population=values, seed=seed, dtype=dtype, memory_budget=memory_budget, backend=backend)
    if basis is None:
        return unrotated
    if not isinstance(basis, str) or basis not in ("fast", "exact"):
        raise ValueError(
            f"The argument basis is {basis!r}, but must be None (unit vectors), 'fast' (signs and Fourier transforms) or 'exact' (uniform)."
        )
    rotation = haar_rotation(len(values), method=basis, seed=seed, dtype=dtype, memory_budget=memory_budget, backend=backend)
    return SampleCovarianceOperator(values, unrotated, rotation)
