"""The power law, of eigenvalues that fall off as a power of their rank."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .law import Law, check_levels, check_positive, check_whole, like


@dataclasses.dataclass(frozen=True)
class PowerLaw(Law):
    """Density proportional to ``x^-exponent`` between `lower` and `upper`.

    Eigenvalues that fall off with their rank like ``lambda_i = C i^-s`` have this density with ``exponent = 1 + 1 / s``: of n
    of them a share ``(C / x)^(1/s) / n`` lies above x, down to ``lower = C n^-s``. `rank_exponent` is that s.

    Parameters
    ----------
    exponent : float
        Above one.
    lower : float
        Positive.
    upper : float, optional
        Above `lower`; infinite by default.

    References
    ----------
    A. Clauset, C. R. Shalizi and M. E. J. Newman, *Power-law distributions in empirical data*, SIAM Review 51 (2009).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> law = ls.random_matrices.PowerLaw(exponent=3.0, lower=1.0)
    >>> law.moment(1), law.cdf(2.0), law.moment(2), law.rank_exponent
    (2.0, 0.75, inf, 0.5)
    """

    exponent: float
    lower: float
    upper: float | None = None

    def __post_init__(self) -> None:
        exponent = check_positive("exponent", self.exponent, "of the density")
        if exponent <= 1:
            raise ValueError(f"The argument exponent must be above 1, or the density has no finite mass, but is {exponent}.")
        object.__setattr__(self, "exponent", exponent)
        object.__setattr__(self, "lower", check_positive("lower", self.lower, "where the law begins"))
        if self.upper is None or self.upper == math.inf:
            object.__setattr__(self, "upper", None)
        else:
            upper = check_positive("upper", self.upper, "where the law ends")
            if upper <= self.lower:
                raise ValueError(f"The argument upper must be above lower, but upper is {upper} and lower {self.lower}.")
            object.__setattr__(self, "upper", upper)

    @property
    def _end(self) -> float:
        return math.inf if self.upper is None else self.upper

    @property
    def _kept(self) -> float:
        """Mass of the law without upper end that lies below the upper end."""
        return -math.expm1((1 - self.exponent) * math.log(self._end / self.lower)) if self.upper is not None else 1.0

    @property
    def rank_exponent(self) -> float:
        """The s of the eigenvalues ``i^-s`` with this density, ``1 / (exponent - 1)``."""
        return 1 / (self.exponent - 1)

    @property
    def support(self) -> list[tuple[float, float]]:
        """The one interval, ``[lower, upper]``."""
        return [(self.lower, self._end)]

    def pdf(self, x: Any) -> Any:
        """Density at `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        inside = (x >= self.lower) & (x <= self._end)
        ratio = np.where(inside, x, self.lower) / self.lower
        density = (self.exponent - 1) / self.lower * ratio**-self.exponent / self._kept
        return like(np.where(inside, density, np.where(np.isnan(x), np.nan, 0.0)))

    def cdf(self, x: Any) -> Any:
        """Mass at or below `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        share = -np.expm1((1 - self.exponent) * np.log(np.clip(x, self.lower, self._end) / self.lower)) / self._kept
        return like(np.minimum(share, 1.0))

    def quantile(self, q: Any) -> Any:
        """Place where `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        with np.errstate(divide="ignore"):
            place = self.lower * np.exp(np.log1p(-q * self._kept) / (1 - self.exponent))
        return like(np.where(q == 1, self._end, np.minimum(place, self._end)))

    def moment(self, k: int) -> float:
        """Mean of the k-th powers; infinite for ``k >= exponent - 1`` without an upper end.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        power = k + 1 - self.exponent
        if self.upper is None:
            return self.lower**k * (self.exponent - 1) / -power if power < 0 else math.inf
        length = math.log(self.upper / self.lower)
        integral = length if power == 0 else math.expm1(power * length) / power
        return self.lower**k * (self.exponent - 1) * integral / self._kept

    def var(self) -> float:
        """The variance; infinite for exponents up to 3 without an upper end."""
        second = self.moment(2)
        return second if math.isinf(second) else second - self.moment(1) ** 2
