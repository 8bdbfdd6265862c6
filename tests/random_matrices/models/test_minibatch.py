"""The additive model of a batch's Hessian against its table, sampled operators, and where it fails: linear regression."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.estimators.field_variance import field_variance
from linop_spectra.random_matrices.models import (
    LinearRegression,
    MinibatchModel,
    effective_batch_size,
    fit_batch_sizes,
    minibatch_operators,
    shifted_eigenvalue,
)
from linop_spectra.random_matrices.outliers import spiked_wigner_outlier

SPIKES = np.array([30.0, 12.0, 6.0, 3.0, -8.0])


@pytest.fixture(scope="module")
def model():
    return MinibatchModel(SPIKES, variance=1000.0, num_examples=50_000, order=1000)


@pytest.mark.parametrize(
    "batch_size, largest, second, smallest",
    [(32, 31.04, None, -11.90), (128, 30.26, 12.65, -8.97), (2048, 30.016, 12.039, -8.059), (32768, 30.000, None, -8.001)],
)
def test_the_published_table(model, batch_size, largest, second, smallest):
    found = model.at(batch_size)
    assert found.largest == pytest.approx(largest, abs=6e-3) and found.smallest == pytest.approx(smallest, abs=6e-3)
    if second is not None:
        assert found.eigenvalues[1] == pytest.approx(second, abs=6e-3)
    if batch_size == 32:
        assert found.half_width == pytest.approx(11.18, abs=5e-3) and found.standard_deviations[0] == pytest.approx(0.246, abs=5e-4)
        assert found.separated.tolist() == [True, True, True, False, True]
        assert found.eigenvalues[3] == found.half_width and np.isnan(found.standard_deviations[3]) and found.overlaps[3] == 0
    if batch_size == 32768:
        assert found.effective_batch_size == pytest.approx(95_079, abs=1)


@pytest.mark.parametrize("batch_size", [32, 2048])
def test_sampled_operators_follow_the_table(model, batch_size):
    mean = ls.diagonal_operator(np.r_[SPIKES, np.zeros(995)])
    (operator,) = minibatch_operators(mean, variance=1000.0, batch_size=batch_size, num_batches=1, num_examples=50_000, seed=3)
    assert operator.hermitian and operator.shape == (1000, 1000)
    values, vectors = np.linalg.eigh(operator.to_dense())
    found = model.at(batch_size)
    for index, place in ((0, -1), (1, -2), (4, 0)):
        assert values[place] == pytest.approx(found.eigenvalues[index], abs=3 * found.standard_deviations[index])
        assert values[place] == pytest.approx(found.eigenvalues[index], rel=0.02)
        assert vectors[index, place] ** 2 == pytest.approx(found.overlaps[index], abs=0.06)
    top = -1 - int(found.separated[:4].sum())
    assert values[top] == pytest.approx(found.half_width, rel=0.03) and values[1] == pytest.approx(-found.half_width, rel=0.03)


def test_each_outlier_is_that_of_a_spiked_wigner_matrix(model):
    found = model.at(64)
    for index, spike in enumerate(SPIKES):
        expected = spiked_wigner_outlier(spike, variance=found.variance, n=1000)
        assert found.eigenvalues[index] == pytest.approx(expected.location) and found.separated[index] == expected.separated
        assert found.overlaps[index] == pytest.approx(expected.overlap)
        if expected.separated:
            assert found.standard_deviations[index] == pytest.approx(expected.fluctuation)
    moved = MinibatchModel(SPIKES + 5, variance=1000.0, num_examples=50_000, bulk=5.0).at(64)
    np.testing.assert_allclose(moved.eigenvalues, found.eigenvalues + 5)
    assert moved.smallest == pytest.approx(found.smallest + 5) and moved.standard_deviations is None


def test_learning_rates(model):
    found = model.at(32)
    assert found.learning_rate_cap() == pytest.approx(2 / 31.0416, rel=1e-4)
    assert found.learning_rate_cap(0.9) == pytest.approx(1.9 * found.learning_rate_cap())
    # Linear in the batch size while noise rules, constant when it does not.
    flat = MinibatchModel([1.0], variance=1e4)
    assert flat.at(400).learning_rate_cap() / flat.at(100).learning_rate_cap() == pytest.approx(2, rel=1e-12)
    assert flat.at(4e8).learning_rate_cap() == pytest.approx(2, rel=1e-3)
    # Descent on the sampled curvature itself: below the cap it converges, above it diverges.
    mean = ls.diagonal_operator(np.r_[20.0, np.zeros(299)])
    (operator,) = minibatch_operators(mean, variance=300.0, batch_size=8, num_batches=1, seed=1)
    predicted = MinibatchModel([20.0], variance=300.0).at(8)
    top = np.linalg.eigvalsh(operator.to_dense())[-1]
    assert abs(1 - 0.9 * predicted.learning_rate_cap() * top) < 1 < abs(1 - 1.1 * predicted.learning_rate_cap() * top)
    with pytest.raises(ValueError, match="no learning rate"):
        MinibatchModel([-5.0], variance=1e-9, bulk=-5.0).at(10).learning_rate_cap()


# -- linear regression: noise that depends on the direction ------------------------------------------------------------


@pytest.mark.parametrize("ratio", [10.0, 1.0, 0.1])
def test_the_additive_model_fails_for_linear_regression(ratio):
    """Eigenvalues of the batch's Hessian follow Marchenko and Pastur; the additive model misses the edge, most at small batches."""
    p = 400
    problem = LinearRegression(p, round(p / ratio), seed=2)
    values = np.linalg.eigvalsh(problem.hessian().to_dense()) / 2
    top = (1 + np.sqrt(ratio)) ** 2
    assert values[-1] == pytest.approx(top, rel=0.04)
    variance = problem.field_variance() / 4
    predicted = MinibatchModel([1.0], variance=variance, bulk=1.0).at(problem.num_examples)
    assert predicted.largest == pytest.approx(1 + 2 * np.sqrt(ratio), rel=2e-3)
    if ratio == 10:
        assert predicted.largest < 0.45 * values[-1] and predicted.smallest < -5 < -1e-12 < values[0]


