"""A continued fraction that goes on for ever: the square-root terminator of the recursion method.

The Stieltjes transform of a measure is the continued fraction of its Jacobi coefficients. Those of a bulk on one interval
settle, so that instead of cutting the fraction after k steps one lets the limits go on: the rest then sums to a square root,
the measure has a density, and its first 2 k moments are still those of the run.

References
----------
R. Haydock, V. Heine and M. J. Kelly, *Electronic structure based on the local atomic environment for tight-binding bands: II*,
J. Phys. C 8 (1975). C. M. M. Nex, *The termination of continued fractions*, in The Recursion Method and Its Applications (1985).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from scipy import linalg

from ..krylov.tridiagonal import ritz

_TABLE = 1024
_HALVINGS = 24
_TABLE_ERROR = 1e-8


def tail_limits(alphas: np.ndarray, betas: np.ndarray) -> tuple[float, float]:
    """Limits of the coefficients, estimated as the means over the later half."""
    half = len(alphas) // 2
    return float(np.mean(alphas[half:])), float(np.mean(betas[half:]))


@dataclasses.dataclass(frozen=True, eq=False)
class TerminatedFraction:
    """Measure whose Jacobi coefficients are those of a run and then constant.

    It has a density on the band ``[limit_alpha - 2 limit_beta, limit_alpha + 2 limit_beta]`` and, outside of it, at most k
    atoms. Density and atoms together have mass one, and the first 2 k moments are those of the coefficients.

    Parameters
    ----------
    alphas, betas : array
        Jacobi coefficients, shape (k,) each, every beta positive; the last one links to the tail.
    limit_alpha, limit_beta : float, optional
        Coefficients from step k + 1 on; by default the means of the later half.

    Examples
    --------
    With constant coefficients from the first on the measure is the semicircle.

    >>> semicircle = TerminatedFraction(np.zeros(3), np.ones(3))
    >>> semicircle.edges, float(semicircle.density(0.0).round(6))
    ((-2.0, 2.0), 0.31831)
    """

    alphas: np.ndarray
    betas: np.ndarray
    limit_alpha: float | None = None
    limit_beta: float | None = None

    def __post_init__(self) -> None:
        alphas, betas = (np.asarray(part, dtype=np.float64) for part in (self.alphas, self.betas))
        if alphas.ndim != 1 or alphas.shape != betas.shape or len(alphas) == 0:
            raise ValueError(
                f"The arguments alphas and betas must be 1-D arrays of one length of at least 1, but have the shapes {alphas.shape} and "
                f"{betas.shape}."
            )
        if not (np.all(np.isfinite(alphas)) and np.all(np.isfinite(betas)) and np.all(betas > 0)):
            raise ValueError(
                "The coefficients must be finite and every beta positive; a run that ended with beta = 0 is exact, and its measure is "
                "discrete."
            )
        mean_alpha, mean_beta = tail_limits(alphas, betas)
        limit_alpha = mean_alpha if self.limit_alpha is None else float(self.limit_alpha)
        limit_beta = mean_beta if self.limit_beta is None else float(self.limit_beta)
        if not (np.isfinite(limit_alpha) and 0 < limit_beta < np.inf):
            raise ValueError(
                f"The argument limit_beta must be positive and limit_alpha finite, but they are {limit_beta!r} and {limit_alpha!r}."
            )
        for name, value in (("alphas", alphas), ("betas", betas), ("limit_alpha", limit_alpha), ("limit_beta", limit_beta)):
            object.__setattr__(self, name, value)

    @property
    def edges(self) -> tuple[float, float]:
        """Ends of the band."""
        assert self.limit_alpha is not None and self.limit_beta is not None
        return self.limit_alpha - 2 * self.limit_beta, self.limit_alpha + 2 * self.limit_beta

    def stieltjes(self, z: Any) -> np.ndarray:
        """Mean of ``1 / (lambda - z)``; on the band the limit from the upper half plane, whose imaginary part is pi times `density`.

        Parameters
        ----------
        z : array
            Complex points.
        """
        z = np.asarray(z, dtype=np.complex128)
        low, high = self.edges
        assert self.limit_alpha is not None and self.limit_beta is not None
        # The product of roots has its cut on the band only; the quotient does not cancel far away.
        tail = 2 / (z - self.limit_alpha + np.sqrt(z - low) * np.sqrt(z - high))
        for alpha, beta in zip(self.alphas[::-1], self.betas[::-1], strict=True):
            tail = 1 / (z - alpha - beta * (beta * tail))
        return np.asarray(-tail)

    def density(self, x: Any) -> np.ndarray:
        """Density of the continuous part at `x`; with the masses of `atoms` it integrates to one."""
        x = np.asarray(x, dtype=np.float64)
        low, high = self.edges
        inside = (x > low) & (x < high)
        at = np.where(inside, x, (low + high) / 2)
        return np.where(inside, np.maximum(self.stieltjes(at).imag, 0.0) / np.pi, 0.0)

    @functools.cached_property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Pairs (place, mass) outside of the band, ascending.

        They are the solutions of ``x = lambda_i(T_k + beta_k^2 t(x) e_k e_k^T)`` with the Stieltjes sum t of the tail. On
        either side of the band the difference of both sides is monotone, so that each eigenvalue has at most one.
        """
        found = []
        assert self.limit_alpha is not None and self.limit_beta is not None
        for side in (-1.0, 1.0):
            # In units of the band, and mirrored where necessary, so that it is always the upper side.
            alphas = side * (self.alphas - self.limit_alpha) / self.limit_beta
            for place, mass in _upper_atoms(alphas, self.betas / self.limit_beta):
                found.append((self.limit_alpha + self.limit_beta * side * place, mass))
        return tuple(sorted(found))

    def cdf(self, x: Any) -> np.ndarray:
        """Mass at or below `x`, atoms included."""
        x = np.asarray(x, dtype=np.float64)
        places, masses = self.table
        out = np.interp(x, places, masses)
        for place, mass in self.atoms:
            out = out + np.where(x >= place, mass, 0.0)
        return out

    @functools.cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Places in the band and the continuous mass at or below them, dense enough to be interpolated linearly."""
        low, high = self.edges
        center, half = (low + high) / 2, (high - low) / 2

        def integrand(angle: np.ndarray) -> np.ndarray:
            return np.asarray(self.density(center - half * np.cos(angle)) * half * np.sin(angle))

        # In the angle the density is smooth but for resonances at Ritz values, which are halved until a parabola fits them.
        nodes, vectors = ritz(self.alphas, self.betas)
        peaks = np.arccos(np.clip((center - nodes) / half, -1, 1))
        knots = np.unique(np.concatenate([np.pi * np.arange(_TABLE + 1) / _TABLE, peaks]))
        left, right = knots[:-1], knots[1:]
        at_left, at_right = integrand(left), integrand(right)
        done: list[tuple[np.ndarray, np.ndarray]] = []
        for _ in range(_HALVINGS):
            middle = (left + right) / 2
            value = integrand(middle)
            width = right - left
            simpson, trapezoid = (at_left + 4 * value + at_right) * width / 6, (at_left + 2 * value + at_right) * width / 4
            rough = np.abs(simpson - trapezoid) > _TABLE_ERROR
            done.append((right[~rough], simpson[~rough]))
            left, right = np.concatenate([left[rough], middle[rough]]), np.concatenate([middle[rough], right[rough]])
            at_left, at_right = np.concatenate([at_left[rough], value[rough]]), np.concatenate([value[rough], at_right[rough]])
            if len(left) == 0:
                break
        total = max(1.0 - sum(mass for _, mass in self.atoms), 0.0)
        if len(left):
            # A resonance narrower than rounding has about the weight of its Ritz value; all of them have what is left.
            nearest = np.argmin(np.abs(peaks[:, None] - (left + right) / 2), axis=0)
            rest = vectors[0, nearest] ** 2 / np.bincount(nearest)[nearest]
            done.append((right, rest * max(total - sum(float(np.sum(pieces)) for _, pieces in done), 0.0) / float(np.sum(rest))))
        ends, pieces = (np.concatenate(part) for part in zip(*done, strict=True))
        order = np.argsort(ends, kind="stable")
        masses = np.concatenate([[0.0], np.cumsum(pieces[order])])
        if masses[-1] > 0:
            masses *= total / masses[-1]  # what the atoms leave, exactly
        return center - half * np.cos(np.concatenate([[0.0], ends[order]])), masses


def _upper_atoms(alphas: np.ndarray, betas: np.ndarray) -> list[tuple[float, float]]:
    """Atoms above the band [-2, 2] of a fraction whose coefficients go on with 0 and 1."""
    from scipy import optimize

    edge, link = 2.0, betas[-1] ** 2

    def root(x: float) -> float:
        return float(np.sqrt(max((x - 2) * (x + 2), 0.0)))

    def tail(x: float) -> float:
        return 2 / (x + root(x))  # 1 / (x - 1 / (x - ...))

    def diagonal(x: float) -> np.ndarray:
        out = alphas.copy()
        out[-1] += link * tail(x)
        return out

    def eigenvalue(x: float, index: int) -> float:
        if len(alphas) == 1:
            return float(diagonal(x)[0])
        return float(linalg.eigvalsh_tridiagonal(diagonal(x), betas[:-1], select="i", select_range=(index, index))[0])

    at_edge, _ = ritz(diagonal(edge), betas)
    found = []
    for index in np.flatnonzero(at_edge > edge * (1 + 4 * np.finfo(float).eps)):
        # The tail falls as x grows, and the eigenvalue with it: at the value it has at the edge it lies below x.
        place = float(at_edge[index])
        if eigenvalue(place, int(index)) < place:
            place = float(optimize.brentq(lambda x, i=int(index): eigenvalue(x, i) - x, edge, place, xtol=1e-14 * place))
        vector = ritz(diagonal(place), betas)[1][:, index]
        # The derivative of the tail is -tail / root: this much of the eigenvector lies beyond step k.
        beyond = link * vector[-1] ** 2 * tail(place) / root(place) if root(place) > 0 else np.inf
        mass = float(vector[0] ** 2 / (1 + beyond))
        if mass > 0:
            found.append((place, mass))
    return found


def jacobi_from_rule(nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Jacobi coefficients of a discrete measure of k points, alphas of shape (k,) and betas of shape (k - 1,).

    Lanczos with full reorthogonalisation on the diagonal matrix of the nodes, from the roots of the weights.
    """
    k = len(nodes)
    # Centred and scaled: a small spectrum far from zero keeps its digits, and tiny numbers their squares.
    center, scale = float(nodes[0] + nodes[-1]) / 2, float(nodes[-1] - nodes[0]) / 2 or 1.0
    places = (nodes - center) / scale
    basis = np.empty((k, k))
    basis[0] = np.sqrt(weights / weights.sum())
    alphas, betas = np.empty(k), np.empty(max(k - 1, 0))
    taken = k
    for j in range(k):
        w = places * basis[j]
        alphas[j] = basis[j] @ w
        if j == k - 1:
            break
        for _ in range(2):
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        betas[j] = np.linalg.norm(w)
        if betas[j] <= 1e-14:  # fewer points than nodes, within rounding
            taken = j + 1
            break
        basis[j + 1] = w / betas[j]
    return center + scale * alphas[:taken], scale * betas[: taken - 1]
