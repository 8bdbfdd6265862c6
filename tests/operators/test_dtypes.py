"""Types of matrices and vectors: what is widened, what is refused, what rounding is allowed for."""

import numpy as np
import pytest
import scipy.sparse as sparse
from helpers import random_array, rotated

import linop_spectra as ls

H = rotated(np.linspace(-1, 2, 12))
X = random_array((12, 3), np.float64, 1)
NARROW = {"bfloat16": 2.0**-7, "float16": 2.0**-10}


def narrow_array(library, name, values):
    if library == "torch":
        torch = pytest.importorskip("torch")
        return torch.tensor(values, dtype=getattr(torch, name))
    if library == "jax":
        return pytest.importorskip("jax.numpy").asarray(values, dtype=name)
    pytest.importorskip("ml_dtypes")
    return values.astype(name)


@pytest.mark.parametrize("backend", [None, "torch:cpu"])
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_half_precision_works_in_single_precision(library, name, backend):
    if backend:
        pytest.importorskip("torch")
    matrix = narrow_array(library, name, H)
    operator = ls.aslinearoperator(matrix, backend=backend)
    exact = ls.to_numpy(matrix).astype(np.float64)
    assert operator.dtype == np.float32 and operator.hermitian is True and operator.unit_rounding == NARROW[name]
    np.testing.assert_allclose(ls.to_numpy(operator @ X), exact @ X, atol=1e-5)
    np.testing.assert_allclose(ls.lanczos(operator, 12).ritz_values[0], np.linalg.eigvalsh(exact), atol=1e-5)


@pytest.mark.parametrize("name", NARROW)
def test_a_matrix_that_is_symmetric_up_to_its_rounding_runs(name):
    """Entries that were computed in half precision, above and below the diagonal in another order."""
    upper = narrow_array("torch", name, H)
    noisy = ls.to_numpy(upper).astype(np.float64) * (1 + NARROW[name] * np.sign(np.triu(np.ones((12, 12))) - 0.5))
    operator = ls.aslinearoperator(narrow_array("torch", name, noisy))
    assert operator.hermitian is None
    assert ls.lanczos(operator, 6).num_steps == 6
    skew = narrow_array("torch", name, np.triu(np.ones((12, 12))))
    assert ls.aslinearoperator(skew).hermitian is False


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float8_e4m3fn", np.float16, "torch.bfloat16", "jax", "ml_dtypes"], ids=lambda t: str(t)
)
def test_half_precision_vectors_are_refused(dtype):
    if dtype == "torch.bfloat16":
        dtype = pytest.importorskip("torch").bfloat16
    elif dtype == "jax":
        dtype = pytest.importorskip("jax.numpy").bfloat16
    elif dtype == "ml_dtypes":
        dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    for make in (
        lambda: ls.aslinearoperator(lambda x: x, shape=(3, 3), dtype=dtype),
        lambda: ls.aslinearoperator(H, dtype=dtype),
        lambda: ls.identity(3, dtype=dtype),
    ):
        with pytest.raises(TypeError, match=r"inner products mean nothing; pass dtype='float32'\. A matrix or a product may be"):
            make()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ls.identity(3, dtype=np.longdouble), "kept in float32, float64, complex64 or complex128"),
        (lambda: ls.identity(3, dtype="abacus"), "'abacus', which is no type of numbers"),
        (lambda: ls.aslinearoperator(1j * H, dtype=float), "no room for imaginary parts; pass dtype=complex"),
        (lambda: ls.aslinearoperator(sparse.csr_array(1j * H), dtype=float), "no room for imaginary parts"),
        (lambda: ls.aslinearoperator(np.array([[None]])), "holds no numbers"),
    ],
)
def test_types_that_vectors_cannot_have(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_dtypes_of_torch_name_those_of_numpy():
    torch = pytest.importorskip("torch")
    assert ls.aslinearoperator(lambda x: x, shape=(3, 3), dtype=torch.float32).dtype == np.float32
    assert ls.aslinearoperator(torch.tensor(H), dtype=torch.complex64).dtype == np.complex64
    assert ls.aslinearoperator(H.astype(np.longdouble)).dtype == np.float64
    assert ls.aslinearoperator(H.astype(">f8")).dtype == np.dtype("<f8")
    assert ls.aslinearoperator(torch.ones((3, 3), dtype=torch.bool)).dtype == np.float64


def test_a_product_in_a_narrower_type_is_allowed_for():
    """JAX computes in single precision unless told otherwise; its rounding is not taken for asymmetry."""
    operator = ls.aslinearoperator(lambda x: H.astype(np.float32) @ x.astype(np.float32), shape=(12, 12), dtype=np.float64)
    assert operator.unit_rounding == np.finfo(np.float64).eps
    assert (operator @ X).dtype == np.float64
    assert operator.unit_rounding == np.finfo(np.float32).eps == (2 * operator).unit_rounding
    assert ls.lanczos(operator, 8).num_steps == 8
