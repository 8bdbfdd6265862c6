"""The Goldilocks ratio: excess of positive curvature, in all of the space and in random planes."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ...backends import Array
from ...estimators import spectral_sums
from ...operators import LinearOperator
from ...spectra.density import SpectralMeasure
from .metric import Metric
from .resampling import resampled
from .shared_run import SharedRun, spectrum_of
from .source import Source, operator_of, require_data
from .sums import of_density


def goldilocks_ratio(
    source: Source, *, plane_dimension: int | None = None, num_planes: int = 4, seed: int = 0, sampling: bool = False, **options: Any
) -> Metric:
    r"""The ratio :math:`\mathrm{tr}\, H / |H|_F` of Fort and Scherlis (2019), also of H restricted to random planes; no unit.

    One density, or `plane_dimension` times `num_planes` products. Null values: :math:`\sqrt{P / (1 + c)}` for a Marchenko-Pastur law of
    ratio c, normal with variance 2/P for a Gaussian orthogonal matrix. Pitfall: it also is the ratio of signal to noise of one probe of the
    trace, up to a root of two, so that a small one needs many.

    Parameters
    ----------
    source : Objective, operator or SpectralDensity
        The Hessian of an objective is meant.
    plane_dimension : int, optional
        d: the mean over random d-dimensional planes (uniform, with orthonormal bases) of the ratio of the d x d restriction.
    num_planes : int
        How many of them; one leaves no standard error.
    seed : int
        Of the planes, and of the density.
    sampling : bool
        Whether the interval also holds the sampling of the data; in planes by leaving out groups of batches, at most ten, which takes
        nine times the products.
    **options
        Of `linop_spectra.spectral_density`, without a plane.

    Returns
    -------
    Metric
        The ratio. In planes with its standard error over them.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> round(metrics.goldilocks_ratio(np.eye(16)).value, 8)
    4.0
    >>> round(metrics.goldilocks_ratio(np.eye(16), plane_dimension=4).value, 8)
    2.0
    """
    if plane_dimension is None:
        given = options if isinstance(source, SpectralMeasure | SharedRun) else {"seed": seed, **options}
        S, data = spectrum_of(source, given, sampling)
        return of_density(S, data, spectral_sums.goldilocks_ratio(S), name="goldilocks_ratio", note="trace / |H|_F")
    if options:
        raise TypeError(f"In random planes there is no use for the options {', '.join(sorted(options))}.")
    if sampling:
        return _resampled(source, goldilocks_ratio, "Goldilocks ratio", plane_dimension, num_planes, seed)
    restricted, seconds = plane_matrices(source, plane_dimension, num_planes, seed)
    if not restricted.any():
        raise ValueError("The operator is zero in these planes, which has no Goldilocks ratio.")
    ratios = np.array([np.trace(matrix) / np.linalg.norm(matrix) for matrix in restricted])
    return _over_planes(
        ratios, plane_dimension, seconds, "goldilocks_ratio", f"trace / |H|_F in random planes of dimension {plane_dimension}"
    )


def positive_share(
    source: Source, *, plane_dimension: int, num_planes: int = 4, seed: int = 0, sampling: bool = False
) -> Metric:
    """Share of positive eigenvalues of H restricted to random planes (Fort and Scherlis, 2019); no unit.

    `plane_dimension` times `num_planes` products; with ``sampling=True`` nine times as many on top, without groups of batches in turn. In
    all of the space it is one minus `negative_mass` but for zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.curvature import metrics
    >>> metrics.positive_share(np.eye(16), plane_dimension=4).value
    1.0
    """
    if sampling:
        return _resampled(source, positive_share, "share of positive eigenvalues", plane_dimension, num_planes, seed)
    restricted, seconds = plane_matrices(source, plane_dimension, num_planes, seed)
    shares = np.array([np.mean(np.linalg.eigvalsh(matrix) > 0) for matrix in restricted])
    found = _over_planes(shares, plane_dimension, seconds, "positive_share", f"in random planes of dimension {plane_dimension}")
    return found.with_changes(least=0.0, most=1.0)


def _resampled(source: Source, measure: Any, what: str, dimension: int, num_planes: int, seed: int) -> Metric:
    objective, matrix = (source.objective, source.matrix) if isinstance(source, SharedRun) else (require_data(source), "hessian")
    given = {"plane_dimension": dimension, "num_planes": num_planes, "seed": seed}
    smooth = measure is not positive_share
    return resampled(objective, lambda own: measure(getattr(own, matrix)(), **given), what, smooth=smooth)


def plane_matrices(source: Source, dimension: int, num_planes: int, seed: int) -> tuple[np.ndarray, float]:
    """The matrix restricted to random planes, shape (num_planes, d, d), and the seconds that it took."""
    began, operator = time.perf_counter(), source.operator if isinstance(source, SharedRun) else operator_of(source)
    for name, value, most in (("plane_dimension", dimension, operator.shape[0]), ("num_planes", num_planes, None)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1 or (most is not None and value > most):
            upper = "" if most is None else f" and at most {most}"
            raise ValueError(f"The argument {name} must be a whole number of at least 1{upper}, but is {value!r}.")
    found = [_restricted(operator, index * dimension, dimension, seed) for index in range(num_planes)]
    return np.array(found), time.perf_counter() - began


def _restricted(operator: LinearOperator, first: int, dimension: int, seed: int) -> np.ndarray:
    backend, n = operator.backend, operator.shape[0]
    rows = backend.probes(n, range(first, first + dimension), kind="normal", seed=seed, domain="random plane", dtype=operator.dtype)
    products = operator.matmat(rows.T)
    gram, form = _products(backend, rows, rows.T), _products(backend, rows, products)
    # Orthonormal coordinates by the Gram matrix: as many columns as the plane has dimensions, far fewer than rows.
    inverse = np.linalg.inv(np.linalg.cholesky(gram))
    matrix = inverse @ form @ inverse.T
    return np.asarray((matrix + matrix.T) / 2)


def _products(backend: Any, rows: Array, columns: Array) -> np.ndarray:
    d = rows.shape[0]
    flat = backend.fetch([backend.dot(rows[i, :], columns[:, j]) for i in range(d) for j in range(d)])
    return np.real(np.asarray(flat)).reshape(d, d)


def _over_planes(values: np.ndarray, dimension: int, seconds: float, name: str, note: str) -> Metric:
    count = len(values)
    error = float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return Metric(
        float(values.mean()), standard_error=error, degrees_of_freedom=float(max(count - 1, 1)), num_matvecs=count * dimension,
        seconds=seconds, method="random planes", name=name, note=note,
    )  # fmt: skip
