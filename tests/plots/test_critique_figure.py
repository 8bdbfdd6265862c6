"""The critique as a picture: every number and verdict of the table is in it."""

import dataclasses

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from linop_spectra.approximations import approximate, critique
from linop_spectra.plots.critique import SHADES
from linop_spectra.plots.critique import critique as draw
from linop_spectra.plots.style import number
from linop_spectra.results import Estimate

MATRIX = np.diag(np.r_[5.0, np.linspace(0.1, 1, 19)]) + 0.05


def table():
    named = {"one": approximate(MATRIX, "diagonal"), "with quite a long name that does not fit": approximate(MATRIX, "scalar")}
    return critique(MATRIX, named, gradient=np.ones(20), loss=lambda step: float(np.sum(step) + 0.5 * step @ MATRIX @ step))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_row_is_drawn():
    result = table()
    ax = draw(result, title="What is lost")
    shown = texts(ax)
    for property in result.properties:
        assert property.replace("_", " ") in shown
    for row in result.rows:
        assert any(text.split(" (")[0] == number(row.approximation) for text in shown), row
        assert row.verdict in shown
    cells = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert len(cells) == len(result.rows)
    expected = sorted(SHADES[row.verdict].lower() for row in result.rows)
    assert sorted(to_hex(cell.get_facecolor()) for cell in cells) == expected
    assert {"matrix", "one", "random basis"} <= set(shown) and any(text.endswith("…") for text in shown)
    assert ax.get_title() == "What is lost"
    assert any("(off " in text for text in shown)  # the actual decrease differs between the two


def test_text_stays_inside_its_cell():
    result = table()
    ax = result.plot()
    figure = ax.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in ax.texts if text.get_text()]
    outer = ax.get_window_extent(renderer)
    assert all(box.x0 >= outer.x0 - 2 and box.x1 <= outer.x1 + 2 for box in boxes)
    overlaps = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert overlaps == 0


def test_the_longest_cell_has_a_gap():
    """A small negative number, an error beyond all measure and the longest verdict stand apart in one cell."""
    result = table()
    longest = [dataclasses.replace(row, estimate=Estimate(-1.23e-5), verdict="meaningless", relative_error=1e4) for row in result.rows]
    ax = draw(dataclasses.replace(result, rows=tuple(longest)))
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in ax.texts}
    lefts = [box for text, box in boxes.items() if "> 999 %" in text.get_text()]
    assert len(lefts) >= 2
    for left in lefts:
        verdicts = [box for text, box in boxes.items() if text.get_text() == "meaningless" and abs(box.y0 - left.y0) < left.height]
        gap = min(box.x0 - left.x1 for box in verdicts if box.x0 > left.x0)
        assert gap > 0.05 * ax.figure.dpi


def test_own_axes_and_files(tmp_path):
    ax = Figure().add_subplot()
    result = table().of("one")
    assert result.plot(tmp_path / "table.png", ax=ax) is ax
    assert (tmp_path / "table.png").stat().st_size > 1000
