"""Progress bars: silent unless asked for, tqdm imported only then."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

Progress = bool | Callable[[int, int], None] | None


class ProgressBar:
    """Context manager around a tqdm bar or a user's callback ``progress(done, total)``.

    Parameters
    ----------
    progress : bool, callable or None
        True shows a tqdm bar (a widget in a notebook), a callable is called after every step, None and False are silent.
    total : int
        Number of steps.
    description : str
        Text before the bar.
    unit : str
        What is counted.
    """

    def __init__(self, progress: Progress, total: int, description: str, *, done: int = 0, unit: str = "step") -> None:
        self._callback = progress if callable(progress) else None
        self._done, self._total = done, total
        self._bar: Any = None
        if progress is True:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, initial=done, desc=description, unit=unit, dynamic_ncols=True)

    def __enter__(self) -> ProgressBar:
        return self

    def advance(self, steps: int = 1) -> None:
        """Say that `steps` more are done."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)
        if self._callback is not None:
            self._callback(self._done, self._total)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
