"""Tests of a measured spectrum against a law: distances, coefficients, and p-values that account for the probes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...operators import LinearOperator
from ...results import PathLike, html_table, register, save_result
from ...spectra import SpectralDensity, spectral_density
from ..laws.law import SpectralLaw, check_whole
from . import comparison_statistics as statistics
from .comparison_figure import figure_data
from .dirichlet_bootstrap import draw_coefficients, law_coefficients, most_steps
from .families import Family, check_family, is_family
from .fit import fit_measurement, tail_start
from .full_spectrum import compare_eigenvalues, describe
from .measurement import Measurement, check_density, check_law, measurement

TESTS = ("jacobi", "wasserstein", "kolmogorov")


@register("law comparison")
@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """How far a measured spectrum is from a law, and how often chance alone gives as much.

    Attributes
    ----------
    law : str
        The law, with its parameters.
    wasserstein : float
        Wasserstein-1 distance between the Gauss rule of the measurement and that of the law with as many steps, in units of an
        eigenvalue. For a complete list of eigenvalues, that between them and the law.
    kolmogorov : float
        Largest difference of the two distribution functions, half-way between the nodes of the law's rule. For a complete list of
        eigenvalues, the Kolmogorov distance between them and the law.
    jacobi : float
        Root mean square of the differences of the Lanczos coefficients from those that the law gives, each in standard deviations of
        what other probes and other matrices would give: about 1 for the right law. NaN for a list of eigenvalues.
    p_values : dict of str to float
        Of each test on its own.
    p_value : float
        Of all tests together: the chance that the smallest of the p-values is as small under the law. Its smallest value is one over
        the number of draws plus one. NaN where no null is known.
    fitted : dict of str to float
        Parameters that were fitted, empty for a given law. The p-values then hold for the family: every draw was fitted as well.
    num_steps : int
        Lanczos steps that were compared.
    num_probes : int
        Probes.
    dimension : int
        Eigenvalues that were compared.
    num_bootstrap : int
        Draws of the null.
    num_matvecs : int
        Products with the operator that the comparison took itself.
    seconds : float
        Wall-clock time.
    excluded : tuple of float
        Outliers that were left out.
    notes : tuple of str
        What a reader should know.
    curves : mapping of str to numpy.ndarray
        What the figure draws; see `plots.law_comparison`.
    """

    law: str
    wasserstein: float
    kolmogorov: float
    jacobi: float
    p_values: dict[str, float]
    p_value: float
    fitted: dict[str, float]
    num_steps: int
    num_probes: int
    dimension: int
    num_bootstrap: int
    num_matvecs: int
    seconds: float
    excluded: tuple[float, ...]
    notes: tuple[str, ...]
    curves: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return " ".join(self._sentences())

    def _sentences(self) -> list[str]:
        floor = 1 / (self.num_bootstrap + 1)
        if np.isnan(self.p_value):
            verdict = f"No p-value is known for {self.law}."
        else:
            size = f"p <= {floor:.2g}" if self.p_value <= floor else f"p = {self.p_value:.3g}"
            subject = f"the family of {self.law}" if self.fitted else self.law
            words = ((0.01, "does not follow"), (0.05, "is hard to reconcile with"), (np.inf, "is consistent with"))
            word = next(word for level, word in words if self.p_value < level)
            verdict = f"The spectrum {word} {subject}: {size} ({self.num_bootstrap} draws)."
        parts = [verdict]
        if self.num_steps:
            parts.append(
                f"The coefficients of {self.num_steps} Lanczos steps ({self.num_probes} probe{'s' if self.num_probes != 1 else ''}) are "
                f"{self.jacobi:.3g} standard deviations off (root mean square; 1 is what chance gives)."
            )
        parts.append(f"The Wasserstein distance is {self.wasserstein:.3g}, the Kolmogorov distance {self.kolmogorov:.3g}.")
        if len(self.p_values) > 1:
            parts.append("Each test alone: " + ", ".join(f"{name} p = {value:.3g}" for name, value in self.p_values.items()) + ".")
        return [*parts, *self.notes]

    def _repr_html_(self) -> str:
        rows = [
            ("law", self.law), ("p-value", f"{self.p_value:.3g}"), *((f"p-value, {name}", f"{p:.3g}") for name, p in self.p_values.items()),
            ("Wasserstein distance", f"{self.wasserstein:.4g}"), ("Kolmogorov distance", f"{self.kolmogorov:.4g}"),
            ("coefficients, rms deviation", f"{self.jacobi:.3g}"), ("draws of the null", f"{self.num_bootstrap}"),
        ]  # fmt: skip
        return html_table(rows + [("note", note) for note in self.notes])

    def plot(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw the law over the measurement with the band of the null, and the coefficients beside it; needs matplotlib.

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
        from ...plots.law import law_comparison

        panels = law_comparison(self, axes)
        if path is not None:
            panels[0].figure.savefig(path)
        return panels

    def save(self, path: PathLike) -> None:
        """Write the comparison to `path` (``.npz``); `linop_spectra.load` reads it back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "curves"}
        save_result(path, "law comparison", fields, dict(self.curves))

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Comparison:
        return cls(**{**scalars, "excluded": tuple(scalars["excluded"]), "notes": tuple(scalars["notes"])}, curves=arrays)


