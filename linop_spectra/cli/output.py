"""Files that the command writes, each whole or not at all."""

from __future__ import annotations

import json
import math
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from ..results import write_atomically
from .errors import CommandError


def prepare_folder(text: str) -> pathlib.Path:
    """Make the output folder and prove that it can be written to, before any work is done.

    Raises
    ------
    CommandError
        When it cannot be.
    """
    folder = pathlib.Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x" * 4096)
    except OSError as error:
        raise cannot_write(text, error) from error
    return folder


def cannot_write(path: str | os.PathLike[str], error: OSError) -> CommandError:
    """The sentence for a file or folder that could not be written."""
    return CommandError(
        f"The output {os.fspath(path)!r} cannot be written ({error.strerror or error}); "
        "choose another folder with --out, or make room or permissions there."
    )


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people and programs: indented, and null where a number is not finite."""
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_figure(path: pathlib.Path, axes: Any) -> None:
    """Write the figure that `axes` belong to as a PNG."""
    write_atomically(path, lambda stream: axes.figure.savefig(stream, format="png"))


def plain(value: Any) -> Any:
    """`value` in the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str) else str(value)


def versions() -> dict[str, str]:
    """Versions of Python, of the system, and of the packages that the numbers depend on, as far as they are loaded."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("linop-spectra", "numpy", "scipy", "torch", "jax", "flax", "tensorflow", "keras", "cupy", "matplotlib", "scikit-learn"):
        module = {"linop-spectra": "linop_spectra", "scikit-learn": "sklearn"}.get(name, name)
        if module in sys.modules:
            try:
                found[name] = str(getattr(sys.modules[module], "__version__", None) or metadata.version(name))
            except metadata.PackageNotFoundError:
                continue
    return found
