"""Operators from what users have."""

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sla
from helpers import random_array, rotated

import linop_spectra as ls

H = rotated(np.linspace(-1, 2, 12))
X = random_array((12, 3), np.float64, 1)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("container", ["array", "matrix"])
def test_sparse_formats(kind, container):
    matrix = getattr(sparse, f"{kind}_{container}")(H)
    operator = ls.aslinearoperator(matrix)
    assert operator.hermitian is True
    np.testing.assert_allclose(operator @ X, H @ X, atol=1e-13)
    rectangular = getattr(sparse, f"{kind}_{container}")(H[:5])
    np.testing.assert_allclose(ls.aslinearoperator(rectangular).H.matmat(X[:5]), H[:5].T @ X[:5], atol=1e-13)
    assert ls.aslinearoperator(rectangular).hermitian is False


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.uint64, bool])
@pytest.mark.parametrize("wrap", [np.asarray, sparse.csr_array], ids=("dense", "sparse"))
def test_integer_and_boolean_matrices_work_in_double_precision(wrap, dtype):
    """An adjacency matrix must not multiply modulo 256."""
    matrix = np.asarray(np.random.default_rng(0).integers(0, 2, (50, 50)) * (1 if dtype is bool else 100), dtype=dtype)
    matrix = np.maximum(matrix, matrix.T)
    operator = ls.aslinearoperator(wrap(matrix))
    assert operator.dtype == np.float64 and operator.hermitian is True
    np.testing.assert_allclose(operator @ np.ones(50), matrix.astype(float).sum(axis=1))
    np.testing.assert_allclose(
        ls.eigsh(operator, 1, which="LA", tol=1e-9).eigenvalues, np.linalg.eigvalsh(matrix.astype(float))[-1:], rtol=1e-7
    )


def test_half_precision_is_widened():
    operator = ls.aslinearoperator(H.astype(np.float16))
    assert operator.dtype == np.float32
    np.testing.assert_allclose(operator @ X, H.astype(np.float16).astype(np.float32) @ X.astype(np.float32), atol=1e-5)


