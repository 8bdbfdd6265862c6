"""Ranks of flatness over checkpoints, by matrices and by their diagonals."""

import numpy as np
import pytest
from helpers import rotated
from scipy import stats
from test_diagonal_approximations import hidden

import linop_spectra as ls
from linop_spectra.approximations import approximate
from linop_spectra.approximations.flatness_correlation import MEASURES, flatness_correlation


def test_against_dense_numbers():
    rng = np.random.default_rng(0)
    matrices = [rotated(rng.standard_normal(40) * scale, seed=i) for i, scale in enumerate(rng.uniform(0.5, 2, 7))]
    gaps = rng.standard_normal(7)
    found = flatness_correlation(matrices, gaps)
    dense = {
        "trace": [np.trace(m) for m in matrices], "frobenius_norm": [np.linalg.norm(m) for m in matrices],
        "spectral_norm": [np.linalg.norm(m, 2) for m in matrices],
    }  # fmt: skip
    proxies = {
        "trace": [np.trace(m) for m in matrices], "frobenius_norm": [np.linalg.norm(np.diag(m)) for m in matrices],
        "spectral_norm": [abs(np.diag(m)).max() for m in matrices],
    }  # fmt: skip
    for row in found.rows:
        expected = stats.kendalltau(dense[row.measure], gaps)
        assert (row.matrix, row.matrix_p_value) == pytest.approx((expected.statistic, expected.pvalue))
        expected = stats.kendalltau(proxies[row.measure], gaps)
        assert (row.approximation, row.approximation_p_value) == pytest.approx((expected.statistic, expected.pvalue))
        assert row.agreement == pytest.approx(stats.kendalltau(dense[row.measure], proxies[row.measure]).statistic)
    assert found.num_matvecs == 0 and found["trace"].agreement == 1


def test_a_diagonal_can_invert_the_ranking():
    """At a fixed sum of 100 over 300 eigenvalues fewer directions share it: sharper, while the diagonal is the mean all the same."""
    counts = [1, 3, 10, 30, 100, 300]
    matrices = [rotated(np.r_[np.full(k, 100.0 / k), np.zeros(300 - k)], seed=k) * (1 + 0.2 * np.log(k)) for k in counts]
    sharpness = [np.linalg.norm(m, 2) for m in matrices]
    found = flatness_correlation(matrices, sharpness)
    assert found["spectral_norm"].matrix == pytest.approx(1) and found["trace"].matrix == pytest.approx(-1)
    assert found["trace"].agreement == pytest.approx(1)


def test_intervals_follow_the_errors():
    """Close traces, measured by a few products: the interval is wide; and by many steps narrow."""
    matrices = [hidden(rotated(np.linspace(0, 1 + 0.01 * i, 500), seed=i)) for i in range(6)]
    found = flatness_correlation(matrices, np.arange(6.0), num_steps=4, num_probes=1, approximation="scalar", num_matvecs=20)
    low, high = found["trace"].interval
    assert high - low > 0.3 and found.errors[0].min() > 0
    # Products with the matrices, those that the approximations spend included.
    assert found.num_matvecs == sum(matrix.num_matvecs for matrix in matrices)


def test_checkpoints_of_a_network(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
    x, y = torch.randn(20, 3).double(), torch.randint(0, 2, (20,))
    other = torch.randn(15, 3).double(), torch.randint(0, 2, (15,))
    start = ls.objective(model, "cross_entropy", (x, y))
    points = [start.with_parameters(start.parameters() * scale) for scale in (0.2, 0.5, 1.0, 1.5, 2.0)]
    found = flatness_correlation(points, held_out=other, matrix="ggn")
    gaps = [point.with_data(other).value() - point.value() for point in points]
    np.testing.assert_allclose(found.gaps, gaps)
    np.testing.assert_allclose(found.values[0], [np.trace(np.asarray(point.ggn().to_dense())) for point in points], rtol=1e-10)
    found.save(tmp_path / "found.npz")
    again = ls.load(tmp_path / "found.npz")
    assert str(again) == str(found) and again.rows == found.rows and len(again.rows) == len(MEASURES)
    by_hand = flatness_correlation(points, gaps, matrix="ggn", approximation=lambda point: approximate(point, "diagonal", matrix="ggn"))
    assert by_hand.rows == found.rows
    squared = flatness_correlation(points, gaps, approximation="squared_gradients")
    assert squared.proxies.min() > 0
    with pytest.raises(KeyError, match="There is no measure 'sharpness'"):
        found["sharpness"]


@pytest.mark.parametrize("arguments, words", [
    (([np.eye(2)] * 4, np.ones(4)), "fewer than five"),
    (([np.eye(2)] * 5, np.ones(4)), "must be 5 finite numbers"),
    (([np.eye(2)] * 5, np.full(5, np.nan)), "must be 5 finite numbers"),
    (([np.eye(2)] * 5,), "Pass either gaps="),
])  # fmt: skip
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        flatness_correlation(*arguments)


def test_held_out_data_need_objectives():
    with pytest.raises(ValueError, match="needs objectives"):
        flatness_correlation([np.eye(2)] * 5, held_out=(np.ones(2), np.ones(2)))


def test_equal_checkpoints():
    found = flatness_correlation([np.eye(3)] * 5, np.arange(5.0))
    assert found["trace"].matrix == 0.0 and found["trace"].matrix_p_value == 1.0
