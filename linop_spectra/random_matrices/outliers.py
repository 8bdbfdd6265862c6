"""Outliers of spiked random matrices: where they are, what their eigenvectors keep of the spike, and how much they fluctuate.

A perturbation of finite rank moves an eigenvalue out of the bulk only when it is stronger than a threshold (Baik, Ben Arous and
Peche, 2005). Overlaps are squared inner products of the unit eigenvector of the outlier with the unit vector of the spike, in the limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy import optimize

from .laws.law import SpectralLaw, check_positive, check_whole
from .outside_transform import OutsideTransform, outside_root, outside_transform

Beta = Literal[1, 2]
_TRACY_WIDOM_VARIANCE = {1: 1.607781034581, 2: 0.813194792833}
"""F. Bornemann, *On the numerical evaluation of distributions in random matrix theory*, Markov Process. Relat. Fields 16 (2010)."""


@dataclasses.dataclass(frozen=True)
class Outlier:
    """The eigenvalue that a spike gives.

    Attributes
    ----------
    location : float
        Limit of the eigenvalue; below the threshold the edge that it sticks to.
    overlap : float
        Limit of the squared inner product of its eigenvector with the spike's; zero below the threshold.
    threshold : float
        Strength of the spike from which on there is an outlier on this side, in the units of the argument `spike`; NaN where no
        strength near this one gives an outlier.
    separated : bool
        Whether the spike is beyond the threshold.
    fluctuation : float or None
        Standard deviation of the eigenvalue at the size that was given: of a normal law for an outlier, of the Tracy-Widom law for
        an edge. None where no size was given, or where the law of the edge is not known in closed form.
    """

    location: float
    overlap: float
    threshold: float
    separated: bool
    fluctuation: float | None = None


def spiked_wigner_outlier(spike: float, *, variance: float = 1.0, n: int | None = None, beta: Beta = 1) -> Outlier:
    """The outlier of a Wigner matrix plus ``spike u u^T``.

    With ``s^2 = variance``, a spike of modulus above ``s`` gives an eigenvalue at ``spike + variance / spike``, with overlap
    ``1 - variance / spike^2`` and variance ``2 variance (1 - variance / spike^2) / (beta n)``.

    Parameters
    ----------
    spike : float
        Strength of the perturbation; a negative one gives an outlier below.
    variance : float
        Of the semicircle law: n times that of the entries.
    n : int, optional
        Order of the matrix, for the fluctuation.
    beta : {1, 2}
        Real symmetric or complex Hermitian matrices.

    Returns
    -------
    Outlier
        Location, overlap, threshold and fluctuation.

    Raises
    ------
    ValueError
        When an argument is out of range.

    References
    ----------
    D. Feral and S. Peche, *The largest eigenvalue of rank one deformation of large Wigner matrices*, Comm. Math. Phys. 272 (2007).

    Examples
    --------
    >>> from linop_spectra.random_matrices.outliers import spiked_wigner_outlier
    >>> spiked_wigner_outlier(2.0, n=1500)
    Outlier(location=2.5, overlap=0.75, threshold=1.0, separated=True, fluctuation=0.0316...)
    """
    spike, size, beta = _checked(spike, n, beta)
    variance = check_positive("variance", variance, "n times that of the entries")
    scale = math.sqrt(variance)
    if abs(spike) <= scale:
        edge = 2 * scale if spike >= 0 else -2 * scale
        fluctuation = None if size is None else scale * size ** (-2 / 3) * math.sqrt(_TRACY_WIDOM_VARIANCE[beta])
        return Outlier(edge, 0.0, math.copysign(scale, spike), False, fluctuation)
    overlap = 1 - (scale / spike) ** 2
    fluctuation = None if size is None else math.sqrt(2 * variance * overlap / (beta * size))
    return Outlier(spike + variance / spike, overlap, math.copysign(scale, spike), True, fluctuation)


def spiked_wishart_outlier(spike: float, *, ratio: float, variance: float = 1.0, n: int | None = None, beta: Beta = 1) -> Outlier:
    """The outlier of a sample covariance matrix whose population has one eigenvalue apart from the others.

    With ``variance`` one and ``c = ratio``, a spike above ``1 + sqrt(c)``, or below ``1 - sqrt(c)`` when c is below one, gives an
    eigenvalue at ``spike (1 + c / (spike - 1))`` with overlap ``(1 - c / (spike - 1)^2) / (1 + c / (spike - 1))`` and variance
    ``2 spike^2 (1 - c / (spike - 1)^2) / (beta n)``.

    Parameters
    ----------
    spike : float
        The eigenvalue of the population; all others are `variance`.
    ratio : float
        ``c = p / n``, number of variables over number of samples.
    variance : float
        The other eigenvalues of the population.
    n : int, optional
        Number of samples, for the fluctuation.
    beta : {1, 2}
        Real or complex samples.

    Returns
    -------
    Outlier
        Location, overlap, threshold (of the side that the spike is on) and fluctuation. Below the threshold the nearer edge of the
        continuous part.

    Raises
    ------
    ValueError
        When an argument is out of range.

    References
    ----------
    J. Baik and J. W. Silverstein, *Eigenvalues of large sample covariance matrices of spiked population models*, J. Multivariate Anal.
    97 (2006); D. Paul, *Asymptotics of sample eigenstructure for a large dimensional spiked covariance model*, Statist. Sinica 17 (2007).

    Examples
    --------
    >>> from linop_spectra.random_matrices.outliers import spiked_wishart_outlier
    >>> spiked_wishart_outlier(3.0, ratio=0.25).location
    3.375
    >>> spiked_wishart_outlier(1.2, ratio=0.25).location  # below the threshold of 1.5: the edge
    2.25
    """
    spike, size, beta = _checked(spike, n, beta)
    c = check_positive("ratio", ratio, "the number of variables over the number of samples")
    variance = check_positive("variance", variance, "the other eigenvalues of the population")
    if spike < 0:
        raise ValueError(f"The argument spike is {spike!r}, but a population covariance has no negative eigenvalues.")
    strength, root = spike / variance, math.sqrt(c)
    below = strength < 1
    threshold = variance * max(0.0, 1 - root if below else 1 + root)
    slope = 1 - c / (strength - 1) ** 2 if strength != 1 else -math.inf
    if slope <= 0 or (below and c >= 1):
        edge = variance * (1 - root if below else 1 + root) ** 2
        fluctuation = None if size is None else variance * _wishart_edge_deviation(c * size, size, below, beta)
        return Outlier(edge, 0.0, threshold, False, fluctuation)
    shift = 1 + c / (strength - 1)
    fluctuation = None if size is None else spike * math.sqrt(2 * slope / (beta * size))
    return Outlier(spike * shift, slope / shift, threshold, True, fluctuation)


def additive_outlier(law: SpectralLaw, spike: float, *, n: int | None = None, beta: Beta = 1) -> Outlier:
    """The outermost eigenvalue of ``X + spike u u^T``, where X follows a law and its eigenvectors are independent of u.

    With the Cauchy transform G of the law and its upper edge b, a spike above ``1 / G(b)`` gives an eigenvalue r where
    ``G(r) = 1 / spike``, with overlap ``-1 / (spike^2 G'(r))``; a negative one likewise below the lower edge. Its variance,
    ``2 (-G'(r) - G(r)^2) / (beta n G'(r)^2)``, is that of a quadratic form of a uniform unit vector over the slope.

    Parameters
    ----------
    law : SpectralLaw
        Of X; its atoms count as part of the spectrum.
    spike : float
        Strength of the perturbation; its sign says at which end.
    n : int, optional
        Order of the matrix, for the fluctuation.
    beta : {1, 2}
        Real symmetric or complex Hermitian matrices.

    Returns
    -------
    Outlier
        Location, overlap, threshold and fluctuation. In a gap between two parts of the law there may be one more eigenvalue.

    References
    ----------
    F. Benaych-Georges and R. R. Nadakuditi, *The eigenvalues and eigenvectors of finite, low rank perturbations of large random
    matrices*, Adv. Math. 227 (2011), theorems 2.1 and 2.2.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.outliers import additive_outlier
    >>> outlier = additive_outlier(ls.random_matrices.MarchenkoPastur(ratio=0.5), 2.0)
    >>> round(outlier.threshold, 4), round(outlier.location, 4), round(outlier.overlap, 4)
    (1.2071, 3.3333, 0.7778)
    """
    transform = outside_transform("law", law)
    spike, size, beta = _checked(spike, n, beta)
    upper = spike >= 0
    edge = transform.highest if upper else transform.lowest
    at_edge = transform.at_edge(upper)
    threshold = 1 / at_edge if math.isfinite(at_edge) else 0.0
    if abs(spike) <= abs(threshold):
        return Outlier(edge, 0.0, threshold, False)
    # |G(r)| is at most one over the distance to the edge, so that the eigenvalue moves by at most the spike.
    place = outside_root(lambda r: spike * transform(r) - 1, edge, edge + spike)
    slope = transform.slope(place)
    overlap = -1 / (spike**2 * slope)
    fluctuation = None if size is None else math.sqrt(max(0.0, -slope - 1 / spike**2) * 2 / (beta * size)) / abs(slope)
    return Outlier(place, overlap, threshold, True, fluctuation)


def multiplicative_outlier(law: SpectralLaw, spike: float, *, n: int | None = None, beta: Beta = 1) -> Outlier:
    """The outermost eigenvalue of ``(I + spike u u^T)^(1/2) X (I + spike u u^T)^(1/2)``, where the eigenvectors of X do not know u.

    ``X^(1/2) (I + spike u u^T) X^(1/2)`` has the same eigenvalues, but other eigenvectors. With ``T(z)``, the mean of
    ``t / (z - t)`` over the law, and its upper edge b, a spike above ``1 / T(b)`` gives an eigenvalue r where ``T(r) = 1 / spike``, with
    overlap ``-(1 + spike) / (spike^2 r T'(r))``; a spike between -1 and ``1 / T(a)`` gives one below the lower edge a, if that is positive.

    Parameters
    ----------
    law : SpectralLaw
        Of X, which is positive semidefinite.
    spike : float
        Strength of the perturbation, above -1. A population eigenvalue l of a sample covariance matrix is a spike of ``l - 1``.
    n : int, optional
        Order of the matrix, for the fluctuation.
    beta : {1, 2}
        Real symmetric or complex Hermitian matrices.

    Returns
    -------
    Outlier
        Location, overlap, threshold and fluctuation. Where X has a share of zero eigenvalues, or its lower edge is zero, no
        negative spike gives an outlier: then the lower edge and a threshold of -1.

    References
    ----------
    F. Benaych-Georges and R. R. Nadakuditi, *The eigenvalues and eigenvectors of finite, low rank perturbations of large random
    matrices*, Adv. Math. 227 (2011), theorems 2.6 and 2.7. Their overlap, ``-1 / (spike^2 r T'(r) + spike)``, is that of the matrix
    ``X (I + spike u u^T)``, which is not symmetric; the one above follows in the same way.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.outliers import multiplicative_outlier
    >>> outlier = multiplicative_outlier(ls.random_matrices.MarchenkoPastur(ratio=0.25), 2.0)
    >>> round(outlier.location, 6), round(outlier.overlap, 6)
    (3.375, 0.833333)
    """
    transform = outside_transform("law", law)
    spike, size, beta = _checked(spike, n, beta)
    if transform.lowest < -1e-12 * transform.span:
        raise ValueError(
            f"The argument law reaches down to {transform.lowest:.6g}, but a multiplicative spike needs a law of numbers that are not "
            "negative; for a perturbation that is added take additive_outlier."
        )
    if spike <= -1:
        raise ValueError(f"The argument spike is {spike!r}, but must be above -1, so that I + spike u u^T is positive definite.")
    upper = spike >= 0
    edge = transform.highest if upper else transform.lowest
    if not upper and edge <= 1e-12 * transform.span:
        return Outlier(edge, 0.0, -1.0, False)
    at_edge = edge * transform.at_edge(upper) - 1
    threshold = 1 / at_edge if math.isfinite(at_edge) else 0.0
    if abs(spike) <= abs(threshold):
        return Outlier(edge, 0.0, threshold, False)
    # T(r) is at most edge / (r - edge) above the support, and -1 at zero.
    place = outside_root(lambda r: spike * (r * transform(r) - 1) - 1, edge, edge * (1 + spike) if upper else 0.0)
    slope = transform(place) + place * transform.slope(place)
    overlap = -(1 + spike) / (spike**2 * place * slope)
    form = -place * slope - 1 / spike - 1 / spike**2
    fluctuation = None if size is None else math.sqrt(max(0.0, form) * 2 / (beta * size)) / abs(slope)
    return Outlier(place, overlap, threshold, True, fluctuation)


def generalized_spiked_outlier(
    population: SpectralLaw | tuple[Any, Any], spike: float, *, ratio: float, n: int | None = None, beta: Beta = 1
) -> Outlier:
    """The outlier of a sample covariance matrix whose population has a bulk of any law and one eigenvalue apart from it.

    With ``psi(s) = s + c s T(s)``, where ``T(s)`` is the mean of ``t / (s - t)`` over the population, a spike s gives the
    eigenvalue ``psi(s)`` exactly where ``psi'(s) > 0``, with overlap ``s psi'(s) / psi(s)`` and variance ``2 s^2 psi'(s) / (beta n)``.

    Parameters
    ----------
    population : SpectralLaw or tuple of arrays
        Law of the other eigenvalues of the population, or their places and weights.
    spike : float
        The eigenvalue apart: above, below or in a gap of the others.
    ratio : float
        ``c = p / n``, number of variables over number of samples.
    n : int, optional
        Number of samples, for the fluctuation.
    beta : {1, 2}
        Real or complex samples.

    Returns
    -------
    Outlier
        Location, overlap, threshold and fluctuation. Below the threshold the edge of the part of the spectrum that the eigenvalue
        joins; in a gap of the population that is closed in the spectrum there is neither, and both are NaN.

    Raises
    ------
    ValueError
        When the spike lies inside of the population, or an argument is out of range.

    References
    ----------
    Z. Bai and J. Yao, *On sample eigenvalues in a generalized spiked population model*, J. Multivariate Anal. 106 (2012).

    Examples
    --------
    >>> from linop_spectra.random_matrices.outliers import generalized_spiked_outlier
    >>> inside = generalized_spiked_outlier(([1.0, 5.0], [0.5, 0.5]), 2.2, ratio=0.1)  # in the gap
    >>> round(inside.location, 3), round(inside.overlap, 3)
    (2.095, 0.846)
    """
    transform = outside_transform("population", population)
    spike, size, beta = _checked(spike, n, beta)
    c = check_positive("ratio", ratio, "the number of variables over the number of samples")
    if transform.lowest < 0 or spike < 0:
        raise ValueError(
            f"A population covariance has no negative eigenvalues, but the argument spike is {spike!r} and the argument population "
            f"reaches down to {transform.lowest:.6g}."
        )

    def place(s: float) -> float:
        return s + c * s * (s * transform(s) - 1)

    def slope(s: float) -> float:
        return 1 + c * (2 * s * transform(s) + s**2 * transform.slope(s) - 1)

    found = _through(transform, spike, place, slope, reach=math.sqrt(c) * transform.highest)
    if not found.separated:
        # With more variables than samples the lower edge belongs to a negative spike, which no population has.
        return dataclasses.replace(found, threshold=max(found.threshold, 0.0))
    fluctuation = None if size is None else spike * math.sqrt(2 * found.overlap / (beta * size))
    overlap = 1 - c if spike == 0 else spike * found.overlap / found.location
    return dataclasses.replace(found, overlap=overlap, fluctuation=fluctuation)


def deformed_wigner_outlier(
    law: SpectralLaw | tuple[Any, Any], spike: float, *, variance: float = 1.0, n: int | None = None, beta: Beta = 1
) -> Outlier:
    """The outlier of a Wigner matrix plus a diagonal one, whose entries follow a law but for one.

    With the Cauchy transform G of the diagonal's law and ``H(s) = s + variance G(s)``, an entry s gives the eigenvalue ``H(s)``
    exactly where ``H'(s) > 0``, with overlap ``H'(s)`` and variance ``2 variance H'(s) / (beta n)``.

    Parameters
    ----------
    law : SpectralLaw or tuple of arrays
        Law of the other entries of the diagonal, or their places and weights. By rotational invariance a diagonal matrix is no
        restriction.
    spike : float
        The entry apart: above, below or in a gap of the others.
    variance : float
        Of the Wigner matrix's semicircle law.
    n : int, optional
        Order of the matrix, for the fluctuation.
    beta : {1, 2}
        Real symmetric or complex Hermitian matrices.

    Returns
    -------
    Outlier
        Location, overlap, threshold and fluctuation. Below the threshold the edge of the part of the spectrum that the eigenvalue
        joins; in a gap of the law that is closed in the spectrum there is neither, and both are NaN.

    Raises
    ------
    ValueError
        When the spike lies inside of the law, or an argument is out of range.

    References
    ----------
    L. A. Pastur, *On the spectrum of random matrices*, Theoret. Math. Phys. 10 (1972); M. Capitaine, C. Donati-Martin, D. Feral and
    M. Fevrier, *Free convolution with a semicircular distribution and eigenvalues of spiked deformations of Wigner matrices*, Electron.
    J. Probab. 16 (2011).

    Examples
    --------
    >>> from linop_spectra.random_matrices.outliers import deformed_wigner_outlier
    >>> outlier = deformed_wigner_outlier(([0.0, 1.0], [0.9, 0.1]), 1.6, variance=0.04)
    >>> round(outlier.location, 5), round(outlier.overlap, 5)
    (1.62917, 0.97483)
    """
    transform = outside_transform("law", law)
    spike, size, beta = _checked(spike, n, beta)
    variance = check_positive("variance", variance, "n times that of the entries")
    found = _through(
        transform,
        spike,
        lambda s: s + variance * transform(s),
        lambda s: 1 + variance * transform.slope(s),
        reach=math.sqrt(variance),
    )
    if size is None or not found.separated:
        return found
    return dataclasses.replace(found, fluctuation=math.sqrt(2 * variance * found.overlap / (beta * size)))


def _through(
    transform: OutsideTransform, spike: float, place: Callable[[float], float], slope: Callable[[float], float], *, reach: float
) -> Outlier:
    """The image of a spike under a map that is concave in slope between the parts, with the slope as its overlap.

    No threshold is farther than `reach` from the parts.
    """
    for a, b in transform.parts:
        if a <= spike <= b:
            raise ValueError(f"The argument spike is {spike!r}, which lies among the other eigenvalues, at {a:.6g} to {b:.6g}.")
    left = max((b for _, b in transform.parts if b < spike), default=-math.inf)
    right = min((a for a, _ in transform.parts if a > spike), default=math.inf)
    found = slope(spike)
    if right == math.inf:
        threshold = outside_root(slope, left, left + reach)
    elif left == -math.inf:
        threshold = outside_root(slope, right, right - reach)
    else:
        # Between two parts the slope is concave: at most one interval of spikes is separated.
        peak = optimize.minimize_scalar(lambda s: -slope(s), bounds=(left, right), method="bounded", options={"xatol": 1e-10}).x
        if slope(peak) <= 0:
            return Outlier(math.nan, 0.0, math.nan, False)
        threshold = outside_root(slope, left if spike < peak else right, peak)
    if found > 0:
        return Outlier(place(spike), found, threshold, True)
    return Outlier(place(threshold), 0.0, threshold, False)


def _wishart_edge_deviation(p: float, n: float, below: bool, beta: int) -> float:
    """Standard deviation of the extreme eigenvalue of pure noise, by the scaling of Johnstone (2001)."""
    root_n, root_p = math.sqrt(n), math.sqrt(p)
    if below:
        size = abs(root_n - root_p) * abs(1 / root_p - 1 / root_n) ** (1 / 3)
    else:
        size = (root_n + root_p) * (1 / root_n + 1 / root_p) ** (1 / 3)
    return size / n * math.sqrt(_TRACY_WIDOM_VARIANCE[beta])


def _checked(spike: Any, n: Any, beta: Any) -> tuple[float, int | None, Beta]:
    """The arguments that all outliers have."""
    number = isinstance(spike, (int, float, np.integer, np.floating)) and not isinstance(spike, (bool, np.bool_))
    if not number or not math.isfinite(spike):
        raise ValueError(f"The argument spike must be a finite number, but is {spike!r}.")
    size = None if n is None else check_whole("n", n, 1)
    if beta not in (1, 2):
        raise ValueError(f"The argument beta is {beta!r}, but must be 1 (real) or 2 (complex).")
    return float(spike), size, 1 if beta == 1 else 2
