"""What is often said about Lanczos and is not so; the pictures are in docs/folklore.md."""

import numpy as np
import pytest
from helpers import random_array, rotated
from scipy import linalg

import linop_spectra as ls

SPIKE = 4.0


def bulk(n):
    """A semicircle on [-2, 2] by its quantiles."""
    return ls.random_matrices.Semicircle().quantile((np.arange(n) + 0.5) / n)


def leading(run, probe, k):
    """Ritz values of the first k steps."""
    alphas, betas = run.jacobi(probe)
    return linalg.eigvalsh_tridiagonal(alphas[:k], betas[: k - 1])


# -- "Lanczos finds the largest eigenvalues", "it learns the spectrum from the top down" ---------------------------------------------


@pytest.mark.parametrize("mu", [0.0, 3.0, -40.0])
def test_turning_the_spectrum_upside_down_turns_the_ritz_values(mu):
    """The Krylov space of H and of mu - H is the same space: nothing in the method knows which end is the top."""
    values = np.r_[bulk(395), [-6.0, -3.0, 4.0, 5.0, 9.0]]
    for matrix in (np.diag(values), rotated(values, 1)):
        start = random_array((400,), np.float64, 2)
        up = ls.lanczos(matrix, 40, start=start)
        down = ls.lanczos(mu * np.eye(400) - matrix, 40, start=start)
        for k in (1, 2, 5, 10, 20, 40):
            np.testing.assert_allclose(leading(down, 0, k), mu - leading(up, 0, k)[::-1], atol=1e-10)


def test_the_smallest_eigenvalue_is_no_harder_than_the_largest():
    values = np.r_[bulk(1000), [-9.0]]
    low = ls.eigsh(ls.diagonal_operator(values), 1, which="SA", tol=1e-8)
    high = ls.eigsh(ls.diagonal_operator(-values), 1, which="LA", tol=1e-8)
    assert low.eigenvalues[0] == pytest.approx(-9) and high.eigenvalues[0] == pytest.approx(9)
    assert low.num_matvecs == high.num_matvecs < 40


# -- "one end first" ----------------------------------------------------------------------------------------------------------------


def test_both_ends_converge_at_once():
    n, probes, k = 10_000, 40, 24
    values = np.r_[bulk(n - 2), [-SPIKE - 1 / SPIKE, SPIKE + 1 / SPIKE]]
    run = ls.lanczos(ls.diagonal_operator(values), k, num_probes=probes)
    first = np.zeros((2, probes))
    for probe in range(probes):
        for end, value in ((0, values[-2]), (-1, values[-1])):
            first[end, probe] = next(j for j in range(1, k + 1) if abs(leading(run, probe, j)[end] - value) < 0.01 * abs(value))
    # Symmetric by chance only: which end is first is a fair coin, and the middle steps agree.
    assert abs(np.median(first[0]) - np.median(first[1])) <= 1
    low_first, high_first = int((first[0] < first[1]).sum()), int((first[0] > first[1]).sum())
    assert min(low_first, high_first) >= 1 and abs(low_first - high_first) <= 4 * np.sqrt(low_first + high_first)


def test_an_isolated_value_in_a_gap_is_found_as_well():
    """Not only ends: what lies in a gap inside the spectrum converges too, before the eigenvalues of the bulks around it."""
    values = np.r_[bulk(500) - 5, [0.5], bulk(500) + 5]
    run = ls.lanczos(ls.diagonal_operator(values), 30)
    near = np.argmin(np.abs(run.ritz_values[0] - 0.5))
    assert run.ritz_values[0, near] == pytest.approx(0.5, abs=1e-6) and run.residual_norms[0, near] < 1e-3
    assert np.sort(run.residual_norms[0])[1] > 1e-3


# -- "ten steps are enough", "it takes hundreds" ---------------------------------------------------------------------------------------


