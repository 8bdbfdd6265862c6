"""Lost orthogonality and ghosts, against vectors that are kept beside the run and against spectra that allow no more nodes."""

import numpy as np
import pytest
from helpers import device_of_numpy, rotated

import linop_spectra as ls
from linop_spectra.backends import get_backend
from linop_spectra.krylov.orthogonality import count_ghosts, estimated_loss

EIGENVALUES = np.r_[np.linspace(-1, 1, 495), [3, 5, 7, 9, 11.0]]


def vectors_without_reorthogonalisation(k):
    """The three-term recurrence, written down once more, with its vectors kept."""
    start = get_backend("numpy").probes(500, range(1), kind="sphere", seed=0, domain="probe", dtype=np.float64)[0]
    rows, previous, beta = [start], np.zeros(500), 0.0
    for _ in range(k):
        u = EIGENVALUES * rows[-1] - beta * previous
        u = u - (rows[-1] @ u) * rows[-1]
        beta, previous = np.linalg.norm(u), rows[-1]
        rows.append(u / beta)
    return np.array(rows)


@pytest.mark.parametrize("k", [8, 12, 16, 30])
def test_the_estimate_follows_the_true_loss(k):
    rows = vectors_without_reorthogonalisation(k)
    truth = np.max(np.abs(rows @ rows.T - np.eye(k + 1)))
    run = ls.lanczos(ls.diagonal_operator(EIGENVALUES), k, reorthogonalize="none")
    # A bound that is taken with the worst signs: never too small by much, and a few digits above at most.
    assert 0.2 * truth < run.orthogonality_loss[0] <= min(1.0, 1e3 * truth)


@pytest.mark.parametrize("backend", [None, device_of_numpy()], ids=["numpy", "device"])
def test_a_run_that_keeps_its_vectors_measures_the_loss(backend):
    a = ls.aslinearoperator(rotated(EIGENVALUES), hermitian=True, backend=backend)
    run = ls.lanczos(a, 60, num_probes=2)
    for probe in range(2):
        rows = run.vectors.bases[probe].to_numpy(61)
        gram = np.abs(rows @ rows.T - np.eye(61))
        assert gram.max() < 1e-14 and run.orthogonality_loss[probe] <= gram[60, :60].max() + 1e-16


@pytest.mark.parametrize("k", [20, 40, 100])
def test_ghosts_are_what_exceeds_the_number_of_distinct_eigenvalues(k):
    """Thirteen distinct eigenvalues allow thirteen nodes; single precision makes further ones out of rounding."""
    values = np.r_[np.zeros(1988), np.linspace(1, 100, 12)].astype(np.float32)
    run = ls.lanczos(ls.diagonal_operator(values), k, reorthogonalize="none")
    assert run.num_steps_taken[0] == k and run.num_ghosts[0] == k - 13
    assert ls.lanczos(ls.diagonal_operator(values), k).num_ghosts[0] == 0


def test_a_narrow_bulk_is_not_taken_for_ghosts():
    """Nodes of a bulk that is as narrow as the rounding of its outliers lie close together, but each has its weight."""
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0, 5e-3, 3990), np.linspace(7, 100, 10)].astype(np.float32)
    full = ls.lanczos(ls.diagonal_operator(values), 60)
    alphas, betas = full.jacobi()
    assert count_ghosts(alphas, betas, float(np.finfo(np.float32).eps)) <= 2
    assert ls.lanczos(ls.diagonal_operator(values), 60, reorthogonalize="none").num_ghosts[0] > 20


def test_ghosts_keep_the_weight_of_the_eigenvalue_they_copy():
    """Copies of an outlier share its weight: together they weigh what the one node of an orthogonal run weighs."""
    a = ls.diagonal_operator(EIGENVALUES)
    plain, full = ls.lanczos(a, 120, reorthogonalize="none"), ls.lanczos(a, 120)
    assert plain.num_ghosts[0] > 10
    for value in (3, 5, 7, 9, 11):
        copies = np.abs(plain.ritz_values[0] - value) < 1e-8
        once = np.abs(full.ritz_values[0] - value) < 1e-8
        assert copies.sum() > 1 and once.sum() == 1
        assert plain.weights[0][copies].sum() == pytest.approx(full.weights[0][once].sum(), rel=1e-8)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_short_runs(k):
    alphas, betas = np.ones(k), np.ones(k)
    assert count_ghosts(alphas, betas, 1e-16) == 0
    assert 0 <= estimated_loss(alphas, betas, 1e-16, 100) < 1e-13
    assert estimated_loss(0 * alphas, 0 * betas, 1e-16, 100) == 0.0
