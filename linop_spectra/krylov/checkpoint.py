"""Checkpoints of a running recurrence: a small header that is replaced, and vectors that are only appended.

``PATH`` holds coefficients and a description of the run and is replaced atomically. ``PATH.basis`` holds the Krylov vectors,
step by step, or of a selective run its locked eigenvectors, once; new rows are synced to disk before the header that counts
them. A run that is killed at any moment therefore leaves a pair that fits.
"""

from __future__ import annotations

import os
import pathlib
import time
import uuid
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends import Array, Backend, backend_of
from ..operators import LinearOperator
from ..results import PathLike, read_result, save_result
from .basis import Basis
from .result import KrylovVectors, LanczosResult, basis_from_rows, last_vectors, on_host

CHECKPOINT_SECONDS = 10.0
"""Shortest time between two writes."""
_TOKEN_BYTES = 16


class _Rows:
    """Rows of an array, to be read as those of a basis are."""

    def __init__(self, rows: Array) -> None:
        self.rows, self.dtype = rows, backend_of(rows).dtype_of(rows)
        self.length, self.n = rows.shape

    def row(self, index: int) -> Array:
        return self.rows[index, :]


class Checkpoint:
    """Writer and reader of one checkpoint.

    Parameters
    ----------
    path : str or path
        Of the header; the vectors go to the same name with ``.basis`` appended.

    Raises
    ------
    OSError
        When the folder does not exist or cannot be written to: better now than after hours.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        self.basis_path = self.path.with_name(self.path.name + ".basis")
        folder = self.path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK) or self.path.is_dir():
            raise OSError(f"The checkpoint {str(self.path)!r} cannot be written: its folder is missing or not writable, or it is a folder.")
        self._token = uuid.uuid4().hex
        self._rows, self._crc, self._last = 0, 0, -float("inf")
        self._usable = True

    def due(self) -> bool:
        """Whether enough time has passed since the last write."""
        return time.monotonic() - self._last >= CHECKPOINT_SECONDS

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, run: LanczosResult) -> None:
        """Append new vectors, then replace the header. A full disk is said once and does not end the run."""
        vectors = run.vectors
        if not self._usable or vectors is None:
            return
        scalars, arrays = run._to_file()
        try:
            if vectors.bases:
                self._append_rows(list(vectors.bases), int(run.num_steps) + 1)
            else:
                arrays.update(last_vectors(vectors))
                if vectors.locked is not None:
                    self._append_rows([_Rows(vectors.locked)], int(vectors.locked.shape[0]))
            save_result(
                self.path, "lanczos checkpoint", {**scalars, "token": self._token, "rows": self._rows, "crc": self._crc}, arrays
            )
        except OSError as error:
            self._usable = False
            warnings.warn(f"The checkpoint {str(self.path)!r} could not be written ({error}); the run goes on without it.", stacklevel=3)
        self._last = time.monotonic()

    def _append_rows(self, bases: Sequence[Basis | _Rows], length: int) -> None:
        if self._rows and self._rows >= length:
            return
        token = bytes.fromhex(self._token)
        with open(self.basis_path, "r+b" if self._rows else "wb") as stream:
            if not self._rows:
                stream.write(token)
            row_bytes = bases[0].n * bases[0].dtype.itemsize
            stream.seek(_TOKEN_BYTES + self._rows * len(bases) * row_bytes)
            stream.truncate()
            for index in range(self._rows, length):
                for basis in bases:
                    # A probe that broke down has no further vectors; zeros keep the layout regular.
                    row = on_host(basis.row(index)) if index < basis.length else np.zeros(basis.n, basis.dtype)
                    data = np.ascontiguousarray(row).view(np.uint8).data
                    stream.write(data)
                    self._crc = zlib.crc32(data, self._crc)
            stream.flush()
            os.fsync(stream.fileno())
        self._rows = length

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, *, backend: Backend, **expected: Any) -> LanczosResult | None:
        """The run in the checkpoint, or None when there is no file.

        Raises
        ------
        ValueError
            When the file is damaged or belongs to another run.
        """
        if not self.path.exists():
            return None
        scalars, arrays = read_result(self.path)
        if scalars.pop("kind") != "lanczos checkpoint":
            raise ValueError(f"The file {str(self.path)!r} is no checkpoint of a Lanczos run; choose another path.")
        scalars.pop("format")
        token, rows, crc = scalars.pop("token"), scalars.pop("rows"), scalars.pop("crc")
        found = {**scalars, "num_probes": len(arrays["num_steps_taken"])}
        for name, value in expected.items():
            if found[name] != value:
                raise ValueError(
                    f"The checkpoint {str(self.path)!r} belongs to another run: its {name} is {found[name]!r}, this run's is "
                    f"{value!r}. Delete it (and {self.basis_path.name}) or choose another path."
                )
        selective = expected["reorthogonalize"] == "selective"
        if expected["reorthogonalize"] != "none":
            width = 1 if selective else expected["num_probes"]
            stored = self._read_rows(token, rows, crc, width, expected["dimension"], np.dtype(expected["dtype"]))
        if expected["reorthogonalize"] not in ("selective", "none"):
            vectors = KrylovVectors(bases=tuple(
                basis_from_rows(stored[:, probe], expected["reorthogonalize"], expected["basis_dtype"], backend)
                for probe in range(stored.shape[1])
            ))
        else:
            vectors = KrylovVectors(
                previous=backend.asarray(arrays.pop("previous")), current=backend.asarray(arrays.pop("current")),
                locked=backend.asarray(stored[:, 0]) if selective else None, captured=arrays.pop("captured", None),
                newest=arrays.pop("newest", None), removing=arrays.pop("removing", None),
            )  # fmt: skip
        self._token, self._rows, self._crc = token, rows, crc
        self._last = time.monotonic()
        fields: dict[str, Any] = {**scalars, **arrays}
        return LanczosResult(**fields, vectors=vectors)

    def _read_rows(self, token: str, rows: int, crc: int, num_probes: int, n: int, dtype: np.dtype) -> np.ndarray:
        size = rows * num_probes * n * dtype.itemsize
        try:
            with open(self.basis_path, "rb") as stream:
                if stream.read(_TOKEN_BYTES).hex() != token:
                    raise ValueError("it belongs to another header")
                data = np.fromfile(stream, np.uint8, size)
            if data.size != size:
                raise ValueError(f"it holds {data.size} of {size} bytes")
            if zlib.crc32(data.data) != crc:
                raise ValueError("its checksum is wrong")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The vectors {str(self.basis_path)!r} of the checkpoint are damaged ({error}). "
                f"Delete both files or choose another path."
            ) from error
        return data.view(dtype).reshape(rows, num_probes, n)

    def confirm(self, run: LanczosResult, operator: LinearOperator, start: Array) -> None:
        """Recompute the first coefficient with one product; another operator gives another number.

        Raises
        ------
        ValueError
            When it differs by more than rounding.
        """
        alpha = other_first_coefficient(run, operator, start[0])
        if alpha is not None:
            raise ValueError(
                f"The checkpoint {str(self.path)!r} belongs to another operator: the first coefficient is {run.alphas[0, 0]:.9g} there "
                f"and {alpha:.9g} here. Delete it (and {self.basis_path.name}) or choose another path."
            )


def other_first_coefficient(run: LanczosResult, operator: LinearOperator, start: Array) -> float | None:
    """The first coefficient by one product, when it is not that of the run up to rounding; None when it is."""
    backend = operator.backend
    product = operator.matmat(start[:, None])
    first = backend.asarray(product[:, 0], dtype=operator.dtype) + 0
    alpha = float(np.real(backend.to_numpy(backend.dot(start, first))))
    scale = abs(run.alphas[0, 0]) + run.betas[0, 0] + np.finfo(np.float64).tiny
    stored = float(np.finfo(run.basis_dtype).eps) if run.keeps_basis else 0.0  # the starting vector may come from a narrower type
    return None if abs(alpha - run.alphas[0, 0]) <= max(np.sqrt(operator.unit_rounding), stored) * scale else alpha

