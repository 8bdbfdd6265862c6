"""Samplers that decide after a pilot: what is asked of them goes to the sampler in use, and products of the pilot stay in use."""

from __future__ import annotations

import abc
from typing import Any


class AfterPilot(abc.ABC):
    """Another sampler's face; to stand before the base class of the samplers.

    Attributes
    ----------
    spent : int
        Products so far that count.
    """

    spent: int
    _current: Any

    @abc.abstractmethod
    def _better(self) -> Any:
        """A sampler to go on with, made of the products of the pilot; None to stay."""

    def advance(self, limit: int) -> int:
        """A block of the method of choice, which is made after the first one."""
        better = self._better()
        if better is not None:
            better.spent = self.spent
            better.take_over(self._current)
        sampler = self._current if better is None else better
        taken: int = sampler.advance(limit)  # where this fails, what the pilot found is kept
        self._current, self.spent = sampler, sampler.spent
        return taken

    @property
    def method(self) -> Any:
        """Of the sampler in use."""
        return self._current.method

    @property
    def unit(self) -> Any:
        """Of the sampler in use."""
        return self._current.unit

    @property
    def doubling(self) -> Any:
        """Of the sampler in use."""
        return self._current.doubling

    @property
    def rounding(self) -> Any:
        """Of the sampler in use."""
        return self._current.rounding

    def found(self) -> Any:
        """What the sampler in use knows."""
        return self._current.found()
