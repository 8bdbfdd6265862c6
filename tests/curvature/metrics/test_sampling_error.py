"""What the choice of the data does to metrics: against derivatives by the weights of batches, and populations in closed form."""

import dataclasses

import numpy as np
import pytest
from metric_networks import FRAMEWORKS, in_torch, regression
from scipy import stats

import linop_spectra as ls
from linop_spectra.curvature import metrics
from linop_spectra.curvature.metrics import influence
from linop_spectra.curvature.metrics.resampling import resampled


def network(sizes=(40, 40, 40, 40, 20), seed=0, **options):
    """Eight parameters, an indefinite Hessian with simple eigenvalues, batches of these sizes."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Tanh(), torch.nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    total = sum(sizes)
    x, y = (torch.randn(total, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return ls.objective(model, "mse", list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True)), **options)


class Reweighted:
    """Loss, gradient and Hessian of batches, dense, with the share of one of them a little larger."""

    def __init__(self, objective):
        self.objective, self.parts = objective, objective.per_batch()
        self.shares = np.array([part.num_examples for part in self.parts], dtype=float)
        self.shares /= self.shares.sum()
        self.H = [np.asarray(part.hessian().to_dense()) for part in self.parts]
        self.g = [np.asarray(part.gradient()) for part in self.parts]

    def error(self, measure, step=1e-5):
        """Standard error of ``measure(shares)`` from central differences along each batch."""
        units = np.eye(len(self.shares))
        ends = [[measure(self.shares + sign * step * (u - self.shares)) for sign in (1, -1)] for u in units]
        slopes = [(above - below) / (2 * step) for above, below in ends]
        return np.sqrt(self.shares @ np.square(slopes) / (len(slopes) - 1))

    def matrix(self, shares):
        return sum(share * H for share, H in zip(shares, self.H, strict=True))

    def gradient(self, shares):
        return sum(share * g for share, g in zip(shares, self.g, strict=True))

    def loss(self, shares, theta):
        return sum(share * part.with_parameters(theta).value() for share, part in zip(shares, self.parts, strict=True))


def entropy(w):
    p = np.abs(w) / np.abs(w).sum()
    return -(p * np.log(p)).sum()


SPECTRAL = {
    "trace": (np.sum, {}), "frobenius_norm": (np.linalg.norm, {}), "nuclear_norm": (lambda w: np.abs(w).sum(), {}),
    "logdet": (lambda w: np.log(w + 9).sum(), {"damping": 9.0}),
    "effective_dimension": (lambda w: (w * (w > 0) / (w + 0.3)).sum(), {"damping": 0.3}),
    "stable_rank": (lambda w: (w**2).sum() / np.abs(w).max() ** 2, {}), "intrinsic_dimension": (lambda w: w.sum() / np.abs(w).max(), {}),
    "participation_ratio": (lambda w: w.sum() ** 2 / (w**2).sum(), {}), "spectral_entropy": (entropy, {}),
    "effective_rank": (lambda w: np.exp(entropy(w)), {}), "goldilocks_ratio": (lambda w: w.sum() / np.linalg.norm(w), {}),
    "negative_energy": (lambda w: -w[w < 0].sum() / np.abs(w).sum(), {}), "negative_ratio": (lambda w: -w[0] / w[-1], {}),
    "largest_eigenvalue": (lambda w: w[-1], {}), "smallest_eigenvalue": (lambda w: w[0], {}),
    "spectral_norm": (lambda w: np.abs(w).max(), {}),
    "condition_number": (lambda w: (w[-1] + 9) / (w[0] + 9), {"damping": 9.0}),
    "average_sharpness": (lambda w: 0.5e-4 * w.sum(), {"deviation": 0.01}), "pac_bayes_deviation": (lambda w: np.sqrt(0.2 / w.sum()), {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    objective = network()
    return Reweighted(objective), metrics.SharedRun.of(objective)


@pytest.mark.parametrize("name", SPECTRAL)
def test_functions_of_the_spectrum(measured, name):
    dense, shared = measured
    define, options = SPECTRAL[name]
    found = getattr(metrics, name)(shared, sampling=True, **options)
    assert found.value == pytest.approx(define(np.linalg.eigvalsh(dense.matrix(dense.shares))), rel=1e-6)
    expected = dense.error(lambda shares: define(np.linalg.eigvalsh(dense.matrix(shares))))
    assert found.sampling_error == pytest.approx(expected, rel=1e-4)
    assert found.sampling_degrees == 4 and found.num_examples == 180 and found.num_matvecs >= shared.num_matvecs + 4 + 3
    without = getattr(metrics, name)(shared, **options)
    assert without.value == found.value and without.sampling_error == 0 and without.num_examples == 0
    (low, high), (inner_low, inner_high) = found.confidence_interval(), without.confidence_interval()
    assert low <= inner_low and inner_high <= high and high - low > inner_high - inner_low


def test_condition_number_of_a_rank(measured):
    dense, shared = measured
    found = metrics.condition_number(shared, rank=2, sampling=True)
    w = lambda shares: np.linalg.eigvalsh(dense.matrix(shares))  # noqa: E731
    assert found.sampling_error == pytest.approx(dense.error(lambda shares: w(shares)[-1] / w(shares)[-2]), rel=1e-4)


def overlap(H, g):
    return np.sum((np.linalg.eigh(H)[1][:, -2:].T @ g) ** 2) / (g @ g)


def worst_case(H, g, radius=0.3):
    """Maximum of the quadratic model on the sphere, by the secular equation."""
    from scipy import optimize

    def excess(mu):
        return np.linalg.norm(np.linalg.solve(mu * np.eye(8) - H, g)) - radius

    mu = optimize.brentq(excess, np.linalg.eigvalsh(H)[-1] + 1e-9, 1e4, xtol=1e-14)
    e = np.linalg.solve(mu * np.eye(8) - H, g)
    return g @ e + 0.5 * e @ H @ e


GRADIENT = {
    "gradient_curvature": (lambda H, g: g @ H @ g / (g @ g), {}),
    "gradient_alignment": (lambda H, g: g @ H @ g / (g @ g) / np.linalg.eigvalsh(H)[-1], {}),
    "gradient_cosine": (lambda H, g: g @ H @ g / np.linalg.norm(g) / np.linalg.norm(H @ g), {}),
    "gradient_overlap": (overlap, {"num_directions": 2}), "worst_case_sharpness": (worst_case, {"radius": 0.3}),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_against_curvature(measured, name):
    dense, shared = measured
    define, options = GRADIENT[name]
    found = getattr(metrics, name)(shared, sampling=True, **options)
    assert found.value == pytest.approx(define(dense.matrix(dense.shares), dense.gradient(dense.shares)), rel=1e-6)
    expected = dense.error(lambda shares: define(dense.matrix(shares), dense.gradient(shares)))
    assert found.sampling_error == pytest.approx(expected, rel=1e-4)


def test_values_of_the_loss(measured):
    dense, _ = measured
    objective = dense.objective
    theta = np.asarray(objective.parameters())

    def sam(shares):
        g = dense.gradient(shares)
        return dense.loss(shares, theta + 0.1 * g / np.linalg.norm(g)) - dense.loss(shares, theta)

    def critical(shares):
        from scipy import optimize

        g = dense.gradient(shares)
        return 2 / optimize.brentq(lambda eta: dense.loss(shares, theta - eta * g) - dense.loss(shares, theta), 0.05, 8.0, xtol=1e-13)

    assert metrics.sam_sharpness(objective, 0.1, sampling=True).sampling_error == pytest.approx(dense.error(sam, 1e-4), rel=1e-5)
    found = metrics.critical_sharpness(objective, tol=1e-9, sampling=True)
    assert found.value == pytest.approx(critical(dense.shares), rel=1e-6)
    assert found.sampling_error == pytest.approx(dense.error(critical, 1e-4), rel=1e-4)
    fixed = metrics.critical_sharpness(objective, direction=-dense.gradient(dense.shares), tol=1e-9, sampling=True)
    assert fixed.value == pytest.approx(found.value) and fixed.sampling_error != pytest.approx(found.sampling_error, rel=1e-3)


def test_means_over_the_data(measured):
    """Their standard error is that of the mean of the batches' own values."""
    dense, _ = measured
    objective, theta = dense.objective, np.asarray(dense.objective.parameters())

    def expected(values):
        values = np.array(values)
        return np.sqrt(dense.shares @ (values - dense.shares @ values) ** 2 / 4)

    found = metrics.fisher_rao_norm(objective, sampling=True)
    assert found.sampling_error == pytest.approx(expected([theta @ np.asarray(p.ggn().to_dense()) @ theta for p in dense.parts]), rel=1e-9)
    assert found.num_matvecs == 2 and found.bias == 0
    found = metrics.adaptive_sharpness(objective, kind="average", sampling=True)
    assert found.sampling_error == pytest.approx(expected([0.5 * theta**2 @ np.diag(H) for H in dense.H]), rel=1e-6)
    W = theta[:4].reshape(2, 2)
    flat = [np.einsum("si,ti,sjtj->", W, W, H[:4, :4].reshape(2, 2, 2, 2)) for H in dense.H]
    assert metrics.relative_flatness(objective, "0.weight", sampling=True).sampling_error == pytest.approx(expected(flat), rel=1e-8)
    rises = [metrics.average_sharpness(p, 0.1, method="sampled").value for p in dense.parts]
    assert metrics.average_sharpness(objective, 0.1, method="sampled", sampling=True).sampling_error == pytest.approx(expected(rises))
    sampled = metrics.pac_bayes_deviation(objective, 0.1, method="sampled", sampling=True)
    rises = [metrics.average_sharpness(p, sampled.value, method="sampled", num_samples=8).value for p in dense.parts]
    assert sampled.sampling_error == pytest.approx(sampled.value / 0.2 * expected(rises), rel=1e-6)


