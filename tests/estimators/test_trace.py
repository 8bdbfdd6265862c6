"""Traces: unbiased, with the variance of theory, honest intervals, and right where other libraries fail."""

import time

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, least_hits, random_array, rotated

import linop_spectra as ls
from linop_spectra.estimators import EstimationInterrupted, NonFiniteEstimateError

METHODS = ("hutchinson", "hutch++", "xtrace", "xnystrace")
N, SEEDS = 120, 300


@pytest.mark.parametrize("kind", ["symmetric", "general", "hermitian"])
def test_unbiased_with_the_exact_variance(kind):
    """Var z^T A z = 2 (|S|_F^2 - |diag S|^2), S the symmetric part; complex signs halve it: |A|_F^2 - |diag A|^2 for Hermitian A."""
    matrix = {
        "symmetric": rotated(np.linspace(-1, 3, N)),
        "general": random_array((N, N), np.float64, 1),
        "hermitian": rotated(np.linspace(-1, 3, N), 0, np.complex128),
    }[kind]
    part = (matrix + matrix.conj().T) / 2
    variance = (1 if kind == "hermitian" else 2) * (np.linalg.norm(part) ** 2 - np.linalg.norm(np.diag(part)) ** 2)
    products = 10
    values = np.array([ls.trace(matrix, method="hutchinson", num_matvecs=products, seed=seed).value for seed in range(SEEDS)])
    deviation = np.sqrt(variance / products)
    assert abs(values.mean() - np.trace(matrix).real) < 5 * deviation / np.sqrt(SEEDS)
    assert values.std(ddof=1) == pytest.approx(deviation, rel=4 / np.sqrt(2 * SEEDS))


@pytest.mark.parametrize("products", [3, 10, 40])
def test_intervals_cover(products):
    matrix = rotated(np.linspace(-1, 3, N))
    hits = 0
    for seed in range(SEEDS):
        low, high = ls.trace(matrix, method="hutchinson", num_matvecs=products, seed=seed).confidence_interval(0.95)
        hits += low <= np.trace(matrix) <= high
    assert hits >= least_hits(SEEDS, 0.95)


def test_signs_are_exact_on_diagonal_matrices():
    estimate = ls.trace(ls.diagonal_operator(np.arange(1000.0)), method="hutchinson", num_matvecs=5)
    assert estimate.value == pytest.approx(499_500, rel=1e-12) and estimate.standard_error < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_where_the_products_allow_it(dtype):
    matrix = random_array((40, 40), dtype, 0)
    if np.dtype(dtype).kind == "c":  # a trace is a real number only then
        matrix = matrix + matrix.conj().T
    for options in ({}, {"method": "exact"}, {"num_matvecs": 40}):
        estimate = ls.trace(matrix, **options)
        assert estimate.method == "exact" and estimate.num_matvecs == 40 and estimate.standard_error == 0
        assert estimate.value == pytest.approx(np.trace(matrix).real, abs=100 * eps(dtype))
    assert ls.trace(matrix, num_matvecs=39).method == "hutchinson"


def test_one_product_knows_that_it_knows_nothing():
    estimate = ls.trace(rotated(np.linspace(-1, 3, N)), method="hutchinson", num_matvecs=1)
    assert estimate.standard_error == np.inf and estimate.confidence_interval() == (-np.inf, np.inf)


def test_tolerance_and_time_budget():
    matrix = rotated(np.linspace(2, 3, N))
    met = ls.trace(matrix, method="hutchinson", num_matvecs=5000, tol=0.01)
    assert met.converged and 10 <= met.num_matvecs < 5000 and met.value == pytest.approx(2.5 * N, rel=0.02)
    assert not ls.trace(matrix, method="hutchinson", num_matvecs=10, tol=1e-6).converged

    def slow(x):
        time.sleep(0.01)
        return matrix @ x

    operator = ls.aslinearoperator(slow, shape=(N, N), dtype=float)
    short = ls.trace(operator, method="hutchinson", num_matvecs=500, time_budget=0.05)
    assert not short.converged and 1 <= short.num_matvecs < 100
    with pytest.raises(TimeoutError, match="use method='hutchinson'"):
        ls.trace(operator, method="exact", time_budget=0.05)


