"""Every kind of operator in every precision: the rules that hold for all of them."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sla
from helpers import BACKENDS, DTYPES, eps, random_array, rotated
from scipy import linalg

import linop_spectra as ls
from linop_spectra.backends import get_backend

M, N = 6, 9


def square(dtype, seed=0):
    return random_array((N, N), dtype, seed)


def hermitian(dtype, seed=0):
    return rotated(np.linspace(-2, 3, N), seed, dtype)


def wide(dtype, seed=0):
    return random_array((M, N), dtype, seed)


def op(matrix, b="numpy", **options):
    return ls.aslinearoperator(matrix, backend=b, **options)


class Own(ls.LinearOperator):
    """A user's subclass, at module level so that it can be pickled."""

    def __init__(self, matrix, b="numpy"):
        self.matrix = get_backend(b).asarray(matrix)
        super().__init__(matrix.shape, matrix.dtype, backend=b)

    def _matmat(self, x):
        return self.matrix @ x

    def _rmatmat(self, x):
        return self.backend.conj(self.matrix).T @ x


class Times:
    """A function of one vector."""

    def __init__(self, matrix, b):
        self.matrix = get_backend(b).asarray(matrix)

    def __call__(self, x):
        return self.matrix @ x


def scalar(dtype):
    return 2 - 1j if np.dtype(dtype).kind == "c" else -2.5


def top(dtype):
    """Two eigenpairs of either sign."""
    values, vectors = np.linalg.eigh(hermitian(dtype))
    return values[[0, -1]], vectors[:, [0, -1]]


