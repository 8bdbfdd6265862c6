"""Comparison of two measured spectra, with a verdict that knows what random probes alone do."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy

from ..krylov.lanczos import check_count
from ..results import Estimate, PathLike, html_table, register, save_result
from . import two_sample
from .density import SpectralDensity
from .distances import kolmogorov_distance, wasserstein_distance
from .slq import spectral_density

_DISTANCE_DRAWS = 199


@dataclasses.dataclass(frozen=True)
class Distance:
    """A distance of two measured spectra, beside what the same spectrum measured twice would have given.

    Attributes
    ----------
    value : float
        Between the two measurements. It is never zero for two runs, not even of one matrix.
    low, high : float
        Interval for the distance of the two spectra themselves; NaN where none is known.
    null : float
        Mean of what two such runs on one spectrum give.
    null_quantile : float
        What such runs exceed with probability 5 %.

    Examples
    --------
    >>> Distance(0.2, 0.15, 0.25, 0.03, 0.04).beyond_chance
    True
    """

    value: float
    low: float
    high: float
    null: float
    null_quantile: float

    @property
    def beyond_chance(self) -> bool:
        """Whether it is larger than one spectrum gives in 95 of 100 cases."""
        return self.value > self.null_quantile

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f", interval {self.low:.3g} to {self.high:.3g}"
        return f"{self.value:.3g} (one spectrum gives {self.null:.3g}, at most {self.null_quantile:.3g} in 95 of 100 cases{interval})"


@register("spectrum comparison")
@dataclasses.dataclass(frozen=True, eq=False)
class SpectrumComparison:
    """How two spectra differ, and whether they do beyond the noise of the probes.

    Attributes
    ----------
    distinguishable : bool
        Whether one spectrum would give as different runs with probability less than `level`.
    p_value : float
        That probability: twice the smaller of `p_values`, at most one.
    level : float
        Of the verdict.
    p_values : dict of str to float
        ``"moments"``: the orthonormal moments of what both runs have not pinned; ``"eigenvalues"``: isolated eigenvalues of one run that
        the other has no room for.
    missing : dict or None
        The isolated eigenvalue that speaks most against one spectrum, with keys ``"value"``, ``"found_in"`` ("a" or "b") and ``"p_value"``.
    wasserstein : Distance
        Wasserstein-1 distance, in units of an eigenvalue.
    kolmogorov : Distance
        Kolmogorov distance.
    jensen_shannon : Distance
        Jensen-Shannon divergence of the densities smoothed by Gaussians of one `bandwidth`, in nats; it has no interval.
    bandwidth : float
        Standard deviation of those Gaussians, in units of an eigenvalue.
    trace, largest_eigenvalue, smallest_eigenvalue, negative_mass : Estimate
        Differences, b less a. Of the extreme eigenvalues the residuals are the error; a run that has not converged says less than that.
    num_common : int
        Isolated eigenvalues that both runs pinned at the same places: they are known to be equal and take no part in the moments.
    dimensions, num_steps, num_probes : tuple of int
        Of both runs.
    num_bootstrap : int
        Draws of the null.
    num_matvecs : int
        Products that the comparison took itself, where it was given operators.
    seconds : float
        Wall-clock time.
    notes : tuple of str
        What a reader should know.
    curves : mapping of str to numpy.ndarray
        What the figure draws.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.spectra.compare import compare
    >>> A, B = (ls.diagonal_operator(np.linspace(0.0, top, 2000)) for top in (1.0, 1.2))
    >>> one, two, other = (ls.spectral_density(x, num_steps=30, seed=seed) for x, seed in ((A, 0), (A, 1), (B, 2)))
    >>> compare(one, two).distinguishable, compare(one, other).distinguishable
    (False, True)
    """

    distinguishable: bool
    p_value: float
    level: float
    p_values: dict[str, float]
    missing: dict[str, Any] | None
    wasserstein: Distance
    kolmogorov: Distance
    jensen_shannon: Distance
    bandwidth: float
    trace: Estimate
    largest_eigenvalue: Estimate
    smallest_eigenvalue: Estimate
    negative_mass: Estimate
    num_common: int
    dimensions: tuple[int, int]
    num_steps: tuple[int, int]
    num_probes: tuple[int, int]
    num_bootstrap: int
    num_matvecs: int
    seconds: float
    notes: tuple[str, ...]
    curves: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    @property
    def verdict(self) -> str:
        """One sentence."""
        size = self._size()
        if not self.distinguishable:
            return f"The two spectra are not distinguishable: runs on one spectrum differ as much by chance ({size}, level {self.level:g})."
        reasons = []
        if self.missing is not None and 2 * self.p_values["eigenvalues"] < self.level:
            other = "b" if self.missing["found_in"] == "a" else "a"
            reasons.append(f"{self.missing['found_in']} has the eigenvalue {self.missing['value']:.6g}, for which {other} has no room")
        if 2 * self.p_values["moments"] < self.level:
            reasons.append("their moments differ by more than random probes explain")
        return f"The two spectra are different ({size}): {', and '.join(reasons)}."

    def _size(self) -> str:
        """The p-value as far as it is known: draws know nothing below their number, and a bound in its far tail is no probability."""
        floor = 2 / (self.num_bootstrap + 1)
        if self.p_value < 1e-4:
            return "p < 1e-4"
        return f"p <= {floor:.2g}" if floor / 2 <= self.p_value <= floor else f"p = {self.p_value:.3g}"

    def __str__(self) -> str:
        lines = [self.verdict]
        lines += [f"{name:26s} {value}" for name, value in self._rows()]
        return "\n".join([*lines, *self.notes])

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("Wasserstein distance", str(self.wasserstein)), ("Kolmogorov distance", str(self.kolmogorov)),
            (f"Jensen-Shannon, σ = {self.bandwidth:.2g}", str(self.jensen_shannon)), ("trace, b - a", str(self.trace)),
            ("largest eigenvalue, b - a", str(self.largest_eigenvalue)), ("smallest eigenvalue, b - a", str(self.smallest_eigenvalue)),
            ("negative mass, b - a", str(self.negative_mass)), ("equal isolated eigenvalues", f"{self.num_common}"),
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        return html_table([("verdict", self.verdict), *self._rows(), *(("note", note) for note in self.notes)])

    def plot(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw both densities, and the difference of their distribution functions with the band of chance; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.
        axes : sequence of two matplotlib.axes.Axes, optional
            Axes to draw on.

        Returns
        -------
        numpy.ndarray
            The two axes.
        """
        from ..plots.comparison import spectrum_comparison

        panels = spectrum_comparison(self, axes)
        if path is not None:
            panels[0].figure.savefig(path)
        return panels

    def save(self, path: PathLike) -> None:
        """Write the comparison to `path` (``.npz``); `linop_spectra.load` reads it back."""
        fields = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            fields[field.name] = dataclasses.asdict(value) if isinstance(value, Distance | Estimate) else value
        del fields["curves"]
        save_result(path, "spectrum comparison", fields, dict(self.curves))

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> SpectrumComparison:
        fields = dict(scalars)
        for name in ("wasserstein", "kolmogorov", "jensen_shannon"):
            fields[name] = Distance(**scalars[name])
        for name in ("trace", "largest_eigenvalue", "smallest_eigenvalue", "negative_mass"):
            fields[name] = Estimate(**scalars[name])
        for name in ("dimensions", "num_steps", "num_probes", "notes"):
            fields[name] = tuple(scalars[name])
        return cls(**fields, curves=arrays)


