"""What a report shows in a notebook, and a layer in a line."""
import re

import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402


@pytest.fixture(scope="module")
def report():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    x = torch.randn(24, 3).double()
    return ls.curvature_report(ls.objective(model, "mse", (x, x[:, :2]), batch_size=6), extra=["logits"])


def test_a_notebook_shows_metrics_layers_batches_and_what_was_left_out(report):
    html = report._repr_html_()
    for words in ("top vector", "batch size", "left out: "):
        assert words in html
    layers = re.search(r"<pre>(layer.*?)</pre>", html, re.DOTALL).group(1)
    assert [line.split()[0] for line in layers.splitlines()[1:]] == [row.name for row in report.layers] == ["0", "2"]
    assert all(name in html for name in [*report, *report.omitted]) and report.omitted
    assert "<table>" in html and "<pre>" in html and html.count("<pre>") == html.count("</pre>")


def test_a_layer_is_a_line(report):
    first = report.layers[0]
    line = str(first)
    assert line.startswith("0: 16 parameters, trace ") and "\n" not in line and len(line) < 140
    assert f"{first.energy:.1%} of the squared Frobenius norm" in line and f"{first.trace.value:.4g}" in line
