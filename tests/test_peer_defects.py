"""Errors that programs for the same tasks have been seen to make, one test for each; what is asserted is what is right."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from helpers import random_array, rotated

import linop_spectra as ls
from linop_spectra.backends import get_backend
from linop_spectra.estimators import diagonal
from linop_spectra.krylov import solve

OUTLIERS = np.r_[np.linspace(-1, 1, 1990), np.linspace(5, 50, 10)]


class Counted:
    """A diagonal matrix as nothing but a function of a vector, which notes what it is called with."""

    def __init__(self, values):
        self.values, self.dtypes, self.calls = np.asarray(values), set(), 0

    def __call__(self, x):
        self.calls += 1
        self.dtypes.add(x.dtype)
        return self.values * x

    @property
    def operator(self):
        n = len(self.values)
        return ls.aslinearoperator(self, shape=(n, n), dtype=float, hermitian=True)


# -- 1: the sign of a log-determinant ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [60, 3000])
def test_the_sign_of_a_log_determinant(n):
    """The logarithm of a determinant below one comes out positive where its modulus is taken on the way."""
    small, large = np.linspace(0.05, 0.5, n), np.linspace(2.0, 20.0, n)
    for values in (small, large):
        exact = np.log(values).sum()
        estimate = ls.logdet(ls.diagonal_operator(values))
        low, high = estimate.confidence_interval(0.9999)
        assert low <= exact <= high
        assert np.sign(estimate.value) == np.sign(exact) == (-1 if values is small else 1)


# -- 2: no guessed array library, no global setting changed --------------------------------------------------------------------


def test_a_numpy_matrix_stays_with_numpy_and_loads_nothing():
    """With another framework installed, an array of NumPy is handed to it because of its dtype."""
    program = (
        "import sys, numpy as np, linop_spectra as ls\n"
        "for dtype in (np.float32, np.float64, np.complex64):\n"
        "    a = ls.aslinearoperator(np.eye(5, dtype=dtype))\n"
        "    assert a.backend.name == 'numpy' and type(a @ np.ones(5, dtype)) is np.ndarray\n"
        "    ls.lanczos(a, 3)\n"
        "ls.random_matrices.MarchenkoPastur(ratio=0.5).cdf(1.0)\n"
        "assert not {'jax', 'torch', 'tensorflow', 'cupy', 'matplotlib', 'tqdm'} & {m.split('.')[0] for m in sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_setting_of_another_library_changes():
    """Wrapping a matrix pins a framework to one device, or switches its precision, for the whole process."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")

    def settings():
        names = ("jax_enable_x64", "jax_default_device", "jax_platforms", "jax_debug_nans", "jax_default_matmul_precision")
        return (
            [getattr(jax.config, name) for name in names], jax.default_backend(),
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
            np.geterr(), np.get_printoptions(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),  # noqa: NPY002
        )  # fmt: skip

    before = settings()
    for matrix in (np.diag(np.arange(1.0, 31)), jax.numpy.eye(30), torch.eye(30)):
        operator = ls.aslinearoperator(matrix)
        assert operator.backend.name == "numpy"
        ls.spectral_density(operator, num_steps=5)
        ls.eigsh(operator, 2)
        ls.trace(operator, num_matvecs=5)
    assert settings() == before


# -- 3: logarithms of tiny eigenvalues; no start vector needed ---------------------------------------------------------------


@pytest.mark.parametrize("smallest", [1e-8, 1e-12])
def test_the_logarithm_of_a_tiny_eigenvalue_is_not_dropped(smallest):
    """A function that is set to zero for small arguments loses what the smallest eigenvalue gives to a log-determinant."""
    values = np.r_[smallest, np.linspace(1, 2, 30)]
    exact = np.log(values).sum()
    estimate = ls.logdet(ls.diagonal_operator(values))
    low, high = estimate.confidence_interval(0.95)
    assert low <= exact <= high
    assert estimate.value == pytest.approx(exact, abs=0.1)


def test_an_eigenvalue_of_the_size_of_rounding_is_named():
    """The same, where the sign of the eigenvalue is not known: no number is better than one without it."""
    with pytest.raises(ValueError, match=r"zero up to rounding.*shift"):
        ls.logdet(ls.diagonal_operator(np.r_[2e-15, np.linspace(1, 2, 30)]))