def compare(
    a: Any,
    b: Any,
    *,
    level: float = 0.01,
    num_bootstrap: int = 999,
    bandwidth: float | None = None,
    confidence: float = 0.95,
    num_steps: int | None = None,
    num_probes: int | Literal["auto"] = "auto",
    seed: int = 0,
) -> SpectrumComparison:
    """Test whether two measured spectra are those of one matrix, and how far they are apart.

    The null is one spectrum, seen by independent random probes. Isolated eigenvalues that both runs pinned at the same place are set
    aside; one that only one run has speaks with the exact law of the weight that probes give an eigenvalue.

    Parameters
    ----------
    a, b : SpectralDensity, LinearOperator or what `aslinearoperator` takes
        The spectra, of any two orders. Operators are measured first, `a` with probes of the seed `seed` and `b` of ``seed + 1``.
    level : float
        Probability with which one spectrum, measured twice, is called two: the verdict's.
    num_bootstrap : int
        Draws of the null, at least 19.
    bandwidth : float, optional
        Standard deviation of the Gaussians for the Jensen-Shannon divergence; by default the width of both bulks over the smaller number
        of steps.
    confidence : float
        Of the intervals of distances.
    num_steps, num_probes
        Where operators are measured; as for `linop_spectra.spectral_density`.
    seed : int
        Of the draws, and of the probes where operators are measured.

    Returns
    -------
    SpectrumComparison
        It prints as a verdict and a table.

    Raises
    ------
    TypeError
        When an argument is a law; `linop_spectra.random_matrices.compare` tests a measurement against one.
    ValueError
        When an argument is out of range.

    Notes
    -----
    Two runs with the same seed share their probes, so that chance moves them alike and the test is conservative; give them different
    seeds to test, and the same seed to see a small change of one matrix.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.spectra.compare import compare
    >>> wigner = ls.random_matrices.wigner(500, seed=0)
    >>> result = compare(wigner, 1.1 * wigner, num_steps=20)
    >>> result.distinguishable
    True
    >>> print(result.verdict)
    The two spectra are different (p <= 0.002): their moments differ by more than random probes explain.
    """
    began = time.perf_counter()
    for name, value in (("level", level), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"The argument {name} must lie strictly between 0 and 1, but is {value!r}.")
    if check_count("num_bootstrap", num_bootstrap) < 19:
        raise ValueError(f"The argument num_bootstrap is {num_bootstrap}, but a p-value needs at least 19 draws.")
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"The argument bandwidth must be positive and finite, but is {bandwidth!r}.")
    spent = 0
    measured = []
    for name, given, own_seed in (("a", a, seed), ("b", b, seed + 1)):
        if not isinstance(given, SpectralDensity):
            given = _measure(name, given, num_steps, num_probes, own_seed)
            spent += given.num_matvecs
        measured.append(given)
    one, other = measured
    rng = np.random.default_rng(seed)
    first, second, common = two_sample.samples(one, other)
    by_moments, _ = two_sample.smooth_test(first, second, num_bootstrap, rng)
    by_eigenvalues, missing = two_sample.eigenvalue_test(one, other)
    p_value = min(1.0, 2 * min(by_moments, by_eigenvalues))
    null = two_sample.distance_null(first, second, common, min(num_bootstrap, _DISTANCE_DRAWS), rng)
    width = two_sample.common_bandwidth(one, other) if bandwidth is None else float(bandwidth)
    smoother = two_sample.Smoother(np.concatenate([one.nodes, other.nodes]), width)
    divergence = float(two_sample.jensen_shannon(*(smoother.masses(S.nodes, S.weights) for S in measured)))
    divergences = two_sample.jensen_shannon_null(smoother, first, second, common, min(num_bootstrap, _DISTANCE_DRAWS), rng)
    return SpectrumComparison(
        distinguishable=p_value < level, p_value=p_value, level=float(level),
        p_values={"moments": by_moments, "eigenvalues": by_eigenvalues},
        missing=None if missing is None else dataclasses.asdict(missing),
        wasserstein=_distance(wasserstein_distance(one, other), null.wasserstein, null.wasserstein_errors, confidence, math.inf),
        kolmogorov=_distance(kolmogorov_distance(one, other), null.kolmogorov, null.kolmogorov_errors, confidence, 1.0),
        jensen_shannon=Distance(
            divergence, math.nan, math.nan, float(np.mean(divergences)), float(np.quantile(divergences, 0.95))
        ),
        bandwidth=width, trace=_difference(one.trace(), other.trace()),
        largest_eigenvalue=_extreme(one, other, 1), smallest_eigenvalue=_extreme(one, other, 0),
        negative_mass=_negative_mass(one, other), num_common=len(common), dimensions=(one.dimension, other.dimension),
        num_steps=(one.num_steps, other.num_steps), num_probes=(one.num_probes, other.num_probes), num_bootstrap=int(num_bootstrap),
        num_matvecs=spent, seconds=time.perf_counter() - began, notes=tuple(_notes(one, other)),
        curves=_curves(one, other, smoother, confidence),
    )  # fmt: skip


