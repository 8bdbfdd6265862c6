"""Selective orthogonalisation: what rounding does to a run without a basis is undone along eigenvectors that are known."""

import functools
import tracemalloc

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, least_hits, rotated
from scipy import stats

import linop_spectra as ls
from linop_spectra.krylov import checkpoint as checkpoint_module
from linop_spectra.krylov.selective import most_products, pairs_of, rows_that_fit, vectors_of
from linop_spectra.spectra.deflation import deflate

N, STEPS = 4000, 80
OUTLIERS = np.linspace(7, 100, 12)
# The outlier spectrum of a trained network: a narrow bulk, a tail of 1/j, and outliers.
NETWORK = np.r_[np.random.default_rng(0).normal(0, np.sqrt(1e-3), N - 112), 1 / np.arange(1, 101), OUTLIERS]


class Reflected(ls.LinearOperator):
    """``H diag(values) H`` with a Householder reflection H, so that eigenvectors are no unit vectors; it counts and can fail."""

    def __init__(self, values, dtype=np.float64, *, fail_at=0, error=None, backend=None):
        rng = np.random.default_rng(1)
        u = rng.standard_normal(len(values)) + (1j * rng.standard_normal(len(values)) if np.dtype(dtype).kind == "c" else 0)
        self.u, self.values = (u / np.linalg.norm(u)).astype(dtype)[:, None], np.asarray(values).astype(dtype)[:, None]
        self.products, self.fail_at, self.error = 0, fail_at, error
        super().__init__((len(values), len(values)), dtype, hermitian=True, backend=backend)

    def reflect(self, x):
        return x - 2 * self.u * (self.u.conj().T @ x)

    def _matmat(self, X):
        self.products += X.shape[1]
        if self.fail_at and self.products >= self.fail_at:
            if self.error is None:
                return np.full(X.shape, np.nan, self.dtype)
            raise self.error
        return self.reflect(self.values * self.reflect(X))


def room(rows, n=N, probes=1, dtype=np.float64):
    """Bytes for a search with so many vectors beside the recurrence."""
    return (vectors_of(rows) + 2 * probes) * n * np.dtype(dtype).itemsize


@functools.cache
def run_of(kind, dtype, probes=1):
    return ls.lanczos(Reflected(NETWORK, dtype), STEPS, num_probes=probes, reorthogonalize=kind)


def apart(a, b, probe=0):
    """Wasserstein distance of two quadratures."""
    return stats.wasserstein_distance(a.ritz_values[probe], b.ritz_values[probe], a.weights[probe], b.weights[probe])


# -- what it computes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_quadrature_is_that_of_a_full_run(dtype):
    run, full, none = (run_of(kind, dtype) for kind in ("selective", "full", "none"))
    assert (run.reorthogonalize, run.keeps_basis, run.counts_eigenvalues) == ("selective", False, True)
    assert apart(none, full) > 1e-5 * 100 and apart(run, full) < 0.1 * apart(none, full)
    # Against the probe's own spectral measure, which no run can know better than the full one.
    start = ls.backends.get_backend("numpy").probes(N, (0,), kind="sphere", seed=0, domain="probe", dtype=dtype)
    weights = np.abs(Reflected(NETWORK, dtype).reflect(start.T)[:, 0].astype(np.result_type(dtype, np.float64))) ** 2

    def error(one):
        return stats.wasserstein_distance(one.ritz_values[0], NETWORK, one.weights[0], weights)

    assert error(run) < 1.05 * error(full) < 0.7 * error(none)
    # A third of the vectors is worth most of it.
    few = ls.lanczos(Reflected(NETWORK, dtype), STEPS, reorthogonalize="selective", memory_budget=room(40, dtype=dtype))
    assert len(few.locked_values) == 13 and error(few) < 0.8 * error(none)
    assert run.num_ghosts[0] < none.num_ghosts[0] / 1.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_locked_values_are_eigenvalues_and_have_no_copies(dtype):
    run, none = run_of("selective", dtype), run_of("none", dtype)
    errors = np.min(np.abs(run.locked_values[:, None] - NETWORK), axis=1)
    assert np.all(errors <= run.locked_residuals + 100 * 30 * eps(dtype)) and np.all(np.diff(run.locked_values) > 0)
    assert np.all(run.locked_residuals <= 0.1 * np.sqrt(eps(dtype)) * 100.1) and len(run.locked_values) >= 12
    near = 1e-4 * 100

    def copies(one):
        return np.array([np.sum(np.abs(one.ritz_values[0] - value) < near) for value in OUTLIERS])

    assert np.all(copies(run) == 1) and np.all(copies(none) > 1)
    # Along what is removed the vectors are orthogonal to rounding.
    assert 0 < run.orthogonality_loss[0] < 100 * eps(dtype) and none.orthogonality_loss[0] == 1.0


