"""Spectra over the checkpoints of a training."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..curvature import Objective
from ..results import PathLike, register, save_result
from ..spectra import SpectralDensity
from .edge import Method, stability_threshold
from .snapshot import Matrix, Settings, Snapshot, key_of, read_snapshot, take_snapshot

_LOSS_TOLERANCE = 1e-4


@register("evolution")
@dataclasses.dataclass(frozen=True, eq=False)
class Evolution:
    """Spectra, extreme eigenpairs, overlaps, loss and gradient through training.

    Attributes
    ----------
    snapshots : tuple of Snapshot
        One for each moment, in order.
    matrix : str
        Which matrix; ``"preconditioned hessian"`` and the like where a preconditioner was given.
    method : str
        Of the stability threshold: "gd", "heavy_ball", "nesterov" or "adam".
    momentum : float
        Of that method.
    notes : tuple of str
        What a reader should know, such as steps at which the training had diverged.
    """

    snapshots: tuple[Snapshot, ...]
    matrix: str = "hessian"
    method: Method = "gd"
    momentum: float = 0.0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.snapshots)

    def _array(self, name: str) -> np.ndarray:
        return np.array([getattr(snapshot, name) for snapshot in self.snapshots], dtype=np.float64)

    @property
    def steps(self) -> np.ndarray:
        """Moments, shape (T,)."""
        return self._array("step")

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(snapshot.label for snapshot in self.snapshots)

    @property
    def spectra(self) -> tuple[SpectralDensity, ...]:
        """One density for each moment."""
        return tuple(snapshot.density for snapshot in self.snapshots)

    @functools.cached_property
    def eigenvalues(self) -> np.ndarray:
        """Largest eigenvalues, descending, shape (T, k)."""
        return np.array([snapshot.eigenvalues for snapshot in self.snapshots])

    @property
    def residual_norms(self) -> np.ndarray:
        """Their residual norms, shape (T, k)."""
        return np.array([snapshot.residual_norms for snapshot in self.snapshots])

    @property
    def smallest(self) -> np.ndarray:
        """Smallest Ritz value of each spectrum, shape (T,); the smallest eigenvalue is not larger."""
        return np.array([density.extreme_eigenvalues()[0][0] for density in self.spectra])

    @property
    def overlaps(self) -> np.ndarray:
        """Mean squared cosine between the spans of the top eigenvectors of successive moments, shape (T,); the first is NaN."""
        return self._array("overlap")

    @property
    def gradient_overlaps(self) -> np.ndarray:
        """Share of the squared gradient in the span of the top eigenvectors, shape (T,)."""
        return self._array("gradient_overlap")

    @property
    def null_overlap(self) -> float:
        """What either overlap is by chance: k / P."""
        return self.eigenvalues.shape[1] / self.snapshots[0].density.dimension

    @property
    def loss(self) -> np.ndarray:
        """Values of the objective, shape (T,)."""
        return self._array("loss")

    @property
    def gradient_norms(self) -> np.ndarray:
        """Norms of its gradient, shape (T,)."""
        return self._array("gradient_norm")

    @property
    def learning_rates(self) -> np.ndarray:
        """Learning rates as they were given, NaN where none was, shape (T,)."""
        return self._array("learning_rate")

    @property
    def thresholds(self) -> np.ndarray:
        """Largest stable eigenvalue for each learning rate, such as 2 / lr, shape (T,); NaN where none is known."""
        return np.array(
            [
                stability_threshold(rate, self.method, momentum=self.momentum) if np.isfinite(rate) else math.nan
                for rate in self.learning_rates
            ]
        )

    @property
    def edge_ratios(self) -> np.ndarray:
        """Largest eigenvalue over the threshold, shape (T,): about one at the edge of stability."""
        return np.asarray(self.eigenvalues[:, 0] / self.thresholds)

    @property
    def negative_mass(self) -> np.ndarray:
        """Lower and upper bound of the mass below the noise floor, shape (T, 2)."""
        return np.array([density.negative_mass() for density in self.spectra])

    @property
    def traces(self) -> np.ndarray:
        """Traces, shape (T,); their errors are in the densities."""
        return np.array([density.trace().value for density in self.spectra])

    @property
    def num_matvecs(self) -> int:
        """Products with single vectors."""
        return sum(snapshot.num_matvecs for snapshot in self.snapshots)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all measurements."""
        return sum(snapshot.seconds for snapshot in self.snapshots)

    @property
    def converged(self) -> bool:
        """Whether all eigenpairs converged."""
        return all(bool(np.all(snapshot.converged)) for snapshot in self.snapshots)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary of numbers for each moment, for a table."""
        low, high = self.negative_mass.T
        columns: dict[str, Any] = {
            "step": self.steps, "label": self.labels, "loss": self.loss, "gradient_norm": self.gradient_norms,
            "largest": self.eigenvalues[:, 0], "smallest": self.smallest, "trace": self.traces, "negative_mass_low": low,
            "negative_mass_high": high, "overlap": self.overlaps, "gradient_overlap": self.gradient_overlaps,
            "learning_rate": self.learning_rates, "threshold": self.thresholds,
        }  # fmt: skip
        return [
            {name: values[i] if isinstance(values, tuple) else float(values[i]) for name, values in columns.items()}
            for i in range(len(self))
        ]

    def __str__(self) -> str:
        known = bool(np.isfinite(self.learning_rates).any())
        head = f"{'step':>10s} {'loss':>11s} {'|gradient|':>11s} {'largest':>11s} {'smallest':>11s} {'overlap':>8s} {'of gradient':>11s}"
        lines = [head + (f" {'threshold':>11s}" if known else "")]
        for row in self.rows():
            line = (
                f"{row['step']:10.6g} {row['loss']:11.5g} {row['gradient_norm']:11.4g} {row['largest']:11.5g} {row['smallest']:11.4g} "
                f"{row['overlap']:8.3f} {row['gradient_overlap']:11.3f}"
            )
            lines.append(line + (f" {row['threshold']:11.5g}" if known else ""))
        lines.append(f"By chance the overlaps would be {self.null_overlap:.2g}.")
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return f"Evolution({len(self)} moments of the {self.matrix}, k={self.eigenvalues.shape[1]}, num_matvecs={self.num_matvecs})"

    def plot(self, path: PathLike | None = None, *, kind: Literal["overview", "ridge"] = "overview") -> Any:
        """Draw the spectra through training; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.
        kind : {"overview", "ridge"}
            ``"overview"``: heat map of the densities, largest eigenvalues beside the stability threshold, overlaps, loss and gradient.
            ``"ridge"``: the densities above each other.

        Returns
        -------
        numpy.ndarray or matplotlib.axes.Axes
            The four axes of the overview, or the axes of the ridges.
        """
        from ..plots.evolution import evolution_overview, spectrum_ridge

        if kind not in ("overview", "ridge"):
            raise ValueError(f"The argument kind is {kind!r}, but must be 'overview' or 'ridge'.")
        drawn: Any = evolution_overview(self) if kind == "overview" else spectrum_ridge(self)
        if path is not None:
            (drawn[0] if kind == "overview" else drawn).figure.savefig(path)
        return drawn

    def save(self, path: PathLike) -> None:
        """Write everything but the eigenvectors to `path` (``.npz``); `linop_spectra.load` reads it back."""
        header, arrays = [], {}
        for index, snapshot in enumerate(self.snapshots):
            scalars, own = snapshot._parts(vectors=False)
            header.append(scalars)
            arrays.update({f"{index}.{name}": array for name, array in own.items()})
        scalars = {"snapshots": header, "matrix": self.matrix, "method": self.method, "momentum": self.momentum,
                   "notes": list(self.notes)}  # fmt: skip
        save_result(path, "evolution", scalars, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Evolution:
        snapshots = []
        for index, saved in enumerate(scalars["snapshots"]):
            prefix = f"{index}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            snapshots.append(Snapshot._from_file(saved, own))
        return cls(tuple(snapshots), scalars["matrix"], scalars["method"], scalars["momentum"], tuple(scalars.get("notes", ())))


def evolution(
    obj: Objective,
    checkpoints: Iterable[Any] | Mapping[Any, Any],
    *,
    matrix: Matrix = "hessian",
    num_steps: int = 48,
    num_probes: int | Literal["auto"] = "auto",
    k: int = 5,
    tol: float = 1e-5,
    learning_rate: float | Sequence[float] | None = None,
    method: Method = "gd",
    momentum: float = 0.0,
    preconditioners: Sequence[Any] | None = None,
    folder: PathLike | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Evolution:
    """Spectrum, largest eigenpairs, loss and gradient at each of several checkpoints of one model.

    All spectra have the same probes, so that what moves from one to the next is the spectrum. The search for eigenpairs starts from the
    eigenvectors of the checkpoint before.

    Parameters
    ----------
    obj : Objective
        Model, loss and data; its own parameters do not matter.
    checkpoints : iterable or mapping
        What `Objective.with_parameters` takes (state dicts, pytrees, weights of Keras, vectors, paths of files), or objectives. The keys of
        a mapping are the moments; otherwise they are the last numbers in the names of files where each has one, or 0, 1, 2, ...
    matrix : {"hessian", "ggn", "fisher", "residual", "gradient_covariance"}
        Which matrix.
    num_steps, num_probes
        Of each spectrum, as for `linop_spectra.spectral_density`.
    k : int
        Largest eigenpairs of each checkpoint.
    tol : float
        Of the pairs, as for `linop_spectra.eigsh`.
    learning_rate : float or sequence of float, optional
        Of the training, one for all or for each checkpoint, for the line of the stability threshold.
    method, momentum
        Of the training, as for `stability_threshold`.
    preconditioners : sequence, optional
        One for each checkpoint, as for `linop_spectra.preconditioned`, such as the diagonal that Adam divides by.
    folder : str or path, optional
        Where each checkpoint's result is kept as it is done; a second call takes up from there. A result counts where parameters and
        settings are the same; another loss means other data, which is refused.
    seed : int
        Of the probes.
    progress : bool or callable, optional
        True shows a bar of checkpoints.

    Returns
    -------
    Evolution
        It prints as a table and draws itself.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.evolution import evolution
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 1).double()
    >>> objective = ls.objective(model, "mse", (torch.randn(20, 3).double(), torch.randn(20, 1).double()))
    >>> path = [objective.parameters() * scale for scale in (1.0, 0.5, 0.0)]
    >>> found = evolution(objective, path, k=2, num_steps=4, learning_rate=0.1)
    >>> found.eigenvalues.shape, bool((abs(found.overlaps[1:] - 1) < 1e-6).all()), found.thresholds.tolist()
    ((3, 2), True, [20.0, 20.0, 20.0])
    """
    if not isinstance(obj, Objective):
        raise TypeError(f"The argument obj is a {type(obj).__name__}, but must be an objective made by linop_spectra.objective.")
    settings = Settings(matrix, num_steps, num_probes, k, tol, seed)
    moments = _moments(checkpoints)
    rates = _rates(learning_rate, len(moments))
    if np.isfinite(rates).any():
        stability_threshold(float(rates[np.isfinite(rates)][0]), method, momentum=momentum)
    if preconditioners is not None and len(preconditioners) != len(moments):
        raise ValueError(
            f"The argument preconditioners has {len(preconditioners)} entries for {len(moments)} checkpoints; pass one for each."
        )
    where = None if folder is None else pathlib.Path(folder)
    if where is not None:
        where.mkdir(parents=True, exist_ok=True)
    snapshots: list[Snapshot] = []
    before: Snapshot | None = None
    with ProgressBar(progress, len(moments), "evolution", unit="checkpoint") as bar:
        for index, (step, label, source) in enumerate(moments):
            own = source if isinstance(source, Objective) else obj.with_parameters(source)
            preconditioner = None if preconditioners is None else preconditioners[index]
            snapshot = None if where is None else _found(where, index, own, settings, preconditioner)
            if snapshot is None:
                snapshot = take_snapshot(
                    own, settings, step, label, before, learning_rate=float(rates[index]), preconditioner=preconditioner
                )
                if where is not None:
                    snapshot.save(_file(where, index))
            else:
                snapshot = dataclasses.replace(snapshot, step=step, label=label, learning_rate=float(rates[index]))
            if before is not None:  # only the newest vectors are kept
                snapshots[-1] = dataclasses.replace(before, eigenvectors=None)
            snapshots.append(snapshot)
            before = snapshot
            bar.advance()
    name = matrix if preconditioners is None else f"preconditioned {matrix}"
    return Evolution(tuple(snapshots), name, method, momentum)


def _moments(checkpoints: Any) -> list[tuple[float, str, Any]]:
    if isinstance(checkpoints, str | os.PathLike) or hasattr(checkpoints, "shape"):
        raise TypeError(
            f"The argument checkpoints is a single {type(checkpoints).__name__}; pass a list of checkpoints, such as "
            "sorted(pathlib.Path(folder).glob('*.pt'))."
        )
    if isinstance(checkpoints, Mapping):
        items = list(checkpoints.items())
        numbers = [_number(key) for key, _ in items]
        sources = [source for _, source in items]
        labels = [str(key) for key, _ in items]
    else:
        sources = list(checkpoints)
        paths = [isinstance(source, str | os.PathLike) for source in sources]
        labels = [pathlib.Path(s).stem if path else str(i) for i, (s, path) in enumerate(zip(sources, paths, strict=True))]
        numbers = [_number(label) if path else None for label, path in zip(labels, paths, strict=True)]
    if not sources:
        raise ValueError("The argument checkpoints is empty; pass at least one checkpoint.")
    if any(number is None for number in numbers) or len(set(numbers)) < len(numbers):
        numbers = [float(i) for i in range(len(sources))]
    return [(float(number or 0.0), label, source) for number, label, source in zip(numbers, labels, sources, strict=True)]


def _number(key: Any) -> float | None:
    if isinstance(key, int | float | np.integer | np.floating) and not isinstance(key, bool):
        return float(key)
    found = re.findall(r"\d+(?:\.\d+)?", str(key))
    return float(found[-1]) if found else None


def _rates(learning_rate: Any, count: int) -> np.ndarray:
    if learning_rate is None:
        return np.full(count, math.nan)
    rates = np.asarray(learning_rate, dtype=np.float64)
    if rates.shape not in ((), (count,)):
        raise ValueError(
            f"The argument learning_rate has shape {rates.shape}, but must be one number or one for each of {count} checkpoints."
        )
    if not np.all(np.isfinite(rates) & (rates > 0)):
        raise ValueError("The argument learning_rate must be positive and finite.")
    return np.asarray(np.broadcast_to(rates, (count,)))


def _file(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"checkpoint-{index:05d}.npz"


def _found(folder: pathlib.Path, index: int, obj: Objective, settings: Settings, preconditioner: Any) -> Snapshot | None:
    """What an earlier call has kept of this checkpoint."""
    path = _file(folder, index)
    if not path.exists():
        return None
    snapshot = read_snapshot(path)
    if snapshot.key != key_of(obj, settings, preconditioner):
        return None
    value = obj.value()
    if abs(value - snapshot.loss) > _LOSS_TOLERANCE * max(abs(value), abs(snapshot.loss), 1e-12):
        raise ValueError(
            f"The file {str(path)!r} has the same parameters, but the loss {snapshot.loss:.6g} instead of {value:.6g}: it belongs to other "
            "data or another loss; choose another folder."
        )
    return snapshot