def test_all_eigenvalues_tiny():
    values = np.linspace(1, 2, 30) * 1e-120
    assert ls.logdet(ls.diagonal_operator(values)).value == pytest.approx(np.log(values).sum(), rel=1e-12)
    assert ls.trace_function(ls.diagonal_operator(values), np.log).value == pytest.approx(np.log(values).sum(), rel=1e-12)


def test_every_method_runs_without_a_start_vector():
    """A solver needs a start vector that its signature calls optional."""
    a = ls.diagonal_operator(OUTLIERS)
    assert ls.lanczos(a, 8).num_steps == 8
    assert ls.eigsh(a, 2, which="LA").eigenvalues[-1] == pytest.approx(50)
    with pytest.raises(TypeError, match="start"):
        ls.lanczos(a, 8, start_vector=None)


# -- 4: without reorthogonalisation means without ----------------------------------------------------------------------------


def test_the_option_does_what_it_says():
    """Both values of the option orthogonalise fully, at the memory and time of doing so."""
    counted = {kind: Counted(OUTLIERS) for kind in ("none", "full")}
    runs = {kind: ls.lanczos(one.operator, 120, reorthogonalize=kind) for kind, one in counted.items()}
    assert {kind: one.calls for kind, one in counted.items()} == {"none": 120, "full": 120}
    assert runs["none"].vectors.bases == () and len(runs["full"].vectors.bases) == 1
    assert runs["full"].orthogonality_loss[0] < 1e-13 and runs["full"].num_ghosts[0] == 0
    assert runs["none"].orthogonality_loss[0] > 0.5 and runs["none"].num_ghosts[0] > 10
    # Seen from outside, too: Ritz values of the one repeat, those of the other do not.
    gaps = {kind: np.diff(np.sort(run.ritz_values[0]))[-20:].min() for kind, run in runs.items()}
    assert gaps["none"] < 1e-10 and gaps["full"] > 1e-6


def test_no_basis_is_stored_without_reorthogonalisation():
    n = 40_000
    operator = ls.diagonal_operator(np.linspace(0, 1, n))
    peaks = {}
    for kind in ("none", "full"):
        tracemalloc.start()
        ls.lanczos(operator, 60, reorthogonalize=kind)
        peaks[kind] = tracemalloc.get_traced_memory()[1] / (8 * n)
        tracemalloc.stop()
    assert peaks["none"] < 12 and peaks["full"] >= 61  # in vectors


# -- 5: one product for a step, and an end when there is nothing left ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "full"])
@pytest.mark.parametrize(
    "values, steps", [(np.ones(300), 1), (np.zeros(300), 1), (np.r_[np.ones(299), 5.0], 2), (np.arange(300) % 3, 3)], ids=str
)
def test_one_product_for_a_step_and_none_after_breakdown(kind, values, steps):
    """A product is taken twice for each step, and further ones are spent on rounding after the Krylov space is exhausted."""
    counted = Counted(values)
    run = ls.lanczos(counted.operator, 50, reorthogonalize=kind)
    assert run.num_steps_taken[0] == run.num_matvecs == counted.calls == steps
    assert run.betas[0, steps - 1] == 0.0


# -- 6: identity, negative Ritz values, relative stop -----------------------------------------------------------------------------


def test_the_identity_gives_no_nan():
    """The first residual of the identity is zero, and dividing by it makes everything NaN."""
    for scale in (1.0, -3.0, 1e-300, 1e300):
        run = ls.lanczos(scale * ls.identity(50), 20, num_probes=3)
        np.testing.assert_allclose(run.ritz_values[:, 0], scale, rtol=1e-14)
        assert np.all(np.isfinite(run.alphas)) and np.all(run.betas == 0)
        S = ls.spectral_density(scale * ls.identity(50), num_steps=20)
        np.testing.assert_allclose(S.nodes, scale, rtol=1e-14)
        assert S.trace().value == pytest.approx(50 * scale)


