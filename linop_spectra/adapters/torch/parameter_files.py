"""Parameters from files: torch checkpoints (weights only), NumPy archives, safetensors."""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_WRAPPERS = ("module.", "_orig_mod.")


def read_parameters(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A state dict from a file; nothing in the file is executed.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When its kind is unknown or it holds no state dict.
    """
    file = pathlib.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"There is no file {str(file)!r} to load parameters from.")
    state: Any
    if file.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"The file {str(file)!r} cannot be read with weights only ({type(error).__name__}); save model.state_dict(), "
                "not the model."
            ) from error
    elif file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            state = {name: archive[name] for name in archive.files}
    elif file.suffix == ".safetensors":
        try:
            load_file = importlib.import_module("safetensors.torch").load_file
        except ImportError as error:
            raise ImportError(
                f"Reading {str(file)!r} needs the package safetensors; install it with pip install safetensors."
            ) from error
        state = load_file(file)
    else:
        raise ValueError(f"The file {str(file)!r} is of no known kind; parameters come from .pt, .npz or .safetensors files.")
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(
            f"The file {str(file)!r} holds a {type(state).__name__}, but should hold a state dict of names and arrays."
        )
    return dict(state)


def without_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the prefixes that compilation and data parallelism put before every name."""
    names = dict(state)
    for _ in _WRAPPERS:
        for prefix in _WRAPPERS:
            if names and all(name.startswith(prefix) for name in names):
                names = {name.removeprefix(prefix): value for name, value in names.items()}
    return names
