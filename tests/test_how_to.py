"""Every how-to runs as it stands, prints the numbers that it states, and draws the picture that it shows."""
import pathlib
import re

import pytest

import linop_spectra as ls

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "how-to"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
# A block of code, and what it prints where the page says so.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
every_page = pytest.mark.parametrize("name", PAGES)


def last_place(number: str) -> float:
    """One unit of the last digit that is written."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def agree(printed: str, stated: str) -> bool:
    """The same words; numbers within ten per cent or one unit of the last place, for other machines round differently."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", stated).split():
        return False
    numbers = zip(NUMBER.findall(printed.replace(",", "")), NUMBER.findall(stated.replace(",", "")), strict=True)
    return all(abs(float(a) - float(b)) <= 0.1 * abs(float(b)) + 1.001 * last_place(b) for a, b in numbers)


@pytest.mark.parametrize(
    ("printed", "stated", "same"),
    [
        ("2 parts at 0.0823", "2 parts at 0.0822", True),
        ("log -6,590.1", "log -6,591.0", True),
        ("log 6590.1", "log -6590.1", False),
        ("floor 2e-12", "floor 3e-12", True),
        ("floor 2e-11", "floor 3e-12", False),
        ("two parts 2", "three parts 2", False),
        ("0.120", "0.105", False),
    ],
)
def test_comparison_of_outputs(printed, stated, same):
    assert agree(printed, stated) is same


def test_pages_are_there():
    assert {"graph-laplacian", "kernel-matrix", "finite-element-pair", "memory-mapped-array"} <= set(PAGES)


@every_page
def test_page_runs(name, tmp_path, monkeypatch, capsys):
    text = PAGES[name]
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") >= 3
    assert sum(bool(stated) for _, stated in blocks) == text.count("```text") >= 2
    if "matplotlib" in text or ".plot(" in text:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "how_to"}
    for code, stated in blocks:
        exec(compile(code, f"{name}.md", "exec"), scope)
        printed = capsys.readouterr().out
        if stated or printed:
            assert agree(printed, stated), f"{name}.md prints\n{printed}\nbut states\n{stated}"
    for picture in re.findall(r"\((?:\.\./images/)(howto_\w+\.png)\)", text):
        for folder in (tmp_path, ROOT / "docs" / "images"):
            assert (folder / picture).read_bytes().startswith(b"\x89PNG"), folder / picture


@every_page
def test_page_asks_answers_and_says_what_the_errors_mean(name):
    text = PAGES[name]
    assert re.match(r"# [^\n]+\?\n", text), "A how-to begins with the question that it answers."
    assert text.count("assert ") >= 4
    assert "\n## What the error bars mean here\n" in text
    assert max(len(line) for line in text.splitlines()) <= 140


@every_page
def test_page_uses_public_names_only(name):
    code = "\n".join(code for code, _ in BLOCK.findall(PAGES[name]))
    assert set(re.findall(r"\bls\.(\w+)", PAGES[name])) <= set(ls.__all__)
    assert re.findall(r"^.*linop_spectra.*$", code, re.MULTILINE) == ["import linop_spectra as ls"]


@every_page
def test_links_exist(name):
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[name]):
        assert "://" in target or (FOLDER / target).exists(), target
