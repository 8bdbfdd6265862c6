"""Calling the command in this process, and files for it to work on."""
import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from linop_spectra.cli.main import main

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def sentence(self):
        """The only line on standard error; fails when there is more, or a traceback."""
        assert "Traceback" not in self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("linop-spectra: ") and lines[0].endswith((".", "]"))
        return lines[0]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run the command in-process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def start(tmp_path):
    """Start the command as a process of its own; what still runs at the end is killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    processes = []

    def call(*arguments, first=None):
        # Code that has to run in the process before the command does; no fork, which other libraries' threads may not like.
        code = f"{first}\nimport runpy; runpy.run_module('linop_spectra', run_name='__main__', alter_sys=True)"
        line = [sys.executable, *(["-c", code] if first else ["-m", "linop_spectra"]), *map(str, arguments)]
        process = subprocess.Popen(
            line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield call
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def matrix(tmp_path):
    """A dense symmetric matrix of order 120 with three outliers, as a file."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((120, 120)))
    dense = (q * np.concatenate([np.linspace(-1, 1, 117), [10.0, 15.0, 20.0]])) @ q.T
    path = tmp_path / "matrix.npz"
    np.savez(path, (dense + dense.T) / 2)
    return path


@pytest.fixture
def script(tmp_path):
    """Write a Python file and return its path."""

    def write(text, name="target.py"):
        path = tmp_path / name
        path.write_text("import numpy as np\nimport linop_spectra as ls\n" + text)
        return path

    return write
