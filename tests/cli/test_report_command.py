"""``report``: one page that needs nothing else, its JSON, and what happens where a part cannot be computed."""
import base64
import contextlib
import html.parser
import io
import json
import re
import sys

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.cli.main import main
from linop_spectra.cli.report_page import Section, render
from linop_spectra.cli.report_work import Extent

VOID = {"meta", "img", "br", "link", "hr", "input"}
NETWORK = (
    "import torch\n"
    "def make():\n"
    "    torch.manual_seed(0)\n"
    "    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()\n"
    "    data = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 3, (40,))\n"
    "    return ls.objective(model, 'cross_entropy', data)\n"
)


class Page(html.parser.HTMLParser):
    """A page as its tables, images and links; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tables, self.images, self.ids, self.anchors, self.outside, self.words = [], {}, [], [], [], [], []
        self._cell = None
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"an attribute twice in <{tag}>"
        for name in ("src", "href", "action", "data"):
            value = found.get(name, "")
            if value and not value.startswith(("data:image/png;base64,", "#")):
                self.outside.append(value)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.anchors.append(found["href"])
        if tag == "img":
            self.images.append(found)
        if tag == "table":
            self._table = self.tables[found["id"].removeprefix("table-")] = {"columns": [], "rows": []}
        if tag == "tr" and "tbody" in self.stack:
            self._table["rows"].append([])
        if tag in ("th", "td"):
            self._cell, self._exact, self._kind = "", found.get("data-value"), found["class"] if tag == "td" else ""
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> does not close what is open"
        if tag == "th":
            self._table["columns"].append(self._cell)
        elif tag == "td":
            self._table["rows"][-1].append((self._cell, self._exact, self._kind))
        if tag in ("th", "td"):
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data
        if not {"style", "script"} & set(self.stack):
            self.words.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One whole report of a network, for several tests: standard error, folder, page and JSON."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "target.py"
    path.write_text("import linop_spectra as ls\n" + NETWORK)
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        assert main(["report", f"{path}:make", "--out", str(folder / "out"), "--steps", "16", "--seed", "3"]) == 0, err.getvalue()
    numbers = json.loads((folder / "out" / "report.json").read_text())
    return err.getvalue(), folder / "out", Page((folder / "out" / "report.html").read_text()), numbers


@pytest.fixture
def without_figures(monkeypatch):
    """No matplotlib, which takes most of the time of a small report."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture
def report(command, tmp_path):
    """Run the command quickly; returns the outcome, the page and the JSON."""

    def call(target, *arguments):
        done = command("report", target, "--out", "out", "--steps", 16, *arguments)
        assert done.status == 0, done.err
        text = (tmp_path / "out" / "report.html").read_text()
        return done, Page(text), json.loads((tmp_path / "out" / "report.json").read_text())

    return call


@pytest.fixture
def network(script):
    pytest.importorskip("torch")
    return f"{script(NETWORK)}:make"


def check_page(page, numbers, path):
    text = path.read_text()
    assert page.outside == [] and "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    assert len(page.ids) == len(set(page.ids)) and {anchor[1:] for anchor in page.anchors} == set(numbers["sections"])
    assert page.images
    for image in page.images:
        content = base64.b64decode(image["src"].partition(",")[2], validate=True)
        assert content.startswith(b"\x89PNG") and image["alt"]
        matplotlib_image = pytest.importorskip("matplotlib.image")
        pixels = matplotlib_image.imread(io.BytesIO(content))
        assert pixels.ndim == 3 and pixels.std() > 0.01
    tables = {name: table for section in numbers["sections"].values() for name, table in section["tables"].items()}
    assert set(tables) == set(page.tables)
    for name, table in tables.items():
        shown = page.tables[name]
        assert shown["columns"] == table["columns"] and len(shown["rows"]) == len(table["rows"])
        for cells, row in zip(shown["rows"], table["rows"], strict=True):
            for (text, exact, kind), value in zip(cells, row, strict=True):
                if isinstance(value, (bool, str)):
                    assert text == (value if isinstance(value, str) else "yes" if value else "no")
                elif value is None:
                    assert exact == "" and text in ("–", "∞", "−∞")
                else:
                    assert float(exact) == value and "number" in kind
                    assert float(text.replace(",", "")) == pytest.approx(value, rel=1e-4, abs=1e-300)


