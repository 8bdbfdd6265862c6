"""One tidy table of spectral numbers over a grid: checkpoints, sample sizes, splits of the data, and matrices."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
import operator
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..curvature import Objective
from ..krylov.lanczos import check_count
from ..results import PathLike, write_atomically
from ..spectra import SpectralDensity, spectral_density
from .snapshot import MATRICES

Operators = Sequence[str] | Mapping[str, Callable[[Objective], Any]]


class Study(Sequence[dict[str, Any]]):
    """Rows of a study: a sequence of dictionaries with the same keys, one for each cell of the grid.

    Parameters
    ----------
    rows : list of dict
        The rows.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows = [dict(row) for row in rows]

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, **values: Any) -> Study:
        """The rows with these values, as in ``study.select(operator="ggn", split="test")``."""
        return Study(row for row in self.rows if all(row.get(name) == value for name, value in values.items()))

    def column(self, name: str) -> np.ndarray:
        """One column, shape (number of rows,)."""
        return np.array([row[name] for row in self.rows])

    def save(self, path: PathLike) -> None:
        """Write the table to `path`, as ``.csv``, or as ``.json`` (a list of objects; NaN as null)."""
        path = pathlib.Path(path)
        if path.suffix == ".csv":
            text = _csv(self.rows)
        elif path.suffix == ".json":
            text = json.dumps([_jsonable(row) for row in self.rows], indent=1)
        else:
            raise ValueError(f"The argument path is {str(path)!r}, but a table is written as .csv or .json.")
        write_atomically(path, lambda stream: stream.write(text.encode()))

    def __str__(self) -> str:
        if not self.rows:
            return "an empty study"
        names = [name for name in self.rows[0] if name != "key"]
        cells = [[_short(row[name]) for name in names] for row in self.rows]
        widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
        lines = ["  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Study({len(self.rows)} rows)"


def study(
    obj: Objective,
    *,
    checkpoints: Mapping[Any, Any] | Iterable[Any] | None = None,
    sample_sizes: Sequence[int | None] | None = None,
    splits: Mapping[str, Any] | None = None,
    operators: Operators = ("hessian",),
    seeds: Sequence[int] = (0,),
    measure: Callable[[SpectralDensity, Objective], Mapping[str, float]] | None = None,
    num_steps: int = 48,
    num_probes: int | Literal["auto"] = "auto",
    path: PathLike | None = None,
    progress: Progress = None,
) -> Study:
    """Spectral numbers of every combination of checkpoint, split, sample size, matrix and seed, in one table.

    Parameters
    ----------
    obj : Objective
        Model, loss and data.
    checkpoints : mapping or iterable, optional
        Parameters as for `Objective.with_parameters`, by name or counted; by default those of `obj`.
    sample_sizes : sequence of int or None, optional
        Examples of each class, drawn by `Objective.subset` with the seed of the cell; None stands for all.
    splits : mapping, optional
        Data by name, as for `Objective.with_data`; by default that of `obj`, as ``"data"``.
    operators : sequence of str or mapping
        Names of matrices, or functions that make one of an objective, by name.
    seeds : sequence of int
        Of probes and samples.
    measure : callable, optional
        Called with the density and its objective; what it returns are further columns.
    num_steps, num_probes
        Of each spectrum, as for `linop_spectra.spectral_density`.
    path : str or path, optional
        File of one JSON object for each line, to which cells are added as they are done; a second call computes only what is missing.
    progress : bool or callable, optional
        True shows a bar of cells.

    Returns
    -------
    Study
        A sequence of dictionaries with the cell's coordinates, loss, trace with its standard error, Frobenius norm, largest and smallest
        Ritz value, number of outliers, bracket of the negative mass, products and seconds.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit, or `path` holds another study.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.evolution import study
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 2)
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(40, 3), torch.arange(40) % 2))
    >>> table = study(objective, sample_sizes=(5, None), operators=("hessian", "ggn"), num_steps=8)
    >>> len(table), table[0]["operator"], table[0]["sample_size"]
    (4, 'hessian', 5)
    """
    if not isinstance(obj, Objective):
        raise TypeError(f"The argument obj is a {type(obj).__name__}, but must be an objective made by linop_spectra.objective.")
    check_count("num_steps", num_steps)
    makers = _makers(operators)
    moments = _named("checkpoint", checkpoints)
    parts: dict[str, Any] = {"data": None} if splits is None else dict(splits)
    sizes: list[int | None] = [
        None if size is None else check_count("sample_sizes", size) for size in ((None,) if sample_sizes is None else sample_sizes)
    ]
    for name, values in (("checkpoints", moments), ("splits", parts), ("sample_sizes", sizes), ("seeds", seeds), ("operators", makers)):
        if not len(values):
            raise ValueError(f"The argument {name} is empty; pass at least one.")
    if len(set(sizes)) < len(sizes) or len(set(seeds)) < len(seeds):
        raise ValueError("The arguments sample_sizes and seeds must not hold a value twice.")
    file = None if path is None else pathlib.Path(path)
    done = _read(file)
    cells = list(itertools.product(moments, parts, sizes, seeds, makers))
    rows: list[dict[str, Any]] = []
    at: tuple[Any, ...] | None = None
    own = obj
    digests: dict[str, str] = {}
    prints: dict[str, str] = {}
    with ProgressBar(progress, len(cells), "study", unit="cell") as bar:
        for moment, split, size, seed, name in cells:
            if moment not in digests:
                point = obj if moments[moment] is None else obj.with_parameters(moments[moment])
                parameters = np.ascontiguousarray(obj.functions.backend.to_numpy(point.parameters()))
                digests[moment] = hashlib.sha256(parameters.tobytes()).hexdigest()[:16]
            if split not in prints:  # so that cells of other data are not taken for these
                whole = obj if parts[split] is None else obj.with_data(parts[split])
                prints[split] = "" if file is None else f"{whole.num_examples} examples, loss {whole.value():.5g}"
            coordinates = {"checkpoint": moment, "split": split, "sample_size": size, "seed": seed, "operator": name}
            key = _key({**coordinates, "num_steps": num_steps, "num_probes": num_probes, "of": [digests[moment], prints[split]]})
            if key not in done:
                if at != (moment, split, size, seed):
                    own = _objective(obj, moments[moment], parts[split], size, seed)
                    at = (moment, split, size, seed)
                began = time.perf_counter()
                density = spectral_density(
                    makers[name](own), num_steps=min(num_steps, obj.num_parameters), num_probes=num_probes, seed=seed
                )
                row = {**coordinates, "num_examples": own.num_examples, "loss": own.value(), **_numbers(density)}
                row |= {} if measure is None else {key: float(value) for key, value in measure(density, own).items()}
                done[key] = {**row, "seconds": time.perf_counter() - began, "key": key}
                if file is not None:
                    with open(file, "a", encoding="utf-8") as stream:
                        stream.write(json.dumps(_jsonable(done[key])) + "\n")
            rows.append(done[key])
            bar.advance()
    return Study(rows)


def _objective(obj: Objective, parameters: Any, data: Any, size: int | None, seed: int) -> Objective:
    own = obj if parameters is None else obj.with_parameters(parameters)
    own = own if data is None else own.with_data(data)
    return own if size is None else own.subset(size, seed=seed)


def _numbers(density: SpectralDensity) -> dict[str, float]:
    trace = density.trace()
    low, high = density.negative_mass()
    return {
        "trace": trace.value, "trace_error": trace.standard_error + trace.quadrature_error,
        "frobenius_norm": math.sqrt(max(density.trace(np.square).value, 0.0)), "largest": float(density.extreme_eigenvalues()[1][0]),
        "smallest": float(density.extreme_eigenvalues()[0][0]), "num_outliers": len(density.outliers()), "negative_mass_low": low,
        "negative_mass_high": high, "num_matvecs": density.num_matvecs,
    }  # fmt: skip


def _makers(operators: Any) -> dict[str, Callable[[Objective], Any]]:
    if isinstance(operators, Mapping):
        return dict(operators)
    names = [operators] if isinstance(operators, str) else list(operators)
    unknown = [name for name in names if name not in MATRICES]
    if unknown:
        raise ValueError(
            f"The argument operators names {unknown[0]!r}, but knows {', '.join(map(repr, MATRICES))}; for others pass a mapping from "
            "names to functions of the objective."
        )
    return {name: operator.methodcaller(name) for name in names}


def _named(kind: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {"own": None}
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    values = list(given)
    names = [pathlib.Path(value).stem if isinstance(value, str | pathlib.PurePath) else str(i) for i, value in enumerate(values)]
    if len(set(names)) < len(names):
        names = [str(i) for i in range(len(values))]
    return dict(zip(names, values, strict=True))


def _key(coordinates: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(coordinates, sort_keys=True).encode()).hexdigest()[:24]


def _read(file: pathlib.Path | None) -> dict[str, dict[str, Any]]:
    if file is None or not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    done = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            done[row["key"]] = {name: math.nan if value is None and name != "sample_size" else value for name, value in row.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):  # a line that was cut off in the middle: its cell is computed again, on a line of its own
                file.write_text("".join(f"{kept}\n" for kept in lines[:-1]), encoding="utf-8")
                break
            raise ValueError(f"Line {number} of {str(file)!r} is no row of a study; choose another path.") from error
    return done


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import io

    names = list(dict.fromkeys(name for row in rows for name in row if name != "key"))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _jsonable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "all" if value is None else str(value)
