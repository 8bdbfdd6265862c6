"""What diagonals and blocks lose, in numbers: random bases, gradual rotations, and least squares."""

import numpy as np
import pytest
from helpers import goe, rotated

import linop_spectra as ls
from linop_spectra.approximations import approximate, critique, haar_null

P = 1000


def marchenko_pastur(ratio, seed):
    x = np.random.default_rng(seed).standard_normal((P, int(P / ratio)))
    return x @ x.T / x.shape[1]


# Share of F^2 kept, spectral norm before and after, negative mass before and after, W1 over the standard deviation, cosine of the Newton
# step with that of the diagonal and with the gradient.
CASES = {
    "power law": (lambda: rotated(1 / np.arange(1, P + 1)), 0.0360, (1, 0.016), (0, 0), 0.20, (0.857, 0.873)),
    "ten outliers": (lambda: rotated(np.r_[np.full(10, 10.0), np.full(P - 10, 0.01)]), 0.0140, (10, 0.28), (0, 0), 0.20, (0.923, 0.995)),
    "GOE": (lambda: goe(P, np.random.default_rng(0)), 0.0020, (1.99, 0.16), (0.50, 0.51), 0.81, (0.002, 0.003)),
    "Marchenko-Pastur": (lambda: marchenko_pastur(0.25, 0), 0.800, (2.23, 1.07), (0, 0), 0.81, (0.873, 0.874)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_diagonal_in_a_random_basis(name):
    make, kept, norms, negative, distance, cosines = CASES[name]
    matrix = make()
    operator = ls.aslinearoperator(matrix, hermitian=True)
    table = critique(operator, approximate(operator, "diagonal"), dampings=[0.0], seed=1)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert table["trace"].verdict == "ok" and table["trace"].relative_error < 1e-10
    ratio = (table["frobenius_norm"].approximation / table["frobenius_norm"].truth.value) ** 2
    assert haar_null.diagonal_norm_kept(P, eigenvalues.mean(), eigenvalues.var()) == pytest.approx(kept, rel=0.05)
    assert ratio == pytest.approx(kept, rel=0.05 if name != "GOE" else 0.15)  # whose trace is random
    row = table["spectral_norm"]
    assert row.truth.value == pytest.approx(norms[0], rel=0.02) and row.verdict == "meaningless"
    assert row.approximation == pytest.approx(norms[1], rel=0.25)  # a maximum has a wide law
    assert row.null == pytest.approx(norms[1], rel=0.2)
    row = table["negative_mass"]
    assert (row.truth.value, row.approximation) == pytest.approx(negative, abs=0.04)
    assert row.verdict == ("meaningless" if name == "GOE" else "ok")
    assert table["wasserstein"].relative_error == pytest.approx(distance, abs=0.015)
    row = table["newton_step_cosine[0]"]
    assert (row.approximation, row.null) == pytest.approx(cosines, abs=0.06)
    assert row.approximation <= row.null + 0.01  # the diagonal Newton step is no better than the gradient
    # Nothing here beats the null by more than chance.
    for property in ("frobenius_norm", "frobenius_error", "wasserstein", "kolmogorov", "effective_dimension"):
        row = table[property]
        assert row.approximation == pytest.approx(row.null, rel=0.1), property


def test_rank_one():
    matrix = rotated(np.r_[1.0, np.zeros(P - 1)])
    diagonal = approximate(matrix, "diagonal").diagonal
    # Entries are squares of coordinates on the sphere: the sum of squares has a relative deviation of sqrt(96 / P) / 3.
    assert np.sum(diagonal**2) == pytest.approx(3 / (P + 2), rel=3 * np.sqrt(96 / P) / 3)
    assert diagonal.max() == pytest.approx(2 * np.log(P) / P, rel=0.5)


def test_flatness_of_diagonals_inverts():
    """Largest eigenvalues 100 and 0.1 at equal trace; the diagonals differ tenfold at most where the matrices differ thousandfold."""
    matrix = rotated(np.r_[100.0, np.zeros(P - 1)])
    sharp = critique(matrix, approximate(matrix, "diagonal"))
    flat = approximate(np.eye(P) * 0.1, "diagonal")
    assert sharp["trace"].approximation == pytest.approx(100) and flat.diagonal.sum() == pytest.approx(100)
    assert sharp["spectral_norm"].truth.value == pytest.approx(100)
    assert 0.5 < sharp["spectral_norm"].approximation < 2.5 and flat.diagonal.max() == pytest.approx(0.1)


@pytest.mark.parametrize("m, kept, largest", [(1, 0.0016, 0.015), (10, 0.0094, 0.025), (100, 0.086, 0.116), (400, 0.336, 0.363)])
def test_blocks_in_a_random_basis(m, kept, largest):
    """Order 1200, power law: about (m + 1) / (P + 2) of the variance, and a largest eigenvalue below that of the whole."""
    n, eigenvalues = 1200, 1 / np.arange(1, 1201)
    matrix = rotated(eigenvalues)
    blocks = approximate(matrix, "block", partition=m)
    values, mean = blocks.eigenvalues(), eigenvalues.mean()
    retained = np.sum((values - mean) ** 2) / np.sum((eigenvalues - mean) ** 2)
    assert haar_null.block_variance_retained(n, m) == pytest.approx(kept, rel=0.05)
    assert retained == pytest.approx(haar_null.block_variance_retained(n, m), rel=0.1)
    assert values[-1] == pytest.approx(largest, rel=0.25) and values[-1] <= 1
    assert values.sum() == pytest.approx(eigenvalues.sum(), rel=1e-12)


@pytest.mark.parametrize("angle, norm, largest, small, distance", [
    (0.0, 1.000, 1.000, 0.60, 0.0), (0.1, 0.990, 0.990, 0.13, 0.002), (0.3, 0.915, 0.914, 0.00, 0.021), (1.0, 0.361, 0.322, 0.00, 0.158),
])  # fmt: skip
def test_a_gradual_rotation(angle, norm, largest, small, distance):
    """Ten outliers, a bulk and 300 zeros, turned by exp(angle K) with a random skew K: the trace is exact all the way."""
    from scipy.linalg import expm

    rng, n = np.random.default_rng(0), 500
    eigenvalues = np.r_[np.linspace(2, 10, 10), abs(rng.normal(0, 0.1, 190)), np.zeros(300)]
    g = rng.standard_normal((n, n))
    rotation = expm(angle * (g - g.T) / np.sqrt(2 * n))
    matrix = (rotation * eigenvalues) @ rotation.T
    table = critique(ls.aslinearoperator((matrix + matrix.T) / 2, hermitian=True), approximate((matrix + matrix.T) / 2, "diagonal"))
    assert table["trace"].relative_error < 1e-12
    assert table["frobenius_norm"].approximation / table["frobenius_norm"].truth.value == pytest.approx(norm, abs=0.03)
    assert table["spectral_norm"].approximation / 10 == pytest.approx(largest, abs=0.05)
    assert table["wasserstein"].approximation == pytest.approx(distance, abs=0.015)
    diagonal = approximate((matrix + matrix.T) / 2, "diagonal").diagonal
    assert np.mean(diagonal < 1e-3) == pytest.approx(small, abs=0.08)
    if angle == 0:
        assert all(row.verdict == "ok" for row in table.rows)


@pytest.mark.parametrize("probes, noise", [(1, 9.05), (81, 1.0)])
def test_one_probe_of_a_diagonal_is_mostly_noise(probes, noise):
    """Ten eigenvalues of 10 among 0.01: mean 0.11, deviation 0.995, so that averages of fewer than 80 probes say little."""
    matrix = rotated(np.r_[np.full(10, 10.0), np.full(P - 10, 0.01)])
    operator = ls.aslinearoperator(lambda x: matrix @ x, shape=(P, P), dtype=float, hermitian=True)
    found = approximate(operator, "diagonal", method="hutchinson", num_matvecs=probes)
    error = np.sqrt(np.mean((found.diagonal - np.diag(matrix)) ** 2)) / np.mean(np.diag(matrix))
    assert error == pytest.approx(noise, rel=0.1)


def least_squares(theta, seed=0, n=1000):
    """Of the line y = 2 x + 2 + noise over log-normal places, whose logarithm has the variance 3/4; theta is (slope, intercept)."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x = rng.lognormal(0, np.sqrt(0.75), (n, 1))
    y = 2 * x + 2 + rng.standard_normal((n, 1))
    model = torch.nn.Linear(1, 1).double()
    with torch.no_grad():
        model.weight.fill_(theta[0])
        model.bias.fill_(theta[1])
    design = np.c_[x, np.ones(n)]
    return ls.objective(model, "mse", (torch.tensor(x), torch.tensor(y))), design, (design @ np.array(theta))[:, None] - y


@pytest.mark.parametrize("theta, cosine", [((0.0, 0.0), 0.63), ((4.0, 0.0), -0.70), ((1.5, 2.5), None)])
def test_empirical_fisher_of_least_squares(theta, cosine):
    """Kunstner, Hennig and Balles (2019): steps by the empirical Fisher matrix may point uphill where those by the Fisher matrix do not.

    The third point is so near the optimum that the cosine depends on the draw (deviation 0.6): only equality is tested there.
    """
    values = []
    for seed in range(11):
        objective, design, residual = least_squares(theta, seed)
        row = critique(objective, objective.fisher("empirical"), matrix="ggn", dampings=[0.0])["newton_step_cosine[0]"]
        g = design.T @ residual[:, 0]
        one = np.linalg.solve(design.T @ design, g)
        other = np.linalg.solve((design * residual**2).T @ design, g)
        assert row.approximation == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-9)
        assert row.null == pytest.approx(one @ g / np.linalg.norm(one) / np.linalg.norm(g), abs=1e-9)
        values.append(row.approximation)
    if cosine is not None:
        assert np.median(values) == pytest.approx(cosine, abs=0.15)  # a few draws with a far place have another sign


def test_empirical_fisher_at_the_optimum():
    """Well specified, it is the Fisher matrix times the variance of the noise: with squared errors (variance 1/2) twice that."""
    objective, _, _ = least_squares((2.0, 2.0))
    ratio = np.linalg.eigvals(np.linalg.solve(np.asarray(objective.ggn().to_dense()), np.asarray(objective.fisher("empirical").to_dense())))
    np.testing.assert_allclose(ratio / 2, 1, atol=0.2)
