"""Minimisers of a quadratic model with a region, in Krylov spaces, with the eigenvector that these may miss."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ...backends import Array
from ...krylov.eigen_result import EigenResult
from ...krylov.eigsh import eigsh
from ...krylov.errors import NotHermitianError
from ...krylov.lanczos import check_count
from ...operators import LinearOperator, aslinearoperator, require_hermitian
from .krylov_space import KrylovSpace
from .secular import Region, solve_diagonal

HardCase = Literal["auto", "always", "never"]
MOST_STEPS = 500
"""Dimensions of the Krylov space where no number is given."""
_ROUGH = 1e-6, 1e-4
"""Smallest and largest tolerance of the first search for an eigenvalue."""
_NEGATIVE = 1e-8  # shifted eigenvalues down to minus this, times the norm, count as zero
_EVERY = 32  # sizes up to here are all looked at, later ones in steps of a sixteenth


@dataclasses.dataclass(frozen=True, eq=False)
class SubproblemResult:
    r"""A minimiser of :math:`m(s) = g^T s + s^T A s / 2`, with a cubic term or in a ball, and what is known of it.

    Attributes
    ----------
    step : array
        The minimiser s, shape (n,), on the operator's backend.
    multiplier : float
        The shift :math:`\lambda` of :math:`(A + \lambda I) s = -g`; NaN for a method that has none.
    model_value : float
        The model at s, cubic term included; never positive.
    step_norm : float
        Norm of s.
    residual_norm : float
        Norm of :math:`(A + \lambda I) s + g`; of :math:`A s + g` where there is no multiplier.
    num_steps : int
        Dimension of the Krylov space.
    num_matvecs : int
        Products with A, those of the search for an eigenvector and of the test of symmetry included.
    converged : bool
        Whether the residual is within the tolerance, and a search for a lower eigenvalue than the shift allows came to an end.
    hard_case : bool
        Whether the step has a part along an eigenvector that the Krylov space does not contain, or the gradient does not.
    lowest_eigenvalue : float
        Of A, where it was looked for; else NaN. :math:`\lambda` at or above minus this proves a global minimum.
    seconds : float
        Wall-clock time.
    """

    step: Array
    multiplier: float
    model_value: float
    step_norm: float
    residual_norm: float
    num_steps: int
    num_matvecs: int
    converged: bool
    hard_case: bool
    lowest_eigenvalue: float
    seconds: float


class _Candidate(NamedTuple):
    """A minimiser in a space of `size` dimensions, and one more direction where there is a `side`."""

    size: int
    basis: np.ndarray
    side: float
    multiplier: float
    model_value: float
    residual_norm: float
    hard_case: bool


def check_problem(A: Any, g: Any, purpose: str) -> tuple[LinearOperator, Array, int]:
    """Operator and gradient of a sub-problem, and the operator's products before the test of its symmetry."""
    operator = aslinearoperator(A)
    before = operator.num_matvecs
    if operator.dtype.kind == "c":
        raise TypeError(f"{purpose} is for real variables, but the argument A has dtype {operator.dtype}; pass a real operator.")
    require_hermitian(operator, purpose)
    backend, n = operator.backend, operator.shape[0]
    gradient = backend.asarray(g)
    if backend.dtype_of(gradient).kind == "c":
        raise TypeError(f"{purpose} is for real variables, but the argument g is complex; pass a real vector.")
    gradient = backend.contiguous(backend.asarray(gradient, dtype=operator.dtype))
    if tuple(gradient.shape) != (n,):
        raise ValueError(f"The argument g must have shape ({n},), as the operator has order {n}, but has shape {tuple(gradient.shape)}.")
    if not math.isfinite(float(backend.norm(gradient))):
        raise ValueError("The argument g holds NaN or infinity; look for the loss or layer that makes the gradient so.")
    return operator, gradient, before


def check_steps(num_steps: Any) -> int | None:
    """`num_steps` as a positive whole number, or None."""
    return None if num_steps is None else check_count("num_steps", num_steps)


def check_tolerance(tol: Any) -> float:
    """`tol` as a number in (0, 1)."""
    number = float(tol)
    if not 0.0 < number < 1.0:
        raise ValueError(f"The argument tol must lie between 0 and 1, but is {tol!r}.")
    return number


def check_hard_case(hard_case: Any) -> None:
    """Raise unless `hard_case` is one of the three words."""
    if hard_case not in get_args(HardCase):
        raise ValueError(f"The argument hard_case is {hard_case!r}, but must be one of {', '.join(map(repr, get_args(HardCase)))}.")


