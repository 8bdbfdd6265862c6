"""Spectra of the Hessian and of everything that it is a sum of, from shared passes over the batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from .._progress import Progress
from ..krylov import LanczosResult
from ..krylov.lanczos import check_count, check_time_budget
from ..operators import LinearOperator, diagonal_operator
from ..results import PathLike, register, save_result
from ..spectra import LogSpectrum, SpectralDensity, spectral_density
from ..spectra.slq import default_probes
from .class_structure import ClassStructure
from .lockstep import lockstep_densities, share_linearizations
from .meter import Meter
from .objective import Objective

MOST_PAIRS = 400
"""Pairs of classes up to which their means are marked by default: each costs a product with the Jacobian and one with its transpose."""
_PARTS = "A1", "A2", "B1", "B2"
_TITLES = {
    "hessian": "Hessian H", "ggn": "Gauss-Newton G", "residual": "residual H − G", "A1": "A₁, class means",
    "A2": "A₂, means of the right class", "B1": "B₁, pairs of classes", "B2": "B₂, within pairs",
}  # fmt: skip


@register("curvature decomposition")
@dataclasses.dataclass(frozen=True, eq=False)
class CurvatureDecomposition(Mapping[str, SpectralDensity]):
    """Spectral densities of the Hessian H, of G and H - G, and of a classifier's parts of G; a mapping from the matrix's name.

    Attributes
    ----------
    densities : dict of str to SpectralDensity
        ``"hessian"``, ``"ggn"``, ``"residual"``, and for a classifier ``"A1"``, ``"A2"``, ``"B1"``, ``"B2"``.
    markers : dict of str to numpy.ndarray
        Eigenvalues that come from small matrices of inner products, exact up to rounding: ``"A1"`` and ``"A1+A2"``, shape
        (num_classes,), and ``"A1+A2+B1"``, shape (num_classes**2,), ascending. Empty where there are no classes.
    num_matvecs : int
        Products with single vectors; those of the markers and those of earlier runs are not among them.
    seconds : float
        Wall-clock time.
    notes : tuple of str
        What a reader should know.
    num_marker_products : int
        Products with the transposed Jacobian, each about a fifth of one with the matrix, for the markers.
    """

    densities: dict[str, SpectralDensity]
    markers: dict[str, np.ndarray]
    num_matvecs: int
    seconds: float
    notes: tuple[str, ...] = ()
    num_marker_products: int = 0

    def __getitem__(self, name: str) -> SpectralDensity:
        if name not in self.densities:
            raise KeyError(f"There is no matrix {name!r}; there are {', '.join(map(repr, self.densities))}.")
        return self.densities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.densities)

    def __len__(self) -> int:
        return len(self.densities)

    @property
    def titles(self) -> dict[str, str]:
        """What each matrix is, for figures."""
        return {name: _TITLES.get(name, name) for name in self.densities}

    @property
    def logs(self) -> dict[str, LogSpectrum]:
        """Logarithmic spectra, both signs."""
        return {name: density.log() for name, density in self.densities.items()}

    def __str__(self) -> str:
        head = f"{'matrix':10s} {'trace':>12s} {'+- 95 %':>10s} {'smallest':>12s} {'largest':>12s} {'outliers':>9s}"
        lines = [f"{head} {'negative mass':>22s}"]
        for name, S in self.densities.items():
            trace = S.trace()
            low, high = S.negative_mass()
            half = (trace.confidence_interval(0.95)[1] - trace.confidence_interval(0.95)[0]) / 2
            lines.append(
                f"{name:10s} {trace.value:12.5g} {half:10.2g} {S.nodes[0]:12.4g} {S.nodes[-1]:12.4g} {len(S.outliers()):9d} "
                f"{f'{low:.3g} to {high:.3g}':>22s}"
            )
        for name, values in self.markers.items():
            top = ", ".join(f"{value:.4g}" for value in values[::-1][:10])
            lines.append(f"eigenvalues of {name} by inner products: {top}{', ...' if len(values) > 10 else ''}")
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return f"CurvatureDecomposition({', '.join(self.densities)}; num_matvecs={self.num_matvecs})"

    def plot(self, path: PathLike | None = None) -> np.ndarray:
        """Draw all spectra, linear on the left and logarithmic on the right, with the markers; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.

        Returns
        -------
        numpy.ndarray
            The axes, shape (number of matrices, 2).
        """
        from ..plots.decomposition import decomposition as draw

        panels = draw(self)
        if path is not None:
            panels[0, 0].figure.savefig(path)
        return panels

    def save(self, path: PathLike) -> None:
        """Write all coefficients and markers to `path` (``.npz``); `linop_spectra.load` reads them back."""
        header, arrays = densities_to_file(self.densities)
        arrays.update({f"marker.{name}": values for name, values in self.markers.items()})
        scalars = {
            "densities": header, "num_matvecs": self.num_matvecs, "seconds": self.seconds, "notes": list(self.notes),
            "num_marker_products": self.num_marker_products,
        }  # fmt: skip
        save_result(path, "curvature decomposition", scalars, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> CurvatureDecomposition:
        markers = {name.removeprefix("marker."): values for name, values in arrays.items() if name.startswith("marker.")}
        densities = densities_from_file(scalars["densities"], arrays)
        products = scalars.get("num_marker_products", 0)
        return cls(densities, markers, scalars["num_matvecs"], scalars["seconds"], tuple(scalars["notes"]), products)


def densities_to_file(densities: Mapping[str, SpectralDensity]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Several densities as one header and named arrays."""
    header, arrays = [], {}
    for index, (name, density) in enumerate(densities.items()):
        scalars, own = density.run._to_file()
        header.append({"name": name, "run": scalars, "pin": density.pin, "notes": list(density.notes), "met": density.tolerance_met})
        arrays.update({f"density.{index}.{key}": array for key, array in own.items()})
    return header, arrays


