"""The logit-clustering model: trace, number and place of outliers, bulk and gradient, against what was drawn."""

import functools

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.random_matrices.laws.weighted_gram_law import WeightedGramLaw
from linop_spectra.random_matrices.models import LogitClustering
from linop_spectra.spectra.distances import wasserstein_distance

SCALES = (0.001, 1.0, 2.0, 5.0, 15.0)


@functools.cache
def drawn(scale):
    model = LogitClustering(logit_scale=scale, seed=1)
    values, vectors = np.linalg.eigh(model.sample.gauss_newton().to_dense())
    return model, values[::-1], vectors[:, ::-1]


@pytest.mark.parametrize("scale", SCALES)
def test_trace_and_outliers(scale):
    model, values, _ = drawn(scale)
    uncertainty = 1 - (model.sample.probabilities**2).sum(axis=1)
    assert values.sum() == pytest.approx(1.49 * uncertainty.mean(), rel=0.03)  # D (s_c^2 + s_E^2) = 1.49
    error = uncertainty.std() / np.sqrt(300)
    assert model.expected_trace() == pytest.approx(1.49 * uncertainty.mean(), abs=4 * 1.49 * error + 1e-6)
    assert values.sum() == pytest.approx(model.expected_trace(), rel=0.03)
    predicted = model.outliers()
    assert len(predicted) == 9
    if scale < 0.01:  # all softmaxes alike: no spread but that of the means
        assert np.ptp(predicted) < 1e-3 * predicted.mean()
    assert values[:9].mean() == pytest.approx(predicted.mean(), rel=0.05)
    np.testing.assert_allclose(model.outliers(given_means=True), values[:9], rtol=0.03)
    # Exactly C - 1: the next one belongs to the bulk.
    assert values[8] > 4 * values[9] and values[9] < 1.02 * model.bulk_edge < values[8]
    assert values[:9].mean() > 10 * values[9]


@pytest.mark.parametrize("scale, trace, outlier", [
    (0.001, 1.341, 0.1006), (1, 1.191, 0.0895), (2, 0.906, 0.0682), (5, 0.457, 0.0346), (15, 0.152, 0.0117),
])  # fmt: skip
def test_the_published_table(scale, trace, outlier):
    """Its predictions are from the one draw of logits that was made there: at large scales few examples count."""
    model, _, _ = drawn(float(scale))
    loose = 0.05 if scale > 2 else 0.02
    assert model.expected_trace() == pytest.approx(trace, rel=loose)
    assert model.outliers().mean() == pytest.approx(outlier, rel=loose + 0.01)


@pytest.mark.parametrize("scale", SCALES[1:])
def test_bulk_follows_the_weighted_law(scale):
    model, values, _ = drawn(scale)
    law, bulk = model.bulk_law, values[9:]
    assert law.support[-1][1] == pytest.approx(model.bulk_edge, rel=3e-3)
    # Nine directions less of a thousand move a distribution function by 9 / 1000, over the width of the bulk.
    distance = wasserstein_distance(bulk, law)
    assert distance < 0.012 * model.bulk_edge
    assert bulk[-1] > 0 and bulk[0] == pytest.approx(model.bulk_edge, rel=0.1)
    stretched = WeightedGramLaw(population=law.population, ratio=law.ratio, variance=1.3 * law.variance)
    plain = ls.random_matrices.MarchenkoPastur(ratio=law.ratio, variance=law.mean())
    assert wasserstein_distance(bulk, stretched) > 1.5 * distance
    if scale > 2:
        assert wasserstein_distance(bulk, plain) > 1.5 * distance


def test_the_gradient_lies_in_the_outliers():
    for scale in SCALES:
        model, _, vectors = drawn(scale)
        gradient = model.sample.gradient()
        share = ((vectors[:, :9].T @ gradient) ** 2).sum() / (gradient @ gradient)
        assert 0.4 < share < 0.95  # of a random direction 0.009


def test_lengths_of_clusters_split_the_outliers():
    model = LogitClustering(logit_scale=2.0, seed=3, cluster_lengths=np.linspace(0.5, 1.6, 10), dimension=600, num_examples=250)
    values = np.linalg.eigvalsh(model.sample.gauss_newton().to_dense())[::-1]
    predicted = model.outliers(given_means=True)
    assert len(predicted) == 9 and predicted[0] > 3 * predicted[8]
    np.testing.assert_allclose(predicted, values[:9], rtol=0.04)
    np.testing.assert_allclose(model.outliers(), values[:9], rtol=0.35)
    assert values.sum() == pytest.approx(model.expected_trace(), rel=0.06)


