"""Every method of every backend against plain NumPy in double precision."""

import pickle

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array

from linop_spectra.backends import Backend
from linop_spectra.backends import cupy_backend as cupy_module
from linop_spectra.backends import numpy_backend as numpy_module

N = 301


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]()


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


def wide(x):
    return np.asarray(x).astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def close(there, expected, dtype, factor=100.0):
    expected = np.asarray(expected)
    bound = factor * eps(dtype) * max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(there, expected, atol=bound, rtol=0)


def test_fulfils_the_protocol(backend):
    assert isinstance(backend, Backend) and backend.total_memory() > 0
    backend.synchronize()
    assert backend.reduce(3) == 3


def test_arrays(backend, dtype):
    rows = random_array((4, 7), dtype, 0)
    ours = backend.asarray(rows)
    assert backend.owns(ours) and not backend.owns([1.0])
    assert backend.dtype_of(ours) == dtype and isinstance(backend.dtype_of(ours), np.dtype)
    assert isinstance(backend.to_numpy(ours), np.ndarray)
    np.testing.assert_array_equal(backend.to_numpy(ours), rows)
    np.testing.assert_array_equal(backend.to_numpy(backend.conj(ours)), rows.conj())
    np.testing.assert_array_equal(backend.to_numpy(backend.real(ours)), rows.real)
    np.testing.assert_array_equal(backend.to_numpy(backend.imag(ours)), rows.imag)
    np.testing.assert_array_equal(backend.to_numpy(backend.reshape(ours, (14, 2))), rows.reshape(14, 2))
    index = np.array([5, 0, 3])
    np.testing.assert_array_equal(backend.to_numpy(backend.gather(ours, index)), rows[:, index])
    spread = np.zeros((4, 9), dtype)
    spread[:, [8, 0, 3, 1, 2, 7, 4]] = rows
    np.testing.assert_array_equal(backend.to_numpy(backend.scatter(ours, np.array([8, 0, 3, 1, 2, 7, 4]), 9)), spread)
    assert backend.any(ours == ours) is True and backend.any(ours != ours) is False
    empty = backend.empty((2, 3), dtype)
    assert tuple(empty.shape) == (2, 3) and backend.dtype_of(empty) == dtype


def test_contiguous_copies_only_where_it_must(backend, dtype):
    rows = backend.asarray(random_array((4, 7), dtype, 0))
    assert backend.contiguous(rows) is rows or np.shares_memory(backend.to_numpy(backend.contiguous(rows)), backend.to_numpy(rows))
    turned = backend.contiguous(rows.T)
    np.testing.assert_array_equal(backend.to_numpy(turned), backend.to_numpy(rows).T)
    assert backend.to_numpy(turned).flags.c_contiguous
    double = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    assert backend.dtype_of(backend.contiguous(rows.T, double)) == double


def test_what_a_guarded_array_gets_does_not_reach_the_original(backend, dtype):
    rows = random_array((3, 5), dtype, 0)
    for ours in (backend.asarray(rows.copy()), backend.asarray(rows.copy()).T):
        kept = np.array(backend.to_numpy(ours))
        guarded = backend.guard(ours)
        np.testing.assert_array_equal(backend.to_numpy(guarded), kept)
        if backend.name == "numpy":
            with pytest.raises(ValueError, match="read-only"):
                guarded *= 2
        else:
            guarded *= 2
        np.testing.assert_array_equal(backend.to_numpy(ours), kept)


def test_products_with_the_basis(backend, dtype):
    rows, w = random_array((7, N), dtype, 0), random_array((N,), dtype, 1)
    c, weights = random_array((7,), dtype, 2), random_array((3, 7), np.complex128 if np.dtype(dtype).kind == "c" else np.float64, 3)
    there = backend.gemv_t(backend.asarray(rows), backend.asarray(w))
    assert backend.dtype_of(there) == dtype
    close(backend.to_numpy(there), wide(rows).conj() @ wide(w), dtype)
    target = backend.asarray(w.copy())
    backend.gemv_n_sub(backend.asarray(rows), backend.asarray(c), target)
    close(backend.to_numpy(target), wide(w) - wide(c) @ wide(rows), dtype)
    combined = backend.combine(weights, backend.asarray(rows))
    assert backend.dtype_of(combined) == dtype
    close(backend.to_numpy(combined), weights @ wide(rows), dtype)


def number(backend, scalar):
    return complex(backend.to_numpy(scalar))