def compare(
    density: Any,
    law: Any,
    *,
    tests: Iterable[str] = TESTS,
    num_bootstrap: int = 999,
    seed: int = 0,
    exclude_outliers: bool = False,
    num_steps: int | None = None,
    num_probes: Any = "auto",
    beta: int | None = None,
) -> Comparison:
    """Test of a measured spectrum against a law, or against a family of laws.

    The null is a random matrix of the same order that follows the law, seen by as many probes and Lanczos steps: its draws come from
    the Dirichlet bootstrap, with eigenvalues that fluctuate as those of a random matrix do. Of one matrix that is known to have the
    quantiles of the law exactly the test is slightly conservative. Steps beyond ``sqrt(n) / 2`` are not used: they show single
    eigenvalues, which a limiting law does not determine.

    Parameters
    ----------
    density : SpectralDensity, LinearOperator or array
        The measurement. An operator is measured first. A 1-D array is taken as all eigenvalues of a matrix; their distances from the
        law are then tested at the scale of rigidity, 1/n, against draws of the Gaussian ensemble (`Semicircle`) or Wishart matrices
        (`MarchenkoPastur`); for other laws no null is known, and the p-value is NaN.
    law : SpectralLaw, str or class
        The law; or the family ``"semicircle"`` or ``"marchenko_pastur"`` (or their classes), whose parameters are fitted to the
        measurement, and again to every draw, so that fitting does not flatter.
    tests : iterable of str
        ``"jacobi"``: the Lanczos coefficients, whitened; the sharpest for scale and edges. ``"wasserstein"`` and ``"kolmogorov"``:
        distances between the Gauss rule of the measurement and that of the law with as many steps. `p_value` combines those named.
    num_bootstrap : int
        Draws of the null, at least 19.
    seed : int
        Of the draws, and of the probes where an operator is measured.
    exclude_outliers : bool
        Whether to leave out the converged outliers of the measurement (`SpectralDensity.outliers`) and test the bulk alone.
    num_steps : int, optional
        Lanczos steps: to take where an operator is measured, to use of a density.
    num_probes : int or "auto"
        Probes, where an operator is measured.
    beta : {1, 2}, optional
        Whether the matrices of the null are real or complex; by default as the operator, and real for a list of eigenvalues.

    Returns
    -------
    Comparison
        Distances and p-values; it prints as a few sentences.

    Raises
    ------
    TypeError
        When `density` is a curve without its measure, or `law` is none.
    ValueError
        When an argument is out of range, or the run lost orthogonality.

    References
    ----------
    I. Dumitriu and A. Edelman, J. Math. Phys. 43 (2002), for the law of the coefficients; K. Johansson, Duke Math. J. 91 (1998), for the
    fluctuation of the eigenvalues.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> from linop_spectra.random_matrices.comparison.comparison import compare
    >>> density = ls.spectral_density(ls.random_matrices.wishart(300, 1200, seed=1), num_steps=30)
    >>> compare(density, ls.random_matrices.MarchenkoPastur(ratio=0.25)).p_value > 0.01
    True
    >>> compare(density, ls.random_matrices.MarchenkoPastur(ratio=0.5)).p_value
    0.001
    """
    began = time.perf_counter()
    chosen = _check_tests(tests)
    count = check_whole("num_bootstrap", num_bootstrap, 19)
    rng = np.random.default_rng(check_whole("seed", seed, 0))
    if beta not in (None, 1, 2):
        raise ValueError(f"The argument beta must be 1 (real) or 2 (complex), but is {beta!r}.")
    kind = check_family(law) if is_family(law) else None
    if kind is None:
        check_law(law)
    if isinstance(density, np.ndarray) or (isinstance(density, (list, tuple)) and np.ndim(density) == 1):
        found = compare_eigenvalues(density, kind or law, count, rng, beta or 1, [test for test in chosen if test != "jacobi"])
        return Comparison(**found, num_matvecs=0, seconds=time.perf_counter() - began)
    spent = 0
    if not isinstance(density, SpectralDensity) and (isinstance(density, LinearOperator) or hasattr(density, "matmat")):
        density = spectral_density(density, num_steps=num_steps, num_probes=num_probes, seed=seed)
        spent = density.num_matvecs
    density = check_density(density)
    measured = measurement(density, exclude_outliers=exclude_outliers)
    if beta is not None:
        measured = dataclasses.replace(measured, beta=beta)
    if num_steps is not None:
        measured = measured.first(check_whole("num_steps", num_steps, 2))
    family: Family | None = None
    if kind is not None:
        family, values, used = fit_measurement(measured, kind)
        law = family.law(values)
    else:
        used = measured.first(most_steps(law, measured.dimension))
    return _compare(density, law, family, used, chosen, count, rng, spent, began)


