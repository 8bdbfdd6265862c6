"""The spectral density and its views."""

import time
import warnings

import numpy as np
import pytest
from helpers import DTYPES, goe, least_hits, rotated
from scipy import sparse, stats

import linop_spectra as ls
from linop_spectra.krylov.lanczos import run_lanczos
from linop_spectra.random_matrices import MarchenkoPastur


def diagonal(values, **options):
    return ls.spectral_density(ls.diagonal_operator(np.asarray(values)), **options)


def fine_grid(S):
    """A grid that resolves every Gaussian of an adaptive density: dense around each node at many widths."""
    nodes = np.unique(S.nodes)
    span = max(np.ptp(nodes), abs(nodes[0]), 1e-300)
    widths = 10.0 ** np.linspace(-16, 1, 300) * span
    return np.unique(
        np.concatenate(
            [
                (nodes[:, None] + np.concatenate([-widths[::-1], [0], widths])).ravel(),
                np.linspace(nodes[0] - 9 * span, nodes[-1] + 9 * span, 4001),
            ]
        )
    )


RANGES = {
    "unit": np.linspace(0, 1, 400),
    "wide": 10.0 ** np.linspace(0, 5, 400),
    "both signs": np.r_[-(10.0 ** np.linspace(-2, 3, 200)), 10.0 ** np.linspace(-2, 5, 200)],
    "outlier far out": np.r_[np.linspace(-1, 1, 399), 1e5],
    "zeros": np.r_[np.zeros(300), np.linspace(1, 1e4, 100)],
    "shifted": 1e5 + np.linspace(0, 1, 400),
}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("steps, probes", [(10, 1), (64, 2)])
def test_density_integrates_to_one(name, steps, probes):
    S = diagonal(RANGES[name], num_steps=steps, num_probes=probes)
    grid = fine_grid(S)
    density = S.density(grid)
    assert np.all(density >= 0) and np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
    span = max(np.ptp(S.nodes), abs(S.nodes[0]))
    smooth = np.linspace(S.nodes[0] - span, S.nodes[-1] + span, 20_001)
    assert np.trapezoid(S.density(smooth, broadening=0.05 * span), smooth) == pytest.approx(1, abs=1e-6)
    low, high = S.density_band(grid)
    bulk = S.density(grid, outliers=False)
    assert np.all(low <= bulk + 1e-12 * bulk.max()) and np.all(bulk <= high + 1e-12 * bulk.max()) and np.all(low >= 0)


def test_moments_quantiles_and_distribution():
    eigenvalues = np.linspace(-1, 3, 500)
    S = diagonal(eigenvalues, num_steps=20, num_probes=3, deflate=False)
    assert S.moment(0) == pytest.approx(1, abs=1e-14)
    run = S.run
    for p in range(1, 6):
        assert S.moment(p) == pytest.approx(np.mean([run.weights[i] @ run.ritz_values[i] ** p for i in range(3)]), rel=1e-12)
        assert S.moment(p) == pytest.approx(np.mean(eigenvalues**p), abs=6 * np.sqrt(2 * np.var(eigenvalues**p) / (3 * 502)))
    q = np.linspace(0, 1, 101)
    assert np.all(np.diff(S.quantile(q)) >= 0) and S.quantile(0.0) == S.nodes[0] and S.quantile(1.0) == S.nodes[-1]
    assert np.all(S.cdf(S.quantile(q)) >= q - 1e-12)
    assert S.cdf(S.nodes[-1]) == 1.0 and S.cdf(S.nodes[0] - 1e-9) == 0.0 and isinstance(S.cdf(0.0), float)
    assert np.all(np.diff(S.nodes) >= 0) and len(S.nodes) == len(S.weights) == 60
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="argument q "):
            S.quantile(bad)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["low rank factor", "gram", "kernel", "layers"])
