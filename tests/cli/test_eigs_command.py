"""``eigs``: what it writes and prints, and where it stops early."""
import json

import numpy as np
import pytest

import linop_spectra as ls


def test_writes_pairs_and_summary(command, matrix, tmp_path):
    done = command("eigs", matrix, "-k", 3, "--which", "LA", "--tol", "1e-10", "--out", "out", "--seed", 2)
    assert (done.status, done.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"summary.json", "eigenpairs.npz"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    np.testing.assert_allclose([pair["value"] for pair in summary["eigenvalues"]], [10, 15, 20], atol=1e-9)
    assert all(pair["converged"] and pair["residual_norm"] < 1e-8 for pair in summary["eigenvalues"])
    assert (summary["which"], summary["seed"], summary["order"], summary["status"]) == ("LA", 2, 120, "complete")
    assert "-k 3" in summary["command"] and summary["versions"]["linop-spectra"] == ls.__version__
    pairs = ls.load(tmp_path / "out" / "eigenpairs.npz")
    dense = np.load(matrix)["arr_0"]
    assert np.linalg.norm(dense @ pairs.eigenvectors - pairs.eigenvectors * pairs.eigenvalues) < 1e-8
    assert "residual" in done.out and "20" in done.out and "no wanted eigenvalue is missing" in done.out


@pytest.mark.parametrize(("which", "expected"), [("SA", -1.0), ("LM", 20.0)])
def test_which_end(command, matrix, tmp_path, which, expected):
    assert command("eigs", matrix, "-k", 1, "--which", which, "--out", "out", "--quiet").out == ""
    value = json.loads((tmp_path / "out" / "summary.json").read_text())["eigenvalues"][0]["value"]
    assert value == pytest.approx(expected, abs=1e-5)


def test_unconverged_pairs_are_marked(command, script, tmp_path):
    path = script("def make():\n    return ls.diagonal_operator(np.linspace(0, 1, 3000))\n")
    done = command("eigs", f"{path}:make", "-k", 2, "--tol", "1e-12", "--max-products", 30, "--out", "out")
    assert done.status == 0 and "not converged" in done.out and "warning" in done.sentence
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "unconverged"


def test_a_failing_product_keeps_what_was_known(command, script, tmp_path):
    path = script(
        "calls = []\n"
        "def product(x):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 25:\n"
        "        raise RuntimeError('the disk is on fire')\n"
        "    return np.linspace(1, 2, 800) * x\n"
        "def make():\n"
        "    return ls.aslinearoperator(product, shape=(800, 800), dtype=float, hermitian=True)\n"
    )
    done = command("eigs", f"{path}:make", "-k", 2, "--out", "out")
    assert done.status == 2 and "the disk is on fire" in done.sentence
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "on fire" in summary["error"] and len(summary["eigenvalues"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["-k", 500], ("-k", "120")), (["-k", 0], ("-k", "at least 1")), (["--tol", 2], ("--tol", "between 0 and 1")),
     (["--which", "XX"], ("--which",)), (["--operator", "ggn"], ("--operator",)), (["--max-products", "few"], ("--max-products",))],
)  # fmt: skip
def test_wrong_arguments_are_one_sentence(command, matrix, arguments, words):
    done = command("eigs", matrix, *arguments)
    assert done.status == 2 and all(word in done.sentence for word in words)
