"""What draws returns what a notebook shows: through the formatter of IPython, which is what a cell's last line goes through."""
import io
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeSpectrum
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import linop_spectra as ls
from linop_spectra import plots
from linop_spectra.plots.figure import SCREEN_DPI, Panels
from linop_spectra.plots.goldilocks import goldilocks

FAKE = FakeSpectrum(np.random.default_rng(0).normal(0.0, 0.5, 300), (5.0, 40.0))
SPIKED = ls.diagonal_operator(np.r_[np.linspace(-1, 1, 200), 9.0])
DENSITY = ls.spectral_density(SPIKED, num_steps=20)


def shown(value):
    formatters = pytest.importorskip("IPython.core.formatters", reason="the formatter of a notebook is IPython's")
    return formatters.DisplayFormatter().format(value)[0].get("image/png")


def pixels(picture):
    image = pytest.importorskip("PIL.Image", reason="the pictures are read by pillow").open(io.BytesIO(picture))
    return image.size, len(image.convert("RGB").getcolors(image.width * image.height))


@pytest.mark.parametrize("draw", [
    lambda: plots.spectrum(FAKE), lambda: DENSITY.plot(), lambda: DENSITY.log().plot(), lambda: DENSITY.plot().figure,
    lambda: plots.spectra({"one": FAKE, "two": FAKE}), lambda: plots.spectra({"one": FAKE}),
    lambda: ls.compare(DENSITY, DENSITY, num_bootstrap=19).plot(), lambda: ls.compare(DENSITY, DENSITY, num_bootstrap=19).plot()[0],
    lambda: ls.random_matrices.compare(DENSITY, ls.random_matrices.Semicircle(), num_bootstrap=19).plot(),
    lambda: ls.critique(SPIKED, ["diagonal"], num_steps=20).plot(),
    lambda: plots.decomposition(SimpleNamespace(densities={"A1": DENSITY}, titles={"A1": "A1"}, markers={})),
    lambda: plots.decomposition(SimpleNamespace(densities={"A1": DENSITY, "B1": DENSITY}, titles={"A1": "A1", "B1": "B1"}, markers={})),
], ids=["function", "density", "log", "figure", "grid", "grid of one", "comparison", "panel of it", "law", "critique", "one row",
        "decomposition"])  # fmt: skip
def test_a_picture_is_the_last_line_of_a_cell(draw):
    size, colours = pixels(shown(draw()))
    assert min(size) > 100 and colours > 20


def test_a_scan_of_radii_is_shown_too():
    numbers, shares = np.array([0.5, 1.0, 2.0]), np.array([0.2, 0.5, 0.9])
    scan = SimpleNamespace(
        radii=numbers, ratios=numbers, ratio_errors=0.1 * numbers, plane_ratios=numbers, plane_errors=0.1 * numbers, plane_dimension=4,
        positive_shares=shares, positive_errors=0.1 * shares, dimensions=(4, 8), losses=np.outer(numbers, [1.0, 0.5]), start_losses=numbers,
        num_steps=10, metrics={"accuracy": np.outer(shares, [1.0, 0.5])},
    )  # fmt: skip
    axes = goldilocks(scan)
    assert axes.shape == (3,) and pixels(shown(axes))[1] > 20


def test_a_surface_is_shown_too():
    plane = ls.landscape.plane(quadratic(), np.eye(3, 2), xs=np.linspace(-1, 1, 5))
    for kind in ("contour", "surface"):
        assert pixels(shown(plane.plot(kind=kind)))[1] > 20


def quadratic():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 1, bias=False)
    return ls.objective(model, "mse", (torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(20, 1)))


def test_the_picture_is_as_large_as_the_figure_in_inches():
    ax = plots.spectrum(FAKE)
    assert pixels(shown(ax))[0] == tuple((ax.figure.get_size_inches() * SCREEN_DPI).round())
    assert ax.figure.dpi > SCREEN_DPI, "Showing changed the figure."


def test_what_is_added_later_is_shown():
    ax = plots.spectrum(FAKE)
    before = shown(ax)
    ax.axvline(1.0, color="magenta", linewidth=5)
    after = shown(ax)
    assert after != before and shown(ax.figure) == after


def test_axes_of_the_caller_stay_as_they_are():
    """A figure of pyplot is shown by pyplot: shown by us as well it would come twice."""
    ax = Figure().add_subplot()
    assert plots.spectrum(FAKE, ax) is ax and shown(ax) is None
    pair = Figure().subplots(1, 2)
    assert shown(ls.compare(DENSITY, DENSITY, num_bootstrap=19).plot(axes=pair)) is None


def test_axes_are_axes_and_arrays_are_arrays():
    ax, grid = plots.spectrum(FAKE), plots.spectra({"one": FAKE, "two": FAKE})
    assert isinstance(ax, Axes) and isinstance(grid, np.ndarray) and grid.shape == (2,) and all(isinstance(one, Axes) for one in grid)
    assert shown(grid[:0]) is None and isinstance(grid[1:], Panels) and shown(grid[1:]) == shown(grid)
    near = plots.spectrum(FakeSpectrum(FAKE.bulk, (3.0,)))
    assert pixels(shown(pickle.loads(pickle.dumps(near)))) == pixels(shown(near))


def test_drawing_and_showing_leave_pyplot_and_the_style_alone():
    """In a new process, which also shows that matplotlib comes with the first picture only."""
    code = (
        "import sys; sys.path.insert(0, 'tests/plots'); import numpy as np; from fakes import FakeSpectrum\n"
        "import linop_spectra.plots.law; from linop_spectra import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import matplotlib; before = matplotlib.rcParams.copy()\n"
        "fake = FakeSpectrum(np.linspace(-1, 1, 90), (5.0,))\n"
        "plots.spectra({'a': fake})[0].figure.canvas.draw(); plots.spectrum(fake)._repr_png_()\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams.copy() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