def test_pairs_of_label_and_logit_give_the_missing_outlier():
    """With means of pairs and probabilities that know the label the gradient lies in C directions, no longer in C - 1."""
    scale = 0.3 / np.sqrt(1000)
    model = LogitClustering(logit_scale=1.0, pair_scale=scale, label_boost=4.0, seed=1)
    values, vectors = np.linalg.eigh(model.sample.gauss_newton().to_dense())
    values, vectors = values[::-1], vectors[:, ::-1]
    predicted = model.outliers(given_means=True)
    assert len(predicted) > 10 and values[9] / values[10] > 1.2
    np.testing.assert_allclose(predicted[:10], values[:10], rtol=0.03)
    gradient = model.sample.gradient()
    shares = np.cumsum((vectors.T @ gradient) ** 2) / (gradient @ gradient)
    assert shares[8] < 0.7 and shares[9] > 0.93
    assert values.sum() == pytest.approx(model.expected_trace(), rel=0.05)


def test_weak_clusters_give_no_outlier():
    model = LogitClustering(cluster_scale=0.02 / np.sqrt(400), dimension=400, num_examples=60, num_classes=4)
    values = np.linalg.eigvalsh(model.sample.gauss_newton().to_dense())
    assert model.outliers().size == 0
    assert values[-1] == pytest.approx(model.bulk_edge, rel=0.05)


def test_kernel_and_operator():
    model = LogitClustering(num_classes=4, num_examples=20, dimension=50, logit_scale=0.5)
    rows = model.sample.jacobian.reshape(80, 50)
    np.testing.assert_allclose(model.sample.kernel().to_dense(), rows @ rows.T, rtol=1e-10, atol=1e-14)
    assert model.sample.gauss_newton().shape == (50, 50)
    kernel = ls.eigsh(model.sample.kernel(), k=4, which="LA", tol=1e-9).eigenvalues
    # Clusters by logit: N |c_k|^2 and the noise of each group, four eigenvalues apart.
    assert kernel[0] > 5 * np.linalg.eigvalsh(rows @ rows.T)[-5]
    cosine = rows / np.linalg.norm(rows, axis=1)[:, None]
    same = np.arange(80)[:, None] % 4 == np.arange(80) % 4
    np.fill_diagonal(same, False)
    expected = 1 / (1 + 0.49)  # sigma_c^2 / (sigma_c^2 + sigma_E^2)
    assert (cosine @ cosine.T)[same].mean() == pytest.approx(expected, abs=0.08)
    assert abs((cosine @ cosine.T)[~same & ~np.eye(80, dtype=bool)].mean()) < 0.15


def test_draws_are_functions_of_the_seed():
    small = {"num_classes": 3, "num_examples": 8, "dimension": 12}
    one, same, other = (LogitClustering(**small, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.sample.jacobian, same.sample.jacobian)
    np.testing.assert_array_equal(one.logits, same.logits)
    assert not np.any(one.sample.jacobian == other.sample.jacobian)
    assert set(LogitClustering(num_classes=3, num_examples=500, dimension=2).labels) == {0, 1, 2}
    single = LogitClustering(**small, seed=1, dtype=np.float32)
    assert single.sample.gauss_newton().dtype == np.float32
    np.testing.assert_allclose(single.sample.jacobian, one.sample.jacobian, atol=1e-6)


def test_a_frozen_softmax_has_no_curvature():
    model = LogitClustering(num_classes=3, num_examples=5, dimension=10, logit_scale=1e6)
    assert model.outliers().size == 0 and model.bulk_edge < 1e-12
    assert np.abs(model.sample.gauss_newton().to_dense()).max() < 1e-12


def test_bad_input():
    for arguments, message in [
        ({"num_classes": 1}, "num_classes"),
        ({"num_examples": 0}, "num_examples"),
        ({"dimension": 2.5}, "dimension"),
        ({"cluster_scale": -1.0}, "cluster_scale"),
        ({"noise_scale": np.nan}, "noise_scale"),
        ({"logit_scale": -1.0}, "logit_scale"),
        ({"pair_scale": -1.0}, "pair_scale"),
        ({"cluster_lengths": [1.0, 2.0]}, "10 finite factors"),
        ({"seed": -2}, "seed"),
    ]:
        with pytest.raises(ValueError, match=message):
            LogitClustering(**arguments)
