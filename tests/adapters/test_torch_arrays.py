"""NumPy vectors with torch's arithmetic: the same numbers as with BLAS."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.backends import get_backend

torch = pytest.importorskip("torch")

from linop_spectra.adapters.torch.arrays import NumpyOnTorch  # noqa: E402


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("writeable", [True, False])
def test_methods_agree_with_numpy(dtype, writeable):
    rng = np.random.default_rng(0)

    def array(*shape):
        x = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype) if np.dtype(dtype).kind == "c" else None
        return rng.standard_normal(shape).astype(dtype) if x is None else x

    rows, w, x, coefficients = array(5, 400), array(400), array(400), array(3, 5)
    rows.flags.writeable = x.flags.writeable = writeable
    ours, reference = NumpyOnTorch(), get_backend("numpy")
    tolerance = 100 * np.finfo(dtype).eps * 20
    np.testing.assert_allclose(ours.gemv_t(rows, x), rows.conj() @ x, atol=tolerance)
    np.testing.assert_allclose(ours.dot(x, w), np.vdot(x, w), atol=tolerance)
    np.testing.assert_allclose(ours.norm(x), reference.norm(x), rtol=1e-12)
    np.testing.assert_allclose(ours.combine(coefficients, rows), coefficients @ rows, atol=tolerance)
    expected = w - coefficients[0] @ rows
    ours.gemv_n_sub(rows, coefficients[0], w)
    np.testing.assert_allclose(w, expected, atol=tolerance)
    ours.axpy(-0.5, x, w)
    np.testing.assert_allclose(w, expected - dtype(0.5) * x, atol=tolerance)


def test_a_run_on_a_model_agrees_with_one_on_its_dense_matrix():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    objective = ls.objective(model, "cross_entropy", (torch.randn(30, 5, dtype=torch.float64), torch.randint(0, 3, (30,))))
    hessian = objective.hessian()
    assert isinstance(hessian.backend, NumpyOnTorch) and isinstance(hessian @ objective.parameters(), np.ndarray)
    there = ls.lanczos(ls.aslinearoperator(hessian.to_dense(), hermitian=True), 20, num_probes=2)
    here = ls.lanczos(hessian, 20, num_probes=2)
    np.testing.assert_allclose(here.alphas, there.alphas, atol=1e-10)
    np.testing.assert_allclose(here.betas, there.betas, atol=1e-10)
    # Sums with operators on plain NumPy work, complex multiples too.
    n = hessian.shape[0]
    shifted = ls.lanczos(hessian + 3.0 * ls.identity(n), 10)
    np.testing.assert_allclose(shifted.alphas - 3.0, ls.lanczos(hessian, 10).alphas, atol=1e-10)
    v = np.random.default_rng(1).standard_normal(n)
    np.testing.assert_allclose((2j * hessian) @ v, 2j * (hessian @ v), atol=1e-12)
