"""Estimates with intervals, and the file format shared by every result.

A saved result is an ``.npz`` archive: arrays as they are, and one JSON header that names the class, its format version and
all scalars. Nothing is pickled, so that a file from a stranger can be opened without running code.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

__all__ = ["Estimate", "load"]

FORMAT_VERSION = 1
_HEADER = "__header__"
_LOADERS: dict[str, Callable[[dict[str, Any], dict[str, np.ndarray]], Any]] = {}

PathLike = str | os.PathLike[str]
T = TypeVar("T")


def register(kind: str) -> Callable[[type[T]], type[T]]:
    """Register a class under `kind`, so that `load` rebuilds it with its ``_from_file(scalars, arrays)``."""

    def decorate(cls: type[T]) -> type[T]:
        _LOADERS[kind] = cls._from_file  # type: ignore[attr-defined]
        return cls

    return decorate


def write_atomically(path: PathLike, write: Callable[[Any], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and move it into place in one step.

    Raises
    ------
    OSError
        When the folder cannot be written or the disk is full; nothing is left behind and an older file stays whole.
    """
    target = pathlib.Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        # A private temporary file gets the permissions that a plain open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def save_result(path: PathLike, kind: str, scalars: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write one result as an ``.npz`` archive with a JSON header, atomically and without pickles."""
    header = json.dumps({"kind": kind, "format": FORMAT_VERSION, **scalars})
    content = {_HEADER: np.array(header), **arrays}
    write_atomically(path, lambda stream: np.savez(stream, allow_pickle=False, **content))


def read_result(path: PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read header and arrays of a saved result.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is damaged, is no result of this library, or was written by a newer format.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r} to load.")
    try:
        # Our own handle: numpy leaves it open when the file is damaged.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        scalars = json.loads(str(arrays.pop(_HEADER)))
        kind, version = scalars["kind"], scalars["format"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"The file {str(path)!r} is damaged or was not written by linop_spectra ({type(error).__name__}: {error}); "
            "delete it or choose another path."
        ) from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"The file {str(path)!r} has format {version}, but this version of linop_spectra reads up to {FORMAT_VERSION}; "
            "upgrade the library."
        )
    scalars["kind"] = kind
    return scalars, arrays


def load(path: PathLike) -> Any:
    """Load any result that was written by its ``save`` method.

    Parameters
    ----------
    path : str or path
        File written by `LanczosResult.save`, `SpectralDensity.save`, `EigenResult.save` or `Estimate.save`.

    Returns
    -------
    object
        A result of the class that was saved.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is damaged or holds no known result.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np, linop_spectra as ls
    >>> run = ls.lanczos(ls.diagonal_operator(np.arange(50.0)), 8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run.save(pathlib.Path(folder) / "run.npz")
    ...     again = ls.load(pathlib.Path(folder) / "run.npz")
    >>> bool(np.all(again.alphas == run.alphas))
    True
    """
    scalars, arrays = read_result(path)
    kind = scalars.pop("kind")
    if kind not in _LOADERS:
        raise ValueError(f"The file {str(path)!r} holds a {kind!r}, which this version of linop_spectra does not know.")
    scalars.pop("format")
    return _LOADERS[kind](scalars, arrays)


@register("estimate")
@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its error, split into where the error comes from.

    Attributes
    ----------
    value : float
        The estimate, in the unit of the quantity.
    standard_error : float
        Statistical standard error (same unit): what other random probes would have changed.
    quadrature_error : float
        Bound or estimate of the deterministic error (same unit): what more Lanczos steps would have changed.
    rounding_error : float
        What exact arithmetic would have changed (same unit).
    num_matvecs : int
        Products with the operator that were spent.
    degrees_of_freedom : float
        Of Student's t distribution for the interval; infinite where the standard error is known rather than estimated.
    seconds : float
        Wall-clock time.
    method : str
        How the number was found.
    converged : bool
        False where a requested tolerance was not met, or the run was cut short.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> ls.Estimate(10.0, standard_error=1.0, num_matvecs=4).confidence_interval(0.95)
    (8.04..., 11.95...)
    """

    value: float
    standard_error: float = 0.0
    quadrature_error: float = 0.0
    rounding_error: float = 0.0
    num_matvecs: int = 0
    degrees_of_freedom: float = math.inf
    seconds: float = 0.0
    method: str = ""
    converged: bool = True

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval: Student's t times the standard error, widened by the quadrature and the rounding error.

        Parameters
        ----------
        level : float
            Nominal coverage, between 0 and 1.

        Returns
        -------
        tuple of float
            Lower and upper end.
        """
        if not 0 < level < 1:
            raise ValueError(f"The argument level must lie strictly between 0 and 1, but is {level!r}; for 95 % pass 0.95.")
        from scipy import special

        quantile = float(special.stdtrit(self.degrees_of_freedom, 0.5 + level / 2)) if self.standard_error > 0 else 0.0
        half = quantile * self.standard_error + self.quadrature_error + self.rounding_error
        return self.value - half, self.value + half

    @property
    def sources(self) -> dict[str, float]:
        """Where the error comes from: random probes (one standard error), quadrature and rounding."""
        return {"probe": self.standard_error, "quadrature": self.quadrature_error, "rounding": self.rounding_error}

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        low, high = self.confidence_interval(0.95)
        parts = ", ".join(f"{name} {size:.2g}" for name, size in self.sources.items() if size > 0)
        return f"{self.value:.6g} (95 % interval {low:.6g} to {high:.6g}" + (f"; {parts})" if parts else ")")

    def _repr_html_(self) -> str:
        low, high = self.confidence_interval(0.95)
        rows = [
            ("estimate", f"{self.value:.6g}"), ("95 % interval", f"{low:.6g} to {high:.6g}"),
            ("standard error (probe)", f"{self.standard_error:.3g}"), ("quadrature error", f"{self.quadrature_error:.3g}"),
            ("rounding error", f"{self.rounding_error:.3g}"),
            ("products", f"{self.num_matvecs:,}"), ("method", self.method),
        ]
        return html_table(rows)

    def save(self, path: PathLike) -> None:
        """Write the estimate to `path`; `linop_spectra.load` reads it back."""
        save_result(path, "estimate", dataclasses.asdict(self), {})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Estimate:
        return cls(**scalars)


def html_table(rows: list[tuple[str, str]]) -> str:
    """A two-column HTML table for notebooks; every cell is escaped."""
    from html import escape

    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"
