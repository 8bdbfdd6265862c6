"""What the outliers of a spectrum come from: parts of the matrix are taken out, and what changes is measured instead of looked at."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array
from ..krylov import EigenResult, eigsh
from ..krylov.lanczos import check_count
from ..operators import LinearOperator, aslinearoperator, low_rank, require_hermitian
from ..results import PathLike, html_table, register, save_result
from ..spectra import SpectralDensity, spectral_density, wasserstein_distance
from ..spectra.slq import default_probes
from .blocks import layer_of
from .objective import Objective

GROUP_RATIO = 3.0
"""Neighbouring outliers belong to different groups where their moduli differ by more than this factor."""
_CLASS_PARTS = ("A1", "A2", "A1+A2", "B1", "B2")
_MOST_DEFAULT_OUTLIERS = 40
_NEGLIGIBLE = 1e-6


@dataclasses.dataclass(frozen=True)
class KnockOut:
    """What is left of a spectrum without one component.

    Attributes
    ----------
    wasserstein : float
        Wasserstein-1 distance of the spectra before and after, in units of an eigenvalue. Both runs have the same probes.
    largest : float
        Largest eigenvalue in modulus, with its sign, of what is left.
    num_outliers : int
        Outliers of what is left.
    """

    wasserstein: float
    largest: float
    num_outliers: int


@dataclasses.dataclass(frozen=True)
class GroupShare:
    """How much of a group of outliers is due to one component.

    Attributes
    ----------
    energy : float
        Mean over the group's eigenpairs of ``u^T C u / lambda``: the share of the eigenvalue that the component gives. The shares of parts
        that add up to the matrix add up to one.
    largest_angle : float
        Largest principal angle, in degrees, between the span of the group and the range of the component; with a component of lower rank
        it is 90 where the group has more directions.
    mean_cosine_squared : float
        Mean squared cosine of all principal angles: the share of the group's span that lies in the range. By chance it is rank / n.
    """

    energy: float
    largest_angle: float
    mean_cosine_squared: float


@dataclasses.dataclass(frozen=True, eq=False)
class AttributionRow:
    """One component.

    Attributes
    ----------
    component : str
        Its name.
    rank : int
        Directions of its range that were taken.
    range_energy : float
        Share of the component's trace that those directions hold; below one where it has more of them.
    groups : tuple of GroupShare
        For each group of outliers.
    subtracted, projected : KnockOut
        Of the matrix less the component, and of the matrix on the complement of its range.
    """

    component: str
    rank: int
    range_energy: float
    groups: tuple[GroupShare, ...]
    subtracted: KnockOut
    projected: KnockOut


@register("attribution")
@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """Knock-outs of a matrix's components, and how much of each group of outliers is due to each.

    Attributes
    ----------
    outliers : numpy.ndarray
        Eigenvalues of the outliers, by descending modulus, shape (k,).
    groups : tuple of tuple of int
        First and one past the last place in `outliers` of each group.
    largest : float
        Largest eigenvalue in modulus of the whole matrix, with its sign.
    num_outliers : int
        Outliers that the spectrum of the whole matrix shows.
    dimension : int
        Order of the matrix.
    rows : tuple of AttributionRow
        One for each component.
    num_matvecs : int
        Products with the matrix and with the components.
    seconds : float
        Wall-clock time.
    notes : tuple of str
        What a reader should know.
    """

    outliers: np.ndarray
    groups: tuple[tuple[int, int], ...]
    largest: float
    num_outliers: int
    dimension: int
    rows: tuple[AttributionRow, ...]
    num_matvecs: int
    seconds: float
    notes: tuple[str, ...] = ()

    def __getitem__(self, component: str) -> AttributionRow:
        for row in self.rows:
            if row.component == component:
                return row
        raise KeyError(f"There is no component {component!r}; there are {', '.join(repr(row.component) for row in self.rows)}.")

    def __str__(self) -> str:
        names = [f"{first + 1}-{last}" if last > first + 1 else f"{last}" for first, last in self.groups]
        lines = [
            f"n = {self.dimension:,}, largest eigenvalue {self.largest:.5g}, {self.num_outliers} outliers; groups: "
            + "; ".join(
                f"{name}: {self.outliers[first]:.4g} to {self.outliers[last - 1]:.4g}"
                for name, (first, last) in zip(names, self.groups, strict=True)
            )
        ]
        width = max(9, *(len(row.component) for row in self.rows))
        shares = " ".join(f"{f'energy {name}':>14s} {'angle':>6s}" for name in names)
        lines.append(
            f"{'component':{width}s} {'rank':>6s} {shares} | {'subtracted: W1':>14s} {'largest':>10s} {'outliers':>8s} | "
            f"{'projected: W1':>13s} {'largest':>10s} {'outliers':>8s}"
        )
        for row in self.rows:
            shares = " ".join(f"{100 * share.energy:12.1f} % {share.largest_angle:5.1f}°" for share in row.groups)
            parts = [f"{row.component:{width}s} {row.rank:6d} {shares}"]
            for knock_out, size in ((row.subtracted, 14), (row.projected, 13)):
                parts.append(f"{knock_out.wasserstein:{size}.4g} {knock_out.largest:10.4g} {knock_out.num_outliers:8d}")
            lines.append(" | ".join(parts))
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        return html_table([(row.component, ", ".join(f"{100 * share.energy:.1f} %" for share in row.groups)) for row in self.rows])

    def save(self, path: PathLike) -> None:
        """Write the table to `path` (``.npz``); `linop_spectra.load` reads it back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        outliers = fields.pop("outliers")
        fields["rows"] = [dataclasses.asdict(row) for row in self.rows]
        save_result(path, "attribution", fields, {"outliers": outliers})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Attribution:
        rows = tuple(
            AttributionRow(
                **{
                    **row, "groups": tuple(GroupShare(**share) for share in row["groups"]), "subtracted": KnockOut(**row["subtracted"]),
                    "projected": KnockOut(**row["projected"]),
                }
            )
            for row in scalars.pop("rows")
        )  # fmt: skip
        groups = tuple(tuple(group) for group in scalars.pop("groups"))
        notes = tuple(scalars.pop("notes"))
        return cls(**scalars, outliers=arrays["outliers"], rows=rows, groups=groups, notes=notes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Component:
    """A part of a matrix and the orthogonal projection on its range."""

    name: str
    operator: LinearOperator
    project: Callable[[Array], Array]
    rank: int
    range_energy: float


class _ProjectedOut(LinearOperator):
    """A Hermitian matrix on the complement of a subspace."""

    def __init__(self, inner: LinearOperator, project: Callable[[Array], Array]) -> None:
        super().__init__(
            inner.shape, inner.dtype, hermitian=True, positive_semidefinite=inner.positive_semidefinite, backend=inner.backend
        )
        self.inner, self._project = inner, project

    def _matmat(self, x: Array) -> Array:
        product = self.inner.matmat(x - self._project(x))
        return product - self._project(product)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


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
        Probes of each spectrum, the same for all.
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
    probes = default_probes(n) if num_probes == "auto" else check_count("num_probes", num_probes)

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
    names, spent = _names(objective, components), before.num_matvecs + pairs.num_matvecs
    rows, notes = [], []
    largest = float(values[0])
    with ProgressBar(progress, len(names), "attribution", unit="component") as bar:
        for name, given in names.items():
            component, products = _component(name, given, objective, whole, pairs, max_rank, tol, seed)
            spent += products
            if component.rank == 0:
                notes.append(f"The component {name} is zero, and was left out.")
                bar.advance()
                continue
            shares = _shares(component, whole, values, vectors, parted)
            knock_outs = []
            for left in (whole - component.operator, _ProjectedOut(whole, component.project)):
                after = measure(left)
                spent += after.num_matvecs
                ends = [value for value, _ in after.extreme_eigenvalues()]
                distance = wasserstein_distance(before, after)
                knock_outs.append(KnockOut(float(distance), float(max(ends, key=abs)), len(after.outliers())))
            rows.append(AttributionRow(name, component.rank, component.range_energy, shares, knock_outs[0], knock_outs[1]))
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


def _names(objective: Objective | None, components: Any) -> dict[str, Any]:
    """Components by name; None stands for one of an objective."""
    if isinstance(components, Mapping):
        if not components:
            raise ValueError("The argument components is empty; pass at least one component.")
        missing = [name for name, given in components.items() if given is None and name != "top"]
        if objective is None and missing:
            raise TypeError(f"The component {missing[0]!r} is None, which stands for a part of an objective, but obj is a matrix.")
        return dict(components)
    if objective is None:
        if components is None:
            return {"top": None}
        chosen = [components] if isinstance(components, str) else list(components)
        if chosen != ["top"]:
            raise TypeError(
                "The argument components names parts of an objective, but obj is a matrix; pass a mapping from names to operators."
            )
        return {"top": None}
    if components is None:
        try:
            objective.class_structure()
        except (TypeError, ValueError):
            return {"top": None, **dict.fromkeys(layer_of(name) for name in objective.blocks)}
        return dict.fromkeys((*_CLASS_PARTS, "top"))
    chosen = [components] if isinstance(components, str) else list(components)
    if not chosen:
        raise ValueError("The argument components is empty; pass at least one component.")
    return dict.fromkeys(chosen)


def _component(
    name: str, given: Any, objective: Objective | None, whole: LinearOperator, pairs: EigenResult, max_rank: int, tol: float, seed: int
) -> tuple[_Component, int]:
    """The component and the products that it took to find its range."""
    backend, n = whole.backend, whole.shape[0]
    if given is None and name == "top":
        vectors = pairs.eigenvectors
        operator = low_rank(vectors, backend.asarray(pairs.eigenvalues), backend=backend)
        return _Component(name, operator, _onto(backend, vectors), vectors.shape[1], 1.0), 0
    if given is None:
        assert objective is not None
        if name not in _CLASS_PARTS:
            return _of_rows(name, whole, objective), 0
        structure = objective.class_structure()
        operator = structure.A1 + structure.A2 if name == "A1+A2" else getattr(structure, name)
        classes = structure.num_classes
        most = {"B1": classes * max(classes - 2, 1), "B2": n}.get(name, classes)
        return _of_operator(name, operator, min(most, max_rank, n), tol, seed)
    if not isinstance(given, LinearOperator) and len(getattr(given, "shape", ())) == 2 and given.shape[0] == n != given.shape[1]:
        basis = _orthonormal(backend, backend.asarray(given, dtype=whole.dtype))
        project = _onto(backend, basis)
        inside = whole.matmat(basis)
        core = backend.conj(basis).T @ inside  # the matrix on the space
        values, rotation = np.linalg.eigh(np.asarray(backend.to_numpy(core), dtype=np.float64))
        operator = low_rank(basis @ backend.asarray(rotation, dtype=whole.dtype), backend.asarray(values), backend=backend)
        return _Component(name, operator, project, basis.shape[1], 1.0), int(basis.shape[1])
    operator = aslinearoperator(given)
    if operator.shape != whole.shape:
        raise ValueError(f"The component {name!r} has shape {operator.shape}, but the matrix {whole.shape}.")
    return _of_operator(name, operator, min(max_rank, n), tol, seed)


def _of_operator(name: str, operator: LinearOperator, rank: int, tol: float, seed: int) -> tuple[_Component, int]:
    """A component with the directions of largest modulus that hold its range, up to a share of 1e-6 of its largest eigenvalue."""
    measured = spectral_density(operator, num_steps=min(2 * rank + 8, operator.shape[0]), num_probes=1, seed=seed, deflate=False)
    # The Krylov space of one vector ends with the rank.
    visible = int(np.sum(np.abs(measured.nodes) > _NEGLIGIBLE * measured.norm_estimate)) if measured.norm_estimate > 0 else 0
    if visible == 0:
        return _Component(name, operator, lambda x: 0 * x, 0, 1.0), measured.num_matvecs
    rank = min(rank, visible if visible < measured.num_steps else rank)
    pairs = eigsh(operator, k=rank, which="LM", tol=tol, seed=seed)
    keep = np.abs(pairs.eigenvalues) > _NEGLIGIBLE * pairs.norm_estimate
    vectors = pairs.eigenvectors.T[np.flatnonzero(keep).tolist(), :].T
    trace = spectral_density(operator, num_steps=min(max(16, rank + 8), operator.shape[0]), num_probes=2, seed=seed).trace()
    share = float(np.clip(np.sum(pairs.eigenvalues[keep]) / trace.value, 0.0, 1.0)) if trace.value else 1.0
    products = measured.num_matvecs + pairs.num_matvecs + trace.num_matvecs
    return _Component(name, operator, _onto(operator.backend, vectors), int(keep.sum()), share), products


def _of_rows(name: str, whole: LinearOperator, objective: Objective) -> _Component:
    """Rows and columns of a layer or a parameter: the component is the diagonal block."""
    own = [key for key in objective.blocks if key == name or layer_of(key) == name or key.startswith((f"{name}.", f"{name}/"))]
    if not own:
        layers = list(dict.fromkeys(layer_of(key) for key in objective.blocks))
        raise ValueError(
            f"The argument components names {name!r}, which is none of {', '.join(map(repr, (*_CLASS_PARTS, 'top')))}, no layer "
            f"({', '.join(map(repr, layers))}) and no parameter."
        )
    mask = np.zeros(objective.num_parameters)
    for key in own:
        mask[objective.blocks[key]] = 1.0
    chosen = whole.backend.asarray(mask, dtype=whole.dtype)[:, None]
    return _Component(name, _Rows(whole, chosen), lambda x: chosen * x, int(mask.sum()), 1.0)


class _Rows(LinearOperator):
    """A diagonal block, zero elsewhere."""

    def __init__(self, inner: LinearOperator, mask: Array) -> None:
        super().__init__(
            inner.shape, inner.dtype, hermitian=True, positive_semidefinite=inner.positive_semidefinite, backend=inner.backend
        )
        self.inner, self._mask = inner, mask

    def _matmat(self, x: Array) -> Array:
        return self._mask * self.inner.matmat(self._mask * x)

    def _children(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)


def _onto(backend: Any, basis: Array) -> Callable[[Array], Array]:
    adjoint = backend.conj(basis).T
    return lambda x: basis @ (adjoint @ x)


def _orthonormal(backend: Any, columns: Array) -> Array:
    """Orthonormal columns of the same span, by the Gram matrix taken twice."""
    for _ in range(2):
        gram = np.asarray(backend.to_numpy(backend.conj(columns).T @ columns))
        values, vectors = np.linalg.eigh(gram)
        keep = values > 1e-12 * values[-1]
        columns = columns @ backend.asarray(vectors[:, keep] / np.sqrt(values[keep]), dtype=backend.dtype_of(columns))
    return columns


def _shares(
    component: _Component, whole: LinearOperator, values: np.ndarray, vectors: Array, groups: tuple[tuple[int, int], ...]
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
