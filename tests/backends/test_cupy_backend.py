"""The CuPy backend: its own lines on NumPy arrays against the NumPy backend, and on a device where there is one.

Its scalars stay where the arrays are and are read back a few steps at a time. Everything that the core decides late because of
that (breakdowns, NaN, asymmetry) must come out as in the run that decides at once.
"""

import numpy as np
import pytest
from helpers import DTYPES, device_of_numpy, eps, random_array, rotated

import linop_spectra as ls
from linop_spectra.backends import Backend, get_backend
from linop_spectra.backends.cupy_backend import cupy_usable
from linop_spectra.backends.numpy_backend import NumpyBackend

EIGENVALUES = np.r_[np.linspace(-1, 1, 190), np.linspace(5, 20, 10)]


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


class Recording(ls.LinearOperator):
    """A matrix on either backend, with the number of vectors of each product."""

    def __init__(self, matrix, backend, hermitian=True):
        self.matrix, self.widths = matrix, []
        super().__init__(matrix.shape, matrix.dtype, hermitian=hermitian, backend=backend)

    def _matmat(self, x):
        self.widths.append(x.shape[1])
        return self.matrix @ x


def pair(matrix, **options):
    matrix = np.asarray(matrix)
    return Recording(matrix, "numpy", **options), Recording(matrix, device_of_numpy(), **options)


# -- every method ----------------------------------------------------------------------------------------------------------


def test_fulfils_the_protocol():
    device = device_of_numpy()
    assert isinstance(device, Backend) and device.name == "cupy" and device.eager_scalars is False


def test_methods_agree_with_numpy(dtype):
    host, device = NumpyBackend(), device_of_numpy()
    rows, x, y = random_array((7, 300), dtype, 0), random_array((300,), dtype, 1), random_array((300,), dtype, 2)
    c, weights = random_array((7,), dtype, 3), random_array((3, 7), dtype, 4)
    tolerance = {"rtol": 1e3 * eps(dtype), "atol": 300 * eps(dtype)}
    for name, arguments in {"gemv_t": (rows, x), "combine": (weights, rows), "dot": (x, y), "norm": (x,)}.items():
        here, there = getattr(host, name)(*arguments), getattr(device, name)(*arguments)
        np.testing.assert_allclose(device.to_numpy(there), here, **tolerance, err_msg=name)
        assert np.asarray(there).dtype == np.asarray(here).dtype, name
    for name, arguments in {"gemv_n_sub": (rows, c), "axpy": (np.float64(-1.7), x)}.items():
        here, there = y.copy(), y.copy()
        getattr(host, name)(*arguments, here)
        getattr(device, name)(*arguments, there)
        np.testing.assert_allclose(there, here, **tolerance, err_msg=name)
    here, there = np.empty_like(x), np.empty_like(x)
    host.scale_into(x, 0.3, here)
    device.scale_into(x, np.asarray(0.3), there)
    np.testing.assert_array_equal(there, here)
    np.testing.assert_array_equal(device.fetch([np.asarray(1.5), 2.5, np.float32(3)]), host.fetch([1.5, 2.5, 3]))
    for value, threshold in ((4.0, 1.0), (1.0, 1.0), (0.0, 0.0), (np.nan, 0.0), (5e-324, 0.0)):
        with np.errstate(over="ignore"):
            assert device.safe_reciprocal(np.asarray(value), threshold) == host.safe_reciprocal(np.float64(value), threshold)
    assert device.empty((2, 3), dtype).shape == (2, 3) and device.empty((2, 3), dtype).dtype == dtype
    assert device.reduce(x) is x and device.owns(x) and not device.owns([1.0]) and device.total_memory() > 0
    device.synchronize()
    np.testing.assert_array_equal(device.asarray([1, 2], dtype=dtype), np.asarray([1, 2], dtype=dtype))