def test_layers_carry_the_sampling_of_their_traces(measured):
    dense, shared = measured
    for row, place in zip(metrics.layer_table(shared, sampling=True), (slice(0, 4), slice(4, 8)), strict=True):
        expected = dense.error(lambda shares, place=place: np.trace(dense.matrix(shares)[place, place]))
        assert row.trace.sampling_error == pytest.approx(expected, rel=1e-6)
    assert metrics.layer_table(shared)[0].trace.sampling_error == 0


@pytest.mark.parametrize(
    "name", ["residual_ratio", "trace_ratio", "takeuchi_criterion", "goldilocks_ratio", "positive_share", "negative_mass"]
)
def test_leaving_out_batches(name):
    """Against a jackknife by hand, of equal batches: sqrt((K - 1) / K sum (T_-b - mean)^2), bias (K - 1) (mean T_-b - T)."""
    options = {"goldilocks_ratio": {"plane_dimension": 3}, "positive_share": {"plane_dimension": 3}, "takeuchi_criterion": {"damping": 0.5}}
    objective, measure = network((20,) * 4), getattr(metrics, name)
    given = options.get(name, {})
    batches = list(objective.batches())
    without = np.array([measure(objective.with_data(batches[:b] + batches[b + 1 :]), **given).value for b in range(4)])
    found = measure(objective, sampling=True, **given)
    assert found.value == measure(objective, **given).value
    assert found.sampling_error == pytest.approx(np.sqrt(3 / 4 * np.sum((without - without.mean()) ** 2)), rel=1e-9, abs=1e-15)
    if name in ("positive_share", "negative_mass"):
        assert found.bias == 0  # of what jumps the jackknife knows none
    else:
        assert found.sampling_error > 0 and found.bias == pytest.approx(3 * (without.mean() - found.value), rel=1e-9)
    assert found.num_matvecs >= 4 * measure(objective, **given).num_matvecs - 4