# Name: operator and matrix, for a dtype and a backend.
ZOO = {
    "dense": lambda t, b: (op(square(t), b), square(t)),
    "dense, wide": lambda t, b: (op(wide(t), b), wide(t)),
    "dense, Fortran order": lambda t, b: (op(np.asfortranarray(square(t)), b), square(t)),
    "hermitian": lambda t, b: (op(hermitian(t), b), hermitian(t)),
    "sparse": lambda t, b: (op(sparse.csr_array(square(t)), b), square(t)),
    "sparse, coordinates": lambda t, b: (op(sparse.coo_matrix(wide(t)), b), wide(t)),
    "scipy": lambda t, b: (op(sla.aslinearoperator(square(t)), b), square(t)),
    "subclass": lambda t, b: (Own(wide(t), b), wide(t)),
    "callable": lambda t, b: (op(Times(hermitian(t), b), b, shape=(N, N), dtype=t, hermitian=True), hermitian(t)),
    "declared hermitian": lambda t, b: (op(op(Times(hermitian(t), b), b, shape=(N, N), dtype=t), b, hermitian=True), hermitian(t)),
    "identity": lambda t, b: (ls.identity(N, dtype=t, backend=b), np.eye(N)),
    "diagonal": lambda t, b: (ls.diagonal_operator(random_array((N,), t, 1), backend=b), np.diag(random_array((N,), t, 1))),
    "low rank": lambda t, b: (
        ls.low_rank(random_array((N, 3), t, 2), [1.0, -2.0, 0.5], backend=b),
        (random_array((N, 3), t, 2) * np.array([1, -2, 0.5])) @ random_array((N, 3), t, 2).conj().T,
    ),
    "sum": lambda t, b: (op(square(t), b) + op(square(t, 1), b) + op(square(t, 2), b), square(t) + square(t, 1) + square(t, 2)),
    "difference": lambda t, b: (op(square(t), b) - ls.identity(N, dtype=t, backend=b), square(t) - np.eye(N)),
    "product": lambda t, b: (op(wide(t), b) @ op(square(t), b) @ op(square(t, 1), b), wide(t) @ square(t) @ square(t, 1)),
    "gram": lambda t, b: (op(wide(t), b).H @ op(wide(t), b), wide(t).conj().T @ wide(t)),
    "scaled": lambda t, b: (scalar(t) * op(square(t), b), scalar(t) * square(t)),
    "scaled twice": lambda t, b: (op(square(t), b) * 2 * scalar(t), 2 * scalar(t) * square(t)),
    "negative": lambda t, b: (-op(wide(t), b), -wide(t)),
    "adjoint": lambda t, b: (op(wide(t), b).H, wide(t).conj().T),
    "transpose": lambda t, b: (op(wide(t), b).T, wide(t).T),
    "transpose of hermitian": lambda t, b: (op(hermitian(t), b).T, hermitian(t).T),
    "adjoint of a sum of products": lambda t, b: (
        (op(square(t), b) @ op(square(t, 1), b) + scalar(t) * op(hermitian(t), b)).H,
        (square(t) @ square(t, 1) + scalar(t) * hermitian(t)).conj().T,
    ),
    "transpose of adjoint": lambda t, b: (op(wide(t), b).H.T, wide(t).conj()),
    "nested": lambda t, b: (
        (2 * (op(hermitian(t), b) + ls.identity(N, dtype=t, backend=b)) @ op(square(t), b).T).H,
        (2 * (hermitian(t) + np.eye(N)) @ square(t).T).conj().T,
    ),
    "block diagonal": lambda t, b: (
        ls.block_diagonal([op(wide(t), b), op(hermitian(t), b), ls.identity(2, dtype=t, backend=b)]),
        linalg.block_diag(wide(t), hermitian(t), np.eye(2)),
    ),
    "kronecker": lambda t, b: (
        ls.kronecker(op(wide(t), b), op(square(t, 1)[:2, :3], b)),
        np.kron(wide(t), square(t, 1)[:2, :3]),
    ),
    "kronecker of hermitian": lambda t, b: (
        ls.kronecker(op(hermitian(t), b), op(np.diag([1, 2]).astype(t), b)),
        np.kron(hermitian(t), np.diag([1, 2])),
    ),
    "submatrix": lambda t, b: (ls.submatrix(op(wide(t), b), [4, 0, 2], slice(1, 8, 2)), wide(t)[[4, 0, 2]][:, 1:8:2]),
    "principal submatrix": lambda t, b: (ls.submatrix(op(hermitian(t), b), np.arange(N) % 2 == 0), hermitian(t)[::2, ::2]),
    "compression": lambda t, b: (
        ls.compress(op(hermitian(t), b), op(wide(t).conj().T, b)),
        wide(t) @ hermitian(t) @ wide(t).conj().T,
    ),
    "shifted": lambda t, b: (ls.shift(op(square(t), b), scalar(t)), square(t) + scalar(t) * np.eye(N)),
    "deflated": lambda t, b: (
        ls.deflate(op(hermitian(t), b), *top(t)),
        hermitian(t) - (top(t)[1] * top(t)[0]) @ top(t)[1].conj().T,
    ),
}


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


@pytest.fixture(params=ZOO)
def both(request, dtype):
    operator, matrix = ZOO[request.param](dtype, "numpy")
    return operator, np.asarray(matrix, dtype=np.result_type(dtype, np.complex64) if np.iscomplexobj(matrix) else dtype)


def tolerance(matrix):
    return 200 * eps(matrix.dtype) * max(1.0, float(np.abs(matrix).max()))


def test_shape_dtype_and_dense(both, dtype):
    operator, matrix = both
    assert operator.shape == matrix.shape and operator.dtype == dtype
    dense = operator.to_dense()
    assert dense.dtype == dtype and dense.shape == matrix.shape
    np.testing.assert_allclose(dense, matrix, atol=tolerance(matrix))


