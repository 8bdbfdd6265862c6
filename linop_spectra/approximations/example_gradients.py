r"""Diagonals from squared gradients: of the empirical Fisher matrix, and of the Gauss-Newton matrix by drawn targets.

The diagonal of a sum of outer products :math:`\sum_n g_n g_n^\top` is the sum of the squares. Example by example that is exact and takes
one small gradient each. For all examples of a batch at once one gradient is enough, with random signs or with targets drawn from the
model: the square of a sum of independent vectors of mean zero is, in expectation, the sum of their squares.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import Array, random_vector
from ..curvature.examples import random_numbers, require_examples
from ..curvature.linearization import Accumulator, Batch, Linearization, Outputs
from ..curvature.objective import Objective
from ..curvature.out_of_memory import cut, in_smaller_plans, separable
from ..curvature.subspace import require_all_parameters
from .diagonal import DiagonalApproximation

Each = Literal["example", "batch"]
Advance = Callable[[int], None]


class _Squares:
    """Sum over pieces of squared vectors, one for each sample, in double precision; then mean and standard error."""

    def __init__(self, objective: Objective, num_samples: int) -> None:
        functions = objective.functions
        self._objective, self._functions, self.count = objective, functions, num_samples
        self._row = functions.backend.empty((objective.num_parameters,), objective.dtype)
        self._sums = functions.backend.empty((num_samples, objective.num_parameters), np.float64)
        self._sums[...] = 0.0
        self.terms = 0.0

    def add(self, sample: int, fill: Callable[[Any], object]) -> None:
        """Add the square of what `fill` adds to an accumulator."""
        total = self._functions.accumulator(self._row)
        fill(total)
        total.finish(1.0)
        wide = self._functions.backend.asarray(self._row, dtype=np.float64)
        self._sums[sample] += wide * wide

    def found(self, *, weight_decay: float) -> tuple[Array, Array | None]:
        """Mean over the samples, by the number of terms, and its standard error, None for a single sample."""
        scale = self._objective.scale(self.terms)
        mean = self._sums[0] * 0.0
        for sample in range(self.count):
            mean += self._sums[sample] * (scale / self.count)
        if self.count < 2:
            return mean + weight_decay, None
        spread = mean * 0.0
        for sample in range(self.count):
            spread += (self._sums[sample] * scale - mean) ** 2
        return mean + weight_decay, (spread / (self.count * (self.count - 1))) ** 0.5


def squared_gradients(
    objective: Objective, *, method: Literal["exact", "signs"] = "exact", num_samples: int | None = None, seed: int = 0,
    progress: Progress = None,
) -> DiagonalApproximation:  # fmt: skip
    r"""Diagonal of the empirical Fisher matrix, :math:`\frac1T \sum_n g_n^2`, from the gradients of single examples.

    It is what Adam's second moment stands for, and no approximation of the Hessian (Kunstner, Hennig and Balles, 2019).

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data; the loss must show its examples.
    method : {"exact", "signs"}
        ``"exact"`` takes a gradient of each example on its own. ``"signs"`` takes `num_samples` gradients of each batch in which examples
        have random signs: unbiased, with a relative standard error of an entry of about ``sqrt(2 / (samples * batches))``.
    num_samples : int, optional
        With ``"signs"``, 16 by default.
    seed : int
        Of the signs.
    progress : bool or callable, optional
        True shows a bar of examples.

    Returns
    -------
    DiagonalApproximation
        Weight decay has no part in it, as in ``objective.fisher("empirical")``.

    Raises
    ------
    TypeError
        When the loss does not show its examples.
    ValueError
        When an argument is wrong, or the loss of a batch is no sum over its examples.
    """
    if method not in ("exact", "signs"):
        raise ValueError(f"The argument method is {method!r}, but must be 'exact' or 'signs'.")
    if method == "exact" and (num_samples is not None or seed != 0):
        raise ValueError("The arguments num_samples and seed belong to method='signs'; leave them out for method='exact'.")
    require_all_parameters(objective, "this diagonal")
    require_examples(objective)
    _require_sum(objective)
    began = time.perf_counter()
    samples = 1 if method == "exact" else _whole("num_samples", 16 if num_samples is None else num_samples)

    def by_example(squares: _Squares, advance: Advance) -> None:
        functions, point = objective.functions, objective.point
        for example in _examples(objective):

            def gradient(total: Any, example: Batch = example) -> None:
                squares.terms += functions.add_gradient(point, example, total)[1]

            squares.add(0, gradient)
            advance(1)

    def by_signs(squares: _Squares, advance: Advance) -> None:
        functions, done = objective.functions, 0
        for batch in objective._pieces.batches():
            linearization = functions.linearize(objective.point, batch, num_products=samples)
            slope, count = linearization.loss_gradient(), objective.data.count(batch)
            flat = functions.flat_outputs(slope)
            if flat.size % count:
                raise ValueError(f"The outputs of a batch of {count} examples are {flat.size} numbers, which do not share out among them.")
            for sample in range(samples):
                signs = random_vector(
                    done + count, kind="sign", seed=seed, domain="squared gradients", index=sample, dtype=flat.dtype, start=done,
                    stop=done + count,
                )  # fmt: skip
                turned = functions.outputs_from(np.ascontiguousarray((flat.reshape(count, -1) * signs[:, None]).ravel()), slope)
                squares.add(sample, functools.partial(_add_vjp, linearization, turned))
            squares.terms += linearization.num_terms
            done += count
            advance(count)

    squares = _run(objective, samples, by_example if method == "exact" else by_signs, "squared gradients", progress)
    mean, error = squares.found(weight_decay=0.0)
    words = "a gradient of each example" if method == "exact" else f"{samples} gradients of each batch with random signs"
    return DiagonalApproximation(
        mean, _Like(objective), "squared_gradients", standard_error=error, method=words, seconds=time.perf_counter() - began
    )


def monte_carlo_ggn(
    objective: Objective, *, num_samples: int = 1, each: Each = "example", seed: int = 0, progress: Progress = None
) -> DiagonalApproximation:
    r"""Diagonal of the generalised Gauss-Newton matrix by squared gradients for targets drawn from the model, unbiased.

    Parameters
    ----------
    objective : Objective
        With a loss that is the negative logarithm of a known likelihood, see `Objective.fisher`.
    num_samples : int
        Targets that are drawn for each term.
    each : {"example", "batch"}
        ``"example"`` squares the gradient of each example: one small gradient for each and sample. With one term for each example it is
        the diagonal of ``objective.fisher("mc", num_samples=num_samples, seed=seed)``. ``"batch"`` squares the gradient of a whole batch:
        one gradient for each batch and sample, with a relative standard error of an entry of about ``sqrt(2 / (samples * batches))``
        (the Gauss-Newton-Bartlett estimate of Liu et al., 2023).
    seed : int
        Of the targets.
    progress : bool or callable, optional
        True shows a bar of examples.

    Returns
    -------
    DiagonalApproximation
        With weight decay, as in the Gauss-Newton matrix; with a standard error from two samples on.

    Raises
    ------
    TypeError
        When the loss is no negative logarithm of a known likelihood.
    ValueError
        When an argument is wrong.
    """
    if each not in get_args(Each):
        raise ValueError(f"The argument each is {each!r}, but must be 'example' or 'batch'.")
    require_all_parameters(objective, "this diagonal")
    samples = _whole("num_samples", num_samples)
    objective.fisher("mc", num_samples=samples, seed=seed)  # says what is wrong with the loss, the samples or the seed
    if each == "example":
        require_examples(objective)
        _require_sum(objective)
    began = time.perf_counter()

    def fill(squares: _Squares, advance: Advance) -> None:
        functions, start = objective.functions, 0
        for batch in _examples(objective) if each == "example" else objective._pieces.batches():
            linearization = functions.linearize(objective.point, batch, num_products=samples)
            squares.terms += linearization.num_terms
            outputs = linearization.outputs
            kind, shape = functions.noise_of(outputs, batch)
            count = math.prod(shape)
            for sample in range(samples):
                noise = random_numbers(kind, count, seed=seed, sample=sample, start=start).reshape(shape)
                slope = functions.sampled_gradient(outputs, batch, noise)
                squares.add(sample, functools.partial(_add_vjp, linearization, slope))
            start += count
            advance(objective.data.count(batch))

    squares = _run(objective, samples, fill, "Gauss-Newton diagonal", progress)
    mean, error = squares.found(weight_decay=objective.weight_decay)
    words = f"{samples} drawn target{'s' if samples > 1 else ''} for each term, squared by {each}"
    return DiagonalApproximation(
        mean, _Like(objective), "ggn_mc", standard_error=error, method=words, seconds=time.perf_counter() - began
    )


class _Like:
    """Backend and type of the vectors of an objective."""

    def __init__(self, objective: Objective) -> None:
        self.backend, self.dtype = objective.functions.backend, objective.dtype


def _add_vjp(linearization: Linearization, u: Outputs, total: Accumulator) -> None:
    total.add(linearization.vjp(u))


def _run(
    objective: Objective, samples: int, fill: Callable[[_Squares, Advance], None], description: str, progress: Progress
) -> _Squares:
    def compute() -> _Squares:
        squares = _Squares(objective, samples)
        with objective.functions.session(), ProgressBar(progress, objective.num_examples, description, unit="example") as bar:
            fill(squares, bar.advance)
        return squares

    return in_smaller_plans(compute, objective._pieces.retreat, objective._pieces.sentence)


def _examples(objective: Objective) -> Iterator[Batch]:
    """All examples one by one."""
    for batch in objective.batches():
        count = objective.data.count(batch)
        pieces = cut(objective.functions, batch, count, count)
        if len(pieces) < count:
            raise ValueError(
                f"A batch of {count} examples cannot be cut into single ones, because not all of its arrays have the examples along the "
                "first axis; pass batches of one example."
            )
        yield from pieces


def _require_sum(objective: Objective) -> None:
    """Raise where the loss of a batch is no sum of losses of its examples, judged on the first batch."""
    functions = objective.functions
    batch = next(iter(objective.batches()))
    count = objective.data.count(batch)
    with functions.session():
        mixed = count > 1 and not separable(functions, objective.point, batch, count)
    if mixed:
        objective.value()  # raises where halves differ because the loss is not finite
        raise ValueError(
            "The loss of a batch is no sum over its examples: halves of it give another sum, so that there is no gradient of a single "
            "example. Use approximate(..., 'diagonal', matrix='ggn'), which needs products alone."
        )


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"The argument {name} must be a whole number of at least 1, but is {value!r}.")
    return int(value)


__all__ = ["monte_carlo_ggn", "squared_gradients"]
