"""What of an activation function matters for the spectrum of a wide random layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

_REACH = 14.0  # beyond it the normal density is below 1e-43


@dataclasses.dataclass(frozen=True)
class ActivationMoments:
    """Moments of an activation f under a standard normal z.

    Attributes
    ----------
    mean : float
        Mean of ``f(z)``.
    eta : float
        Variance of ``f(z)``: the mean of the square of the centred activation ``f - mean``.
    zeta : float
        Square of the mean of ``z f(z)``, which is that of the mean of the derivative; the share of eta that is linear. The mean of f
        does not enter.
    """

    mean: float
    eta: float
    zeta: float


def activation_moments(activation: Callable[[np.ndarray], Any]) -> ActivationMoments:
    """Mean, variance and squared linear coefficient of an activation under a standard normal.

    Computed for the centred activation ``f - mean``, which is the one that `PenningtonWorah` is about, by adaptive quadrature: kinks
    and jumps are found.

    Parameters
    ----------
    activation : callable
        Takes a NumPy array and returns real numbers of its shape, entry by entry, such as ``numpy.tanh``. It may grow like a
        polynomial.

    Returns
    -------
    ActivationMoments
        With an absolute error of about 1e-10 for functions of order one.

    Raises
    ------
    ValueError
        When the function does not return finite real numbers of the shape of its argument, is constant, or cannot be integrated.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.laws.activation import activation_moments
    >>> relu = activation_moments(lambda z: np.maximum(z, 0.0))
    >>> round(relu.mean, 5), round(relu.eta, 5), round(relu.zeta, 5)
    (0.39894, 0.34085, 0.25)
    """
    from scipy import integrate

    if not callable(activation):
        raise ValueError(f"The argument activation must be a function of an array, but is {activation!r}.")

    def values(z: np.ndarray) -> np.ndarray:
        try:
            found = np.asarray(activation(z))
        except Exception as error:
            raise ValueError(f"The argument activation must be a function of a NumPy array, but the call failed: {error}") from error
        if found.shape != z.shape or found.dtype.kind not in "iuf":
            raise ValueError(
                "The argument activation must return real numbers of the shape of its argument, "
                f"but returned shape {found.shape} and type {found.dtype} for shape {z.shape}."
            )
        if not np.all(np.isfinite(found)):
            raise ValueError(f"The argument activation must be finite, but is not at {z[~np.isfinite(found)][0]:.6g}.")
        return found.astype(np.float64)

    probes = np.linspace(-_REACH, _REACH, 1001)
    values(probes)

    def integrand(z: float) -> np.ndarray:
        f = values(np.array([z]))[0]
        return np.array([f, z * f, f * f]) * (np.exp(-z * z / 2) / np.sqrt(2 * np.pi))

    found, error, _ = integrate.quad_vec(
        integrand, -_REACH, _REACH, epsabs=1e-12, epsrel=1e-12, limit=2000, points=(-1.0, 0.0, 1.0), full_output=True
    )
    mean, slope, square = (float(part) for part in found)
    if not error <= 1e-7 * max(1.0, square):
        raise ValueError("The argument activation could not be integrated under a standard normal: it varies too fast or grows too fast.")
    eta = square - mean * mean
    if not eta > 1e-10 * square:
        raise ValueError("The argument activation is constant under a standard normal, so that a centred layer is zero.")
    return ActivationMoments(mean, eta, min(slope * slope, eta))
