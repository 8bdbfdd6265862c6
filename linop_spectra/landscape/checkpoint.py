"""Checkpoints of a landscape: what was measured at the points that are done."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
import warnings
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from ..backends import Array, to_numpy
from ..results import PathLike, read_result, save_result

CHECKPOINT_SECONDS = 10.0
"""Shortest time between two writes."""
_KIND = "landscape checkpoint"
LOSS, HELD_OUT = "loss", "held-out loss"


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What two runs must agree in to be the same."""

    parameters: int
    geometry: int
    names: tuple[str, ...]
    batch_norm: str

    @classmethod
    def of(cls, theta: Array, geometry: Sequence[np.ndarray], names: Sequence[str], batch_norm: str) -> Fingerprint:
        """Checksums of parameters, directions and distances, and what is measured."""
        return cls(_checksum(to_numpy(theta)), _checksum(*geometry), tuple(names), batch_norm)


class Checkpoint:
    """Writer and reader of one checkpoint, a file that is replaced atomically.

    Parameters
    ----------
    path : str or path
        The file.
    fingerprint : Fingerprint
        Of the run.

    Raises
    ------
    OSError
        When the folder does not exist or cannot be written to.
    """

    def __init__(self, path: PathLike, fingerprint: Fingerprint) -> None:
        self.path, self._fingerprint, self._last, self._usable = pathlib.Path(path), fingerprint, time.monotonic(), True
        folder = self.path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK) or self.path.is_dir():
            raise OSError(f"The checkpoint {str(self.path)!r} cannot be written: its folder is missing or not writable, or it is a folder.")

    def due(self) -> bool:
        """Whether enough time has passed since the last write."""
        return time.monotonic() - self._last >= CHECKPOINT_SECONDS

    def write(self, values: np.ndarray, done: np.ndarray) -> None:
        """Replace the file. A full disk is said once and does not end the run."""
        if not self._usable:
            return
        try:
            save_result(self.path, _KIND, dataclasses.asdict(self._fingerprint), {"values": values, "done": done})
        except OSError as error:
            self._usable = False
            warnings.warn(f"The checkpoint {str(self.path)!r} could not be written ({error}); the run goes on without it.", stacklevel=4)
        self._last = time.monotonic()

    def read(self, values: np.ndarray, done: np.ndarray, measure: Callable[[int], list[float]], *, tolerance: float) -> None:
        """Fill in what the file holds, once a point of it that is measured again has the same loss up to rounding.

        Raises
        ------
        ValueError
            When the file is damaged or belongs to another run.
        """
        if not self.path.exists():
            return
        scalars, arrays = read_result(self.path)
        if scalars["kind"] != _KIND:
            raise ValueError(f"The file {str(self.path)!r} is no checkpoint of a landscape; choose another path.")
        meanings = {"parameters": "parameters", "geometry": "directions or distances", "names": "metrics", "batch_norm": "batch_norm"}
        for name, meaning in meanings.items():
            wanted, found = getattr(self._fingerprint, name), scalars[name]
            if (tuple(found) if name == "names" else found) != wanted:
                raise ValueError(
                    f"The checkpoint {str(self.path)!r} belongs to another run: its {meaning} are not those of this one. Delete it or "
                    "choose another path."
                )
        places = np.flatnonzero(arrays["done"] & np.isfinite(arrays["values"][0]))
        if len(places):
            again = measure(int(places[0]))
            for row in (i for i, name in enumerate(self._fingerprint.names) if name in (LOSS, HELD_OUT)):
                before, now = arrays["values"][row, places[0]], again[row]
                if not abs(now - before) <= tolerance * max(abs(before), tolerance) and not np.isnan([before, now]).all():
                    raise ValueError(
                        f"The checkpoint {str(self.path)!r} belongs to another objective: at one point the {self._fingerprint.names[row]} "
                        f"is {before:.9g} there and {now:.9g} here. Delete it or choose another path."
                    )
        values[:], done[:] = arrays["values"], arrays["done"]


def _checksum(*arrays: np.ndarray) -> int:
    value = 0
    for array in arrays:
        value = zlib.crc32(repr((array.shape, array.dtype.str)).encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, value)
    return value
