"""Matrices with known spectra, statistical bounds, and the folder of real data."""

import os
import pathlib

import numpy as np
import pytest
from scipy import stats

from linop_spectra.backends import get_backend
from linop_spectra.backends.cupy_backend import CupyBackend
from linop_spectra.backends.numpy_backend import NumpyBackend

ROOT = pathlib.Path(__file__).resolve().parent.parent
DTYPES = (np.float32, np.float64, np.complex64, np.complex128)
CHANCE = 1e-4
"""Probability with which a correct library fails a statistical test, for a random seed; the seeds are fixed."""


def eps(dtype):
    return float(np.finfo(dtype).eps)


def haar(n, seed, complex_valued=False):
    """Orthogonal (unitary) matrix from the uniform law."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_valued else 0)
    q, r = np.linalg.qr(z)
    return q * (np.diag(r) / np.abs(np.diag(r)))


def rotated(eigenvalues, seed=0, dtype=np.float64):
    """Exactly Hermitian matrix with the given eigenvalues, in a uniform basis."""
    q = haar(len(eigenvalues), seed, np.dtype(dtype).kind == "c")
    a = (q * np.asarray(eigenvalues)) @ q.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


def goe(n, rng):
    """Gaussian orthogonal ensemble, off-diagonal variance 1 / n."""
    x = rng.standard_normal((n, n))
    return (x + x.T) / np.sqrt(2 * n)


def random_array(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def device_of_numpy():
    """The CuPy backend's own lines, on NumPy arrays: scalars are 0-d arrays that the core reads back a few steps at a time."""
    return CupyBackend(module=np)


def torch_on_the_cpu():
    pytest.importorskip("torch")
    return get_backend("torch:cpu")


def torch_as_on_a_device():
    """The torch backend on the CPU with scalars that stay tensors, as on a CUDA device."""
    pytest.importorskip("torch")
    from linop_spectra.backends.torch_backend import TorchBackend

    return TorchBackend("cpu", eager_scalars=False)


def strict_device():
    """Arrays that numbers cannot get out of unseen."""
    pytest.importorskip("array_api_strict")
    from strict_backend import StrictBackend

    return StrictBackend()


BACKENDS = {
    "numpy": NumpyBackend,
    "cupy on numpy": device_of_numpy,
    "torch": torch_on_the_cpu,
    "torch as on a device": torch_as_on_a_device,
    "strict": strict_device,
}


def least_hits(trials, level, chance=CHANCE):
    """Fewest hits that an event of probability `level` produces in all but a share `chance` of experiments."""
    return int(stats.binom.ppf(chance, trials, level))


def most_hits(trials, level, chance=CHANCE):
    return int(stats.binom.isf(chance, trials, level))


def same_law(sample, law):
    """Whether a sample follows a law, by the Kolmogorov-Smirnov test."""
    return stats.kstest(sample, law.cdf).pvalue > CHANCE


def data_file(*parts):
    """A file of the folder LINOP_SPECTRA_DATA (or shared/data beside the repository), or the test is skipped."""
    for folder in (os.environ.get("LINOP_SPECTRA_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (path := pathlib.Path(folder).joinpath(*parts)).exists():
            return path
    pytest.skip(f"needs {'/'.join(parts)} in the folder LINOP_SPECTRA_DATA or in ../shared/data")