def test_products_with_vectors_and_blocks(both, dtype):
    operator, matrix = both
    m, n = matrix.shape
    x, y = random_array((n, 4), dtype, 7), random_array((m, 3), dtype, 8)
    np.testing.assert_allclose(operator.matmat(x), matrix @ x, atol=10 * tolerance(matrix))
    np.testing.assert_allclose(operator.rmatmat(y), matrix.conj().T @ y, atol=10 * tolerance(matrix))
    for column in range(4):
        np.testing.assert_allclose(operator.matvec(x[:, column]), operator.matmat(x)[:, column], atol=10 * tolerance(matrix))
    np.testing.assert_allclose(operator @ x[:, 0], matrix @ x[:, 0], atol=10 * tolerance(matrix))
    np.testing.assert_allclose(operator.rmatvec(y[:, 0]), matrix.conj().T @ y[:, 0], atol=10 * tolerance(matrix))
    assert operator.matvec(x[:, 0]).dtype == dtype
    assert operator.matmat(np.zeros((n, 0), dtype)).shape == (m, 0)


def test_linearity_and_adjoint(both, dtype):
    operator, matrix = both
    m, n = matrix.shape
    x, y, u = random_array((n,), dtype, 1), random_array((n,), dtype, 2), random_array((m,), dtype, 3)
    a = scalar(dtype)
    np.testing.assert_allclose(operator @ (a * x + y), a * (operator @ x) + operator @ y, atol=50 * tolerance(matrix))
    left, right = np.vdot(u, operator @ x), np.vdot(operator.rmatvec(u), x)
    assert abs(left - right) < 50 * tolerance(matrix)


def test_what_is_handed_in_stays_untouched_and_products_repeat(both, dtype):
    operator, matrix = both
    for layout in (np.ascontiguousarray, np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]):
        x = layout(random_array((matrix.shape[1], 3), dtype, 5))
        kept = x.copy()
        first = operator.matmat(x).copy()
        np.testing.assert_array_equal(operator.matmat(x), first)
        np.testing.assert_array_equal(x, kept)
    frozen = random_array((matrix.shape[1],), dtype, 5)
    frozen.flags.writeable = False
    operator.matvec(frozen)


def test_self_check_passes(both):
    operator, _ = both
    check = ls.check_operator(operator)
    assert check.passed, str(check)


def test_claims_are_true(both):
    """Hermitian and positive semidefinite are only ever claimed where they hold."""
    operator, matrix = both
    if operator.hermitian:
        np.testing.assert_allclose(matrix, matrix.conj().T, atol=tolerance(matrix))
    if operator.positive_semidefinite:
        assert np.linalg.eigvalsh(matrix).min() > -tolerance(matrix)
    if matrix.shape[0] != matrix.shape[1]:
        assert operator.hermitian is False and operator.positive_semidefinite is False


def test_products_are_counted(both, dtype):
    operator, matrix = both
    m, n = matrix.shape
    before = operator.num_matvecs
    operator.matmat(np.ones((n, 5), dtype))
    operator.rmatvec(np.ones(m, dtype))
    assert operator.num_matvecs == before + 6


def test_scipy_view(both, dtype):
    operator, matrix = both
    view = operator.to_scipy()
    x, y = random_array((matrix.shape[1],), dtype, 7), random_array((matrix.shape[0],), dtype, 8)
    assert view.shape == matrix.shape and view.dtype == dtype
    np.testing.assert_allclose(view @ x, matrix @ x, atol=10 * tolerance(matrix))
    np.testing.assert_allclose(view.rmatvec(y), matrix.conj().T @ y, atol=10 * tolerance(matrix))
    np.testing.assert_allclose(view @ np.stack([x, x], 1), matrix @ np.stack([x, x], 1), atol=10 * tolerance(matrix))


def test_pickling(both, dtype):
    operator, matrix = both
    again = pickle.loads(pickle.dumps(operator))
    x = random_array((matrix.shape[1],), dtype, 7)
    np.testing.assert_array_equal(again @ x, operator @ x)


def test_printed_tree(both):
    operator, matrix = both
    assert repr(operator).splitlines()[0].split()[1:4] == [str(matrix.shape[0]), "x", str(matrix.shape[1])]


