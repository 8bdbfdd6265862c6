"""The core on a CUDA device: the numbers of NumPy, nothing brought to the host inside the loop, very long arrays.

Run with ``make test-gpu``. Everything is skipped where there is no device.
"""

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array, rotated

import linop_spectra as ls
from linop_spectra.backends import get_backend
from linop_spectra.backends.cupy_backend import cupy_usable
from linop_spectra.backends.numpy_backend import NumpyBackend
from linop_spectra.krylov.recurrence import Recurrence
from linop_spectra.krylov.storage import plan_basis

pytestmark = pytest.mark.gpu

EIGENVALUES = np.r_[np.linspace(-1, 1, 190), np.linspace(5, 20, 10)]
POSITIVE = np.r_[np.linspace(0.1, 1, 190), np.linspace(5, 20, 10)]


def torch_cuda():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.fixture(params=["cupy", "torch"])
def device(request):
    if request.param == "cupy" and not cupy_usable():
        pytest.skip("CuPy sees no device")
    if request.param == "torch" and not torch_cuda():
        pytest.skip("torch sees no CUDA device")
    return get_backend(request.param if request.param == "cupy" else "torch:cuda")


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


def both(eigenvalues, device, dtype=np.float64):
    matrix = rotated(eigenvalues, dtype=dtype)
    return ls.aslinearoperator(matrix), ls.aslinearoperator(matrix, backend=device)


def same(there, here, dtype=np.float64):
    tolerance = 1e-10 if eps(dtype) < 1e-10 else 2e-3
    here = np.asarray(here)
    np.testing.assert_allclose(there, here, atol=tolerance * max(1.0, float(np.abs(here).max())), rtol=0)


# -- the backend -----------------------------------------------------------------------------------------------------------


