"""The spectral density of an operator: a discrete measure with bounds, and views of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..krylov import LanczosResult
from ..results import Estimate, PathLike, html_table, register, save_result
from . import bounds, broadening, functionals, quadrature
from .deflation import Deflation, deflate, node_rounding
from .edges import Edges, bulk_edges
from .explain import explain, summary_rows
from .log_spectrum import LogSpectrum, log_spectrum

Broadening = float | Literal["adaptive"]
BOUND_CONFIDENCE = 0.95
"""Confidence of the sampling part of the two distance bounds."""


@dataclasses.dataclass(frozen=True)
class Outlier:
    """An isolated eigenvalue outside the bulk.

    Attributes
    ----------
    value : float
        The Ritz value.
    residual_norm : float
        An eigenvalue lies within this distance.
    weight : float
        Its weight in the measure, 1/n where it was pinned.
    multiplicity : float
        Mean weight that the probes gave it, times n. For one probe its standard deviation is 141 % of the multiplicity.
    simple : bool
        Whether it was found to be a simple eigenvalue.
    """

    value: float
    residual_norm: float
    weight: float
    multiplicity: float
    simple: bool


@register("spectral density")
@dataclasses.dataclass(frozen=True, eq=False)
class SpectralDensity:
    """Distribution of the eigenvalues of a Hermitian operator, measured by Lanczos runs from random probes.

    It is a discrete measure, `nodes` with `weights`; smoothing is a view of it. All methods are evaluations of the stored
    coefficients, without further products.

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

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> S = ls.spectral_density(ls.diagonal_operator(np.linspace(0.0, 1.0, 2000)), num_steps=30)
    >>> bool(abs(S.cdf(0.5) - 0.5) < 0.05)
    True
    """

    run: LanczosResult
    pin: bool = True
    notes: tuple[str, ...] = ()
    tolerance_met: bool = True

    # -- what it is ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def deflation(self) -> Deflation:
        """The rules of all probes, split into pinned eigenvalues and the rest."""
        # Without reorthogonalisation Ritz values repeat: pinning each would count an eigenvalue twice.
        return deflate(self.run, pin=self.pin and self.run.reorthogonalize == "full")

    @functools.cached_property
    def _pooled(self) -> tuple[np.ndarray, np.ndarray]:
        return self.deflation.pooled()

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

    @property
    def _complex(self) -> bool:
        return np.dtype(self.run.dtype).kind == "c"

    def _per_probe(self, function: Callable[..., Any]) -> np.ndarray:
        return np.mean([function(*self.run.jacobi(probe)) for probe in range(self.num_probes)], axis=0)

    # -- distribution --------------------------------------------------------------------------------------------------

    def cdf(self, x: Any) -> Any:
        """Share of eigenvalues at or below `x`, as a step function; the shape of `x`."""
        steps = np.concatenate([[0.0], np.cumsum(self.weights)])
        out = np.minimum(steps[np.searchsorted(self.nodes, np.asarray(x, dtype=np.float64), side="right")], 1.0)
        out = np.where(np.asarray(x) >= self.nodes[-1], 1.0, out)
        return float(out) if out.ndim == 0 else out

    def cdf_band(self, x: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Interval for the share of eigenvalues at or below each `x`: quadrature envelope and exact sampling law.

        Parameters
        ----------
        x : array
            Points.
        confidence : float
            Of the sampling part, at each point on its own.

        Returns
        -------
        tuple of numpy.ndarray
            Lower and upper end, between 0 and 1.
        """
        _check_level(confidence)
        x = np.asarray(x, dtype=np.float64)
        d = self.deflation
        low, high = np.zeros(x.shape), np.zeros(x.shape)
        for rule, (nodes, weights) in zip(d.rules, d.rest, strict=True):
            below, above = bounds.envelope(nodes, weights, x, exact=rule.exact)
            low, high = low + below / len(d.rules), high + above / len(d.rules)
        if d.rest_dimension:
            low, high = bounds.sampling_interval(
                low, high, d.rest_dimension, self.num_probes, confidence, complex_valued=self._complex
            )
        share, pinned = d.rest_dimension / d.n, np.searchsorted(d.pinned, x, side="right") / d.n
        return np.clip(pinned + share * low, 0, 1), np.clip(pinned + share * high, 0, 1)

    def quantile(self, q: Any) -> Any:
        """Smallest node whose cumulative mass reaches `q`; the shape of `q`."""
        q = np.asarray(q, dtype=np.float64)
        if np.any((q < 0) | (q > 1) | np.isnan(q)):
            raise ValueError("The argument q must lie between 0 and 1.")
        index = np.searchsorted(np.cumsum(self.weights) + 1e-12, q, side="left")
        out = self.nodes[np.minimum(index, len(self.nodes) - 1)]
        return float(out) if out.ndim == 0 else out

    def density(self, x: Any, broadening: Broadening = "adaptive", outliers: bool = True) -> Any:
        """Smooth density of the eigenvalues at `x`; over the line it integrates to one.

        Parameters
        ----------
        x : array
            Points.
        broadening : "adaptive" or float
            Width of the Gaussians: 0.75 times the local distance of the nodes, or one number for all.
        outliers : bool
            Whether what `outliers` returns is part of it. In a figure they are better drawn as sticks.

        Returns
        -------
        array
            Density, in units of one over an eigenvalue, the shape of `x`.
        """
        total, _, _ = self._smooth(np.asarray(x, dtype=np.float64), broadening, outliers)
        return float(total) if total.ndim == 0 else total

    def density_band(self, x: Any, confidence: float = 0.95, broadening: Broadening = "adaptive") -> tuple[np.ndarray, np.ndarray]:
        """Interval for the broadened density of the bulk at each `x`: what other probes would have changed.

        The standard error is ``sqrt(2 Var_spec(K) / (p (n + 2)))`` for the kernel K at `x`, exact for sphere probes.
        """
        from scipy import stats

        _check_level(confidence)
        x = np.asarray(x, dtype=np.float64)
        total, first, second = self._smooth(x, broadening, outliers=False)
        n = self.deflation.rest_dimension
        draws = self.num_probes * ((n + 1) if self._complex else (n + 2) / 2)
        share = max(n / self.dimension, np.finfo(float).tiny)
        error = np.sqrt(np.maximum(second * share - first**2, 0) / draws)
        half = stats.norm.ppf(0.5 + confidence / 2) * error
        return np.maximum(total - half, 0), total + half

    def _smooth(self, x: np.ndarray, width: Broadening, outliers: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Broadened density; and of the part that sampling moves, the density again and the mean square of its kernel."""
        if width != "adaptive" and not (isinstance(width, (int, float)) and 0 < width < math.inf):
            raise ValueError(f"The argument broadening must be 'adaptive' or a positive width, but is {width!r}.")
        d = self.deflation
        total, moving, square = np.zeros(x.shape), np.zeros(x.shape), np.zeros(x.shape)
        for probe, rule in enumerate(d.rules):
            weights, is_pinned = d.of_probe(probe)
            outside = np.zeros(len(rule.nodes), dtype=bool)
            outside[[d.atoms[i].places[probe] for i in self._edges.outliers]] = True
            sigma = np.full(len(rule.nodes), float(width)) if width != "adaptive" else None
            if sigma is None:
                sigma = broadening.widths(rule.nodes, outside, self.noise_floor)
            for chosen, moves in ((is_pinned, False), (~is_pinned, True)):
                keep = chosen if outliers else chosen & ~outside
                first, second = broadening.gaussians(x, rule.nodes[keep], weights[keep] / len(d.rules), sigma[keep])
                total += first
                if moves:
                    moving, square = moving + first, square + second
        return total, moving, square

    # -- functionals ---------------------------------------------------------------------------------------------------

    def moment(self, p: int) -> float:
        """Mean of the p-th powers of the eigenvalues."""
        return float(np.sum(self.weights * self.nodes**p))

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
            convergence from half to all of the steps and Gauss-Radau rules leave open, plus the rounding of the nodes.
            Eigenvalues that are pinned are taken as simple; ``method`` says when no second probe has confirmed it.
        """
        d = self.deflation
        share = d.rest_dimension / d.n
        per_probe = [functionals.evaluate(f, nodes) @ weights if len(nodes) else 0.0 for nodes, weights in d.rest]
        value = float(np.sum(functionals.evaluate(f, d.pinned)) / d.n + share * np.mean(per_probe))
        error, dof = functionals.sampling_error(d, f, complex_valued=self._complex)
        method = "stochastic Lanczos quadrature"
        if len(d.pinned) and not d.verified and d.n > 1:
            method += ", converged eigenvalues taken as simple"
        return Estimate(
            value=value, standard_error=share * error, quadrature_error=functionals.quadrature_error(self.run, d, f),
            num_matvecs=self.num_matvecs,
            degrees_of_freedom=dof, seconds=self.seconds, method=method, converged=self.converged,
        )  # fmt: skip

    def trace(self, f: Callable[[np.ndarray], np.ndarray] | None = None) -> Estimate:
        """Trace of ``f(A)``: n times the mean of `f` over the eigenvalues; the trace of A without `f`."""
        mean = self.expectation(_itself if f is None else f)
        n = self.dimension
        return dataclasses.replace(
            mean, value=n * mean.value, standard_error=n * mean.standard_error, quadrature_error=n * mean.quadrature_error
        )

    # -- sign, resolution, outliers --------------------------------------------------------------------------------------

    def negative_mass(self, threshold: float | None = None) -> tuple[float, float]:
        """Rigorous bracket of the probes' mean mass below ``-threshold``, by Gauss-Radau rules.

        Parameters
        ----------
        threshold : float, optional
            Not negative; by default the noise floor, because the sign of anything smaller is rounding.

        Returns
        -------
        tuple of float
            Lower and upper bound. They hold for these probes; `cdf_band` adds what other probes would change. The bracket is
            wide where much mass lies near the threshold: `resolution` says how much could sit there unseen.
        """
        threshold = self.noise_floor if threshold is None else float(threshold)
        if not threshold >= 0:
            raise ValueError(f"The argument threshold must not be negative, but is {threshold!r}.")
        bracket = self._per_probe(lambda alphas, betas: quadrature.mass_bracket(alphas, betas, -threshold))
        return float(bracket[0]), float(bracket[1])

    def resolution(self, x: Any) -> Any:
        """Largest mass that could sit at `x`, up to the noise floor, given the moments of these probes; the shape of `x`."""
        x = np.asarray(x, dtype=np.float64)
        out = self._per_probe(lambda alphas, betas: quadrature.christoffel_mass(alphas, betas, x, self.noise_floor))
        return float(out) if np.ndim(out) == 0 else out

    @functools.cached_property
    def _edges(self) -> Edges:
        return bulk_edges(self.run, self.deflation, self.noise_floor)

    def bulk_edges(self) -> tuple[float, float]:
        """Ends of the bulk: the last nodes that are not outliers, by the tail of the Jacobi coefficients and the gaps there."""
        return self._edges.low, self._edges.high

    def outliers(self) -> tuple[Outlier, ...]:
        """Isolated converged eigenvalues outside the bulk, ascending, each with its residual.

        An eigenvalue counts when it lies beyond the edge that the tail of the Jacobi coefficients shows (and its
        uncertainty), and keeps a distance from the bulk that neighbours at an edge do not keep. A bulk with long tails has no
        clear edge, and the number of outliers then depends on how far the run has resolved it.
        """
        d = self.deflation
        return tuple(
            Outlier(
                atom.value, atom.residual, 1 / d.n if atom.value in d.pinned else atom.weight, atom.weight * d.n, atom.simple
            )
            for atom in (d.atoms[i] for i in self._edges.outliers)
        )

    def extreme_eigenvalues(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(smallest, residual norm) and (largest, residual norm) over the probes; Ritz values lie inside the spectrum."""
        ends = []
        for index, sign in ((0, 1.0), (-1, -1.0)):
            values = np.array([rule.nodes[index] for rule in self.deflation.rules])
            best = int(np.argmin(sign * values))
            ends.append((float(values[best]), float(self.deflation.rules[best].residuals[index])))
        return ends[0], ends[1]

    # -- distances -------------------------------------------------------------------------------------------------------

    @property
    def kolmogorov_bound(self) -> float:
        """Bound on the largest difference of `cdf` from the true share of eigenvalues.

        Largest weight of the rule (quadrature, rigorous) plus what sampling exceeds with probability 5 % at most. Within the
        noise floor of a jump, rounding decides on which side of it a point lies.
        """
        d = self.deflation
        share = d.rest_dimension / d.n
        quad = float(np.mean([0.0 if r.exact else bounds.kolmogorov(w) for r, (_, w) in zip(d.rules, d.rest, strict=True)]))
        sampling = 0.0
        if d.rest_dimension > 1:
            sampling = bounds.sampling_kolmogorov(
                d.rest_dimension, self.num_probes, 1 - BOUND_CONFIDENCE, complex_valued=self._complex
            )
        inexact = any(atom.shift > 0 for atom in d.atoms if atom.value in d.pinned)
        return float(min(1.0, share * (quad + sampling) + (1 / d.n if inexact else 0.0)))

    @property
    def wasserstein_bound(self) -> float:
        """Bound on the Wasserstein-1 distance of the measure from the spectrum, in units of an eigenvalue.

        Rounding of the nodes, quadrature (rigorous on the interval of the Ritz values, widened by their residuals), and what
        sampling exceeds with probability 5 % at most.
        """
        d = self.deflation
        nodes = np.concatenate([x for x, _ in d.rest])
        weights = np.concatenate([w for _, w in d.rest]) / len(d.rest)
        order = np.argsort(nodes, kind="stable")
        sampling = bounds.sampling_wasserstein(
            nodes[order], weights[order], d.rest_dimension, self.num_probes, BOUND_CONFIDENCE, complex_valued=self._complex
        )
        pinned = sum(atom.shift for atom in d.atoms if atom.value in d.pinned) / d.n
        return float(d.rest_dimension / d.n * (quadrature_wasserstein(d) + sampling) + pinned + node_rounding(self.run, d.rules))

    # -- views -----------------------------------------------------------------------------------------------------------

    def log(self) -> LogSpectrum:
        """The spectrum of ``log10 |lambda|``, positive and negative part, with the unresolved region below the noise floor."""
        return log_spectrum(self)

    def explain(self) -> str:
        """Five plain sentences: what is resolved, what is noise, what these probes cannot say."""
        return explain(self)

    def plot(self, path: PathLike | None = None, ax: Any = None) -> Any:
        """Draw the spectrum; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from ..plots import spectrum

        axes = spectrum(self, ax=ax)
        if path is not None:
            figure: Any = axes.figure
            figure.savefig(path)
        return axes

    def save(self, path: PathLike) -> None:
        """Write coefficients and settings to `path` (``.npz``, a few kB); `linop_spectra.load` reads them back."""
        scalars, arrays = self.run._to_file()
        save_result(
            path, "spectral density",
            {"run": scalars, "pin": self.pin, "notes": list(self.notes), "tolerance_met": self.tolerance_met}, arrays,
        )  # fmt: skip

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> SpectralDensity:
        run = LanczosResult._from_file(scalars.pop("run"), arrays)
        return cls(run, scalars["pin"], tuple(scalars["notes"]), scalars["tolerance_met"])

    def __str__(self) -> str:
        rows = summary_rows(self)
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}s}  {value}" for name, value in rows)

    def __repr__(self) -> str:
        return f"SpectralDensity(n={self.dimension}, num_steps={self.num_steps}, num_probes={self.num_probes}, status={self.status!r})"

    def _repr_html_(self) -> str:
        return html_table(summary_rows(self))


def quadrature_wasserstein(d: Deflation) -> float:
    """Mean over the probes of the quadrature part of the Wasserstein bound, of what is not pinned."""
    parts = []
    for rule, (nodes, weights) in zip(d.rules, d.rest, strict=True):
        low, high = rule.nodes[0] - rule.residuals[0], rule.nodes[-1] + rule.residuals[-1]
        if len(nodes) and nodes[0] > rule.nodes[0]:
            low = nodes[0]  # what lies below is pinned
        if len(nodes) and nodes[-1] < rule.nodes[-1]:
            high = nodes[-1]
        parts.append(0.0 if rule.exact else bounds.wasserstein(nodes, weights, low, high))
    return float(np.mean(parts))


def _itself(x: np.ndarray) -> np.ndarray:
    return x


def _check_level(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The argument confidence must lie strictly between 0 and 1, but is {confidence!r}.")


__all__ = ["Outlier", "SpectralDensity"]
