"""Parameters from files: NumPy archives and safetensors."""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any

import numpy as np


def read_arrays(path: str | os.PathLike[str], otherwise: str) -> dict[str, Any]:
    """Named arrays from a file; nothing in the file is executed.

    Parameters
    ----------
    path : str or path
        A file ``.npz`` or ``.safetensors``.
    otherwise : str
        What the error for other kinds says of the files that a framework takes.

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
    raise ValueError(f"The file {str(file)!r} is of no known kind; {otherwise}")