def test_torch_tensors_come_over():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(device_of_numpy().asarray(torch.arange(3.0, requires_grad=True)), [0, 1, 2])


def test_dot_of_single_precision_is_accumulated_in_double_precision():
    x = random_array((100_000,), np.float32, 0)
    exact = float(x.astype(np.float64) @ x.astype(np.float64))
    # Rounding of single products averages out; summing in single precision would lose four more digits.
    assert float(device_of_numpy().dot(x, x)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norm_neither_under_nor_overflows(dtype):
    x = random_array((50,), dtype, 0)
    largest = float(np.finfo(dtype).max) ** 0.9
    for scale in (largest, 1 / largest):
        scaled = (x * scale).astype(dtype)
        assert float(device_of_numpy().norm(scaled)) == pytest.approx(NumpyBackend().norm(scaled), rel=1e-5)


# -- whole runs ------------------------------------------------------------------------------------------------------------


def same_run(here, there, tolerance=1e-10):
    np.testing.assert_array_equal(there.num_steps_taken, here.num_steps_taken)
    scale = max(1.0, float(np.abs(here.alphas).max()))
    np.testing.assert_allclose(there.alphas, here.alphas, atol=tolerance * scale)
    np.testing.assert_allclose(there.betas, here.betas, atol=tolerance * scale)
    assert isinstance(there.alphas, np.ndarray) and there.status == here.status


@pytest.mark.parametrize("reorthogonalize, steps", [("full", 40), ("none", 12)])
@pytest.mark.parametrize("probes", [1, 3])
def test_lanczos_runs_agree(dtype, reorthogonalize, steps, probes):
    """Without reorthogonalisation rounding grows, so that run is short."""
    host, device = pair(rotated(EIGENVALUES, dtype=dtype))
    here, there = (ls.lanczos(a, steps, num_probes=probes, reorthogonalize=reorthogonalize, seed=2) for a in (host, device))
    same_run(here, there, 1e-10 if eps(dtype) < 1e-10 else 1e-3)
    np.testing.assert_allclose(there.ritz_values, here.ritz_values, atol=1e-10 if eps(dtype) < 1e-10 else 1e-4)
    if reorthogonalize == "full" and probes > 1:
        np.testing.assert_allclose(there.start_overlaps, here.start_overlaps, atol=1e-8 if eps(dtype) < 1e-10 else 1e-2)


# Matrix and number of distinct eigenvalues: the step at which the Krylov space becomes invariant.
BREAKDOWNS = {
    "identity": (np.eye(30), 1),
    "zero": (np.zeros((30, 30)), 1),
    "rank one": (7 * np.outer(np.ones(30), np.ones(30)), 2),
    "projector": (np.diag(np.r_[np.ones(11), np.zeros(19)]), 2),
    "three eigenvalues": (rotated(np.repeat([-2.0, 1.0, 5.0], 10)), 3),
    "eleven eigenvalues": (rotated(np.repeat(np.arange(1.0, 12.0), 3)), 11),
    "order one": (np.array([[3.0]]), 1),
    "order two": (np.array([[1.0, 2.0], [2.0, -1.0]]), 2),
}


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 20, 64])
@pytest.mark.parametrize("name", BREAKDOWNS)
def test_breakdowns_agree(name, steps):
    """Eleven eigenvalues break down between two looks of the device; every number of steps around it is tried."""
    matrix, distinct = BREAKDOWNS[name]
    steps = min(steps, len(matrix))
    host, device = pair(matrix)
    here, there = (ls.lanczos(a, steps, num_probes=2, seed=0) for a in (host, device))
    k = min(steps, distinct)
    same = {"atol": 1e-10 * max(1.0, np.abs(matrix).max() * len(matrix))}
    np.testing.assert_allclose(there.alphas[:, :k], here.alphas[:, :k], **same)
    np.testing.assert_allclose(there.betas[:, : k - 1], here.betas[:, : k - 1], **same)
    np.testing.assert_allclose(there.betas[:, k - 1 : k], here.betas[:, k - 1 : k], **same)
    assert np.all(there.num_steps_taken >= k) and np.all(np.isfinite(there.alphas)) and np.all(np.isfinite(there.betas))


