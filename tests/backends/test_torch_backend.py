"""The torch backend beyond the contract: devices, foreign arrays, whole runs."""

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array, rotated, torch_as_on_a_device

import linop_spectra as ls
from linop_spectra.backends import backend_of, get_backend, resolve_backend

torch = pytest.importorskip("torch")
from linop_spectra.backends.torch_backend import TorchBackend  # noqa: E402

EIGENVALUES = np.r_[np.linspace(-1, 1, 90), np.linspace(5, 20, 10)]


def test_names_and_devices():
    cpu = get_backend("torch:cpu")
    assert cpu is get_backend("torch:cpu") and cpu.name == "torch:cpu" and cpu.eager_scalars is True
    assert resolve_backend(torch.ones(2), "torch").name == "torch:cpu"
    assert backend_of(torch.ones(2)).name == "numpy"  # NumPy on the CPU, unless asked otherwise
    if not torch.cuda.is_available():
        assert get_backend("torch") is cpu
        with pytest.raises(RuntimeError, match="device 'cuda:3', but torch sees 0 CUDA devices"):
            get_backend("torch:cuda:3")
    with pytest.raises(ValueError, match="has on 'cpu' and 'cuda' devices"):
        TorchBackend("meta")
    with pytest.raises(ValueError, match="which torch does not know"):
        get_backend("torch:abacus")


@pytest.mark.parametrize("as_cuda", [True, False])
def test_where_tensors_on_a_cuda_device_go(monkeypatch, as_cuda):
    """CuPy where it is usable, else torch; a stand-in for a tensor that says it is on a device."""
    from linop_spectra import backends
    from linop_spectra.backends import cupy_backend

    class Tensor:
        is_cuda, device = True, "cpu"

    Tensor.__module__ = "torch"
    marker = object()
    monkeypatch.setattr(cupy_backend, "cupy_usable", lambda: as_cuda)
    monkeypatch.setitem(backends._INSTANCES, "cupy", marker)
    found = backend_of(Tensor())
    assert found is marker if as_cuda else found.name == "torch:cpu"


def test_foreign_arrays_come_over_without_a_copy_where_that_is_possible():
    backend = get_backend("torch:cpu")
    x = np.arange(6.0)
    assert np.shares_memory(backend.asarray(x).numpy(), x)
    tensor = torch.arange(3.0)
    assert backend.asarray(tensor).data_ptr() == tensor.data_ptr()
    frozen = np.arange(6.0)
    frozen.flags.writeable = False
    assert not np.shares_memory(backend.asarray(frozen).numpy(), frozen)  # torch has no read-only tensors
    np.testing.assert_array_equal(backend.asarray(x[::-1]).numpy(), x[::-1])
    np.testing.assert_array_equal(backend.asarray(x.astype(">f8")).numpy(), x)
    np.testing.assert_array_equal(backend.asarray([1, 2], dtype=np.float32).numpy(), np.array([1, 2], np.float32))
    assert backend.asarray(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert not backend.asarray(torch.ones(2, requires_grad=True)).requires_grad
    z = torch.tensor([1 + 2j]).conj()
    np.testing.assert_array_equal(backend.to_numpy(z), [1 - 2j])
    np.testing.assert_array_equal(backend.asarray(z).numpy(), [1 - 2j])
    with pytest.raises(TypeError, match="no counterpart in torch"):
        backend.empty((2,), "M8[s]")


def test_jax_arrays_come_over():
    jnp = pytest.importorskip("jax.numpy")
    backend = get_backend("torch:cpu")
    np.testing.assert_array_equal(backend.asarray(jnp.arange(3, dtype=jnp.float32)).numpy(), [0, 1, 2])
    assert ls.to_numpy(jnp.ones(2, jnp.bfloat16)).dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reorthogonalize, steps", [("full", 30), ("none", 12)])
def test_lanczos_runs_agree_with_numpy(dtype, reorthogonalize, steps):
    matrix = rotated(EIGENVALUES, dtype=dtype)
    tolerance = 1e-10 if eps(dtype) < 1e-10 else 1e-3
    runs = [
        ls.lanczos(ls.aslinearoperator(matrix, backend=backend), steps, num_probes=2, reorthogonalize=reorthogonalize)
        for backend in ("numpy", "torch:cpu", torch_as_on_a_device())
    ]
    for run in runs[1:]:
        np.testing.assert_allclose(run.alphas, runs[0].alphas, atol=20 * tolerance)
        np.testing.assert_allclose(run.betas, runs[0].betas, atol=20 * tolerance)


def test_eigenvectors_and_products_are_tensors():
    operator = ls.aslinearoperator(torch.tensor(rotated(EIGENVALUES)), backend="torch")
    pairs = ls.eigsh(operator, 3, which="LA", tol=1e-9)
    assert isinstance(pairs.eigenvectors, torch.Tensor) and isinstance(operator @ np.ones(100), torch.Tensor)
    assert isinstance(operator.to_dense(), torch.Tensor)
    np.testing.assert_allclose(pairs.eigenvalues, EIGENVALUES[-3:], atol=1e-6)
    assert isinstance(ls.to_numpy(pairs.eigenvectors), np.ndarray)


def test_operators_of_two_backends_do_not_mix():
    with pytest.raises(ValueError, match=r"different backends \(numpy, torch:cpu\)"):
        ls.identity(4) + ls.identity(4, backend="torch:cpu")


def test_without_torch_it_says_so(monkeypatch):
    import sys

    from linop_spectra import backends

    monkeypatch.setitem(sys.modules, "linop_spectra.backends.torch_backend", None)
    monkeypatch.setattr(backends, "_INSTANCES", {})
    with pytest.raises(RuntimeError, match="torch is not installed"):
        get_backend("torch")


def test_single_precision_is_summed_in_double_precision():
    x = random_array((100_000,), np.float32, 0)
    exact = float(x.astype(np.float64) @ x.astype(np.float64))
    assert float(get_backend("torch:cpu").dot(torch.tensor(x), torch.tensor(x))) == pytest.approx(exact, rel=1e-13)


def test_a_model_keeps_its_vectors_in_torch():
    """The same Hessian as with NumPy vectors."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).double()
    data = (torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 3, (20,)))
    there, here = (ls.objective(model, "cross_entropy", data, backend=name).hessian() for name in ("torch:cpu", "numpy"))
    assert isinstance(there @ np.ones(there.shape[0]), torch.Tensor)
    np.testing.assert_allclose(ls.lanczos(there, 15).alphas, ls.lanczos(here, 15).alphas, atol=1e-11)
    assert ls.check_operator(there).passed