@pytest.mark.parametrize("dtype", [np.float32, np.complex128], ids=("float32", "complex128"))
@pytest.mark.parametrize("place", [name for name in BACKENDS if name != "numpy"])
@pytest.mark.parametrize("name", ZOO)
def test_the_contract_on_every_backend(name, place, dtype):
    backend = BACKENDS[place]()
    if place == "strict" and name.startswith("sparse"):
        with pytest.raises(TypeError, match=r"multiplies vectors of NumPy, CuPy and torch, .* pass the dense matrix"):
            ZOO[name](dtype, backend)
        return
    operator, matrix = ZOO[name](dtype, backend)
    bound, host = 10 * tolerance(np.asarray(matrix, dtype=dtype)), backend.to_numpy
    m, n = matrix.shape
    assert operator.shape == (m, n) and operator.dtype == dtype and operator.backend is backend
    x, y = random_array((n, 3), dtype, 7), random_array((m, 2), dtype, 8)
    ours = backend.asarray(x.copy())
    product, adjoint = operator.matmat(ours), operator.rmatmat(backend.asarray(y))
    assert backend.owns(product) and backend.dtype_of(product) == dtype
    first = np.array(host(product))
    np.testing.assert_allclose(first, matrix @ x, atol=bound)
    np.testing.assert_allclose(host(adjoint), matrix.conj().T @ y, atol=bound)
    np.testing.assert_array_equal(host(ours), x)  # untouched
    np.testing.assert_array_equal(host(operator.matmat(ours)), first)  # and the same again
    for column in range(3):
        np.testing.assert_allclose(host(operator.matvec(x[:, column])), first[:, column], atol=bound)
    np.testing.assert_allclose(host(operator.to_dense()), matrix, atol=bound)
    assert tuple(operator.matmat(np.zeros((n, 0), dtype)).shape) == (m, 0)
    assert ls.check_operator(operator).passed  # linear, symmetric where it says so, true adjoint
    if place != "strict":
        np.testing.assert_array_equal(host(pickle.loads(pickle.dumps(operator)).matmat(ours)), first)
    if np.dtype(dtype).kind != "c":
        z = random_array((n, 2), np.complex128, 9)
        np.testing.assert_allclose(host(operator.matmat(z)), matrix @ z, atol=bound)


def test_complex_vectors_through_a_real_operator():
    a, x = square(np.float64), random_array((N, 2), np.complex128, 1)
    np.testing.assert_allclose(op(a) @ x, a @ x, atol=1e-12)
    np.testing.assert_allclose(op(a).rmatmat(x), a.T @ x, atol=1e-12)


def test_vectors_of_other_types_are_converted():
    a = op(square(np.float32))
    assert (a @ np.arange(N)).dtype == np.float32
    assert a.matvec([1.0] * N).dtype == np.float32
    with pytest.raises(TypeError, match="multiplies numbers"):
        a.matvec(np.array(["x"] * N))
    with pytest.raises(TypeError, match="multiplies numbers"):
        a.matvec(np.array([None] * N))


