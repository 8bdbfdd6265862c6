"""The batches of an objective side by side: their losses, gradients, and products with their Hessians."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from ..._progress import ProgressBar
from ...backends import Array
from ...estimators.sampling import NonFiniteEstimateError, NonFiniteProduct, multiply
from ...operators import LinearOperator
from ..objective import Objective

PARTS = 16
"""Random parts that data in a single batch are cut into."""


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSet:
    """The batches of an objective, each an objective of its own, with what they weigh.

    Attributes
    ----------
    whole : Objective
        All batches.
    parts : tuple of Objective
        One for each batch, without weight decay, which is the same in all.
    examples : numpy.ndarray
        Examples of each batch, shape (K,).
    sizes : numpy.ndarray
        Weight of each batch in the mean over all, in examples: proportional to the terms of its loss (tokens that are not masked,
        elements), which is the number of its examples where all have equally many; shape (K,).
    losses : numpy.ndarray
        Loss of each batch, shape (K,), without weight decay.
    """

    whole: Objective
    parts: tuple[Objective, ...]
    examples: np.ndarray
    sizes: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, objective: Objective, what: str) -> BatchSet:
        """The batches; one forward pass.

        Raises
        ------
        ValueError
            When there are fewer than two.
        """
        parts = objective.per_batch()
        if len(parts) < 2:
            raise ValueError(
                f"The {what} compares batches, but the objective has only {len(parts)} of them; make it with a smaller batch_size "
                "(at most half of the "
                f"{objective.num_examples} examples), or pass data in several batches."
            )
        functions = objective.functions
        sums, terms = _loss_sums(objective)
        examples = np.array([part.num_examples for part in parts], dtype=np.float64)
        weights = np.array(terms if functions.averages else examples, dtype=np.float64)
        if not (weights > 0).all():
            raise ValueError(
                f"The {what} compares batches, but batch {int(np.argmin(weights > 0))} has no terms (every position masked); leave "
                "it out of the data."
            )
        data = tuple(dataclasses.replace(part, weight_decay=0.0) for part in parts)
        losses = np.array(sums) / weights * (1.0 if functions.averages else float(examples.sum()))
        if not np.isfinite(losses).all():
            raise ValueError(
                f"The {what} compares batches, but the loss of batch {int(np.argmin(np.isfinite(losses)))} is not finite; look for NaN or "
                "infinity in its data."
            )
        sizes = weights * (float(examples.sum()) / float(weights.sum()))
        return cls(objective, data, examples, sizes, losses)

    @property
    def factors(self) -> np.ndarray:
        """What the matrix and the gradient of each batch are multiplied by to be those of a mean, shape (K,)."""
        if self.whole.functions.averages:
            return np.ones(len(self.parts))
        # A loss that is a sum: the batch stands for all examples.
        return float(self.examples.sum()) / self.examples

    @property
    def size(self) -> float:
        """Size of the largest batch, to which variances refer."""
        return float(self.sizes.max())

    def losses_at(self, parameters: Array) -> np.ndarray:
        """Loss of each batch at other parameters, without weight decay, shape (K,); one forward pass.

        Raises
        ------
        ValueError
            When one is not finite.
        """
        sums, terms = _loss_sums(self.whole.with_parameters(parameters))
        losses = np.array(sums) / (np.array(terms) if self.whole.functions.averages else self.sizes / self.sizes.sum())
        if not np.isfinite(losses).all():
            raise ValueError("The loss of a batch is not finite at parameters nearby, so that its sampling error is not defined.")
        return losses

    @property
    def relative(self) -> np.ndarray:
        """Sizes in units of the largest batch, shape (K,)."""
        return self.sizes / self.size

    @functools.cached_property
    def first(self) -> LinearOperator:
        """Hessian of the first batch, for shapes and types."""
        return self.parts[0].hessian()

    @functools.cached_property
    def gradients(self) -> list[Array]:
        """Gradient of the loss of each batch."""
        both = zip(self.parts, self.factors, strict=True)
        return [part.gradient() if factor == 1.0 else float(factor) * part.gradient() for part, factor in both]

    def products(self, rows: Array, progress: ProgressBar | None = None, matrix: str = "hessian") -> list[Array]:
        """``H_b`` times rows, one array of rows for each batch; or the product with another matrix of the objective, by its name.

        What a batch keeps for its products is let go before the next one: all of them together may not fit.

        Raises
        ------
        NonFiniteEstimateError
            When one holds NaN or infinity.
        """
        found = []
        for index, (part, factor) in enumerate(zip(self.parts, self.factors, strict=True)):
            try:
                own, _ = multiply(getattr(part, matrix)(), rows, index * rows.shape[0])
            except NonFiniteProduct as error:
                raise NonFiniteEstimateError(f"{error} of a batch.", None, index * rows.shape[0]) from error
            if factor != 1.0:
                own *= float(factor)
            found.append(own)
            if progress is not None:
                progress.advance()
        return found

    def mean(self, arrays: list[Array]) -> Array:
        """Weighted mean over the batches."""
        weights = self.sizes / self.sizes.sum()
        total = float(weights[0]) * arrays[0]
        for weight, own in zip(weights[1:], arrays[1:], strict=True):
            total += float(weight) * own
        return total

    def squares(self, arrays: list[Array]) -> np.ndarray:
        """Squared distances of rows from their weighted mean, shape (K, rows)."""
        backend, mean = self.whole.functions.backend, self.mean(arrays)
        out = np.empty((len(arrays), mean.shape[0]))
        for index, own in enumerate(arrays):
            difference = own - mean
            out[index] = np.real(backend.fetch([backend.norm(difference[i, :]) for i in range(mean.shape[0])]))
        return out**2


def _loss_sums(objective: Objective) -> tuple[list[float], list[float]]:
    """Summed loss and number of terms of each batch."""
    functions, sums, terms = objective.functions, [], []
    with functions.session():
        for batch in objective.batches():
            total, own = functions.loss_sum(objective.point, batch)
            sums.append(total)
            terms.append(own)
    return sums, terms


def in_parts(objective: Objective, seed: int, count: int = PARTS) -> Objective:
    """The same objective with a single batch cut into random parts; others, and batches that cannot be cut, are left as they are."""
    functions, whole = objective.functions, list(objective.batches())
    size = objective.num_examples
    if len(whole) != 1 or size < 2 * count or functions.example_refusal is not None:
        return objective
    order = np.random.default_rng(seed).permutation(size)
    parts = [functions.take(whole[0], np.sort(indices)) for indices in np.array_split(order, count)]
    if any(part is None for part in parts):
        return objective
    return dataclasses.replace(objective, data=functions.sequence(parts))
