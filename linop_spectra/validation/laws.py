"""Limiting laws against sampled matrices, and against closed forms found another way."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..random_matrices import (
    DiscreteLaw,
    FussCatalan,
    GeneralizedMarchenkoPastur,
    MarchenkoPastur,
    PenningtonBahri,
    PenningtonWorah,
    Semicircle,
    SpectralLaw,
    TracyWidom,
    deformed_wigner,
    deformed_wigner_outlier,
    free_additive_convolution,
    free_compression,
    sample_covariance,
    spacing_ratios,
    wigner,
    wishart,
    wishart_product,
)
from ..random_matrices.models.streams import normal_array
from ..spectra import kolmogorov_distance, wasserstein_distance
from .experiment import Experiment, Findings, Row, at_least, at_most, close
from .style import MEASURED, SECOND, THEORY


def _eigenvalues(matrix: Any) -> np.ndarray:
    return np.linalg.eigvalsh(np.asarray(matrix.to_dense() if hasattr(matrix, "to_dense") else matrix))


def _overlay(ax: Any, eigenvalues: np.ndarray, law: SpectralLaw, bins: int = 60, top: float | None = None) -> None:
    """Histogram of eigenvalues under the density of the law."""
    for a, b in law.support:
        middle, radius = (a + b) / 2, (b - a) / 2
        x = middle - radius * np.cos(np.linspace(1e-3, math.pi - 1e-3, 300))
        ax.plot(x, law.pdf(x), color=THEORY, linewidth=1.4)
    ax.hist(eigenvalues, bins, density=True, color=MEASURED, alpha=0.5)
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel("density")
    if top is not None:
        ax.set_ylim(0, top)


def loss_surface(seed: int) -> Findings:
    """Share of negative eigenvalues of a Gauss-Newton matrix plus noise, below and above the critical energy."""
    published = {(0.25, 2.0): 0.0415, (0.25, 4.0): 0.1104, (0.5, 4.0): 0.0570, (0.1, 2.0): 0.0652}
    order, rows = 1200, []
    samples = _sampled_hessians(order, seed)
    shown: tuple[np.ndarray, PenningtonBahri] | None = None
    for (ratio, factor), index in published.items():
        critical = PenningtonBahri(ratio=ratio, energy=1.0).critical_energy
        law = PenningtonBahri(ratio=ratio, energy=factor * critical)
        rows.append(close(f"index of the law, ratio {ratio:g}, {factor:g} times critical", index, law.index, absolute=1e-4))
        eigenvalues = samples(law)
        share = float(np.mean(eigenvalues < 0))
        rows.append(close(f"share of negative eigenvalues, n = {order}", law.index, share, absolute=0.003))
        if (ratio, factor) == (0.25, 4.0):
            shown = eigenvalues, law
    for ratio, critical in {0.05: 0.102281, 0.1: 0.083435, 0.25: 0.043510, 0.5: 0.011271, 0.75: 0.001266}.items():
        law = PenningtonBahri(ratio=ratio, energy=1.0)
        rows.append(close(f"critical energy, ratio {ratio:g}", critical, law.critical_energy, absolute=1e-6))
    below = PenningtonBahri(ratio=0.25, energy=0.8 * PenningtonBahri(ratio=0.25, energy=1.0).critical_energy)
    rows.append(Row("negative eigenvalues below the critical energy", 0, int((samples(below) < 0).sum())))
    assert shown is not None
    return Findings(tuple(rows), lambda ax: _overlay(ax, *shown))


def _sampled_hessians(order: int, seed: int) -> Callable[[PenningtonBahri], np.ndarray]:
    """Eigenvalues of a sample of a law; the Gram matrix depends on the ratio alone, and the noise is one matrix, scaled."""
    noise = np.asarray(wigner(order, seed=seed).to_dense())

    @functools.cache
    def gram(ratio: float) -> np.ndarray:
        return np.asarray(wishart(order, round(order / ratio), seed=seed).to_dense())

    return lambda law: _eigenvalues(gram(law.ratio) + math.sqrt(2 * law.energy) * noise)


def free_convolution(seed: int) -> Findings:
    """Sums of free variables: two coins give the arcsine law; a population with noise gives one outlier at its place."""
    coin = DiscreteLaw([-1.0, 1.0], [0.5, 0.5])
    coins = free_additive_convolution(coin, coin)
    x = np.linspace(-1.98, 1.98, 199)
    arcsine = 1 / (math.pi * np.sqrt(4 - x**2))
    rows = [at_most("two coins: largest relative error of the density", 1e-10, np.abs(coins.pdf(x) / arcsine - 1).max())]
    order, variance, spike = 1500, 0.04, 1.6
    population = DiscreteLaw([0.0, 1.0], [0.9, 0.1])
    predicted = deformed_wigner_outlier(population, spike, variance=variance)
    rows += [
        close("atoms and noise: place of the outlier, closed form", 1.62917, predicted.location, absolute=1e-5),
        close("atoms and noise: overlap, closed form", 0.97483, predicted.overlap, absolute=1e-5),
    ]
    diagonal = np.append(population.quantile((np.arange(order - 1) + 0.5) / (order - 1)), spike)
    matrix = np.asarray(deformed_wigner(diagonal, variance=variance, seed=seed).to_dense())
    values, vectors = np.linalg.eigh(matrix)
    rows += [
        close("atoms and noise: largest eigenvalue sampled", predicted.location, values[-1], absolute=0.03),
        close("atoms and noise: overlap sampled", predicted.overlap, vectors[-1, -1] ** 2, absolute=0.01),
    ]
    noise = free_additive_convolution(population, Semicircle(variance=variance))
    rows.append(at_most("atoms and noise: Wasserstein distance of the bulk", 6 / order, wasserstein_distance(values[:-1], noise)))
    mixture = free_additive_convolution(MarchenkoPastur(ratio=0.5), Semicircle(variance=0.09))
    gram = np.asarray(wishart(order, 2 * order, seed=seed).to_dense())
    sampled = _eigenvalues(gram + np.asarray(wigner(order, variance=0.09, seed=seed + 1).to_dense()))
    rows.append(at_most("Wishart and Wigner: Wasserstein distance", 6 / order, wasserstein_distance(sampled, mixture)))
    wrong = free_additive_convolution(MarchenkoPastur(ratio=2.0), Semicircle(variance=0.09))
    rows.append(at_least("control: the same with the ratio turned over", 6 / order, wasserstein_distance(sampled, wrong)))

    def draw(ax: Any) -> None:
        _overlay(ax, sampled, mixture)

    return Findings(tuple(rows), draw)


def two_populations(seed: int) -> Findings:
    """A population of two variances splits the spectrum in two intervals with exactly half of the eigenvalues each."""
    variables, samples = 1000, 10_000
    law = GeneralizedMarchenkoPastur([1.0, 5.0], [0.5, 0.5], ratio=variables / samples)
    expected = (0.55711, 1.41576, 3.08129, 7.54584)
    edges = [end for interval in law.support for end in interval]
    rows = [close(f"edge {i} of the law", e, found, absolute=1e-4) for i, (e, found) in enumerate(zip(expected, edges, strict=True))]
    matrix = sample_covariance(np.repeat([1.0, 5.0], variables // 2), samples, seed=seed)
    values = _eigenvalues(matrix)
    lower, upper = values[values < 2.2], values[values >= 2.2]
    rows += [
        Row("eigenvalues in the lower interval", variables / 2, len(lower)),
        *(close(f"edge {i} of the sample", e, found, absolute=0.03)
          for i, (e, found) in enumerate(zip(expected, (lower[0], lower[-1], upper[0], upper[-1]), strict=True))),
        at_most("Wasserstein distance to the law", 6 * 5 / variables, wasserstein_distance(values, law)),
    ]  # fmt: skip
    return Findings(tuple(rows), lambda ax: _overlay(ax, values, law, 80))


def nonlinear_features(seed: int) -> Findings:
    """Random features of random data follow the law of Pennington and Worah; products of Gaussian matrices that of Fuss and Catalan."""
    order = 900
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "tanh": np.tanh, "centred ReLU": lambda z: np.maximum(z, 0) - 1 / math.sqrt(2 * math.pi), "z^2 - 1": lambda z: z**2 - 1,
    }
    known = {"tanh": (0.39429, 0.36688), "centred ReLU": (0.34085, 0.25), "z^2 - 1": (2.0, 0.0)}
    weights = normal_array((order, order), scale=1 / math.sqrt(order), seed=seed, domain="experiment/features/weights")
    data = normal_array((order, order), scale=1.0, seed=seed, domain="experiment/features/data")
    rows: list[Row] = []
    drawn: list[tuple[str, np.ndarray, PenningtonWorah]] = []
    for name, function in functions.items():
        law = PenningtonWorah.from_activation(function, input_ratio=1.0, width_ratio=1.0)
        features = function(weights @ data)
        values = _eigenvalues(features @ features.T / order)
        rows += [
            close(f"{name}: eta", known[name][0], law.eta, absolute=1e-5),
            close(f"{name}: zeta", known[name][1], law.zeta, absolute=1e-5),
            at_most(f"{name}: Kolmogorov distance, n = {order}", 0.03, kolmogorov_distance(values, law)),
        ]
        drawn.append((name, values, law))
    wrong = PenningtonWorah(1.0, 1.0, drawn[0][2].eta, 0.0)
    rows.append(at_least("control: tanh without its linear part", 0.03, kolmogorov_distance(drawn[0][1], wrong)))
    product = FussCatalan(2)
    values = _eigenvalues(wishart_product([1000, 1000, 1000], seed=seed))
    for k, moment in enumerate((1, 3, 12, 55), start=1):
        rows.append(close(f"two factors: moment {k} of the law", moment, product.moment(k), absolute=1e-9))
        rows.append(close(f"two factors: moment {k} sampled", moment, float(np.mean(values**k)), relative=0.02 * (1 if k < 3 else k)))

    def draw(ax: Any) -> None:
        for (name, sample, law), color in zip(drawn, (MEASURED, SECOND, THEORY), strict=True):
            share = (np.arange(order) + 0.5) / order
            ax.plot(sample, share, color=color, alpha=0.4, linewidth=4)
            x = np.linspace(0, sample.max(), 400)
            ax.plot(x, law.cdf(x), color=color, linewidth=1, label=name)
        ax.set_xscale("symlog", linthresh=1e-2)
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("share of the eigenvalues below: sample (broad) and law")
        ax.legend()

    return Findings(tuple(rows), draw)


def block_of_a_matrix(seed: int) -> Findings:
    """A block of a rotation-invariant matrix follows the compressed law: the null model of a layer's Hessian."""
    order, ratio, part = 1200, 0.5, 300
    law = free_compression(MarchenkoPastur(ratio=ratio), part / order)
    ((a, b),) = law.support
    matrix = np.asarray(wishart(order, round(order / ratio), seed=seed).to_dense())
    values = _eigenvalues(matrix[:part, :part])
    exact = MarchenkoPastur(ratio=ratio * part / order)
    rows = (
        close("lower edge of the law", exact.support[0][0], a, absolute=1e-6),
        close("upper edge of the law", exact.support[0][1], b, absolute=1e-6),
        close("smallest eigenvalue of the block", 0.418, values[0], absolute=0.03),
        close("largest eigenvalue of the block", 1.832, values[-1], absolute=0.05),
        at_most("Wasserstein distance of the block to the law", 6 / part, wasserstein_distance(values, law)),
        at_least("control: to the law of the whole matrix", 6 / part, wasserstein_distance(values, MarchenkoPastur(ratio=ratio))),
    )
    return Findings(rows, lambda ax: _overlay(ax, values, law, 30))