def test_double_precision_is_kept_where_all_that_converges_is_locked():
    """Semi-orthogonality gives the coefficients of a full run up to rounding (Simon, 1984)."""
    values = np.r_[np.linspace(-1, 1, 2000), np.linspace(3, 60, 9)]
    a = Reflected(values)
    run, full, none = (ls.lanczos(a, 60, num_probes=2, reorthogonalize=kind) for kind in ("selective", "full", "none"))
    assert len(run.locked_values) == 9 and none.num_ghosts.all() and not run.num_ghosts.any()
    np.testing.assert_allclose(run.ritz_values, full.ritz_values, atol=1e-10)
    np.testing.assert_allclose(run.weights, full.weights, atol=1e-10)
    np.testing.assert_allclose(run.alphas, full.alphas, atol=1e-7)
    # The weights of simple eigenvalues are the squared overlaps.
    ends = run.ritz_values[0] > 2
    np.testing.assert_allclose(run.weights[0][ends], run.locked_overlaps[0], atol=1e-9)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend(name):
    backend = BACKENDS[name]()
    values = np.r_[np.linspace(-1, 1, 300), [4, 6, 9, 15, 22, 40]]
    matrix = rotated(values)
    expected = ls.lanczos(matrix, 40, reorthogonalize="full")
    a = ls.aslinearoperator(matrix, hermitian=True, backend=backend)
    run = ls.lanczos(a, 40, reorthogonalize="selective")
    np.testing.assert_allclose(run.ritz_values, expected.ritz_values, atol=1e-10)
    np.testing.assert_allclose(run.locked_values[-6:], [4, 6, 9, 15, 22, 40], atol=1e-6)


# -- pinning --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probes", [1, 3])
def test_locked_eigenvalues_are_pinned_and_no_others(dtype, probes):
    run = run_of("selective", dtype, probes)
    found = deflate(run, pin=True)
    assert found.verified and not np.any(np.isin(OUTLIERS.round(6), np.round(found.objections, 6)))
    np.testing.assert_allclose(found.pinned[found.pinned > 2], OUTLIERS, atol=1e-3)
    distance = np.min(np.abs(found.pinned[:, None] - run.locked_values), axis=1)
    assert np.all(distance <= np.max(run.locked_residuals) + 1e-4)
    assert not len(deflate(run, pin=False).pinned) and not run_of("none", dtype).counts_eigenvalues


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_multiple_eigenvalue_is_not_pinned(dtype):
    """One probe is enough, for the locked eigenvector is independent of it: chance would pass a double one in most runs."""
    values = np.r_[np.linspace(-1, 1, 500), 10.0, 10.0, 20.0, 30.0]
    a, refused = Reflected(values, dtype), 0
    for seed in range(20):
        run = ls.lanczos(a, 30, reorthogonalize="selective", seed=seed)
        found = deflate(run, pin=True)
        np.testing.assert_allclose(found.pinned[found.pinned > 15], [20, 30], atol=1e-3)
        refused += not np.any(np.abs(found.pinned - 10) < 1)
    assert refused >= 19  # unless the probe meets but one direction of the eigenspace, up to the error of single precision


def test_pinning_brings_the_trace_within_its_interval():
    values, trials, hits, errors = np.r_[np.linspace(-1, 1, 600), OUTLIERS], 60, 0, []
    a = Reflected(values)
    for seed in range(trials):
        run = ls.lanczos(a, 40, reorthogonalize="selective", seed=seed)
        trace = ls.SpectralDensity(run).trace()
        low, high = trace.confidence_interval(0.95)
        hits += low <= values.sum() <= high
        errors.append((trace.value - values.sum(), run.dimension * (run.weights[0] @ run.ritz_values[0]) - values.sum()))
    pinned, plain = np.sqrt(np.mean(np.square(errors), axis=0))
    assert hits >= least_hits(trials, 0.95) and pinned < 0.2 * plain


