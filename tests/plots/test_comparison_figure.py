"""The figure of a comparison shows the curves that it was given."""

from types import SimpleNamespace

import numpy as np
import pytest

from linop_spectra.plots.comparison import spectrum_comparison

X = np.linspace(-1, 1, 50)


def result(**changes):
    curves = {"x": X, "cdf_band": np.full(50, 0.02), "outliers_a": np.array([0.95, 7.0]), "outliers_b": np.array([-5.0])}
    for side, scale in (("a", 1.0), ("b", 1.1)):
        density = scale * np.exp(-(X**2))
        curves |= {f"density_{side}": density, f"low_{side}": 0.9 * density, f"high_{side}": 1.1 * density}
        curves[f"cdf_{side}"] = scale * (X + 1) / 3
    return SimpleNamespace(**{"distinguishable": True, "p_value": 0.002, "curves": curves, **changes})


def artist(ax, gid):
    (found,) = ax.findobj(lambda a: a.get_gid() == gid)
    return found


def test_curves_band_and_outliers():
    left, right = spectrum_comparison(result(), names=("before", "after"))
    assert artist(left, "density b").get_ydata().tolist() == (1.1 * np.exp(-(X**2))).tolist()
    np.testing.assert_allclose(artist(right, "difference").get_ydata(), 0.1 * (X + 1) / 3, atol=1e-15)
    assert artist(right, "band").get_paths()[0].vertices[:, 1].max() == pytest.approx(0.02)
    assert artist(left, "outliers a").get_xdata().tolist() == [0.95, 1.0]  # the far one stands at the end
    assert sorted(text.get_text() for text in left.texts) == ["1 beyond", "1 beyond"]
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert texts == ["before: 2 outliers", "after: 1 outlier"] and "different, p = 0.002" in left.get_title(loc="left")


def test_what_lies_beyond_is_counted_beside_the_markers():
    left = spectrum_comparison(result())[0]
    left.figure.canvas.draw()
    for text in left.texts:
        box = text.get_window_extent()
        for side in "ab":
            for x, y in left.transData.transform(artist(left, f"outliers {side}").get_xydata()):
                assert not box.contains(x, y)


def test_verdict_and_axes():
    panels = spectrum_comparison(result(distinguishable=False, p_value=0.4))
    assert "not distinguishable" in panels[0].get_title(loc="left")
    assert "10⁻⁴" in spectrum_comparison(result(p_value=0.0))[0].get_title(loc="left")
    with pytest.raises(ValueError, match="two panels"):
        spectrum_comparison(result(), panels[:1])
    panels[0].figure.canvas.draw()