def _compare(
    density: SpectralDensity, law: SpectralLaw, family: Family | None, used: Measurement, chosen: tuple[str, ...], count: int,
    rng: np.random.Generator, spent: int, began: float,
) -> Comparison:  # fmt: skip
    k, probes = used.num_steps, len(used.alphas)
    alphas, betas = draw_coefficients(law, used.dimension, k, probes, count, rng, beta=used.beta)
    alphas, betas = np.concatenate([used.alphas[None], alphas]), np.concatenate([used.betas[None], betas])
    fitted: dict[str, float] = {}
    if family is None:
        of_law = tuple(part[None] for part in law_coefficients(law, k))
    else:  # a fit may use more steps than the test
        values = family.estimate(alphas.mean(axis=1), betas.mean(axis=1), used.dimension, tail_start(k))
        k = min(k, most_steps(law, used.dimension))
        of_law = family.coefficients(values, k)
        fitted = {name: float(value) for name, value in zip(family.parameters, values[0], strict=True)}
        used, alphas, betas = used.first(k), alphas[:, :, :k], betas[:, :, : k - 1]
    means = alphas.mean(axis=1), betas.mean(axis=1)
    rows = np.concatenate([means[0] - of_law[0], means[1] - of_law[1]], axis=1)
    rule, rule_of_law = statistics.gauss_rules(alphas, betas), statistics.gauss_rules(of_law[0][:, None], of_law[1][:, None])
    wasserstein, kolmogorov = statistics.distances(*rule, *rule_of_law)
    found = {"jacobi": statistics.mahalanobis(rows), "wasserstein": wasserstein, "kolmogorov": kolmogorov}
    p_values = {test: statistics.rank_p_values(found[test]) for test in chosen}
    z = statistics.deviations(rows)
    curves = figure_data(density, law, rule, rule_of_law, z[:k], z[k:], used)
    return Comparison(
        law=describe(law), wasserstein=float(wasserstein[0]), kolmogorov=float(kolmogorov[0]), jacobi=float(np.sqrt(np.mean(z**2))),
        p_values={test: float(values[0]) for test, values in p_values.items()},
        p_value=statistics.combined_p_value(np.array(list(p_values.values()))), fitted=fitted, num_steps=k, num_probes=probes,
        dimension=used.dimension, num_bootstrap=count, num_matvecs=spent, seconds=time.perf_counter() - began, excluded=used.excluded,
        notes=tuple(_notes(density, law, used, fitted)), curves=curves,
    )  # fmt: skip


def _notes(density: SpectralDensity, law: SpectralLaw, used: Measurement, fitted: dict[str, float]) -> list[str]:
    notes = []
    if used.num_steps < density.num_steps - len(used.excluded):
        notes.append(
            f"The first {used.num_steps} of {density.num_steps} steps were used; later ones show single eigenvalues of these "
            f"{used.dimension:,}, which no limiting law determines."
        )
    if fitted:
        values = ", ".join(f"{name} {value:.4g}" for name, value in fitted.items())
        notes.append(f"Fitted: {values}; every draw was fitted too, so the p-value is that of the family.")
    outliers = len(used.excluded)
    if outliers:
        notes.append(f"{outliers} outlier{'s were' if outliers != 1 else ' was'} left out; the bulk alone was tested.")
    else:
        beyond = sum(1 for outlier in density.outliers() if not _inside(outlier.value, law))
        if beyond:
            plural = "s" if beyond != 1 else ""
            notes.append(f"The measurement has {beyond} outlier{plural} beside the law; exclude_outliers=True tests the bulk alone.")
    if used.dimension < 50:
        notes.append(f"A law is a limit for many eigenvalues; with {used.dimension} the null is only roughly right.")
    return notes


def _inside(value: float, law: SpectralLaw) -> bool:
    return any(low <= value <= high for low, high in law.support) or any(abs(value - place) <= 1e-9 for place, _ in law.atoms)


def _check_tests(tests: Iterable[str]) -> tuple[str, ...]:
    chosen = (tests,) if isinstance(tests, str) else tuple(tests)
    unknown = [test for test in chosen if test not in TESTS]
    if unknown or not chosen:
        raise ValueError(f"The argument tests is {chosen!r}, but must name one or more of 'jacobi', 'wasserstein' and 'kolmogorov'.")
    return tuple(dict.fromkeys(chosen))