def test_single_precision_never_claims_negative_mass_of_a_positive_operator(kind):
    """Rounding gives the zeros of these matrices either sign; below the noise floor they have none."""
    n = 400
    for seed in range(50):
        rng = np.random.default_rng(seed)
        if kind == "kernel":
            x = rng.standard_normal((n, 3))
            matrix = np.exp(-((x[:, None] - x) ** 2).sum(-1) / 8).astype(np.float32)
            product = matrix.__matmul__
        else:
            factor = rng.standard_normal((n, {"low rank factor": 20, "gram": 399, "layers": 60}[kind])).astype(np.float32)
            if kind == "layers":
                factor *= (10.0 ** rng.uniform(-4, 2, n)).astype(np.float32)[:, None]
            product = lambda v, f=factor: f @ (f.T @ v)  # noqa: E731
        operator = ls.aslinearoperator(product, shape=(n, n), dtype=np.float32, hermitian=True)
        S = ls.spectral_density(operator, num_steps=48, num_probes=1, seed=seed)
        assert S.negative_mass()[0] == 0, (seed, S.noise_floor, S.nodes[0])
        assert S.nodes[0] > -S.noise_floor
        assert S.noise_floor < 1e-3 * S.norm_estimate  # and the floor is no excuse for everything


@pytest.mark.parametrize("dtype, share", [(np.float32, 1e-3), (np.float64, 1e-12)])
def test_negative_mass_above_the_noise_floor_is_seen(dtype, share):
    values = np.r_[np.full(200, -share * 10), np.full(600, 1.0)].astype(dtype)
    lower, upper = diagonal(values, num_steps=10, num_probes=4).negative_mass()
    assert 0.15 < lower <= upper < 0.35
    S = diagonal(values)
    assert S.negative_mass(threshold=0.5) == (0.0, 0.0)
    with pytest.raises(ValueError, match="argument threshold must not be negative"):
        S.negative_mass(threshold=-1.0)


def test_noise_of_the_product_raises_the_floor():
    rng, values = np.random.default_rng(0), np.linspace(1, 2, 300)
    noisy = ls.aslinearoperator(
        lambda x: values * x + 1e-10 * rng.standard_normal(300) * np.linalg.norm(x) / np.sqrt(300),
        shape=(300, 300),
        dtype=float,
        hermitian=True,
    )
    assert 1e-11 < ls.spectral_density(noisy, num_steps=20, num_probes=1).noise_floor < 1e-8
    assert diagonal(values, num_steps=20).noise_floor < 1e-13


def test_bulk_edges_of_wigner_and_wishart():
    rng = np.random.default_rng(0)
    for seed in range(3):
        low, high = ls.spectral_density(goe(800, rng), num_steps=60, num_probes=2, seed=seed).bulk_edges()
        assert (low, high) == pytest.approx((-2, 2), rel=0.03)
        x = rng.standard_normal((400, 1600))
        ((a, b),) = MarchenkoPastur(ratio=0.25).support
        low, high = ls.spectral_density(x @ x.T / 1600, num_steps=60, num_probes=2, seed=seed).bulk_edges()
        assert (low, high) == pytest.approx((a, b), abs=0.03 * (b - a))


@pytest.mark.parametrize("spikes", [[], [2.5], [2.5, 4.0, -3.0], [3.0, 3.5, 4.0, 4.5, 5.0, -4.0]])
def test_outliers_of_spiked_wigner_matrices_are_counted(spikes):
    """A spike of size s comes out at s + 1 / s, with deviation sqrt(2 (1 - 1 / s^2) / n)."""
    n = 600
    for seed in range(5):
        rng = np.random.default_rng(seed)
        q, _ = np.linalg.qr(rng.standard_normal((n, max(1, len(spikes)))))
        matrix = goe(n, rng) + (q[:, : len(spikes)] * np.array(spikes)) @ q[:, : len(spikes)].T
        outliers = ls.spectral_density((matrix + matrix.T) / 2, num_probes=2, seed=seed).outliers()
        assert len(outliers) == len(spikes), [o.value for o in outliers]
        for outlier, spike in zip(outliers, np.sort(spikes), strict=True):
            assert outlier.value == pytest.approx(spike + 1 / spike, abs=5 * np.sqrt(2 / n))
            assert outlier.simple and outlier.weight == 1 / n


