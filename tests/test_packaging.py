"""What an installed copy holds, and that the links at the root of the repository stay harmless."""
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(*arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("linop_spectra", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("backends", "adapters"):
        (source / name).symlink_to(pathlib.Path("linop_spectra") / name)
    built = run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), cwd=source)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_only_the_package(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == {"linop_spectra"}


def test_wheel_holds_every_module_and_the_type_marker(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "linop_spectra").rglob("*.py")}
    assert modules <= set(wheel.namelist())
    assert "linop_spectra/py.typed" in wheel.namelist()


def test_wheel_names_the_command_and_the_licence(wheel):
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "linop-spectra = linop_spectra.cli.main:run" in wheel.read(entry).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.parametrize("name", ["backends", "adapters"])
def test_root_link_refuses_import_in_one_sentence(name):
    assert (ROOT / name).is_symlink() and (ROOT / name).readlink() == pathlib.Path("linop_spectra") / name
    refused = run("-c", f"import {name}", cwd=ROOT)
    assert refused.returncode != 0
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and f"linop_spectra.{name}" in last


def test_import_is_light():
    heavy = "{'torch', 'jax', 'tensorflow', 'keras', 'cupy', 'cupyx', 'matplotlib', 'tqdm', 'sklearn'}"
    code = (
        f"import sys, linop_spectra; print(sorted({heavy} & {{name.split('.')[0] for name in sys.modules}} - before))\n"
        "assert 'scipy.stats' not in sys.modules, 'A quarter of the time of an import.'"
    )
    done = run("-c", "import numpy, scipy, sys; before = {name.split('.')[0] for name in sys.modules}; " + code, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stderr


def test_plots_import_nothing_else_of_the_library():
    for path in (ROOT / "linop_spectra" / "plots").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "from .." not in text and "import linop_spectra" not in text.replace(">>> import linop_spectra", "")
