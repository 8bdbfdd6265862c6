"""Bad input gets one full sentence naming argument, finding and fix; exit status 2; never a traceback."""
import re
import sys

import numpy as np
import pytest
import scipy.sparse as sparse


@pytest.mark.parametrize(
    "target, parts",
    [
        ("absent.py:make", ["TARGET", "absent.py", "no such file"]),
        ("absent_module_xyz:make", ["TARGET", "absent_module_xyz"]),
        ("absent.mtx", ["TARGET", "absent.mtx", "no such file"]),
        ("something", ["TARGET", "something", "file.py:factory"]),
        (":make", ["TARGET", "':make'"]),
        ("file.py:", ["TARGET", "'file.py:'"]),
    ],
)
def test_target_not_found(command, target, parts):
    done = command("spectrum", target)
    assert done.status == 2 and all(part in done.sentence for part in parts)


def test_factory_not_found_names_those_that_exist(command, script):
    done = command("spectrum", f"{script('def make(): return np.eye(3)')}:absent")
    assert done.status == 2 and "'absent'" in done.sentence and "make" in done.sentence


@pytest.mark.parametrize(
    "body, parts",
    [
        ("return None", ["NoneType", "Objective"]),
        ("return 'hello'", ["str", "LinearOperator"]),
        ("return lambda x: x", ["function", "shape"]),
        ("return np.ones(5)", ["ndarray", "(5,)"]),
        ("return np.ones((3, 4))", ["(3, 4)", "square"]),
        ("return np.triu(np.ones((30, 30)))", ["ymmetric"]),
    ],
)
def test_factory_returns_no_operator(command, script, body, parts):
    done = command("spectrum", f"{script(f'def make():{chr(10)}    {body}{chr(10)}')}:make")
    assert done.status == 2 and all(part in done.sentence for part in parts)


def test_operator_wrongly_called_symmetric(command, script):
    path = script(
        "def make():\n"
        "    skew = np.random.default_rng(0).standard_normal((200, 200))\n"
        "    return ls.aslinearoperator(skew, hermitian=True)\n"
    )
    done = command("spectrum", f"{path}:make", "--steps", 20)
    assert done.status == 2 and re.search("symmetric|Hermitian", done.sentence)


def test_factory_that_fails_names_the_users_line(command, script):
    path = script("def load(path):\n    return open(path)\ndef make():\n    load('weights.pt')\n")
    done = command("spectrum", f"{path}:make")
    assert done.status == 2
    for part in ("'make'", "line 4", "FileNotFoundError", "weights.pt", str(path)):
        assert part in done.sentence


@pytest.mark.parametrize(
    "text, part",
    [("def make(:\n", "SyntaxError"), ("raise RuntimeError('no gpu')\n", "no gpu"), ("import nowhere_xyz\n", "nowhere_xyz")],
)
def test_file_that_cannot_be_loaded(command, script, text, part):
    done = command("spectrum", f"{script(text)}:make")
    assert done.status == 2 and part in done.sentence and "line 3" in done.sentence


def test_factory_with_arguments(command, script):
    done = command("spectrum", f"{script('def make(width): return np.eye(width)')}:make")
    assert done.status == 2 and "width" in done.sentence and "default" in done.sentence


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--steps", "0"], ["--steps", "0"]),
        (["--steps", "-3"], ["--steps", "-3"]),
        (["--steps", "many"], ["--steps", "'many'"]),
        (["--probes", "0"], ["--probes", "0"]),
        (["--probes", "some"], ["--probes", "'some'"]),
        (["--seed", "-1"], ["--seed", "-1"]),
        (["--time-budget", "soon"], ["--time-budget", "'soon'"]),
        (["--time-budget", "0"], ["--time-budget", "'0'"]),
        (["--operator", "ggn"], ["--operator", "'ggn'", "Objective"]),
        (["--operator", "other"], ["--operator", "other"]),
        (["--unknown"], ["--unknown", "--help"]),
        (["--checkpoint", "nowhere/run.ckpt"], ["--checkpoint", "nowhere"]),
        (["--checkpoint", "."], ["--checkpoint", "folder"]),
    ],
)
def test_argument_that_does_not_fit(command, matrix, arguments, parts):
    done = command("spectrum", matrix, *arguments)
    assert done.status == 2 and all(part in done.sentence for part in parts)


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["spectrum"]])
def test_command_that_does_not_fit(command, arguments):
    assert command(*arguments).status == 2


@pytest.mark.parametrize("name", ["bad.mtx", "bad.mtx.gz", "bad.npz"])
def test_damaged_matrix_file(command, tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no matrix\n")
    done = command("spectrum", name)
    assert done.status == 2 and name in done.sentence and "cannot be read" in done.sentence


def test_archive_with_several_arrays(command, tmp_path):
    np.savez(tmp_path / "two.npz", a=np.eye(3), b=np.eye(3))
    done = command("spectrum", "two.npz")
    assert done.status == 2 and "2 arrays" in done.sentence and "'a'" in done.sentence


def test_pickled_archive_is_not_opened(command, tmp_path):
    np.savez(tmp_path / "objects.npz", np.array([{}, {}], dtype=object))
    done = command("spectrum", "objects.npz")
    assert done.status == 2 and "objects.npz" in done.sentence


def test_matrix_that_is_not_square_or_not_symmetric(command, tmp_path):
    sparse.save_npz(tmp_path / "wide.npz", sparse.random_array((20, 30), density=0.2, rng=0).tocsr())
    done = command("spectrum", "wide.npz")
    assert done.status == 2 and "(20, 30)" in done.sentence and "square" in done.sentence
    sparse.save_npz(tmp_path / "skew.npz", sparse.random_array((30, 30), density=0.2, rng=0).tocsr())
    done = command("spectrum", "skew.npz")
    assert done.status == 2 and re.search("symmetric|Hermitian", done.sentence)


@pytest.mark.parametrize("place", ["file.txt", "file.txt/inside"])
def test_output_that_cannot_be_a_folder(command, matrix, tmp_path, place):
    (tmp_path / "file.txt").write_text("in the way")
    done = command("spectrum", matrix, "--out", place)
    assert done.status == 2 and place in done.sentence and "--out" in done.sentence
    assert (tmp_path / "file.txt").read_text() == "in the way"


def test_disk_that_fills_up(tmp_path, matrix, start):
    """A limit on the size of files stands for a full disk: writing fails in the middle of a file."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))"
    process = start("spectrum", matrix, "--out", "out", first=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err
    assert "cannot be written" in err and "spectrum.png" in err
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".part", ".png")]


def test_traceback_on_request(command, script):
    path = script("def make():\n    raise RuntimeError('broken')\n")
    done = command("spectrum", f"{path}:make", "--traceback")
    assert done.status == 2 and "Traceback" in done.err and "broken" in done.err.splitlines()[-1]


def test_module_and_function_are_the_same_command(tmp_path, start):
    process = start("spectrum", "absent.mtx")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "") and len(err.strip().splitlines()) == 1 and "absent.mtx" in err


def test_closed_pipe_is_no_traceback(matrix, tmp_path, start):
    process = start("eigs", matrix)
    process.stdout.close()
    with process.stderr as stream:
        err = stream.read()
    process.wait(timeout=60)
    assert "Traceback" not in err and "BrokenPipe" not in err


@pytest.mark.parametrize("missing", ["torch", "sklearn"])
def test_demo_says_what_to_install(command, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    done = command("demo")
    assert done.status == 2 and "pip install linop-spectra[demo]" in done.sentence and f"needs {missing}" in done.sentence
