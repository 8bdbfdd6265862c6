"""Figures of loss surfaces: what is drawn is what was measured."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

import linop_spectra as ls
import linop_spectra.landscape as landscape
from linop_spectra.plots import landscape as figures

T = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
QUADRATIC = 1 + 0.5 * T + T**2


def by_gid(ax, gid):
    return next((artist for artist in ax.findobj(lambda a: a.get_gid() == gid)), None)


def line(loss=QUADRATIC, **fields):
    made = {"evaluated": np.ones(np.shape(loss), dtype=bool), "direction": np.ones(3), "labels": ("top",), "metrics": {}}
    return landscape.Line(distances=T, loss=np.asarray(loss, dtype=float), **made | fields)


def plane(**fields):
    xs, ys = np.linspace(-1, 1, 7), np.linspace(-2, 1, 5)
    loss = 1 + xs[None, :] ** 2 + 3 * ys[:, None] ** 2
    made = {"evaluated": np.ones(loss.shape, dtype=bool), "directions": np.eye(3)[:, :2], "labels": ("u", "v"), "metrics": {"m": -loss}}
    return landscape.Plane(**{"xs": xs, "ys": ys, "loss": loss} | made | fields)


def test_a_line_with_everything():
    loss = QUADRATIC + 0.1 * T**3
    result = line(
        loss, held_out_loss=loss + 1, value=1.0, slope=np.array(0.5), curvature=np.array(2.0), metrics={"accuracy": T / 4},
        held_out_metrics={"accuracy": T / 5},
    )  # fmt: skip
    ax = figures.loss_line(result)
    np.testing.assert_array_equal(by_gid(ax, "measured 0").get_xydata(), np.stack([T, loss], axis=1))
    np.testing.assert_array_equal(by_gid(ax, "held out 0").get_ydata(), loss + 1)
    x, y = by_gid(ax, "quadratic 0").get_data()
    np.testing.assert_allclose(y, 1 + 0.5 * x + x**2)
    assert by_gid(ax, "quadratic 0").get_linestyle() == "--" and ax.get_yscale() == "linear"
    texts = {text.get_text() for text in ax.get_legend().get_texts()}
    assert texts == {"loss", "held-out loss", "quadratic model"} and ax.get_title(loc="left") == "top"
    other = figures.loss_line(result, quantity="accuracy")
    np.testing.assert_array_equal(by_gid(other, "held out 0").get_ydata(), T / 5)
    assert by_gid(other, "quadratic 0") is None and other.get_ylabel() == "accuracy"
    with pytest.raises(ValueError, match="quantity is 'error', but there is only 'loss', 'accuracy'"):
        figures.loss_line(result, quantity="error")


def test_several_lines_in_colours_of_their_own_and_sorted():
    order = np.array([3, 0, 5, 1, 4, 2])
    loss = np.stack([QUADRATIC, 2 * QUADRATIC])
    mixed = landscape.Line(
        distances=T[order], loss=loss[:, order], evaluated=np.ones((2, 6), dtype=bool), direction=np.ones((3, 2)), labels=("a", "b"),
        metrics={}, value=1.0, slope=np.zeros(2), curvature=np.array([2.0, 4.0]),
    )  # fmt: skip
    ax = mixed.plot()
    drawn = [by_gid(ax, f"measured {i}") for i in range(2)]
    for row, artist in zip(loss, drawn, strict=True):
        np.testing.assert_array_equal(artist.get_ydata(), row)
    assert drawn[0].get_color() != drawn[1].get_color()
    assert [by_gid(ax, f"quadratic {i}").get_color() for i in range(2)] == [artist.get_color() for artist in drawn]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "quadratic model"]


def test_what_is_missing_shows():
    loss = np.where(T > 0.6, np.nan, QUADRATIC)
    ax = figures.loss_line(line(loss))
    np.testing.assert_array_equal(by_gid(ax, "not finite").get_xdata(), [1.0, 2.0])
    part = line(loss, evaluated=T < 0.6, status="time budget")
    ax = figures.loss_line(part)
    assert by_gid(ax, "not finite") is None and "time budget spent: 66 %" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.loss_line(line(np.full(6, np.nan)))


def test_scales():
    wide = line(10.0 ** T)
    assert figures.loss_line(wide).get_yscale() == "log"
    assert figures.loss_line(wide, scale="linear").get_yscale() == "linear"
    assert figures.loss_line(line(), scale="log").get_yscale() == "log"
    with pytest.raises(ValueError, match="not positive"):
        figures.loss_line(line(T), scale="log")
    with pytest.raises(ValueError, match="'auto', 'linear' or 'log'"):
        figures.loss_line(line(), scale="root")


def test_contours_of_a_plane_with_its_model_and_a_path():
    result = plane(value=1.0, slope=np.zeros(2), curvature=np.diag([2.0, 6.0]))
    path = np.array([[0.9, -1.5], [0.3, -0.5], [0.0, 0.0]])
    ax = figures.loss_contour(result, trajectory=path)
    np.testing.assert_array_equal(by_gid(ax, "trajectory").get_xydata(), path)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xlim(), ax.get_ylim()) == ("u", "v", (-1.0, 1.0), (-2.0, 1.0))
    assert by_gid(ax, "centre") is not None
    filled = next(c for c in ax.collections if getattr(c, "filled", False))
    assert filled.levels[0] == pytest.approx(result.loss.min()) and filled.levels[-1] == pytest.approx(result.loss.max())
    found = landscape.Trajectory(np.eye(3)[:, :2], np.array([0.9, 0.1]), path, np.zeros(3), ("u", "v"))
    np.testing.assert_array_equal(by_gid(result.plot(trajectory=found), "trajectory").get_xydata(), path)
    other = landscape.Trajectory(np.eye(3)[:, 1:], np.array([0.9, 0.1]), path, np.zeros(3), ("u", "v"))
    with pytest.raises(ValueError, match="another plane"):
        figures.loss_contour(result, trajectory=other)
    with pytest.raises(ValueError, match=r"\(T, 2\)"):
        figures.loss_contour(result, trajectory=np.ones(4))
    steep = plane()
    steep = plane(loss=np.exp(4 * steep.loss / steep.loss.max()) * 1e-3, metrics={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.loss_contour(steep).figure.canvas.draw()
        figures.loss_contour(plane(loss=np.where(steep.loss > 0.01, np.nan, steep.loss))).figure.canvas.draw()
        figures.loss_contour(plane(loss=np.full((5, 7), 2.0))).figure.canvas.draw()
        figures.loss_contour(result, quantity="m").figure.canvas.draw()
    with pytest.raises(ValueError, match="two points or more"):
        figures.loss_contour(plane(ys=np.zeros(1), loss=np.ones((1, 7)), evaluated=np.ones((1, 7), dtype=bool)))


def test_surface(tmp_path):
    result = plane(value=1.0, slope=np.zeros(2), curvature=np.diag([2.0, 6.0]))
    ax = result.plot(tmp_path / "surface.png", kind="surface")
    assert (tmp_path / "surface.png").read_bytes().startswith(b"\x89PNG")
    assert ax.get_zlim() == (pytest.approx(result.loss.min()), pytest.approx(result.loss.max()))
    own = Figure().add_subplot(projection="3d")
    assert figures.loss_surface(plane(loss=np.where(result.loss > 5, np.nan, result.loss)), own) is own
    with pytest.raises(ValueError, match="projection='3d'"):
        figures.loss_surface(result, Figure().add_subplot())
    with pytest.raises(ValueError, match="'contour' or 'surface'"):
        result.plot(kind="globe")


def test_slices():
    found = landscape.slices(ls.diagonal_operator(np.r_[np.zeros(199), np.ones(20)]), 30)
    ax = found.plot()
    x, y = by_gid(ax, "law").get_data()
    assert np.all(y >= 0) and np.trapezoid(y, x) == pytest.approx(1, abs=0.03)
    assert np.trapezoid(x * y, x) == pytest.approx(found.predicted_mean, rel=0.03)
    assert "p =" in ax.get_title(loc="left") and "largest eigenvalue" in ax.get_title(loc="left")
    figures.slices(landscape.slices(ls.identity(30), 4)).figure.canvas.draw()


def test_given_axes_are_used():
    axes = Figure().subplots(1, 3)
    assert figures.loss_line(line(), axes[0], title="Loss", legend=False) is axes[0] and axes[0].get_title(loc="left") == "Loss"
    assert figures.loss_contour(plane(), axes[1]) is axes[1]
    found = landscape.slices(ls.diagonal_operator(np.arange(40.0)), 5)
    assert figures.slices(found, axes[2], title="Slices") is axes[2]
