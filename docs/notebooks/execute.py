"""Runs the notebooks of this folder and keeps their outputs: ``python docs/notebooks/execute.py [name ...]``.

What is written holds nothing of the machine and no times of day, so that two runs differ only where results do.
"""

from __future__ import annotations

import base64
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parent
TIMEOUT = 300
"""Seconds for one notebook's slowest cell."""


def read(name: str) -> Any:
    """The stored notebook of this name."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def run(notebook: Any, folder: str | os.PathLike[str]) -> Any:
    """Execute every cell, in place, in a fresh kernel of this Python that works and keeps its history in `folder`.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        When a cell raises.
    """
    environment = os.environ | {"IPYTHONDIR": os.fspath(folder)}
    # The kernel chooses how figures are shown.
    environment.pop("MPLBACKEND", None)
    place = {"metadata": {"path": os.fspath(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", coalesce_streams=True, resources=place).execute(env=environment)
    return notebook


def normalise(notebook: Any) -> Any:
    """Take out, in place, what differs from machine to machine and from run to run."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
        }
    )
    for place, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{place:02d}", nbformat.from_dict({})
    for output in outputs(notebook):
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _smaller(output.data["image/png"])
    return notebook


def _smaller(picture: str) -> str:
    """The same picture from a palette of 256 colours, a third of the size."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def outputs(notebook: Any) -> Iterator[Any]:
    """All outputs of all cells, in order."""
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def main(names: list[str]) -> None:
    """Execute notebooks and write them back."""
    for name in names or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = normalise(run(read(name), folder))
        nbformat.validate(notebook)
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        pictures = sum("image/png" in output.get("data", {}) for output in outputs(notebook))
        print(f"{name}: {len(notebook.cells)} cells, {pictures} pictures, {(FOLDER / f'{name}.ipynb').stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