def test_many_batches_are_put_into_groups():
    calls = []

    def measure(own):
        calls.append(own.num_examples)
        return metrics.Metric(float(own.num_examples), num_matvecs=1)

    found = resampled(network((10,) * 25), measure, "size")
    assert len(calls) == 11 and calls[0] == 250 and set(calls[1:]) == {220, 230} and found.num_matvecs == 10


def test_jackknife_of_a_mean_with_an_uneven_last_batch():
    """Leaving out and the groups' own values say the same of a mean, and it is the error of equal batches when the last is split fairly."""
    objective = network((40, 40, 40, 20))
    values = [metrics.trace(part).value for part in objective.per_batch()]
    shares = np.array([40, 40, 40, 20]) / 140
    expected = np.sqrt(shares @ (values - shares @ values) ** 2 / 3)
    for mean in (False, True):
        found = resampled(objective, metrics.trace, "trace", mean=mean)
        assert found.sampling_error == pytest.approx(expected, rel=1e-6) and abs(found.bias) < 1e-9
    assert metrics.trace(objective, sampling=True).sampling_error == pytest.approx(expected, rel=1e-4)


def test_uneven_batches_estimate_the_same_error_as_equal_ones():
    """On average over data the variance by batches of 30, 30, 30, 10 is that of the trace, and no less than by ten equal ones."""
    rng, squares, traces = np.random.default_rng(3), {10: [], 30: []}, []
    for _ in range(20):
        x = rng.standard_normal((100, 2))
        traces.append(2 * (x**2).sum() / 100)
        for size, out in squares.items():
            objective = regression(x, np.zeros(100), np.ones(2), batch_size=size)
            out.append(resampled(objective, metrics.trace, "trace", mean=True).sampling_error ** 2)
    true = 4 * 2 * 2 / 100  # 2 (x1^2 + x2^2) has the variance 16
    for size, out in squares.items():
        assert np.mean(out) == pytest.approx(true, abs=4 * np.std(out) / np.sqrt(len(out))), size
    assert np.var(traces) == pytest.approx(true, rel=4 * np.sqrt(2 / 20))


