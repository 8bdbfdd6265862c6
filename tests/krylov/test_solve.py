"""Linear systems against dense LAPACK and SciPy, in every precision, and what has no solution."""

import time

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, data_file, eps, haar, random_array, rotated
from scipy import io
from scipy.sparse import linalg as sparse_linalg

import linop_spectra as ls
from linop_spectra.krylov.solve import solve

POSITIVE = np.linspace(1.0, 10.0, 60)
INDEFINITE = np.r_[np.linspace(-5, -1, 30), np.linspace(1, 10, 30)]
SINGULAR = np.r_[np.zeros(5), np.linspace(-5, -1, 30), np.linspace(1, 10, 25)]


def true_residuals(matrix, b, x):
    return np.atleast_1d(np.linalg.norm(b - matrix @ x, axis=0))


@pytest.mark.parametrize("columns", [None, 1, 3])
@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_dense(dtype, method, columns):
    matrix = rotated(POSITIVE, 0, dtype)
    b = random_array(60 if columns is None else (60, columns), dtype, 1)
    tol = 1e-10 if eps(dtype) < 1e-10 else 1e-5
    result = solve(matrix, b, method=method, tol=tol)
    wide = matrix.astype(np.complex128)
    assert result.x.shape == b.shape and result.x.dtype == dtype and result.method == method and result.status == "complete"
    assert result.converged.all() and not result.least_squares.any()
    size = np.atleast_1d(np.linalg.norm(b, axis=0))
    # The smallest eigenvalue is one: the error is at most the residual.
    error = np.atleast_1d(np.linalg.norm(np.linalg.solve(wide, b) - result.x, axis=0))
    assert np.all(error <= tol * size * (1 + 1e-3) + 20 * eps(dtype) * size)
    np.testing.assert_allclose(result.residual_norms, true_residuals(wide, b, result.x), rtol=0.02, atol=20 * eps(dtype) * size.max())
    np.testing.assert_array_equal(np.asarray(result), result.x)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend(name, dtype):
    backend = BACKENDS[name]()
    matrix = rotated(INDEFINITE, 3, dtype)
    b = random_array((60, 2), dtype, 4)
    operator = ls.aslinearoperator(matrix, backend=backend, hermitian=True)
    preconditioner = np.diag(np.linspace(1.0, 2.0, 60)).astype(dtype)
    for shift, method in ((0.0, "minres"), (6.0, "minres"), (6.0, "cg")):
        expected = np.linalg.solve(matrix + shift * np.eye(60), b)
        for options in ({}, {"preconditioner": preconditioner, "start": 0.9 * expected}):
            result = solve(operator, b, shift=shift, method=method, tol=1e-11, **options)
            np.testing.assert_allclose(backend.to_numpy(result.x), expected, atol=1e-8)
            assert result.converged.all()


@pytest.mark.parametrize("spectrum", [POSITIVE, INDEFINITE], ids=["positive", "indefinite"])
def test_as_scipy_does(spectrum):
    """The same Krylov method gives the same iterates: the residuals of SciPy's solvers after the same number of steps."""
    matrix, b = rotated(spectrum, 5), random_array(60, float, 6)
    methods = {"minres": sparse_linalg.minres} | ({"cg": sparse_linalg.cg} if spectrum is POSITIVE else {})
    for method, reference in methods.items():
        for steps in (1, 3, 8, 15):
            with pytest.warns(UserWarning, match="did not converge"):
                ours = solve(matrix, b, method=method, max_iterations=steps, tol=1e-14)
            assert ours.status == "max iterations" and ours.num_iterations == steps and not ours.converged.any()
            theirs, _ = reference(matrix, b, maxiter=steps, rtol=1e-14)
            np.testing.assert_allclose(ours.x, theirs, atol=1e-9)


def test_cg_ends_in_as_many_steps_as_there_are_distinct_eigenvalues():
    for distinct in (1, 2, 5, 9):
        matrix = rotated(np.repeat(np.linspace(1, 3, distinct), 12), 7)
        result = solve(matrix, random_array(len(matrix), float, 8), method="cg", tol=1e-10)
        assert result.num_iterations == distinct and result.converged.all()


