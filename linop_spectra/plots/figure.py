"""Figures that notebooks show: a picture is the last line of a cell, whether that is the figure, its axes or an array of them.

Only this file imports matplotlib at its top; it is imported where a figure is made. Pyplot is left out, so that there is no global state:
a figure is shown by the hook that notebooks ask every object for, and is freed with its last reference.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

SCREEN_DPI = 96
"""Pixels for each inch on a page; files that ``savefig`` writes have the figure's own, finer resolution."""


class NotebookFigure(Figure):
    r"""A figure that shows itself in a notebook, and whose axes do, alone or as an array.

    Examples
    --------
    >>> left, right = axes = NotebookFigure(figsize=(4, 2)).subplots(1, 2)
    >>> all(shown._repr_png_()[:4] == b"\x89PNG" for shown in (left.figure, left, axes))
    True
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SCREEN_DPI)
        return buffer.getvalue()

    def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
        """As in the parent class; the axes, of any projection, are shown as their figure."""
        axes: Any = super().add_subplot(*args, **kwargs)
        axes._repr_png_ = self._repr_png_
        return axes

    def subplots(self, *args: Any, **kwargs: Any) -> Any:
        """As in the parent class; an array of axes is shown as their figure."""
        axes = super().subplots(*args, **kwargs)
        return axes.view(Panels) if isinstance(axes, np.ndarray) else axes


class Panels(np.ndarray):
    """An array of axes that a notebook shows as their figure."""

    def _repr_png_(self) -> bytes | None:
        figure = getattr(self.flat[0], "figure", None) if self.size else None
        return figure._repr_png_() if isinstance(figure, NotebookFigure) else None
