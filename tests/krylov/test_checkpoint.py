"""Checkpoints: a run that is killed goes on where it was, and nothing else is ever taken up."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, rotated

import linop_spectra as ls
from linop_spectra.krylov import checkpoint as module

MATRIX = rotated(np.r_[np.linspace(-1, 1, 90), np.linspace(5, 20, 10)])
STEPS = 20


@pytest.fixture(autouse=True)
def write_after_every_step(monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(params=("full", "none"))
def options(request):
    return {"num_probes": 2, "seed": 5, "reorthogonalize": request.param}


class Failing(ls.LinearOperator):
    """A matrix that fails at one product (blocks count once), and counts."""

    def __init__(self, fail_at=0, error=None, matrix=MATRIX):
        self.products, self.fail_at, self.error, self.matrix = 0, fail_at, error or RuntimeError("lost"), matrix
        super().__init__(matrix.shape, matrix.dtype, hermitian=True)

    def _matmat(self, x):
        self.products += 1
        if self.products == self.fail_at:
            raise self.error
        return self.matrix @ x


def same(a, b):
    for name in ("alphas", "betas", "num_steps_taken"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.status == b.status


def leave_half(path, options, at=9):
    with pytest.raises(ls.LanczosInterrupted):
        ls.lanczos(Failing(at), STEPS, checkpoint=path, **options)
    return path


@pytest.mark.parametrize("at", [2, 9, 20])
def test_a_failed_run_goes_on_bit_identically(options, tmp_path, at):
    whole = ls.lanczos(Failing(), STEPS, **options)
    path = leave_half(tmp_path / "run", options, at)
    operator = Failing()
    same(ls.lanczos(operator, STEPS, checkpoint=path, **options), whole)
    assert operator.products == STEPS - (at - 1) + 1  # the steps that were missing, and one to recognise the operator
    again = Failing()
    same(ls.lanczos(again, STEPS, checkpoint=path, **options), whole)
    assert again.products == 1


def test_several_failures_in_a_row(options, tmp_path):
    whole = ls.lanczos(Failing(), STEPS, **options)
    for at in (4, 5, 3, 8):
        leave_half(tmp_path / "run", options, at)
    same(ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "run", **options), whole)


def test_a_longer_and_a_shorter_run_from_one_checkpoint(options, tmp_path):
    ls.lanczos(Failing(), 12, checkpoint=tmp_path / "run", **options)
    same(ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "run", **options), ls.lanczos(Failing(), STEPS, **options))
    same(ls.lanczos(Failing(), 7, checkpoint=tmp_path / "run", **options), ls.lanczos(Failing(), 7, **options))
    # Asking for less does not throw away what is there.
    operator = Failing()
    ls.lanczos(operator, STEPS, checkpoint=tmp_path / "run", **options)
    assert operator.products == 1


def test_a_run_that_broke_down(options, tmp_path):
    identity = Failing(matrix=np.diag(np.repeat([1.0, 2.0, 4.0], 30)))
    whole = ls.lanczos(identity, STEPS, checkpoint=tmp_path / "run", **options)
    assert whole.num_steps == 3
    same(ls.lanczos(identity, STEPS, checkpoint=tmp_path / "run", **options), whole)


def test_ctrl_c_and_time_budget_leave_a_checkpoint(options, tmp_path):
    whole = ls.lanczos(Failing(), STEPS, **options)
    assert ls.lanczos(Failing(9, KeyboardInterrupt()), STEPS, checkpoint=tmp_path / "a", **options).status == "interrupted"
    same(ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "a", **options), whole)
    assert ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "b", time_budget=1e-9, **options).status == "time budget"
    same(ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "b", **options), whole)


def test_spectral_density_and_extend_use_it(tmp_path):
    whole = ls.spectral_density(Failing(), num_steps=STEPS, num_probes=2)
    with pytest.raises(ls.LanczosInterrupted):
        ls.spectral_density(Failing(9), num_steps=STEPS, num_probes=2, checkpoint=tmp_path / "run")
    again = ls.spectral_density(Failing(), num_steps=STEPS, num_probes=2, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.nodes, whole.nodes)
    np.testing.assert_array_equal(again.weights, whole.weights)
    assert again.noise_floor == whole.noise_floor
    start = ls.lanczos(Failing(), 5)
    with pytest.raises(ls.LanczosInterrupted):
        start.extend(15, operator=Failing(6), checkpoint=tmp_path / "extended")
    same(ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "extended"), ls.lanczos(Failing(), STEPS))


def test_a_run_killed_at_once_goes_on_bit_identically(options, tmp_path):
    """SIGKILL in the middle of a product, of a process of its own."""
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "krylov")!r}, {str(ROOT / "tests")!r}]
import linop_spectra as ls
from linop_spectra.krylov import checkpoint
from test_checkpoint import Failing
checkpoint.CHECKPOINT_SECONDS = 0.0
class Killed(Failing):
    def _matmat(self, x):
        if self.products == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._matmat(x)
ls.lanczos(Killed(), {STEPS}, checkpoint={str(tmp_path / "run")!r}, **{options!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    operator = Failing()
    same(ls.lanczos(operator, STEPS, checkpoint=tmp_path / "run", **options), ls.lanczos(Failing(), STEPS, **options))
    assert operator.products == STEPS - 8 + 1


def test_a_crash_between_vectors_and_header(tmp_path, monkeypatch):
    """Vectors are appended before the header counts them: with an old header and a longer basis the run goes on from the header."""
    options = {"num_probes": 2, "seed": 5}
    path = leave_half(tmp_path / "run", options, 6)
    header = path.read_bytes()
    leave_half(path, options, 6)
    path.write_bytes(header)
    assert (tmp_path / "run.basis").stat().st_size > 16 + 6 * 2 * 100 * 8
    same(ls.lanczos(Failing(), STEPS, checkpoint=path, **options), ls.lanczos(Failing(), STEPS, **options))


# -- what does not match or is damaged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, name",
    [
        ({"seed": 6}, "seed"),
        ({"num_probes": 3}, "num_probes"),
        ({"start": np.ones((100, 2))}, "start_digest"),
        ({"reorthogonalize": "other"}, "reorthogonalize"),
    ],
)
def test_another_run_is_refused(options, change, name, tmp_path):
    path = leave_half(tmp_path / "run", options)
    if name == "reorthogonalize":
        change = {"reorthogonalize": "none" if options["reorthogonalize"] == "full" else "full"}
    with pytest.raises(ValueError, match=rf"belongs to another run: its {name} is .*Delete it"):
        ls.lanczos(Failing(), STEPS, checkpoint=path, **{**options, **change})


@pytest.mark.parametrize(
    "matrix, message",
    [
        (MATRIX[:99, :99], "its dimension is 100, this run's is 99"),
        (MATRIX.astype(np.float32), "its dtype is 'float64', this run's is 'float32'"),
        (MATRIX.astype(complex), "dtype"),
        (MATRIX + 1e-3 * np.eye(100), "belongs to another operator"),
        (MATRIX * np.nan, "belongs to another operator"),
    ],
)
def test_another_operator_is_refused(options, matrix, message, tmp_path):
    path = leave_half(tmp_path / "run", options)
    with pytest.raises(ValueError, match=message):
        ls.lanczos(Failing(matrix=matrix), STEPS, checkpoint=path, **options)


def cut(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: pathlib.Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def empty(path: pathlib.Path):
    path.write_bytes(b"")


def text(path: pathlib.Path):
    path.write_text("not a checkpoint\n")


@pytest.mark.parametrize("damage", [cut, flip, empty, text])
def test_a_damaged_header_is_refused(options, damage, tmp_path):
    path = leave_half(tmp_path / "run", options)
    damage(path)
    with pytest.raises(ValueError, match=r"'.*run' is damaged .*choose another path"):
        ls.lanczos(Failing(), STEPS, checkpoint=path, **options)


@pytest.mark.parametrize("damage", [cut, flip, empty, text, pathlib.Path.unlink])
def test_a_damaged_basis_is_refused(damage, tmp_path):
    path = leave_half(tmp_path / "run", {"num_probes": 2})
    damage(tmp_path / "run.basis")
    with pytest.raises(ValueError, match=r"The vectors '.*run\.basis' of the checkpoint are damaged .*Delete both files"):
        ls.lanczos(Failing(), STEPS, checkpoint=path, num_probes=2)


def test_the_basis_of_another_checkpoint_is_refused(tmp_path):
    one, two = (leave_half(tmp_path / name, {"num_probes": 1}) for name in ("one", "two"))
    two.with_name("two.basis").write_bytes(one.with_name("one.basis").read_bytes())
    with pytest.raises(ValueError, match="belongs to another header"):
        ls.lanczos(Failing(), STEPS, checkpoint=two)


def test_another_result_is_no_checkpoint(tmp_path):
    ls.lanczos(Failing(), 3).save(tmp_path / "run")
    with pytest.raises(ValueError, match="is no checkpoint of a Lanczos run"):
        ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "run")


def test_a_refused_checkpoint_is_left_as_it_is(tmp_path):
    path = leave_half(tmp_path / "run", {"seed": 5})
    before = path.read_bytes(), (tmp_path / "run.basis").read_bytes()
    with pytest.raises(ValueError, match="seed"):
        ls.lanczos(Failing(), STEPS, checkpoint=path, seed=6)
    assert before == (path.read_bytes(), (tmp_path / "run.basis").read_bytes())


def test_a_folder_that_cannot_be_written_is_said_before_the_run(tmp_path):
    operator = Failing()
    for path in (tmp_path / "missing" / "run", tmp_path):
        with pytest.raises(OSError, match="cannot be written"):
            ls.lanczos(operator, STEPS, checkpoint=path)
    assert operator.products == 0


def test_a_full_disk_is_said_once_and_does_not_end_the_run(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_result", full)
    with pytest.warns(UserWarning, match="No space left on device.*goes on without it") as said:
        run = ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "run")
    assert len(said) == 1
    same(run, ls.lanczos(Failing(), STEPS))


def test_nothing_temporary_is_left_behind(tmp_path):
    ls.lanczos(Failing(), STEPS, checkpoint=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.basis"]
