"""Classification: the structure that classes leave in the spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..krylov import eigsh
from ..operators import LinearOperator
from ..random_matrices.models import (
    ClassStructureModel,
    LogitClustering,
    MultinomialLogistic,
    class_decomposition,
    freezing_scale,
)
from ..spectra import wasserstein_distance
from .experiment import Experiment, Findings, Row, at_least, at_most, close
from .frameworks import installed, linear_model
from .style import MEASURED, SECOND, THEORY


def class_structure(seed: int) -> Findings:
    """A Gauss-Newton matrix is the sum of four parts; with three scales of gradients it has three groups of eigenvalues."""
    model = ClassStructureModel(seed=seed)
    whole = _dense(model.sample.gauss_newton())
    parts = class_decomposition(model.sample)
    a1, a2, b1, b2 = (_dense(part) for part in (parts.A1, parts.A2, parts.B1, parts.B2))
    classes = model.num_classes
    norm = np.linalg.norm(whole)
    # The misprinted centring: pairs around the mean of the other class.
    wrong = ~np.eye(classes, dtype=bool)
    spread = (parts.pair_means - parts.class_means[None])[wrong]
    misprint = (spread.T * parts.pair_weights[wrong]) @ spread
    values = np.linalg.eigvalsh(whole)[::-1]
    first, second = model.group_sizes
    upper, middle = model.group_means
    rows = (
        at_most("relative error of A1 + A2 + B1 + B2", 1e-12, np.linalg.norm(a1 + a2 + b1 + b2 - whole) / norm),
        at_most("relative error of the closed form of A1 + A2", 1e-12, np.linalg.norm(_dense(parts.means_alone) - a1 - a2) / norm),
        at_least("control: relative error with the misprinted centring", 1e-4, np.linalg.norm(a1 + a2 + misprint + b2 - whole) / norm),
        at_most("rank of A1", classes, np.linalg.matrix_rank(a1)),
        at_most("rank of B1", classes * (classes - 2), np.linalg.matrix_rank(b1)),
        at_least(f"gap after {first} eigenvalues", 3, values[first - 1] / values[first]),
        at_least(f"gap after {first + second} eigenvalues", 3, values[first + second - 1] / values[first + second]),
        close("mean of the first group", upper, values[:first].mean(), relative=0.1),
        close("mean of the second group", middle, values[first : first + second].mean(), relative=0.1),
    )

    def draw(ax: Any) -> None:
        shown = values[: 4 * (first + second)]
        ax.plot(np.arange(1, len(shown) + 1), shown, ".", color=MEASURED)
        for place, label in ((first, "C"), (first + second, "C + C (C - 2)")):
            ax.axvline(place + 0.5, color=SECOND, linewidth=1)
            ax.annotate(label, (place + 1, values[0]), color=SECOND)
        ax.set_yscale("log")
        ax.set_xlabel("rank of the eigenvalue")
        ax.set_ylabel("eigenvalue")

    return Findings(rows, draw)


def logit_clustering(seed: int) -> Findings:
    """Clustered logit gradients give C - 1 outliers, whose height falls as the softmax freezes."""
    rows: list[Row] = []
    table = []
    for scale in (0.001, 1.0, 2.0, 5.0):
        model = LogitClustering(logit_scale=scale, seed=seed)
        operator = model.sample.gauss_newton()
        count = model.num_classes - 1
        top = np.asarray(eigsh(operator, k=count + 1, which="LA", tol=1e-8).eigenvalues)[::-1]
        predicted, trace = model.outliers(), model.expected_trace()
        rows += [
            Row(f"sigma_z = {scale:g}: predicted outliers", count, len(predicted)),
            close(f"sigma_z = {scale:g}: mean of the top C - 1", predicted.mean(), top[:count].mean(), relative=0.05),
            at_most(f"sigma_z = {scale:g}: the next eigenvalue over the edge of the bulk", 1.2, top[count] / model.bulk_edge),
        ]
        table.append((scale, predicted.mean(), top[:count].mean(), trace))
    # The trace of one draw scatters by the clusters' lengths and by the logits: the mean of 20 draws.
    for scale, expected in ((0.001, 1.341), (2.0, 0.906)):
        draws = [LogitClustering(logit_scale=scale, seed=seed + i).sample for i in range(20)]
        traces = [float(_trace_terms(s).mean()) for s in draws]
        predicted_trace = LogitClustering(logit_scale=scale).expected_trace()
        rows += [
            close(f"sigma_z = {scale:g}: expected trace", expected, predicted_trace, relative=0.03),
            close(f"sigma_z = {scale:g}: mean trace of 20 draws", predicted_trace, float(np.mean(traces)), relative=0.03),
        ]
    model = LogitClustering(logit_scale=1.0, seed=seed)
    values = np.linalg.eigvalsh(_dense(model.sample.gauss_newton()))
    bulk = values[: -(model.num_classes - 1)]
    rows += [
        at_most("Wasserstein distance of the bulk, over its edge", 0.02, wasserstein_distance(bulk, model.bulk_law) / model.bulk_edge),
        close("freezing of ten logits", 2.1460, freezing_scale(10), absolute=1e-3),
    ]
    boosted = LogitClustering(logit_scale=1.0, pair_scale=0.6 / np.sqrt(1000), label_boost=4.0, seed=seed)
    gradient = boosted.sample.gradient()
    pairs = eigsh(boosted.sample.gauss_newton(), k=boosted.num_classes, which="LA", tol=1e-8)
    overlaps = (np.asarray(pairs.eigenvectors).T @ gradient) ** 2 / float(gradient @ gradient)
    rows.append(at_least("with means of label and logit: the gradient's share of the top C", 0.8, overlaps.sum()))
    rows.append(at_most("the same: its largest share of the top without one of them", 0.5, overlaps.sum() - overlaps.max()))

    def draw(ax: Any) -> None:
        scales, predicted, measured, _ = np.array(table).T
        ax.plot(scales, predicted, color=THEORY, label="predicted")
        ax.plot(scales, measured, "o", color=MEASURED, label="mean of the top C - 1")
        ax.set_xlabel("deviation of the logits")
        ax.set_ylabel("eigenvalue")
        ax.legend()

    return Findings(tuple(rows), draw)


def _trace_terms(sample: Any) -> np.ndarray:
    """Trace of each example's Gauss-Newton term."""
    p, jacobians = sample.probabilities, sample.jacobian
    return np.einsum("ik,ikd,ikd->i", p, jacobians, jacobians) - (np.einsum("ik,ikd->id", p, jacobians) ** 2).sum(axis=1)


