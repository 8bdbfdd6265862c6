"""Exact laws of what the Lanczos process returns: its coefficients, one probe's weights, and when it finds an outlier."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import stats

from ..krylov import LanczosResult, lanczos
from ..operators import diagonal_operator
from ..random_matrices import Semicircle, wigner, wishart
from ..spectra import spectral_density
from .experiment import Experiment, Findings, Row, at_least, at_most, close

_FIRST, _SECOND, _DARK = "#0072B2", "#D55E00", "#222222"
_SMALLEST_P_VALUE = 1e-4

_ORDER, _SAMPLES, _DRAWS, _STEPS = 60, 90, 300, 6


def lanczos_coefficients(seed: int) -> Findings:
    """Coefficients of 300 matrices of either ensemble against their exact laws at that size."""
    n, m = _ORDER, _SAMPLES
    alphas, betas = _coefficients([lanczos(wigner(n, seed=seed + i), _STEPS, seed=seed + 10_000 + i) for i in range(_DRAWS)])
    levels: dict[str, np.ndarray] = {}
    for j in range(_STEPS):
        levels[f"Wigner, alpha {j}"] = stats.norm(0, math.sqrt(2 / n)).cdf(alphas[:, j])
        levels[f"Wigner, beta {j}"] = stats.chi2(n - 1 - j).cdf(n * betas[:, j] ** 2)
    wishart_runs = [lanczos(wishart(n, m, seed=seed + i), _STEPS, seed=seed + 20_000 + i) for i in range(_DRAWS)]
    diagonal, below = _bidiagonal(*_coefficients(wishart_runs))
    for j in range(_STEPS):
        levels[f"Wishart, diagonal {j}"] = stats.chi2(m - j).cdf(m * diagonal[:, j])
        levels[f"Wishart, off-diagonal {j}"] = stats.chi2(n - 1 - j).cdf(m * below[:, j])
    rows = [at_least(f"p-value: {name}", _SMALLEST_P_VALUE, stats.kstest(level, "uniform").pvalue) for name, level in levels.items()]
    wrong = np.concatenate([stats.chi2(n - 1 - j).cdf(n * (betas[:, j] / 1.05) ** 2) for j in range(_STEPS)])
    rows.append(at_most("p-value, control: all betas with sigma 5 % too large", _SMALLEST_P_VALUE, stats.kstest(wrong, "uniform").pvalue))

    def draw(ax: Any) -> None:
        share = (np.arange(_DRAWS) + 0.5) / _DRAWS
        for name, level in levels.items():
            ax.plot(np.sort(level), share, linewidth=0.8, color=_FIRST if name.startswith("Wigner") else _SECOND, alpha=0.6)
        ax.plot([], [], color=_FIRST, label="Wigner: 12 coefficients")
        ax.plot([], [], color=_SECOND, label="Wishart: 12 coefficients")
        ax.plot([0, 1], [0, 1], color=_DARK, linewidth=1, label="exact law")
        ax.set_xlabel("level of the coefficient under its exact law")
        ax.set_ylabel("share of the draws below")
        ax.legend()

    return Findings(tuple(rows), draw)


def _coefficients(runs: list[LanczosResult]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([np.asarray(run.alphas)[0] for run in runs]), np.array([np.asarray(run.betas)[0] for run in runs])


def _bidiagonal(alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the Cholesky factor of the tridiagonal matrix, on and below its diagonal; one row for each draw."""
    diagonal, below = np.empty_like(alphas), np.empty_like(betas)
    for j in range(alphas.shape[1]):
        diagonal[:, j] = alphas[:, j] - (below[:, j - 1] if j else 0)
        below[:, j] = betas[:, j] ** 2 / diagonal[:, j]
    return diagonal, below


_DIMENSION, _RUNS = 10_000, 200


