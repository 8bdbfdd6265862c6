"""Every notebook runs in a fresh kernel, without a word on standard error, and draws its pictures; what is stored is what it draws."""
import ast
import base64
import copy
import importlib.util
import io
import pathlib
import re

import pytest

import linop_spectra as ls

nbformat = pytest.importorskip("nbformat", reason="the notebooks need nbformat")
pytest.importorskip("nbclient", reason="the notebooks need nbclient")
pytest.importorskip("ipykernel", reason="the notebooks need ipykernel")
pytest.importorskip("matplotlib", reason="the notebooks draw pictures")
Image = pytest.importorskip("PIL.Image", reason="the pictures are stored by way of pillow")

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "notebooks"
NEEDED = {"pytorch": ("torch", "sklearn"), "jax": ("jax", "flax", "optax", "sklearn"), "keras": ("keras", "tensorflow", "sklearn")}
every_notebook = pytest.mark.parametrize("name", NEEDED)

_spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def pictures(notebook):
    found = [output.data["image/png"] for output in execute.outputs(notebook) if "image/png" in output.get("data", {})]
    return [base64.b64decode(picture) for picture in found]


def complaints(notebook):
    """What a reader should not meet in outputs: standard error, errors and warnings."""
    found = []
    for output in execute.outputs(notebook):
        data = output.get("data", {})
        text = output.get("text", "") + data.get("text/plain", "") + data.get("text/html", "")
        if output.output_type == "error" or output.get("name") == "stderr" or re.search(r"warning|traceback", text, re.IGNORECASE):
            found.append(output)
    return found


def shared_numbers(notebook):
    """What the cell prints that has the same weights in every framework."""
    (cell,) = [cell for cell in code_cells(notebook) if "ls.eigsh(matrix" in cell.source]
    text = printed(cell)
    assert [line.split()[0] for line in text.splitlines()] == ["loss", "Hessian", "Gauss-Newton", "A1"]
    return [float(number) for number in re.findall(r"\d+\.\d{10}\b", text)]


def check_verdicts(notebook):
    """Training changed the spectrum; measuring it once more did not."""
    (cell,) = [cell for cell in code_cells(notebook) if "ls.compare(" in cell.source]
    trained, twice = printed(cell).splitlines()
    assert trained.startswith("start and end: The two spectra are different")
    assert twice.startswith("end, measured twice: The two spectra are not distinguishable")


def notebook_of(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def test_there_is_a_notebook_for_each_framework():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NEEDED)


@pytest.mark.slow
@pytest.mark.timeout(900)
@every_notebook
def test_notebook_runs_without_a_complaint_and_draws(name, tmp_path, monkeypatch):
    for flags in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):  # of the other tests: here it is as a reader has it
        monkeypatch.delenv(flags, raising=False)
    missing = [package for package in NEEDED[name] if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"the notebook {name}.ipynb needs {', '.join(missing)}, which is not installed")
    stored, ran = execute.read(name), execute.run(copy.deepcopy(execute.read(name)), tmp_path)
    assert complaints(ran) == []
    assert len(pictures(ran)) == len(pictures(stored)) >= 8
    for picture in pictures(ran):
        with Image.open(io.BytesIO(picture)) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(image.width * image.height)) > 20, "The picture is empty."
    assert shared_numbers(ran) == pytest.approx(shared_numbers(stored), abs=2e-10)
    check_verdicts(ran)
    # Every cell of code that prints here prints in what is stored, and the other way round.
    for mine, kept in zip(code_cells(ran), code_cells(stored), strict=True):
        assert bool(printed(mine)) == bool(printed(kept))


@every_notebook
def test_stored_notebook_is_whole_and_tidy(name):
    path = FOLDER / f"{name}.ipynb"
    text, notebook = path.read_text(encoding="utf-8"), execute.read(name)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert 12 <= len(code_cells(notebook)) <= 24
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert len(pictures(notebook)) >= 8
    assert complaints(notebook) == []
    check_verdicts(notebook)
    readable = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/home/|/root/|/tmp/|/work/|site-packages|[A-Z]:\\\\|0x[0-9a-f]{8}", readable)
    again = execute.normalise(copy.deepcopy(notebook))
    assert (again.metadata, [cell.id for cell in again.cells]) == (notebook.metadata, [cell.id for cell in notebook.cells])
    assert all(cell.metadata == {} for cell in notebook.cells)


@every_notebook
def test_cells_are_plain_python_with_public_names(name):
    for cell in code_cells(execute.read(name)):
        ast.parse(cell.source)
        assert max(len(line) for line in cell.source.splitlines()) <= 140
        assert set(re.findall(r"\bls\.(\w+)", cell.source)) <= set(ls.__all__)


@every_notebook
def test_prose_names_what_exists(name):
    for cell in execute.read(name).cells:
        if cell.cell_type == "markdown":
            assert set(re.findall(r"`ls\.(\w+)", cell.source)) <= set(ls.__all__)
            for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
                assert "://" in target or (FOLDER / target).exists(), target


def test_all_frameworks_are_asked_the_same_questions():
    def headings(name):
        return re.findall(r"^## .*$", "\n".join(c.source for c in execute.read(name).cells if c.cell_type == "markdown"), re.MULTILINE)

    assert headings("pytorch") == headings("jax") == headings("keras")
    assert len(headings("pytorch")) >= 10


def test_the_same_weights_have_the_same_curvature_in_every_framework():
    first, second, third = (shared_numbers(execute.read(name)) for name in NEEDED)
    assert len(first) == 10
    assert first == pytest.approx(second, abs=2e-10)
    assert first == pytest.approx(third, abs=2e-10)


def test_stored_trainings_reach_the_edge_of_stability():
    for name in NEEDED:
        (table,) = [printed(cell) for cell in code_cells(execute.read(name)) if "recorder.evolution)" in cell.source]
        rows = [[float(number) for number in line.split()] for line in table.splitlines()[1:-1]]
        largest, threshold = [row[3] for row in rows], rows[0][-1]
        # It starts below, overshoots while the oscillation is still small, and is thrown back to the edge.
        assert largest[0] < threshold < max(largest)
        assert all(abs(value - threshold) < 0.15 * threshold for value in largest[-4:])


def test_a_warning_is_a_complaint_and_an_error_raises(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    aside = "import sys\nprint('aside', file=sys.stderr)"
    notebook = notebook_of("print('quiet')", "import warnings\nwarnings.warn('loud')", aside, "1 / 0")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        execute.run(notebook, tmp_path)
    quiet, *loud = code_cells(notebook)
    assert printed(quiet) == "quiet\n"
    assert complaints(notebook) == [output for cell in loud for output in cell.outputs]
    assert [len(cell.outputs) for cell in loud] == [1, 1, 1]
