r"""Softmax of independent Gaussian logits: Derrida's random energy model, and its freezing.

With logits :math:`z_k \sim N(0, \sigma_z^2)` the probabilities are those of C states of a random energy model at inverse temperature
:math:`\sigma_z`. For many classes the softmax is spread over many of them below :math:`\sigma_z = \sqrt{2 \ln C}` and frozen on few above.
The curvature of cross-entropy in output space has the trace :math:`1 - \sum_k p_k^2`, so that it dies out as the logits freeze.
"""

from __future__ import annotations

import math

import numpy as np

from ..laws.law import check_whole

_STEP = 0.25
"""Of the trapezoidal rule. The functions are analytic for imaginary parts below pi / 2, so that its error is about exp(-pi^2 / step)."""


def freezing_scale(num_classes: int) -> float:
    """The standard deviation of logits at which their softmax freezes on few classes, ``sqrt(2 ln C)``.

    Parameters
    ----------
    num_classes : int
        C, at least 2.

    Returns
    -------
    float
        In the limit of many classes a sharp transition.

    References
    ----------
    B. Derrida, *Random-energy model: an exactly solvable model of disordered systems*, Phys. Rev. B 24 (1981).

    Examples
    --------
    >>> round(freezing_scale(10), 3)
    2.146
    """
    return math.sqrt(2 * math.log(check_whole("num_classes", num_classes, 2)))


def frozen_participation(num_classes: int, logit_scale: float) -> float:
    """Limit for many classes of the mean of ``sum p^2``: zero below the freezing scale, then ``1 - freezing_scale / logit_scale``.

    Examples
    --------
    >>> frozen_participation(10, 2.0), round(frozen_participation(10, 4 * freezing_scale(10)), 6)
    (0.0, 0.75)
    """
    scale, critical = _check_scale(logit_scale), freezing_scale(num_classes)
    return 0.0 if scale <= critical else 1 - critical / scale


def expected_uncertainty(num_classes: int, logit_scale: float, *, label_boost: float = 0.0) -> float:
    r"""Mean of ``1 - sum p^2`` over Gaussian logits, the trace of the curvature of cross-entropy in output space.

    From :math:`1 / S^2 = \int_0^\infty t e^{-t S} dt` with S the sum of the exponentials of the logits, the mean is one integral over
    t of products of one-dimensional Gaussian means, all of which the trapezoidal rule takes to rounding.

    Parameters
    ----------
    num_classes : int
        C, at least 2.
    logit_scale : float
        Standard deviation of the logits, not negative.
    label_boost : float
        Added to the logit of one class, the right one.

    Returns
    -------
    float
        Between 0 and ``1 - 1 / C``, with an absolute error of about 1e-13.

    Examples
    --------
    >>> round(expected_uncertainty(10, 0.0), 12), round(expected_uncertainty(10, 15.0), 3)
    (0.9, 0.102)
    """
    classes, scale = check_whole("num_classes", num_classes, 2), _check_scale(logit_scale)
    if not math.isfinite(label_boost):
        raise ValueError(f"The argument label_boost must be a finite number, but is {label_boost!r}.")
    # The rule in units of the standard deviation; a step of half of it is exact for the normal density to 1e-17.
    step = min(_STEP, 0.5 * scale) if scale > 0 else _STEP
    reach = 9 * scale
    z = np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1) * step if scale > 0 else np.zeros(1)
    density = np.exp(-0.5 * (z / scale) ** 2) if scale > 0 else np.ones(1)
    density /= density.sum()
    # t = exp(-x): the integrand falls off as exp(2 u) for negative u = z - x, and as exp(-exp(u)) for positive ones.
    low, high = -reach - 5 + min(label_boost, 0.0), reach + math.log(classes) + 20 + max(label_boost, 0.0)
    x = np.arange(math.floor(low / _STEP), math.ceil(high / _STEP) + 1) * _STEP

    def means(shift: float) -> tuple[np.ndarray, np.ndarray]:
        """Gaussian means of exp(-t e^z) and of (t e^z)^2 exp(-t e^z), for logits around `shift`."""
        none, square = np.empty(x.size), np.empty(x.size)
        rows = max(1, 2_000_000 // z.size)
        for first in range(0, x.size, rows):
            grown = np.exp(np.minimum(z - x[first : first + rows, None] + shift, 40.0))
            survival = np.exp(-grown)
            none[first : first + rows] = survival @ density
            square[first : first + rows] = (grown**2 * survival) @ density
        return none, square

    none, square = means(0.0)
    if label_boost == 0:
        total = classes * square * none ** (classes - 1)
    else:
        none_right, square_right = means(label_boost)
        total = square_right * none ** (classes - 1) + (classes - 1) * square * none ** (classes - 2) * none_right
    return float(min(max(1 - _STEP * total.sum(), 0.0), 1 - 1 / classes))


def _check_scale(logit_scale: float) -> float:
    if isinstance(logit_scale, bool) or not (isinstance(logit_scale, (int, float, np.number)) and 0 <= logit_scale < math.inf):
        raise ValueError(f"The argument logit_scale must be a finite number that is not negative, but is {logit_scale!r}.")
    return float(logit_scale)
