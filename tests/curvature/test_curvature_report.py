"""The report: dense truth inside of its intervals, in every framework, and what it says of itself."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "metrics"))

from metric_networks import FRAMEWORKS, dense, in_torch, regression

import linop_spectra as ls
from linop_spectra.curvature import metrics
from linop_spectra.curvature.metrics.batches import in_parts
from linop_spectra.curvature.metrics.catalogue import BY_BATCHES, NOT_SAMPLED
from linop_spectra.curvature.report import EXTRA, SHARED, curvature_report


@pytest.fixture(autouse=True)
def _double_precision(request):
    if "jax" not in request.node.name:
        yield
        return
    jax = pytest.importorskip("jax")
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def _truths(objective):
    H, g = dense(objective), np.asarray(objective.gradient())
    w = np.linalg.eigvalsh(H)
    return {
        "largest_eigenvalue": w[-1], "smallest_eigenvalue": w[0], "trace": w.sum(), "frobenius_norm": np.linalg.norm(w),
        "nuclear_norm": np.abs(w).sum(), "spectral_norm": np.abs(w).max(), "negative_mass": np.mean(w < -1e-10),
        "negative_energy": -w[w < 0].sum() / np.abs(w).sum(), "goldilocks_ratio": w.sum() / np.linalg.norm(w),
        "gradient_curvature": g @ H @ g / (g @ g), "gradient_norm": np.linalg.norm(g), "loss": objective.value(),
        "effective_dimension": np.sum(np.maximum(w, 0) / (np.maximum(w, 0) + 1 / 30)), "learning_rate_cap": 2 / w[-1],
        "stable_rank": (w**2).sum() / np.abs(w).max() ** 2,
    }  # fmt: skip


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_intervals_hold_the_dense_truth(framework, tmp_path):
    objective = FRAMEWORKS[framework](batch_size=6)
    truths = _truths(objective)
    for steps, probes in ((None, "auto"), (14, 2)):
        report = curvature_report(objective, num_steps=steps, num_probes=probes, seed=1)
        for name, truth in truths.items():
            low, high = report[name].confidence_interval(0.999)
            assert low - 1e-9 <= truth <= high + 1e-9, name
    assert len(report.layers) == (4 if framework == "jax" else 2)  # a dictionary of arrays has no layers
    assert report.batches.num_batches == 5 and not set(report.omitted) - {"pac_bayes_deviation"}  # which needs a positive trace
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["metrics"]["trace"]["value"] == report["trace"].value
    assert saved["metrics"]["trace"]["interval"] == list(report["trace"].confidence_interval())
    assert {"value", "interval", "unit", "products", "note"} <= set(saved["metrics"]["hessian_variance"])
    assert sum(row["num_parameters"] for row in saved["layers"]) == 43 and saved["details"]["num_probes"] == 2


def test_a_full_run_has_converged():
    objective = in_torch(batch_size=6)
    report = curvature_report(objective)
    truths = _truths(objective)
    for name, truth in truths.items():
        assert report[name].value == pytest.approx(truth, rel=1e-6, abs=1e-9), name
        low, high = report[name].confidence_interval()
        assert high - low < 1e-6 * (1 + abs(truth)), name


def test_the_table_names_units_and_products_and_counts_them():
    objective = in_torch(batch_size=6)
    report = curvature_report(objective, num_steps=10, num_probes=2, extra=("residual_ratio", "fisher_rao_norm"))
    text = str(report)
    for name in report:
        assert name in text and report[name].unit and report[name].name
    assert "loss/parameter^2" in text and "layer" in text and "batch size" in text
    # Three vectors in ten steps and one that measures the noise, seven batch directions, eight probes of two matrices, one product.
    assert report.num_matvecs == 3 * 10 + 1 + 7 + 16 + 1
    assert report["trace"].num_matvecs == 20 and report["gradient_curvature"].num_matvecs == 31
    assert len(report) == len(list(report)) and "trace" in report and "<table>" in report._repr_html_()


def test_progress_counts_all_products():
    calls = []
    curvature_report(in_torch(batch_size=6), num_steps=10, num_probes=2, extra=["fisher_rao_norm"], progress=lambda *c: calls.append(c))
    done = [d for d, _ in calls]
    assert done == sorted(done) and calls[-1] == (38, 38) and all(total == 38 for _, total in calls)
    assert done[9] == 30


def test_everything_extra():
    report = curvature_report(in_torch(batch_size=6), extra="all", num_steps=12)
    missing = set(EXTRA) - {"adaptive_sharpness", "laplace", "logits"} - set(report)
    assert not missing and {"adaptive_sharpness_worst", "laplace_log_evidence", "q_slsc", "logit_deviation"} <= set(report)
    assert set(SHARED) <= set(report) | set(report.omitted)
    with pytest.raises(ValueError, match="residual_ratio"):
        curvature_report(in_torch(), extra=["other"])
    for wrong in ({"extra": "trace"}, {"radius": 0.0}, {"prior_precision": -1.0}, {"num_steps": 0}, {"num_probes": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            curvature_report(in_torch(), **wrong)


def test_a_single_batch_is_cut_into_random_parts():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x, y = torch.randn(64, 3, dtype=torch.float64), torch.randint(0, 2, (64,))
    objective = ls.objective(torch.nn.Linear(3, 2).double(), "cross_entropy", (x, y))
    report = curvature_report(objective, num_probes=1)
    assert report.batches.num_batches == 16 and report.batches.batch_size == 4
    parts = in_parts(objective, 0)
    np.testing.assert_allclose(dense(parts), dense(objective), atol=1e-12)
    assert in_parts(in_torch(batch_size=6), 0).num_examples == 30
    small = curvature_report(in_torch(), num_steps=4)  # thirty examples are too few for sixteen parts of two
    assert "smaller batch_size" in small.omitted["hessian_variance"] and small.batches is None
    with pytest.raises(KeyError, match="smaller batch_size"):
        small["hessian_variance"]
    with pytest.raises(KeyError, match="There is no metric 'tarce'"):
        small["tarce"]
    assert "hessian_variance" not in curvature_report(in_torch(batch_size=6), batches=False, num_steps=4)


def test_sampling_widens_the_intervals_of_what_depends_on_the_data():
    objective = in_torch(batch_size=3)
    without, with_data = (curvature_report(objective, sampling=sampling) for sampling in (False, True))
    ends = ("largest_eigenvalue", "smallest_eigenvalue", "spectral_norm", "learning_rate_cap")
    for name in ("loss", "gradient_norm", "trace", "frobenius_norm", *ends):
        assert with_data[name].value == without[name].value and with_data[name].sampling_error > 0
        (a, b), (c, d) = without[name].confidence_interval(), with_data[name].confidence_interval()
        assert c < a and d > b
    assert with_data["largest_eigenvalue"].bias > 0 > with_data["smallest_eigenvalue"].bias and with_data["learning_rate_cap"].bias < 0


@pytest.fixture(scope="module")
def sampled():
    objective = in_torch(batch_size=6)
    return objective, curvature_report(objective, sampling=True, extra=[name for name in EXTRA if name != "negative_mass"], num_probes=2)


def test_every_metric_carries_the_sampling_or_is_named_as_one_that_does_not(sampled):
    _, report = sampled
    carried = {name for name, metric in report.items() if metric.num_examples}
    assert set(report) == carried | (set(BY_BATCHES) | set(NOT_SAMPLED)) & set(report) and not carried & {*BY_BATCHES, *NOT_SAMPLED}
    assert set(SHARED) - carried <= {"negative_mass", "pac_bayes_deviation"} and len(carried) > 30
    for name in carried:
        assert report[name].num_examples == 30 and report[name].sampling_degrees == (29 if name == "logit_deviation" else 4), name
        assert report[name].sampling_error > 0, name
    assert all(report[name].standard_error > 0 for name in BY_BATCHES)
    assert set(report.omitted) <= {"sampling of negative_mass", "sampling of laplace_prior_precision", "pac_bayes_deviation"}
    assert "nine more spectra" in report.omitted["sampling of negative_mass"]
    for row in report.layers:
        assert row.trace.sampling_error > 0 and row.trace.num_examples == 30


def test_the_sampling_is_that_of_each_metric_alone(sampled):
    objective, report = sampled
    shared = metrics.SharedRun.of(objective, num_probes=2)
    for name in ("trace", "stable_rank", "gradient_overlap", "negative_ratio", "gradient_cosine", "largest_eigenvalue"):
        alone = getattr(metrics, name)(shared, sampling=True)
        assert report[name].sampling_error == pytest.approx(alone.sampling_error, rel=1e-6), name
        assert report[name].bias == pytest.approx(alone.bias, rel=1e-6, abs=1e-12), name
    for name in ("fisher_rao_norm", "residual_ratio"):
        assert report[name] == getattr(metrics, name)(objective, sampling=True).with_changes(seconds=report[name].seconds, name=name)
    for row, other in zip(report.layers, metrics.layer_table(shared, sampling=True), strict=True):
        assert row.trace.sampling_error == pytest.approx(other.trace.sampling_error, rel=1e-6)
    assert metrics.examples_needed(report["trace"], 0.1).value > 30
    mass = curvature_report(objective, sampling=True, extra=["negative_mass"], num_probes=2, batches=False)
    alone = metrics.negative_mass(shared, sampling=True)
    assert mass["negative_mass"].sampling_error == alone.sampling_error > 0 and "sampling of negative_mass" not in mass.omitted
    assert mass["negative_mass"].num_matvecs == alone.num_matvecs > 4 * shared.density.num_matvecs  # five more of four fifths
    assert mass.batches is None and mass["trace"].sampling_error == pytest.approx(report["trace"].sampling_error, rel=1e-6)


def test_without_sampling_nothing_is_spent_on_it():
    spent = {}
    for sampling in (False, True):
        spent[sampling] = curvature_report(in_torch(batch_size=6), num_probes=2, num_steps=10, sampling=sampling).num_matvecs
    assert spent[False] == 3 * 10 + 1 + 7 < spent[True]


def test_sampling_of_data_in_a_single_batch_and_of_too_few():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    data = torch.randn(64, 3, dtype=torch.float64), torch.randint(0, 2, (64,))
    report = curvature_report(ls.objective(torch.nn.Linear(3, 2).double(), "cross_entropy", data), sampling=True)
    for name in ("loss", "trace", "sam_sharpness", "critical_sharpness", "worst_case_sharpness", "gradient_overlap"):
        assert report[name].sampling_error > 0 and report[name].sampling_degrees == 15 and report[name].num_examples == 64
    assert all(row.trace.sampling_error > 0 for row in report.layers)
    few = curvature_report(in_torch(), sampling=True, extra=["fisher_rao_norm"])  # thirty examples
    assert "smaller batch_size" in few.omitted["sampling"] and not any(metric.num_examples for metric in few.values())
    assert {"sam_sharpness", "critical_sharpness", "trace", "fisher_rao_norm"} <= set(few)


def test_sampling_of_other_matrices_and_of_sums():
    objective = in_torch(batch_size=6)
    report = curvature_report(objective, matrix="ggn", sampling=True, num_probes=2)
    alone = metrics.largest_eigenvalue(metrics.SharedRun.of(objective, matrix="ggn", num_probes=2), sampling=True)
    assert report["largest_eigenvalue"].sampling_error == pytest.approx(alone.sampling_error, rel=1e-6)
    assert report["loss"].sampling_error > 0 and "gradient_noise_scale" in report and report.batches is None
    torch = pytest.importorskip("torch")
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = x, torch.zeros(20, 1, dtype=torch.float64)
    total = ls.objective(torch.nn.Linear(2, 1, bias=False).double(), torch.nn.MSELoss(reduction="sum"), data, batch_size=5)
    report = curvature_report(total, sampling=True, extra=["residual_ratio"])
    assert report["trace"].sampling_error > 0 and report["residual_ratio"].num_examples == 0
    assert "sum over the data" in report.omitted["sampling of residual_ratio"]


def test_sampling_that_is_not_known_is_said():
    report = curvature_report(in_torch(batch_size=6), sampling=True, num_steps=2)
    assert "take more num_steps" in report.omitted["sampling of gradient_cosine"] and report["gradient_cosine"].num_examples == 0
    assert report["trace"].sampling_error > 0


def test_intervals_with_sampling_hold_the_truth_of_endless_data():
    """Regression with independent normal inputs: the Hessian of endless data is twice their covariance."""
    scales = np.sqrt([4.0, 2.0, 1.0])
    inside = {"largest_eigenvalue": 0, "trace": 0, "frobenius_norm": 0}
    truth = {"largest_eigenvalue": 8.0, "trace": 14.0, "frobenius_norm": np.sqrt(64 + 16 + 4)}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((200, 3)) * scales
        objective = regression(x, rng.standard_normal(200), np.ones(3), batch_size=10)
        report = curvature_report(objective, sampling=True, num_probes=1, batches=False)
        for name, value in truth.items():
            low, high = report[name].confidence_interval(0.95)
            inside[name] += low <= value <= high
    assert all(count >= 9 for count in inside.values()), inside  # of 12; fewer of 95 % happen twice in a thousand


def test_a_stationary_point_has_no_metrics_of_the_gradient():
    x = np.random.default_rng(0).standard_normal((20, 3))
    report = curvature_report(regression(x, np.zeros(20), np.zeros(3), batch_size=5))
    assert report["gradient_norm"].value == 0.0 and report["trace"].value == pytest.approx(np.sum(2 * x**2) / 20)
    assert {"gradient_overlap", "gradient_curvature", "sam_sharpness", "critical_sharpness"} <= set(report.omitted)
    assert "exactly zero" in report.omitted["gradient_curvature"] and "left out: gradient_overlap" in str(report)
    assert report["worst_case_sharpness"].value > 0


def test_other_matrices():
    objective = in_torch(batch_size=6)
    G = dense(objective, "ggn")
    report = curvature_report(objective, matrix="ggn")
    assert report["trace"].value == pytest.approx(np.trace(G), rel=1e-6) and report.details["matrix"] == "ggn"
    assert report["negative_energy"].value < 1e-9 and "matrix='hessian'" in report.omitted["hessian_variance"]
    with pytest.raises(ValueError, match="matrix"):
        curvature_report(objective, matrix="kfac")
    with pytest.raises(TypeError, match="needs an objective"):
        curvature_report(np.eye(3))


def test_a_loss_without_outputs_still_has_its_hessian():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    loss = ls.BatchLoss(lambda m, batch: (m(batch).square().sum(), len(batch)))
    data = [torch.randn(4, 2, dtype=torch.float64) for _ in range(3)]
    objective = ls.objective(torch.nn.Linear(2, 1).double(), loss, data)
    report = curvature_report(objective, extra="all")
    assert report["trace"].value > 0 and report.batches.num_batches == 3
    assert {"residual_ratio", "laplace", "fisher_rao_norm", "trace_ratio"} <= set(report.omitted)
    with pytest.raises(TypeError):
        curvature_report(objective, matrix="ggn")


def test_float32_and_the_time_budget():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x, y = torch.randn(40, 5), torch.randint(0, 3, (40,))
    objective = ls.objective(torch.nn.Linear(5, 3), "cross_entropy", (x, y), batch_size=8)
    double = ls.objective(torch.nn.Linear(5, 3), "cross_entropy", (x, y), dtype="float64")
    w = np.linalg.eigvalsh(dense(double.with_parameters(objective.parameters())))
    report = curvature_report(objective)
    for name, truth in (("largest_eigenvalue", w[-1]), ("trace", w.sum()), ("smallest_eigenvalue", w[0])):
        low, high = report[name].confidence_interval(0.999)
        assert low <= truth <= high, name
    cut = curvature_report(objective, time_budget=1e-9)
    assert cut.details["status"] == "time budget" and not cut["trace"].converged


def test_arrays_of_torch_give_the_same_report():
    one = curvature_report(in_torch(batch_size=10), sampling=True, num_probes=2)
    other = curvature_report(in_torch(batch_size=10, backend="torch:cpu"), sampling=True, extra="all", num_probes=2)
    assert set(one.omitted) == {"sampling of negative_mass"} and set(other.omitted) == {"sampling of laplace_prior_precision"}
    for name, metric in one.items():
        assert other[name].value == pytest.approx(metric.value, rel=1e-6, abs=1e-9), name
    for first, second in zip(one.layers, other.layers, strict=True):
        assert second.trace.value == pytest.approx(first.trace.value, rel=1e-6)


def test_parameters_that_are_not_numbers_are_said():
    objective = in_torch(batch_size=6)
    theta = np.array(objective.parameters())
    theta[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        curvature_report(objective.with_parameters(theta))


def test_nothing_of_the_model_changes():
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2)).eval()
    x, y = torch.randn(40, 3), torch.randint(0, 2, (40,))
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.random.get_rng_state()
    objective = ls.objective(model, "cross_entropy", (x, y), batch_size=14)
    curvature_report(objective, extra="all", sampling=True, num_steps=3, num_probes=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and all(p.grad is None and p.requires_grad for p in model.parameters())


def test_kappa_lies_between_zero_and_the_number_of_parameters():
    """Batches that differ in one direction alone: the variance along it is P times the mean over all directions."""
    torch = pytest.importorskip("torch")
    generator, n = torch.Generator().manual_seed(0), 30
    inputs = torch.zeros(64, n, dtype=torch.float64)
    inputs[:, 3] = torch.randn(64, generator=generator, dtype=torch.float64)
    objective = ls.objective(torch.nn.Linear(n, 1, bias=False).double(), "mse", (inputs, torch.zeros(64, 1).double()), batch_size=8)
    report = curvature_report(objective, num_probes=20)
    hessians = [2 * float((inputs[i : i + 8, 3] ** 2).mean()) for i in range(0, 64, 8)]
    along = report.batches.hessian.directional[1].value
    assert along == pytest.approx(np.var(hessians, ddof=1), rel=1e-9)
    low, high = report["kappa_largest"].confidence_interval(0.99)
    assert low <= n <= high and report["kappa_largest"].value > n / 2


def test_the_run_along_the_gradient_is_kept():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 3, generator=generator).double(), torch.arange(20) % 3
    objective = ls.objective(torch.nn.Linear(3, 3).double(), "cross_entropy", data)
    run = curvature_report(objective, num_probes=2, batches=False).along_gradient
    g, dense = objective.gradient(), objective.hessian().to_dense()
    assert run.alphas[0, 0] == pytest.approx(g @ dense @ g / (g @ g), rel=1e-10)
