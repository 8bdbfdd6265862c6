"""A complete list of eigenvalues against a law, at the scale of rigidity."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import linalg

from ..laws.law import SpectralLaw
from ..laws.marchenko_pastur import MarchenkoPastur
from ..laws.semicircle import Semicircle
from .families import Family, MarchenkoPasturFamily

MOST_SIMULATED = 300
"""Order of the matrices of the null at most; the distances times n hardly depend on it beyond."""


def compare_eigenvalues(
    eigenvalues: Any, law: SpectralLaw | type[Family], count: int, rng: np.random.Generator, beta: int, chosen: list[str]
) -> dict[str, Any]:
    """What a `Comparison` of a list of eigenvalues holds.

    Eigenvalues of a random matrix keep within about 1/n of the quantiles of their law, independent draws only within ``n^(-1/2)``.
    The null is the Gaussian ensemble for a semicircle and Wishart matrices for Marchenko-Pastur, drawn by their tridiagonal models
    (Dumitriu and Edelman, 2002).
    """
    values = np.asarray(eigenvalues)
    if values.dtype.kind not in "iuf" or values.ndim != 1 or len(values) < 8 or not np.all(np.isfinite(values)):
        raise ValueError(
            f"The argument density is an array of shape {values.shape} and dtype {values.dtype}; an array must hold all eigenvalues of a "
            "matrix: at least 8 finite real numbers. A smoothed curve cannot be tested; pass the spectral density. A matrix is passed as "
            "linop_spectra.aslinearoperator(matrix)."
        )
    if not chosen:
        raise ValueError("The argument tests is 'jacobi' alone, but a list of eigenvalues has no Lanczos coefficients; add 'wasserstein'.")
    n = len(values)
    values = np.sort(values.astype(np.float64))
    notes = ["All eigenvalues were compared, at the scale 1/n of their rigidity."]
    is_family = isinstance(law, type)
    target = _moment_fit(law, values) if isinstance(law, type) else law
    fitted = {name: float(getattr(target, name)) for name in law.parameters} if isinstance(law, type) else {}
    own = {"wasserstein": _wasserstein(values, _middles(target, n)), "kolmogorov": _kolmogorov(values, target)}
    order = min(n, MOST_SIMULATED)
    p_values: dict[str, float] = {}
    combined = math.nan
    if type(target) in (Semicircle, MarchenkoPastur):
        rows = {test: [n * own[test]] for test in chosen}
        middles = _middles(target, order)
        for _ in range(count):
            drawn = _draw(target, order, rng, beta)
            of_draw = _moment_fit(law, drawn) if isinstance(law, type) else target
            if "wasserstein" in chosen:
                rows["wasserstein"].append(order * _wasserstein(drawn, middles if of_draw is target else _middles(of_draw, order)))
            if "kolmogorov" in chosen:
                rows["kolmogorov"].append(order * _kolmogorov(drawn, of_draw))
        from .comparison_statistics import combined_p_value, rank_p_values

        ranks = {test: rank_p_values(np.array(row)) for test, row in rows.items()}
        p_values = {test: float(rank[0]) for test, rank in ranks.items()}
        combined = combined_p_value(np.array(list(ranks.values())))
        if order < n:
            notes.append(f"The null was drawn at order {order}: n times a distance hardly depends on n.")
        if is_family:
            notes.append("Parameters were fitted by moments, to every draw too.")
    else:
        notes.append(
            f"How far eigenvalues fluctuate about {type(target).__name__} is not known without its ensemble; as a yardstick, distances of "
            f"the Gaussian ensembles stay below about 8 / n = {8 / n:.2g} (Kolmogorov). Compare a spectral density for a p-value."
        )
    ends = [end for interval in target.support for end in interval]
    width = float(values[-1] - values[0]) or 1.0
    low, high = max(min([values[0], *ends]), values[0] - width), min(max([values[-1], *ends]), values[-1] + width)
    grid = np.linspace(low - 0.02 * width, high + 0.02 * width, 400)
    curves = {"eigenvalues": values, "x": grid, "law_density": np.asarray(target.pdf(grid)), "law_cdf": np.asarray(target.cdf(values))}
    return {
        "law": describe(target), "wasserstein": own["wasserstein"], "kolmogorov": own["kolmogorov"], "jacobi": math.nan,
        "p_values": p_values, "p_value": combined, "fitted": fitted, "num_steps": 0, "num_probes": 0, "dimension": n,
        "num_bootstrap": count if p_values else 0, "excluded": (), "notes": tuple(notes), "curves": curves,
    }  # fmt: skip


def describe(law: SpectralLaw) -> str:
    """A law with its parameters, in at most a line.

    Examples
    --------
    >>> describe(Semicircle(variance=2 / 3))
    'Semicircle(variance=0.6667)'
    """
    if dataclasses.is_dataclass(law):
        values = [(field.name, getattr(law, field.name)) for field in dataclasses.fields(law) if field.init]
        if all(isinstance(value, (int, float, str)) for _, value in values):
            inner = ", ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in values)
            return f"{type(law).__name__}({inner})"
    text = repr(law)
    return text if len(text) <= 100 else text[:97] + "..."


def _middles(law: SpectralLaw, n: int) -> np.ndarray:
    return np.asarray(law.quantile((np.arange(n) + 0.5) / n))


def _wasserstein(values: np.ndarray, middles: np.ndarray) -> float:
    """Mean distance of the eigenvalues from the middle quantiles: at the scale of rigidity, unlike the area between the curves."""
    return float(np.mean(np.abs(values - middles)))


def _kolmogorov(values: np.ndarray, law: SpectralLaw) -> float:
    """Largest difference of the distribution functions; zero up to rounding is zero."""
    x = np.where(np.abs(values) <= 1e-12 * np.abs(values).max(), 0.0, values)
    at = np.searchsorted(x, x, side="right") / len(x) - law.cdf(x)
    before = np.searchsorted(x, x, side="left") / len(x) - law.cdf(np.nextafter(x, -np.inf))
    return float(max(np.max(np.abs(at)), np.max(np.abs(before))))


def _moment_fit(family: type[Family], values: np.ndarray) -> SpectralLaw:
    if family is MarchenkoPasturFamily:
        mean = float(values.mean())
        if not mean > 0:
            raise ValueError(f"The eigenvalues have the mean {mean:.3g}, but those of a Marchenko-Pastur law are not negative.")
        return MarchenkoPastur(ratio=float(values.var()) / mean**2, variance=mean)
    return Semicircle(variance=float(np.mean(values**2)))


def _draw(law: Any, n: int, rng: np.random.Generator, beta: int) -> np.ndarray:
    """Ascending eigenvalues of one matrix of order n from the ensemble of the law."""
    if isinstance(law, Semicircle):
        diagonal = rng.standard_normal(n) * math.sqrt(2 / (beta * n))
        sides = np.sqrt(rng.chisquare(beta * np.arange(n - 1, 0, -1)) / (beta * n))
        return np.asarray(math.sqrt(law.variance) * linalg.eigvalsh_tridiagonal(diagonal, sides, lapack_driver="sterf"))
    samples = max(1, round(n / law.ratio))
    m = min(n, samples)
    diagonal = np.sqrt(rng.chisquare(beta * (max(n, samples) - np.arange(m))))
    sides = np.sqrt(rng.chisquare(beta * np.arange(m - 1, 0, -1)))
    # The bidiagonal matrix times its transpose.
    squares = diagonal**2 + np.concatenate([[0.0], sides**2])
    eigenvalues = linalg.eigvalsh_tridiagonal(squares, diagonal[:-1] * sides, lapack_driver="sterf") / (beta * samples)
    return law.variance * np.concatenate([np.zeros(n - m), np.maximum(eigenvalues, 0.0)])