def _measure(name: str, given: Any, num_steps: int | None, num_probes: int | Literal["auto"], seed: int) -> SpectralDensity:
    if hasattr(given, "cdf") and not hasattr(given, "matmat"):
        raise TypeError(
            f"The argument {name} is a {type(given).__name__}, which has a distribution function and no probes; "
            "linop_spectra.random_matrices.compare tests a measurement against a law."
        )
    return spectral_density(given, num_steps=num_steps, num_probes=num_probes, seed=seed)


def _distance(value: float, null: np.ndarray, errors: np.ndarray, confidence: float, most: float) -> Distance:
    """By the triangle inequality: both runs together are off by `errors` at most."""
    reach = float(np.quantile(errors, confidence))
    return Distance(value, max(0.0, value - reach), min(most, value + reach), float(np.mean(null)), float(np.quantile(null, 0.95)))


def _difference(a: Estimate, b: Estimate) -> Estimate:
    """``b - a`` of independent estimates; degrees of freedom by Welch and Satterthwaite."""
    variances = a.standard_error**2, b.standard_error**2
    total = sum(variances)
    weights = sum(v**2 / d for v, d in zip(variances, (a.degrees_of_freedom, b.degrees_of_freedom), strict=True) if v > 0)
    return Estimate(
        value=b.value - a.value, standard_error=math.sqrt(total), quadrature_error=a.quadrature_error + b.quadrature_error,
        rounding_error=a.rounding_error + b.rounding_error, num_matvecs=a.num_matvecs + b.num_matvecs,
        degrees_of_freedom=total**2 / weights if weights > 0 else math.inf, seconds=a.seconds + b.seconds,
        method="difference of two runs", converged=a.converged and b.converged,
    )  # fmt: skip