def steps_to_one_per_cent(n, theta, probes, seed=0):
    """First step that has an outlier of strength theta to one per cent, for each probe, and the steps that its weight is worth.

    A start whose weight on the outlier is chi^2 / n is later by ln(1 / chi^2) / (2 ln theta) steps than one of weight 1 / n.
    """
    place = theta + 1 / theta
    operator = ls.diagonal_operator(np.append(bulk(n - 1), place))
    k = int(np.log(n) / (2 * np.log(theta))) + 16
    start = random_array((n, probes), np.float64, seed)
    run = ls.lanczos(operator, k, start=start, reorthogonalize="none")
    first, late = np.zeros(probes), np.zeros(probes)
    for probe in range(probes):
        first[probe] = next(j for j in range(1, k + 1) if leading(run, probe, j)[-1] > 0.99 * place)
        share = start[-1, probe] ** 2 / (start[:, probe] @ start[:, probe])
        late[probe] = np.log(1 / (n * share)) / (2 * np.log(theta))
    return first, late


@pytest.mark.parametrize(
    "n, theta, probes",
    [(10**4, theta, 15) for theta in (1.5, 2.0, 4.0, 8.0)] + [(10**5, theta, 3) for theta in (2.0, 4.0)]
    + [pytest.param(10**6, 2.0, 3, marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_outlier_is_found_after_a_number_of_steps_that_is_known_beforehand(n, theta, probes):
    first, late = steps_to_one_per_cent(n, theta, probes)
    law = np.log(n) / (2 * np.log(theta))
    # The start's weight on the outlier explains the spread between probes; what is left is the same few steps for all.
    assert 2 <= np.median(first) - law <= 8
    rest = first - late - law
    assert np.all((rest >= 1.5) & (rest <= 8)) and np.ptp(rest) <= 2.01


def test_neither_ten_nor_hundreds():
    """Weak outliers of large matrices need more than ten steps, strong ones fewer; none of them needs hundreds."""
    weak, _ = steps_to_one_per_cent(10**5, 1.5, 2)
    strong, _ = steps_to_one_per_cent(10**5, 8.0, 2)
    assert weak.min() > 10 > strong.max()
    assert weak.max() < 40


# -- "without reorthogonalisation the spectrum is wrong" --------------------------------------------------------------------------------


def test_ghosts_share_the_weight_of_the_eigenvalue_that_they_copy():
    n, k = 2000, 120
    outliers = np.array([6.0, 8.0, 10.0])
    values = np.r_[bulk(n - 3), outliers]
    start = random_array((n,), np.float64, 3)
    exact = start**2 / (start @ start)
    plain, full = (ls.lanczos(ls.diagonal_operator(values), k, start=start, reorthogonalize=kind) for kind in ("none", "full"))
    for place, weight in zip(outliers, exact[-3:], strict=True):
        copies = np.abs(plain.ritz_values[0] - place) < 1e-6
        once = np.abs(full.ritz_values[0] - place) < 1e-6
        assert copies.sum() >= 3 and once.sum() == 1
        assert plain.weights[0][copies].sum() == pytest.approx(weight, rel=1e-8)
        assert full.weights[0][once].sum() == pytest.approx(weight, rel=1e-8)
    # Moments by Chebyshev polynomials, to twice the number of steps: no digit is lost by the copies.
    x = (values + 2) / 6 - 1
    nodes = (plain.ritz_values[0] + 2) / 6 - 1
    for degree in range(2 * (k - int(plain.num_ghosts[0]))):
        truth = exact @ np.cos(degree * np.arccos(np.clip(x, -1, 1)))
        found = plain.weights[0] @ np.cos(degree * np.arccos(np.clip(nodes, -1, 1)))
        assert found == pytest.approx(truth, abs=1e-12)


def test_counting_nodes_counts_ghosts():
    """What does go wrong: Ritz values that are counted, or drawn with equal weights."""
    values = np.r_[bulk(1997), [6.0, 8.0, 10.0]]
    S = ls.spectral_density(ls.diagonal_operator(values), num_steps=120, num_probes=2, reorthogonalize="none")
    above = S.run.ritz_values > 3
    assert above.sum() > 2 * 3 * 3  # three of them, for two probes
    low, high = S.trace(lambda x: (x > 3) * 1.0).confidence_interval(0.999)
    assert low <= 3 <= high