def test_page_of_a_network(whole):
    err, folder, page, numbers = whole
    assert err == ""
    check_page(page, numbers, folder / "report.html")
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.json"}
    sections = numbers["sections"]
    assert list(sections) == ["model", "plan", "check", "spectra", "metrics", "blocks", "classes", "critique", "landscape", "again"]
    assert (numbers["status"], numbers["seed"], numbers["order"]) == ("complete", 3, 57)
    assert "--seed 3" in numbers["command"] and numbers["versions"]["linop-spectra"] == ls.__version__ and "torch" in numbers["versions"]
    assert sections["check"]["passed"] is True and sections["again"]["command"] == numbers["command"]


def test_numbers_are_those_of_the_matrix(whole):
    numbers = whole[3]
    namespace = {"ls": ls}
    exec(NETWORK, namespace)
    objective = namespace["make"]()
    eigenvalues = np.linalg.eigvalsh(objective.hessian().to_dense())
    sections = numbers["sections"]
    facts = dict(sections["model"]["tables"]["matrix"]["rows"])
    assert facts["parameters"] == 57 and facts["examples"] == 40 and facts["loss"] == pytest.approx(objective.value(), rel=1e-12)
    metrics = {row[0]: row for row in sections["metrics"]["tables"]["metrics"]["rows"]}
    assert metrics["largest_eigenvalue"][2] - 1e-9 <= eigenvalues[-1] <= metrics["largest_eigenvalue"][3] + 1e-9
    assert metrics["trace"][2] <= eigenvalues.sum() <= metrics["trace"][3]
    critique = {row[0]: row for row in sections["critique"]["tables"]["critique"]["rows"]}
    assert critique["trace"][1] == pytest.approx(eigenvalues.sum(), abs=1e-9)
    assert critique["frobenius norm"][1] == pytest.approx(np.linalg.norm(eigenvalues), rel=1e-9)
    layers = sections["blocks"]["tables"]["blocks"]["rows"]
    dense = objective.hessian().to_dense()
    for (name, order, trace, low, high, *_), place in zip(layers, (slice(0, 36), slice(36, 57)), strict=True):
        assert order == place.stop - place.start
        assert abs(np.trace(dense[place, place]) - trace) <= high - low + 1e-9, name  # about four standard errors
    values = [row[2] for row in sections["landscape"]["tables"]["directions"]["rows"]]
    np.testing.assert_allclose(values, eigenvalues[::-1][:2], rtol=1e-4)
    line = sections["landscape"]["line"]
    middle = len(line["distances"]) // 2
    assert line["distances"][middle] == 0 and line["loss"][0][middle] == pytest.approx(objective.value(), rel=1e-9)


def test_class_structure_of_a_classifier(whole):
    """Traces and eigenvalues of the parts beside dense matrices, a picture for each matrix, and the map of the means."""
    _, folder, _, numbers = whole
    namespace = {"ls": ls}
    exec(NETWORK, namespace)
    objective = namespace["make"]()
    structure = objective.class_structure()
    section = numbers["sections"]["classes"]
    assert section["omitted"] == {}
    rows = {row[0].split(",")[0].split(" ")[0]: row for row in section["tables"]["decomposition"]["rows"]}
    assert list(rows) == ["Hessian", "Gauss-Newton", "residual", "A₁", "A₂", "B₁", "B₂"]
    for key, matrix in {"Hessian": objective.hessian(), "Gauss-Newton": objective.ggn(), "residual": objective.residual(),
                        "A₁": structure.A1, "A₂": structure.A2, "B₁": structure.B1, "B₂": structure.B2}.items():  # fmt: skip
        eigenvalues = np.linalg.eigvalsh(matrix.to_dense())
        _, trace, low, high, _, _, largest, _ = rows[key]
        margin = 1e-9 if low == high else high - low  # 95 % and more
        assert abs(trace - eigenvalues.sum()) <= margin and largest == pytest.approx(eigenvalues[-1], rel=1e-3)
    assert rows["A₁"][2] == rows["A₁"][3]  # exact
    gram = section["tables"]["largest_eigenvalues"]
    place = gram["columns"].index("A1+A2+B1, inner products")
    dense = (structure.A1 + structure.A2 + structure.B1).to_dense()
    np.testing.assert_allclose([row[place] for row in gram["rows"]], np.linalg.eigvalsh(dense)[::-1][: len(gram["rows"])], atol=1e-9)
    classes = section["tables"]["classes"]["rows"]
    means = np.asarray(structure.class_means())
    np.testing.assert_allclose([row[5] for row in classes], np.linalg.norm(means, axis=1), rtol=1e-9)
    assert sum(row[1] for row in classes) == 40
    text = (folder / "report.html").read_text()
    part = text[text.index('<section id="classes">') :]
    assert part[: part.index("</section>")].count("<img ") == 8
    assert "all 40 examples" in part and f"{section['num_matvecs']:,} products" in part


