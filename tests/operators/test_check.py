"""The self-check must pass what is right and catch what is wrong."""

import numpy as np
import pytest
from helpers import DTYPES, random_array, rotated

import linop_spectra as ls
from linop_spectra.operators import require_hermitian

N = 80


def operator(function, dtype=np.float64, hermitian=True):
    return ls.aslinearoperator(function, shape=(N, N), dtype=dtype, hermitian=hermitian)


def hessian_at(theta):
    """Hessian of sum(theta^4) / 12 + (sum theta)^2 / 2."""
    return np.diag(theta**2) + np.ones((len(theta),) * 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_right_operator_passes_in_every_precision_and_size(dtype, scale):
    for seed in range(5):
        matrix = (scale * rotated(np.r_[np.linspace(-1, 1, N - 1), 50.0], 0, dtype)).astype(dtype)
        check = ls.check_operator(ls.aslinearoperator(matrix, hermitian=True), seed=seed)
        assert check.passed and check.finite and check.symmetry_error < check.tolerance and check.adjoint_error is None, str(check)
    assert ls.check_operator(random_array((N, N), dtype, 1)).adjoint_error is not None


def test_zero_and_identity_pass():
    assert ls.check_operator(ls.diagonal_operator(np.zeros(5))).passed and ls.check_operator(ls.identity(1)).passed
    assert ls.check_operator(np.ones((3, 7))).passed


def fails(function, reason, dtype=np.float64, hermitian=True):
    check = ls.check_operator(operator(function, dtype, hermitian))
    errors = {
        "finite": not check.finite,
        "determinism": check.determinism_error > check.tolerance,
        "linearity": check.linearity_error > check.tolerance,
        "symmetry": (check.symmetry_error or 0) > check.tolerance,
    }
    assert not check.passed and errors[reason], str(check)
    assert "FAILED" in str(check) and "FAILED" in check._repr_html_()


H = rotated(np.linspace(-1, 2, N))


def test_not_linear():
    fails(lambda x: H @ x + 1e-6, "linearity")
    fails(lambda x: H @ np.abs(x), "linearity")
    fails(lambda x: H @ np.maximum(x, -2.5), "linearity")
    fails(lambda x: H @ x * np.linalg.norm(x), "linearity")


def test_not_deterministic():
    rng = np.random.default_rng(0)
    fails(lambda x: H @ (x * (rng.random(N) < 0.9)), "determinism")  # dropout
    fails(lambda x: H @ x * (1 + 1e-6 * rng.standard_normal()), "determinism")


def test_not_symmetric():
    skew = random_array((N, N), np.float64, 1)
    for size in (1.0, 1e-3, 1e-6):
        fails(lambda x, size=size: (H + size * skew) @ x, "symmetry")
    complex_symmetric = random_array((N, N), np.complex128, 2)
    complex_symmetric = complex_symmetric + complex_symmetric.T
    fails(lambda x: complex_symmetric @ x, "symmetry", np.complex128)


def test_not_finite():
    fails(lambda x: H @ x * np.nan, "finite")
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        fails(lambda x: np.where(x > 1, np.inf, x), "finite")


def test_a_wrong_adjoint():
    class Wrong(ls.LinearOperator):
        def _matmat(self, x):
            return np.cumsum(x, axis=0)

        def _rmatmat(self, x):
            return np.cumsum(x, axis=0)

    check = ls.check_operator(Wrong((N, N), float))
    assert not check.passed and check.adjoint_error > check.tolerance and check.symmetry_error is None


def test_the_hessian_at_the_vector_instead_of_the_parameters_is_caught():
    """A bug of published code: v -> H(v) v, quadratic where the Hessian is, and a fixed point of every symmetry test at v = theta."""
    theta = np.linspace(0.5, 1.5, N)
    assert ls.check_operator(operator(lambda x: hessian_at(theta) @ x)).passed
    fails(lambda x: hessian_at(x) @ x, "linearity")


def test_a_derivative_that_is_not_one_fails_by_finite_differences():
    class Derivative(ls.LinearOperator):
        def __init__(self, error):
            self.error = error
            super().__init__((3, 3), float, hermitian=True)

        def _matmat(self, x):
            return 2 * x

        def derivative_error(self, seed=0):
            return self.error

    assert ls.check_operator(Derivative(1e-7)).passed
    check = ls.check_operator(Derivative(0.3))
    assert not check.passed and check.finite_difference_error == 0.3
    assert ls.check_operator(Derivative(0.3), finite_differences=False).passed


def test_require_hermitian():
    require_hermitian(ls.aslinearoperator(H), "This")
    require_hermitian(operator(lambda x: H @ x, hermitian=None), "This")
    with pytest.raises(ValueError, match="This needs a square Hermitian operator"):
        require_hermitian(ls.aslinearoperator(np.ones((2, 3))), "This")
    with pytest.raises(ValueError, match="its attribute hermitian is False"):
        require_hermitian(ls.aslinearoperator(np.triu(np.ones((3, 3)))), "This")
    skew = H + 1e-5 * random_array((N, N), np.float64, 1)
    with pytest.raises(ValueError, match=r"two random products of this one disagree.*Pass the symmetric part"):
        require_hermitian(operator(lambda x: skew @ x, hermitian=None), "This")
    with pytest.raises(ValueError, match="disagree"):
        require_hermitian(operator(lambda x: np.nan * x, hermitian=None), "This")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "eigenvalues",
    [np.linspace(-1, 1, N), np.r_[np.full(N - 1, 1e-6), 1e3], 10.0 ** np.linspace(-10, 5, N)],
    ids=["flat", "spike", "graded"],
)
def test_a_hermitian_operator_is_never_turned_away(eigenvalues, dtype):
    matrix = rotated(eigenvalues, 3, dtype)
    for seed in range(20):
        require_hermitian(operator(lambda x: matrix @ x, dtype, None), "This", seed=seed)