def test_the_residual_of_minres_never_grows():
    matrix, b = rotated(INDEFINITE, 9), random_array((60, 2), float, 10)
    result = solve(matrix, b, method="minres", tol=1e-11)
    history = result.history
    assert history.shape == (result.num_iterations + 1, 2)
    np.testing.assert_allclose(history[0], np.linalg.norm(b, axis=0))
    assert np.all(np.diff(history, axis=0)[~np.isnan(np.diff(history, axis=0))] <= 1e-12)
    # The recurrence tells the truth: it is the distance of b from A K_k(A, b), found by dense least squares.
    krylov = b[:, :1] / np.linalg.norm(b[:, 0])
    for step in range(1, 8):
        products = matrix @ krylov
        best = np.linalg.lstsq(products, b[:, 0])[0]
        assert history[step, 0] == pytest.approx(np.linalg.norm(b[:, 0] - products @ best), rel=1e-6)
        krylov = np.linalg.qr(np.c_[krylov, products[:, -1]])[0]


def test_a_block_equals_its_columns():
    matrix, b = rotated(INDEFINITE, 11), random_array((60, 4), float, 12)
    b[:, 2] = matrix @ b[:, 2] * 1e3  # columns of other sizes that need other numbers of steps
    b[:, 3] = np.linalg.eigh(matrix)[1][:, 3]
    together = solve(matrix, b, tol=1e-10)
    for column in range(4):
        alone = solve(matrix, b[:, column], tol=1e-10)
        np.testing.assert_allclose(together.x[:, column], alone.x, atol=1e-10 * np.linalg.norm(alone.x))
    assert np.isnan(together.history[5:, 3]).all()  # an eigenvector is done in one step, and costs no more products
    assert together.num_matvecs < 4 * together.num_iterations


def test_a_preconditioner_saves_steps():
    rng = np.random.default_rng(13)
    scale = 10.0 ** rng.uniform(-2, 2, 60)
    matrix = rotated(POSITIVE, 14) * np.outer(scale, scale)
    b = random_array(60, float, 15)
    jacobi = 1 / np.diag(matrix)
    exact = np.linalg.solve(matrix, b)
    for method in ("cg", "minres"):
        plain = solve(matrix, b, method=method, tol=1e-9, max_iterations=3000)
        for preconditioner in (np.diag(jacobi), ls.diagonal_operator(jacobi), lambda x: jacobi * x):
            fast = solve(matrix, b, method=method, tol=1e-9, preconditioner=preconditioner)
            assert fast.converged.all() and fast.num_iterations < plain.num_iterations / 2
            assert np.linalg.norm(b - matrix @ fast.x) <= 1.001e-9 * np.linalg.norm(b)
            np.testing.assert_allclose(fast.x, exact, rtol=0.1, atol=1e-5 * np.abs(exact).max())
    # The inverse itself needs one step.
    inverse = np.linalg.inv(matrix)
    inverse = (inverse + inverse.T) / 2
    for method in ("cg", "minres"):
        assert solve(matrix, b, method=method, preconditioner=inverse, tol=1e-6).num_iterations == 1


def test_the_residual_with_a_preconditioner_is_that_of_the_recurrence():
    matrix, weights = rotated(INDEFINITE, 16), np.linspace(0.5, 4, 60)
    b = random_array((60, 2), float, 17)
    for steps in (1, 4, 10):
        with pytest.warns(UserWarning, match="did not converge"):
            result = solve(matrix, b, preconditioner=np.diag(weights), max_iterations=steps, tol=1e-13)
        np.testing.assert_allclose(result.history[-1], true_residuals(matrix, b, result.x), rtol=1e-9)


def test_what_auto_chooses():
    diagonal = ls.diagonal_operator(POSITIVE)
    b = np.ones(60)
    assert solve(diagonal, b).method == "cg"
    assert solve(diagonal, b, shift=2.0).method == "cg"
    assert solve(diagonal, b, shift=-1.05).method == "minres"
    assert solve(rotated(POSITIVE), b).method == "minres"  # nobody said that it is positive definite

    class Wrong(ls.LinearOperator):
        def _matmat(self, x):
            return INDEFINITE[:, None] * x

    wrong = Wrong((60, 60), float, hermitian=True, positive_semidefinite=True)
    result = solve(wrong, b)
    assert result.method == "minres" and result.converged.all()
    np.testing.assert_allclose(result.x, 1 / INDEFINITE, atol=1e-7)
    with pytest.raises(ValueError, match=r"negative curvature.*not positive definite.*minres"):
        solve(wrong, b, method="cg")


