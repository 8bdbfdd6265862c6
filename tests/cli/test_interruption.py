"""A command that is killed, interrupted or taken up again."""
import json
import signal
import time

import numpy as np
import pytest
from test_spectrum_command import SLOW

import linop_spectra as ls


def wait_for(condition, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def slow_target(script):
    """A target that touches a file once it has made some products."""
    text = SLOW.format(pause=0.02).replace("        time.sleep", "        open('products', 'a').write('x')\n        time.sleep")
    return f"{script(text)}:make"


def products(tmp_path):
    path = tmp_path / "products"
    return path.stat().st_size if path.exists() else 0


def test_killed_run_goes_on_to_the_same_bits(slow_target, start, tmp_path):
    common = ("spectrum", slow_target, "--steps", 60, "--probes", 2, "--seed", 5)
    killed = start(*common, "--out", "resumed", "--checkpoint", "run.ckpt")
    wait_for(lambda: (tmp_path / "run.ckpt").exists() and products(tmp_path) > 40, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "resumed" / "spectrum.npz").exists()

    # One new process, with as many threads, makes the whole run and goes on with the killed one.
    whole = [str(part) for part in (*common, "--out", "whole")]
    first = f"from linop_spectra.cli.main import main; assert main({whole!r}) == 0"
    resumed = start(*common, "--out", "resumed", "--checkpoint", "run.ckpt", first=first)
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    one, other = (ls.load(tmp_path / name / "spectrum.npz") for name in ("whole", "resumed"))
    np.testing.assert_array_equal(one.nodes, other.nodes)
    np.testing.assert_array_equal(one.weights, other.weights)
    with np.load(tmp_path / "whole" / "spectrum.npz") as a, np.load(tmp_path / "resumed" / "spectrum.npz") as b:
        assert a["alphas"].size
        np.testing.assert_array_equal(a["alphas"], b["alphas"])
        np.testing.assert_array_equal(a["betas"], b["betas"])


def test_checkpoint_of_another_run_is_refused(command, matrix, tmp_path):
    assert command("spectrum", matrix, "--checkpoint", "run.ckpt", "--quiet").status == 0
    done = command("spectrum", matrix, "--checkpoint", "run.ckpt", "--seed", 9)
    assert done.status == 2 and "run.ckpt" in done.sentence and "seed" in done.sentence


@pytest.mark.parametrize("name", ["run.ckpt", "run.ckpt.basis"])
def test_damaged_checkpoint_is_refused(command, matrix, tmp_path, name):
    assert command("spectrum", matrix, "--checkpoint", "run.ckpt", "--quiet").status == 0
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = command("spectrum", matrix, "--checkpoint", "run.ckpt", "--steps", 80)
    assert done.status == 2 and "run.ckpt" in done.sentence and "damaged" in done.sentence


def test_interrupt_keeps_and_marks(slow_target, start, tmp_path):
    process = start("spectrum", slow_target, "--steps", 290, "--probes", 1, "--out", "out")
    wait_for(lambda: products(tmp_path) > 20, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "nterrupted" in err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["status"] == "interrupted" and 5 < summary["num_steps"] < 290
    assert ls.load(tmp_path / "out" / "spectrum.npz").status == "interrupted"
    assert (tmp_path / "out" / "spectrum.png").exists() and "interrupted" in out


def test_interrupt_before_any_result(script, start, tmp_path):
    path = script("import time\ndef make():\n    open('products', 'w').write('x')\n    time.sleep(60)\n")
    process = start("spectrum", f"{path}:make", "--out", "out")
    wait_for(lambda: products(tmp_path) > 0, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and len(err.strip().splitlines()) == 1 and "nothing was written" in err
