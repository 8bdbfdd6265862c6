"""Approximations by name: what every kind has, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import rotated

import linop_spectra as ls
from linop_spectra.approximations import Approximation, approximate

OF_A_MATRIX = {"diagonal": {}, "scalar": {}, "block": {"partition": 3}, "low_rank": {"rank": 2}, "low_rank_plus_diagonal": {"rank": 2}}
OF_AN_OBJECTIVE = ("squared_gradients", "ggn_mc", "kfac", "ekfac")


def objective():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    return ls.objective(model, "cross_entropy", (torch.randn(9, 3).double(), torch.randint(0, 2, (9,))))


@pytest.mark.parametrize("kind", OF_A_MATRIX)
def test_every_kind_of_a_matrix(kind):
    matrix = rotated(np.linspace(1, 4, 9))
    approximation = approximate(matrix, kind, **OF_A_MATRIX[kind])
    assert isinstance(approximation, Approximation) and approximation.kind == kind
    assert approximation.shape == (9, 9) and approximation.hermitian and approximation.seconds >= 0
    assert approximation.num_matvecs == 0
    dense = approximation.to_dense()
    assert approximation.num_matvecs == 9 and ls.check_operator(approximation).passed
    np.testing.assert_allclose(approximation.solve(dense[:, 0] + 0.5 * np.eye(9)[0], damping=0.5), np.eye(9)[0], atol=1e-12)
    assert kind in repr(approximation).splitlines()[0]


@pytest.mark.parametrize("kind", [*OF_A_MATRIX, *OF_AN_OBJECTIVE])
def test_every_kind_of_an_objective(kind):
    options = {} if kind == "block" else OF_A_MATRIX.get(kind, {})
    approximation = approximate(objective(), kind, **options)
    assert approximation.shape == (26, 26) and approximation.kind == kind
    b = np.random.default_rng(0).standard_normal(26)
    x = approximation.solve(b, damping=1.0)
    np.testing.assert_allclose(approximation @ x + x, b, atol=1e-9)


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher"])
def test_choice_of_the_matrix(matrix):
    own = objective()
    dense = np.asarray(getattr(own, matrix)().to_dense())
    np.testing.assert_allclose(approximate(own, "diagonal", matrix=matrix).diagonal, np.diag(dense), atol=1e-13)


def test_unknown_kind():
    with pytest.raises(ValueError, match="The argument kind is 'digonal', but must be one of 'diagonal'"):
        approximate(np.eye(3), "digonal")


@pytest.mark.parametrize("kind, option", [("diagonal", "rank"), ("low_rank", "partition"), ("block", "method")])
def test_unknown_option(kind, option):
    with pytest.raises(TypeError, match=f"The kind '{kind}' has no option '{option}'; it takes "):
        approximate(np.eye(3), kind, **{option: 3})


def test_unknown_method():
    with pytest.raises(ValueError, match="The argument method is 'exakt'"):
        approximate(np.eye(3), "diagonal", method="exakt")


@pytest.mark.parametrize("kind", OF_AN_OBJECTIVE)
def test_kinds_that_need_an_objective(kind):
    with pytest.raises(TypeError, match="must be an Objective, but it is a ndarray"):
        approximate(np.eye(3), kind)


def test_wrong_matrices():
    with pytest.raises(ValueError, match="chooses a matrix of an objective"):
        approximate(np.eye(3), "diagonal", matrix="hessian")
    with pytest.raises(ValueError, match="must be one of 'hessian', 'ggn', 'fisher'"):
        approximate(objective(), "diagonal", matrix="jacobian")
    with pytest.raises(ValueError, match="needs a Hermitian"):
        approximate(np.triu(np.ones((3, 3))), "diagonal")
    with pytest.raises(ValueError, match="needs a square"):
        approximate(np.ones((3, 2)), "diagonal")


def test_a_matrix_that_is_symmetric_up_to_rounding():
    """A product of factors is, and is read all the same."""
    a = np.random.default_rng(0).standard_normal((30, 30))
    q = np.linalg.qr(a)[0]
    matrix = (q * np.linspace(1, 2, 30)) @ q.T
    assert not np.array_equal(matrix, matrix.T)
    operator = ls.aslinearoperator(matrix, hermitian=True)
    assert approximate(operator, "diagonal").source_matvecs == 0


@pytest.mark.parametrize("kind", OF_A_MATRIX)
def test_order_one_zero_and_identity(kind):
    options = {"partition": 1} if kind == "block" else {"rank": 1} if "rank" in kind else {}
    one = approximate([[3.0]], kind, **options)
    np.testing.assert_allclose(one.solve([6.0], damping=0.0), [2.0])
    zero = approximate(np.zeros((4, 4)), kind, **options)
    np.testing.assert_allclose(zero.solve(np.ones(4), damping=0.25), np.full(4, 4.0))
    same = approximate(ls.identity(4), kind, **options)
    # A pair of a multiple eigenvalue is an arbitrary direction: its outer product has entries off the diagonal.
    if kind == "low_rank_plus_diagonal":
        np.testing.assert_allclose(same.diagonal, np.ones(4), atol=1e-12)
    elif kind != "low_rank":
        np.testing.assert_allclose(same.to_dense(), np.eye(4), atol=1e-12)


def test_nan_in_the_matrix():
    matrix = np.eye(3)
    matrix[1, 1] = np.nan
    with pytest.raises(FloatingPointError):
        approximate(ls.aslinearoperator(lambda x: matrix @ x, shape=(3, 3), dtype=float, hermitian=True), "diagonal")


def test_no_framework_is_imported():
    code = (
        "import sys, linop_spectra.approximations as a, numpy as np\n"
        "a.critique(np.diag([1., 2., 3.]), a.approximate(np.diag([1., 2., 3.]), 'diagonal'))\n"
        "assert not {'torch', 'jax', 'tensorflow', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