SCALES, SETS = np.array([4.0, 1.5, 1.0, 0.5]), 100
POPULATION = {
    "trace": (lambda w: w.sum(), {}), "frobenius_norm": (np.linalg.norm, {}), "nuclear_norm": (lambda w: w.sum(), {}),
    "largest_eigenvalue": (lambda w: w[0], {}), "logdet": (lambda w: np.log(w + 0.5).sum(), {"damping": 0.5}),
    "effective_dimension": (lambda w: (w / (w + 0.5)).sum(), {"damping": 0.5}), "stable_rank": (lambda w: (w**2).sum() / w[0] ** 2, {}),
    "participation_ratio": (lambda w: w.sum() ** 2 / (w**2).sum(), {}), "spectral_entropy": (entropy, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def many_samples():
    """Many data sets of linear regression with Gaussian inputs, H = 2 X^T X / N, and the metrics of each."""
    found = {name: [] for name in POPULATION}
    for seed in range(SETS):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((480, 4)) * np.sqrt(SCALES)
        shared = metrics.SharedRun.of(regression(x, rng.standard_normal(480), np.ones(4), batch_size=120), num_probes=1, seed=seed)
        for name, (_, options) in POPULATION.items():
            found[name].append(getattr(metrics, name)(shared, sampling=True, **options))
    return found


@pytest.mark.parametrize("name", POPULATION)
def test_intervals_cover_the_population(many_samples, name):
    """Without its bias, each metric is within Student's t times its sampling error of that of endless data as often as it says."""
    true, runs = POPULATION[name][0](2 * SCALES), many_samples[name]
    errors = np.array([one.corrected - true for one in runs])
    half = np.array([stats.t.ppf(0.975, one.sampling_degrees) * one.sampling_error for one in runs])
    least, most = stats.binom.ppf([0.001, 0.999], len(runs), 0.95)
    hits = int(np.sum(np.abs(errors) <= half))
    assert least <= hits <= most + 1
    # The interval itself reaches over the bias too.
    assert sum(one.confidence_interval()[0] <= true <= one.confidence_interval()[1] for one in runs) >= hits
    claimed = np.sqrt(np.mean([one.sampling_error**2 for one in runs]))
    assert claimed == pytest.approx(np.std(errors), rel=0.2)
    # What is left of the bias is noise: at most a quarter of what was taken off, beyond the noise of the mean.
    noise = np.std(errors) / np.sqrt(len(runs))
    assert abs(errors.mean()) <= 3 * noise + 0.25 * abs(np.mean([one.bias for one in runs]))


def test_bias_of_the_largest_eigenvalue(many_samples):
    """E lambda_1 - lambda_1 = sum_j lambda_1 lambda_j / (N (lambda_1 - lambda_j)) to first order (Lawley, 1956)."""
    w, runs = 2 * SCALES, many_samples["largest_eigenvalue"]
    expected = (w[0] * w[1:] / (w[0] - w[1:])).sum() / 480
    assert np.mean([one.bias for one in runs]) == pytest.approx(expected, rel=0.15)
    values = np.array([one.value for one in runs])
    assert values.mean() - w[0] == pytest.approx(expected, abs=3 * values.std() / np.sqrt(SETS))


def test_bias_of_the_top_of_a_wide_spectrum():
    """With as many parameters as a quarter of the examples the bias is the shift of Baik, Ben Arous and Peche, far beyond the error."""
    p, count, spike, found = 60, 240, 12.0, []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((count, p)) * np.sqrt(np.r_[spike, np.ones(p - 1)])
        objective = regression(x, rng.standard_normal(count), np.ones(p), batch_size=12)
        found.append(metrics.largest_eigenvalue(objective, sampling=True, num_steps=30, num_probes=1))
    shift = 2 * spike * (p - 1) / count / (spike - 1)
    assert np.mean([one.bias for one in found]) == pytest.approx(shift, rel=0.25)
    deviation = np.sqrt(np.mean([one.sampling_error**2 for one in found]) / len(found))
    assert deviation == pytest.approx(2 * spike * np.sqrt(2 / count) / np.sqrt(4), rel=0.4)
    assert np.mean([one.corrected for one in found]) == pytest.approx(2 * spike, abs=3 * deviation)


def test_evidence_over_many_samples():
    """Laplace's evidence at fixed parameters: its deviation over data sets is what one data set says, at each precision."""
    found, values, dimensions = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((120, 2)) * [1.5, 0.5]
        objective = regression(x, x @ [1.0, -1.0] + rng.standard_normal(120) / np.sqrt(2), [1.0, -1.0], batch_size=10)
        one = metrics.laplace_evidence(objective, [1.0, 30.0], sampling=seed < 8, num_steps=2, num_probes=1)
        values.append(one.log_evidence)
        dimensions.append(one.effective_dimension)
        found += [one] if seed < 8 else []
    for samples, field in ((values, "log_evidence_sampling"), (dimensions, "effective_dimension_sampling")):
        claimed = np.sqrt(np.mean([getattr(one, field) ** 2 for one in found], axis=0))
        assert claimed == pytest.approx(np.std(samples, axis=0, ddof=1), rel=0.35)
    metric = found[0].metrics()["laplace_log_evidence"]
    assert metric.sampling_error > 0 and metric.num_examples == 120
    assert metrics.laplace_evidence(objective, [1.0]).log_evidence_sampling.size == 0


def test_examples_needed():
    """At the size that is said to be needed the interval is as wide as was asked for."""
    metric = metrics.Metric(3.0, sampling_error=0.2, sampling_degrees=9.0, bias=0.05, num_examples=500.0, name="size")
    found = metrics.examples_needed(metric, 0.02)
    ratio = 500 / found.value
    half = stats.t.ppf(0.975, 9) * 0.2 * np.sqrt(ratio) + 0.05 * ratio
    assert half == pytest.approx(0.02 * 3.0) and found.unit == "example" and found.standard_error > 0
    # Twice the width: about a quarter of the examples; the standard error is that of a variance with nine degrees of freedom.
    plain = metric.with_changes(bias=0.0)
    assert metrics.examples_needed(plain, 0.01).value == pytest.approx(4 * metrics.examples_needed(plain, 0.02).value)
    assert metrics.examples_needed(plain).standard_error == pytest.approx(np.sqrt(2 / 9) * metrics.examples_needed(plain).value)
    assert metrics.examples_needed(plain, 0.01, num_examples=1000).value == pytest.approx(2 * metrics.examples_needed(plain, 0.01).value)
    with pytest.raises(ValueError, match="sampling=True"):
        metrics.examples_needed(metrics.Metric(1.0, name="trace"))
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="relative_width"):
            metrics.examples_needed(metric, wrong)
    with pytest.raises(ValueError, match="no width is relative"):
        metrics.examples_needed(metric.with_changes(value=0.0))
    with pytest.raises(ValueError, match="level"):
        metrics.examples_needed(metric, level=1.0)


def test_examples_needed_are_enough():
    """Data of the size that 200 examples ask for leave the relative error that was asked for."""
    rng, needed = np.random.default_rng(0), []
    for _ in range(8):
        x = rng.standard_normal((200, 3))
        found = metrics.trace(regression(x, np.zeros(200), np.ones(3), batch_size=10), sampling=True, num_probes=1)
        needed.append(metrics.examples_needed(found, 0.05).value)
    size = int(np.median(needed))
    # Relative deviation of a mean of |x|^2 over N: sqrt(2 / (3 N)).
    assert size == pytest.approx((stats.t.ppf(0.975, 19) / 0.05) ** 2 * 2 / 3, rel=0.3)
    means = np.array([np.mean(rng.standard_normal((size, 3)) ** 2) for _ in range(300)])
    assert np.mean(np.abs(means - 1) <= 0.05) >= 0.93


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_metric_of_each_class_in_every_framework(framework, monkeypatch):
    monkeypatch.setattr(influence, "KNOWN", 43)  # all eigenvectors: what probes add is noise
    objective = FRAMEWORKS[framework](batch_size=10 if framework == "jax" else 12)  # the last one of six, for which JAX would compile anew
    shared = metrics.SharedRun.of(objective, num_probes=2)
    dense = Reweighted(objective)
    theta = np.asarray(objective.parameters())
    found = metrics.largest_eigenvalue(shared, sampling=True)
    assert found.sampling_error == pytest.approx(dense.error(lambda shares: np.linalg.eigvalsh(dense.matrix(shares))[-1]), rel=1e-3)
    found = metrics.gradient_cosine(shared, sampling=True)
    define = GRADIENT["gradient_cosine"][0]
    assert found.sampling_error == pytest.approx(dense.error(lambda s: define(dense.matrix(s), dense.gradient(s))), rel=1e-3)
    norm = metrics.frobenius_norm(shared, sampling=True)
    assert norm.sampling_error == pytest.approx(dense.error(lambda shares: np.linalg.norm(dense.matrix(shares))), rel=1e-3)
    fisher = [theta @ np.asarray(part.ggn().to_dense()) @ theta for part in dense.parts]
    expected = np.sqrt(dense.shares @ (fisher - dense.shares @ fisher) ** 2 / 2)
    assert metrics.fisher_rao_norm(objective, sampling=True).sampling_error == pytest.approx(expected, rel=1e-6)
    g = dense.gradient(dense.shares)
    step = theta + 0.05 * g / np.linalg.norm(g)
    there = np.asarray(objective.with_parameters(step).gradient())
    turn = 0.05 / np.linalg.norm(g) * (there - (there @ g) / (g @ g) * g)
    own = [p.with_parameters(step).value() - p.value() + turn @ q for p, q in zip(dense.parts, dense.g, strict=True)]
    expected = np.sqrt(dense.shares @ (own - dense.shares @ own) ** 2 / 2)
    assert metrics.sam_sharpness(objective, sampling=True).sampling_error == pytest.approx(expected, rel=1e-6)
    ratio = metrics.residual_ratio(objective, num_probes=1, sampling=True)
    assert ratio.sampling_error > 0 and ratio.num_examples == 30


# -- what cannot be ----------------------------------------------------------------------------------------------------


EVERY = {
    **{name: options for name, (_, options) in {**SPECTRAL, **GRADIENT}.items()}, "sam_sharpness": {}, "critical_sharpness": {},
    "adaptive_sharpness": {}, "fisher_rao_norm": {}, "relative_flatness": {"parameter": "0.weight"}, "residual_ratio": {},
    "takeuchi_criterion": {"damping": 0.5}, "trace_ratio": {}, "positive_share": {"plane_dimension": 2}, "negative_mass": {},
    "laplace_evidence": {},
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_one_batch_is_not_enough(name):
    with pytest.raises(ValueError, match=r"compares batches, but the objective has only 1 of them; make it with a smaller batch_size"):
        getattr(metrics, name)(network((40,)), sampling=True, **EVERY[name])


def test_every_metric_carries_the_sampling_or_says_why_not():
    import inspect

    results = ("BatchStatistics", "FlatnessCorrelation", "HessianVariance", "LaplaceEvidence", "LayerRow", "Metric", "SharedRun")
    no_interval = ("adaptive_hessian", "examples_needed", *results)
    for name in set(metrics.__all__) - set(no_interval):
        function = getattr(metrics, name)
        if "sampling" not in inspect.signature(function).parameters:
            assert "sampling of the data already" in " ".join(function.__doc__.split()) or "about the checkpoints" in function.__doc__, name
        else:
            assert name == "layer_table" or name in EVERY, name


@pytest.mark.parametrize("name", ["trace", "largest_eigenvalue", "negative_mass", "stable_rank", "goldilocks_ratio", "condition_number"])
def test_matrices_have_no_data(name):
    for source in (np.eye(3), ls.spectral_density(ls.diagonal_operator(np.arange(1.0, 9.0)))):
        with pytest.raises(TypeError, match="sampling is True, which needs an objective"):
            getattr(metrics, name)(source, sampling=True)


def test_options_of_a_run_are_named():
    with pytest.raises(TypeError, match="does not take the options tol; it takes matrix, num_steps"):
        metrics.trace(network(), sampling=True, tol=0.1)
    shared = metrics.SharedRun.of(network(), num_steps=3)
    with pytest.raises(TypeError, match="shared run has no use for the options num_steps"):
        metrics.trace(shared, num_steps=4)


def test_not_finite():
    torch = pytest.importorskip("torch")
    objective = network()
    batches = [tuple(part.clone() for part in batch) for batch in objective.batches()]
    batches[2][0][0, 0] = float("nan")
    broken = objective.with_data(batches)
    for name in ("trace", "sam_sharpness", "fisher_rao_norm", "negative_mass"):
        with pytest.raises((ValueError, FloatingPointError), match=r"finite|NaN"):
            getattr(metrics, name)(broken, sampling=True)
    assert torch.isfinite(batches[0][0]).all()


def test_a_single_example_in_each_batch():
    """The finest batches there are: the classical standard error of a mean over examples."""
    x = np.random.default_rng(0).standard_normal((40, 2))
    found = metrics.trace(regression(x, np.zeros(40), np.ones(2), batch_size=1), sampling=True)
    assert found.sampling_error == pytest.approx(np.std(2 * (x**2).sum(axis=1), ddof=1) / np.sqrt(40), rel=1e-6)
    assert found.sampling_degrees == 39


def test_batch_norm_in_training_mode_counts_batches_as_they_are():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)).double()
    data = (torch.randn(60, 3, dtype=torch.float64), torch.randint(0, 2, (60,)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = ls.objective(model, "cross_entropy", data, batch_size=12, batch_norm="train")
    parts = objective.per_batch()
    values = np.array([np.trace(np.asarray(part.hessian().to_dense())) for part in parts])
    expected = np.std(values, ddof=1) / np.sqrt(5)
    assert resampled(objective, metrics.trace, "trace", mean=True).sampling_error == pytest.approx(expected, rel=1e-6)
    top = metrics.largest_eigenvalue(objective, sampling=True)
    _, V = np.linalg.eigh(np.asarray(objective.hessian().to_dense()))
    own = [V[:, -1] @ np.asarray(part.hessian().to_dense()) @ V[:, -1] for part in parts]
    assert top.sampling_error == pytest.approx(np.std(own, ddof=1) / np.sqrt(5), rel=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(TypeError, match="batch"):  # examples of their own there are none
        metrics.trace_ratio(objective, sampling=True)


def test_a_sum_over_the_data_is_told_from_a_mean():
    torch = pytest.importorskip("torch")
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = [
        ls.objective(torch.nn.Linear(2, 1, bias=False).double(), loss, (x, torch.zeros(20, 1, dtype=torch.float64)), batch_size=5)
        for loss in (torch.nn.MSELoss(reduction="sum"), "mse")
    ]
    total, mean = (metrics.trace(own, sampling=True) for own in made)
    assert total.sampling_error == pytest.approx(20 * mean.sampling_error, rel=1e-6) and total.value == pytest.approx(20 * mean.value)
    with pytest.raises(ValueError, match="sum over the data"):
        metrics.residual_ratio(made[0], sampling=True)


def test_weight_decay_is_no_part_of_the_sampling():
    plain, decayed = network(), network(weight_decay=0.5)
    for name in ("trace", "largest_eigenvalue", "gradient_curvature"):
        first, second = (getattr(metrics, name)(own, sampling=True) for own in (plain, decayed))
        if name != "gradient_curvature":
            assert second.sampling_error == pytest.approx(first.sampling_error, rel=1e-6) and second.value > first.value
    dense = Reweighted(plain)
    theta, H, g = np.asarray(plain.parameters()), dense.matrix, dense.gradient
    expected = dense.error(lambda s: GRADIENT["gradient_curvature"][0](H(s) + 0.5 * np.eye(8), g(s) + 0.5 * theta))
    assert second.sampling_error == pytest.approx(expected, rel=1e-4)


def test_memory_and_vectors():
    with pytest.raises(ValueError, match="kept no vectors"):
        metrics.trace(network(), sampling=True, reorthogonalize="none", num_steps=4)
    shared = metrics.SharedRun.of(in_torch(batch_size=6), num_steps=6)
    with pytest.raises(MemoryError, match="memory_budget"):
        influence.BatchInfluence(shared, memory_budget=100)
    short = metrics.SharedRun.of(network(), num_steps=2)
    with pytest.raises(ValueError, match="take more num_steps"):
        metrics.gradient_cosine(short, sampling=True)
    assert dataclasses.is_dataclass(shared)