@pytest.mark.parametrize("spike, isotropic_error", [(3.0, -0.074), (6.0, -0.0397)])
def test_the_directional_variance_gives_what_the_isotropic_one_misses(spike, isotropic_error):
    p, batch = 1000, 4000
    problem = LinearRegression(p, batch, spikes=(spike,))
    (exact,) = problem.outliers()
    along, average = problem.field_variance(spike) / batch, problem.field_variance() / batch
    directional = shifted_eigenvalue(2 * spike, along, bulk=2.0)
    isotropic = shifted_eigenvalue(2 * spike, average, bulk=2.0)
    assert directional == pytest.approx(exact.location, rel=0.005)
    assert isotropic / exact.location - 1 == pytest.approx(isotropic_error, abs=0.004)
    model = MinibatchModel([2 * spike], variance=4 * p, bulk=2.0, directional_variances=[problem.field_variance(spike)], order=p)
    assert model.at(batch).eigenvalues[0] == directional


def test_measured_variances_predict_the_outlier_of_a_batch():
    """Everything from products: the variance along the spike of disjoint batches, and the mean of their largest eigenvalues."""
    p, batch, spike = 400, 1600, 3.0
    problem = LinearRegression(p, 8 * batch, spikes=(spike,), seed=1)
    batches = problem.batch_hessians(batch)
    assert len(batches) == 8
    along, average = field_variance(batches, np.eye(p)[0]), field_variance(batches, num_probes=4)
    low, high = along.confidence_interval(0.99)
    assert low < problem.field_variance(spike) / batch < high
    low, high = average.confidence_interval(0.99)
    assert low < problem.field_variance() / batch < high
    tops = [ls.eigsh(operator, k=1, which="LA", tol=1e-4).eigenvalues[0] for operator in batches]
    (exact,) = problem.outliers(batch)
    error = exact.fluctuation / np.sqrt(8)
    assert np.mean(tops) == pytest.approx(exact.location, abs=3 * error)
    assert shifted_eigenvalue(2 * spike, along.value, bulk=2.0) == pytest.approx(exact.location, rel=0.02)
    assert shifted_eigenvalue(2 * spike, average.value, bulk=2.0) < exact.location * 0.94
    assert along.value / average.value == pytest.approx(spike, rel=0.15)  # the isotropy test fails, as it should


# -- the generator, the fit, and bad input -----------------------------------------------------------------------------