@pytest.mark.usefixtures("without_figures")
def test_class_structure_of_a_regression_says_why_not(report, script):
    pytest.importorskip("torch")
    path = script(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return ls.objective(torch.nn.Linear(3, 2).double(), 'mse', (torch.randn(9, 3).double(), torch.randn(9, 2).double()))\n"
    )
    _, page, numbers = report(f"{path}:make", "--quick")
    why = numbers["sections"]["classes"]["omitted"]["the class structure"]
    assert "softmax cross-entropy" in why and why.endswith(".") and why in "".join(page.words)
    assert numbers["sections"]["classes"]["num_matvecs"] == 0


def test_without_scikit_learn_the_map_says_so(monkeypatch, network):
    from linop_spectra.cli.report_classes import _draw_means
    from linop_spectra.cli.report_work import Work
    from linop_spectra.cli.target import load_target

    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    section, work = Section("classes", "Class structure"), Work(load_target(network), Extent.of(8, False), 0)
    _draw_means(work, section, work.objective.class_structure())
    assert [part.kind for part in section.parts[:1]] == ["note"] and "scikit-learn" in section.parts[0].text
    assert len(section.parts) == 2 and not section.omitted  # the map is there all the same


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("matrix_name", ["hessian", "ggn"])
def test_products_of_each_section_are_those_of_the_operators(network, monkeypatch, matrix_name):
    """What the page states, against the counters of all operators that were made, and the passes of the class means."""
    from linop_spectra.cli import report as module
    from linop_spectra.cli.report_work import Work
    from linop_spectra.cli.target import load_target
    from linop_spectra.curvature.class_means import ClassMeans
    from linop_spectra.curvature.matrices import CurvatureOperator
    from linop_spectra.curvature.output_space import OutputSpace, OutputSpaceOperator

    made, passes = [], []
    begin, push, combine = CurvatureOperator.__init__, OutputSpace.push, ClassMeans.combinations

    def making(self, *args, **options):
        begin(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(CurvatureOperator, "__init__", making)
    monkeypatch.setattr(OutputSpace, "push", lambda self, x, *rest: passes.append(x.shape[1]) or push(self, x, *rest))
    monkeypatch.setattr(ClassMeans, "combinations", lambda self, classes, rows: passes.append(len(rows)) or combine(self, classes, rows))
    work = Work(load_target(network, matrix_name), Extent.of(8, False), 0)

    def spent():
        """Whole products; those with a batch of the sixteen as their share, and parts of G as the passes that they are."""
        of_data = sum(
            one.num_matvecs * (1.0 if one.objective.num_examples == 40 else 1 / 16 if one.objective.num_examples > 1 else 1.0)
            for one in made if not isinstance(one, OutputSpaceOperator)
        )  # fmt: skip
        return of_data + sum(passes)

    sums = {}

    def watched(compute):
        def call(work, section, progress):
            before = spent()
            compute(work, section, progress)
            sums[section.key] = (spent() - before, section)
        return call

    plan = [(section, watched(compute), weight, measures) for section, compute, weight, measures in module.planned(work)]
    monkeypatch.setattr(module, "planned", lambda _: plan)
    sections, _ = module.measure(work, None)
    assert len(sums) == len(sections) == 9 and sum(section.num_matvecs for section in sections) > 200
    for key, (found, section) in sums.items():
        if key != "check":  # which makes one of its five products on a small part of the data
            assert section.num_matvecs == pytest.approx(found, abs=0.5), key


@pytest.mark.usefixtures("without_figures")
def test_same_seed_same_numbers(report, network):
    def without_times(numbers):
        for section in numbers["sections"].values():
            del section["seconds"]
            for key in [key for key in section if key.startswith("spectrum_")]:
                section[key].pop("seconds")
        for table in ("plan", "again"):
            del numbers["sections"][table]
        return numbers

    first, second = (without_times(report(network, "--quick")[2]) for _ in range(2))
    assert first == second


def test_matrix_without_a_model(report, matrix, tmp_path):
    _, page, numbers = report(matrix)
    check_page(page, numbers, tmp_path / "out" / "report.html")
    assert list(numbers["sections"]) == ["model", "plan", "check", "spectra", "metrics", "critique", "again"]
    metrics = {row[0]: row for row in numbers["sections"]["metrics"]["tables"]["metrics"]["rows"]}
    assert metrics["spectral_norm"][1] == pytest.approx(20, abs=1e-6) and metrics["trace"][2] <= 45 <= metrics["trace"][3]
    outliers = numbers["sections"]["spectra"]["tables"]["matrix_outliers"]["rows"]
    assert sorted(round(row[0], 6) for row in outliers) == [10, 15, 20]
    assert "Metrics" in "".join(page.words) and "Loss along" not in "".join(page.words)


@pytest.mark.usefixtures("without_figures")
def test_ggn_of_an_objective(report, network):
    _, _, numbers = report(network, "--operator", "ggn", "--quick")
    assert numbers["matrix"] == "ggn" and "spectrum_ggn" in numbers["sections"]["spectra"]
    assert "spectrum_hessian" not in numbers["sections"]["spectra"]
    metrics = {row[0]: row for row in numbers["sections"]["metrics"]["tables"]["metrics"]["rows"]}
    assert metrics["smallest_eigenvalue"][3] > -1e-9


@pytest.mark.usefixtures("without_figures")
def test_a_part_that_does_not_apply_says_so(report, script):
    pytest.importorskip("torch")
    path = script(
        "import torch\n"
        "def make():\n"
        "    model = torch.nn.Linear(3, 2).double()\n"
        "    loss = ls.BatchLoss(lambda model, batch: (sum((p ** 4).sum() for p in model.parameters()), 1))\n"
        "    return ls.objective(model, loss, None)\n"
    )
    _, page, numbers = report(f"{path}:make", "--quick")
    omitted = numbers["sections"]["spectra"]["omitted"]["the spectrum of the Gauss-Newton matrix"]
    assert omitted.endswith(".") and omitted in "".join(page.words)
    assert numbers["sections"]["landscape"]["tables"]["directions"]["rows"]


def test_names_are_escaped(report, script, tmp_path):
    pytest.importorskip("torch")
    path = script(
        "import torch\n"
        "class Odd(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layers = torch.nn.ModuleDict({'<b>&\"x': torch.nn.Linear(3, 2).double()})\n"
        "        self.register_parameter('<script>alert(1)</script>', torch.nn.Parameter(torch.ones(2, dtype=torch.float64)))\n"
        "    def forward(self, x):\n"
        "        return self.layers['<b>&\"x'](x) + getattr(self, '<script>alert(1)</script>')\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return ls.objective(Odd(), 'mse', (torch.randn(9, 3).double(), torch.randn(9, 2).double()))\n"
    )
    _, page, numbers = report(f"{path}:make", "--quick")
    check_page(page, numbers, tmp_path / "out" / "report.html")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<b>" not in text and text.count("<script>") == 1 and "alert(1)" in "".join(page.words)
    assert 'layers.<b>&"x.weight' in [row[0][0] for row in page.tables["parameters"]["rows"]]


def test_quiet_prints_nothing(command, matrix):
    done = command("report", matrix, "--quick", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.usefixtures("without_figures")
def test_prints_what_each_section_took(command, matrix):
    done = command("report", matrix, "--quick")
    assert done.status == 0 and "report-output" in done.out
    for name in ("Check of the operator", "Metrics", "What the diagonal loses"):
        assert re.search(rf"^{name} +[\d,]+ products", done.out, re.MULTILINE)


def test_missing_target_is_one_sentence(command, script, tmp_path):
    path = script("def make():\n    return np.eye(3)\n")
    done = command("report", f"{path}:absent", "--out", "out")
    assert done.status == 2 and "absent" in done.sentence and not (tmp_path / "out").exists()


def test_nothing_is_written_when_no_product_works(command, script, tmp_path):
    path = script(
        "def make():\n"
        "    def product(x):\n"
        "        raise RuntimeError('the disk is on fire')\n"
        "    return ls.aslinearoperator(product, shape=(80, 80), dtype=float, hermitian=True)\n"
    )
    done = command("report", f"{path}:make", "--out", "out")
    assert done.status == 2 and "the disk is on fire" in done.sentence and "line 5" in done.sentence
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("without_figures")
def test_an_operator_that_fails_its_check_raises_the_alarm(command, script, tmp_path):
    path = script("def make():\n    return ls.aslinearoperator(np.triu(np.ones((50, 50))), hermitian=True)\n")
    done = command("report", f"{path}:make", "--out", "out", "--quick")
    assert done.status == 0 and "did not pass its check" in done.sentence and "symmetry" in done.sentence
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["sections"]["check"]["passed"] is False
    assert 'class="alarm"' in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("without_figures")
def test_without_matplotlib_the_tables_are_there(command, matrix, tmp_path):
    done = command("report", matrix, "--out", "out", "--quick")
    assert done.status == 0
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("pip install linop-spectra[plot]" in why for why in numbers["sections"]["spectra"]["omitted"].values())
    assert numbers["sections"]["metrics"]["tables"]["metrics"]["rows"]


def test_an_interrupt_keeps_the_sections_that_are_done(command, script, tmp_path):
    path = script(
        "import signal\n"
        "d = np.concatenate([np.linspace(-1, 1, 297), [10.0, 15.0, 20.0]])\n"
        "count = [0]\n"
        "def product(x):\n"
        "    count[0] += 1\n"
        "    if count[0] == 121:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    return d * x\n"
        "def make():\n"
        "    return ls.aslinearoperator(product, shape=(300, 300), dtype=float, hermitian=True)\n"
    )
    done = command("report", f"{path}:make", "--quick", "--out", "out")
    assert done.status == 130 and "Traceback" not in done.err and "nterrupted" in done.err
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["status"] == "interrupted" and numbers["sections"]["metrics"]["tables"]
    assert "interrupted" in numbers["sections"]["critique"]["omitted"]["this section"]
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "interrupted before it was complete" in "".join(page.words)


def test_an_interrupt_before_any_result_writes_nothing(command, script, tmp_path):
    path = script(
        "import signal\n"
        "def product(x):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    return 2 * x\n"
        "def make():\n"
        "    return ls.aslinearoperator(product, shape=(300, 300), dtype=float, hermitian=True)\n"
    )
    done = command("report", f"{path}:make", "--out", "out")
    assert done.status == 130 and "nothing was written" in done.sentence
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("kind", ["matrix", "network"])
def test_progress_only_grows_and_ends_at_the_total(kind, request):
    from linop_spectra.cli.report import measure
    from linop_spectra.cli.report_work import Work
    from linop_spectra.cli.target import load_target

    calls = []
    work = Work(load_target(str(request.getfixturevalue(kind))), Extent.of(16, kind == "matrix"), 0)
    sections, interrupted = measure(work, lambda done, total: calls.append((done, total)))
    assert not interrupted and all(section.seconds >= 0 for section in sections)
    done = [one for one, _ in calls]
    assert done == sorted(done) and len({total for _, total in calls}) == 1 and calls[-1][0] == calls[-1][1]
    assert len(done) > 20  # products, not only sections


def test_page_of_odd_values():
    section = Section("odd", "Odd & <values>")
    section.table("t", ("a", "b"), [(1, None), (float("inf"), np.float64(0.5)), (float("nan"), np.int64(2))])
    section.text("1 < 2", "note")
    page = Page(render("<title>", "sub & title", [section]))
    assert [cell[1] for row in page.tables["t"]["rows"] for cell in row] == ["1", "", "", "0.5", "", "2"]
    assert section.to_json()["tables"]["t"]["rows"] == [[1, None], [None, 0.5], [None, 2]]
    assert section.to_json()["notes"] == ["1 < 2"] and "Odd & <values>" in page.words