@pytest.mark.parametrize("name", ["identity", "zero", "projector", "order one"])
def test_breakdowns_have_the_same_shape(name):
    """Where rounding leaves no doubt about the breakdown, both runs are equally long, whenever it was noticed."""
    matrix, distinct = BREAKDOWNS[name]
    for operator in pair(matrix):
        run = ls.lanczos(operator, min(20, len(matrix)), num_probes=2, seed=0)
        np.testing.assert_array_equal(run.num_steps_taken, distinct)
        assert run.num_steps == distinct and run.betas[0, -1] == 0


@pytest.mark.parametrize("name", BREAKDOWNS)
def test_densities_of_breakdowns_agree(name):
    host, device = pair(BREAKDOWNS[name][0])
    here, there = (ls.spectral_density(a, num_probes=2, seed=1) for a in (host, device))
    grid = np.linspace(-3, 300, 1001) + 0.123
    np.testing.assert_allclose(there.cdf(grid), here.cdf(grid), atol=1e-10)
    assert there.trace().value == pytest.approx(here.trace().value, rel=1e-9, abs=1e-9)
    assert np.all(np.isfinite(there.nodes)) and there.weights.sum() == pytest.approx(1, abs=1e-12)


def test_more_steps_than_the_order_agree():
    host, device = pair(rotated(np.arange(1.0, 13.0)))
    runs = []
    for operator in (host, device):
        with pytest.warns(UserWarning, match="num_steps = 40 is more than the order 12"):
            runs.append(ls.lanczos(operator, 40, num_probes=2))
    same_run(*runs)
    np.testing.assert_allclose(runs[1].ritz_values, [np.arange(1.0, 13.0)] * 2, atol=1e-10)


def test_spectral_density_agrees(dtype):
    host, device = pair(rotated(EIGENVALUES, dtype=dtype))
    here, there = (ls.spectral_density(a, num_steps=50, num_probes=2, seed=0) for a in (host, device))
    tolerance = 1e-10 if eps(dtype) < 1e-10 else 1e-3
    grid = np.linspace(-2, 21.37, 400)  # no point falls on an eigenvalue, where rounding decides on which side of a jump it is
    np.testing.assert_allclose(there.cdf(grid), here.cdf(grid), atol=tolerance)
    for method in ("trace", "negative_mass", "bulk_edges"):
        one, two = getattr(here, method)(), getattr(there, method)()
        np.testing.assert_allclose(
            np.asarray(getattr(two, "value", two)), np.asarray(getattr(one, "value", one)), rtol=tolerance, atol=tolerance
        )
    assert len(there.outliers()) == len(here.outliers()) == 10
    assert np.isfinite(there.noise_floor) and there.noise_floor == pytest.approx(here.noise_floor, rel=2)


def test_a_run_is_carried_from_the_device_to_the_host_and_back(tmp_path):
    host, device = pair(rotated(EIGENVALUES))
    whole = ls.lanczos(host, 30, num_probes=2)
    ls.lanczos(device, 11, num_probes=2).save(tmp_path / "run.npz")
    same_run(whole, ls.load(tmp_path / "run.npz").extend(19, operator=device))
    same_run(whole, ls.load(tmp_path / "run.npz").extend(19, operator=host))


def test_resumed_runs_are_bit_identical_whatever_the_cut():
    """Cuts before, at and after the eight steps between two looks."""
    _, device = pair(rotated(EIGENVALUES))
    whole = ls.lanczos(device, 24, num_probes=2)
    for cut in (1, 7, 8, 9, 15, 16, 17, 23):
        again = ls.lanczos(device, cut, num_probes=2).extend(24 - cut, operator=device)
        np.testing.assert_array_equal(again.alphas, whole.alphas)
        np.testing.assert_array_equal(again.betas, whole.betas)