def test_operators_have_the_variance_and_streams_of_their_own():
    mean = ls.diagonal_operator(np.linspace(0, 3, 150))
    operators = minibatch_operators(mean, variance=50.0, batch_size=20, num_batches=6, num_examples=100, seed=4)
    expected = 50.0 / 25 * 151 / 150
    low, high = field_variance(operators, num_probes=150).confidence_interval(0.99)
    assert low < expected < high
    noise = [(operator - mean).to_dense() for operator in operators]
    overlap = abs(np.vdot(noise[0], noise[1])) / np.linalg.norm(noise[0]) / np.linalg.norm(noise[1])
    assert overlap < 5 / 150  # of independent noise about 1 / n
    again = minibatch_operators(mean, variance=50.0, batch_size=20, num_batches=2, num_examples=100, seed=4)
    np.testing.assert_array_equal(again[1].to_dense(), operators[1].to_dense())
    single = minibatch_operators(mean, variance=50.0, batch_size=20, num_batches=1, seed=4, dtype=np.float32)[0]
    assert single.shape == (150, 150)


def test_fit_recovers_eigenvalue_and_variance():
    sizes = np.array([64, 128, 256, 512, 1024])
    model = MinibatchModel([12.0], variance=2000.0, num_examples=4096, bulk=1.0)
    rng = np.random.default_rng(0)
    clean = [model.at(size).eigenvalues[0] for size in sizes]
    # The shift is variance / (theta - bulk), with theta itself: exact for the additive model.
    exact = fit_batch_sizes(sizes, clean, num_examples=4096, bulk=1.0)
    assert exact.eigenvalue == pytest.approx(12, rel=1e-10) and exact.variance == pytest.approx(2000, rel=1e-9)
    fits = [fit_batch_sizes(sizes, clean + 0.05 * rng.standard_normal(5), num_examples=4096, bulk=1.0) for _ in range(400)]
    for name, truth in (("eigenvalue", 12.0), ("variance", 2000.0)):
        values = np.array([getattr(fit, name) for fit in fits])
        errors = np.array([getattr(fit, name + "_error") for fit in fits])
        assert values.mean() == pytest.approx(truth, abs=5 * values.std() / 20)
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.15)
    assert fit_batch_sizes([8, 16], [5.0, 4.0]).variance_error == np.inf


def test_effective_batch_size():
    assert effective_batch_size(100) == 100 and effective_batch_size(50, 100) == 100
    assert effective_batch_size(100, 100) == np.inf and effective_batch_size(1, 1) == np.inf
    np.testing.assert_allclose(effective_batch_size([32, 2048], 50_000), [32.02, 2135.5], atol=0.05)
    assert MinibatchModel([4.0], variance=1.0, num_examples=10).at(10).eigenvalues[0] == 4


def test_shifts_are_continuous_and_symmetric():
    assert shifted_eigenvalue(2.0, 4.0) == 4 == shifted_eigenvalue(0.1, 4.0)
    assert shifted_eigenvalue(2.0 + 1e-9, 4.0) == pytest.approx(4)
    assert shifted_eigenvalue(-5.0, 4.0) == -shifted_eigenvalue(5.0, 4.0) and shifted_eigenvalue(-0.1, 4.0) == -4
    assert shifted_eigenvalue(3.0, 0.0) == 3 and shifted_eigenvalue(0.0, 0.0) == 0


def test_bad_input():
    for call, message in [
        (lambda: MinibatchModel([1.0, np.nan], variance=1.0), "eigenvalues must be finite"),
        (lambda: MinibatchModel([1.0], variance=-1.0), "variance"),
        (lambda: MinibatchModel([1.0], variance=1.0, directional_variances=[1.0, 2.0]), "directional_variances"),
        (lambda: MinibatchModel([1.0], variance=1.0, num_examples=10).at(11), "only 10 examples"),
        (lambda: MinibatchModel([1.0], variance=1.0).at(0), "batch_size"),
        (lambda: MinibatchModel([1.0], variance=1.0).at(8).learning_rate_cap(1.0), "momentum"),
        (lambda: shifted_eigenvalue(1.0, -1.0), "not be negative"),
        (lambda: fit_batch_sizes([8, 8], [1.0, 2.0]), "two different sizes"),
        (lambda: minibatch_operators(np.eye(3), variance=1.0, batch_size=10, num_batches=1, num_examples=10), "no noise"),
        (lambda: minibatch_operators(np.eye(3), variance=1.0, batch_size=10, num_batches=1, seed=-1), "seed"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
