"""Several spectra side by side, all on the same axes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .spectrum import spectrum
from .style import new_figure
from .view import View


def spectra(results: Mapping[str, Any], axes: Any = None, *, columns: int = 2, confidence: float = 0.95) -> np.ndarray:
    """Draw several spectra as small multiples with the same scales and limits, so that they can be compared by eye.

    Parameters
    ----------
    results : mapping of str to SpectralDensity
        What to draw, by the title of its panel.
    axes : array of matplotlib.axes.Axes, optional
        One for each result; axes of a new figure by default.
    columns : int
        Panels in a row of a new figure.
    confidence : float
        Level of the bands.

    Returns
    -------
    numpy.ndarray
        The axes in the order of `results`, shape (len(results),).

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When there is nothing to draw, or the number of axes does not fit.
    """
    if not results:
        raise ValueError("The argument results is empty; pass at least one spectrum.")
    if axes is None:
        columns = min(columns, len(results))
        rows = -(-len(results) // columns)
        grid = new_figure(5.2 * columns, 3.5 * rows).subplots(rows, columns, squeeze=False).ravel()
        for empty in grid[len(results) :]:
            empty.remove()
        panels = grid[: len(results)]
    else:
        panels = np.array(axes, dtype=object).ravel()
        if len(panels) != len(results):
            raise ValueError(f"The argument axes holds {len(panels)} axes for {len(results)} spectra; pass one for each.")
    view = functools.reduce(View.union, (View.of(result) for result in results.values()))
    for panel, (title, result) in zip(panels, results.items(), strict=True):
        spectrum(result, panel, title=title, confidence=confidence, view=view)
    if axes is None:
        # The figure is ours alone: scales are shared, so labels between the panels would only repeat.
        for inner in panels[0].figure.axes:
            inner.label_outer()
    return panels
