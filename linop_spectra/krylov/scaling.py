"""The unit in which products are held, so that no square of them leaves the range of the numbers."""

from __future__ import annotations

import math

import numpy as np

from ..operators import LinearOperator

_EXTREME, _EXTREME_SINGLE = 64, 32
"""Binary exponents of the norms of products, in modulus, up to which nothing has to be scaled."""


def unit_of(operator: LinearOperator, norms: np.ndarray) -> float | None:
    """A power of two that products of these norms are to be multiplied by, so that no square leaves the range of the numbers.

    One unless they are extreme; None where all are zero, so that nothing is known yet.
    """
    largest = float(np.max(norms, initial=0.0))
    if not 0 < largest < math.inf:
        return None
    exponent, single = math.frexp(largest)[1], np.finfo(operator.dtype).eps > 1e-10
    if abs(exponent) <= (_EXTREME_SINGLE if single else _EXTREME):
        return 1.0
    most = 120 if single else 1000  # the inverse has to be a number, too
    return math.ldexp(1.0, -min(max(exponent, -most), most))