def minimise(
    space: KrylovSpace,
    region: Region,
    *,
    num_steps: int | None,
    tol: float,
    hard_case: HardCase,
    before: int,
    name: str,
    search_limit: int | None = None,
) -> SubproblemResult:
    """The minimiser in the smallest Krylov space that is large enough.

    Parameters
    ----------
    space : KrylovSpace
        Grown as far as needed; where it is larger, the smaller spaces are looked at first, so that the result is the same.
    region : Region
        Ball or cubic term.
    num_steps : int or None
        Most dimensions; None is `MOST_STEPS`, with a warning when they are not enough.
    tol : float
        Residual relative to the gradient's norm.
    hard_case : {"auto", "always", "never"}
        When to look for the lowest eigenvector.
    before : int
        Products of the operator that are not this problem's.
    name : str
        Function that a warning speaks of.
    search_limit : int, optional
        Products after which the search for an eigenvector ends without one.
    """
    began = time.perf_counter()
    operator = space.operator
    tol = max(tol, 20 * operator.unit_rounding)
    most = MOST_STEPS if num_steps is None else num_steps
    candidate = _Candidate(0, np.zeros(0), 0.0, 0.0, 0.0, 0.0, False)
    wanted = tol * space.gradient_norm
    if space.gradient_norm > 0.0:
        for size in _sizes(min(most, operator.shape[0])):
            while space.size < size and not space.complete:
                space.grow()
            candidate = _in_space(space, min(size, space.size), region)
            if candidate.residual_norm <= wanted or candidate.size < size or (space.complete and candidate.size == space.size):
                break
    converged = candidate.residual_norm <= wanted
    if num_steps is None and not converged and not (space.complete and candidate.size == space.size):
        warnings.warn(
            f"{name} stopped in a Krylov space of {candidate.size} dimensions at a residual of {candidate.residual_norm:.2g}, above tol "
            f"times the gradient's norm, {wanted:.2g}. Pass num_steps= for a larger space, or a larger tol.",
            stacklevel=4,
        )
    side: Array = None
    lowest = math.nan
    invariant = space.complete and candidate.size == space.size
    # With a shift of at least zero there is nothing to look for in a positive semidefinite matrix.
    indefinite = candidate.size < operator.shape[0] and not operator.positive_semidefinite
    if indefinite and (hard_case == "always" or (hard_case == "auto" and (invariant or num_steps is None))):
        search_tol = min(tol, _ROUGH[1])
        found = _searched(space, search_tol, candidate.multiplier, search_limit)
        converged = converged and found is not None and bool(found.converged[0])
        lowest = math.nan if found is None else float(found.eigenvalues[0])
        norm = 0.0 if found is None else found.norm_estimate
        if found is not None and lowest + candidate.multiplier < -max(_NEGATIVE, 20 * operator.unit_rounding) * norm:
            extended = _beside(space, candidate.size, found.eigenvectors[:, 0], region, invariant)
            converged = False
            if extended is not None:
                candidate, side = extended
                converged = candidate.residual_norm <= max(wanted, 2 * search_tol * norm * abs(candidate.side))
    step = _assemble(space, candidate, side)
    return SubproblemResult(
        step, candidate.multiplier, candidate.model_value, float(operator.backend.norm(step)), candidate.residual_norm, candidate.size,
        operator.num_matvecs - before, bool(converged), candidate.hard_case, lowest, time.perf_counter() - began,
    )  # fmt: skip


