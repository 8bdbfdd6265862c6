"""Directions in parameter space: eigenvectors, random ones, and random ones scaled like the filters of the weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from ..backends import random_vector, to_numpy
from ..curvature import Objective
from ..krylov import EigenResult, eigsh
from ..krylov.lanczos import check_count
from ..operators import aslinearoperator
from ..results import PathLike, register, save_result
from .storage import from_file, to_file

Kind = Literal["random", "filter_normalized", "top", "bottom"]


@runtime_checkable
class SupportsFilters(Protocol):
    """What model functions may have besides: where the filters of a weight lie."""

    def filter_axis(self, name: str) -> int:
        """Axis of a parameter along which the weights of different outputs lie."""


@register("directions")
@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """Directions in the order of `Objective.parameters`.

    Attributes
    ----------
    vectors : numpy.ndarray
        One direction a column, shape (P, K).
    labels : tuple of str
        A name for each, for legends.
    kind : str
        Where they come from.
    eigenvalues : numpy.ndarray or None
        Shape (K,), where the directions are eigenvectors: the curvature along each, in loss per squared parameter.
    num_matvecs : int
        Products that were spent.
    seconds : float
        Wall-clock time.
    """

    vectors: np.ndarray
    labels: tuple[str, ...]
    kind: str = "given"
    eigenvalues: np.ndarray | None = None
    num_matvecs: int = 0
    seconds: float = 0.0

    def __getitem__(self, index: int) -> np.ndarray:
        """One direction, shape (P,)."""
        return np.asarray(self.vectors[:, index])

    def __len__(self) -> int:
        return int(self.vectors.shape[1])

    def save(self, path: PathLike) -> None:
        """Write the directions to `path` (``.npz``); `linop_spectra.load` reads them back."""
        save_result(path, "directions", *to_file(self))

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Directions:
        return cls(**from_file(scalars, arrays))


def directions(
    objective: Objective,
    kind: Kind = "random",
    num: int = 1,
    *,
    seed: int = 0,
    operator: Any = None,
    filter_axis: int | Mapping[str, int] | None = None,
    tol: float = 1e-6,
) -> Directions:
    r"""Directions to look at an objective along.

    Parameters
    ----------
    objective : Objective
        With P parameters.
    kind : {"random", "filter_normalized", "top", "bottom"}
        ``"random"``: unit vectors, uniform on the sphere. ``"filter_normalized"``: normal numbers, each filter (the weights of one
        output) scaled to the norm of the model's filter, as in Li, Xu, Taylor, Studer and Goldstein (2018), section 4; arrays with
        fewer than two axes (biases, parameters of normalisation) get zeros, as in the paper's own plots. Such a direction has about
        the norm of the weights, so that a distance of 1 is a relative change of order one. ``"top"`` and ``"bottom"``: unit eigenvectors
        of the largest and of the smallest eigenvalues.
    num : int
        How many, K.
    seed : int
        Of random directions and of the search for eigenvectors. One seed gives the same random directions however many are asked for.
    operator : LinearOperator, optional
        Whose eigenvectors; by default the Hessian of the objective.
    filter_axis : int or mapping of str to int, optional
        Axis of the weights along which outputs lie, for all or by name. By default the first for layers of torch (the second for
        transposed convolutions), else the last one, as in flax and Keras; the layers of equinox need 0.
    tol : float
        Of the eigenvectors; see `linop_spectra.eigsh`.

    Returns
    -------
    Directions
        Their vectors have the objective's dtype.

    Raises
    ------
    ValueError
        When an argument does not fit, or no parameter has two axes, so that there are no filters.

    Examples
    --------
    >>> import torch, linop_spectra as ls, linop_spectra.landscape
    >>> model = torch.nn.Linear(4, 3)
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(10, 4), torch.randint(0, 3, (10,))))
    >>> d = ls.landscape.directions(objective, "filter_normalized")
    >>> weights = objective.unflatten(d[0])["weight"]
    >>> bool(torch.allclose(weights.norm(dim=1), model.weight.norm(dim=1)))
    True
    """
    num = check_count("num", num)
    began = time.perf_counter()
    if kind == "random":
        vectors = _random(objective, num, seed, "sphere")
        return Directions(vectors, _numbered("random direction", num), kind, seconds=time.perf_counter() - began)
    if kind == "filter_normalized":
        vectors = _random(objective, num, seed, "normal")
        vectors = np.stack([filter_normalize(objective, column, filter_axis) for column in vectors.T], axis=1)
        return Directions(vectors, _numbered("filter-normalised direction", num), kind, seconds=time.perf_counter() - began)
    if kind not in ("top", "bottom"):
        known = ", ".join(repr(name) for name in get_args(Kind))
        raise ValueError(f"The argument kind is {kind!r}, but must be one of {known}.")
    matrix = objective.hessian() if operator is None else aslinearoperator(operator)
    pairs = eigsh(matrix, k=min(num, matrix.shape[0]), which="LA" if kind == "top" else "SA", tol=tol, seed=seed)
    found = from_eigenpairs(pairs, descending=kind == "top")
    return dataclasses.replace(found, kind=kind, seconds=time.perf_counter() - began)


def filter_normalize(objective: Objective, direction: Any, filter_axis: int | Mapping[str, int] | None = None) -> np.ndarray:
    """A direction with each filter scaled to the norm of the objective's filter; zero for arrays with fewer than two axes.

    Parameters
    ----------
    objective : Objective
        With P parameters.
    direction : array
        Shape (P,).
    filter_axis : int or mapping of str to int, optional
        See `directions`.

    Returns
    -------
    numpy.ndarray
        Shape (P,), of the objective's dtype.

    Raises
    ------
    ValueError
        When no parameter has two axes.
    """
    theta = {name: np.asarray(to_numpy(value)) for name, value in objective.unflatten(objective.parameters()).items()}
    out = np.zeros(objective.num_parameters, objective.dtype)
    given = np.asarray(direction)
    for name, array in theta.items():
        if array.ndim >= 2:
            place = objective.blocks[name]
            axis = _axis(objective, name, filter_axis) % array.ndim
            others = tuple(i for i in range(array.ndim) if i != axis)
            piece = given[place].reshape(array.shape).astype(np.float64)
            wanted, have = (np.sqrt(np.sum(np.square(a, dtype=np.float64), axis=others, keepdims=True)) for a in (array, piece))
            out[place] = (piece * (wanted / np.where(have > 0, have, 1.0))).ravel()
    if not any(array.ndim >= 2 for array in theta.values()):
        raise ValueError("No parameter has two axes or more, so that there are no filters to normalise; use kind='random'.")
    return out


def as_directions(objective: Objective, given: Any, name: str, seed: int = 0) -> tuple[Directions, bool]:
    """What a user gave as one direction or several, checked, and whether it was a single one.

    Raises
    ------
    ValueError
        When shapes do not fit, or a direction is zero or not finite.
    """
    if isinstance(given, str):
        if given not in get_args(Kind):
            known = ", ".join(repr(kind) for kind in get_args(Kind))
            raise ValueError(f"The argument {name} is {given!r}, but a direction by name is one of {known}; or pass an array.")
        return directions(objective, given, seed=seed), True  # type: ignore[arg-type]
    single = False
    if isinstance(given, Directions):
        found = given
    elif isinstance(given, EigenResult):
        found = from_eigenpairs(given, descending=True)
    else:
        array = np.asarray(to_numpy(objective.flatten(given) if isinstance(given, Mapping) else given))
        single = array.ndim == 1
        vectors = array[:, None] if single else array
        labels = ("direction",) if single else _numbered("direction", vectors.shape[-1] if vectors.ndim == 2 else 0)
        found = Directions(vectors, labels)
    n, vectors = objective.num_parameters, found.vectors
    if vectors.ndim != 2 or vectors.shape[0] != n or vectors.shape[1] == 0:
        shape = tuple(vectors.shape[:1]) if single else tuple(vectors.shape)
        raise ValueError(f"The argument {name} has shape {shape}, but a direction of this objective has shape ({n},), several ({n}, K).")
    if np.iscomplexobj(vectors):
        raise ValueError(f"The argument {name} is complex, but parameters move along real directions.")
    finite, moving = np.isfinite(vectors).all(axis=0), np.atleast_1d(np.any(vectors != 0, axis=0))
    for index in np.flatnonzero(~finite | ~moving):
        what = "not finite" if moving[index] else "zero"
        raise ValueError(f"The argument {name} holds a direction (number {index}) that is {what}; pass one along which parameters move.")
    return dataclasses.replace(found, vectors=np.ascontiguousarray(vectors, dtype=objective.dtype)), single


def from_eigenpairs(pairs: EigenResult, *, descending: bool) -> Directions:
    """The eigenvectors of a result, the largest eigenvalue first or last."""
    order = np.argsort(pairs.eigenvalues)
    order = order[::-1] if descending else order
    vectors = np.asarray(to_numpy(pairs.eigenvectors))[:, order]
    values = np.asarray(pairs.eigenvalues, dtype=np.float64)[order]
    labels = tuple(f"λ = {value:.4g}" for value in values)
    return Directions(vectors, labels, "eigenvectors", values, pairs.num_matvecs, pairs.seconds)


def _random(objective: Objective, num: int, seed: int, kind: Literal["sphere", "normal"]) -> np.ndarray:
    rows = [
        random_vector(objective.num_parameters, kind=kind, seed=seed, domain="direction", index=index, dtype=objective.dtype)
        for index in range(num)
    ]
    return np.stack(rows, axis=1)


def _axis(objective: Objective, name: str, given: int | Mapping[str, int] | None) -> int:
    functions = objective.functions
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(objective.blocks))
        if unknown:
            raise ValueError(f"The argument filter_axis names the parameter {unknown[0]!r}, which this objective does not have.")
        given = given.get(name)
    if given is not None:
        return int(given)
    return functions.filter_axis(name) if isinstance(functions, SupportsFilters) else -1


def _numbered(text: str, count: int) -> tuple[str, ...]:
    return (text,) if count == 1 else tuple(f"{text} {i + 1}" for i in range(count))
