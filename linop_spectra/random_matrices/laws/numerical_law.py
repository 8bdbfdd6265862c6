"""Laws known by their Stieltjes transform: everything else by quadrature."""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import numpy as np

from .law import SpectralLaw, check_levels, check_whole, like
from .panels import Panels

_MASS_TOLERANCE = 1e-5


class NumericalLaw(SpectralLaw):
    """A law that a subclass gives by its support, its atoms and its Stieltjes transform.

    The density is the limit of the transform on the support. It is integrated once, on first use, over panels of the angle
    t in ``x = middle - radius cos(t)`` of each interval: there a density with square-root edges, or with hard edges where it grows like
    one over the square root, is smooth. Panels are halved until their polynomials have converged, and graded towards an end at
    which the density has another singularity. Distribution function, quantiles, moments and orthogonal polynomials come from these
    polynomials; the density itself is never interpolated.

    Subclasses define `support` (finite intervals that do not overlap), `stieltjes`, `atoms` where there are any, and may replace
    `_density`. They are compared and hashed by their own fields.
    """

    @abc.abstractmethod
    def stieltjes(self, z: Any) -> Any:
        """Stieltjes transform in the closed upper half-plane; on the support the limit from above."""

    def _density(self, x: np.ndarray) -> np.ndarray:
        """Density at points strictly inside the support, shape (m,)."""
        return np.asarray(self.stieltjes(x.astype(np.complex128))).imag / np.pi

    @functools.cached_property
    def _panels(self) -> list[Panels]:
        """The integrated density of each interval of the support."""
        panels = [Panels.fit(self._density, a, b) for a, b in self.support]
        expected = 1 - math.fsum(mass for _, mass in self.atoms)
        found = math.fsum(panel.mass for panel in panels)
        if not abs(found - expected) <= _MASS_TOLERANCE:
            raise ArithmeticError(
                f"The density of {type(self).__name__} integrates to {found:.9g}, but the mass beside its atoms is {expected:.9g}: "
                "its support, atoms or transform do not fit together, or it has features too fine for the quadrature."
            )
        return [panel.scaled(expected / found) for panel in panels] if panels else []

    @functools.cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Atoms, and intervals cut at the atoms inside them, ascending: index of the interval or -1, ends, mass up to the upper end."""
        pieces: list[tuple[int, float, float, float]] = [(-1, place, place, mass) for place, mass in self.atoms]
        for index, (a, b) in enumerate(self.support):
            cuts = [a, *sorted(place for place, _ in self.atoms if a < place < b), b]
            below = self._panels[index].cdf(np.array(cuts))
            pieces += [(index, cuts[j], cuts[j + 1], below[j + 1] - below[j]) for j in range(len(cuts) - 1)]
        pieces.sort(key=lambda piece: (piece[1], piece[2]))
        low, high, mass = (np.array([piece[column] for piece in pieces], dtype=np.float64) for column in (1, 2, 3))
        total = np.cumsum(mass)
        return np.array([piece[0] for piece in pieces]), low, high, np.minimum(total / total[-1], 1.0)

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part at `x`; the shape of `x`. At an end where it is unbounded it is infinite."""
        x = np.asarray(x, dtype=np.float64)
        out = np.where(np.isnan(x), np.nan, 0.0)
        for a, b in self.support:
            inside = (x > a) & (x < b)
            if np.any(inside):
                out[inside] = np.maximum(self._density(x[inside]), 0.0)
            for end, sign in ((a, 1.0), (b, -1.0)):
                at = x == end
                if np.any(at):
                    near = self._density(end + sign * (b - a) * np.array([1e-10, 1e-8]))
                    out[at] = np.inf if near[0] > 2 * near[1] else 0.0
        return like(out)

    def cdf(self, x: Any) -> Any:
        """Share of the eigenvalues at or below `x`; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        total = np.zeros(x.shape)
        for panels in self._panels:
            total += panels.cdf(x.ravel()).reshape(x.shape)
        for place, mass in self.atoms:
            total += np.where(x >= place, mass, 0.0)
        top = self._pieces[2][-1]
        return like(np.select([np.isnan(x), x >= top], [np.nan, 1.0], np.clip(total, 0.0, 1.0)))

    def quantile(self, q: Any) -> Any:
        """Smallest place whose `cdf` reaches `q`; the shape of `q`.

        Raises
        ------
        ValueError
            When `q` is not between 0 and 1.
        """
        q = check_levels(q)
        flat = q.ravel()
        index, low, high, total = self._pieces
        piece = np.minimum(np.searchsorted(total, flat, side="left"), len(total) - 1)
        out = np.where(flat >= total[piece], high[piece], low[piece])
        before = np.concatenate([[0.0], total])[piece]
        for interval, panels in enumerate(self._panels):
            chosen = (index[piece] == interval) & (flat < total[piece]) & (flat > before)
            if np.any(chosen):
                start = panels.cdf(low[piece[chosen]])
                places = panels.quantile(flat[chosen] - before[chosen] + start)
                out[chosen] = np.clip(places, low[piece[chosen]], high[piece[chosen]])
        return like(out.reshape(q.shape))

    def _rule(self, degree: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights of a quadrature that is exact to rounding for polynomials up to this degree."""
        rules = [panels.rule(degree) for panels in self._panels]
        places = [place for place, _ in self.atoms]
        masses = [mass for _, mass in self.atoms]
        return np.concatenate([*(nodes for nodes, _ in rules), places]), np.concatenate([*(weights for _, weights in rules), masses])

    def moment(self, k: int) -> float:
        """Mean of the k-th powers, by quadrature.

        Raises
        ------
        ValueError
            When `k` is not a whole number of at least 0.
        """
        k = check_whole("k", k, 0)
        if k == 0:
            return 1.0
        nodes, weights = self._rule(k)
        return math.fsum(weights * nodes**k)

    def var(self) -> float:
        """The variance, without cancellation when the mean is large."""
        nodes, weights = self._rule(2)
        return math.fsum(weights * (nodes - self.mean()) ** 2)

    def jacobi_coefficients(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What k Lanczos steps give in the limit: coefficients of the orthogonal polynomials of the law.

        Parameters
        ----------
        k : int
            Steps.

        Returns
        -------
        alphas : numpy.ndarray
            Shape (k,).
        betas : numpy.ndarray
            Shape (k,); the last one lies beyond the k x k matrix.

        References
        ----------
        W. Gautschi, *Orthogonal Polynomials: Computation and Approximation*, Oxford (2004), section 2.2.
        """
        k = check_whole("k", k, 1)
        if not self.support and k > len(self.atoms):
            raise ValueError(f"The argument k is {k}, but a law of {len(self.atoms)} atoms has only as many Lanczos steps.")
        return discrete_jacobi(*self._rule(2 * k), k)


def discrete_jacobi(nodes: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Alphas and betas of k Lanczos steps on a diagonal matrix, started at the square roots of the weights; reorthogonalised twice."""
    used = weights > 0
    centre = float(weights @ nodes / weights.sum())
    x, q = nodes[used] - centre, np.sqrt(weights[used] / weights.sum())
    basis = np.empty((k, len(x)))
    alphas, betas = np.empty(k), np.empty(k)
    for j in range(k):
        basis[j] = q
        w = x * q
        alphas[j] = q @ w
        for _ in range(2):
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        betas[j] = np.linalg.norm(w)
        if j == len(x) - 1:
            betas[j] = 0.0
        if betas[j] > 0:
            q = w / betas[j]
    return alphas + centre, betas
