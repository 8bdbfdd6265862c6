"""What the outliers of a spectrum come from: parts of the matrix are taken out, and what changes is measured instead of looked at."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..krylov import eigsh
from ..krylov.lanczos import check_count
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..spectra import SpectralDensity, spectral_density, wasserstein_distance
from ..spectra.slq import default_probes
from .attribution_components import Component, ProjectedOut, component_of, names_of, parts_add_up
from .attribution_results import Attribution, AttributionRow, GroupShare, KnockOut
from .objective import Objective

GROUP_RATIO = 3.0
"""Neighbouring outliers belong to different groups where their moduli differ by more than this factor."""
_MOST_DEFAULT_OUTLIERS, _MOST_DEFAULT_PROBES = 40, 2


def attribute(
    obj: Any,
    components: Mapping[str, Any] | Sequence[str] | None = None,
    *,
    matrix: Literal["ggn", "hessian"] | Any = "ggn",
    num_outliers: int | None = None,
    groups: Sequence[int] | None = None,
    max_rank: int = 64,
    num_steps: int = 48,
    num_probes: int | Literal["auto"] = "auto",
    tol: float = 1e-6,
    seed: int = 0,
    progress: Progress = None,
) -> Attribution:
    """Table of what the outliers of a matrix come from: each component is taken out, by subtraction and by projection.

    Parameters
    ----------
    obj : Objective, LinearOperator or what `aslinearoperator` takes
        The model, or a symmetric matrix itself.
    components : sequence of str or mapping, optional
        Of an objective names: ``"A1"``, ``"A2"``, ``"A1+A2"``, ``"B1"``, ``"B2"`` (classifiers), ``"top"`` (the outliers themselves), or
        of a layer or parameter; by default all of the first that there are. A mapping from a name gives components of one's own: a
        symmetric operator, or an array of shape (n, r) whose columns span a space, which stands for the matrix on that space.
    matrix : {"ggn", "hessian"} or operator
        Of an objective, the matrix; class structure is that of the Gauss-Newton matrix.
    num_outliers : int, optional
        Eigenpairs of largest modulus to explain; by default as many as the spectrum shows outliers, at most 40, and at least one.
    groups : sequence of int, optional
        Sizes of the groups of outliers, by descending modulus; by default they are parted where neighbours differ by more than a factor of
        three.
    max_rank : int
        Directions that the range of a component is taken to have at most, those of largest modulus.
    num_steps : int
        Lanczos steps of each spectrum.
    num_probes : int or "auto"
        Probes of each spectrum, the same for all, so that chance moves them alike; by default two, and one above a million parameters.
    tol : float
        Of eigenpairs, as for `linop_spectra.eigsh`.
    seed : int
        Of the probes.
    progress : bool or callable, optional
        True shows a bar over the components.

    Returns
    -------
    Attribution
        It prints as a table.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit.

    References
    ----------
    V. Papyan, *Traces of class/cross-class structure pervade deep learning spectra*, J. Mach. Learn. Res. 21 (2020), for knock-outs by
    subtraction and by projection.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.curvature.attribution import attribute
    >>> from linop_spectra.random_matrices.models import ClassStructureModel, class_decomposition
    >>> model = ClassStructureModel(num_classes=4, num_examples=40, dimension=100)
    >>> parts = class_decomposition(model.sample)
    >>> table = attribute(model.sample.gauss_newton(), {"A1+A2": parts.A1 + parts.A2, "B2": parts.B2}, num_outliers=12)
    >>> table.groups
    ((0, 4), (4, 12))
    >>> bool(table["A1+A2"].groups[0].energy > 0.98 and table["B2"].groups[0].energy < 0.01)
    True
    """
    began = time.perf_counter()
    for name, value in (("max_rank", max_rank), ("num_steps", num_steps)):
        check_count(name, value)
    objective, whole = _whole(obj, matrix)
    n = whole.shape[0]
    steps = min(num_steps, n)
    probes = min(_MOST_DEFAULT_PROBES, default_probes(n)) if num_probes == "auto" else check_count("num_probes", num_probes)

    def measure(operator: LinearOperator) -> SpectralDensity:
        return spectral_density(operator, num_steps=steps, num_probes=probes, seed=seed)

    before = measure(whole)
    shown = len(before.outliers())
    if groups is not None:
        groups = [check_count("groups", size) for size in groups]
        if not groups or num_outliers not in (None, sum(groups)):
            raise ValueError(f"The argument groups is {groups!r}, but must be sizes that add up to num_outliers ({num_outliers}).")
        num_outliers = sum(groups)
    k = max(1, min(shown, _MOST_DEFAULT_OUTLIERS)) if num_outliers is None else check_count("num_outliers", num_outliers)
    if k > n:
        raise ValueError(f"The argument num_outliers is {k}, but the matrix has only {n} eigenvalues.")
    pairs = eigsh(whole, k=k, which="LM", tol=tol, seed=seed)
    order = np.argsort(-np.abs(pairs.eigenvalues), kind="stable")
    values = pairs.eigenvalues[order]
    vectors = whole.backend.contiguous(pairs.eigenvectors.T, whole.dtype)[order.tolist(), :].T
    parted = _groups(values) if groups is None else tuple(itertools.pairwise(np.cumsum([0, *groups]).tolist()))
    names, spent = names_of(objective, components), before.num_matvecs + pairs.num_matvecs
    add_up, products = parts_add_up(objective, whole, names, seed)
    spent += products
    rows, notes = [], []
    known: dict[str, Component] = {}
    without: dict[Any, KnockOut] = {}  # what projections leave, by the projection
    largest = float(values[0])
    with ProgressBar(progress, len(names), "attribution", unit="component") as bar:
        for name, given in names.items():
            component, products = component_of(name, given, objective, whole, pairs, max_rank, tol, seed, known, add_up)
            if given is None:
                known[name] = component
            spent += products
            if component.rank == 0:
                notes.append(f"The component {name} is zero, and was left out.")
                bar.advance()
                continue
            shares = _shares(component, whole, values, vectors, parted)
            if component.project not in without:
                after = measure(ProjectedOut(whole, component.project))
                spent += after.num_matvecs
                without[component.project] = _knock_out(before, after)
            projected = without[component.project]
            if isinstance(component.rest, ProjectedOut):
                subtracted = projected
            else:
                after = measure(whole - component.operator if component.rest is None else component.rest)
                spent += after.num_matvecs
                subtracted = _knock_out(before, after)
            rows.append(AttributionRow(name, component.rank, component.range_energy, shares, subtracted, projected))
            if component.range_energy < 0.99:
                notes.append(
                    f"Of {name}, {component.rank} directions were projected out; they hold {100 * component.range_energy:.3g} % of its "
                    "trace (max_rank takes more)."
                )
            bar.advance()
    if not bool(np.all(pairs.converged)):
        notes.append(f"Of {k} eigenpairs {int(pairs.converged.sum())} converged.")
    return Attribution(
        values, parted, largest, shown, n, tuple(rows), spent, time.perf_counter() - began, tuple(notes)
    )


def _knock_out(before: SpectralDensity, after: SpectralDensity) -> KnockOut:
    ends = [value for value, _ in after.extreme_eigenvalues()]
    return KnockOut(float(wasserstein_distance(before, after)), float(max(ends, key=abs)), len(after.outliers()))


def _whole(obj: Any, matrix: Any) -> tuple[Objective | None, LinearOperator]:
    if isinstance(obj, Objective):
        if isinstance(matrix, str):
            if matrix not in ("ggn", "hessian"):
                raise ValueError(f"The argument matrix is {matrix!r}, but must be 'ggn', 'hessian' or an operator.")
            return obj, obj.ggn() if matrix == "ggn" else obj.hessian()
        operator = aslinearoperator(matrix)
        if operator.shape[0] != obj.num_parameters:
            raise ValueError(f"The argument matrix has shape {operator.shape}, but the objective has {obj.num_parameters} parameters.")
    else:
        operator = aslinearoperator(obj)
    require_hermitian(operator, "Attribution")
    return obj if isinstance(obj, Objective) else None, operator


def _groups(values: np.ndarray) -> tuple[tuple[int, int], ...]:
    sizes = np.abs(values)
    cuts = [i + 1 for i in range(len(sizes) - 1) if sizes[i] > GROUP_RATIO * sizes[i + 1]]
    ends = [0, *cuts, len(sizes)]
    return tuple(itertools.pairwise(ends))


def _shares(
    component: Component, whole: LinearOperator, values: np.ndarray, vectors: Array, groups: tuple[tuple[int, int], ...]
) -> tuple[GroupShare, ...]:
    backend = whole.backend
    products = component.operator.matmat(vectors)
    projected = component.project(vectors)
    energies = np.asarray(backend.to_numpy((backend.conj(vectors) * products).sum(axis=0))).real / values
    shares = []
    for first, last in groups:
        part = projected[:, first:last]
        squares = np.linalg.eigvalsh(np.asarray(backend.to_numpy(backend.conj(part).T @ part), dtype=np.float64))
        squares = np.clip(squares, 0.0, 1.0)
        angle = float(np.degrees(np.arccos(np.sqrt(squares[0]))))
        shares.append(GroupShare(float(np.mean(energies[first:last])), angle, float(np.mean(squares))))
    return tuple(shares)


__all__ = ["GROUP_RATIO", "Attribution", "AttributionRow", "GroupShare", "KnockOut", "attribute"]
