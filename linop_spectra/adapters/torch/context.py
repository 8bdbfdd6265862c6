"""Settings under which second derivatives of torch models exist and are right, and frozen random states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..random_states import FrozenRandomState


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


class RandomState(FrozenRandomState):
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
        super().__init__(data, lambda generator: isinstance(generator, torch.Generator))

    def _read_framework(self) -> Any:
        return torch.get_rng_state(), None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)

    def _write_framework(self, state: Any) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)
