"""The measure behind a spectral density: nodes and weights of all probes, and means of functions over it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..krylov import LanczosResult
from ..krylov.lanczos import check_count
from ..results import Estimate
from . import chebyshev, functionals
from .deflation import Deflation, deflate, node_rounding
from .edges import Edges, bulk_edges
from .truncation import Truncation


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralMeasure:
    """Discrete measure of Lanczos runs from random probes, and what follows from it by summation alone.

    `SpectralDensity` adds the distribution, its bands, smooth views and figures.

    Attributes
    ----------
    run : LanczosResult
        Raw coefficients for each probe.
    pin : bool
        Whether converged simple eigenvalues have the weight 1/n (implicit deflation).
    notes : tuple of str
        What happened on the way that a reader should know.
    tolerance_met : bool
        False when a tolerance was asked for and not reached.
    """

    run: LanczosResult
    pin: bool = True
    notes: tuple[str, ...] = ()
    tolerance_met: bool = True

    # -- what it is ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def deflation(self) -> Deflation:
        """The rules of all probes, split into pinned eigenvalues and the rest."""
        # Without reorthogonalisation Ritz values repeat: only those that a basis or locked eigenvectors vouch for may be pinned.
        return deflate(self.run, pin=self.pin and self.run.counts_eigenvalues)

    @functools.cached_property
    def _pooled(self) -> tuple[np.ndarray, np.ndarray]:
        return self.deflation.pooled()

    @functools.cached_property
    def _truncations(self) -> tuple[Truncation | None, ...]:
        return functionals.truncations(self.run, self.deflation)

    @functools.cached_property
    def _edges(self) -> Edges:
        return bulk_edges(self.run, self.deflation, self.noise_floor)

    @property
    def nodes(self) -> np.ndarray:
        """Places of the mass in ascending order, pooled over the probes, 1-D."""
        return self._pooled[0]

    @property
    def weights(self) -> np.ndarray:
        """Masses at `nodes`; they sum to one."""
        return self._pooled[1]

    @property
    def dimension(self) -> int:
        """Order n of the operator."""
        return self.run.dimension

    @property
    def num_steps(self) -> int:
        """Lanczos steps of each probe."""
        return self.run.num_steps

    @property
    def num_probes(self) -> int:
        """Random starting vectors."""
        return self.run.num_probes

    @property
    def num_matvecs(self) -> int:
        """Products with single vectors."""
        return self.run.num_matvecs

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run."""
        return self.run.seconds

    @property
    def status(self) -> str:
        """``"complete"``, ``"interrupted"`` or ``"time budget"``."""
        return self.run.status

    @property
    def converged(self) -> bool:
        """Whether the run did all that was asked for."""
        return self.run.converged and self.tolerance_met

    @property
    def norm_estimate(self) -> float:
        """Largest Ritz value in modulus."""
        return max(rule.norm for rule in self.deflation.rules)

    @functools.cached_property
    def noise_floor(self) -> float:
        """Eigenvalues below this modulus are not told from zero: rounding of the recurrence and of the products.

        ``4 eps |A| sqrt(k)`` plus twice the measured distance of two products with the same vector.
        """
        repeat = self.run.repeat_error if np.isfinite(self.run.repeat_error) else 0.0
        return node_rounding(self.run, self.deflation.rules) + 2 * repeat

    def extreme_eigenvalues(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(smallest, residual norm) and (largest, residual norm) over the probes; Ritz values lie inside the spectrum."""
        ends = []
        for index, sign in ((0, 1.0), (-1, -1.0)):
            values = np.array([rule.nodes[index] for rule in self.deflation.rules])
            best = int(np.argmin(sign * values))
            ends.append((float(values[best]), float(self.deflation.rules[best].residuals[index])))
        return ends[0], ends[1]

    @property
    def interval(self) -> tuple[float, float]:
        """The range of the Ritz values, widened at both ends by the largest residual norm there."""
        rules = self.deflation.rules
        return (
            float(min(rule.nodes[0] - rule.residuals[0] for rule in rules)),
            float(max(rule.nodes[-1] + rule.residuals[-1] for rule in rules)),
        )

    @property
    def _complex(self) -> bool:
        return np.dtype(self.run.dtype).kind == "c"

    def _per_probe(self, function: Callable[..., Any]) -> np.ndarray:
        return np.mean([function(*self.run.jacobi(probe)) for probe in range(self.num_probes)], axis=0)

    # -- moments -------------------------------------------------------------------------------------------------------

    def moment(self, p: int) -> float:
        """Mean of the p-th powers of the eigenvalues.

        For p up to ``2 k - 1`` it is what p products with each probe would give; further ones are those of the measure only.
        It overflows only where the moment itself is no number of double precision.

        Raises
        ------
        ValueError
            When `p` is not a whole number of at least 0.
        OverflowError
            When the moment is larger than any number of double precision.
        """
        return chebyshev.power_moment(self.nodes, self.weights, p)

    def moments(self, count: int) -> np.ndarray:
        """Means of the powers 0 to ``count - 1`` of the eigenvalues, shape (count,); see `moment`."""
        return np.array([self.moment(p) for p in range(check_count("count", count))])

    def chebyshev_moments(self, count: int, interval: tuple[float, float] | None = None) -> np.ndarray:
        """Means of the Chebyshev polynomials over the eigenvalues, with an interval mapped to [-1, 1].

        Parameters
        ----------
        count : int
            Number of moments, the mass included: degrees 0 to ``count - 1``, at most ``2 k - 1`` for k steps.
        interval : tuple of float, optional
            Ends; by default `interval`, the range of the Ritz values widened by their residuals.

        Returns
        -------
        numpy.ndarray
            Shape (count,): ``e_1^T T_i(T_k) e_1``, averaged over the probes, with pinned eigenvalues at their weight 1/n.

        Raises
        ------
        ValueError
            When there are not so many moments, or a Ritz value lies outside of the interval.

        Examples
        --------
        >>> import numpy as np, linop_spectra as ls
        >>> S = ls.spectral_density(ls.diagonal_operator(np.cos(np.linspace(0.0, np.pi, 5000))), num_steps=10)
        >>> mu = S.chebyshev_moments(3, interval=(-1.0, 1.0))
        >>> float(mu[0].round(9)), bool(abs(mu[2]) < 0.05)
        (1.0, True)
        """
        count = check_count("count", count)
        inexact = [len(self.run.jacobi(probe)[0]) for probe, rule in enumerate(self.deflation.rules) if not rule.exact]
        if inexact and count > 2 * min(inexact):
            raise ValueError(
                f"The argument count is {count}, but {min(inexact)} Lanczos steps determine the moments of degree 0 to "
                f"{2 * min(inexact) - 1}, which are {2 * min(inexact)}; take more steps or ask for fewer moments."
            )
        if interval is None:
            low, high = self.interval
            if high - low <= 4 * self.noise_floor:  # a multiple of the identity
                margin = self.norm_estimate or 1.0
                low, high = low - margin, high + margin
        else:
            low, high = chebyshev.check_interval(interval)
            if self.nodes[0] < low or self.nodes[-1] > high:
                raise ValueError(
                    f"The argument interval is ({low:.6g}, {high:.6g}), but the Ritz values reach from {self.nodes[0]:.6g} to "
                    f"{self.nodes[-1]:.6g}; pass an interval that holds the spectrum."
                )
        return chebyshev.chebyshev_moments(self.nodes, self.weights, count, (low, high))

    # -- functionals ---------------------------------------------------------------------------------------------------

    def expectation(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """Mean of ``f`` over the eigenvalues.

        Parameters
        ----------
        f : callable
            Function of an array of eigenvalues.

        Returns
        -------
        Estimate
            Its standard error is that of the sphere law, ``sqrt(2 Var f / (p (n + 2)))`` over the eigenvalues that are not
            pinned, with degrees of freedom that fall where few nodes carry the variance. Its quadrature error is what the
            convergence from half to all of the steps, Gauss-Radau rules and the residuals of pinned eigenvalues leave open; its
            rounding error is what the rounding of the nodes does to `f`. Eigenvalues that are pinned are taken as simple;
            ``method`` says when no second probe has confirmed it.
        """
        d = self.deflation
        f = functionals.defined_at_zero(f, self.noise_floor)
        share = d.rest_dimension / d.n
        per_probe = [functionals.evaluate(f, nodes) @ weights if len(nodes) else 0.0 for nodes, weights in d.rest]
        value = float(np.sum(functionals.evaluate(f, d.pinned)) / d.n + share * np.mean(per_probe))
        error, dof = functionals.sampling_error(d, f, complex_valued=self._complex)
        method = "stochastic Lanczos quadrature"
        if len(d.pinned) and not d.verified and d.n > 1:
            method += ", converged eigenvalues taken as simple"
        return Estimate(
            value=value, standard_error=share * error, quadrature_error=functionals.quadrature_error(self._truncations, d, f),
            rounding_error=functionals.rounding_error(self.run, d, f), num_matvecs=self.num_matvecs, degrees_of_freedom=dof,
            seconds=self.seconds, method=method, converged=self.converged,
        )  # fmt: skip

    def trace(self, f: Callable[[np.ndarray], np.ndarray] | None = None) -> Estimate:
        """Trace of ``f(A)``: n times the mean of `f` over the eigenvalues; the trace of A without `f`."""
        mean, n = self.expectation(_itself if f is None else f), self.dimension
        errors = {name: n * getattr(mean, name) for name in ("value", "standard_error", "quadrature_error", "rounding_error")}
        return dataclasses.replace(mean, **errors)


def _itself(x: np.ndarray) -> np.ndarray:
    return x


__all__ = ["SpectralMeasure"]