def test_sums_and_products_are_flattened():
    a, b, c = (op(square(np.float64, seed)) for seed in range(3))
    assert len(((a + b) + (c - a)).terms) == 4 and len(((a @ b) @ (c @ a)).factors) == 4
    assert a.H.H is a and op(square(np.complex128)).T.T is not None
    h = op(hermitian(np.complex128))
    assert h.H is h
    assert "├─ " in repr(a + b) and "└─ " in repr(a + b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_flags_of_composites(dtype):
    a, h = op(square(dtype)), op(hermitian(dtype))
    psd = a.H @ a
    assert psd.hermitian is True and psd.positive_semidefinite is True
    assert (a @ h @ a.H).hermitian is not False
    assert (psd + ls.identity(N, dtype=dtype)).positive_semidefinite is True and (3 * psd).positive_semidefinite is True
    assert (-psd).positive_semidefinite is not True and (-psd).hermitian is True and (psd - psd).positive_semidefinite is not True
    assert (h + a).hermitian is not True and (h @ psd).hermitian is not True and (a @ a).hermitian is not True
    assert ls.diagonal_operator(np.array([1.0, -1.0])).positive_semidefinite is False
    if np.dtype(dtype).kind == "c":
        assert (1j * h).hermitian is not True and ls.diagonal_operator(np.array([1j])).hermitian is False


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda a, b: a + b, ValueError, "cannot be added: the shapes must be equal"),
        (lambda a, b: b @ a @ a @ b, ValueError, "cannot be multiplied: the inner lengths must be equal"),
        (lambda a, b: a * np.nan, ValueError, "the factor must be finite"),
        (lambda a, b: a + 1, TypeError, "unsupported operand"),
        (lambda a, b: a + np.ones((N, N)), TypeError, "operand"),
        (lambda a, b: a.matvec(np.ones(N + 1)), ValueError, rf"needs a vector of length {N}, but got an array of shape \({N + 1},\)"),
        (lambda a, b: a.matvec(np.ones((N, 1))), ValueError, "needs a vector of length"),
        (lambda a, b: a.matmat(np.ones(N)), ValueError, rf"needs a block of vectors of shape \({N}, k\)"),
        (lambda a, b: a @ np.ones((2, 2, 2)), ValueError, "3 dimensions"),
        (lambda a, b: a.to_dense(memory_budget=10), MemoryError, "over the budget of 10 B"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(op(square(np.float64)), op(wide(np.float64)))


@pytest.mark.parametrize(
    "shape, dtype, error, message",
    [
        ((3,), float, ValueError, "argument shape must be a pair of lengths"),
        (5, float, ValueError, "argument shape"),
        ((0, 3), float, ValueError, "at least one row"),
        ((3, 3), int, TypeError, "argument dtype is int64.*pass dtype=float"),
        ((3, 3), "U1", TypeError, "argument dtype"),
    ],
)
def test_a_subclass_says_shape_and_dtype(shape, dtype, error, message):
    class Zero(ls.LinearOperator):
        def _matmat(self, x):
            return 0 * x

    with pytest.raises(error, match=message):
        Zero(shape, dtype)
    with pytest.raises(ValueError, match="not square and so cannot be Hermitian"):
        Zero((2, 3), float, hermitian=True)


def test_tags_of_composed_operators():
    a, positive = op(hermitian(float)), ls.diagonal_operator(np.arange(1.0, N + 1))
    part, basis = slice(3), wide(float).T
    for composed in (ls.kronecker(a, a), ls.block_diagonal([a, a]), ls.submatrix(a, part), ls.compress(a, basis), ls.shift(a, 2.0)):
        assert composed.hermitian is True and composed.positive_semidefinite is None
    square_of, blocks = ls.kronecker(positive, positive), ls.block_diagonal([positive])
    for composed in (square_of, blocks, ls.submatrix(positive, part), ls.shift(positive, 1.0)):
        assert composed.hermitian is True and composed.positive_semidefinite is True
    assert ls.compress(positive, wide(float).T).positive_semidefinite is True
    assert ls.submatrix(a, [0, 1], [1, 0]).hermitian is None
    assert ls.deflate(a, *top(float)).hermitian is True


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a: ls.block_diagonal([]), "argument blocks is empty"),
        (lambda a: ls.submatrix(a, [0, 0]), "argument rows must choose"),
        (lambda a: ls.submatrix(a, [0], [N]), "argument columns does not fit"),
        (lambda a: ls.submatrix(a, []), "argument rows must choose|argument rows does not fit"),
        (lambda a: ls.compress(a, np.ones((N + 1, 2))), "as many rows in P"),
        (lambda a: ls.compress(op(wide(float)), np.ones((M, 2))), "square A"),
        (lambda a: ls.shift(wide(float), 1.0), "square operator"),
        (lambda a: ls.deflate(a, [1.0, 2.0], 2 * np.eye(N)[:, :2]), "not orthonormal"),
        (lambda a: ls.deflate(a, [1.0], np.ones(N)), "argument eigenvectors must have shape"),
    ],
)
def test_wrappers_say_what_is_wrong(make, words):
    with pytest.raises(ValueError, match=words):
        make(op(hermitian(float)))
