"""Empty matrices, and products that go wrong: spoilt arguments, reused buffers, wrong shapes and types, failures."""

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sla
from helpers import BACKENDS, random_array, rotated

import linop_spectra as ls
from linop_spectra.backends import get_backend

H = rotated(np.linspace(-1, 2, 12))
X = random_array((12, 3), np.float64, 1)


# -- empty matrices --------------------------------------------------------------------------------------------------------

EMPTY = {
    "array": lambda: np.zeros((0, 0)),
    "array without columns": lambda: np.zeros((3, 0)),
    "integers": lambda: np.zeros((0, 0), int),
    "lists": lambda: [[]],
    "sparse": lambda: sparse.csr_array((0, 0)),
    "coordinates": lambda: sparse.coo_array((0, 4)),
    "scipy": lambda: sla.LinearOperator((0, 0), matvec=lambda x: x, dtype=float),
}
ALGORITHMS = {
    "lanczos": lambda a: ls.lanczos(a, 3),
    "eigsh": lambda a: ls.eigsh(a, 1),
    "spectral_density": lambda a: ls.spectral_density(a),
    "trace": lambda a: ls.trace(a),
    "frobenius_norm": lambda a: ls.frobenius_norm(a),
    "spectral_norm": lambda a: ls.spectral_norm(a),
    "check_operator": lambda a: ls.check_operator(a),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", EMPTY)
def test_empty_matrices_are_named(name, algorithm):
    with pytest.raises(ValueError, match=r"A matrix of shape \(\d, \d\) is empty and has no spectrum; .* at least one row"):
        ALGORITHMS[algorithm](EMPTY[name]())


def test_empty_callables_and_parts():
    with pytest.raises(ValueError, match=r"shape \(0, 0\) is empty"):
        ls.aslinearoperator(lambda x: x, shape=(0, 0), dtype=float)
    with pytest.raises(ValueError, match="is empty"):
        ls.kronecker(H, np.zeros((0, 0)))
    with pytest.raises(ValueError, match="is empty"):
        ls.diagonal_operator([])


# -- products that go wrong ------------------------------------------------------------------------------------------------


def test_infinite_entries_are_found_at_their_product():
    matrix = H.copy()
    matrix[3, 3] = np.inf
    operator = ls.aslinearoperator(matrix)
    assert operator.hermitian is True
    for run in (lambda: ls.lanczos(operator, 4), lambda: ls.spectral_density(operator)):
        with pytest.raises(FloatingPointError, match="NaN or infinity"), np.errstate(invalid="ignore"):
            run()


class Spoils(ls.LinearOperator):
    """A product that writes into its argument."""

    def __init__(self, matrix, backend):
        self.matrix = get_backend(backend).asarray(matrix)
        super().__init__(matrix.shape, matrix.dtype, hermitian=True, backend=backend)

    def _matmat(self, x):
        product = self.matrix @ x
        x *= 0
        return product


@pytest.mark.parametrize("name", BACKENDS)
def test_a_product_that_writes_into_its_argument_spoils_nothing(name):
    """On NumPy it is stopped; on the others it works on a copy."""
    backend = BACKENDS[name]()
    operator = Spoils(H, backend)
    x = backend.asarray(X.copy())

    def spoils(v):
        product = backend.asarray(H) @ v
        v *= 0
        return product

    function = ls.aslinearoperator(spoils, shape=(12, 12), dtype=float, hermitian=True, backend=backend)
    for bad in (operator, function):
        if name == "numpy":
            with pytest.raises(ValueError, match="read-only"):
                bad.matmat(x)
            with pytest.raises(ValueError, match="read-only"):
                ls.lanczos(bad, 4)
        else:
            np.testing.assert_allclose(backend.to_numpy(bad.matmat(x)), H @ X, atol=1e-13)
            np.testing.assert_allclose(ls.lanczos(bad, 12).ritz_values[0], np.linspace(-1, 2, 12), atol=1e-10)
        np.testing.assert_array_equal(backend.to_numpy(x), X)


class Buffered(ls.LinearOperator):
    """A product that always comes in the same array, and is made while its argument is read."""

    def __init__(self, matrix):
        self.matrix, self.buffer = matrix, np.empty(matrix.shape[0])
        super().__init__(matrix.shape, matrix.dtype, hermitian=True)

    def _matmat(self, x):
        self.buffer[...] = 0
        for i in range(x.shape[0]):
            self.buffer += self.matrix[:, i] * x[i, 0]
        return self.buffer[:, None]


def test_products_in_a_reused_buffer_can_be_combined():
    a, x = Buffered(H), X[:, :1]
    square = H @ H
    for operator, matrix in {
        a @ a: square,
        a @ a @ a: H @ square,
        (a @ a) + a: square + H,
        a + (2 * a) @ a: H + 2 * square,
        a @ (a + a): 2 * square,
        ls.block_diagonal([a, a]): np.kron(np.eye(2), H),
        ls.compress(a, H): H @ H @ H,
        a @ (3 * a): 3 * square,
    }.items():
        vector = x if matrix.shape[1] == 12 else np.vstack([x, 2 * x])
        np.testing.assert_allclose(operator.matmat(vector), matrix @ vector, atol=1e-12)
    assert ls.check_operator(a @ a).passed


@pytest.mark.parametrize(
    "function, error, message",
    [
        (lambda x: x[:-1], ValueError, r"should have shape \(12, 3\), but has shape \(11, 3\)"),
        (lambda x: x.sum(), ValueError, r"has shape \(\)"),
        (lambda x: None, ValueError, r"has shape \(\)"),
        (lambda x: 1j * x, TypeError, "returned complex numbers; pass dtype=complex"),
        (lambda x: x.astype(str), TypeError, "holds no numbers"),
    ],
)
def test_a_subclass_with_a_wrong_product(function, error, message):
    class Wrong(ls.LinearOperator):
        def _matmat(self, x):
            return function(x)

    with pytest.raises(error, match=message):
        Wrong((12, 12), float).matmat(X)


def test_a_product_in_another_type_or_library_is_brought_over():
    torch = pytest.importorskip("torch")

    class Loose(ls.LinearOperator):
        def _matmat(self, x):
            return self.make(H @ x)

    operator = Loose((12, 12), np.float32, hermitian=True)
    for make in (np.asarray, torch.tensor, lambda x: x.tolist()):
        operator.make = make
        product = operator @ X
        assert isinstance(product, np.ndarray) and product.dtype == np.float32
        np.testing.assert_allclose(product, H @ X, atol=1e-5)
    operator.make = lambda x: np.asarray(x).astype(int)
    assert (operator @ X).dtype == np.float32


def test_a_callable_that_raises_keeps_what_was_done():
    calls = []

    def fails(x):
        calls.append(1)
        if len(calls) == 7:
            raise OSError("the disk is full")
        return H @ x

    operator = ls.aslinearoperator(fails, shape=(12, 12), dtype=float, hermitian=True)
    with pytest.raises(ls.LanczosInterrupted, match="the disk is full") as caught:
        ls.lanczos(operator, 10)
    assert caught.value.partial.num_steps >= 1
    calls[:] = [1] * 6
    with pytest.raises(OSError, match="the disk is full"):
        operator @ X
