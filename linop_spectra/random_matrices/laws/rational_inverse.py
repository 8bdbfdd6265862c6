"""Laws whose transform has a rational inverse ``z = N(w) / D(w)``: the branch that belongs to the law, edges, and moments."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.polynomial import polynomial

_LEAST_GAP = 1e-13  # narrower gaps, relative to the largest edge, are rounding


@dataclasses.dataclass(frozen=True)
class Gap:
    """Real interval ``(low, high)`` outside the support, and the real w that belong to it: z falls from high at left to low at right."""

    low: float
    high: float
    left: float
    right: float


@dataclasses.dataclass(frozen=True)
class RationalInverse:
    """The map from z to the root w of ``N(w) = z D(w)`` that belongs to a law.

    The root is that with ``w = scale / z`` at large z, continued through the upper half-plane. There it stays in the lower
    half-plane: a real w has a real z. Where other roots lie there too, `argument` tells them apart.

    Parameters
    ----------
    numerator, denominator : sequence of float
        Coefficients of N and D, ascending; N has the higher degree.
    argument : callable, optional
        Continuous argument of ``N(w) / D(w)`` in the closed lower half-plane that starts as that of z near ``w = 0``: between 0 and
        pi on the branch, and off by a multiple of 2 pi on others; made of `lower_argument`. Without it only one root may lie in
        the lower half-plane.
    """

    numerator: Sequence[float] | np.ndarray
    denominator: Sequence[float] | np.ndarray
    argument: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, w: np.ndarray) -> np.ndarray:
        """The z that belongs to w."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(polynomial.polyval(w, self.numerator) / polynomial.polyval(w, self.denominator))

    def gaps(self, breaks: Sequence[float], stills: np.ndarray | None = None) -> list[Gap]:
        """Complement of the support, ascending, from the places on the real line of w where z stands still.

        Parameters
        ----------
        breaks : sequence of float
            Real w where z is zero or infinite.
        stills : numpy.ndarray, optional
            Coefficients of a polynomial whose roots are the w where z stands still and is neither zero nor infinite. By default the
            numerator of the derivative, which has multiple zeros and poles of z as roots too: inaccurate ones.
        """
        slope: np.ndarray = polynomial.polysub(
            polynomial.polymul(polynomial.polyder(self.numerator), self.denominator),
            polynomial.polymul(self.numerator, polynomial.polyder(self.denominator)),
        )
        roots = polynomial.polyroots(slope if stills is None else stills)
        still = roots[np.abs(roots.imag) <= 1e-9 * np.abs(roots)].real
        places = np.unique(np.concatenate([[0.0], breaks, still]))
        places = np.concatenate([[-math.inf], places, [math.inf]])
        found = []
        for left, right in itertools.pairwise(places):
            middle = _between(left, right)
            z, rate = float(self(np.array(middle))), polynomial.polyval(middle, slope)
            if not (np.isfinite(z) and rate < 0 and self._belongs(middle, z)):
                continue
            found.append(Gap(self._limit(right, below=True), self._limit(left, below=False), left, right))
        return _joined(sorted(_one_sheet(found), key=lambda gap: gap.low))

    def _belongs(self, w: float, z: float) -> bool:
        if self.argument is None:
            return True
        return bool(abs(self.argument(np.array(complex(w))) - (0.0 if z > 0 else np.pi)) < 1)

    def _limit(self, w: float, *, below: bool) -> float:
        """The z at the end w of an interval where it falls: minus infinity at a pole on the right, plus infinity at one on the left."""
        z = math.inf if math.isinf(w) else float(self(np.array(w)))
        # A simple pole that rounding has moved a little off shows as a huge value.
        return (-math.inf if below else math.inf) if not abs(z) < 1e300 else z

    def solve(self, z: np.ndarray, gaps: Sequence[Gap]) -> np.ndarray:
        """The w that belongs to z in the closed upper half-plane; on the support the limit from above.

        Parameters
        ----------
        z : numpy.ndarray
            Complex, with imaginary parts that are not negative.
        gaps : sequence of Gap
            What lies outside the support, as `gaps` finds it.

        Returns
        -------
        numpy.ndarray
            Complex, the shape of `z`.
        """
        flat = z.ravel()
        finite = np.isfinite(flat)
        at = np.where(finite, flat, 1.0)
        roots = self._roots(at)
        w = self._lower(at, roots)
        for gap in gaps:
            distance = np.minimum(at.real - gap.low, gap.high - at.real)
            near = (distance >= 0) & (at.imag <= 1e-6 * distance)
            if near.any():
                w[near] = self._real(gap, roots[near])
        w = self._polished(w, at)
        return np.where(finite, w, np.where(np.isinf(flat), 0.0, np.nan)).reshape(z.shape)

    def _roots(self, z: np.ndarray) -> np.ndarray:
        """All roots for each z, shape (z.size, degree), as eigenvalues of companion matrices."""
        degree = len(self.numerator) - 1
        coefficients = np.tile(np.asarray(self.numerator, dtype=np.complex128), (z.size, 1))
        coefficients[:, : len(self.denominator)] -= z[:, None] * np.asarray(self.denominator)
        companion = np.zeros((z.size, degree, degree), dtype=np.complex128)
        companion[:, np.arange(1, degree), np.arange(degree - 1)] = 1
        companion[:, :, -1] = -coefficients[:, :-1] / coefficients[:, -1:]
        return np.linalg.eigvals(companion)

    def _lower(self, z: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """The root in the lower half-plane whose argument is that of z."""
        # Of roots that agree the lowest: rounding moves real ones a little below the line.
        penalty = roots.imag / (np.abs(roots) + 1e-300)
        if self.argument is not None:
            penalty = penalty + np.where(np.abs(self.argument(roots) - np.angle(z)[:, None]) < np.pi, 0.0, 2.0)
        return np.take_along_axis(roots, penalty.argmin(axis=1)[:, None], axis=1)[:, 0]

    @staticmethod
    def _real(gap: Gap, roots: np.ndarray) -> np.ndarray:
        """The real root within a gap."""
        inside = np.clip(roots.real, gap.left, gap.right)
        nearest = (np.abs(roots - inside) / (np.abs(roots) + 1e-300)).argmin(axis=1)[:, None]
        return np.take_along_axis(inside, nearest, axis=1)[:, 0].astype(np.complex128)

    def _polished(self, w: np.ndarray, z: np.ndarray) -> np.ndarray:
        """A few steps of Newton's method, each kept where it makes the residual smaller."""
        slope_numerator, slope_denominator = polynomial.polyder(self.numerator), polynomial.polyder(self.denominator)
        residual = polynomial.polyval(w, self.numerator) - z * polynomial.polyval(w, self.denominator)
        for _ in range(3):
            slope = polynomial.polyval(w, slope_numerator) - z * polynomial.polyval(w, slope_denominator)
            with np.errstate(divide="ignore", invalid="ignore"):
                new = w - residual / slope
            value = polynomial.polyval(new, self.numerator) - z * polynomial.polyval(new, self.denominator)
            better = np.isfinite(new) & (np.abs(value) < np.abs(residual)) & (np.abs(new - w) < 1e-3 * np.abs(w))
            w, residual = np.where(better, new, w), np.where(better, value, residual)
        return w


def lower_argument(x: np.ndarray) -> np.ndarray:
    """Argument of numbers in the closed lower half-plane, from minus pi to 0; the sign of a zero imaginary part does not matter."""
    return np.asarray(-np.abs(np.angle(x)))


def lagrange_coefficient(order: int, growth: np.ndarray, outer: np.ndarray) -> float:
    """Coefficient of ``t^order`` in ``H(u(t))``, where ``u = t growth(u)``, by Lagrange's inversion.

    Parameters
    ----------
    order : int
        At least 1.
    growth, outer : numpy.ndarray
        Coefficients of the two power series in u, ascending; `order` and ``order + 1`` of them are enough.

    Returns
    -------
    float
        ``[u^(order - 1)] H'(u) growth(u)^order / order``.
    """
    power = np.ones(1)
    for _ in range(order):
        power = np.convolve(power, growth)[:order]
    derivative = polynomial.polyder(outer[: order + 1])
    product = np.convolve(power, derivative)
    return float(product[order - 1] / order) if product.size >= order else 0.0


def support_between(gaps: Sequence[Gap]) -> list[tuple[float, float]]:
    """Intervals between the gaps, ascending."""
    return [(first.high, second.low) for first, second in itertools.pairwise(gaps)]


def _between(left: float, right: float) -> float:
    if math.isinf(left):
        return right - 1 - abs(right)
    return left + 1 + abs(left) if math.isinf(right) else (left + right) / 2


def _one_sheet(gaps: list[Gap]) -> list[Gap]:
    """Gaps without those that a misplaced break makes outside the ends of the law: there w is the one near zero."""
    low = max(gap.high for gap in gaps if gap.low == -math.inf and gap.right == 0)
    high = min(gap.low for gap in gaps if gap.high == math.inf and gap.left == 0)
    return [gap for gap in gaps if gap.left == 0 or gap.right == 0 or (gap.low >= low and gap.high <= high)]


def _joined(gaps: list[Gap]) -> list[Gap]:
    """Gaps without slivers, and with those that a zero of z has cut made one."""
    scale = max(abs(end) for gap in gaps for end in (gap.low, gap.high) if math.isfinite(end))
    out: list[Gap] = []
    for gap in gaps:
        if gap.high - gap.low <= _LEAST_GAP * scale:
            continue
        if out and gap.right == out[-1].left:
            out[-1] = Gap(out[-1].low, gap.high, gap.left, out[-1].right)
        else:
            out.append(gap)
    return out
