"""Block-diagonal approximations against masked dense matrices."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, rotated
from scipy import sparse
from test_diagonal_approximations import check_inverse, hidden

import linop_spectra as ls
from linop_spectra.approximations import approximate

N = 12
PARTITIONS = {
    "order": (5, [range(5), range(5, 10), range(10, 12)]),
    "orders": ([4, 1, 7], [range(4), range(4, 5), range(5, 12)]),
    "slices": ([slice(0, 6), slice(6, None)], [range(6), range(6, 12)]),
    "interleaved": ([slice(0, None, 2), slice(1, None, 2)], [range(0, 12, 2), range(1, 12, 2)]),
    "rows": ([[3, 0, 11], list(range(4, 11)), [1, 2]], [[3, 0, 11], range(4, 11), [1, 2]]),
    "booleans": ([np.arange(12) % 3 == 0, np.arange(12) % 3 != 0], [range(0, 12, 3), [i for i in range(12) if i % 3]]),
    "names": ({"a": slice(6, 12), "b": slice(0, 6)}, [range(6, 12), range(6)]),
    "one": ([slice(None)], [range(12)]),
    "single rows": (1, [[i] for i in range(12)]),
}


def masked(matrix, groups):
    out = np.zeros_like(matrix)
    for group in groups:
        out[np.ix_(list(group), list(group))] = matrix[np.ix_(list(group), list(group))]
    return out


@pytest.mark.parametrize("form", ["dense", "sparse", "products"])
@pytest.mark.parametrize("name", PARTITIONS)
def test_blocks(name, form):
    partition, groups = PARTITIONS[name]
    matrix = rotated(np.linspace(-1, 2, N))
    source = {"dense": lambda: matrix, "sparse": lambda: sparse.csr_array(matrix), "products": lambda: hidden(matrix)}[form]()
    approximation = approximate(source, "block", partition=partition)
    expected = masked(matrix, groups)
    np.testing.assert_allclose(approximation.to_dense(), expected, atol=1e-14)
    np.testing.assert_allclose(approximation.eigenvalues(), np.linalg.eigvalsh(expected), atol=1e-14)
    assert approximation.source_matvecs == (N if form == "products" else 0)
    assert approximation.sizes == tuple(len(list(group)) for group in groups)
    check_inverse(approximation)
    top = approximation.top_vectors(2)
    values, vectors = np.linalg.eigh(expected)
    order = np.argsort(-abs(values))[:2]
    np.testing.assert_allclose(np.abs(vectors[:, order].T @ top), np.eye(2), atol=1e-10)


def test_largest_eigenvalues_interlace():
    """Cauchy: the k-th largest eigenvalue of a block lies below that of the whole, and above that so many places further down."""
    matrix = rotated(np.r_[np.linspace(-3, 3, 20), 10.0])
    whole = np.linalg.eigvalsh(matrix)
    for block in approximate(matrix, "block", partition=[5, 9, 7]).blocks:
        own, m = block.pairs[0], len(block.index)
        assert (own <= whole[21 - m :] + 1e-12).all() and (own >= whole[:m] - 1e-12).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_types(dtype):
    matrix = rotated(np.linspace(1, 2, N), dtype=dtype)
    approximation = approximate(hidden(matrix), "block", partition=[7, 5])
    assert approximation.dtype == dtype
    np.testing.assert_allclose(approximation.to_dense(), masked(matrix, [range(7), range(7, 12)]), atol=20 * eps(dtype))
    check_inverse(approximation)


@pytest.mark.parametrize("name", BACKENDS)
def test_on_every_backend(name):
    backend, matrix = BACKENDS[name](), rotated(np.linspace(1, 2, N))
    approximation = approximate(hidden(matrix, backend), "block", partition=[slice(0, None, 2), slice(1, None, 2)])
    np.testing.assert_allclose(backend.to_numpy(approximation.to_dense()), masked(matrix, [range(0, 12, 2), range(1, 12, 2)]), atol=1e-14)
    check_inverse(approximation)


def test_large_blocks_stay_products():
    matrix = rotated(np.linspace(0.5, 2, 40))
    source = hidden(matrix)
    approximation = approximate(source, "block", partition=[30, 10], dense_limit=20)
    assert approximation.source_matvecs == source.num_matvecs == 10
    assert [block.dense for block in approximation.blocks] == [False, True]
    assert approximation.eigenvalues() is None and approximation.top_vectors(1) is None
    np.testing.assert_allclose(approximation.to_dense(), masked(matrix, [range(30), range(30, 40)]), atol=1e-14)
    b = np.random.default_rng(0).standard_normal(40)
    expected = np.linalg.solve(masked(matrix, [range(30), range(30, 40)]) + 0.1 * np.eye(40), b)
    np.testing.assert_allclose(approximation.solve(b, damping=0.1), expected, atol=1e-8)


@pytest.mark.parametrize("partition, words", [
    ([5, 6], "add up to 11"),
    ([slice(0, 5), slice(4, 12)], "row 4 is in 2 blocks"),
    ([slice(0, 5)], "row 5 is in no block"),
    ([[0, 1], [2, 99]], "does not fit 12 rows"),
    ([slice(0, 12), []], "is empty"),
    ([], "row 0 is in no block"),
    (0, "have an order from 1 to 12"),
    (13, "have an order from 1 to 12"),
    ([0, 12], "add up to 12"),
    (2.5, "The argument partition is a float"),
    ([np.eye(3, dtype=int)], "is empty or no list of rows"),
    ([np.ones(5, dtype=bool)], "does not fit"),
])  # fmt: skip
def test_wrong_partitions(partition, words):
    with pytest.raises(ValueError, match=words):
        approximate(np.eye(N), "block", partition=partition)


def test_operators_need_a_partition():
    with pytest.raises(ValueError, match="needs partition="):
        approximate(np.eye(N), "block")
    with pytest.raises(ValueError, match="exclude each other"):
        approximate(np.eye(N), "block", partition=3, by="layer")
    with pytest.raises(ValueError, match="dense_limit must be"):
        approximate(np.eye(N), "block", partition=3, dense_limit=-1)


def test_single_precision_is_solved_to_rounding_without_a_word():
    """A condition number of 1000 keeps the relative residual in single precision above 1e-8, whatever the method."""
    rng = np.random.default_rng(0)
    matrix = rotated(np.r_[np.geomspace(1e-6, 1.0, 298), 0.5, 0.7]).astype(np.float32)
    operator = ls.aslinearoperator(lambda x: matrix @ x, shape=matrix.shape, dtype=np.float32, hermitian=True)
    operator.positive_semidefinite = True
    b = rng.standard_normal(300).astype(np.float32)
    x = approximate(operator, "block", partition=[300], dense_limit=0).solve(b, damping=1e-3)
    exact = np.linalg.solve(matrix.astype(float) + 1e-3 * np.eye(300), b)
    assert np.linalg.norm(x - exact) < 1e-3 * np.linalg.norm(exact)
    assert np.linalg.norm((matrix + np.float32(1e-3) * np.eye(300)) @ x - b) > 1e-8 * np.linalg.norm(b)


def test_a_block_that_is_not_solved_is_named():
    """Half of the eigenvalues are zero: no multiple of the matrix is a vector outside of its range."""
    values = np.r_[np.zeros(10), np.linspace(1, 2, 10)]
    approximation = approximate(hidden(rotated(values)), "block", partition={"first": range(20)}, dense_limit=0)
    with pytest.warns(UserWarning, match=r"block 'first' plus damping 0 was solved to a relative residual of .* dense_limit=20"):
        approximation.solve(np.ones(20))


def test_a_singular_block_is_named():
    approximation = approximate(np.diag([1.0, 2.0, 0.0, 0.0]), "block", partition={"first": slice(0, 2), "second": slice(2, 4)})
    with pytest.raises(ValueError, match="The block 'second' plus damping 0 has no inverse"):
        approximation.solve(np.ones(4))


def test_layers_of_a_network():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    objective = ls.objective(model, "mse", (torch.randn(9, 3).double(), torch.randn(9, 2).double()))
    dense = np.asarray(objective.hessian().to_dense())
    by_layer = approximate(objective, "block")
    assert [(block.name, len(block.index)) for block in by_layer.blocks] == [("0", 16), ("2", 10)]
    np.testing.assert_allclose(by_layer.to_dense(), masked(dense, [range(16), range(16, 26)]), atol=1e-13)
    assert approximate(objective, "block", matrix="ggn").positive_semidefinite and not by_layer.positive_semidefinite
    by_parameter = approximate(objective, "block", by="parameter", matrix="ggn")
    assert [block.name for block in by_parameter.blocks] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    groups = [range(12), range(12, 16), range(16, 24), range(24, 26)]
    np.testing.assert_allclose(by_parameter.to_dense(), masked(np.asarray(objective.ggn().to_dense()), groups), atol=1e-13)
    with pytest.raises(ValueError, match="must be 'layer' or 'parameter'"):
        approximate(objective, "block", by="module")
    # An operator of an objective knows its layers, too.
    np.testing.assert_allclose(approximate(objective.hessian(), "block").to_dense(), by_layer.to_dense(), atol=1e-13)
