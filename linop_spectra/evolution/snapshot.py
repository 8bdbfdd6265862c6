"""The spectrum of one moment of training: density, extreme eigenpairs, and where the gradient points."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any, Literal

import numpy as np

from ..backends import Array
from ..curvature import Objective
from ..curvature.preconditioned import preconditioned
from ..krylov import LanczosResult, eigsh
from ..krylov.lanczos import check_count
from ..krylov.result import on_host
from ..operators import LinearOperator
from ..results import PathLike, read_result, register, save_result
from ..spectra import SpectralDensity, spectral_density

Matrix = Literal["hessian", "ggn", "fisher", "residual", "gradient_covariance"]
MATRICES = ("hessian", "ggn", "fisher", "residual", "gradient_covariance")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured of each moment; see `linop_spectra.evolution`."""

    matrix: Matrix = "hessian"
    num_steps: int = 48
    num_probes: int | Literal["auto"] = "auto"
    k: int = 5
    tol: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.matrix not in MATRICES:
            raise ValueError(f"The argument matrix is {self.matrix!r}, but must be one of {', '.join(map(repr, MATRICES))}.")
        check_count("num_steps", self.num_steps)
        check_count("k", self.k)
        if self.num_probes != "auto":
            check_count("num_probes", self.num_probes)
        if not 0 <= self.tol < 1:
            raise ValueError(f"The argument tol must lie between 0 and 1, but is {self.tol!r}.")

    def operator(self, obj: Objective, preconditioner: Any = None) -> LinearOperator:
        """The matrix at the parameters of an objective."""
        operator: LinearOperator = getattr(obj, self.matrix)()
        return operator if preconditioner is None else preconditioned(operator, preconditioner)