def test_scalars(backend, dtype):
    x, y = random_array((N,), dtype, 0), random_array((N,), dtype, 1)
    one, two = backend.asarray(x), backend.asarray(y)
    exact = np.vdot(wide(x), wide(y))
    # The products are exact in double precision, whatever the arrays hold.
    assert number(backend, backend.dot(one, two)) == pytest.approx(exact, abs=1e-13 * float(np.linalg.norm(x) * np.linalg.norm(y)))
    assert number(backend, backend.norm(one)) == pytest.approx(np.linalg.norm(wide(x)), rel=1e-13)
    for scalar in (backend.dot(one, two), backend.norm(one)):
        host = np.asarray(backend.to_numpy(scalar))
        assert host.shape == () and host.dtype in (np.float64, np.complex128)
    fetched = backend.fetch([backend.norm(one), backend.norm(two), 2.5])
    assert fetched.dtype == np.float64 and isinstance(fetched, np.ndarray)
    np.testing.assert_allclose(fetched, [np.linalg.norm(wide(x)), np.linalg.norm(wide(y)), 2.5], rtol=1e-13)
    mixed = backend.fetch([backend.norm(one), backend.dot(one, two)])
    np.testing.assert_allclose(mixed, [np.linalg.norm(wide(x)), exact], rtol=1e-10, atol=1e-12)


def test_updates(backend, dtype):
    x, y = random_array((N,), dtype, 0), random_array((N,), dtype, 1)
    factors = [-1.75, backend.dot(backend.asarray(x), backend.asarray(y))]
    for factor in factors:
        target = backend.asarray(y.copy())
        backend.axpy(factor, backend.asarray(x), target)
        close(backend.to_numpy(target), wide(y) + np.asarray(backend.to_numpy(factor)) * wide(x), dtype)
    for factor in (0.3, 1 / backend.norm(backend.asarray(x))):
        out = backend.empty((N,), dtype)
        backend.scale_into(backend.asarray(x), factor, out)
        close(backend.to_numpy(out), np.real(backend.to_numpy(factor)) * wide(x), dtype)
    own = backend.asarray(x.copy())
    backend.scale_into(own, 2.0, own)
    np.testing.assert_array_equal(backend.to_numpy(own), 2 * x)


def test_reciprocals(backend):
    vectors = {4.0: 0.25, 1.0: 0.0, 0.0: 0.0, np.nan: 0.0}
    for value, expected in vectors.items():
        scalar = backend.norm(backend.asarray(np.array([value])))
        with np.errstate(divide="ignore"):
            assert number(backend, backend.safe_reciprocal(scalar, 1.0)) == expected


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_norms_neither_under_nor_overflow(backend, dtype, share):
    largest = float(np.finfo(dtype).max) ** share
    x = random_array((50,), dtype, 0)
    for scale in (largest, 1 / largest):
        scaled = (x * scale).astype(dtype)
        exact = float(np.linalg.norm(wide(scaled) / scale)) * scale
        assert number(backend, backend.norm(backend.asarray(scaled))) == pytest.approx(exact, rel=1e-12)
    assert number(backend, backend.norm(backend.asarray(np.zeros(5, dtype)))) == 0
    assert number(backend, backend.norm(backend.asarray(np.zeros(0, dtype)))) == 0


def test_norms_of_what_is_not_finite(backend, dtype):
    with np.errstate(invalid="ignore"):
        assert np.isnan(number(backend, backend.norm(backend.asarray(np.array([1, np.nan, 2], dtype)))))
        assert np.isinf(number(backend, backend.norm(backend.asarray(np.array([1, np.inf, 2], dtype)))).real)


@pytest.mark.parametrize("name", ["numpy", "cupy on numpy", "torch", "torch as on a device"])
def test_long_vectors_go_piece_by_piece(name, dtype, monkeypatch):
    """The limit of 32-bit BLAS integers, made small: whatever is longer takes another way to the same numbers."""
    backend = BACKENDS[name]()
    monkeypatch.setattr(numpy_module, "BLAS_LIMIT", 64)
    monkeypatch.setattr(cupy_module, "CUBLAS_LIMIT", 64)
    if name.startswith("torch"):
        from linop_spectra.backends import torch_backend

        monkeypatch.setattr(torch_backend, "BLAS_LIMIT", 64)
        monkeypatch.setattr(torch_backend, "_PIECE", 100)
    test_products_with_the_basis(backend, dtype)
    test_scalars(backend, dtype)
    test_updates(backend, dtype)
    test_norms_neither_under_nor_overflow(backend, dtype, 0.9)


@pytest.mark.parametrize("n", [1, 2, 1023, 1024, 1025, 5000])
def test_folding_a_vector_loses_nothing(n):
    """The CuPy backend sums rows of a folded vector; every length must be covered exactly once."""
    x = np.arange(1.0, n + 1)
    parts = list(cupy_module._folded(x))
    np.testing.assert_array_equal(np.sort(np.concatenate([part.ravel() for part in parts])), x)
    assert number(BACKENDS["cupy on numpy"](), BACKENDS["cupy on numpy"]().dot(x, x)) == pytest.approx(np.sum(x**2), rel=1e-14)


def test_pickling(backend):
    if backend.name == "strict":
        pytest.skip("array-api-strict's arrays cannot be pickled")
    again = pickle.loads(pickle.dumps(backend))
    assert again.name == backend.name and again.eager_scalars == backend.eager_scalars
    assert number(again, again.norm(again.asarray(np.array([3.0, 4.0])))) == 5