def test_nested_lists_and_existing_operators():
    operator = ls.aslinearoperator([[2, 1], [1, 2]])
    np.testing.assert_array_equal(operator @ [1.0, 0.0], [2, 1])
    assert ls.aslinearoperator(operator) is operator
    with pytest.raises(ValueError, match="is marked hermitian=True, but hermitian=False was asked for"):
        ls.aslinearoperator(operator, hermitian=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_symmetry_is_looked_up(dtype):
    h = rotated(np.linspace(-1, 2, 12), 0, dtype)
    for wrap in (np.asarray, sparse.csr_array):
        assert ls.aslinearoperator(wrap(h)).hermitian is True
        assert ls.aslinearoperator(wrap(h + np.triu(np.ones((12, 12), dtype), 1))).hermitian is False
    if np.dtype(dtype).kind == "c":  # complex symmetric is not Hermitian
        assert ls.aslinearoperator(h + h.T + 1j * np.ones((12, 12), dtype)).hermitian is False


def test_scipy_operators_with_and_without_blocks_and_adjoints():
    for inner in (
        sla.aslinearoperator(H),
        sla.LinearOperator(H.shape, matvec=lambda x: H @ x, dtype=H.dtype),
        sla.LinearOperator(H.shape, matvec=lambda x: H @ x, rmatvec=lambda x: H.T @ x, dtype=H.dtype),
    ):
        operator = ls.aslinearoperator(inner, hermitian=True)
        np.testing.assert_allclose(operator @ X, H @ X, atol=1e-13)
        np.testing.assert_allclose(operator.rmatmat(X), H @ X, atol=1e-13)
    only = ls.aslinearoperator(sla.LinearOperator((12, 12), matvec=lambda x: H @ x, dtype=float))
    assert only.hermitian is None
    assert ls.lanczos(only, 4).num_steps == 4


class OnlyMatvec:
    shape, dtype = (12, 12), np.dtype(float)

    def matvec(self, x):
        return H @ x


class Duck(OnlyMatvec):
    def matmat(self, x):
        return H @ x


class OnlyAt:
    shape = (12, 12)

    def __matmul__(self, x):
        return H @ x


@pytest.mark.parametrize("foreign", [OnlyMatvec, Duck, OnlyAt])
def test_ducks(foreign):
    operator = ls.aslinearoperator(foreign(), hermitian=True)
    np.testing.assert_allclose(operator @ X, H @ X, atol=1e-13)
    assert ls.spectral_density(foreign(), num_steps=5, num_probes=1).num_steps == 5
    assert isinstance(Duck(), ls.SupportsMatmat)


def test_a_callable_that_writes_into_its_argument_is_stopped():
    def spoils(x):
        x *= 2
        return x

    operator = ls.aslinearoperator(spoils, shape=(12, 12), dtype=float, hermitian=True)
    for product in (operator.matvec, lambda x: ls.lanczos(operator, 3), lambda x: ls.eigsh(operator, 1)):
        with pytest.raises(ValueError, match="read-only"):
            product(np.ones(12))


def test_a_callable_that_returns_its_argument_or_one_buffer():
    buffer = np.empty(12)

    def reuses(x):
        np.matmul(H, x, out=buffer)
        return buffer

    operator = ls.aslinearoperator(reuses, shape=(12, 12), dtype=float, hermitian=True)
    np.testing.assert_allclose(operator @ X, H @ X, atol=1e-13)
    np.testing.assert_array_equal(ls.aslinearoperator(lambda x: x, shape=(12, 12), dtype=float) @ X, X)


@pytest.mark.parametrize(
    "function, error, message",
    [
        (lambda x: x[:-1], ValueError, r"should return a vector of shape \(12,\), but returned an array of shape \(11,\)"),
        (lambda x: x[:, None], ValueError, "should return a vector"),
        (lambda x: x @ x, ValueError, r"shape \(\)"),
        (lambda x: None, (ValueError, TypeError), "."),
        (lambda x: 1j * x, TypeError, "returned complex numbers.*pass dtype=complex"),
    ],
)
def test_a_callable_with_a_wrong_product(function, error, message):
    with pytest.raises(error, match=message):
        ls.aslinearoperator(function, shape=(12, 12), dtype=float).matvec(np.ones(12))


def test_a_callable_sees_vectors_of_the_given_type():
    seen = []

    def product(x):
        seen.append((x.shape, x.dtype, type(x)))
        return H.astype(np.float32) @ x

    ls.aslinearoperator(product, shape=(12, 12), dtype=np.float32, hermitian=True) @ X
    assert seen == [((12,), np.dtype(np.float32), np.ndarray)] * 3


def test_a_callable_that_takes_double_precision_into_single_is_rounded():
    operator = ls.aslinearoperator(lambda x: H @ x, shape=(12, 12), dtype=np.float32, hermitian=True)
    assert (operator @ X).dtype == np.float32


def test_arrays_of_torch_and_jax():
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    for foreign in (
        torch.tensor(H),
        torch.tensor(H, requires_grad=True),
        torch.tensor(H, dtype=torch.float32),
        jnp.asarray(H),
        jnp.asarray(H, dtype=jnp.float32),
    ):
        operator = ls.aslinearoperator(foreign)
        atol = 1e-13 if operator.dtype == np.float64 else 1e-5
        np.testing.assert_allclose(operator @ X, H @ X, atol=atol)
        np.testing.assert_allclose(operator @ foreign[:, :2], H @ H[:, :2], atol=atol)
        assert isinstance(operator @ X, np.ndarray)
    z = torch.tensor(rotated(np.arange(4.0), 0, np.complex128))
    np.testing.assert_allclose(ls.aslinearoperator(z.conj().T).to_dense(), np.asarray(z.resolve_conj()).conj().T, atol=1e-14)
    np.testing.assert_allclose(ls.diagonal_operator(torch.arange(4.0)) @ np.ones(4), np.arange(4))


def test_callables_written_in_torch_and_jax():
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    t, j = torch.tensor(H), jnp.asarray(H)
    for function in (lambda x: t @ torch.tensor(np.array(x)), lambda x: j @ jnp.asarray(x)):
        operator = ls.aslinearoperator(function, shape=(12, 12), dtype=np.float64, hermitian=True)
        np.testing.assert_allclose(operator @ X, H @ X, atol=1e-5)


@pytest.mark.parametrize(
    "obj, options, error, message",
    [
        (lambda x: x, {}, ValueError, r"pass shape=\(n, n\) and dtype="),
        (lambda x: x, {"shape": (3, 3)}, ValueError, "dtype"),
        (3.0, {}, TypeError, "float cannot be used"),
        (None, {}, TypeError, "NoneType cannot be used"),
        (np.ones(3), {}, ValueError, r"array of shape \(3,\) is no matrix"),
        (np.ones((2, 2, 2)), {}, ValueError, "no matrix"),
        (np.array([["a"]]), {}, TypeError, "holds no numbers"),
        ({}, {}, TypeError, "dict cannot be used"),
    ],
)
def test_bad_objects(obj, options, error, message):
    with pytest.raises(error, match=message):
        ls.aslinearoperator(obj, **options)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ls.diagonal_operator(np.ones((2, 2))), "argument diagonal must have shape"),
        (lambda: ls.low_rank(np.ones(3), [1.0]), "argument factor must have shape"),
        (lambda: ls.low_rank(np.ones((3, 2)), [1.0]), "argument values must be 2 real numbers"),
        (lambda: ls.low_rank(np.ones((3, 1)), [1j]), "argument values"),
        (lambda: ls.identity(0), "at least one row"),
        (lambda: ls.identity(3, backend="gpu"), "argument backend is 'gpu'"),
    ],
)
def test_bad_structured_operators(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_symmetric_up_to_rounding_is_left_to_the_products():
    """A matrix scaled from both sides differs from its transpose in the last digit."""
    scale = 1 / np.sqrt(np.random.default_rng(0).uniform(1, 9, 200))
    weights = rotated(np.linspace(1, 2, 200))
    normalised = (scale[:, None] * weights) * scale
    assert (normalised != normalised.T).any()
    for matrix in (normalised, sparse.csr_array(normalised)):
        operator = ls.aslinearoperator(matrix)
        assert operator.hermitian is None
        assert ls.eigsh(operator, 1, which="LA").eigenvalues[0] == pytest.approx(np.linalg.eigvalsh(normalised)[-1], rel=1e-6)
    for matrix in (normalised + np.triu(1e-12 * np.ones((200, 200))), sparse.csr_array(np.triu(normalised))):
        assert ls.aslinearoperator(matrix).hermitian is False


def test_positive_semidefinite_can_be_declared():
    matrix = rotated(np.linspace(0, 2, 50))
    for obj, options in ((matrix, {}), (lambda x: matrix @ x, {"shape": (50, 50), "dtype": float}), (ls.aslinearoperator(matrix), {})):
        operator = ls.aslinearoperator(obj, positive_semidefinite=True, **options)
        assert operator.hermitian and operator.positive_semidefinite
        np.testing.assert_allclose(operator @ np.ones(50), matrix @ np.ones(50), atol=1e-12)
        assert ls.solve(operator, np.ones(50), shift=1.0).method == "cg"
    with pytest.raises(ValueError, match="positive semidefinite operator is Hermitian"):
        ls.aslinearoperator(matrix, hermitian=False, positive_semidefinite=True)
    with pytest.raises(ValueError, match="marked positive_semidefinite=True"):
        ls.aslinearoperator(ls.identity(3), positive_semidefinite=False)