def densities_from_file(header: list[dict[str, Any]], arrays: Mapping[str, np.ndarray]) -> dict[str, SpectralDensity]:
    """The densities that `densities_to_file` took apart."""
    densities = {}
    for index, saved in enumerate(header):
        prefix = f"density.{index}."
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        run = LanczosResult._from_file(saved["run"], own)
        densities[saved["name"]] = SpectralDensity(run, saved["pin"], tuple(saved["notes"]), saved["met"])
    return densities


def decomposition(
    obj: Objective,
    *,
    num_steps: int = 64,
    num_probes: int | Literal["auto"] = "auto",
    cross_class_means: bool | Literal["auto"] = "auto",
    known: Mapping[str, SpectralDensity] | None = None,
    structure: ClassStructure | None = None,
    low_rank_parts: Literal["lanczos", "gram"] = "lanczos",
    seed: int = 0,
    memory_budget: int | float | str | None = None,
    time_budget: float | None = None,
    progress: Progress = None,
) -> CurvatureDecomposition:
    """Spectra of the Hessian, of the Gauss-Newton matrix, of what is left, and of the Gauss-Newton matrix's parts by classes.

    All runs go in lockstep from the same probes: H, G and H - G share one linearisation and one pass over the batches in each step, the
    four parts one product with the Jacobian and one with its transpose.

    Parameters
    ----------
    obj : Objective
        Model, loss, parameters and data. The parts A1, A2, B1 and B2 are those of softmax cross-entropy; without it they are left out, and
        a note says so.
    num_steps : int
        Lanczos steps.
    num_probes : int or "auto"
        Random probes for each matrix; as many as `linop_spectra.spectral_density` takes by default.
    cross_class_means : bool or "auto"
        Whether the eigenvalues of A1 + A2 + B1 are marked, which costs a product with the Jacobian and one with its transpose for each pair
        of classes; "auto" does up to 400 pairs.
    known : mapping of str to SpectralDensity, optional
        Densities from earlier runs with the same objective, by name, such as ``{"hessian": report.density}``; they are taken as they are.
    structure : ClassStructure, optional
        The class structure of the objective, whose inner products are then there for other uses too; made anew by default.
    low_rank_parts : {"lanczos", "gram"}
        How the spectra of A1 and A2, and of B1 where the cross-class means are marked, are found: by runs with products of their own,
        or without further products, from the eigenvalues of their Gram matrices, which are all that they have beside zeros.
    seed : int
        Of the probes.
    memory_budget : int, float, str or None
        For the basis of each run; by default all together take 40 % of the memory of the device.
    time_budget : float, optional
        Seconds after which the runs of a group end with what they have: half for H, G and H - G, half for the parts.
    progress : bool or callable, optional
        True shows a bar of products; a callable is called as ``progress(done, total)``.

    Returns
    -------
    CurvatureDecomposition
        A density for each matrix, and markers.

    Raises
    ------
    ValueError
        When an argument is wrong.
    NonFiniteProductError
        When a product holds NaN or infinity.

    References
    ----------
    V. Papyan, *Traces of class/cross-class structure pervade deep learning spectra*, J. Mach. Learn. Res. 21 (2020).

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.decomposition import decomposition
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(30, 4).double(), torch.arange(30) % 3))
    >>> found = decomposition(objective, num_steps=51)
    >>> list(found)
    ['hessian', 'ggn', 'residual', 'A1', 'A2', 'B1', 'B2']
    >>> traces = {name: density.trace().value for name, density in found.items()}
    >>> bool(abs(sum(traces[name] for name in ("A1", "A2", "B1", "B2")) - traces["ggn"]) < 1e-9)
    True
    """
    if not isinstance(obj, Objective):
        raise TypeError(f"The argument obj is a {type(obj).__name__}, but must be an objective made by linop_spectra.objective.")
    check_count("num_steps", num_steps)
    check_time_budget(time_budget)
    if cross_class_means not in (True, False, "auto"):
        raise ValueError(f"The argument cross_class_means must be True, False or 'auto', but is {cross_class_means!r}.")
    probes = default_probes(obj.num_parameters) if num_probes == "auto" else check_count("num_probes", num_probes)
    if low_rank_parts not in ("lanczos", "gram"):
        raise ValueError(f"The argument low_rank_parts must be 'lanczos' or 'gram', but is {low_rank_parts!r}.")
    given = _checked(known, obj)
    notes: list[str] = []
    if structure is None:
        structure, notes = _class_structure(obj)
    elif structure.objective is not obj:
        raise ValueError("The argument structure is that of another objective; pass what this one's class_structure() returns.")
    pairs = structure is not None and (
        cross_class_means is True or (cross_class_means == "auto" and structure.num_classes**2 <= MOST_PAIRS)
    )
    whole = _whole(obj)
    parts: dict[str, LinearOperator] = {} if structure is None else {name: getattr(structure, name) for name in _PARTS}
    exact = set() if structure is None or low_rank_parts == "lanczos" else {"A1", "A2", *(("B1",) if pairs else ())}
    marker_products = 0 if structure is None else structure.num_classes + pairs * int(np.count_nonzero(structure.cross_class_weights))
    options: dict[str, Any] = {
        "num_steps": num_steps, "num_probes": probes, "seed": seed, "memory_budget": memory_budget,
        "time_budget": time_budget if structure is None or time_budget is None else time_budget / 2,
    }  # fmt: skip
    each = min(num_steps, obj.num_parameters) * probes
    plan = [each * len(whole.keys() - given.keys()), -(-marker_products // 5), each * len(parts.keys() - given.keys() - exact)]
    markers: dict[str, np.ndarray] = {}
    began = time.perf_counter()
    with Meter(progress, plan, "decomposition") as meter:
        densities, spent = _runs(whole, given, "H, G, H - G", options, meter.part(0))
        meter.finish(0)
        if structure is not None:
            markers = {name: structure.spectrum(name) for name in ("A1", "A1+A2", *(("A1+A2+B1",) if pairs else ()))}
            meter.finish(1)
            for name in exact - given.keys():
                given[name] = _of_eigenvalues(structure.spectrum(name), obj, num_steps, probes, seed)
            more, products = _runs(parts, given, "A1, A2, B1, B2", options, meter.part(2))
            meter.finish(2)
            densities, spent = {**densities, **more}, spent + products
    if structure is not None and not pairs and cross_class_means == "auto":
        notes.append(
            f"The eigenvalues of A1 + A2 + B1 are left out for {structure.num_classes**2:,} pairs of classes; cross_class_means=True "
            "computes them."
        )
    if structure is not None and obj.weight_decay:
        notes.append(f"H and G hold {obj.weight_decay:g} times the identity for weight decay; the parts of G do not.")
    return CurvatureDecomposition(densities, markers, spent, time.perf_counter() - began, tuple(notes), marker_products)


def _checked(known: Mapping[str, SpectralDensity] | None, obj: Objective) -> dict[str, SpectralDensity]:
    given = {} if known is None else dict(known)
    for name, density in given.items():
        if name not in _TITLES:
            raise ValueError(f"The argument known holds {name!r}, but the matrices are {', '.join(map(repr, _TITLES))}.")
        if density.dimension != obj.num_parameters:
            raise ValueError(
                f"The argument known holds a spectrum of order {density.dimension:,} for {name!r}, but the objective has "
                f"{obj.num_parameters:,} parameters."
            )
    return given


def _runs(
    operators: dict[str, LinearOperator], given: Mapping[str, SpectralDensity], description: str, options: dict[str, Any],
    progress: Progress,
) -> tuple[dict[str, SpectralDensity], int]:  # fmt: skip
    """Densities of those matrices that have none yet, in lockstep, beside those that are given."""
    wanted = {name: operator for name, operator in operators.items() if name not in given}
    found: dict[str, SpectralDensity] = {}
    spent = 0
    if wanted:
        found, spent, _ = lockstep_densities(wanted, description=description, progress=progress, **options)
    return {name: given[name] if name in given else found[name] for name in operators}, spent


def _of_eigenvalues(values: np.ndarray, obj: Objective, num_steps: int, num_probes: int, seed: int) -> SpectralDensity:
    """Density of a matrix of low rank with known eigenvalues: that of the diagonal matrix with them and zeros, for the same probes.

    A uniform probe has the same law in every basis, so that its run does not differ in kind from one with the matrix itself.
    """
    functions = obj.functions
    entries = np.zeros(obj.num_parameters, dtype=functions.dtype)
    largest = max(float(values.max(initial=0.0)), 0.0)
    kept = np.sort(values[values > functions.unit_rounding * largest])[::-1][: len(entries)]
    entries[: len(kept)] = kept
    operator = diagonal_operator(functions.backend.asarray(entries), backend=functions.backend)
    return spectral_density(operator, num_steps=min(num_steps, len(entries)), num_probes=num_probes, seed=seed)


def _whole(obj: Objective) -> dict[str, LinearOperator]:
    if obj.functions.gauss_newton_refusal is not None:
        return {"hessian": obj.hessian()}
    operators = (obj.hessian(), obj.ggn(), obj.residual())
    share_linearizations(operators)
    return dict(zip(("hessian", "ggn", "residual"), operators, strict=True))


def _class_structure(obj: Objective) -> tuple[ClassStructure | None, list[str]]:
    """The class structure, or a sentence that says why there is none."""
    try:
        return obj.class_structure(), []
    except (TypeError, ValueError) as error:
        if obj.functions.gauss_newton_refusal is not None:
            return None, [f"Only the Hessian is shown: {obj.functions.gauss_newton_refusal}"]
        return None, [f"The parts A1, A2, B1 and B2 are left out: {error}"]
