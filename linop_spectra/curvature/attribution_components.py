"""Parts of a matrix whose share in its outliers is measured: class structure, layers, eigenspaces, or what a user gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backends import Array
from ..estimators import trace
from ..krylov import EigenResult, eigsh
from ..operators import LinearOperator, aslinearoperator, low_rank
from ..spectra import spectral_density
from .blocks import layer_of
from .objective import Objective

CLASS_PARTS = ("A1", "A2", "A1+A2", "B1", "B2")
_OF_CLASS_MEANS = ("A1", "A2", "A1+A2")
"""They have one range: A2 is made of multiples of the class means that A1 is made of."""
_NEGLIGIBLE = 1e-6
_TRACE_PROBES = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Component:
    """A part of a matrix and the orthogonal projection on its range."""

    name: str
    operator: LinearOperator
    project: Callable[[Array], Array]
    rank: int
    range_energy: float
    rest: LinearOperator | None = None
    """What is left of the whole without it, where that is known as an operator of its own."""


class ProjectedOut(LinearOperator):
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


def names_of(objective: Objective | None, components: Any) -> dict[str, Any]:
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
        return dict.fromkeys((*CLASS_PARTS, "top"))
    chosen = [components] if isinstance(components, str) else list(components)
    if not chosen:
        raise ValueError("The argument components is empty; pass at least one component.")
    return dict.fromkeys(chosen)


def component_of(
    name: str, given: Any, objective: Objective | None, whole: LinearOperator, pairs: EigenResult, max_rank: int, tol: float, seed: int,
    known: dict[str, Component], add_up: bool,
) -> tuple[Component, int]:  # fmt: skip
    """The component and the products that it took to find its range.

    `known` are the parts of the objective before it; `add_up` is what `parts_add_up` found.
    """
    backend, n = whole.backend, whole.shape[0]
    if given is None and name == "top":
        vectors = pairs.eigenvectors
        operator = low_rank(vectors, backend.asarray(pairs.eigenvalues), backend=backend)
        # Of eigenvectors subtraction and projection are the same.
        project = _onto(backend, vectors)
        return Component(name, operator, project, vectors.shape[1], 1.0, ProjectedOut(whole, project)), 0
    if given is None:
        assert objective is not None
        if name not in CLASS_PARTS:
            return _of_rows(name, whole, objective), 0
        structure = objective.class_structure()
        operator = structure.sum_of(name)
        # The sum of the others is one pass for a product, a difference two.
        others = "+".join(part for part in ("A1", "A2", "B1", "B2") if part not in name.split("+"))
        rest = structure.sum_of(others) if add_up else None
        classes = structure.num_classes
        most = {"B1": classes * max(classes - 2, 1), "B2": n}.get(name, classes)
        for other in _OF_CLASS_MEANS:
            if name in _OF_CLASS_MEANS and most <= max_rank and other in known:
                return dataclasses.replace(known[other], name=name, operator=operator, rest=rest), 0
        component, products = _of_operator(name, operator, min(most, max_rank, n), tol, seed)
        return dataclasses.replace(component, rest=rest), products
    if not isinstance(given, LinearOperator) and len(getattr(given, "shape", ())) == 2 and given.shape[0] == n != given.shape[1]:
        basis = _orthonormal(backend, backend.asarray(given, dtype=whole.dtype))
        project = _onto(backend, basis)
        inside = whole.matmat(basis)
        core = backend.conj(basis).T @ inside  # the matrix on the space
        values, rotation = np.linalg.eigh(np.asarray(backend.to_numpy(core), dtype=np.float64))
        operator = low_rank(basis @ backend.asarray(rotation, dtype=whole.dtype), backend.asarray(values), backend=backend)
        return Component(name, operator, project, basis.shape[1], 1.0), int(basis.shape[1])
    operator = aslinearoperator(given)
    if operator.shape != whole.shape:
        raise ValueError(f"The component {name!r} has shape {operator.shape}, but the matrix {whole.shape}.")
    return _of_operator(name, operator, min(max_rank, n), tol, seed)


def parts_add_up(objective: Objective | None, whole: LinearOperator, names: Mapping[str, Any], seed: int) -> tuple[bool, int]:
    """Whether the class parts are asked for and add up to the matrix, by two products.

    They do not with weight decay, or where the matrix is another one than theirs.
    """
    if objective is None or not any(name in CLASS_PARTS and given is None for name, given in names.items()):
        return False, 0
    backend, n = whole.backend, whole.shape[0]
    probe = backend.probes(n, (0,), kind="normal", seed=seed, domain="attribution", dtype=whole.dtype)[0, :]
    expected, found = whole @ probe, objective.class_structure().sum_of("A1+A2+B1+B2") @ probe
    size, distance = (float(np.real(x)) for x in backend.fetch([backend.norm(expected), backend.norm(expected - found)]))
    return distance <= 100 * float(np.finfo(whole.dtype).eps) * size, 2


def _of_operator(name: str, operator: LinearOperator, rank: int, tol: float, seed: int) -> tuple[Component, int]:
    """A component with the directions of largest modulus that hold its range, up to a share of 1e-6 of its largest eigenvalue."""
    measured = spectral_density(operator, num_steps=min(rank + 8, operator.shape[0]), num_probes=1, seed=seed, deflate=False)
    # The Krylov space of one vector ends with the rank.
    visible = int(np.sum(np.abs(measured.nodes) > _NEGLIGIBLE * measured.norm_estimate)) if measured.norm_estimate > 0 else 0
    if visible == 0:
        return Component(name, operator, lambda x: 0 * x, 0, 1.0), measured.num_matvecs
    rank = min(rank, visible if visible < measured.num_steps else rank)
    pairs = eigsh(operator, k=rank, which="LM", tol=tol, seed=seed)
    keep = np.abs(pairs.eigenvalues) > _NEGLIGIBLE * pairs.norm_estimate
    vectors = pairs.eigenvectors.T[np.flatnonzero(keep).tolist(), :].T
    project, held = _onto(operator.backend, vectors), float(np.sum(pairs.eigenvalues[keep]))
    # Random vectors need to see only what the directions leave, which makes few of them enough.
    left = trace(ProjectedOut(operator, project), method="hutchinson", num_matvecs=_TRACE_PROBES, seed=seed)
    total = held + left.value
    share = float(np.clip(held / total, 0.0, 1.0)) if total else 1.0
    products = measured.num_matvecs + pairs.num_matvecs + left.num_matvecs
    return Component(name, operator, project, int(keep.sum()), share), products


def _of_rows(name: str, whole: LinearOperator, objective: Objective) -> Component:
    """Rows and columns of a layer or a parameter: the component is the diagonal block."""
    own = [key for key in objective.blocks if key == name or layer_of(key) == name or key.startswith((f"{name}.", f"{name}/"))]
    if not own:
        layers = list(dict.fromkeys(layer_of(key) for key in objective.blocks))
        raise ValueError(
            f"The argument components names {name!r}, which is none of {', '.join(map(repr, (*CLASS_PARTS, 'top')))}, no layer "
            f"({', '.join(map(repr, layers))}) and no parameter."
        )
    mask = np.zeros(objective.num_parameters)
    for key in own:
        mask[objective.blocks[key]] = 1.0
    chosen = whole.backend.asarray(mask, dtype=whole.dtype)[:, None]
    return Component(name, _Rows(whole, chosen), lambda x: chosen * x, int(mask.sum()), 1.0)


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