def test_negative_ritz_values_stay_negative():
    """Ritz values below zero are replaced by one, for matrices that were thought to be positive."""
    run = ls.lanczos(ls.diagonal_operator([-2.0, -1.0, 1.0, 2.0]), 4)
    np.testing.assert_allclose(run.ritz_values[0], [-2, -1, 1, 2], atol=1e-13)
    S = ls.spectral_density(ls.diagonal_operator(-OUTLIERS), num_steps=40)
    assert S.nodes[0] == pytest.approx(-50) and S.negative_mass()[0] > 0.3


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e-8, 1.0, 1e8, 1e200])
def test_the_end_of_a_run_does_not_depend_on_the_unit(scale):
    """A residual below 1e-6 ends the run, whatever the size of the matrix."""
    values = scale * np.r_[np.linspace(-1, 1, 200), 4.0, 4.0]
    run = ls.lanczos(ls.diagonal_operator(values), 60)
    assert run.num_steps_taken[0] == 60
    few = ls.lanczos(ls.diagonal_operator(scale * (np.arange(202) % 7 - 3.0)), 60)
    assert few.num_steps_taken[0] == 7
    result = ls.eigsh(ls.diagonal_operator(values), 3, which="LA", tol=1e-8)
    np.testing.assert_allclose(result.eigenvalues / scale, [1, 4, 4], atol=1e-7)
    x = np.asarray(solve(ls.diagonal_operator(scale * np.linspace(1, 4, 202)), np.ones(202)))
    np.testing.assert_allclose(x * scale, 1 / np.linspace(1, 4, 202), rtol=1e-6)


# -- 7: tiny budgets, and the n - 1 of a sample variance ------------------------------------------------------------------------