@pytest.mark.parametrize("shift", [0.0, 0.5, -3.3, 7.0])
def test_shifts(shift):
    matrix, b = rotated(INDEFINITE, 18), random_array(60, float, 19)
    result = solve(matrix, b, shift=shift, tol=1e-11)
    np.testing.assert_allclose(result.x, np.linalg.solve(matrix + shift * np.eye(60), b), atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_singular_but_consistent(dtype):
    matrix = rotated(SINGULAR, 20, dtype)
    b = (matrix.astype(np.complex128) @ random_array((60, 2), np.complex128, 21)).astype(np.complex128)
    b = (b if np.dtype(dtype).kind == "c" else b.real).astype(dtype)
    tol = 1e-9 if eps(dtype) < 1e-10 else 1e-4
    result = solve(matrix, b, tol=tol)
    assert result.converged.all() and not result.least_squares.any()
    # From a zero guess it is the solution of least norm.
    expected = np.linalg.pinv(matrix.astype(np.complex128), rcond=1e-4) @ b
    np.testing.assert_allclose(result.x, expected, atol=10 * tol * np.linalg.norm(b))
    semidefinite = ls.diagonal_operator(np.r_[np.zeros(5), POSITIVE])
    b = np.r_[np.zeros(5), np.ones(60)]
    assert solve(semidefinite, b).method == "cg" and solve(semidefinite, b).converged.all()


@pytest.mark.parametrize("spectrum", [SINGULAR, np.r_[np.zeros(5), np.linspace(1, 10, 55)], np.r_[0, np.geomspace(1e-3, 1, 59)]], ids=str)
def test_singular_and_inconsistent(spectrum):
    """MINRES ends at a vector of least residual; conjugate gradients hand over to it."""
    q = haar(60, 22)
    matrix = (q * spectrum) @ q.T
    matrix = (matrix + matrix.T) / 2
    b = random_array((60, 2), float, 23)
    least = np.linalg.norm(q[:, spectrum == 0].T @ b, axis=0)
    for operator in (matrix, ls.diagonal_operator(spectrum)):
        right = b if operator is matrix else q.T @ b
        with pytest.warns(UserWarning, match=r"singular.*least residual"):
            result = solve(operator, right)
        assert result.method == "minres" and result.least_squares.all() and not result.converged.any()
        assert result.status == "stagnated"
        np.testing.assert_allclose(result.residual_norms, least, rtol=1e-6)
        np.testing.assert_allclose(true_residuals(operator, right, np.asarray(result)), least, rtol=1e-6)


def test_an_ill_conditioned_system_is_not_called_singular():
    matrix = rotated(np.geomspace(1e-6, 1, 80), 24)
    result = solve(matrix, random_array(80, float, 25), tol=1e-6, max_iterations=20000)
    assert result.converged.all() and not result.least_squares.any()


def test_what_rounding_does_not_allow_is_marked():
    matrix = rotated(np.geomspace(1e-6, 1, 60), 26, np.float32)
    b = random_array(60, np.float32, 27)
    with pytest.warns(UserWarning, match="did not converge"):
        result = solve(matrix, b, method="minres", tol=1e-7, max_iterations=3000)
    assert not result.converged.any()
    residual = np.linalg.norm(b.astype(float) - matrix.astype(float) @ result.x.astype(float))
    np.testing.assert_allclose(result.residual_norms, residual, rtol=0.1)
    assert residual <= np.linalg.norm(b)  # never worse than no solution at all


def test_zero_and_identity():
    zero, one = ls.diagonal_operator(np.zeros(20)), ls.identity(20)
    b = random_array((20, 2), float, 28)
    b[:, 1] = 0
    result = solve(one, b)
    np.testing.assert_allclose(result.x, b, atol=1e-15)
    assert result.num_iterations == 1 and result.converged.all()
    result = solve(one, b, start=b + 1)
    np.testing.assert_array_equal(result.x[:, 1], 0)  # whatever the guess
    np.testing.assert_allclose(result.x, b, atol=1e-14)
    with pytest.warns(UserWarning, match="no solution"):
        result = solve(zero, b)
    np.testing.assert_array_equal(result.x, 0)
    assert result.converged.tolist() == [False, True] and result.least_squares.tolist() == [True, False]
    assert solve(zero, np.zeros(20)).converged.all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_orders(n):
    matrix = rotated(np.linspace(-1, 2, n) if n > 1 else np.array([3.0]), 29)
    matrix += 0.1 * np.eye(n)
    b = np.ones(n)
    np.testing.assert_allclose(solve(matrix, b, tol=1e-13).x, np.linalg.solve(matrix, b), atol=1e-11)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_extreme_scales(scale):
    matrix, b = rotated(POSITIVE, 30), random_array(60, float, 31)
    exact = np.linalg.solve(matrix, b)
    for method in ("cg", "minres"):
        np.testing.assert_allclose(solve(matrix * scale, b, method=method).x * scale, exact, atol=1e-6)
        np.testing.assert_allclose(solve(matrix, b * scale, method=method).x / scale, exact, atol=1e-6)


def test_a_start_is_used_and_kept():
    matrix, b = rotated(INDEFINITE, 32), random_array((60, 2), float, 33)
    exact = np.linalg.solve(matrix, b)
    near = exact + 1e-6 * random_array((60, 2), float, 34)
    kept = near.copy()
    warm = solve(matrix, b, start=near)
    np.testing.assert_array_equal(near, kept)
    assert warm.num_iterations < solve(matrix, b).num_iterations / 1.5
    np.testing.assert_allclose(warm.x, exact, atol=1e-6)
    assert solve(matrix, b, start=exact).num_iterations == 0


def test_a_complex_right_hand_side_of_a_real_operator():
    matrix = rotated(INDEFINITE, 35)
    for shape in (60, (60, 2)):
        b = random_array(shape, np.complex128, 36)
        result = solve(matrix, b, tol=1e-11)
        assert result.x.dtype == np.complex128 and result.converged.shape == (1 if shape == 60 else 2,)
        np.testing.assert_allclose(result.x, np.linalg.solve(matrix, b), atol=1e-8)
        np.testing.assert_allclose(result.residual_norms, true_residuals(matrix, b, result.x), atol=1e-12)


@pytest.mark.parametrize("name", ["bcsstk09", "nos3-banner", "lund_a", "494_bus"])
def test_real_matrices(name):
    matrix = io.mmread(data_file("matrices", f"{name}.mtx.gz")).tocsr()
    n = matrix.shape[0]
    expected = np.sin(np.arange(n) + 1.0)
    b = matrix @ expected
    jacobi = ls.diagonal_operator(1 / matrix.diagonal())
    for method in ("cg", "minres"):
        result = solve(matrix, b, method=method, preconditioner=jacobi, tol=1e-10)
        assert result.converged.all() and result.num_iterations <= (450 if n < 600 else 350)
        assert np.linalg.norm(b - matrix @ result.x) <= 1.001e-10 * np.linalg.norm(b)
        condition = np.linalg.cond(matrix.toarray()) if n < 600 else 1e5
        assert np.linalg.norm(result.x - expected) <= 1e-10 * condition * np.linalg.norm(expected)


def test_wrong_arguments():
    matrix, b = rotated(POSITIVE), np.ones(60)
    with pytest.raises(ValueError, match=r"argument b must have shape \(60,\) or \(60, j\)"):
        solve(matrix, np.ones(59))
    with pytest.raises(ValueError, match="argument method is 'gmres'"):
        solve(matrix, b, method="gmres")
    with pytest.raises(ValueError, match="argument shift"):
        solve(matrix, b, shift=1j)
    with pytest.raises(ValueError, match="argument tol"):
        solve(matrix, b, tol=2.0)
    with pytest.raises(ValueError, match="argument max_iterations"):
        solve(matrix, b, max_iterations=0)
    with pytest.raises(ValueError, match="start and b must have the same shape"):
        solve(matrix, b, start=np.ones((60, 1)))
    with pytest.raises(ValueError, match="argument b holds NaN"):
        solve(matrix, np.full(60, np.nan))
    with pytest.raises(ValueError, match="solve needs a Hermitian"):
        solve(np.triu(np.ones((60, 60))), b)
    with pytest.raises(ValueError, match="argument preconditioner has shape"):
        solve(matrix, b, preconditioner=np.eye(3))
    for method in ("cg", "minres"):
        with pytest.raises(ValueError, match="preconditioner is not positive definite"):
            solve(matrix, b, method=method, preconditioner=-np.eye(60))
    with pytest.raises(ValueError, match="preconditioner of solve needs a Hermitian"):
        solve(matrix, b, preconditioner=np.triu(np.ones((60, 60))))


class Failing(ls.LinearOperator):
    """A diagonal operator whose product number `at` does something else."""

    def __init__(self, at, action):
        super().__init__((60, 60), float, hermitian=True)
        self.left, self.action = at, action

    def _matmat(self, x):
        self.left -= 1
        return self.action() if self.left == 0 else POSITIVE[:, None] * x


def _raise(kind):
    raise kind("the device is gone")


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_interruptions_keep_what_there_is(method):
    b = np.ones(60)
    result = solve(Failing(12, lambda: _raise(KeyboardInterrupt)), b, method=method)
    assert result.status == "interrupted" and not result.converged.any() and result.num_iterations == 10
    np.testing.assert_allclose(result.residual_norms, true_residuals(np.diag(POSITIVE), b, result.x), rtol=1e-6)
    with pytest.raises(KeyboardInterrupt):
        solve(Failing(1, lambda: _raise(KeyboardInterrupt)), b, method=method)
    with pytest.raises(ls.LanczosInterrupted, match=r"iteration 11.*the device is gone.*\.partial") as caught:
        solve(Failing(12, lambda: _raise(OSError)), b, method=method)
    assert caught.value.step == 10 and np.linalg.norm(b - POSITIVE * caught.value.partial.x) < 0.1 * np.linalg.norm(b)
    with pytest.raises(OSError, match="the device is gone"):
        solve(Failing(1, lambda: _raise(OSError)), b, method=method)
    with pytest.raises(ls.NonFiniteProductError, match=r"NaN or infinity.*\.partial"):
        solve(Failing(12, lambda: np.full((60, 1), np.nan)), b, method=method)
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        solve(Failing(1, lambda: np.full((60, 1), np.inf)), b, method=method)


def test_time_budget_and_progress():
    def slow(x):
        time.sleep(0.004)
        return np.geomspace(1e-3, 1, 300) * x

    operator = ls.aslinearoperator(slow, shape=(300, 300), dtype=float, hermitian=True)
    began = time.perf_counter()
    result = solve(operator, np.ones(300), time_budget=0.1)
    assert time.perf_counter() - began < 0.5 and result.status == "time budget" and not result.converged.any()
    np.testing.assert_allclose(result.residual_norms, np.linalg.norm(1 - np.geomspace(1e-3, 1, 300) * result.x), rtol=1e-9)
    calls = []
    done = solve(rotated(POSITIVE), np.ones(60), progress=lambda step, total: calls.append((step, total)))
    assert calls[-1] == (done.num_iterations, 600)


def test_saved_and_loaded(tmp_path):
    result = solve(rotated(POSITIVE), np.ones(60))
    result.save(tmp_path / "x.npz")
    again = ls.load(tmp_path / "x.npz")
    np.testing.assert_array_equal(again.x, result.x)
    assert again.method == result.method and again.num_matvecs == result.num_matvecs and "minres" in result._repr_html_()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_complex_right_hand_side_on_every_backend(name):
    backend = BACKENDS[name]()
    matrix, b = rotated(POSITIVE, 37), random_array(60, np.complex64, 38)
    result = solve(ls.aslinearoperator(matrix, backend=backend), b, tol=1e-11)
    np.testing.assert_allclose(backend.to_numpy(result.x), np.linalg.solve(matrix, b.astype(complex)), atol=1e-9)