def _sizes(most: int) -> Iterator[int]:
    size = 1
    while size < most:
        yield size
        size = min(most, size + max(1, size // 16 if size > _EVERY else 1))
    yield most


def _in_space(space: KrylovSpace, size: int, region: Region) -> _Candidate:
    values, vectors, out = space.ritz(size)
    small = solve_diagonal(values, space.gradient_norm * vectors[0], region)
    basis = vectors @ small.coefficients
    model = _model(values, space.gradient_norm * vectors[0], small.coefficients, region)
    return _Candidate(size, basis, 0.0, small.multiplier, model, float(abs(out * basis[-1])), small.hard_case)


def _model(values: np.ndarray, gradient: np.ndarray, step: np.ndarray, region: Region) -> float:
    return float(gradient @ step + 0.5 * (values @ step**2)) + region.penalty(float(np.linalg.norm(step)))


def _searched(space: KrylovSpace, tol: float, multiplier: float, limit: int | None) -> EigenResult | None:
    """The lowest eigenpair; None where the products of a symmetric operator are rounding, which proves no negative curvature."""
    try:
        return _lowest(space, tol, multiplier, limit)
    except NotHermitianError:
        if space.test_symmetry:
            raise
        return None


def _lowest(space: KrylovSpace, tol: float, multiplier: float, limit: int | None) -> EigenResult:
    """The lowest eigenpair, to `tol` where it is lower than the multiplier allows, else roughly.

    A Rayleigh quotient below ``-multiplier`` is a proof of negative curvature, however rough its vector: only a vector that is needed is
    made as good as the rest of the solution.
    """
    if space.lowest is None:
        space.lowest = _search(space.operator, max(tol, _ROUGH[0]), limit, None)
    found = space.lowest
    if found.eigenvalues[0] + multiplier < 0.0 and found.residual_norms[0] > tol * found.norm_estimate:
        # The rough one is kept beside it: what a step does must not depend on the steps before.
        if space.refined is None:
            space.refined = _search(space.operator, tol, limit, found.eigenvectors[:, 0])
        found = space.refined
    return found


def _search(operator: LinearOperator, tol: float, limit: int | None, start: Array | None) -> EigenResult:
    with warnings.catch_warnings():
        if limit is not None:  # the result says it
            warnings.filterwarnings("ignore", message="Of 1 eigenpairs 0 converged")
        return eigsh(operator, 1, which="SA", tol=tol, start=start, max_matvecs=limit, verify=False)


def _beside(
    space: KrylovSpace, size: int, vector: Array, region: Region, invariant: bool
) -> tuple[_Candidate, Array] | None:
    """The minimiser in the Krylov space and one more direction; None when that direction is not new.

    A in the larger space is the tridiagonal matrix with one more row, which takes one product; it is zero but for the
    diagonal where the Krylov space is invariant.
    """
    operator, backend = space.operator, space.operator.backend
    side, outside = space.without(backend.contiguous(vector), size)
    if outside < 1e3 * operator.unit_rounding:
        return None
    product = operator.matvec(side) + 0
    corner = float(backend.dot(side, product))
    gradient = np.zeros(size + 1)
    if size == 0:
        small = solve_diagonal(np.array([corner]), gradient, region)
        model = _model(np.array([corner]), gradient, small.coefficients, region)
        rest = float(backend.norm(product - corner * side)) * abs(float(small.coefficients[0]))
        return _Candidate(0, np.zeros(0), float(small.coefficients[0]), small.multiplier, model, rest, True), side
    alphas, betas = space.jacobi(size)
    row = np.zeros(size) if invariant else space.overlaps(product, size)
    matrix = np.diag(np.append(alphas, corner)) + np.diag(np.append(betas[:-1], 0.0), 1) + np.diag(np.append(betas[:-1], 0.0), -1)
    matrix[:size, size] += row
    matrix[size, :size] += row
    if invariant:  # two blocks: their eigenvectors are not to be mixed by rounding
        values, vectors = space.ritz(size)[:2]
        order = np.argsort(np.append(values, corner), kind="stable")
        values = np.append(values, corner)[order]
        vectors = np.block([[vectors, np.zeros((size, 1))], [np.zeros((1, size)), np.ones((1, 1))]])[:, order]
    else:
        values, vectors = np.linalg.eigh(matrix)
    gradient = space.gradient_norm * vectors[0]
    small = solve_diagonal(values, gradient, region)
    basis = vectors @ small.coefficients
    # What leads out of the larger space: the next Krylov vector, and the new product.
    rest = float(basis[-1]) * (product - space.lift(row) - corner * side)
    if not invariant:
        following = space.vector(size)
        rest = rest + float(betas[-1] * basis[-2]) * (following - float(backend.dot(side, following)) * side)
    model = _model(values, gradient, small.coefficients, region)
    return _Candidate(size, basis[:-1], float(basis[-1]), small.multiplier, model, float(backend.norm(rest)), True), side


def _assemble(space: KrylovSpace, candidate: _Candidate, side: Array) -> Array:
    backend, operator = space.operator.backend, space.operator
    if candidate.size:
        step = space.lift(candidate.basis)
        return step if side is None else step + candidate.side * side
    if side is not None:
        return candidate.side * side
    step = backend.empty((operator.shape[0],), operator.dtype)
    step[...] = 0
    return step
