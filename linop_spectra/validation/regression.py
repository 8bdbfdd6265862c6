"""Linear regression: a model whose Hessian is a sample covariance matrix, through every framework."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..estimators.field_variance import field_variance
from ..krylov import eigsh
from ..operators import diagonal_operator
from ..random_matrices import MarchenkoPastur, TracyWidom, compare, spiked_wishart_outlier
from ..random_matrices.models import LinearRegression, MinibatchModel, minibatch_operators, shifted_eigenvalue
from ..spectra import spectral_density
from .experiment import Experiment, Findings, Row, at_least, at_most, close
from .frameworks import installed, linear_model
from .style import MEASURED, SECOND, THEORY

_FEATURES = 1000


def linear_regression(seed: int) -> Findings:
    """Hessians of linear models against Marchenko-Pastur, from each framework."""
    rows: list[Row] = []
    drawn: list[tuple[Any, Any]] = []
    for ratio in (0.25, 4.0):
        problem = LinearRegression(_FEATURES, round(_FEATURES / ratio), seed=seed)
        law, exact = problem.law, problem.hessian()
        ((a, b),) = law.support
        v = np.random.default_rng(seed).standard_normal(_FEATURES)
        product = exact @ v
        density: Any = None
        for framework in installed():
            hessian = linear_model(framework, problem.inputs, problem.targets, "mse", problem.weights[:, None]).hessian()
            error = np.linalg.norm(np.asarray(hessian @ v) - product) / np.linalg.norm(product)
            rows.append(at_most(f"ratio {ratio:g}, {framework}: relative error of a product", 1e-10, error))
            if density is None:
                density = spectral_density(hessian, num_steps=60, num_probes=4, seed=seed)
        if density is None:
            density = spectral_density(exact, num_steps=60, num_probes=4, seed=seed)
        rows += [
            at_least(f"ratio {ratio:g}: p-value under the law", 0.01, compare(density, law, seed=seed).p_value),
            at_most(f"control, ratio {1 / ratio:g} instead: p-value", 0.01,
                    compare(density, MarchenkoPastur(ratio=1 / ratio, variance=2.0), seed=seed).p_value),
            at_most("control, sigma 5 % too large: p-value", 0.01,
                    compare(density, MarchenkoPastur(ratio=ratio, variance=2.0 * 1.05**2), seed=seed).p_value),
        ]  # fmt: skip
        values = np.linalg.eigvalsh(np.asarray(exact.to_dense()))
        zeros = values < 1e-10
        largest, deviation = _largest(problem)
        rows += [
            Row(f"ratio {ratio:g}: eigenvalues that are zero", round(_FEATURES * dict(law.atoms).get(0.0, 0.0)), int(zeros.sum())),
            close(f"ratio {ratio:g}: lower edge (3 % of the width)", a, values[~zeros][0], absolute=0.03 * (b - a)),
            close(f"ratio {ratio:g}: largest (4 deviations)", largest, values[-1], absolute=4 * deviation),
        ]
        drawn.append((density, law))

    def draw(ax: Any) -> None:
        for (density, law), color in zip(drawn, (MEASURED, SECOND), strict=True):
            x = np.linspace(0, 1.05 * law.support[0][1], 600)
            ax.plot(x, density.cdf(x), color=color, linewidth=4, alpha=0.4, label=f"measured, ratio {law.ratio:g}")
            ax.plot(x, law.cdf(x), color=THEORY, linewidth=1)
        ax.plot([], [], color=THEORY, linewidth=1, label="Marchenko-Pastur")
        ax.set_xlabel("eigenvalue of the Hessian")
        ax.set_ylabel("share of the eigenvalues below")
        ax.legend()

    return Findings(tuple(rows), draw)


def _largest(problem: LinearRegression) -> tuple[float, float]:
    """Mean and deviation of the largest eigenvalue of the Hessian at this size (Johnstone, 2001)."""
    p, n = problem.num_features, problem.num_examples
    roots, edge = math.sqrt(n - 1) + math.sqrt(p), TracyWidom(beta=1)
    scale = roots * (1 / math.sqrt(n - 1) + 1 / math.sqrt(p)) ** (1 / 3)
    return 2 * (roots**2 + scale * edge.mean()) / n, 2 * scale * math.sqrt(edge.var()) / n


def spiked_regression(seed: int) -> Findings:
    """Directions of larger variance among the features: their eigenvalues, overlaps, and when they drown."""
    spikes, ratio = (6.0, 3.0, 1.2), 0.25
    problem = LinearRegression(_FEATURES, round(_FEATURES / ratio), spikes=spikes, seed=seed)
    found = eigsh(problem.hessian(), k=3, which="LA", tol=1e-9, seed=seed)
    values, vectors = np.asarray(found.eigenvalues)[::-1], np.asarray(found.eigenvectors)[:, ::-1]
    rows: list[Row] = []
    for i, (spike, outlier) in enumerate(zip(spikes[:2], problem.outliers(), strict=False)):
        assert outlier.fluctuation is not None
        rows += [
            close(f"spike {spike:g}: eigenvalue (3 deviations)", outlier.location, values[i], absolute=3 * outlier.fluctuation),
            close(f"spike {spike:g}: squared overlap", outlier.overlap, vectors[i, i] ** 2, absolute=0.03),
        ]
    edge = problem.law.support[0][1]
    rows += [
        close("spike 1.2, below the threshold 1.5: the edge", edge, values[2], absolute=0.03 * edge),
        at_most("spike 1.2: squared overlap of the largest eigenvector of the bulk", 0.1, vectors[2, 2] ** 2),
        close("threshold", 1 + math.sqrt(ratio), spiked_wishart_outlier(3.0, ratio=ratio).threshold, absolute=1e-12),
    ]
    strengths = np.linspace(1.05, 7, 120)
    below = np.arange(1.2, 7, 0.8)
    sampled = [
        eigsh(LinearRegression(400, 1600, spikes=(s,), seed=seed).hessian(), k=1, which="LA", tol=1e-6).eigenvalues[0] / 2 for s in below
    ]

    def draw(ax: Any) -> None:
        ax.plot(strengths, [spiked_wishart_outlier(s, ratio=ratio).location for s in strengths], color=THEORY, label="predicted")
        ax.plot(below, sampled, "o", color=MEASURED, label="largest eigenvalue, p = 400")
        ax.plot(strengths, strengths, color=SECOND, linewidth=1, linestyle="--", label="without noise")
        ax.set_xlabel("variance of one feature")
        ax.set_ylabel("largest eigenvalue of the covariance")
        ax.legend()

    return Findings(tuple(rows), draw)


def minibatch_shift(seed: int) -> Findings:
    """Extreme eigenvalues against batch size: additive noise, and where only the variance along the eigenvector is right."""
    rows: list[Row] = []
    order, examples, spikes = _FEATURES, 50_000, (30.0, 12.0, 6.0, 3.0, -8.0)
    model = MinibatchModel(spikes, variance=float(order), num_examples=examples, order=order)
    mean = diagonal_operator(np.append(spikes, np.zeros(order - len(spikes))))
    points = []
    for batch in (32, 128, 2048, 32768):
        at = model.at(batch)
        (matrix,) = minibatch_operators(mean, variance=order, batch_size=batch, num_batches=1, num_examples=examples, seed=seed)
        values = np.linalg.eigvalsh(np.asarray(matrix.to_dense()))
        deviations = np.asarray(at.standard_deviations)
        rows += [
            close(f"batch {batch}: largest (3 deviations)", at.largest, values[-1], absolute=3 * deviations[0], relative=1e-6),
            close(f"batch {batch}: smallest (3 deviations)", at.smallest, values[0], absolute=3 * deviations[-1], relative=1e-6),
            close(f"batch {batch}: largest within 2 %", at.largest, values[-1], relative=0.02),
        ]
        points.append((batch, values[-1], values[0]))
    for spike in (3.0, 6.0):
        batch = 4000
        problem = LinearRegression(order, 12 * batch, spikes=(spike,), seed=seed)
        parts = problem.batch_hessians(batch)
        unit = np.eye(order)[0]
        along, isotropic = (field_variance(parts, *direction, seed=seed).value / 4 for direction in ((unit,), ()))
        exact = spiked_wishart_outlier(spike, ratio=order / batch).location
        # One population eigenvalue apart, all others are one: that is where the bulk is.
        by_field = float(shifted_eigenvalue(spike, along, bulk=1.0))
        by_average = float(shifted_eigenvalue(spike, isotropic))
        rows += [
            close(f"regression, spike {spike:g}: variance along it, against the exact threshold theory", exact, by_field, relative=0.02),
            close(f"regression, spike {spike:g}: isotropic prediction", {3.0: 3.125, 6.0: 6.05}[spike], by_average, absolute=0.1),
        ]
        if spike == 3.0:
            rows.append(at_least("control, spike 3: relative error of the isotropic prediction", 0.05, abs(by_average / exact - 1)))

    def draw(ax: Any) -> None:
        batches = np.geomspace(8, examples * 0.9, 200)
        predictions = [model.at(float(batch)) for batch in batches]
        ax.plot(batches, [at.largest for at in predictions], color=THEORY, label="predicted")
        ax.plot(batches, [at.smallest for at in predictions], color=THEORY)
        ax.plot(batches, [at.half_width for at in predictions], color=THEORY, linestyle="--", linewidth=1, label="edge of the noise")
        ax.plot(*np.array([(b, top) for b, top, _ in points]).T, "o", color=MEASURED, label="largest, sampled")
        ax.plot(*np.array([(b, low) for b, _, low in points]).T, "o", color=SECOND, label="smallest, sampled")
        ax.set_xscale("log")
        ax.set_xlabel("examples in a batch")
        ax.set_ylabel("eigenvalue")
        ax.legend()

    return Findings(tuple(rows), draw)


EXPERIMENTS = (
    Experiment(
        "linear-regression",
        "The Hessian of linear regression on Gaussian features follows the Marchenko-Pastur law, its zeros counted, in every framework",
        "Marchenko and Pastur, 1967",
        linear_regression,
    ),
    Experiment(
        "spiked-regression",
        "A feature direction of variance l above 1 + sqrt(c) gives an eigenvalue l (1 + c / (l - 1)); a weaker one drowns in the bulk",
        "Baik, Ben Arous and Peche, 2005; Paul, 2007",
        spiked_regression,
    ),
    Experiment(
        "minibatch-shift",
        "A batch moves an eigenvalue by the variance of its Hessian along the eigenvector over the distance to the bulk",
        "Granziol, Zohren and Roberts, 2022",
        minibatch_shift,
    ),
)
