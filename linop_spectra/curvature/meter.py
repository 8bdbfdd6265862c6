"""One bar for work in several parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._progress import Progress, ProgressBar


class Meter:
    """A bar of products over several parts whose numbers are known beforehand; each part may count in its own steps."""

    def __init__(self, progress: Progress, plan: Sequence[int], description: str) -> None:
        self._plan, self._done = [int(part) for part in plan], [0] * len(plan)
        self._bar = ProgressBar(progress, sum(self._plan), description, unit="product")

    def __enter__(self) -> Meter:
        self._bar.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._bar.__exit__(*failure)

    def part(self, index: int) -> Callable[[int, int], None]:
        """A callback for one part."""

        def advance(done: int, total: int) -> None:
            self._to(index, self._plan[index] * done // max(total, 1))

        return advance

    def finish(self, index: int) -> None:
        """Say that a part is done."""
        self._to(index, self._plan[index])

    def _to(self, index: int, done: int) -> None:
        if done > self._done[index]:
            self._bar.advance(done - self._done[index])
            self._done[index] = done