def test_methods(device, dtype):
    host = NumpyBackend()
    n = 100_003
    rows, x, y = random_array((7, n), dtype, 0), random_array((n,), dtype, 1), random_array((n,), dtype, 2)
    weights, c = random_array((3, 7), dtype, 3), random_array((7,), dtype, 4)
    up, down = device.asarray, device.to_numpy
    bound = {"rtol": 1e4 * eps(dtype), "atol": 2e4 * eps(dtype)}
    assert device.eager_scalars is False
    np.testing.assert_allclose(down(device.gemv_t(up(rows), up(x))), host.gemv_t(rows, x), **bound)
    np.testing.assert_allclose(down(device.combine(weights, up(rows))), host.combine(weights, rows), **bound)
    # Inner products and norms accumulate in double precision whatever the arrays hold.
    np.testing.assert_allclose(down(device.dot(up(x), up(y))), host.dot(x, y), rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(down(device.norm(up(x))), host.norm(x), rtol=1e-12)
    for method, arguments in (("gemv_n_sub", (rows, c)), ("axpy", (np.float64(-1.7), x))):
        here, there = y.copy(), up(y.copy())
        getattr(host, method)(*arguments, here)
        getattr(device, method)(*(up(a) if np.ndim(a) else a for a in arguments), there)
        np.testing.assert_allclose(down(there), here, **bound)
    there = up(y.copy())
    device.axpy(device.dot(up(x), up(x)), up(x), there)  # a scalar that is on the device
    np.testing.assert_allclose(down(there), y + host.dot(x, x) * x, rtol=1e4 * eps(dtype), atol=1e4 * eps(dtype) * n)
    out = device.empty((n,), dtype)
    device.scale_into(up(x), 1.0 / device.norm(up(x)), out)
    np.testing.assert_allclose(down(out), x / np.linalg.norm(x), **bound)
    index = np.array([5, 0, 99_999])
    np.testing.assert_array_equal(down(device.gather(up(rows), index)), rows[:, index])
    np.testing.assert_array_equal(down(device.scatter(up(rows[:, :3]), index, n))[:, index], rows[:, :3])
    largest = float(np.finfo(dtype).max) ** 0.9
    for scale in (largest, 1 / largest):
        scaled = (x[:50] * scale).astype(dtype)
        np.testing.assert_allclose(down(device.norm(up(scaled))), host.norm(scaled), rtol=1e-6)
    assert np.isnan(down(device.norm(up(np.array([1, np.nan], dtype))))) and np.isinf(down(device.norm(up(np.array([1, np.inf], dtype)))))
    for kind in ("sphere", "normal", "sign"):
        options = {"kind": kind, "seed": 1, "domain": "probe", "dtype": dtype}
        np.testing.assert_array_equal(down(device.probes(50, (0, 3), **options)), host.probes(50, (0, 3), **options))


# -- the same numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reorthogonalize, steps", [("full", 40), ("none", 12)])
def test_lanczos(device, dtype, reorthogonalize, steps):
    here, there = (ls.lanczos(a, steps, num_probes=3, reorthogonalize=reorthogonalize) for a in both(EIGENVALUES, device, dtype))
    same(there.alphas, here.alphas, dtype)
    same(there.betas, here.betas, dtype)
    assert isinstance(there.alphas, np.ndarray)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_eigsh(device, which):
    here, there = (ls.eigsh(a, 4, which=which, tol=1e-11) for a in both(EIGENVALUES, device))
    same(there.eigenvalues, here.eigenvalues)
    assert there.converged.all() and device.owns(there.eigenvectors)


def test_spectral_density(device):
    here, there = (ls.spectral_density(a, num_steps=50, num_probes=2, seed=0) for a in both(EIGENVALUES, device))
    grid = np.linspace(-2, 21.37, 400)
    same(there.cdf(grid), here.cdf(grid))
    same(there.trace().value, here.trace().value)
    assert isinstance(there.nodes, np.ndarray)


def test_estimates(device):
    for estimate in (ls.trace, ls.frobenius_norm):
        here, there = (estimate(a, num_matvecs=40) for a in both(POSITIVE, device))
        same(there.value, here.value)
        same(there.standard_error, here.standard_error)
    here, there = (ls.spectral_norm(a, tol=1e-11) for a in both(EIGENVALUES, device))
    same(there.value, here.value)


def test_operators(device, dtype):
    """The algebra and every wrapper, against the same on NumPy."""
    square, wide = rotated(EIGENVALUES[:20], dtype=dtype), random_array((20, 12), dtype, 1)

    def zoo(place):
        a, b = ls.aslinearoperator(square, backend=place), ls.aslinearoperator(wide, backend=place)
        yield from (a + 2 * a @ a, b.H @ a @ b, b.T, -a, ls.compress(a, b), ls.shift(a, 1.5), ls.kronecker(b, a))
        yield from (ls.block_diagonal([a, b]), ls.submatrix(a, [4, 0, 2]), ls.identity(5, dtype=dtype, backend=place))
        yield ls.diagonal_operator(random_array((20,), dtype, 2), backend=place)
        yield ls.low_rank(wide, np.arange(12.0), backend=place)
        yield ls.aslinearoperator(_sparse(square), backend=place)

    for here, there in zip(zoo("numpy"), zoo(device), strict=True):
        np.testing.assert_allclose(device.to_numpy(there.to_dense()), here.to_dense(), atol=2e3 * eps(dtype) * 400)
        assert ls.check_operator(there).passed, repr(there)


def _sparse(matrix):
    from scipy import sparse

    return sparse.csr_array(np.where(np.abs(matrix) > 0.1, matrix, 0))


def test_tensors_on_the_device_go_to_the_right_backend():
    if not torch_cuda():
        pytest.skip("torch sees no CUDA device")
    import torch

    tensor = torch.tensor(rotated(EIGENVALUES), device="cuda")
    assert ls.aslinearoperator(tensor).backend.name == ("cupy" if cupy_usable() else "torch:cuda:0")
    assert ls.aslinearoperator(tensor, backend="torch").backend.name == "torch:cuda:0"
    same(ls.lanczos(tensor, 20).alphas, ls.lanczos(rotated(EIGENVALUES), 20).alphas)


def test_cupy_on_the_memory_of_torch():
    if not (cupy_usable() and torch_cuda()):
        pytest.skip("needs CuPy and torch on one device")
    import torch

    from linop_spectra.backends.torch_memory import CupyBesideTorch

    before = torch.cuda.memory_allocated()
    beside = CupyBesideTorch()
    rows = beside.empty((4, 1 << 20), np.float32)
    assert torch.cuda.memory_allocated() - before >= rows.nbytes
    here, there = both(EIGENVALUES, beside)
    same(ls.lanczos(there, 20).alphas, ls.lanczos(here, 20).alphas)
    del rows
    assert torch.cuda.memory_allocated() < before + (1 << 24)


# -- no transfers inside the loop ------------------------------------------------------------------------------------------


class Watched(ls.LinearOperator):
    """Tells when a product is asked for, so that a test can look at what happens between two of them."""

    def __init__(self, matrix, device):
        self.matrix, self.seen = device.asarray(matrix), 0
        super().__init__(matrix.shape, matrix.dtype, hermitian=True, backend=device)

    def _matmat(self, x):
        self.seen += 1
        return self.matrix @ x


def test_torch_never_waits_inside_a_step(monkeypatch):
    if not torch_cuda():
        pytest.skip("torch sees no CUDA device")
    import torch

    device = get_backend("torch:cuda")
    operator = Watched(rotated(EIGENVALUES), device)
    fetches = []

    def patiently(original):
        def fetch(scalars):
            fetches.append(operator.seen)
            torch.cuda.set_sync_debug_mode("default")
            try:
                return original(scalars)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        return fetch

    # The first steps set up; from then on everything but fetch raises if it waits.
    run = ls.lanczos(operator, 4)
    operator.seen = 0
    monkeypatch.setattr(device, "fetch", patiently(device.fetch))
    start = device.probes(200, (0,), kind="sphere", seed=0, domain="probe", dtype=float)
    state = Recurrence(operator, start, plan=plan_basis(operator, 32, 1, "full", None))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(32):
            state.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(fetches) <= 4
    same(np.array(state.alphas)[:4, 0], run.alphas[0])


def test_cupy_fetches_once_in_eight_steps(monkeypatch):
    if not cupy_usable():
        pytest.skip("CuPy sees no device")
    device = get_backend("cupy")
    operator = Watched(rotated(EIGENVALUES), device)
    transfers = []
    original = type(device).to_numpy

    def counted(self, x):
        transfers.append(1)
        return original(self, x)

    monkeypatch.setattr(type(device), "to_numpy", counted)
    start = device.probes(200, (0,), kind="sphere", seed=0, domain="probe", dtype=float)
    state = Recurrence(operator, start, plan=plan_basis(operator, 32, 1, "full", None))
    for _ in range(32):
        state.step()
    assert len(transfers) <= 4


def test_a_lanczos_step_can_be_captured():
    """A stream that is being captured refuses whatever waits for the device."""
    if not cupy_usable():
        pytest.skip("CuPy sees no device")
    import cupy

    device = get_backend("cupy")
    x, y = (device.asarray(random_array((10_000,), np.float32, seed)) for seed in range(2))
    rows = device.asarray(random_array((16, 10_000), np.float32, 2))
    out = device.empty((10_000,), np.float32)

    def step():
        alpha = device.dot(x, y)
        device.axpy(-alpha, x, y)
        coefficients = device.gemv_t(rows, y)
        device.gemv_n_sub(rows, coefficients, y)
        beta = device.norm(y)
        device.scale_into(y, device.safe_reciprocal(beta, 1e-6 * beta), out)

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        step()  # compiles, and warms the pool and the handle of cuBLAS
        stream.synchronize()
        stream.begin_capture()
        try:
            step()
        finally:
            graph = stream.end_capture()
    assert graph is not None


# -- very long arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_basis_of_more_elements_than_32_bits_count(device):
    """Sixteen rows of 1.4e8 entries: 2.2e9 elements, 9 GB; offsets must be counted in 64 bits."""
    n, rows = 140_000_000, 16
    basis = device.empty((rows, n), np.float32)
    basis[...] = 0
    basis[rows - 1, n - 1] = 3.0
    basis[rows - 1, 0] = 4.0
    w = device.empty((n,), np.float32)
    w[...] = 0
    w[n - 1 :] = 1.0
    coefficients = device.gemv_t(basis, w)
    np.testing.assert_array_equal(device.to_numpy(coefficients), [0.0] * (rows - 1) + [3.0])
    device.gemv_n_sub(basis, coefficients, w)
    np.testing.assert_array_equal(device.to_numpy(w[n - 1 :]), [-8.0])
    np.testing.assert_array_equal(device.to_numpy(w[:1]), [-12.0])
    assert float(device.to_numpy(device.norm(basis[rows - 1, :]))) == pytest.approx(5.0, rel=1e-12)


@pytest.mark.slow
def test_a_vector_of_more_elements_than_32_bits_count(device):
    """2.2e9 entries, 9 GB a vector: longer than cuBLAS counts."""
    n = 2_200_000_000
    x = device.empty((n,), np.float32)
    x[...] = 0
    x[n - 1 :] = 2.0
    x[:1] = 1.0
    assert float(device.to_numpy(device.dot(x, x))) == 5.0
    assert float(device.to_numpy(device.norm(x))) == pytest.approx(np.sqrt(5.0))
    basis = x[None, :]
    coefficients = device.gemv_t(basis, x)
    np.testing.assert_array_equal(device.to_numpy(coefficients), [5.0])
    y = device.empty((n,), np.float32)
    y[...] = 0
    device.gemv_n_sub(basis, coefficients, y)
    np.testing.assert_array_equal(device.to_numpy(y[n - 1 :]), [-10.0])
    device.axpy(1.0, x, y)
    np.testing.assert_array_equal(device.to_numpy(y[:1]), [-4.0])
