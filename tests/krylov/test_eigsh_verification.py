"""Copies of multiple eigenvalues and members of clusters: never left out in silence. And what a failure leaves behind."""

import numpy as np
import pytest
from helpers import rotated

import linop_spectra as ls
from linop_spectra.krylov.verification import find_missed


@pytest.mark.parametrize("top", [[2, 2, 2, 3, 3], [2, 3, 3, 3, 3], [5, 5], [4] * 8], ids=str)
@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_copies_in_exact_arithmetic(top, which):
    """A diagonal matrix does not mix: rounding cannot bring in a second copy, only the search for it does."""
    values = np.r_[np.linspace(0, 1, 500), np.array(top, dtype=float)]
    values = -values if which == "SA" else values
    for seed in range(3):
        result = ls.eigsh(ls.diagonal_operator(values), len(top), which=which, tol=1e-8, seed=seed)
        np.testing.assert_allclose(np.sort(np.abs(result.eigenvalues)), np.sort(top), atol=1e-7)
        assert result.converged.all()


@pytest.mark.parametrize("which, k", [("BE", 6), ("BE", 7), ("SA", 5), ("LA", 5)])
def test_a_ring_has_double_eigenvalues_close_together(which, k):
    """The space of a single vector never holds both copies, and a wider block takes a while until the second one shows."""
    n = 300
    exact = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))
    expected = {"BE": np.r_[exact[: k // 2], exact[n - (k + 1) // 2 :]], "SA": exact[:k], "LA": exact[n - k :]}[which]
    result = ls.eigsh(ring(n), k, which=which, tol=1e-9)
    np.testing.assert_allclose(result.eigenvalues, expected, atol=1e-8)
    assert result.verified and result.converged.all()


def ring(n):
    return ls.aslinearoperator(lambda x: 2 * x - np.roll(x, 1) - np.roll(x, -1), shape=(n, n), dtype=float, hermitian=True)


def test_both_ends():
    values = np.r_[[-4.0, -4.0, -4.0], np.linspace(-1, 1, 500), [3.0, 3.0, 3.0]]
    result = ls.eigsh(ls.diagonal_operator(values), 6, which="BE", tol=1e-8)
    np.testing.assert_allclose(result.eigenvalues, [-4, -4, -4, 3, 3, 3], atol=1e-7)


def test_a_cluster_near_the_top_is_complete_for_every_start():
    """Three eigenvalues within 7e-7 of each other below the top; a small subspace passes over one of them for some starts."""
    cluster = 0.9 * (1 + 7e-7 * np.array([0.0, 1.0, 2.0]))
    values = np.r_[np.linspace(0, 0.8, 990), [0.85, 0.87, 0.89], cluster, [0.95, 0.97, 1.0]]
    expected = np.sort(values)[-8:]
    matrix = rotated(values, 3)
    for seed in range(8):
        result = ls.eigsh(matrix, 8, which="LA", tol=1e-6, seed=seed, max_basis=20)
        np.testing.assert_allclose(result.eigenvalues, expected, atol=2e-6)


def test_the_search_proves_what_is_missing_and_nothing_else():
    values = np.r_[np.linspace(0, 1, 300), [2.0, 2.0, 3.0]]
    operator = ls.diagonal_operator(values)
    units = np.eye(303)[[301, 302]]
    options = {"which": "LA", "norm": 3.0, "margin": 1e-6, "most": 40, "seed": 0}
    assert find_missed(operator, np.array([2.0, 3.0]), units, **options)[0] != "missed"  # the other copy is as large as the last wanted one
    missed, products = find_missed(operator, np.array([1.0, 3.0]), np.eye(303)[[299, 302]], **options)
    assert missed == "missed" and products <= 40
    assert find_missed(operator, values[-3:], np.eye(303)[300:], **options)[0] == "complete"
    assert find_missed(ls.identity(3), np.ones(3), np.eye(3), **options) == ("complete", 0)


def test_the_search_is_not_misled_by_its_own_rounding():
    """The space of the pairs is no part of what is left, wherever the rest of the spectrum lies."""
    values = np.r_[1.0, 2.0, 3.0, np.linspace(3.001, 90.0, 800)]
    verdict, products = find_missed(
        ls.diagonal_operator(values), values[:3], np.eye(803)[:3], "SA", norm=90.0, margin=1e-9, most=800, seed=0
    )
    assert verdict == "complete" and products > 100


def test_verification_can_be_left_out():
    values = np.linspace(0, 1, 2000)
    with_search, without = (ls.eigsh(ls.diagonal_operator(values), 3, which="LA", verify=v) for v in (True, False))
    np.testing.assert_allclose(with_search.eigenvalues, without.eigenvalues, atol=1e-9)
    assert without.num_matvecs < with_search.num_matvecs <= 2 * without.num_matvecs + 25
    assert with_search.verified and not without.verified and "not verified" in str(without)


# -- failures -------------------------------------------------------------------------------------------------------------------


def failing(after, error, n=200):
    calls = []

    def product(x):
        calls.append(1)
        if len(calls) > after:
            raise error
        return np.linspace(0, 1, n) * x

    return ls.aslinearoperator(product, shape=(n, n), dtype=float, hermitian=True)


def test_a_product_that_raises_leaves_the_pairs_so_far():
    with pytest.raises(ls.LanczosInterrupted, match=r"after 35 products \(OSError: the disk went away\)") as caught:
        ls.eigsh(failing(35, OSError("the disk went away")), 3, which="LA", tol=1e-12)
    partial = caught.value.partial
    assert isinstance(partial, ls.EigenResult) and partial.status == "interrupted" and caught.value.step == 35
    assert partial.eigenvalues[-1] == pytest.approx(1, abs=2e-2) and partial.eigenvectors.shape == (200, 3)
    with pytest.raises(OSError, match="the disk went away"):
        ls.eigsh(failing(1, OSError("the disk went away")), 3)


def test_a_product_that_turns_to_nan_leaves_the_pairs_so_far():
    calls = []

    def product(x):
        calls.append(1)
        return np.linspace(0, 1, 200) * x if len(calls) < 40 else np.full(200, np.nan)

    operator = ls.aslinearoperator(product, shape=(200, 200), dtype=float, hermitian=True)
    with pytest.raises(FloatingPointError, match="NaN or infinity") as caught:
        ls.eigsh(operator, 3, which="LA", tol=1e-12)
    assert isinstance(caught.value, ls.NonFiniteProductError) and len(caught.value.partial.eigenvalues) == 3


def test_status():
    operator = ls.diagonal_operator(np.linspace(0, 1, 3000))
    assert ls.eigsh(operator, 2, which="LA").status == "complete"
    assert ls.eigsh(operator, 2, which="LA", tol=1e-12, time_budget=1e-9).status == "time budget"
    with pytest.warns(UserWarning, match="max_matvecs"):
        assert ls.eigsh(operator, 2, which="LA", tol=1e-12, max_matvecs=20).status == "unconverged"