def _extreme(a: SpectralDensity, b: SpectralDensity, end: int) -> Estimate:
    (x, own), (y, others) = a.extreme_eigenvalues()[end], b.extreme_eigenvalues()[end]
    return Estimate(
        value=y - x, quadrature_error=own + others, rounding_error=a.noise_floor + b.noise_floor, num_matvecs=a.num_matvecs + b.num_matvecs,
        seconds=a.seconds + b.seconds, method="difference of Ritz values", converged=a.converged and b.converged,
    )  # fmt: skip


def _negative_mass(a: SpectralDensity, b: SpectralDensity) -> Estimate:
    """Difference of the middles of both brackets; half of their widths is the quadrature error."""
    middle, half, variance = [], 0.0, 0.0
    for S in (a, b):
        low, high = S.negative_mass()
        middle.append((low + high) / 2)
        half += (high - low) / 2
        draws = S.num_probes * (S.dimension + 2) / 2
        if np.dtype(S.run.dtype).kind == "c":
            draws = S.num_probes * (S.dimension + 1)
        variance += middle[-1] * (1 - middle[-1]) / draws
    return Estimate(
        value=middle[1] - middle[0], standard_error=math.sqrt(variance), quadrature_error=half, num_matvecs=a.num_matvecs + b.num_matvecs,
        seconds=a.seconds + b.seconds, method="difference of Gauss-Radau brackets", converged=a.converged and b.converged,
    )  # fmt: skip


def _notes(a: SpectralDensity, b: SpectralDensity) -> list[str]:
    notes = []
    if a is not b and a.dimension == b.dimension and (a.run.seed, a.run.start_digest) == (b.run.seed, b.run.start_digest):
        notes.append(
            f"Both runs have the same probes (seed {a.run.seed}): chance moves them alike, and the test is conservative; another seed for "
            "one of them makes it sharp."
        )
    if a.dimension != b.dimension:
        notes.append(f"The orders differ ({a.dimension:,} and {b.dimension:,}): distributions are compared, and traces are of other sizes.")
    for name, S in (("a", a), ("b", b)):
        if S.status != "complete":
            notes.append(f"The run of {name} was cut short ({S.status}).")
    return notes


def _curves(a: SpectralDensity, b: SpectralDensity, smoother: two_sample.Smoother, confidence: float) -> dict[str, np.ndarray]:
    """Densities without outliers over both bulks, and the difference of the distribution functions with its standard error."""
    edges = np.array([S.bulk_edges() for S in (a, b)])
    low, high = float(edges[:, 0].min()), float(edges[:, 1].max())
    margin = 0.08 * (high - low) or 0.1 * max(abs(low), 1.0)
    x = np.linspace(low - margin, high + margin, 400)
    curves = {"x": x, "bulk": np.array([low, high])}
    variance = np.zeros(x.shape)
    for name, S in (("a", a), ("b", b)):
        curves[f"density_{name}"] = np.asarray(S.density(x, outliers=False))
        curves[f"low_{name}"], curves[f"high_{name}"] = S.density_band(x, confidence=confidence)
        curves[f"cdf_{name}"] = np.asarray(S.cdf(x, method="gaussian"))
        outliers = S.outliers()
        curves[f"outliers_{name}"] = np.array([outlier.value for outlier in outliers])
        # Of pinned eigenvalues the share is known.
        d = S.deflation
        rest = max(d.rest_dimension, 1) / d.n
        share = np.clip((curves[f"cdf_{name}"] - np.searchsorted(d.pinned, x) / d.n) / rest, 0, 1)
        draws = S.num_probes * ((S.dimension + 1) if np.dtype(S.run.dtype).kind == "c" else (S.dimension + 2) / 2)
        variance += rest**2 * share * (1 - share) / draws
    curves["cdf_band"] = float(scipy.stats.norm.ppf(0.5 + confidence / 2)) * np.sqrt(variance)
    return curves
