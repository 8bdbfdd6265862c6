"""The spectral density of an operator: a discrete measure with bounds, and views of it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from ..krylov import LanczosResult
from ..results import PathLike, html_table, register, save_result
from . import bounds, quadrature, quantiles, smoothing
from .deflation import node_rounding
from .explain import explain, summary_rows
from .kpm import Kernel
from .log_spectrum import LogSpectrum, log_spectrum
from .measure import SpectralMeasure
from .smoothing import Broadening, Method, Model

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
class SpectralDensity(SpectralMeasure):
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
    >>> bool(abs(S.density(0.5, method="kpm") - 1.0) < 0.1)
    True
    """

    @functools.cached_property
    def _views(self) -> dict[tuple[Method, int | None, Kernel | None], tuple[smoothing.Split, list[tuple[Model, float]]]]:
        """Models of the smooth views that were asked for so far."""
        return {}

    # -- distribution --------------------------------------------------------------------------------------------------

    def cdf(
        self, x: Any, method: Literal["step"] | Method = "step", *, num_moments: int | None = None, kernel: Kernel | None = None
    ) -> Any:
        """Share of eigenvalues at or below `x`; the shape of `x`.

        Parameters
        ----------
        x : array
            Points.
        method : {"step", "gaussian", "pchip", "kpm", "terminator", "maxent"}
            ``"step"`` is the distribution function of the measure itself; the others are those of the smooth views of `density`.
        num_moments, kernel
            As for `density`.
        """
        x = np.asarray(x, dtype=np.float64)
        smoothing.check_options(method, "adaptive", num_moments, kernel, step=True)
        if method == "step":
            steps = np.concatenate([[0.0], np.cumsum(self.weights)])
            # Rounding moves a node to either side of the eigenvalue: what lies at x up to the noise floor counts.
            at = x + self.noise_floor
            out = np.where(at >= self.nodes[-1], 1.0, np.minimum(steps[np.searchsorted(self.nodes, at, side="right")], 1.0))
        elif method == "gaussian":
            out = smoothing.gaussian_cdf(self, x, "adaptive")
        else:
            out = np.clip(smoothing.evaluate(self, x, "cdf", method, num_moments, kernel, outliers=True), 0.0, 1.0)
        return float(out) if out.ndim == 0 else out

    def cdf_band(self, x: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Interval for the share of eigenvalues at or below each `x`: quadrature envelope, exact sampling law and noise floor.

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
        d, floor = self.deflation, self.noise_floor
        low, high = np.zeros(x.shape), np.zeros(x.shape)
        for rule, (nodes, weights) in zip(d.rules, d.rest, strict=True):
            low = low + bounds.envelope(nodes, weights, x - floor, exact=rule.exact)[0] / len(d.rules)
            high = high + bounds.envelope(nodes, weights, x + floor, exact=rule.exact)[1] / len(d.rules)
        if d.rest_dimension:
            low, high = bounds.sampling_interval(
                low, high, d.rest_dimension, self.num_probes, confidence, complex_valued=self._complex
            )
        share = d.rest_dimension / d.n
        below, above = (np.searchsorted(d.pinned, x + move, side="right") / d.n for move in (-floor, floor))
        return np.clip(below + share * low, 0, 1), np.clip(above + share * high, 0, 1)

    def quantile(self, q: Any, *, interpolate: bool = False) -> Any:
        """Place below which a share `q` of the eigenvalues lies; the shape of `q`.

        Parameters
        ----------
        q : array
            Shares between 0 and 1.
        interpolate : bool
            False gives the smallest node whose cumulative mass reaches `q`. True reads the monotone cubic curve through the
            middles of the steps (``method="pchip"``), which is closer for a smooth bulk; outliers stay steps.
        """
        q = quantiles.check_probabilities(q)
        if interpolate:
            out = quantiles.interpolated(self, q)
        else:
            index = np.searchsorted(np.cumsum(self.weights) + quantiles.ROUNDING, q, side="left")
            out = self.nodes[np.minimum(index, len(self.nodes) - 1)]
        return float(out) if out.ndim == 0 else out

    def quantile_band(self, q: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Interval for each quantile, by inverting `cdf_band`: quadrature envelope, sampling law and rounding.

        Parameters
        ----------
        q : array
            Shares between 0 and 1.
        confidence : float
            Of the sampling part, for each quantile on its own.

        Returns
        -------
        tuple of numpy.ndarray
            Lower and upper end. Where the band leaves an end of the spectrum open, that of `interval` is taken.
        """
        _check_level(confidence)
        return quantiles.quantile_band(self, quantiles.check_probabilities(q), confidence)

    def density(
        self,
        x: Any,
        broadening: Broadening = "adaptive",
        outliers: bool = True,
        *,
        method: Method = "gaussian",
        num_moments: int | None = None,
        kernel: Kernel | None = None,
    ) -> Any:
        """Smooth density of the eigenvalues at `x`; over the line it integrates to one.

        Whatever the method, outliers and isolated multiple eigenvalues are taken out first and drawn as narrow Gaussians.

        Parameters
        ----------
        x : array
            Points.
        broadening : "adaptive" or float
            Of ``method="gaussian"``: the width, 0.75 times the local distance of the nodes, or one number for all.
        outliers : bool
            Whether what `outliers` returns is part of it. In a figure they are better drawn as sticks.
        method : {"gaussian", "pchip", "kpm", "terminator", "maxent"}
            ``"gaussian"``: a Gaussian for each node; good at any number of steps. ``"pchip"``: slope of a monotone cubic through
            the middles of the steps of `cdf`; nearest to a smooth bulk at few steps. ``"kpm"``: damped Chebyshev series, with the
            resolution ``pi d / N`` at the centre for N moments and half-width d. ``"terminator"``: continued fraction that goes on
            with the limits of the coefficients; at few steps it has the sharpest edges of a bulk on one interval.
            ``"maxent"``: the density of maximum entropy with the same moments.
        num_moments : int, optional
            Chebyshev moments beyond the mass, of ``"kpm"`` and ``"maxent"``; by default all, at most 40 for ``"maxent"``, and at
            most half of the order.
        kernel : {"jackson", "lorentz", "none"}, optional
            Damping of ``"kpm"``, Jackson's by default. Without one the series can be negative beside sharp edges.

        Returns
        -------
        array
            Density, in units of one over an eigenvalue, the shape of `x`.

        Raises
        ------
        ValueError
            When the method is unknown, or an option does not belong to it.
        """
        x = np.asarray(x, dtype=np.float64)
        smoothing.check_options(method, broadening, num_moments, kernel)
        if method == "gaussian":
            out = smoothing.gaussian(self, x, broadening, outliers)[0]
        else:
            out = smoothing.evaluate(self, x, "density", method, num_moments, kernel, outliers=outliers)
        return float(out) if out.ndim == 0 else out

    def density_band(self, x: Any, confidence: float = 0.95, broadening: Broadening = "adaptive") -> tuple[np.ndarray, np.ndarray]:
        """Interval for the density of the bulk by Gaussians at each `x`: what other probes would have changed.

        The standard error is ``sqrt(2 Var_spec(K) / (p (n + 2)))`` for the kernel K at `x`, exact for sphere probes.
        """
        from scipy import stats

        _check_level(confidence)
        x = np.asarray(x, dtype=np.float64)
        total, first, second = smoothing.gaussian(self, x, broadening, outliers=False)
        n = self.deflation.rest_dimension
        draws = self.num_probes * ((n + 1) if self._complex else (n + 2) / 2)
        share = max(n / self.dimension, np.finfo(float).tiny)
        error = np.sqrt(np.maximum(second * share - first**2, 0) / draws)
        half = stats.norm.ppf(0.5 + confidence / 2) * error
        return np.maximum(total - half, 0), total + half

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
        return sum(self._wasserstein_parts)

    @functools.cached_property
    def _wasserstein_parts(self) -> tuple[float, float]:
        """What more steps would reduce (and rounding), and what more probes would."""
        d = self.deflation
        nodes = np.concatenate([x for x, _ in d.rest])
        weights = np.concatenate([w for _, w in d.rest]) / len(d.rest)
        order = np.argsort(nodes, kind="stable")
        sampling = bounds.sampling_wasserstein(
            nodes[order], weights[order], d.rest_dimension, self.num_probes, BOUND_CONFIDENCE, complex_valued=self._complex
        )
        pinned = sum(atom.shift for atom in d.atoms if atom.value in d.pinned) / d.n
        share = d.rest_dimension / d.n
        return float(share * bounds.mean_wasserstein(d) + pinned + node_rounding(self.run, d.rules)), float(share * sampling)

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


def _check_level(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The argument confidence must lie strictly between 0 and 1, but is {confidence!r}.")


__all__ = ["Outlier", "SpectralDensity"]