_TABLE: dict[int, dict[str | float, float]] = {
    1: {"mean": -1.2065336, "variance": 1.6077810, 0.01: -3.8954, 0.05: -3.1804, 0.5: -1.2686, 0.9: 0.4501, 0.95: 0.9793, 0.99: 2.0234},
    2: {"mean": -1.7710868, "variance": 0.8131948, 0.01: -3.7244, 0.05: -3.1942, 0.5: -1.8049, 0.9: -0.5969, 0.95: -0.2325, 0.99: 0.4776},
}


def edge_and_spacings(seed: int) -> Findings:
    """The largest eigenvalue has the Tracy-Widom law, and neighbouring gaps the ratios of their symmetry class."""
    rows = []
    for beta, table in _TABLE.items():
        law = TracyWidom(beta=beta)
        levels: dict[str | float, float] = {q: law.quantile(q) for q in table if isinstance(q, float)}
        found: dict[str | float, float] = {"mean": law.mean(), "variance": law.var(), **levels}
        rows += [close(f"Tracy-Widom {beta}: {key}", value, found[key], absolute=1e-4) for key, value in table.items()]
    order, draws = 200, 400
    edges = np.empty(draws)
    for i in range(draws):
        values = _eigenvalues(wigner(order, seed=seed + i))
        edges[i] = order ** (2 / 3) * (values[-1] - 2)
    law = TracyWidom(beta=1)
    # The edge at this size is a few hundredths off its limit.
    allowed = 4 * law.var() ** 0.5 / math.sqrt(draws) + 0.05
    rows.append(close("scaled largest eigenvalue of 400 matrices: mean", law.mean(), edges.mean(), absolute=allowed))
    classes: tuple[tuple[str, Literal["goe", "gue"], float], ...] = (("real", "goe", 0.5307), ("complex", "gue", 0.5996))
    for name, ensemble, expected in classes:
        spectra = (_eigenvalues(wigner(1000, ensemble=ensemble, seed=seed + i)) for i in range(16))
        mean = np.concatenate([spacing_ratios(values).ratios for values in spectra]).mean()
        rows.append(close(f"mean ratio of neighbouring gaps, {name}", expected, mean, absolute=0.005))

    def draw(ax: Any) -> None:
        ax.plot(np.sort(edges), (np.arange(draws) + 0.5) / draws, color=MEASURED, linewidth=3, alpha=0.5, label="400 matrices, n = 200")
        x = np.linspace(-5, 4, 300)
        ax.plot(x, law.cdf(x), color=THEORY, linewidth=1.2, label="Tracy-Widom 1")
        ax.set_xlabel("scaled largest eigenvalue")
        ax.set_ylabel("share of the matrices below")
        ax.legend()

    return Findings(tuple(rows), draw)


