"""Random states of the host, frozen while a user's data or model is run again."""

from __future__ import annotations

import abc
import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np


class FrozenRandomState(abc.ABC):
    """The random states that data or a model may draw from, as they were at the creation of this object.

    Parameters
    ----------
    data : object
        A loader whose own generators are included.
    is_generator : callable
        Whether an object is a generator that is included.
    """

    def __init__(self, data: Any, is_generator: Callable[[Any], bool]) -> None:
        places = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
        found = [getattr(place, "generator", None) for place in places]
        self._generators: list[Any] = list({id(g): g for g in found if is_generator(g)}.values())
        self._frozen = self._read()

    def _read(self) -> tuple[Any, ...]:
        return (
            np.random.get_state(),  # noqa: NPY002 -- the user's code may draw from the global state
            random.getstate(),
            self._read_framework(),
            [generator.get_state() for generator in self._generators],
        )

    def _write(self, state: tuple[Any, ...]) -> None:
        np.random.set_state(state[0])  # noqa: NPY002
        random.setstate(state[1])
        self._write_framework(state[2])
        for generator, saved in zip(self._generators, state[3], strict=True):
            generator.set_state(saved)

    @abc.abstractmethod
    def _read_framework(self) -> Any:
        """State of a framework's own generators."""

    @abc.abstractmethod
    def _write_framework(self, state: Any) -> None:
        """Put that state back."""

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Run under the state of this object's creation; the caller's state is untouched."""
        outside = self._read()
        self._write(self._frozen)
        try:
            yield
        finally:
            self._write(outside)

    def replay(self, source: Iterable[Any]) -> Iterator[Any]:
        """Iterate `source` under the state of this object's creation, which is in force only while an item is made."""
        inside = self._frozen
        iterator: Iterator[Any] | None = None
        while True:
            outside = self._read()
            self._write(inside)
            try:
                if iterator is None:
                    iterator = iter(source)
                item = next(iterator)
            except StopIteration:
                return
            finally:
                inside = self._read()
                self._write(outside)
            yield item


class HostRandomState(FrozenRandomState):
    """The global random states of NumPy and Python, and of torch where a program has imported it for its loaders."""

    def __init__(self, data: Any = None) -> None:
        self._torch: Any = sys.modules.get("torch")
        super().__init__(data, lambda generator: self._torch is not None and hasattr(generator, "get_state"))

    def _read_framework(self) -> Any:
        return None if self._torch is None else self._torch.get_rng_state()

    def _write_framework(self, state: Any) -> None:
        if self._torch is not None:
            self._torch.set_rng_state(state)
