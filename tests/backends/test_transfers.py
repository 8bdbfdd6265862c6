"""No number leaves the device but through the backend, and inside the Lanczos loop only once in eight steps.

The arrays are array-api-strict's, on a device that NumPy cannot see into, and every way round the backend is counted.
"""

import numpy as np
import pytest
from helpers import random_array, rotated

import linop_spectra as ls

xp = pytest.importorskip("array_api_strict")
from strict_backend import DEVICE, StrictBackend, Transfers  # noqa: E402

from linop_spectra.estimators.diagonal import diagonal  # noqa: E402
from linop_spectra.krylov.funm import funm_multiply  # noqa: E402
from linop_spectra.krylov.recurrence import Recurrence  # noqa: E402
from linop_spectra.krylov.solve import solve  # noqa: E402
from linop_spectra.krylov.storage import plan_basis  # noqa: E402
from linop_spectra.krylov.svds import svds  # noqa: E402

N = 120
HERMITIAN = np.linspace(-1, 2, N) ** 3
POSITIVE = np.linspace(0.1, 2, N)


@pytest.fixture
def transfers(monkeypatch):
    return Transfers(monkeypatch)


@pytest.fixture(params=[np.float64, np.complex64, np.complex128], ids=["float64", "complex64", "complex128"])
def dtype(request):
    return request.param


def on(backend, matrix):
    return ls.aslinearoperator(matrix, backend=backend)


def test_the_counter_counts(transfers):
    """What would be found: each of the ways round the backend."""
    x = xp.asarray(2.0, device=DEVICE)
    float(x), bool(x), complex(x)
    assert transfers.ways == ["__float__", "__bool__", "__complex__"]
    with pytest.raises(RuntimeError):
        np.asarray(x)
    x.to_device(xp.Device("CPU_DEVICE"))
    assert transfers.ways[-1] == "to_device"


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("storage", ["full", "none"])
def test_lanczos_reads_scalars_once_in_eight_steps(transfers, dtype, storage, probes):
    backend = StrictBackend()
    operator = on(backend, rotated(HERMITIAN, dtype=dtype))
    ls.lanczos(operator, 32, num_probes=probes, reorthogonalize=storage)
    assert transfers.ways == []
    # Four looks at 32 steps; the whole run may bring over the start and the end besides, but nothing for each step.
    backend.fetches = 0
    start = backend.probes(N, range(probes), kind="sphere", seed=0, domain="probe", dtype=dtype)
    state = Recurrence(operator, start, plan=plan_basis(operator, 32, probes, storage, None))
    for _ in range(32):
        state.step()
    assert backend.fetches <= 4 and transfers.ways == []


def host(x, operator):
    return operator.backend.to_numpy(x)


def same(there, here, dtype):
    tolerance = 2e-3 if dtype == np.complex64 else 1e-9
    np.testing.assert_allclose(there, here, rtol=tolerance, atol=tolerance)


JOBS = {
    "lanczos": lambda a, p, r: ls.lanczos(a, 24, num_probes=2).alphas,
    "lanczos from a start": lambda a, p, r: ls.lanczos(a, 12, start=random_array((N,), a.dtype, 3)).alphas,
    "lanczos, extended": lambda a, p, r: ls.lanczos(a, 10).extend(10, operator=a).alphas,
    "lanczos, compressed": lambda a, p, r: ls.lanczos(a, 12, reorthogonalize="full" if a.dtype == np.complex64 else "compressed").alphas,
    "lanczos on the host": lambda a, p, r: ls.lanczos(a, 20, reorthogonalize="host").alphas,
    "eigsh": lambda a, p, r: ls.eigsh(a, 3, tol=1e-6).eigenvalues,
    "eigsh, restarted blocks": lambda a, p, r: ls.eigsh(a, 2, block_size=2, which="BE", max_basis=20, tol=1e-5).eigenvalues,
    "spectral density": lambda a, p, r: ls.spectral_density(a, num_steps=20, num_probes=3).cdf(np.linspace(-1.03, 1.01, 9)),
    "trace": lambda a, p, r: ls.trace(a, method="hutchinson", num_matvecs=20).value,
    "exact trace": lambda a, p, r: ls.trace(a, num_matvecs=N).value,
    "frobenius norm": lambda a, p, r: ls.frobenius_norm(a, num_matvecs=20).value,
    "spectral norm": lambda a, p, r: ls.spectral_norm(a).value,
    "spectral norm of a wide matrix": lambda a, p, r: ls.spectral_norm(r).value,
    "log-determinant": lambda a, p, r: ls.logdet(p, num_steps=24, num_probes=3).value,
    "trace of a function": lambda a, p, r: ls.trace_function(p, np.exp, num_steps=20, num_probes=3).value,
    "deflated": lambda a, p, r: ls.trace(ls.deflate(a, [1.0], np.eye(N)[:, :1]), num_matvecs=N).value,
    "solve": lambda a, p, r: host(solve(p, random_array((N,), a.dtype, 3), tol=1e-5).x, a),
    "solve, indefinite": lambda a, p, r: host(solve(ls.shift(a, 3.0), random_array((N,), a.dtype, 3), tol=1e-5, method="minres").x, a),
    "svds": lambda a, p, r: svds(r, 2, tol=1e-5).singular_values,
    "f(A) b": lambda a, p, r: host(funm_multiply(p, np.exp, random_array((N,), a.dtype, 3)).value, a),
    "diagonal": lambda a, p, r: host(diagonal(p, num_matvecs=24).value, a),
    "algebra": lambda a, p, r: ls.trace(r.H @ r + 2 * p - ls.shift(a, 1.0), num_matvecs=N).value,
}


@pytest.mark.parametrize("name", JOBS)
def test_nothing_goes_round_the_backend(transfers, dtype, name):
    """And the numbers are those of NumPy."""
    matrices = rotated(HERMITIAN, dtype=dtype), rotated(POSITIVE, dtype=dtype), random_array((90, N), dtype, 0)
    there = JOBS[name](*(on(StrictBackend(), matrix) for matrix in matrices))
    assert transfers.ways == []
    same(there, JOBS[name](*(on("numpy", matrix) for matrix in matrices)), dtype)


@pytest.mark.parametrize("method", ["hutch++", "xtrace", "xnystrace"])
def test_trace_methods_stay_on_the_device(transfers, dtype, method):
    matrix = rotated(POSITIVE, dtype=dtype)
    there = ls.trace(on(StrictBackend(), matrix), method=method, num_matvecs=36).value
    assert transfers.ways == []
    same(there, ls.trace(on("numpy", matrix), method=method, num_matvecs=36).value, dtype)
