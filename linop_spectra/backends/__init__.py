"""Array libraries behind the numerical core: NumPy on the CPU, CuPy on a CUDA device, torch on either."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .probes import ProbeKind, random_vector
from .protocol import Array, Backend, Scalar

if __name__ == "backends":  # reached through the link at the root of the repository
    raise ImportError("Import linop_spectra.backends; the folder backends at the root of the repository is only a link to it.")

__all__ = ["Array", "Backend", "ProbeKind", "Scalar", "backend_of", "get_backend", "random_vector", "resolve_backend", "to_numpy"]

_INSTANCES: dict[str, Backend] = {}


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend of that name; NumPy when none is named.

    Parameters
    ----------
    name : {"numpy", "cupy", "torch", "torch:cpu", "torch:cuda:0", ...}, Backend or None
        A name, or a backend that is returned as it is. ``"torch"`` is the current CUDA device where there is one, else the CPU.

    Raises
    ------
    ValueError
        When the name is unknown.
    RuntimeError
        When the backend cannot be used on this machine.

    Examples
    --------
    >>> get_backend("numpy").name
    'numpy'
    """
    if name is None:
        name = "numpy"
    if not isinstance(name, str):
        return name
    if name not in _INSTANCES:
        if name == "numpy":
            from .numpy_backend import NumpyBackend

            _INSTANCES[name] = NumpyBackend()
        elif name == "cupy":
            from .cupy_backend import CupyBackend

            _INSTANCES[name] = CupyBackend()
        elif name.partition(":")[0] == "torch":
            return _torch_backend(name.partition(":")[2] or None)
        else:
            raise ValueError(f"The argument backend is {name!r}, but the backends are 'numpy', 'cupy' and 'torch'.")
    return _INSTANCES[name]


def _torch_backend(device: Any) -> Backend:
    try:
        from .torch_backend import TorchBackend
    except ImportError as error:
        raise RuntimeError(
            "The backend 'torch' was asked for, but torch is not installed; install torch, or use backend='numpy'."
        ) from error
    backend = TorchBackend(device)
    return _INSTANCES.setdefault(backend.name, backend)


def backend_of(x: Any) -> Backend:
    """The backend where an array lives: CuPy, or torch without CuPy, for what is on a CUDA device, else NumPy.

    Parameters
    ----------
    x : object
        NumPy arrays, torch and JAX arrays on the CPU, and everything that is no array, go to NumPy.

    Returns
    -------
    Backend
        NumPy for arrays in host memory; for CUDA torch and JAX arrays CuPy where it is usable, else torch (JAX: NumPy).
    """
    library = type(x).__module__.partition(".")[0]
    if library == "cupy" and "cupy" in sys.modules:
        return get_backend("cupy")
    if library == "cupyx":
        return get_backend("cupy")
    if library in ("torch", "jax", "jaxlib") and _on_cuda(x):
        from .cupy_backend import cupy_usable

        if cupy_usable():
            return get_backend("cupy")
        if library == "torch":
            return _torch_backend(x.device)
    return get_backend("numpy")


def resolve_backend(x: Any, asked: str | Backend | None) -> Backend:
    """The backend that was asked for, or the one where `x` lives; ``"torch"`` keeps a tensor on its device."""
    if asked is None:
        return backend_of(x)
    if asked == "torch" and type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "device"):
        return _torch_backend(x.device)
    return get_backend(asked)


def _on_cuda(x: Any) -> bool:
    if hasattr(x, "is_cuda"):
        return bool(x.is_cuda)
    try:
        return int(x.__dlpack_device__()[0]) in (2, 13)  # CUDA, CUDA managed
    except Exception:  # traced and sharded arrays have no memory of their own
        return False


def to_numpy(x: Any) -> np.ndarray:
    """Bring an array of any supported library over to NumPy.

    Parameters
    ----------
    x : array
        NumPy, CuPy, torch, JAX or TensorFlow array.

    Returns
    -------
    numpy.ndarray
        The same numbers on the host; a view where that is possible.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.to_numpy(np.arange(3))
    array([0, 1, 2])
    """
    return get_backend("numpy").asarray(x)
