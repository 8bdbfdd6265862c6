"""CuPy's arrays from torch's memory: one pool instead of two that take memory from each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .cupy_backend import CupyBackend
from .probes import ProbeKind


@contextlib.contextmanager
def torch_allocator() -> Iterator[None]:
    """Context in which CuPy allocates from torch's caching allocator.

    Both libraries keep what they free for themselves, so that side by side each runs out of memory that the other one
    hoards. The setting holds for this thread and this context only; arrays made in it may outlive it. Streams stay as they
    are: a block belongs to the stream that CuPy works on when it is allocated.

    Raises
    ------
    ImportError
        When CuPy or torch is not installed.
    """
    import cupy
    import torch

    def allocate(size: int, device: int) -> int:
        # torch hands the block out again only after the work that this stream has by then.
        return int(torch.cuda.caching_allocator_alloc(size, device, cupy.cuda.get_current_stream().ptr)) if size else 0

    def free(pointer: int, device: int) -> None:
        if pointer:
            torch.cuda.caching_allocator_delete(pointer)

    with cupy.cuda.using_allocator(cupy.cuda.PythonFunctionAllocator(allocate, free).malloc):
        yield


class CupyBesideTorch(CupyBackend):
    """The CuPy backend for operators whose products torch computes: its arrays come from torch's pool.

    An adapter passes it as the backend of such an operator, and enters `torch_allocator` where it makes CuPy arrays itself.
    """

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """`x` on the device."""
        with torch_allocator():
            return super().asarray(x, dtype)

    def contiguous(self, x: Any, dtype: Any = None) -> Any:
        """`x` in C order."""
        with torch_allocator():
            return super().contiguous(x, dtype)

    def guard(self, x: Any) -> Any:
        """A copy."""
        with torch_allocator():
            return super().guard(x)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised array."""
        with torch_allocator():
            return super().empty(shape, dtype)

    def combine(self, coefficients: np.ndarray, rows: Any) -> Any:
        """``coefficients @ rows``."""
        with torch_allocator():
            return super().combine(coefficients, rows)

    def probes(self, n: int, indices: Sequence[int], *, kind: ProbeKind, seed: int, domain: str, dtype: Any) -> Any:
        """Random vectors."""
        with torch_allocator():
            return super().probes(n, indices, kind=kind, seed=seed, domain=domain, dtype=dtype)