def test_same_seed_same_numbers():
    matrix = rotated(np.linspace(-1, 3, N))
    one, two, three = (ls.trace(matrix, num_matvecs=20, seed=seed).value for seed in (0, 0, 1))
    assert one == two != three


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"method": "guess"}, ValueError, "argument method is 'guess'"),
        ({"num_matvecs": 0}, ValueError, "argument num_matvecs"),
        ({"tol": 0}, ValueError, "argument tol"),
        ({"time_budget": -1}, ValueError, "argument time_budget"),
        ({"method": "exact", "num_matvecs": 5}, ValueError, "use method='hutchinson'"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        ls.trace(np.eye(20), **options)


def test_bad_operators():
    with pytest.raises(ValueError, match="square"):
        ls.trace(np.ones((2, 3)))
    with pytest.raises(FloatingPointError, match="NaN"):
        ls.trace(np.full((3, 3), np.nan))


def test_interrupted_estimates_are_returned_and_marked():
    calls = []

    def product(v):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return 2 * v

    estimate = ls.trace(ls.aslinearoperator(product, shape=(300, 300), dtype=float), num_matvecs=50)
    assert estimate.value == pytest.approx(600) and estimate.num_matvecs == 16 and not estimate.converged


def test_a_trace_that_is_no_real_number_is_refused():
    with pytest.raises(ValueError, match="no real number"):
        ls.trace(np.diag(1 + 1j * np.arange(5.0)))
    with pytest.raises(TypeError, match="real and its imaginary part"):
        ls.trace_function(ls.identity(5), lambda x: np.exp(1j * x))


def test_one_sample_says_nothing_of_its_error():
    estimate = ls.trace(ls.identity(300), method="hutchinson", num_matvecs=1)
    assert estimate.standard_error == np.inf and not estimate.converged


# -- the methods that split off the large part ---------------------------------------------------------------------------


def hermitian(matrix, **options):
    return ls.aslinearoperator(matrix, hermitian=True, **options)


@pytest.mark.parametrize("name", ["flat", "geometric", "power law", "outliers"])
def test_coverage_of_hutch_plus_plus(name):
    """400 runs in a uniform basis; Hutchinson is in test_sampling.py, XTrace and XNysTrace are in test_leave_out.py."""
    i = np.arange(80.0)
    eigenvalues = {
        "flat": np.linspace(1, 3, 80), "geometric": 0.9**i, "power law": 1 / (1 + i) ** 2,
        "outliers": np.r_[np.linspace(5, 10, 10), np.linspace(0.01, 0.05, 70)],
    }[name]  # fmt: skip
    matrix, hits = hermitian(rotated(eigenvalues)), 0
    for seed in range(400):
        low, high = ls.trace(matrix, method="hutch++", num_matvecs=54, seed=seed).confidence_interval(0.95)
        hits += low <= eigenvalues.sum() <= high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize("method", ["xtrace", "xnystrace", "auto"])
@pytest.mark.parametrize("kind", ["real", "complex", "coordinates"])
def test_coverage_from_the_operator_to_the_interval(kind, method):
    eigenvalues = 1 / (1 + np.arange(150.0))
    matrix = np.diag(eigenvalues) if kind == "coordinates" else rotated(eigenvalues, 0, np.complex128 if kind == "complex" else np.float64)
    hits, runs = 0, 40
    for seed in range(runs):
        estimate = ls.trace(hermitian(matrix), method=method, num_matvecs=40, seed=seed)
        low, high = estimate.confidence_interval(0.95)
        hits += low <= eigenvalues.sum() <= high
        assert estimate.method == ("xtrace" if method == "auto" else method) and estimate.num_matvecs == 40
    assert hits >= least_hits(runs, 0.95)


def test_decaying_spectra_gain_what_the_papers_promise():
    """0.9^i and 90 products: Hutch++ is ten times as good as Hutchinson, XTrace and XNysTrace a hundred times."""
    eigenvalues = 0.9 ** np.arange(400.0)
    matrix = hermitian(rotated(eigenvalues))
    errors = {
        method: np.sqrt(np.mean([(ls.trace(matrix, method=method, num_matvecs=90, seed=seed).value - 10) ** 2 for seed in range(12)]))
        for method in METHODS
    }
    assert errors["hutch++"] < errors["hutchinson"] / 4 and errors["xtrace"] < errors["hutchinson"] / 15
    assert errors["xnystrace"] < errors["xtrace"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("name", ["rank 5", "rank one", "zero", "identity", "rounding"])
def test_matrices_of_low_rank_and_tiny_budgets(name, method, dtype):
    """Peers return NaN for two products (m = k // 3 = 0) or raise LinAlgError for rank 5."""
    n = 200
    eigenvalues = {
        "rank 5": np.r_[np.arange(1.0, 6), np.zeros(n - 5)], "rank one": np.r_[1.0, np.zeros(n - 1)], "zero": np.zeros(n),
        "identity": np.ones(n), "rounding": 0.5 ** np.arange(float(n)),
    }[name]  # fmt: skip
    matrix, true = hermitian(rotated(eigenvalues, 0, dtype)), eigenvalues.sum()
    for products in (1, 2, 3, 4, 5, 30, 120):
        estimate = ls.trace(matrix, method=method, num_matvecs=products)
        assert 1 <= estimate.num_matvecs <= products and np.isfinite(estimate.value)
        low, high = estimate.confidence_interval(0.9999)
        assert low <= true <= high
        assert estimate.converged == np.isfinite(estimate.standard_error)
        if products == 120 and method not in ("hutchinson",) and (name != "identity" or method != "hutch++"):
            assert estimate.value == pytest.approx(true, abs=3e3 * eps(dtype) * max(true, 1))
            # Nothing is left to chance but rounding, and that is within the error that is stated for it.
            assert abs(estimate.value - true) <= estimate.rounding_error + 3 * estimate.standard_error
            assert estimate.rounding_error <= 2e5 * eps(dtype) * true


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_orders(n, method):
    matrix = rotated(np.arange(1.0, n + 1))
    for products in (1, 2, 5, 20):
        estimate = ls.trace(hermitian(matrix), method=method, num_matvecs=products)
        low, high = estimate.confidence_interval(0.9999)
        assert np.isfinite(estimate.value) and low <= high
        # Two vectors of two signs may be the same: their samples agree without being right.
        assert method in ("hutchinson", "hutch++") or low - 1e-12 <= n * (n + 1) / 2 <= high + 1e-12
        if n == 1 or (products == 20 and method in ("xtrace", "xnystrace")):
            assert estimate.value == pytest.approx(n * (n + 1) / 2)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_matrices_that_are_not_symmetric(method):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((150, 6)), rng.standard_normal((150, 6))
    matrix = left @ right.T + 0.01 * rng.standard_normal((150, 150))
    hits = 0
    for seed in range(60):
        low, high = ls.trace(matrix, method=method, num_matvecs=45, seed=seed).confidence_interval(0.95)
        hits += low <= np.trace(matrix) <= high
    assert hits >= least_hits(60, 0.95)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
@pytest.mark.parametrize("eigenvalues", [np.linspace(2, 3, 150), 0.8 ** np.arange(150.0)])
def test_negative_traces_converge_as_positive_ones_do(eigenvalues, method):
    """A peer compares the error with the mean itself and so takes all samples for a negative one."""
    plus, minus = (
        ls.trace(hermitian(sign * rotated(eigenvalues)), method=method, num_matvecs=140, tol=0.05) for sign in (1, -1)
    )
    assert minus.value == -plus.value and minus.num_matvecs == plus.num_matvecs and minus.converged == plus.converged


@pytest.mark.parametrize("method", METHODS)
def test_a_tolerance_uses_all_products_and_stops_early(method):
    eigenvalues = np.r_[0.7 ** np.arange(20.0), np.full(180, 1e-3)]
    operator = hermitian(rotated(eigenvalues))
    tol = 0.2 if method == "hutchinson" else 0.01
    estimate = ls.trace(operator, method=method, tol=tol, num_matvecs=150)
    assert estimate.converged and 10 <= estimate.num_matvecs < 150 and operator.num_matvecs == estimate.num_matvecs
    low, high = estimate.confidence_interval(0.95)
    assert (high - low) / 2 <= tol * abs(estimate.value)
    # No product was thrown away: a run that was allowed just as many gives the same.
    again = ls.trace(operator, method=method, num_matvecs=estimate.num_matvecs)
    assert again.value == pytest.approx(estimate.value, rel=1e-12)
    assert again.standard_error == pytest.approx(estimate.standard_error, rel=1e-6)
    missed = ls.trace(operator, method=method, tol=1e-9, num_matvecs=40)
    assert not missed.converged and missed.num_matvecs <= 40


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("products", [7, 16, 23, 41, 60])
def test_the_number_of_products_is_a_hard_cap(products, method):
    operator = hermitian(rotated(np.linspace(1, 2, 80)))
    estimate = ls.trace(operator, method=method, num_matvecs=products)
    assert operator.num_matvecs == estimate.num_matvecs and products - 1 <= estimate.num_matvecs <= products


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", [*METHODS, "auto", "exact"])
def test_every_backend_gives_the_same(method, backend):
    eigenvalues = 0.8 ** np.arange(60.0)
    for dtype in (np.float64, np.complex64):
        matrix = rotated(eigenvalues, 0, dtype)
        device = BACKENDS[backend]()
        held = device.asarray(matrix)
        there = ls.aslinearoperator(lambda x, m=held: m @ x, shape=(60, 60), dtype=dtype, hermitian=True, backend=device)
        options = {"method": method, "num_matvecs": 60 if method == "exact" else 30}
        one, two = ls.trace(there, **options), ls.trace(hermitian(matrix), **options)
        assert one.value == pytest.approx(two.value, rel=1e3 * eps(dtype)) and one.num_matvecs == two.num_matvecs


def test_auto_decides_by_the_decay():
    flat, decaying = rotated(np.linspace(1, 2, 150)), rotated(0.8 ** np.arange(150.0))
    assert ls.trace(hermitian(flat), num_matvecs=60).method == "hutchinson"
    assert ls.trace(hermitian(flat), num_matvecs=60).value == ls.trace(hermitian(flat), num_matvecs=60, method="hutchinson").value
    assert ls.trace(hermitian(decaying), num_matvecs=60).method == "xtrace"
    assert ls.trace(hermitian(decaying), num_matvecs=19).method == "hutchinson"
    positive = hermitian(decaying)
    positive.positive_semidefinite = True
    assert ls.trace(positive, num_matvecs=60).method == "xnystrace"
    operator = hermitian(decaying)
    assert ls.trace(operator, num_matvecs=60).num_matvecs == operator.num_matvecs == 60


def test_xnystrace_refuses_what_is_not_positive_semidefinite():
    with pytest.raises(ValueError, match=r"positive semidefinite.*use 'xtrace'"):
        ls.trace(hermitian(rotated(np.linspace(-1, 1, 100))), method="xnystrace", num_matvecs=20)
    with pytest.raises(ValueError, match="Hermitian operator"):
        ls.trace(np.triu(np.ones((100, 100))), method="xnystrace", num_matvecs=20)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_a_time_budget_ends_every_method(method):
    matrix = rotated(0.8 ** np.arange(150.0))

    def slow(x):
        time.sleep(0.003)
        return matrix @ x

    operator = ls.aslinearoperator(slow, shape=(150, 150), dtype=float, hermitian=True)
    estimate = ls.trace(operator, method=method, num_matvecs=140, time_budget=0.15)
    assert not estimate.converged and 1 <= estimate.num_matvecs < 140
    low, high = estimate.confidence_interval(0.9999)
    assert low <= 5 <= high and estimate.seconds < 5


def failing(matrix, after, error):
    calls = []

    def product(x):
        calls.append(1)
        if len(calls) > after:
            if isinstance(error, BaseException):
                raise error
            return error * x
        return matrix @ x

    return ls.aslinearoperator(product, shape=matrix.shape, dtype=float, hermitian=True)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_what_was_done_before_a_failure_is_kept(method):
    matrix = rotated(0.8 ** np.arange(150.0))
    stopped = ls.trace(failing(matrix, 50, KeyboardInterrupt()), method=method, num_matvecs=100)
    assert not stopped.converged and 20 <= stopped.num_matvecs <= 50
    whole = ls.trace(hermitian(matrix), method=method, num_matvecs=stopped.num_matvecs)
    assert whole.num_matvecs == stopped.num_matvecs and stopped.value == pytest.approx(whole.value, rel=1e-12)
    for error, kind, message in (
        (ZeroDivisionError("the data ran out"), EstimationInterrupted, "ZeroDivisionError: the data ran out"),
        (np.nan, NonFiniteEstimateError, "NaN or infinity"),
    ):
        with pytest.raises(kind, match=message) as caught:
            ls.trace(failing(matrix, 50, error), method=method, num_matvecs=100)
        partial = caught.value.partial
        assert partial.value == stopped.value and partial.num_matvecs == stopped.num_matvecs == caught.value.step and not partial.converged


@pytest.mark.parametrize("method", [*METHODS, "exact"])
def test_a_failure_of_the_first_product_is_raised_as_it_is(method):
    matrix = np.eye(30)
    for error in (KeyboardInterrupt(), ZeroDivisionError("no data")):
        with pytest.raises(type(error)):
            ls.trace(failing(matrix, 0, error), method=method, num_matvecs=30)
    with pytest.raises(FloatingPointError, match="Product 1 with the operator") as caught:
        ls.trace(failing(matrix, 0, np.nan), method=method, num_matvecs=30)
    assert caught.value.partial is None


def test_half_of_an_exact_trace_is_no_trace():
    for error in (KeyboardInterrupt(), ZeroDivisionError("no data")):
        with pytest.raises(type(error)):
            ls.trace(failing(np.eye(60), 30, error), method="exact")


def test_progress_counts_products():
    seen = []
    ls.trace(hermitian(rotated(np.ones(90))), method="xtrace", num_matvecs=40, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40) and len(seen) > 1