@register("snapshot")
@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """Spectrum, extreme pairs and gradient at one moment of training.

    Attributes
    ----------
    step : float
        The moment: a step, an epoch, or a place in a list.
    label : str
        Its name.
    density : SpectralDensity
        The spectrum.
    eigenvalues : numpy.ndarray
        The k largest eigenvalues, descending, shape (k,).
    residual_norms : numpy.ndarray
        Their residual norms, shape (k,).
    converged : numpy.ndarray
        Whether each residual is below the tolerance, shape (k,).
    overlap : float
        Mean squared cosine of the principal angles between the span of the k eigenvectors and that of the moment before; NaN for the
        first. By chance it is k / P.
    loss, gradient_norm : float
        Of the objective.
    gradient_overlap : float
        Share of the squared gradient that lies in the span of the k eigenvectors. By chance it is k / P.
    learning_rate : float
        As it was given, or NaN.
    eigenvectors : array or None
        Orthonormal columns, shape (P, k), in the order of the eigenvalues, to start the next search from.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Wall-clock time.
    key : str
        Digest of parameters and settings.
    """

    step: float
    label: str
    density: SpectralDensity
    eigenvalues: np.ndarray
    residual_norms: np.ndarray
    converged: np.ndarray
    overlap: float
    loss: float
    gradient_norm: float
    gradient_overlap: float
    learning_rate: float
    eigenvectors: Array | None
    num_matvecs: int
    seconds: float
    key: str = ""

    def save(self, path: PathLike) -> None:
        """Write everything, eigenvectors included, to `path` (``.npz``); `linop_spectra.load` reads it back."""
        scalars, arrays = self._parts()
        save_result(path, "snapshot", scalars, arrays)

    def _parts(self, *, vectors: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        names = ("step", "label", "overlap", "loss", "gradient_norm", "gradient_overlap", "learning_rate", "num_matvecs", "seconds", "key")
        run, arrays = self.density.run._to_file()
        scalars = {name: getattr(self, name) for name in names}
        scalars["density"] = {"run": run, "pin": self.density.pin, "notes": list(self.density.notes)}
        own = {f"run.{name}": array for name, array in arrays.items()}
        own |= {"eigenvalues": self.eigenvalues, "residual_norms": self.residual_norms, "converged": self.converged}
        if vectors and self.eigenvectors is not None:
            own["eigenvectors"] = on_host(self.eigenvectors)
        return scalars, own

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Snapshot:
        saved = scalars.pop("density")
        run = LanczosResult._from_file(
            saved["run"], {name.removeprefix("run."): array for name, array in arrays.items() if name.startswith("run.")}
        )
        density = SpectralDensity(run, saved["pin"], tuple(saved["notes"]))
        return cls(
            **scalars, density=density, eigenvalues=arrays["eigenvalues"], residual_norms=arrays["residual_norms"],
            converged=arrays["converged"], eigenvectors=arrays.get("eigenvectors"),
        )  # fmt: skip


def key_of(obj: Objective, settings: Settings, preconditioner: Any) -> str:
    """Digest of the parameters and of what is measured at them."""
    parameters = np.ascontiguousarray(obj.functions.backend.to_numpy(obj.parameters()))
    digest = hashlib.sha256(parameters.tobytes())
    digest.update(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    digest.update(f"{obj.num_examples} {obj.weight_decay}".encode())
    if preconditioner is not None:
        operator = settings.operator(obj, preconditioner)
        digest.update(np.ascontiguousarray(operator.backend.to_numpy(getattr(operator, "scale", 0))).tobytes())
    return digest.hexdigest()[:32]


def take_snapshot(
    obj: Objective, settings: Settings, step: float, label: str, before: Snapshot | None, *, learning_rate: float = float("nan"),
    preconditioner: Any = None,
) -> Snapshot:  # fmt: skip
    """Measure one moment; the search for eigenpairs starts at the vectors of the moment before."""
    began = time.perf_counter()
    operator = settings.operator(obj, preconditioner)
    backend, n = operator.backend, operator.shape[0]
    density = spectral_density(operator, num_steps=min(settings.num_steps, n), num_probes=settings.num_probes, seed=settings.seed)
    _complete(density.status)
    start = None if before is None or before.eigenvectors is None else backend.asarray(before.eigenvectors, dtype=operator.dtype)
    pairs = eigsh(operator, k=min(settings.k, n), which="LA", tol=settings.tol, start=start, seed=settings.seed)
    _complete(pairs.status)
    # Descending.
    rows = backend.contiguous(pairs.eigenvectors.T, operator.dtype)[list(range(len(pairs.eigenvalues)))[::-1], :]
    gradient = backend.asarray(obj.gradient(), dtype=operator.dtype)
    norm = float(backend.to_numpy(backend.norm(gradient)))
    inside = np.asarray(backend.to_numpy(rows @ gradient), dtype=np.float64)
    overlap = float("nan")
    if start is not None:
        cosines = np.asarray(backend.to_numpy(rows @ start), dtype=np.float64)
        overlap = float(np.sum(cosines**2) / min(cosines.shape))
    return Snapshot(
        step=float(step), label=label, density=density, eigenvalues=pairs.eigenvalues[::-1].copy(),
        residual_norms=pairs.residual_norms[::-1].copy(), converged=pairs.converged[::-1].copy(), overlap=overlap, loss=obj.value(),
        gradient_norm=norm, gradient_overlap=float(np.sum(inside**2) / norm**2) if norm > 0 else float("nan"),
        learning_rate=float(learning_rate), eigenvectors=rows.T, num_matvecs=density.num_matvecs + pairs.num_matvecs,
        seconds=time.perf_counter() - began, key=key_of(obj, settings, preconditioner),
    )  # fmt: skip


def _complete(status: str) -> None:
    """Pass a Ctrl-C on: half of a moment would be taken for the whole of it later."""
    if status == "interrupted":
        raise KeyboardInterrupt


def read_snapshot(path: PathLike) -> Snapshot:
    """A saved snapshot, or a ValueError."""
    scalars, arrays = read_result(path)
    if scalars.pop("kind") != "snapshot":
        raise ValueError(f"The file {str(path)!r} holds no snapshot of an evolution; choose another folder.")
    scalars.pop("format")
    return Snapshot._from_file(scalars, arrays)
