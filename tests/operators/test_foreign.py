"""Arrays, sparse tensors and operators of other libraries, and what is said of an operator besides."""

import os
import warnings

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sla
from helpers import random_array, rotated

import linop_spectra as ls

H = rotated(np.linspace(-1, 2, 12))
X = random_array((12, 3), np.float64, 1)


# -- arrays of other libraries ---------------------------------------------------------------------------------------------


def test_host_arrays_are_not_copied():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(H)
    assert np.shares_memory(ls.aslinearoperator(tensor).matrix, tensor.numpy())
    assert np.shares_memory(ls.aslinearoperator(H).matrix, H)
    assert ls.aslinearoperator(tensor, backend="torch").matrix.data_ptr() == tensor.data_ptr()
    jnp = pytest.importorskip("jax.numpy")
    array = jnp.asarray(H, dtype=jnp.float32)
    assert np.shares_memory(ls.aslinearoperator(array).matrix, np.asarray(array))
    frozen = H.copy()
    frozen.flags.writeable = False
    np.testing.assert_allclose(ls.aslinearoperator(frozen) @ X, H @ X)


class Table:
    """Something that NumPy makes an array of, as data frames are."""

    shape = (12, 12)

    def __array__(self, dtype=None, copy=None):
        return H if dtype is None else H.astype(dtype)

    def __matmul__(self, other):
        raise AssertionError("a table is not an operator")


def test_tables_are_arrays():
    operator = ls.aslinearoperator(Table())
    np.testing.assert_allclose(operator @ X, H @ X)
    assert operator.hermitian is True


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc"])
def test_sparse_tensors(layout, backend):
    torch = pytest.importorskip("torch")
    wide = torch.tensor(np.where(np.abs(H) > 0.1, H, 0.0)[:6])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
        tensor = {
            "coo": wide.to_sparse_coo,
            "csr": wide.to_sparse_csr,
            "csc": wide.to_sparse_csc,
            "bsr": lambda: wide.to_sparse_bsr((2, 2)),
            "bsc": lambda: wide.to_sparse_bsc((2, 2)),
        }[layout]()
    operator = ls.aslinearoperator(tensor, backend=backend)
    np.testing.assert_allclose(ls.to_numpy(operator @ X), wide.numpy() @ X, atol=1e-13)
    np.testing.assert_allclose(ls.to_numpy(operator.H @ X[:6]), wide.numpy().T @ X[:6], atol=1e-13)
    # On a machine with a device "torch" keeps a tensor where it is.
    assert isinstance(operator @ X, torch.Tensor if backend else np.ndarray) and "sparse" in repr(operator)
    assert ls.aslinearoperator(torch.tensor(H).to_sparse_coo(), backend=backend).hermitian is True


def test_a_sparse_matrix_with_nan_says_so_when_it_is_multiplied():
    matrix = np.diag(np.arange(12.0))
    matrix[2, 2] = np.nan
    operator = ls.aslinearoperator(sparse.csr_array(matrix))
    assert operator.hermitian is True
    with pytest.raises(ls.NonFiniteProductError):
        ls.lanczos(operator, 4)
    matrix[0, 1] = 1
    assert ls.aslinearoperator(sparse.csr_array(matrix)).hermitian is False


# -- operators of other libraries ------------------------------------------------------------------------------------------


class LikePyLops:
    """The interface of a PyLops operator: blocks and vectors, forward and adjoint."""

    def __init__(self, matrix):
        self.A, self.shape, self.dtype = matrix, matrix.shape, str(matrix.dtype)

    def matvec(self, x):
        return self.A @ x

    def rmatvec(self, x):
        return self.A.conj().T @ x

    def matmat(self, x):
        return np.vstack([self.matvec(column.reshape(-1)) for column in x.T]).T

    def rmatmat(self, x):
        return np.vstack([self.rmatvec(column.reshape(-1)) for column in x.T]).T


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_operators_like_those_of_pylops(dtype):
    matrix = random_array((5, 12), dtype, 0)
    operator = ls.aslinearoperator(LikePyLops(matrix))
    assert operator.dtype == dtype and operator.hermitian is False
    np.testing.assert_allclose(operator @ X, matrix @ X, atol=1e-13)
    np.testing.assert_allclose(operator.H @ X[:5], matrix.conj().T @ X[:5], atol=1e-13)
    assert operator.matmat(X[:, :0]).shape == (5, 0)
    assert ls.check_operator(operator).passed


def test_pylops_itself(monkeypatch):
    monkeypatch.setitem(os.environ, "CUPY_PYLOPS", "0")
    pylops = pytest.importorskip("pylops", exc_type=ImportError)
    matrix = random_array((8, 12), np.float64, 0)
    inner = pylops.MatrixMult(matrix)
    operator = ls.aslinearoperator(inner.H @ inner, hermitian=True)
    np.testing.assert_allclose(operator @ X, matrix.T @ (matrix @ X), atol=1e-12)
    largest = np.linalg.norm(matrix, 2) ** 2
    assert ls.eigsh(operator, 1, which="LA", tol=1e-10).eigenvalues[0] == pytest.approx(largest)
    derivative = pylops.SecondDerivative(30, dtype="float64")
    np.testing.assert_allclose(ls.aslinearoperator(derivative).to_dense(), derivative.todense(), atol=1e-14)
    assert ls.check_operator(derivative).passed


