"""Parameters from NumPy archives and safetensors; files of Keras are read by its own loader."""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any

import numpy as np


def read_parameters(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Arrays by name from a file; nothing in the file is executed.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When its kind is unknown.
    """
    file = pathlib.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"There is no file {str(file)!r} to load parameters from.")
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if file.suffix == ".safetensors":
        try:
            load_file = importlib.import_module("safetensors.numpy").load_file
        except ImportError as error:
            raise ImportError(
                f"Reading {str(file)!r} needs the package safetensors; install it with pip install safetensors."
            ) from error
        return dict(load_file(file))
    raise ValueError(
        f"The file {str(file)!r} is of no known kind; parameters come from .npz or .safetensors files, those of a Keras model from "
        ".weights.h5 and .keras files too."
    )
