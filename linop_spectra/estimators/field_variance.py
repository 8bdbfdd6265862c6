"""Variance of a random operator that a few draws of it show: how far the curvature of one batch is from that of all."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._memory import format_bytes, parse_budget
from ..backends import Array
from ..krylov.lanczos import check_count
from ..operators import LinearOperator, aslinearoperator
from ..results import Estimate
from .sampling import NonFiniteEstimateError, NonFiniteProduct, mean_with_error, multiply, random_rows, unit_rows


def field_variance(
    operators: Sequence[Any],
    direction: Any = None,
    *,
    share: float = 0.0,
    num_probes: int = 8,
    seed: int = 0,
    memory_budget: int | float | str | None = None,
) -> Estimate:
    r"""Mean squared length of what one batch adds to the product with a unit vector.

    For operators :math:`H_1, \dots, H_K` of disjoint batches of one size, with mean :math:`\bar H`, and a unit vector z,
    :math:`\frac{1}{K - 1} \sum_k |H_k z - \bar H z|^2` is unbiased for the variance :math:`E |(H_B - E H_B) z|^2` of a batch drawn from the
    population. Along an eigenvector this is what shifts its eigenvalue in a batch; averaged over all directions it is the squared
    Frobenius norm of the fluctuation divided by its order.

    Parameters
    ----------
    operators : sequence of LinearOperator or what `aslinearoperator` takes
        At least two, of one shape, dtype and backend.
    direction : array, optional
        Vector of shape (n,), of any length but zero: the variance along it. Without it the average over all directions.
    share : float
        Share B / N of all examples that one batch has. Batches drawn from N examples without replacement differ from the operator of
        all N by ``1 - B / N`` times the variance. The default, 0, is the variance about the population.
    num_probes : int
        Random directions for the average; at least n of them take the unit vectors instead, which is exact.
    seed : int
        Of the random directions.
    memory_budget : int, float, str or None
        For the products with one direction or more that are held at a time, one from each operator.

    Returns
    -------
    Estimate
        The standard error has a part from the batches (jackknife) and one from the random directions. With two batches the
        first is not known, and infinite.

    Raises
    ------
    ValueError
        When there are fewer than two operators, they do not fit each other, or an argument is out of range.
    MemoryError
        When the products with a single direction do not fit the budget.
    NonFiniteEstimateError
        When a product holds NaN or infinity.

    References
    ----------
    D. Granziol, S. Zohren and S. Roberts, *Learning rates as a function of batch size: a random matrix theory approach to neural
    network training*, J. Mach. Learn. Res. 23 (2022), for the average. The jackknife of such U-statistics: J. N. Arvesen, Ann. Math.
    Statist. 40 (1969).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.estimators.field_variance import field_variance
    >>> batches = [ls.random_matrices.wigner(200, variance=0.5, seed=k) for k in range(6)]
    >>> low, high = field_variance(batches).confidence_interval(0.99)
    >>> bool(low < 0.5 < high)
    True
    """
    began = time.perf_counter()
    batches = _check_operators(operators)
    if isinstance(share, (bool, np.bool_)) or not isinstance(share, (int, float, np.integer, np.floating)) or not 0 <= share < 1:
        raise ValueError(f"The argument share, of all examples that one batch has, must be at least 0 and below 1, but is {share!r}.")
    n, exact = batches[0].shape[1], direction is not None
    vector = None if direction is None else unit_row(batches[0], direction)
    if vector is None:
        num_probes = check_count("num_probes", num_probes)
        exact = num_probes >= n
        count = n if exact else num_probes
    else:
        count = 1
    squares: list[np.ndarray] = []
    largest = 0.0
    for indices in _blocks(batches, count, memory_budget):
        if vector is not None:
            rows = vector
        elif exact:
            rows = unit_rows(batches[0], indices)
        else:
            rows = random_rows(batches[0], indices, "sign", seed, "field variance")
            rows /= math.sqrt(n)
        try:
            found, longest = _squared_distances(batches, rows, indices.start)
        except NonFiniteProduct as error:
            raise NonFiniteEstimateError(f"{error}.", None, indices.start * len(batches)) from error
        squares.append(found)
        largest = max(largest, longest)
    estimate = variance_from_squares(np.concatenate(squares, axis=1), vary=not exact)
    rounding = 2 * max(batch.unit_rounding for batch in batches) * largest
    rounding_error = 2 * math.sqrt(estimate.value) * rounding + rounding**2
    return dataclasses.replace(
        estimate, value=(1 - share) * estimate.value, standard_error=(1 - share) * estimate.standard_error,
        rounding_error=(1 - share) * rounding_error, num_matvecs=len(batches) * count, seconds=time.perf_counter() - began,
        method="variance over batches" if exact else "variance over batches, random directions",
    )  # fmt: skip


def variance_from_squares(squares: np.ndarray, *, vary: bool, weights: np.ndarray | None = None) -> Estimate:
    r"""The variance that squared distances of the batches from their mean show, with a jackknife over the batches.

    With relative sizes :math:`w_k` of the batches, :math:`\frac{1}{K - 1} \sum_k w_k |H_k z - \bar H z|^2` is unbiased for the variance
    of a batch of size one, where a batch of size w has 1 / w of it and the mean is weighted by the sizes.

    Parameters
    ----------
    squares : numpy.ndarray
        ``|H_k z - mean|^2``, shape (batches, directions), at least two batches.
    vary : bool
        Whether the directions are a random choice, over which the estimate is an average; their scatter then adds to the standard error.
    weights : numpy.ndarray, optional
        Sizes of the batches, shape (batches,), in units of the batch that the variance is for. By default all are one.

    Returns
    -------
    Estimate
        The standard error of two batches is infinite.

    Examples
    --------
    >>> import numpy as np
    >>> values, sizes = np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 0.5])
    >>> squares = (values - np.average(values, weights=sizes)) ** 2
    >>> round(variance_from_squares(squares[:, None], vary=False, weights=sizes).value, 6)  # (1.44 + 0.04 + 7.22) / 2 with the mean 2.4
    4.3
    """
    batches, directions = squares.shape
    sizes = np.ones(batches) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = squares * sizes[:, None]
    per_direction = shares.sum(axis=0) / (batches - 1)
    value = float(per_direction.mean())
    error, dof = math.inf, 1.0
    if batches > 2:
        # Without one batch the mean moves: a sum of squares about it loses total / (total - size) times the square of that batch.
        of_batch = shares.mean(axis=1)
        without = (of_batch.sum() - sizes.sum() / (sizes.sum() - sizes) * of_batch) / (batches - 2)
        _, error, dof = mean_with_error(batches * value - (batches - 1) * without)
    if vary:
        _, probe_error, probe_dof = mean_with_error(per_direction)
        # Both parts hold what is particular to one batch in one direction: it is taken off once.
        own = shares - shares.mean(axis=0) - shares.mean(axis=1, keepdims=True) + shares.mean()
        shared = float((own**2).sum()) / ((batches - 1) ** 3 * max(directions - 1, 1) * directions) * batches
        both = max(error**2 + probe_error**2 - shared, error**2, probe_error**2)
        if 0 < both < math.inf:
            dof = both**2 / (error**4 / dof + probe_error**4 / probe_dof)
        error = math.sqrt(both)
    return Estimate(value, standard_error=error, degrees_of_freedom=dof)


def _squared_distances(batches: list[LinearOperator], rows: Array, done: int) -> tuple[np.ndarray, float]:
    """Squared distances of the products of each operator from their mean, shape (operators, rows), and the longest product."""
    backend, k = batches[0].backend, rows.shape[0]
    products, longest = [], 0.0
    for position, batch in enumerate(batches):
        own, norms = multiply(batch, rows, done * len(batches) + position * k)
        products.append(own)
        longest = max(longest, float(norms.max()))
    mean = products[0] / len(batches)
    for own in products[1:]:
        mean += own / len(batches)
    out = np.empty((len(batches), k))
    for position, own in enumerate(products):
        own -= mean
        out[position] = np.real(backend.fetch([backend.norm(own[i, :]) for i in range(k)]))
    return out**2, longest


def _blocks(batches: list[LinearOperator], count: int, memory_budget: int | float | str | None) -> list[range]:
    first = batches[0]
    budget = parse_budget(memory_budget, total=first.backend.total_memory())
    each = (len(batches) + 1) * first.shape[0] * first.dtype.itemsize
    if each > budget:
        raise MemoryError(
            f"The products of {len(batches)} operators with one vector take {format_bytes(each)}, over the budget of "
            f"{format_bytes(budget)}; pass fewer operators, or memory_budget= to allow more."
        )
    step = min(count, budget // each, 64)
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


def _check_operators(operators: Any) -> list[LinearOperator]:
    if isinstance(operators, LinearOperator) or not isinstance(operators, Sequence):
        raise TypeError(
            f"The argument operators must be a list of operators, one for each batch, but is of type {type(operators).__name__}."
        )
    batches = [aslinearoperator(operator) for operator in operators]
    if len(batches) < 2:
        raise ValueError(f"The argument operators has {len(batches)} of them, but a variance needs at least two batches.")
    for name, values in (
        ("shape", [batch.shape for batch in batches]),
        ("dtype", [batch.dtype for batch in batches]),
        ("backend", [batch.backend.name for batch in batches]),
    ):
        different = next((position for position, value in enumerate(values) if value != values[0]), None)
        if different is not None:
            raise ValueError(
                f"The operators of all batches must have one {name}, but number 0 has {values[0]} and number {different} has "
                f"{values[different]}."
            )
    return batches


def unit_row(operator: LinearOperator, direction: Any) -> Array:
    """A direction scaled to the length one, as a row of our own, shape (1, n).

    Raises
    ------
    ValueError
        When it has another shape than (n,), or is zero or not finite.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> unit_row(ls.identity(2), np.array([3.0, 4.0]))
    array([[0.6, 0.8]])
    """
    backend = operator.backend
    given = backend.asarray(direction, dtype=operator.dtype)
    if tuple(given.shape) != (operator.shape[1],):
        raise ValueError(f"The argument direction must have shape ({operator.shape[1]},), but has shape {tuple(given.shape)}.")
    length = float(np.real(backend.fetch([backend.norm(given)])[0]))
    if not 0 < length < math.inf:
        raise ValueError(f"The argument direction must be a finite vector other than zero, but has length {length}.")
    row = backend.empty((1, operator.shape[1]), operator.dtype)
    row[0, :] = given / length
    return row
