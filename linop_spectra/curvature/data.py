"""The batches of an objective: read once and kept where they fit, otherwise read again and compared.

Curvature needs the same data for every product. Batches that fit the memory budget are therefore read once, and a loader that
shuffles or augments is frozen by that. Larger data are read again for each product under the random state of the first
time, and a checksum of each batch makes sure that they are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from .._memory import format_bytes


class DataHooks(Protocol):
    """What reading batches needs of a framework."""

    def prepare(self, raw: Any) -> Any:
        """A user's batch as arrays of the framework on the model's device."""

    def own(self, batch: Any) -> Any:
        """A copy that the user's later changes do not reach."""

    def num_examples(self, batch: Any) -> int:
        """Examples in a batch."""

    def num_bytes(self, batch: Any) -> int:
        """Memory of a batch."""

    def checksum(self, batch: Any) -> int:
        """A number that changes when the batch does."""

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        """Iterate under the random state of the objective's creation, leaving the caller's state alone."""


def refuse_one_shot(data: Any) -> None:
    """Raise unless `data` can be iterated more than once.

    Raises
    ------
    TypeError
        When `data` is a generator or another iterator, or no iterable at all.
    """
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise TypeError(
            f"The argument data is a {type(data).__name__}, but must be a tuple (inputs, targets) of two arrays, a re-iterable "
            "of batches such as a list or a DataLoader, or None for a loss of the parameters alone."
        )
    if hasattr(data, "__next__"):
        raise TypeError(
            f"The argument data is a one-shot iterator ({type(data).__name__}), but curvature reads the data many times; "
            "pass a re-iterable, for instance list(data) or the DataLoader itself."
        )


class ArraySource:
    """Inputs and targets as two arrays, handed out in slices.

    Parameters
    ----------
    inputs, targets : array
        The same number of examples along the first axis.
    batch_size : int or None
        Examples in a batch; None until the size is chosen, which hands out a single batch.
    """

    def __init__(self, inputs: Any, targets: Any, batch_size: int | None) -> None:
        if len(inputs) != len(targets):
            raise ValueError(
                f"The argument data has {len(inputs)} inputs but {len(targets)} targets; both need the same number of examples."
            )
        if len(inputs) == 0:
            raise ValueError("The argument data is empty: there are no examples; pass at least one.")
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        size = self.batch_size or len(self)
        for first in range(0, len(self), size):
            yield self.inputs[first : first + size], self.targets[first : first + size]


class BatchSizes:
    """Choices of batch sizes for one model, made once for each kind of example: mini-batches of a training are judged by the first.

    Parameters
    ----------
    choose : callable
        ``choose(point, batch) -> int``, given all examples in one batch.
    """

    def __init__(self, choose: Callable[[Any, Any], int]) -> None:
        self._choose = choose
        self._fitting: dict[tuple[Any, ...], int] = {}

    def of(self, source: ArraySource, point: Any, prepare: Callable[[Any], Any]) -> int:
        """The size for a source: all its examples where as many of their kind fitted before."""
        kind = tuple((tuple(getattr(x, "shape", ()))[1:], str(getattr(x, "dtype", ""))) for x in (source.inputs, source.targets))
        examples = len(source)
        if examples > self._fitting.get(kind, 0):
            size = self._choose(point, prepare((source.inputs, source.targets)))
            if size < examples:
                return size
            self._fitting[kind] = examples
        return examples


class Batches:
    """The prepared batches of an objective, in a fixed order.

    Parameters
    ----------
    source : iterable
        Batches as the user gave them; iterated again for every pass unless kept.
    hooks : DataHooks
        What the framework does to a batch.
    budget : int
        Bytes that may be kept.
    sizes : BatchSizes, optional
        For an `ArraySource` whose batch size is free: asked before the first pass.
    """

    def __init__(
        self, source: Iterable[Any], hooks: DataHooks, budget: int, sizes: BatchSizes | None = None
    ) -> None:
        self._source, self._hooks, self._budget = source, hooks, budget
        self._sizes = sizes
        self._kept: list[Any] | None = None
        self._checksums: list[int] | None = None
        self._num_examples: int | None = len(source) if isinstance(source, ArraySource) else None
        self._num_batches: int | None = None

    @classmethod
    def of(cls, batches: Sequence[Any], hooks: DataHooks) -> Batches:
        """Batches that are prepared already, kept as they are."""
        made = cls(batches, hooks, 0)
        made._finish(list(batches), len(batches), sum(hooks.num_examples(batch) for batch in batches))
        return made

    def plan(self, point: Any) -> None:
        """Choose the batch size where it is free, and make sure that the choice is made only once."""
        if self._sizes is not None and isinstance(self._source, ArraySource):
            self._source.batch_size = self._sizes.of(self._source, point, self._hooks.prepare)
        self._sizes = None

    @property
    def num_examples(self) -> int:
        """Examples in all batches; the first question may cost a pass over the data."""
        if self._num_examples is None:
            for _ in self:
                pass
        assert self._num_examples is not None
        return self._num_examples

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass; None before the first pass."""
        return self._num_batches

    @property
    def kept(self) -> bool:
        """Whether the batches are held in memory."""
        return self._kept is not None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._kept) if self._kept is not None else self._read()

    def _read(self) -> Iterator[Any]:
        hooks, known = self._hooks, self._checksums
        kept: list[Any] | None = [] if known is None else None
        checksums: list[int] = []
        size = examples = count = 0
        for raw in hooks.replay(self._source):
            batch = hooks.prepare(raw)
            if kept is not None:
                batch = hooks.own(batch)
                kept.append(batch)
                size += hooks.num_bytes(batch)
                if size > self._budget:
                    checksums, kept = [hooks.checksum(seen) for seen in kept], None
                    self._say_not_kept(size)
            else:
                checksums.append(hooks.checksum(batch))
                if known is not None and known[count : count + 1] != checksums[-1:]:
                    raise _changed(count)
            count, examples = count + 1, examples + hooks.num_examples(batch)
            yield batch
        if count == 0:
            raise ValueError("The argument data is empty: iterating it gave no batch; pass at least one.")
        if known is not None and count != len(known):
            raise _changed(count)
        self._finish(kept, count, examples)
        if kept is None:
            self._checksums = checksums

    def _finish(self, kept: list[Any] | None, count: int, examples: int) -> None:
        self._kept, self._num_batches, self._num_examples = kept, count, examples
        if kept is not None:
            self._source = ()  # the user's loader is needed no longer

    def _say_not_kept(self, size: int) -> None:
        if not isinstance(self._source, ArraySource | list | tuple):
            warnings.warn(
                f"The batches take more than the {format_bytes(self._budget)} of memory_budget that data may use, so they are "
                "read again for every product, always under the random state of the first time: shuffling and augmentation are "
                "frozen.",
                UserWarning,
                stacklevel=2,
            )

    def count(self, batch: Any) -> int:
        """Examples in one batch."""
        return self._hooks.num_examples(batch)


def _changed(index: int) -> ValueError:
    return ValueError(
        f"The data changed between two passes (first seen at batch {index}), so that products would belong to different "
        "matrices; pass data whose batches are the same each time, or a memory_budget that lets the first pass be kept."
    )