def single_probe(seed: int) -> Findings:
    """What one random vector knows: mass beyond a gap has a Beta law, a raw trace is poor, a deflated one is not."""
    outliers = np.linspace(10, 14, 10)
    bulk = stats.laplace(0, 0.02).ppf((np.arange(_DIMENSION - 10) + 0.5) / (_DIMENSION - 10)) + 0.01
    spectrum = np.concatenate([bulk, outliers])
    operator = diagonal_operator(spectrum)
    plain = [spectral_density(operator, num_steps=30, num_probes=1, seed=seed + i, deflate=False) for i in range(_RUNS)]
    densities = [plain, [dataclasses.replace(S, pin=True) for S in plain]]
    masses = np.array([S.weights[S.nodes > 5].sum() for S in densities[0]])
    raw, deflated = (np.array([S.trace().value for S in group]) / spectrum.sum() for group in densities)
    predicted, left = (math.sqrt(2 * ((x - x.mean()) ** 2).sum()) / abs(spectrum.sum()) for x in (spectrum, bulk))
    law = stats.beta(5, (_DIMENSION - 10) / 2)
    rows = (
        at_least("p-value of the outliers' mass under its Beta law", _SMALLEST_P_VALUE, stats.kstest(masses, law.cdf).pvalue),
        # A measured deviation of a nearly normal variable itself deviates by 1 / sqrt(2 runs), relatively.
        close("relative deviation of the raw trace", predicted, raw.std(ddof=1), relative=4 / math.sqrt(2 * _RUNS)),
        # A lone probe takes one outlier in a thousand for two and leaves all weights as they are: hence the median, whose
        # relative deviation is 1.17 / sqrt(runs).
        close("relative deviation, outliers deflated", left, _median_deviation(deflated), relative=4 * 1.17 / math.sqrt(_RUNS)),
        at_most("share of the runs that were not deflated", 0.05, np.mean(np.abs(deflated - 1) > 6 * left)),
    )

    def draw(ax: Any) -> None:
        edges = np.linspace(-0.5, 2.5, 61)
        ax.hist(raw, edges, color=_SECOND, alpha=0.7, label="raw")
        ax.hist(deflated, edges, color=_FIRST, alpha=0.7, label="outliers deflated")
        ax.axvline(1, color=_DARK, linewidth=1)
        ax.set_xlabel("trace of one probe over the true trace")
        ax.set_ylabel("runs")
        ax.legend()

    return Findings(rows, draw)


def _median_deviation(x: np.ndarray) -> float:
    return float(stats.median_abs_deviation(x, scale="normal"))


_SIZES, _STRENGTHS, _SEEDS, _MOST_STEPS = (10_000, 100_000, 1_000_000), (1.5, 2.0, 4.0), 3, 32


def outlier_detection(seed: int) -> Findings:
    """Steps until the largest Ritz value is within one per cent of an outlier beyond a semicircle."""
    rows, found = [], []
    for size in _SIZES:
        places = Semicircle(variance=1.0).quantile((np.arange(size) + 0.5) / size)
        for strength in _STRENGTHS:
            outlier = strength + 1 / strength
            operator = diagonal_operator(np.append(places[:-1], outlier))
            first = [_first_hit(lanczos(operator, _MOST_STEPS, seed=seed + i), outlier) for i in range(_SEEDS)]
            expected = math.log(size) / (2 * math.log(strength))
            found.append((size, strength, expected, float(np.median(first))))
            # Two to eight steps, and one for the rounding to whole steps.
            rows.append(Row(f"steps beyond ln n / (2 ln theta), theta = {strength:g}, n = {size:.0e}", 5, found[-1][3] - expected, 4))

    def draw(ax: Any) -> None:
        for (strength, marker) in zip(_STRENGTHS, "os^", strict=True):
            mine = [item for item in found if item[1] == strength]
            ax.plot([item[0] for item in mine], [item[3] for item in mine], marker, color=_FIRST, label=f"theta = {strength:g}")
            ax.plot([item[0] for item in mine], [item[2] for item in mine], color=_DARK, linewidth=1)
        ax.plot([], [], color=_DARK, linewidth=1, label="ln n / (2 ln theta)")
        ax.set_xscale("log")
        ax.set_xlabel("dimension n")
        ax.set_ylabel("steps to 1 % of the outlier")
        ax.legend()

    return Findings(tuple(rows), draw)


def _first_hit(run: LanczosResult, outlier: float) -> int:
    from scipy.linalg import eigvalsh_tridiagonal

    alphas, betas = np.asarray(run.alphas)[0], np.asarray(run.betas)[0]
    for k in range(1, len(alphas) + 1):
        if abs(eigvalsh_tridiagonal(alphas[:k], betas[: k - 1])[-1] - outlier) <= 0.01 * outlier:
            return k
    return len(alphas) + 1


EXPERIMENTS = (
    Experiment(
        "lanczos-coefficients",
        "From a random start, the Lanczos coefficients of Gaussian Wigner and Wishart matrices have exact normal and chi-square laws, "
        "independent, at every size",
        "Dumitriu and Edelman, 2002",
        lanczos_coefficients,
    ),
    Experiment(
        "single-probe",
        "One probe weighs the eigenvalues beyond a gap by a Beta law, so that its trace has the relative deviation sqrt(2) |H| / tr H; "
        "giving resolved eigenvalues their true weight 1 / n removes that error",
        "uniform vectors on the sphere",
        single_probe,
    ),
    Experiment(
        "outlier-detection",
        "An outlier theta + 1 / theta beyond a unit semicircle is found after ln n / (2 ln theta) steps and a few more",
        "growth of Chebyshev polynomials",
        outlier_detection,
    ),
)
