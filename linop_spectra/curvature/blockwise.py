"""Spectra of all diagonal blocks of a curvature matrix, from shared passes over the batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress
from ..backends import Array
from ..krylov import LanczosResult
from ..krylov.lanczos import check_count, check_time_budget
from ..operators import LinearOperator, submatrix
from ..results import Estimate, PathLike, register, save_result
from ..spectra import SpectralDensity
from ..spectra.slq import default_probes
from .blocks import layer_of
from .cache import OPERATOR_SHARE
from .lane import Lane, in_lockstep
from .objective import Objective

_MATRICES = {
    "hessian": Objective.hessian,
    "ggn": Objective.ggn,
    "fisher": Objective.fisher,
    "residual": Objective.residual,
    "gradient_covariance": Objective.gradient_covariance,
}
Matrix = Literal["hessian", "ggn", "fisher", "residual", "gradient_covariance"]


@register("blockwise spectra")
@dataclasses.dataclass(frozen=True, eq=False)
class BlockwiseSpectra(Mapping[str, SpectralDensity]):
    """Spectral densities of the diagonal blocks of a matrix; a mapping from the block's name.

    Attributes
    ----------
    densities : dict of str to SpectralDensity
        One for each block, in the order of the parameters.
    parameters : dict of str to tuple of str
        Parameters in each block.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Duration.
    """

    densities: dict[str, SpectralDensity]
    parameters: dict[str, tuple[str, ...]]
    num_matvecs: int
    seconds: float

    def __getitem__(self, name: str) -> SpectralDensity:
        if name not in self.densities:
            raise KeyError(f"There is no block {name!r}; there are {', '.join(map(repr, self.densities))}.")
        return self.densities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.densities)

    def __len__(self) -> int:
        return len(self.densities)

    @property
    def traces(self) -> dict[str, Estimate]:
        """Trace of each block, with its error."""
        return {name: density.trace() for name, density in self.densities.items()}

    def plot(self, path: PathLike | None = None, *, columns: int = 2) -> np.ndarray:
        """Draw all spectra as small multiples with the same scales; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.
        columns : int
            Panels in a row.

        Returns
        -------
        numpy.ndarray
            The axes, one for each block.
        """
        from ..plots import spectra

        panels = spectra(self.densities, columns=columns)
        if path is not None:
            panels[0].figure.savefig(path)
        return panels

    def save(self, path: PathLike) -> None:
        """Write all coefficients to `path` (``.npz``); `linop_spectra.load` reads them back."""
        runs, arrays = [], {}
        for index, density in enumerate(self.densities.values()):
            scalars, own = density.run._to_file()
            runs.append({"run": scalars, "pin": density.pin, "notes": list(density.notes)})
            arrays.update({f"{index}.{name}": array for name, array in own.items()})
        header = {
            "names": list(self.densities), "runs": runs, "parameters": [list(names) for names in self.parameters.values()],
            "num_matvecs": self.num_matvecs, "seconds": self.seconds,
        }  # fmt: skip
        save_result(path, "blockwise spectra", header, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> BlockwiseSpectra:
        densities = {}
        for index, (name, saved) in enumerate(zip(scalars["names"], scalars["runs"], strict=True)):
            own = {key.partition(".")[2]: array for key, array in arrays.items() if key.partition(".")[0] == str(index)}
            densities[name] = SpectralDensity(LanczosResult._from_file(saved["run"], own), saved["pin"], tuple(saved["notes"]))
        parameters = {name: tuple(own) for name, own in zip(scalars["names"], scalars["parameters"], strict=True)}
        return cls(densities, parameters, scalars["num_matvecs"], scalars["seconds"])

    def __str__(self) -> str:
        width = max(len(name) for name in self)
        lines = [f"{'block':{width}s} {'order':>12s} {'trace':>14s} {'smallest':>12s} {'largest':>12s}"]
        for name, S in self.items():
            lines.append(f"{name:{width}s} {S.dimension:12,d} {S.trace().value:14.5g} {S.nodes[0]:12.4g} {S.nodes[-1]:12.4g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"BlockwiseSpectra({len(self)} blocks, num_matvecs={self.num_matvecs})"


def blockwise_spectra(
    obj: Objective,
    matrix: Matrix | LinearOperator = "hessian",
    *,
    by: Literal["parameter", "layer"] = "parameter",
    num_steps: int = 64,
    num_probes: int | Literal["auto"] = "auto",
    seed: int = 0,
    memory_budget: int | float | str | None = None,
    time_budget: float | None = None,
    progress: Progress = None,
) -> BlockwiseSpectra:
    """Spectral densities of all diagonal blocks of a curvature matrix.

    The Lanczos runs of all blocks go in lockstep, so that each step passes over the batches once for all of them; each density is the
    one that ``spectral_density(A.block(name))`` gives.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data.
    matrix : {"hessian", "ggn", "fisher", "residual", "gradient_covariance"} or operator
        Which matrix; or an operator that was made from `obj`, such as ``obj.fisher("mc")``.
    by : {"parameter", "layer"}
        One block for each parameter array, or for all arrays of a layer together (names equal up to the last dot).
    num_steps : int
        Lanczos steps; of a block of smaller order, its order.
    num_probes : int or "auto"
        Random probes for each block; as many as `linop_spectra.spectral_density` takes for its order by default.
    seed : int
        Of the probes.
    memory_budget : int, float, str or None
        For the bases of all blocks together; by default 40 % of the memory of the device. Vectors of the whole matrix, one for each
        block and probe, are limited by the objective's own budget: where they do not fit, a step takes several passes.
    time_budget : float, optional
        Seconds after which the runs end with what they have.
    progress : bool or callable, optional
        True shows a bar; a callable is called as ``progress(done, total)``.

    Returns
    -------
    BlockwiseSpectra
        A density for each block; after Ctrl-C or a spent time budget of the steps that were done, and they say so.

    Raises
    ------
    ValueError
        When an argument is wrong.
    NonFiniteProductError
        When a product holds NaN or infinity.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import blockwise_spectra
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(20, 4), torch.randint(0, 2, (20,))))
    >>> spectra = blockwise_spectra(objective, "ggn", by="layer")
    >>> {name: S.dimension for name, S in spectra.items()}
    {'0': 15, '2': 8}
    """
    began = time.perf_counter()
    whole = _operator_of(obj, matrix)
    groups = _groups(obj, by)
    check_count("num_steps", num_steps)
    check_time_budget(time_budget)
    lanes = [_Lane(whole, obj, name, own, num_steps, num_probes, seed, memory_budget) for name, own in groups.items()]

    def answer(running: list[_Lane]) -> None:
        _multiply(whole, obj, running)

    densities, products, seconds = in_lockstep(
        lanes, answer, num_steps=num_steps, time_budget=time_budget, progress=progress, description="blockwise spectra", began=began
    )
    return BlockwiseSpectra(densities, groups, products, seconds)


class _Lane(Lane):
    """The Lanczos run of one block."""

    def __init__(
        self, whole: LinearOperator, objective: Objective, name: str, parameters: Sequence[str], num_steps: int,
        num_probes: int | Literal["auto"], seed: int, memory_budget: int | float | str | None,
    ) -> None:  # fmt: skip
        self.places = [objective.blocks[own] for own in parameters]
        index = np.concatenate([np.arange(place.start, place.stop) for place in self.places])
        probes = default_probes(len(index)) if num_probes == "auto" else check_count("num_probes", num_probes)
        # A basis has as many numbers as its block has rows: the shares of all blocks add up to the plan of the whole matrix.
        super().__init__(
            "block", name, submatrix(whole, index), num_steps, probes, seed, planned_for=whole, memory_budget=memory_budget
        )

    def spread(self, rows: Array, out: Array) -> None:
        """Vectors of the block as vectors of the whole, zero elsewhere."""
        out[...] = 0
        first = 0
        for place in self.places:
            last = first + place.stop - place.start
            out[:, place] = rows[:, first:last]
            first = last

    def gather(self, products: Array) -> Array:
        """The block's rows of products of the whole, as columns of their own."""
        rows = self.operator.backend.empty((products.shape[1], self.operator.shape[0]), self.operator.dtype)
        first = 0
        for place in self.places:
            last = first + place.stop - place.start
            rows[:, first:last] = products[place, :].T
            first = last
        return rows.T