def softmax_at_zero(seed: int) -> Findings:
    """Multinomial logistic regression at zero weights: Hessian, Gauss-Newton and Fisher matrix are one, with a known spectrum."""
    problem = MultinomialLogistic(30, 240, 4, seed=seed)
    expected = problem.eigenvalues_at_zero()
    classes, features = problem.num_classes, problem.num_features
    rows: list[Row] = [Row("predicted zero eigenvalues", features, int((expected < 1e-12).sum()))]
    values = expected
    for framework in installed():
        loss = linear_model(framework, problem.inputs, problem.targets, "cross_entropy", np.zeros((features, classes)))
        hessian, ggn, fisher = (_dense(matrix) for matrix in (loss.hessian(), loss.ggn(), loss.fisher("exact")))
        values = np.linalg.eigvalsh(hessian)
        rows += [
            at_most(f"{framework}: largest error of an eigenvalue", 1e-12, np.abs(values - expected).max()),
            at_most(f"{framework}: largest difference of Gauss-Newton and Hessian", 1e-12, np.abs(ggn - hessian).max()),
            at_most(f"{framework}: largest difference of Fisher and Hessian", 1e-12, np.abs(fisher - hessian).max()),
        ]
    groups = values[features:].reshape(features, classes - 1)
    rows.append(at_most("largest spread of C - 1 eigenvalues that must be equal", 1e-12, np.ptp(groups, axis=1).max()))

    def draw(ax: Any) -> None:
        ax.plot(expected, color=THEORY, linewidth=1, label="closed form")
        ax.plot(values, ".", color=MEASURED, label="Hessian")
        ax.set_xlabel("rank of the eigenvalue")
        ax.set_ylabel("eigenvalue")
        ax.legend()

    return Findings(tuple(rows), draw)


def _dense(operator: LinearOperator) -> np.ndarray:
    return np.asarray(operator.to_dense(), dtype=np.float64)


EXPERIMENTS = (
    Experiment(
        "class-structure",
        "The Gauss-Newton matrix of a classifier is A1 + A2 + B1 + B2 exactly, and gradients on three scales give three groups of "
        "eigenvalues",
        "Papyan, 2020",
        class_structure,
    ),
    Experiment(
        "logit-clustering",
        "Clustered logit gradients give C - 1 outliers at a place that one scalar equation fixes, and freezing logits pull them down",
        "Fort and Ganguli, 2019",
        logit_clustering,
    ),
    Experiment(
        "softmax-at-zero",
        "At zero weights the Hessian of softmax regression is (I - 11^T / C) / C times the covariance of the features, and equals the "
        "Gauss-Newton and the Fisher matrix",
        "closed form",
        softmax_at_zero,
    ),
)