# -- going on -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("through", ["memory", "file", "checkpoint"])
@pytest.mark.parametrize("at", [3, 30])
def test_runs_go_on_bit_identically(dtype, through, at, tmp_path):
    options = {"num_probes": 2, "reorthogonalize": "selective", "memory_budget": room(45, probes=2, dtype=dtype)}
    whole = ls.lanczos(Reflected(NETWORK, dtype), 50, **options)
    a = Reflected(NETWORK, dtype)
    if through == "checkpoint":
        ls.lanczos(a, at, checkpoint=tmp_path / "c", **options)
        a.products = 0
        longer = ls.lanczos(a, 50, checkpoint=tmp_path / "c", **options)
        assert a.products == 2 * (50 - at) + 1  # the search is not done again
        again = ls.lanczos(a, 50, checkpoint=tmp_path / "c", **options)
        np.testing.assert_array_equal(again.alphas, whole.alphas)
    else:
        half = ls.lanczos(a, at, **options)
        if through == "file":
            half.save(tmp_path / "half.npz")
            half = ls.load(tmp_path / "half.npz")
        longer = half.extend(50 - at, operator=a)
    for name in ("alphas", "betas", "locked_values", "locked_residuals", "locked_overlaps", "orthogonality_loss"):
        np.testing.assert_array_equal(getattr(longer, name), getattr(whole, name))
    assert (longer.num_matvecs, longer.reorthogonalize) == (whole.num_matvecs, "selective")
    assert whole.vectors.removing.any()


def test_failures_in_the_middle_leave_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "CHECKPOINT_SECONDS", 0.0)
    options = {"reorthogonalize": "selective", "memory_budget": room(45)}
    whole = ls.lanczos(Reflected(NETWORK), 50, **options)
    spent = whole.num_matvecs - 50
    for done in (10, 25):
        left = spent + 10 if done == 10 else 1 + 15  # the second run only recognises the operator
        with pytest.raises(ls.LanczosInterrupted):
            ls.lanczos(Reflected(NETWORK, fail_at=left + 1, error=RuntimeError("lost")), 50, checkpoint=tmp_path / "c", **options)
    stopped = ls.lanczos(Reflected(NETWORK, fail_at=1 + 8, error=KeyboardInterrupt()), 50, checkpoint=tmp_path / "c", **options)
    assert (stopped.status, stopped.num_steps) == ("interrupted", 32)
    np.testing.assert_array_equal(ls.lanczos(Reflected(NETWORK), 50, checkpoint=tmp_path / "c", **options).alphas, whole.alphas)
    vectors = tmp_path / "c.basis"
    vectors.write_bytes(vectors.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"The vectors '.*c\.basis' of the checkpoint are damaged"):
        ls.lanczos(Reflected(NETWORK), 50, checkpoint=tmp_path / "c", **options)
    with pytest.raises(ValueError, match=r"its reorthogonalize is 'selective', this run's is 'none'"):
        ls.lanczos(Reflected(NETWORK), 50, checkpoint=tmp_path / "c", reorthogonalize="none")


def test_without_vectors_a_saved_run_says_so(tmp_path):
    run = run_of("selective", np.float64)
    run.save(tmp_path / "run.npz", basis=False)
    loaded = ls.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(deflate(loaded, pin=True).pinned, deflate(run, pin=True).pinned)
    with pytest.raises(ValueError, match="saved without its vectors"):
        loaded.extend(3, operator=Reflected(NETWORK))
    with pytest.raises(ValueError, match="kept no basis"):
        run.ritz_vectors()


# -- the plan -------------------------------------------------------------------------------------------------------------------


def test_the_vectors_of_a_search_fill_what_fits():
    for vectors in range(300):
        rows = rows_that_fit(vectors)
        assert rows == 0 or vectors_of(rows) <= vectors
        assert rows == 120 or vectors_of(rows + 1) > vectors or pairs_of(rows + 1) < 2 or vectors_of(rows + 2) > vectors
    assert (rows_that_fit(13), rows_that_fit(14)) == (0, 6) and pairs_of(6) == 2


def test_auto_takes_it_before_it_gives_up(caplog):
    a = Reflected(NETWORK, np.float32)
    with caplog.at_level("INFO", logger="linop_spectra"):
        run = ls.lanczos(a, STEPS, memory_budget=room(15, dtype=np.float32))
    assert run.reorthogonalize == "selective" and len(run.locked_values) == 5 and "storage 'selective'" in caplog.text
    with pytest.warns(UserWarning, match="running without reorthogonalisation"):
        run = ls.lanczos(a, STEPS, memory_budget=room(6, dtype=np.float32) - 1)
    assert run.reorthogonalize == "none" and not len(run.locked_values)
    with pytest.raises(MemoryError, match=r"takes at least 256 kB for 1 probes, over the memory budget of 256 kB; .*raise memory_budget"):
        ls.lanczos(a, STEPS, memory_budget=room(6, dtype=np.float32) - 1, reorthogonalize="selective")


def test_memory_stays_within_the_budget():
    n = 20_000
    a = ls.diagonal_operator(np.r_[np.linspace(-1, 1, n - 20), np.linspace(3, 60, 20)])
    tracemalloc.start()
    try:
        run = ls.lanczos(a, 250, memory_budget=room(30, n))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert run.reorthogonalize == "selective" and peak < room(30, n) + 6 * 8 * n  # beside the vectors, those of a product


