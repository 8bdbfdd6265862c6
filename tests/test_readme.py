"""Every Python example of the README runs as it stands."""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_python_block_is_found():
    assert len(BLOCKS) == README.count("```python") >= 3


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[title for title, _ in BLOCKS])
def test_example_runs(code, tmp_path, monkeypatch, capsys):
    for package in ("torch", "jax", "keras"):
        if f"import {package}" in code:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()
    for name in re.findall(r'plot\("([^"]+)"\)', code):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_of_curvature_matrices_runs(capsys):
    pytest.importorskip("torch")
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "curvature.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(compile(code, "curvature.md", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out.split("\n")[:2] == ["True", "['0', '2']"]


def test_the_page_of_questions_runs_and_names_what_exists(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    import linop_spectra as ls

    page = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(compile(code, "analysis.md", "exec"), {"__name__": "docs"})
    assert "newton_step_cosine" in capsys.readouterr().out and (tmp_path / "plane.png").exists()
    assert set(re.findall(r"`ls\.(\w+)", page)) <= set(ls.__all__)


def test_the_page_of_optimisers_runs_and_names_what_exists(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    import linop_spectra as ls

    page = (ROOT / "docs" / "optimisers.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    exec(compile(code, "optimisers.md", "exec"), {"__name__": "docs"})
    assert "complete" in capsys.readouterr().out
    table = page[page.index("## The methods") : page.index("The steps alone")]
    named = set(re.findall(r"`(\w+)`[,| ]", table))
    public = {name: getattr(ls.optim, name) for name in ls.optim.__all__ if name != "Optimizer"}
    assert named == {name for name, value in public.items() if isinstance(value, type) and issubclass(value, ls.optim.Optimizer)}


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target