def like_curvlinops(matrix, self_adjoint):
    """The interface of a curvlinops operator: torch tensors of its own type and device only, through ``@``."""
    torch = pytest.importorskip("torch")

    class Operator:
        SELF_ADJOINT = self_adjoint

        def __init__(self, tensor):
            self.tensor, self.shape, self.dtype, self.device = tensor, tuple(tensor.shape), tensor.dtype, tensor.device

        def __matmul__(self, x):
            if not isinstance(x, torch.Tensor) or x.dtype != self.dtype:
                raise ValueError(f"Input must be tensor or list of tensors. Got {type(x)}.")
            product = self.tensor @ x
            x.zero_()  # spoils its argument, which must do no harm
            return product

        def adjoint(self):
            return Operator(self.tensor.conj().T.resolve_conj())

    return Operator(torch.tensor(matrix) if isinstance(matrix, np.ndarray) else matrix)


@pytest.mark.parametrize("backend", [None, "torch:cpu"])
def test_operators_like_those_of_curvlinops(backend):
    torch = pytest.importorskip("torch")
    operator = ls.aslinearoperator(like_curvlinops(H, True), backend=backend)
    assert operator.hermitian is True and operator.dtype == np.float64
    product = operator @ X
    assert isinstance(product, torch.Tensor if backend else np.ndarray)
    np.testing.assert_allclose(ls.to_numpy(product), H @ X, atol=1e-13)
    np.testing.assert_allclose(np.sort(ls.lanczos(operator, 12).ritz_values[0]), np.linspace(-1, 2, 12), atol=1e-10)
    wide = ls.aslinearoperator(like_curvlinops(H[:5] * (1 + 1j), False), backend=backend)
    assert wide.hermitian is False and wide.dtype == np.complex128
    np.testing.assert_allclose(ls.to_numpy(wide.H @ X[:5]), ((1 + 1j) * H[:5]).conj().T @ X[:5], atol=1e-13)


def test_an_operator_in_bfloat16_works_in_single_precision():
    torch = pytest.importorskip("torch")
    operator = ls.aslinearoperator(like_curvlinops(torch.tensor(H, dtype=torch.bfloat16), True))
    assert operator.dtype == np.float32 and operator.unit_rounding == 2.0**-7
    np.testing.assert_allclose(operator @ X, H @ X, atol=0.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what its own dependencies use
def test_curvlinops_itself():
    curvlinops = pytest.importorskip("curvlinops", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    data = (torch.randn(20, 4, dtype=torch.float64), torch.randint(0, 3, (20,)))
    inner = curvlinops.HessianLinearOperator(
        model, torch.nn.CrossEntropyLoss(), list(model.parameters()), [data], check_deterministic=False
    )
    theirs = ls.aslinearoperator(inner)
    assert theirs.hermitian is True
    ours = ls.objective(model, "cross_entropy", data).hessian()
    np.testing.assert_allclose(theirs.to_dense(), ours.to_dense(), atol=1e-12)


def test_scipy_operators_serve_other_backends_through_the_host():
    pytest.importorskip("torch")
    operator = ls.aslinearoperator(sla.aslinearoperator(H), backend="torch:cpu", hermitian=True)
    np.testing.assert_allclose(ls.to_numpy(operator @ X), H @ X, atol=1e-13)


# -- what is said of an operator -------------------------------------------------------------------------------------------


def test_what_was_not_known_can_be_declared():
    unknown = ls.aslinearoperator(lambda x: H @ x, shape=(12, 12), dtype=float)
    declared = ls.aslinearoperator(unknown, hermitian=True)
    assert unknown.hermitian is None and declared.hermitian is True
    np.testing.assert_allclose(declared.H @ X, H @ X, atol=1e-13)
    assert ls.aslinearoperator(unknown) is unknown and ls.aslinearoperator(declared, hermitian=True) is declared


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shape": (3, 3)}, r"argument shape is \(3, 3\), but the operator has shape \(12, 12\)"),
        ({"dtype": np.float32}, "argument dtype is float32, but the operator has dtype float64"),
        ({"backend": "torch:cpu"}, "argument backend is 'torch:cpu', but the operator lives on 'numpy'"),
    ],
)
def test_an_operator_is_not_turned_into_another(options, message):
    if "backend" in options:
        pytest.importorskip("torch")
    with pytest.raises(ValueError, match=message):
        ls.aslinearoperator(ls.aslinearoperator(H), **options)
    with pytest.raises(ValueError, match="leave it out"):
        ls.aslinearoperator(H, shape=(3, 3))