@pytest.mark.parametrize("bad_product", [1, 2, 5, 8, 9, 12])
def test_nan_is_reported_at_its_step(bad_product):
    """The device notices late, but names the same step and keeps the same steps as the host."""

    class Failing(Recording):
        def _matmat(self, x):
            product = super()._matmat(x)
            return product * np.nan if len(self.widths) == bad_product else product

    matrix, kept = rotated(EIGENVALUES), []
    for backend in ("numpy", device_of_numpy()):
        with pytest.raises(ls.NonFiniteProductError, match=f"step {bad_product} ") as caught, np.errstate(invalid="ignore"):
            ls.lanczos(Failing(matrix, backend), 20)
        kept.append(caught.value.partial)
        assert caught.value.step == bad_product - 1 == caught.value.partial.num_steps
    if bad_product > 1:
        same_run(*kept)


def test_asymmetry_is_found():
    skew = np.random.default_rng(0).standard_normal((80, 80))
    for operator in pair(skew):
        with pytest.raises(ValueError, match="not symmetric"):
            ls.lanczos(operator, 30)


def test_asymmetry_is_found_in_a_short_run():
    """Shorter than the distance between two looks."""
    skew = np.random.default_rng(0).standard_normal((80, 80))
    for operator in pair(skew):
        with pytest.raises(ValueError, match="not symmetric"):
            ls.lanczos(operator, 4)


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_interruption_between_two_looks_keeps_the_steps(interruption):
    class Failing(Recording):
        def _matmat(self, x):
            if len(self.widths) == 6:
                raise interruption("stop")
            return super()._matmat(x)

    operator = Failing(rotated(EIGENVALUES), device_of_numpy())
    whole = ls.lanczos(Recording(operator.matrix, "numpy"), 6)
    if interruption is KeyboardInterrupt:
        try:
            partial = ls.lanczos(operator, 20)
        except KeyboardInterrupt:  # which would end the whole suite
            pytest.fail("six steps were lost")
        assert partial.status == "interrupted"
    else:
        with pytest.raises(ls.LanczosInterrupted) as caught:
            ls.lanczos(operator, 20)
        partial = caught.value.partial
        assert caught.value.step == partial.num_steps
    assert partial.num_steps == 6  # whatever was on the device when it happened is fetched
    np.testing.assert_allclose(partial.alphas, whole.alphas, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-120, 1e120, 1e200])
def test_extreme_scales_agree(scale):
    host, device = pair(scale * rotated(EIGENVALUES[:60]))
    here, there = (ls.lanczos(a, 20) for a in (host, device))
    assert there.num_steps_taken[0] == 20
    np.testing.assert_allclose(there.alphas / scale, here.alphas / scale, atol=1e-10)


def test_eigsh_and_trace_agree():
    host, device = pair(rotated(EIGENVALUES))
    for which in ("LA", "SA", "LM", "BE"):
        here, there = (ls.eigsh(a, k=4, which=which, tol=1e-9) for a in (host, device))
        np.testing.assert_allclose(there.eigenvalues, here.eigenvalues, atol=1e-8)
    assert ls.trace(device, num_matvecs=20).value == pytest.approx(ls.trace(host, num_matvecs=20).value, rel=1e-12)
    assert ls.frobenius_norm(device, num_matvecs=20).value == pytest.approx(ls.frobenius_norm(host, num_matvecs=20).value, rel=1e-12)
    assert ls.check_operator(device).passed


def test_operators_of_two_backends_do_not_mix():
    host, device = pair(np.eye(4))
    with pytest.raises(ValueError, match=r"different backends \(cupy, numpy\)"):
        host + device


@pytest.mark.skipif(cupy_usable(), reason="there is a device")
def test_without_a_device_the_backend_says_so():
    with pytest.raises(RuntimeError, match=r"'cupy' was asked for, but CuPy .*\."):
        get_backend("cupy")


