"""The NumPy backend against plain NumPy, and its numerical promises."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array

import linop_spectra as ls
from linop_spectra.backends import Backend, backend_of, get_backend
from linop_spectra.backends.numpy_backend import NumpyBackend, aligned_empty


@pytest.fixture
def backend():
    return NumpyBackend()


def test_fulfils_the_protocol(backend):
    assert isinstance(backend, Backend) and backend.eager_scalars is True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (16, 1000)])
def test_arrays_are_aligned_and_writable(backend, dtype, shape):
    for _ in range(5):
        x = backend.empty(shape, dtype)
        assert x.shape == shape and x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable
        assert x.ctypes.data % 64 == 0
        x[...] = 1
    assert aligned_empty((2, 3), "f4").dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_the_basis(backend, dtype):
    rows, w = random_array((9, 400), dtype, 0), random_array((400,), dtype, 1)
    tolerance = 100 * eps(dtype)
    np.testing.assert_allclose(backend.gemv_t(rows, w), rows.conj() @ w, atol=20 * tolerance)
    coefficients = random_array((9,), dtype, 2)
    expected = w - coefficients @ rows
    out = w.copy()
    backend.gemv_n_sub(rows, coefficients, out)
    np.testing.assert_allclose(out, expected, atol=tolerance)
    weights = random_array((4, 9), dtype, 3)
    combined = backend.combine(weights, rows)
    assert combined.dtype == dtype
    np.testing.assert_allclose(combined, weights @ rows, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subtraction_works_on_views_and_mixed_types(backend, dtype):
    """A strided target, strided rows and coefficients in double precision all end in the caller's array."""
    rows, w = random_array((5, 64), dtype, 0), random_array((64,), dtype, 1)
    coefficients = random_array((5,), np.complex128 if np.dtype(dtype).kind == "c" else np.float64, 2)
    expected = w - coefficients @ rows
    strided = np.repeat(w, 2)[::2]
    backend.gemv_n_sub(rows, coefficients.astype(dtype), strided)
    np.testing.assert_allclose(strided, expected, atol=50 * eps(dtype))
    own = w.copy()
    backend.gemv_n_sub(np.repeat(rows, 2, axis=1)[:, ::2], coefficients.astype(dtype), own)
    np.testing.assert_allclose(own, expected, atol=50 * eps(dtype))
    own = w.copy()
    backend.gemv_n_sub(rows, coefficients, own)
    np.testing.assert_allclose(own, expected, atol=50 * eps(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_inner_products_of_single_precision_do_not_lose_digits_with_length(backend, dtype):
    """Summed in single precision they would be wrong by ``sqrt(n) eps`` or so, and equal terms by ``n eps``."""
    n = 200_003
    x = random_array((n,), dtype, 0)
    y = x + random_array((n,), dtype, 1)
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    exact = np.vdot(x.astype(wide), y.astype(wide))
    assert abs(backend.dot(x, y) - exact) < 0.05 * eps(dtype) * abs(exact)
    assert backend.norm(x) == pytest.approx(np.linalg.norm(x.astype(wide)), rel=0.05 * eps(dtype))
    assert np.asarray(backend.dot(x, y)).dtype == wide
    # Terms that all round the same way: nothing but the rounding of one of them.
    same = np.full(n, 0.1, dtype)
    assert abs(backend.dot(same, same) / (n * wide(same[0]) ** 2) - 1) < eps(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inner_product_conjugates_the_first(backend, dtype):
    x, y = random_array((30,), dtype, 0), random_array((30,), dtype, 1)
    assert backend.dot(x, y) == pytest.approx(np.sum(x.conj() * y), rel=1e3 * eps(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_norm_neither_under_nor_overflows(backend, dtype, share):
    """Entries whose squares leave the range of the type."""
    largest = float(np.finfo(dtype).max) ** share
    x = random_array((50,), dtype, 0)
    for scale in (largest, 1 / largest):
        assert backend.norm((x * scale).astype(dtype)) == pytest.approx(scale * np.linalg.norm(x), rel=10 * eps(dtype))
    assert backend.norm(np.zeros(5, dtype)) == 0.0


def test_norm_of_what_is_not_finite(backend):
    assert np.isnan(backend.norm(np.array([1.0, np.nan]))) and np.isinf(backend.norm(np.array([1.0, np.inf])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_and_updates(backend, dtype):
    x, y = random_array((20,), dtype, 0), random_array((20,), dtype, 1)
    out = y.copy()
    backend.axpy(-0.25, x, out)
    np.testing.assert_allclose(out, y - 0.25 * x, rtol=10 * eps(dtype), atol=10 * eps(dtype))
    backend.scale_into(x, 3.0, out)
    np.testing.assert_array_equal(out, (3 * x).astype(dtype))
    assert out.dtype == dtype
    assert (
        backend.safe_reciprocal(4.0, 1.0) == 0.25
        and backend.safe_reciprocal(1.0, 1.0) == 0.0
        and backend.safe_reciprocal(np.nan, 0.0) == 0.0
    )
    np.testing.assert_array_equal(backend.fetch([1.0, np.float64(2.0)]), [1, 2])


def test_lookup():
    assert get_backend(None) is get_backend("numpy") and get_backend("numpy").name == "numpy"
    own = NumpyBackend()
    assert get_backend(own) is own and backend_of([1.0]).name == "numpy"
    with pytest.raises(ValueError, match=r"The argument backend is 'tpu', but .*\."):
        get_backend("tpu")


def test_arrays_of_other_libraries_come_over():
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    x = np.arange(4.0, dtype=np.float32)
    for foreign in (torch.tensor(x, requires_grad=True), torch.tensor(x), jnp.asarray(x), x, list(x)):
        out = ls.to_numpy(foreign)
        assert isinstance(out, np.ndarray)
        np.testing.assert_array_equal(out, x)
    z = torch.tensor([1 + 2j]).conj()  # a lazy conjugate
    np.testing.assert_array_equal(ls.to_numpy(z), [1 - 2j])
    np.testing.assert_array_equal(NumpyBackend().from_dlpack(torch.arange(3.0)), [0, 1, 2])


def test_importing_the_link_says_what_to_import():
    from helpers import ROOT

    done = subprocess.run([sys.executable, "-c", "import backends"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "Import linop_spectra.backends" in done.stderr
