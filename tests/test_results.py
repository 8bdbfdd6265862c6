"""Estimates, and files that hold results."""

import json
import math
import os

import numpy as np
import pytest
from scipy import stats

import linop_spectra as ls
from linop_spectra.results import html_table, read_result, save_result, write_atomically


def test_interval_is_students_widened_by_the_quadrature_error():
    estimate = ls.Estimate(10.0, standard_error=2.0, quadrature_error=0.5, degrees_of_freedom=4)
    half = stats.t.ppf(0.95, 4) * 2 + 0.5
    assert estimate.confidence_interval(0.9) == pytest.approx((10 - half, 10 + half), rel=1e-14)
    assert ls.Estimate(3.0).confidence_interval() == (3.0, 3.0)
    assert ls.Estimate(3.0, standard_error=math.inf).confidence_interval() == (-math.inf, math.inf)
    low, high = ls.Estimate(0.0, standard_error=1.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((-1.959964, 1.959964), abs=1e-6)
    assert float(estimate) == 10 and "95 % interval" in str(estimate) and "<table>" in estimate._repr_html_()
    with pytest.raises(AttributeError):
        estimate.value = 3.0


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1, math.nan])
def test_level_is_a_probability(level):
    with pytest.raises(ValueError, match="argument level must lie strictly between 0 and 1"):
        ls.Estimate(1.0, standard_error=1.0).confidence_interval(level)


@pytest.mark.parametrize(
    "estimate", [ls.Estimate(1.5), ls.Estimate(-1.0, 0.1, 0.2, 7, 3.5, 0.01, "exact", False), ls.Estimate(math.nan, math.inf)]
)
def test_estimates_come_back(estimate, tmp_path):
    estimate.save(tmp_path / "e.npz")
    assert repr(ls.load(tmp_path / "e.npz")) == repr(estimate)
    assert repr(ls.load(str(tmp_path / "e.npz"))) == repr(estimate)


def test_any_name_is_kept(tmp_path):
    """NumPy alone would add a suffix."""
    ls.Estimate(1.0).save(tmp_path / "plain")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"] and ls.load(tmp_path / "plain").value == 1


def test_no_pickles(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        save_result(tmp_path / "x", "estimate", {}, {"a": np.array([object()])})
    assert list(tmp_path.iterdir()) == []
    np.savez(
        tmp_path / "evil.npz",
        __header__=np.array(json.dumps({"kind": "estimate", "format": 1})),
        a=np.array([{}], dtype=object),
        allow_pickle=True,
    )
    with pytest.raises(ValueError, match="damaged or was not written"):
        ls.load(tmp_path / "evil.npz")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*nothing' to load"):
        ls.load(tmp_path / "nothing")


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello"),
        lambda path: np.save(path.open("wb"), np.ones(3)),
        lambda path: np.savez(path.open("wb"), a=1),
        lambda path: np.savez(path.open("wb"), __header__="not json"),
        lambda path: np.savez(path.open("wb"), __header__='{"format": 1}'),
        lambda path: np.savez(path.open("wb"), __header__="[1]"),
    ],
    ids=["truncated", "flipped", "empty", "text", "npy", "no header", "no json", "no kind", "a list"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_damaged_files_are_said_to_be_damaged(damage, tmp_path):
    path = tmp_path / "run.npz"
    ls.lanczos(ls.diagonal_operator(np.arange(50.0)), 8).save(path)
    damage(path)
    with pytest.raises(ValueError, match=r"The file '.*run\.npz' is damaged or was not written by linop_spectra .*choose another path"):
        ls.load(path)


def test_a_damaged_file_is_closed(tmp_path):
    """On some systems an open file cannot be deleted, which is what the message advises."""
    path = tmp_path / "run.npz"
    ls.Estimate(1.0).save(path)
    truncated(path)
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system does not list open files")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="damaged") as caught:  # the traceback keeps the frames alive, and so what they left open
        ls.load(path)
    assert len(os.listdir("/proc/self/fd")) == before, caught.value


def test_newer_formats_and_unknown_kinds(tmp_path):
    for scalars, message in (
        ({"kind": "estimate", "format": 99}, "has format 99.*upgrade"),
        ({"kind": "hologram", "format": 1}, "holds a 'hologram'"),
    ):
        np.savez(tmp_path / "x.npz", __header__=json.dumps(scalars))
        with pytest.raises(ValueError, match=message):
            ls.load(tmp_path / "x.npz")


def test_an_older_file_survives_a_failed_write(tmp_path):
    path = tmp_path / "kept"
    write_atomically(path, lambda stream: stream.write(b"old"))

    def fails(stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "x", lambda stream: None)


def test_permissions_are_those_of_a_plain_file(tmp_path):
    ls.Estimate(1.0).save(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_header_and_arrays(tmp_path):
    save_result(tmp_path / "x", "thing", {"n": 3, "text": "é"}, {"a": np.arange(3)})
    scalars, arrays = read_result(tmp_path / "x")
    assert scalars == {"kind": "thing", "format": 1, "n": 3, "text": "é"} and arrays["a"].tolist() == [0, 1, 2]


def test_tables_are_escaped():
    assert "&lt;b&gt;" in html_table([("<b>", "x & y")]) and "x &amp; y" in html_table([("<b>", "x & y")])