@pytest.mark.parametrize("products", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("method", ["auto", "hutchinson", "hutch++", "xtrace", "xnystrace"])
def test_tiny_budgets_give_numbers(method, products):
    """A third of two products is none, and an average over none is NaN."""
    matrix = rotated(np.linspace(0.5, 2, 40))
    spent = []
    operator = ls.aslinearoperator(lambda x: spent.append(1) or matrix @ x, shape=(40, 40), dtype=float, hermitian=True)
    estimate = ls.trace(operator, method=method, num_matvecs=products)
    assert np.isfinite(estimate.value) and not np.isnan(estimate.standard_error)
    assert estimate.num_matvecs == len(spent) <= products
    low, high = estimate.confidence_interval(0.999)
    assert low <= np.trace(matrix) <= high
    assert np.all(np.isfinite(diagonal(operator, num_matvecs=products).value))


@pytest.mark.parametrize("products", [2, 3, 10])
def test_the_standard_error_divides_by_one_less_than_the_samples(products):
    matrix = rotated(np.linspace(-1, 5, 30), 1)
    signs = get_backend("numpy").probes(30, range(products), kind="sign", seed=4, domain="trace", dtype=np.float64)
    samples = np.einsum("ij,jk,ik->i", signs, matrix, signs)
    estimate = ls.trace(matrix, method="hutchinson", num_matvecs=products, seed=4)
    assert estimate.value == pytest.approx(samples.mean(), rel=1e-12)
    assert estimate.standard_error == pytest.approx(samples.std(ddof=1) / np.sqrt(products), rel=1e-10)


# -- 8: a tolerance for negative numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "hutchinson", "hutch++", "xtrace"])
@pytest.mark.parametrize("values", [np.linspace(1, 3, 400), 100 * 0.9 ** np.arange(400.0)], ids=["flat", "decaying"])
def test_a_tolerance_is_met_by_negative_traces_as_by_positive_ones(method, values):
    """The error is compared with a multiple of the mean itself, which a negative mean never satisfies."""
    matrix = rotated(values, 5)
    plus, minus = (ls.trace(sign * matrix, method=method, tol=0.05, num_matvecs=300) for sign in (1, -1))
    assert plus.num_matvecs == minus.num_matvecs < 300 and plus.converged and minus.converged
    assert minus.value == pytest.approx(-plus.value, rel=1e-12)


def test_a_tolerance_is_met_by_negative_log_determinants():
    values = np.linspace(1.5, 6, 5000)
    up, down = (ls.trace_function(ls.diagonal_operator(values), f, tol=0.01) for f in (np.log, lambda x: -np.log(x)))
    assert up.num_matvecs == down.num_matvecs and up.converged and down.converged
    assert down.value == pytest.approx(-up.value, rel=1e-12)
    below_one = ls.logdet(ls.diagonal_operator(values / 10), tol=0.02)
    assert below_one.converged and below_one.value < 0
    assert below_one.value == pytest.approx(np.log(values / 10).sum(), rel=0.03)


# -- 9: any function, every sample ------------------------------------------------------------------------------------------------


def test_any_callable_will_do():
    """An implicit operator is turned down, because the program wants entries."""
    from scipy.sparse.linalg import LinearOperator

    values = np.linspace(1, 2, 30)
    for a in (
        Counted(values).operator,
        LinearOperator((30, 30), matvec=lambda x: values * np.ravel(x), dtype=float),
        ls.aslinearoperator(lambda x: (values * x).tolist(), shape=(30, 30), dtype=float, hermitian=True),
    ):
        assert ls.trace(a).value == pytest.approx(values.sum())
        assert ls.logdet(a).value == pytest.approx(np.log(values).sum())


def test_no_sample_is_dropped():
    """Samples far from the others are left out of the mean, which is then not the trace."""
    v = np.zeros(500)
    v[:3] = np.sqrt(1e4 / 3)
    matrix = np.outer(v, v) + np.eye(500)
    estimate = ls.trace(matrix, method="hutchinson", num_matvecs=40, seed=1)
    signs = get_backend("numpy").probes(500, range(40), kind="sign", seed=1, domain="trace", dtype=np.float64)
    samples = np.einsum("ij,jk,ik->i", signs, matrix, signs)
    assert samples.max() > 2 * np.median(samples)
    assert estimate.value == pytest.approx(samples.mean(), rel=1e-12)


# -- 10: low rank; and what a tolerance means --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "hutch++", "xtrace", "xnystrace"])
def test_traces_of_low_rank(method):
    """Random vectors times a matrix of rank 5 are dependent, and a factorisation fails on them."""
    u = random_array((200, 5), np.float64, 0)
    exact = (u**2).sum()
    estimate = ls.trace(ls.aslinearoperator(u @ u.T), method=method, num_matvecs=60)
    assert estimate.value == pytest.approx(exact, rel=1e-10)
    assert estimate.confidence_interval(0.95)[0] <= exact <= estimate.confidence_interval(0.95)[1]


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_a_tolerance_is_the_half_width_of_the_interval(method):
    """The run ends when one more sample happens to change the running mean by little."""
    values = random_array((400,), np.float64, 2) + 0.15
    matrix = rotated(values, 2)
    for seed in range(3):
        estimate = ls.trace(matrix, method=method, tol=0.1, num_matvecs=399, seed=seed)
        low, high = estimate.confidence_interval(0.95)
        half = (high - low) / 2
        assert estimate.converged == (half <= 0.1 * abs(estimate.value)) or estimate.num_matvecs == 399
        assert abs(estimate.value - values.sum()) <= 2.5 * half
        # The running mean moves by less than the tolerance long before its interval is that narrow.
        assert estimate.num_matvecs > 30


# -- 11: clusters near the top -----------------------------------------------------------------------------------------------------


def test_a_narrow_triple_near_the_top_is_found_whole_from_every_start():
    """With a small subspace, one of three eigenvalues within 7e-7 of each other is passed over, and success is reported."""
    triple = 0.97 * (1 + 7e-7 * np.array([0.0, 0.5, 1.0]))
    values = np.r_[np.linspace(0, 0.9, 1490), [0.92, 0.93, 0.95, 0.96], triple, [0.98, 0.99, 1.0]]
    expected = np.sort(values)[-8:]
    for seed in range(10, 20):
        result = ls.eigsh(ls.diagonal_operator(values), 8, which="LA", tol=1e-6, max_basis=20, seed=seed)
        np.testing.assert_allclose(result.eigenvalues, expected, atol=2e-6)
        assert result.converged.all()


# -- 12: what a solver owes its user --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_residuals_are_relative_and_true(scale):
    """Residuals are compared with an absolute number, all at once, and are not returned."""
    values = scale * np.linspace(0, 1, 800) ** 2
    result = ls.eigsh(ls.diagonal_operator(values), 4, which="LA", tol=1e-7)
    residuals = np.linalg.norm(values[:, None] * result.eigenvectors - result.eigenvectors * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residual_norms, residuals, atol=1e-12 * scale)
    np.testing.assert_allclose(result.eigenvalues, values[-4:], rtol=1e-6)
    assert result.residual_norms.shape == result.converged.shape == (4,) and np.all(residuals <= 1e-7 * scale)


def test_starting_vectors_are_centred():
    """A start with entries between zero and one lies close to the constant vector, which may be an eigenvector."""
    seen = []
    ls.eigsh(ls.aslinearoperator(lambda x: seen.append(x.copy()) or OUTLIERS * x, shape=(2000, 2000), dtype=float, hermitian=True), 2)
    for x in (seen[0], ls.to_numpy(get_backend("numpy").probes(2000, range(1), kind="sphere", seed=0, domain="probe", dtype=float))[0]):
        assert abs(x.sum()) / np.linalg.norm(x) < 4  # a standard normal number; a uniform start has 39


def test_zero_residuals_and_smallest_modulus():
    """A residual of zero is divided by; and the smallest eigenvalues cannot be asked for."""
    for a, expected in ((ls.identity(100), [1, 1]), (0.0 * ls.identity(100), [0, 0]), (ls.low_rank(np.ones((100, 1)), [1.0]), [0, 100])):
        np.testing.assert_allclose(np.sort(ls.eigsh(a, 2).eigenvalues), expected, atol=1e-6)
    values = np.r_[np.linspace(-3, -0.5, 300), np.linspace(0.01, 4, 300)]
    np.testing.assert_allclose(ls.eigsh(ls.diagonal_operator(values), 2, which="SM").eigenvalues, np.sort(values)[300:302], atol=1e-5)


# -- 13: interior eigenvalues; exchange of arrays ---------------------------------------------------------------------------------


def test_interior_eigenvalues_need_no_other_solver(monkeypatch):
    """Interior eigenvalues are handed to another library on the CPU."""
    import scipy.sparse.linalg

    def refused(*args, **kwargs):
        raise AssertionError("another library's eigensolver was called")

    for name in ("eigsh", "eigs", "lobpcg", "svds"):
        monkeypatch.setattr(scipy.sparse.linalg, name, refused)
    values = np.linspace(-2, 3, 700)
    inside = ls.shift(Counted(values).operator, -1.0)  # what lies nearest to one
    expected = np.sort(values[np.argsort(np.abs(values - 1))[:3]])
    np.testing.assert_allclose(ls.eigsh(inside, 3, which="SM", tol=1e-8).eigenvalues + 1, expected, atol=1e-6)


class Foreign:
    """An array that speaks the current exchange protocol and no other."""

    def __init__(self, x):
        self._x, self.asked = x, []

    def __dlpack__(self, **options):
        self.asked.append(options)
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._x.__dlpack_device__()

    def to_dlpack(self):
        raise AssertionError("the old spelling was used")

    toDlpack = to_dlpack


def test_arrays_are_exchanged_by_the_current_protocol():
    """The exchange relies on a spelling that its own library has announced to remove."""
    foreign = Foreign(np.arange(4.0))
    np.testing.assert_array_equal(get_backend("numpy").from_dlpack(foreign), np.arange(4.0))
    assert foreign.asked
    torch = pytest.importorskip("torch")
    taken = get_backend("torch:cpu").from_dlpack(torch.arange(4.0))
    np.testing.assert_array_equal(ls.to_numpy(taken), np.arange(4.0))


# -- 14: densities of what is only a product ---------------------------------------------------------------------------------------


def test_a_density_from_a_bare_function_of_real_vectors():
    """The matrix has to be written down, and real matrices are multiplied with complex vectors."""
    n, k = 200_000, 20
    law = ls.random_matrices.Semicircle()
    counted = Counted(law.quantile((np.arange(n) + 0.5) / n))
    S = ls.spectral_density(counted.operator, num_steps=k, num_probes=2)
    assert counted.dtypes == {np.dtype(np.float64)} and counted.calls <= 2 * k + 2
    x = np.linspace(-1.8, 1.8, 37)
    for method in ("kpm", "gaussian", "maxent", "terminator", "pchip"):
        np.testing.assert_allclose(S.density(x, method=method), law.pdf(x), atol=0.025, err_msg=method)
