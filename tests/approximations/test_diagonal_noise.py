"""The sampling error of an estimated diagonal: what it does to the properties, against diagonals that are known."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.approximations import approximate, critique
from linop_spectra.approximations.critique_comparison import noise_of
from linop_spectra.approximations.diagonal_noise import DiagonalNoise

SEEDS = range(12)


@pytest.fixture(scope="module")
def matrix():
    """Order 400, with large eigenvalues in directions that are spread over all entries, as of a trained network."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((400, 6)))
    return (q * np.array([9.0, 7.0, 5.0, 4.0, 3.0, 2.0])) @ q.T + np.diag(rng.uniform(0.0, 0.01, 400))


def noise_at(matrix, seed):
    found = approximate(ls.aslinearoperator(lambda x: matrix @ x, shape=matrix.shape, dtype=float, hermitian=True), "diagonal",
                        method="hutchinson", num_matvecs=24, seed=seed)  # fmt: skip
    noise = noise_of(found)
    assert noise is not None
    return noise


def test_intervals_hold_the_exact_diagonal(matrix):
    """Of 12 independent estimates at most two may miss at a level of 95 %: the chance of three is 0.02."""
    exact, place = np.diag(matrix), 0.02
    truths = {
        "trace": exact.sum(), "frobenius_norm": np.linalg.norm(exact), "largest_modulus": np.abs(exact).max(), "smallest": exact.min(),
        "share_below": np.mean(exact < place), "count_outside": np.sum((exact < 0.0) | (exact > 0.3)),
        "sum": np.sum(exact / (exact + 0.5)),
    }  # fmt: skip
    arguments = {"share_below": (place,), "count_outside": (0.0, 0.3), "sum": (lambda x: np.maximum(x, 0) / (np.maximum(x, 0) + 0.5),)}
    missed = dict.fromkeys(truths, 0)
    for seed in SEEDS:
        noise = noise_at(matrix, seed)
        for name, truth in truths.items():
            low, high = getattr(noise, name)(*arguments.get(name, ())).confidence_interval(0.95)
            missed[name] += not low - 1e-12 <= truth <= high + 1e-12
    assert max(missed.values()) <= 2, missed


def test_noise_is_taken_off_the_norm(matrix):
    """The norm of the estimate itself is far too large, and the mean of the corrected squares is right."""
    exact = np.linalg.norm(np.diag(matrix))
    squares, plain = [], []
    for seed in SEEDS:
        noise = noise_at(matrix, seed)
        squares.append(noise.frobenius_norm().value ** 2)
        plain.append(np.linalg.norm(noise.entries))
    assert min(plain) > 1.3 * exact
    assert abs(np.mean(squares) - exact**2) < 3 * np.std(squares, ddof=1) / np.sqrt(len(squares)) + 1e-12


def test_distances_bound_what_the_noise_moves(matrix):
    exact = np.sort(np.diag(matrix))
    for seed in SEEDS:
        noise = noise_at(matrix, seed)
        entries = np.sort(noise.entries)
        assert np.mean(np.abs(entries - exact)) <= noise.wasserstein
        apart = np.abs(np.searchsorted(entries, exact, side="right") - np.arange(1, len(exact) + 1)).max() / len(exact)
        assert apart <= noise.kolmogorov


def test_without_noise_nothing_changes():
    noise = DiagonalNoise(np.array([-1.0, 2.0, 3.0]), np.zeros(3))
    assert (noise.trace().value, noise.frobenius_norm().value) == (4.0, pytest.approx(np.sqrt(14)))
    assert (noise.largest_modulus().value, noise.smallest().value, noise.share_below(0.0).value) == (3.0, -1.0, pytest.approx(1 / 3))
    assert noise.count_outside(-0.5, 2.5).value == 2
    for estimate in (noise.trace(), noise.frobenius_norm(), noise.largest_modulus(), noise.smallest(), noise.share_below(0.0)):
        assert estimate.confidence_interval(0.95) == pytest.approx((estimate.value, estimate.value))


def test_critique_of_an_estimated_diagonal_says_what_noise_it_has(matrix):
    operator = ls.aslinearoperator(lambda x: matrix @ x, shape=matrix.shape, dtype=float, hermitian=True)
    estimated = approximate(operator, "diagonal", method="hutchinson", num_matvecs=24, seed=1)
    found = critique(operator, {"diagonal": estimated}, num_steps=40, num_probes=2)
    row, exact = found["frobenius_norm"], np.linalg.norm(np.diag(matrix))
    low, high = row.estimate.confidence_interval(0.95)
    assert low <= exact <= high and row.verdict == "meaningless"
    assert any("is estimated" in note for note in found.notes)
    negative = found["negative_mass"]  # the diagonal is positive; what the estimate shows below zero is noise
    low, high = negative.estimate.confidence_interval(0.95)
    assert negative.approximation > 0.02 and low <= 0 <= high
    exactly = critique(operator, {"diagonal": approximate(operator, "diagonal", method="exact")}, num_steps=40, num_probes=2)
    assert not any("is estimated" in note for note in exactly.notes)