# -- on a device -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cupy():
    if not cupy_usable():
        pytest.skip("CuPy sees no device")
    import cupy

    return cupy


@pytest.mark.gpu
class TestOnADevice:
    def test_methods_agree_with_numpy(self, cupy, dtype):
        host, device = NumpyBackend(), get_backend("cupy")
        rows, x, y = random_array((7, 3000), dtype, 0), random_array((3000,), dtype, 1), random_array((3000,), dtype, 2)
        up = cupy.asarray
        for name, arguments in {"gemv_t": (rows, x), "dot": (x, y), "norm": (x,)}.items():
            there = getattr(device, name)(*map(up, arguments))
            np.testing.assert_allclose(
                device.to_numpy(there), getattr(host, name)(*arguments), rtol=1e4 * eps(dtype), atol=1e4 * eps(dtype)
            )
        for kind in ("sphere", "normal", "sign"):
            options = {"kind": kind, "seed": 1, "domain": "probe", "dtype": dtype}
            np.testing.assert_array_equal(cupy.asnumpy(device.probes(50, (0, 3), **options)), host.probes(50, (0, 3), **options))

    @pytest.mark.parametrize("reorthogonalize, steps", [("full", 40), ("none", 12)])
    def test_lanczos_agrees(self, cupy, dtype, reorthogonalize, steps):
        matrix = rotated(EIGENVALUES, dtype=dtype)
        here = ls.lanczos(ls.aslinearoperator(matrix, hermitian=True), steps, num_probes=3, reorthogonalize=reorthogonalize)
        there = ls.lanczos(ls.aslinearoperator(cupy.asarray(matrix), hermitian=True), steps, num_probes=3, reorthogonalize=reorthogonalize)
        same_run(here, there, 1e-10 if eps(dtype) < 1e-10 else 1e-3)

    @pytest.mark.parametrize("name", BREAKDOWNS)
    def test_breakdowns_agree(self, cupy, name):
        matrix, distinct = BREAKDOWNS[name]
        here, there = (ls.lanczos(m, min(20, len(matrix)), num_probes=2) for m in (matrix, cupy.asarray(matrix)))
        np.testing.assert_allclose(there.alphas[:, :distinct], here.alphas[:, :distinct], atol=1e-9)
        assert np.all(np.isfinite(there.alphas)) and np.all(np.isfinite(there.betas))

    def test_spectral_density_agrees(self, cupy):
        here, there = (ls.spectral_density(ls.diagonal_operator(x), num_steps=50, seed=0) for x in (EIGENVALUES, cupy.asarray(EIGENVALUES)))
        np.testing.assert_allclose(there.nodes, here.nodes, atol=1e-9)
        assert isinstance(there.nodes, np.ndarray)

    def test_eigenvectors_stay_on_the_device(self, cupy):
        result = ls.eigsh(ls.diagonal_operator(cupy.asarray(EIGENVALUES)), k=3, which="LA")
        assert isinstance(result.eigenvectors, cupy.ndarray)
        np.testing.assert_allclose(result.eigenvalues, EIGENVALUES[-3:], atol=1e-6)

    def test_checkpoint_and_save(self, cupy, tmp_path):
        operator = ls.diagonal_operator(cupy.asarray(EIGENVALUES))
        whole = ls.lanczos(operator, 20)
        ls.lanczos(operator, 9, checkpoint=tmp_path / "c")
        np.testing.assert_allclose(ls.lanczos(operator, 20, checkpoint=tmp_path / "c").alphas, whole.alphas, atol=1e-12)
        ls.lanczos(operator, 9).save(tmp_path / "run.npz")
        np.testing.assert_allclose(ls.load(tmp_path / "run.npz").extend(11, operator=operator).alphas, whole.alphas, atol=1e-12)