EXPERIMENTS = (
    Experiment(
        "loss-surface",
        "A Gauss-Newton matrix plus independent noise of variance twice the loss has negative eigenvalues from a critical energy on, and "
        "a known share of them above",
        "Pennington and Bahri, 2017",
        loss_surface,
    ),
    Experiment(
        "free-convolution",
        "Large independent matrices add like free variables: two coins give the arcsine law, and an entry beyond a noisy population "
        "one outlier",
        "Voiculescu, 1986; Pastur, 1972",
        free_convolution,
    ),
    Experiment(
        "two-populations",
        "Samples of a population with the variances 1 and 5 have eigenvalues in two separate intervals, exactly half in each",
        "Marchenko and Pastur, 1967; Silverstein and Choi, 1995",
        two_populations,
    ),
    Experiment(
        "nonlinear-features",
        "Of an activation only two numbers matter for the spectrum of random features; products of Gaussian matrices have "
        "Fuss-Catalan moments",
        "Pennington and Worah, 2017",
        nonlinear_features,
    ),
    Experiment(
        "block-of-a-matrix",
        "The spectrum of a diagonal block of a matrix without preferred directions is the compressed law, far narrower than the whole",
        "Nica and Speicher, 1996",
        block_of_a_matrix,
    ),
    Experiment(
        "edge-and-spacings",
        "The largest eigenvalue fluctuates by the Tracy-Widom law, and neighbouring gaps have mean ratios 0.5307 (real) and "
        "0.5996 (complex)",
        "Tracy and Widom, 1996; Atas et al., 2013",
        edge_and_spacings,
    ),
)