def test_outliers_of_spiked_wishart_matrices_are_counted():
    """A population spike l comes out at l (1 + c / (l - 1)); l = 1.2 lies below the threshold 1 + sqrt(c) and does not."""
    p, n = 300, 1200
    population = np.ones(p)
    population[:3] = 6.0, 4.0, 1.2
    for seed in range(5):
        x = np.sqrt(population)[:, None] * np.random.default_rng(seed).standard_normal((p, n))
        outliers = ls.spectral_density(x @ x.T / n, num_probes=2, seed=seed).outliers()
        assert len(outliers) == 2
        for outlier, spike in zip(outliers, (4.0, 6.0), strict=True):
            assert outlier.value == pytest.approx(spike * (1 + 0.25 / (spike - 1)), abs=5 * spike * np.sqrt(2 / n))


def test_no_outliers_where_there_are_none():
    rng = np.random.default_rng(0)
    for seed in range(10):
        assert ls.spectral_density(goe(300, rng), num_steps=50, num_probes=2, seed=seed).outliers() == ()
        assert diagonal(np.linspace(-1, 1, 500), num_steps=40, num_probes=2, seed=seed).outliers() == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_zeros_of_a_low_rank_matrix_are_no_outlier(dtype):
    for seed in range(5):
        operator = ls.aslinearoperator(rotated(np.r_[np.zeros(185), np.linspace(1, 10, 15)], 0, dtype), hermitian=True)
        outliers = ls.spectral_density(operator, num_steps=40, num_probes=2, seed=seed).outliers()
        np.testing.assert_allclose([o.value for o in outliers], np.linspace(1, 10, 15), rtol=1e-4)


