"""Array libraries behind the numerical core: NumPy on the CPU, CuPy on a CUDA device."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .probes import ProbeKind, random_vector
from .protocol import Array, Backend, Scalar

if __name__ == "backends":  # reached through the link at the root of the repository
    raise ImportError("Import linop_spectra.backends; the folder backends at the root of the repository is only a link to it.")

__all__ = ["Array", "Backend", "ProbeKind", "Scalar", "backend_of", "get_backend", "random_vector", "to_numpy"]

_INSTANCES: dict[str, Backend] = {}


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend of that name; NumPy when none is named.

    Parameters
    ----------
    name : {"numpy", "cupy"}, Backend or None
        A name, or a backend that is returned as it is.

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
        else:
            raise ValueError(f"The argument backend is {name!r}, but the backends are 'numpy' and 'cupy'.")
    return _INSTANCES[name]


def backend_of(x: Any) -> Backend:
    """The backend whose arrays are of the type of `x`; NumPy for everything that is not a CuPy array."""
    if type(x).__module__.partition(".")[0] == "cupy" and "cupy" in sys.modules:
        return get_backend("cupy")
    return get_backend("numpy")


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
