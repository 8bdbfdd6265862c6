"""Settings under which second derivatives of torch models exist and are right, and frozen random states."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def curvature_mode(device: torch.device, *, recurrent: bool) -> Iterator[None]:
    """Everything that products of second derivatives need, restored on the way out.

    Fused attention has no second derivative, neither do cuDNN's recurrent layers and the fast path of encoder layers; reduced
    precision of matrix products would drown small eigenvalues.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    precision = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            stack.enter_context(
                torch.backends.cudnn.flags(enabled=not recurrent, benchmark=False, deterministic=True, allow_tf32=False)
            )
        if precision != "highest":
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, precision)
        if fast_path:
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, True)
        yield


class RandomState:
    """The random states that a model or a loader may draw from: torch, NumPy, Python, and generators of a loader.

    Parameters
    ----------
    device : torch.device
        A CUDA device's state is included.
    data : object
        A loader whose own generators are included.
    """

    def __init__(self, device: torch.device, data: Any = None) -> None:
        self._cuda = device if device.type == "cuda" else None
        places = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
        found = [getattr(place, "generator", None) for place in places]
        self._generators = list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
        self._frozen = self._read()

    def _read(self) -> tuple[Any, ...]:
        return (
            torch.get_rng_state(),
            torch.cuda.get_rng_state(self._cuda) if self._cuda is not None else None,
            np.random.get_state(),  # noqa: NPY002 -- the user's code may draw from the global state
            random.getstate(),
            [generator.get_state() for generator in self._generators],
        )

    def _write(self, state: tuple[Any, ...]) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)
        np.random.set_state(state[2])  # noqa: NPY002
        random.setstate(state[3])
        for generator, saved in zip(self._generators, state[4], strict=True):
            generator.set_state(saved)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Run under the state of this object's creation; the caller's state is untouched."""
        outside = self._read()
        self._write(self._frozen)
        try:
            yield
        finally:
            self._write(outside)

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        """Iterate `source` under the state of this object's creation, which is in force only while an item is made."""
        inside = self._frozen
        iterator: Iterator[Any] | None = None
        while True:
            outside = self._read()
            self._write(inside)
            try:
                if iterator is None:
                    iterator = iter(source)
                item = next(iterator)
            except StopIteration:
                return
            finally:
                inside = self._read()
                self._write(outside)
            yield item