def test_log_view():
    values = np.r_[-(10.0 ** np.linspace(-3, 0, 100)), np.zeros(100), 10.0 ** np.linspace(-2, 2, 200)]
    S = diagonal(values, num_probes=3)
    log = S.log()
    assert log.positive_weights.sum() + log.negative_weights.sum() + log.unresolved_mass == pytest.approx(1, abs=1e-12)
    assert np.all(np.diff(log.positive) >= 0) and np.all(np.diff(log.negative) >= 0) and log.floor == S.noise_floor
    for sign, mass in (("positive", log.positive_weights.sum()), ("negative", log.negative_weights.sum())):
        decades = np.linspace(-20, 6, 200_001)
        assert np.trapezoid(log.density(decades, sign), decades) == pytest.approx(mass, abs=1e-3)
    with pytest.raises(ValueError, match="argument sign"):
        log.density(0.0, "both")
    assert diagonal(np.ones(50)).log().negative_weights.sum() == 0 and np.all(
        diagonal(np.ones(50)).log().density(np.zeros(3), "negative") == 0
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_save_and_load(dtype, tmp_path):
    S = ls.spectral_density(
        ls.aslinearoperator(rotated(np.r_[np.linspace(-1, 1, 90), 5, 6, 6], 0, dtype), hermitian=True), num_steps=20, num_probes=2
    )
    S.save(tmp_path / "s.npz")
    again = ls.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(again.nodes, S.nodes)
    np.testing.assert_array_equal(again.weights, S.weights)
    assert again.explain() == S.explain() and str(again) == str(S) and again.notes == S.notes
    assert again.outliers() == S.outliers() and again.noise_floor == S.noise_floor and again.trace(np.abs) == S.trace(np.abs)
    assert (tmp_path / "s.npz").stat().st_size < 20_000


@pytest.mark.parametrize(
    "operator",
    [
        ls.identity(1),
        ls.identity(2),
        ls.identity(50),
        ls.diagonal_operator(np.zeros(50)),
        ls.diagonal_operator(np.zeros(1)),
        ls.diagonal_operator(np.array([-3.0])),
        ls.diagonal_operator(np.array([1.0, 2.0])),
        ls.low_rank(np.ones((50, 1)), [1.0]),
        ls.diagonal_operator(1e-200 * np.arange(1.0, 40)),
        ls.diagonal_operator(1e100 * np.arange(1.0, 40)),
    ],
    ids=["one", "identity 2", "identity 50", "zero", "zero of order one", "minus three", "two", "rank one", "tiny", "huge"],
)
@pytest.mark.parametrize("probes", [1, 2, 4])
def test_every_view_of_the_smallest_cases(operator, probes, tmp_path):
    n = operator.shape[0]
    exact = np.linalg.eigvalsh(operator.to_dense())
    S = ls.spectral_density(operator, num_probes=probes)
    assert S.weights.sum() == pytest.approx(1, abs=1e-12) and np.all(np.isfinite(S.nodes))
    scale = max(np.abs(exact).max(), np.finfo(float).tiny)
    x = scale * np.linspace(-2, 2, 41)
    for values in (
        S.cdf(x),
        S.density(x),
        *S.cdf_band(x),
        *S.density_band(x),
        S.resolution(x),
        S.quantile([0.1, 0.9]),
        S.log().positive_weights,
    ):
        assert np.all(np.isfinite(values))
    for number in (S.kolmogorov_bound, S.wasserstein_bound, S.noise_floor, *S.negative_mass(), *S.bulk_edges(), S.moment(1)):
        assert np.isfinite(number)
    low, high = S.trace().confidence_interval(0.9999)
    slack = 1e-12 * n * scale
    assert low - slack <= exact.sum() <= high + slack
    assert len(S.explain().splitlines()) == 5 and repr(S) and str(S) and S._repr_html_() and S.outliers() is not None
    S.save(tmp_path / "s.npz")
    np.testing.assert_array_equal(ls.load(tmp_path / "s.npz").nodes, S.nodes)


def test_explain_has_five_sentences_with_the_numbers():
    S = diagonal(np.r_[np.linspace(-1, 1, 490), np.linspace(5, 9, 10)], num_probes=2)
    lines = S.explain().splitlines()
    assert len(lines) == 5 and all(line.endswith(".") for line in lines)
    assert "64 steps from 2 random probes on a matrix of order 500" in lines[0] and f"{S.num_matvecs} products" in lines[0]
    assert "9 (residual" in lines[1] and "10 outliers" in lines[1] and f"{S.noise_floor:.1e}" in lines[2] and "trace" in lines[3]


def test_counts_of_products():
    operator = ls.diagonal_operator(np.linspace(0, 1, 300))
    S = ls.spectral_density(operator, num_steps=10, num_probes=3)
    assert S.num_matvecs == operator.num_matvecs == 31  # one to measure the noise
    assert ls.plan(operator, num_steps=10, num_probes=3).num_matvecs == 31


def test_a_tolerance_stops_early_and_says_whether_it_was_met():
    values = np.linspace(0, 1, 2000)
    loose, tight = (diagonal(values, num_steps=100, num_probes=1, tol=tol) for tol in (0.2, 0.06))
    assert loose.num_steps < tight.num_steps < 100 and loose.tolerance_met and tight.converged
    never = diagonal(values, num_steps=10, num_probes=1, tol=1e-9)
    assert never.num_steps == 10 and not never.tolerance_met and not never.converged


def test_more_probes_where_one_leaves_a_multiplicity_open(monkeypatch):
    """Large matrices start with one probe; the second one is the second one of a run that had two from the start."""
    from linop_spectra.spectra import slq

    monkeypatch.setattr(slq, "default_probes", lambda n: 1)
    values = np.r_[np.linspace(-1, 1, 190), [6.0] * 60]
    S, two = diagonal(values, num_steps=25), diagonal(values, num_steps=25, num_probes=2)
    assert S.num_probes == 2 and "second probe was added" in S.notes[0]
    np.testing.assert_allclose(S.run.alphas, two.run.alphas, atol=1e-10)
    np.testing.assert_allclose(S.run.start_overlaps, two.run.start_overlaps, atol=1e-8)
    np.testing.assert_allclose(S.nodes, two.nodes, atol=1e-8)


def test_time_budget_and_interruption_are_marked():
    def slow(x):
        time.sleep(0.005)
        return np.linspace(0, 1, 200) * x

    S = ls.spectral_density(ls.aslinearoperator(slow, shape=(200, 200), dtype=float, hermitian=True), num_probes=1, time_budget=0.1)
    assert S.status == "time budget" and not S.converged and not S.trace().converged and "time budget" in S.explain()


def test_probes_in_turn_give_what_lockstep_gives(monkeypatch):
    matrix = sparse.diags_array([np.ones(199), np.linspace(0, 5, 200), np.ones(199)], offsets=(-1, 0, 1)).tocsr()
    options = {"num_steps": 20, "num_probes": 5, "seed": 3}
    blocks = ls.spectral_density(ls.aslinearoperator(lambda x: matrix @ x, shape=(200, 200), dtype=float, hermitian=True), **options)
    seen = []
    operator = ls.aslinearoperator(matrix)
    assert not operator.gains_from_blocks
    monkeypatch.setattr("linop_spectra.spectra.slq.run_lanczos", lambda *a, **o: seen.append(o["num_probes"]) or run_lanczos(*a, **o))
    for cache, parts in ((1 << 24, [5]), (21 * 200 * 8 * 2, [2, 2, 1]), (1, [1] * 5)):
        seen.clear()
        monkeypatch.setattr("linop_spectra.spectra.slq._CACHE", cache)
        S = ls.spectral_density(operator, **options)
        assert seen == parts
        np.testing.assert_allclose(S.run.alphas, blocks.run.alphas, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(S.run.betas, blocks.run.betas, rtol=1e-9)
        np.testing.assert_allclose(S.run.start_overlaps, blocks.run.start_overlaps, atol=1e-9)
        assert S.num_matvecs == blocks.num_matvecs and S.run.keeps_basis


def test_more_steps_than_the_order_and_defaults():
    with pytest.warns(UserWarning, match="num_steps = 30 is more than the order 20"):
        S = diagonal(np.arange(20.0), num_steps=30)
    np.testing.assert_allclose(np.unique(S.nodes.round(9)), np.arange(20), atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert diagonal(np.arange(20.0)).num_steps == 20  # the default number is no wish
    assert diagonal(np.arange(200.0)).num_probes == 4


@pytest.mark.parametrize(
    "options, name",
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_probes": 0}, "num_probes"),
        ({"num_probes": "many"}, "num_probes"),
        ({"tol": 0.0}, "tol"),
        ({"tol": -1}, "tol"),
        ({"time_budget": -1}, "time_budget"),
        ({"memory_budget": "x"}, "memory_budget"),
    ],
)
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=f"argument {name} "):
        diagonal(np.arange(20.0), **options)


def test_bad_arguments_of_views():
    S = diagonal(np.linspace(-1, 1, 50))
    for call, message in (
        (lambda: S.density(0.0, broadening=0.0), "broadening"),
        (lambda: S.density(0.0, broadening="wide"), "broadening"),
        (lambda: S.cdf_band(np.zeros(2), confidence=1.0), "confidence"),
        (lambda: S.density_band(np.zeros(2), confidence=0), "confidence"),
        (lambda: S.trace(np.log), "not finite at the Ritz value.*adding a shift"),
        (lambda: S.trace().confidence_interval(95), "level"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("scale", [1e-170, 1e-160, 1e-30, 1e30, 1e160])
def test_functionals_at_extreme_scales(scale):
    """Squares of such numbers are no numbers; the interval is that of the unscaled matrix, scaled."""
    matrix = rotated(np.linspace(-1, 3, 150), 1)
    for k in (10, 40):
        one = ls.spectral_density(ls.aslinearoperator(matrix), num_steps=k).trace()
        other = ls.spectral_density(ls.aslinearoperator(matrix * scale, hermitian=True), num_steps=k).trace()
        np.testing.assert_allclose(np.array(other.confidence_interval()) / scale, one.confidence_interval(), rtol=1e-6)


def test_wasserstein_bound_knows_of_rounding():
    """Next to an eigenvalue of a million, single precision cannot place those below one."""
    d = np.r_[np.linspace(0, 1, 299), 1e6].astype(np.float32)
    for seed in range(10):
        S = ls.spectral_density(ls.diagonal_operator(d), num_steps=40, num_probes=2, seed=seed)
        assert stats.wasserstein_distance(S.nodes, d, S.weights) <= S.wasserstein_bound


def test_a_run_that_resolves_everything_says_so():
    S = ls.spectral_density(ls.diagonal_operator(np.arange(1.0, 11.0)), num_steps=10)
    assert "Every eigenvalue is resolved" in S.explain() and len(S.explain().splitlines()) == 5


def test_an_operator_that_hands_out_its_own_buffer():
    """A second product overwrites the first: the run has to have taken what it needs by then."""

    class Buffered(ls.LinearOperator):
        def _matmat(self, x):
            if not hasattr(self, "buffer") or self.buffer.shape != x.shape:
                self.buffer = np.empty_like(x)
            self.buffer[...] = matrix @ x
            return self.buffer

    matrix = rotated(np.linspace(-1, 3, 120), 2)
    for probes in (1, 3):
        buffered = ls.spectral_density(Buffered((120, 120), float, hermitian=True), num_steps=30, num_probes=probes)
        plain = ls.spectral_density(ls.aslinearoperator(matrix, hermitian=True), num_steps=30, num_probes=probes)
        np.testing.assert_allclose(buffered.run.alphas, plain.run.alphas, atol=1e-10)
        np.testing.assert_allclose(buffered.run.betas, plain.run.betas, atol=1e-10)


def test_the_share_at_a_multiple_eigenvalue_is_no_matter_of_rounding():
    """Half of the nodes lie a rounding error above the eigenvalue; asked for the share up to it, all of them count."""
    exact = {"zeros": (np.r_[np.zeros(940), np.ones(60)], 0.0, 0.94), "ones": (np.r_[np.zeros(300), np.ones(700)], 0.0, 0.3)}
    for values, place, share in exact.values():
        for seed in range(8):
            S = ls.spectral_density(ls.diagonal_operator(values), seed=seed)
            low, high = S.cdf_band(place, 0.9999)
            assert low <= share <= high
            assert S.cdf(place) == pytest.approx(share, abs=0.06) and S.cdf(place - 0.1) == 0.0


def test_one_step_knows_the_spread_from_its_residual():
    """One node has no spread; the coefficient beta has: the interval of a trace from single steps covers as it says."""
    values = np.linspace(-1, 1, 500)
    hits = 0
    for seed in range(100):
        S = ls.spectral_density(ls.diagonal_operator(values), num_steps=1, num_probes=1, seed=seed)
        low, high = S.trace().confidence_interval(0.95)
        hits += low <= 0 <= high
    assert hits >= least_hits(100, 0.95)
    everywhere = ls.spectral_density(ls.diagonal_operator(values + 1.001), num_steps=1, num_probes=1).trace(np.log)
    assert everywhere.standard_error > 10  # one step does not know where the logarithm goes


def test_a_function_that_is_not_defined_below_zero_takes_a_zero_eigenvalue():
    values = np.linspace(0, 1, 100)
    estimate = ls.spectral_density(ls.diagonal_operator(values), num_steps=100).trace(np.sqrt)
    assert estimate.value == pytest.approx(np.sqrt(values).sum(), abs=1e-6)
    with pytest.raises(ValueError, match="not finite at the Ritz value"):
        ls.spectral_density(ls.diagonal_operator(np.linspace(-1, 1, 100)), num_steps=50).trace(np.sqrt)


@pytest.mark.parametrize("method", ["gaussian", "pchip", "terminator", "kpm", "maxent"])
def test_views_of_huge_spectra(method):
    S, large = (ls.spectral_density(ls.diagonal_operator(scale * np.arange(50.0))) for scale in (1.0, 1e200))
    x = np.linspace(1, 48, 5)
    np.testing.assert_allclose(1e200 * large.density(1e200 * x, method=method), S.density(x, method=method), rtol=1e-6)