@pytest.mark.parametrize("values, kept", [
    (np.ones(300), (0, 40)), (np.zeros(300), (0, 0)), (np.linspace(-1, 1, 3000), (0, 0)), (np.r_[7.0, np.zeros(299)], (1, 1)),
    ([3.0], (0, 0)), (np.arange(12.0), (4, 4)),
], ids=["identity", "zero", "flat", "rank one", "order 1", "order 12"])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_operators_with_little_to_lock(values, kept, dtype):
    a = ls.diagonal_operator(np.asarray(values).astype(dtype))
    steps = min(12, len(values))
    run, full = (ls.lanczos(a, steps, num_probes=2, reorthogonalize=kind) for kind in ("selective", "full"))
    assert kept[0] <= len(run.locked_values) <= kept[1]
    np.testing.assert_array_equal(run.num_steps_taken, full.num_steps_taken)
    np.testing.assert_allclose(run.ritz_values, full.ritz_values, atol=100 * eps(dtype) * max(1.0, np.max(np.abs(values))))
    assert np.isfinite(ls.spectral_density(a, num_steps=steps, reorthogonalize="selective").trace().value)


def test_more_probes_use_the_eigenvectors_of_the_first():
    values = np.r_[np.linspace(1, 2, 400), OUTLIERS]
    a = Reflected(values)
    S = ls.spectral_density(a, tol=0.004, target="trace", num_steps=40, num_probes=32, reorthogonalize="selective")
    searched = S.num_matvecs - 1 - int(S.run.num_steps_taken.sum())  # and one for the noise
    assert S.num_probes > 4 and 0 < searched <= most_products(120) and S.num_matvecs == a.products
    assert S.run.locked_overlaps.shape == (S.num_probes, len(S.run.locked_values))
    np.testing.assert_allclose(deflate(S.run, pin=True).pinned, OUTLIERS, atol=1e-6)


def test_it_says_what_it_did():
    a, budget = Reflected(NETWORK, np.float32), room(15, dtype=np.float32)
    plan = ls.plan(a, num_steps=STEPS, num_probes=1, memory_budget=budget)
    assert plan.reorthogonalize == "selective" and plan.bytes <= budget and plan.seconds > 0
    assert "some eigenvectors: the basis does not fit, only their eigenvalues are pinned" in str(plan)
    S = ls.spectral_density(a, num_steps=STEPS, num_probes=1, memory_budget=budget)
    assert S.num_matvecs <= plan.num_matvecs and S.pin
    assert "; 5 eigenvectors of largest modulus stood in for the Lanczos vectors" in S.explain().splitlines()[0]
    assert any("selective orthogonalisation to 5 eigenvectors" in note for note in S.notes)
    assert "locked eigenvectors" in S.run._repr_html_()
    flat = ls.diagonal_operator(np.linspace(-1, 1, 2000))
    with pytest.raises(ValueError, match="deflate=True needs the whole basis"):
        ls.spectral_density(flat, num_steps=20, reorthogonalize="selective", deflate=True)


# -- what goes wrong in the search ----------------------------------------------------------------------------------------------


def test_a_product_that_fails_in_the_search():
    with pytest.raises(ls.NonFiniteProductError, match="search for eigenvectors, before the first step") as caught:
        ls.lanczos(Reflected(NETWORK, fail_at=7), STEPS, reorthogonalize="selective")
    assert caught.value.step == 0 and caught.value.partial.num_steps == 0
    for error in (RuntimeError("lost"), KeyboardInterrupt()):  # as before the first step of any run
        with pytest.raises(type(error)):
            ls.lanczos(Reflected(NETWORK, fail_at=7, error=error), STEPS, reorthogonalize="selective")
    a = ls.aslinearoperator(np.triu(np.ones((300, 300))), hermitian=True)
    with pytest.raises(ValueError, match="not symmetric"):
        ls.lanczos(a, STEPS, reorthogonalize="selective")


def test_a_time_budget_covers_the_search():
    run = ls.lanczos(Reflected(NETWORK), STEPS, reorthogonalize="selective", time_budget=1e-9)
    assert (run.status, run.num_steps) == ("time budget", 1)
    assert run.num_matvecs <= 1 + pairs_of(120) + 10  # such a search ends as soon as it can


def test_a_bar_for_each_phase(capsys):
    ls.lanczos(Reflected(NETWORK), 10, reorthogonalize="selective", progress=True)
    shown = capsys.readouterr().err
    assert "eigenvectors to lock" in shown and "10/10" in shown