def _multiply(whole: LinearOperator, objective: Objective, lanes: Sequence[_Lane]) -> None:
    """Hand every lane the products of its next step, from as few products with the whole matrix as the budget allows."""
    wanted = [(lane, rows) for lane in lanes for rows in lane.vectors()]
    n = whole.shape[0]
    budget = OPERATOR_SHARE * objective.functions.memory_budget
    most = max(1, int(budget // (3 * n * whole.dtype.itemsize)))
    while wanted:
        count, total = 0, 0
        while count < len(wanted) and (count == 0 or total + wanted[count][1].shape[0] <= most):
            total += int(wanted[count][1].shape[0])
            count += 1
        some, wanted = wanted[:count], wanted[count:]
        block, first = whole.backend.empty((total, n), whole.dtype), 0
        for lane, rows in some:
            lane.spread(rows, block[first : first + rows.shape[0], :])
            first += int(rows.shape[0])
        products, first = whole.matmat(block.T), 0
        for lane, rows in some:
            lane.operator.answers.append(lane.gather(products[:, first : first + rows.shape[0]]))
            first += int(rows.shape[0])


def _operator_of(objective: Objective, matrix: Any) -> LinearOperator:
    if isinstance(matrix, str):
        if matrix not in _MATRICES:
            raise ValueError(f"The argument matrix is {matrix!r}, but must be one of {', '.join(map(repr, _MATRICES))}, or an operator.")
        operator: LinearOperator = _MATRICES[matrix](objective)
        return operator
    if not isinstance(matrix, LinearOperator) or matrix.hermitian is not True or matrix.shape[0] != objective.num_parameters:
        raise ValueError(
            f"The argument matrix is {matrix!r}, but must be a name or a symmetric operator of shape "
            f"{(objective.num_parameters,) * 2}, such as objective.fisher('mc')."
        )
    return matrix


def _groups(objective: Objective, by: str) -> dict[str, tuple[str, ...]]:
    if by not in ("parameter", "layer"):
        raise ValueError(f"The argument by is {by!r}, but must be 'parameter' or 'layer'.")
    groups: dict[str, tuple[str, ...]] = {}
    for name in objective.blocks:
        group = name if by == "parameter" else layer_of(name)
        groups[group] = (*groups.get(group, ()), name)
    return groups
