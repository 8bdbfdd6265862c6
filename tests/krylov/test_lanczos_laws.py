"""Lanczos coefficients against exact laws and exact moments; nothing here has a tuned tolerance."""

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array, rotated, same_law
from scipy import linalg, optimize, stats
from scipy.sparse.linalg import _special_sparse_arrays as special_arrays

import linop_spectra as ls
from linop_spectra.random_matrices import Semicircle, wigner, wishart


def wrap(matrix):
    return ls.aslinearoperator(matrix, hermitian=True)


@pytest.mark.slow
@pytest.mark.parametrize("ensemble, beta", [("goe", 1), ("gue", 2)])
def test_exact_law_on_the_gaussian_ensembles(ensemble, beta):
    """alpha_j ~ N(0, 2 / (beta n)), beta n beta_j^2 ~ chi^2_{beta (n - 1 - j)}, independent, at any n (Dumitriu and Edelman, 2002)."""
    n, draws, k = 40, 500, 6
    runs = [ls.lanczos(wigner(n, ensemble=ensemble, seed=draw), k, seed=draw) for draw in range(draws)]
    alphas, betas = (np.array([getattr(run, name)[0] for run in runs]) for name in ("alphas", "betas"))
    for j in range(k):
        assert same_law(alphas[:, j], stats.norm(0, np.sqrt(2 / (beta * n))))
        assert same_law(beta * n * betas[:, j] ** 2, stats.chi2(beta * (n - 1 - j)))
        assert not same_law(beta * n * betas[:, j] ** 2 * 1.1, stats.chi2(beta * (n - 1 - j)))  # a variance of 1.1 is seen
    correlations = np.corrcoef(np.hstack([alphas, betas]).T)[np.triu_indices(2 * k, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(draws)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, beta", [(np.float64, 1), (np.complex128, 2)])
def test_exact_law_on_the_laguerre_ensembles(dtype, beta):
    """A fixed start: the chi-square factors of the bidiagonal model come out of the first coefficients one by one."""
    p, n, draws = 30, 50, 500
    start = np.eye(p)[0]
    factors = []
    for draw in range(draws):
        run = ls.lanczos(wishart(p, n, seed=draw, dtype=dtype), 3, start=start)
        (a0, a1, a2), (b0, b1, _) = run.alphas[0], run.betas[0]
        diagonal0 = a0
        off0 = b0**2 / diagonal0
        diagonal1 = a1 - off0
        off1 = b1**2 / diagonal1
        factors.append(beta * n * np.array([diagonal0, off0, diagonal1, off1, a2 - off1]))
    for sample, degrees in zip(np.transpose(factors), (n, p - 1, n - 1, p - 2, n - 2), strict=True):
        assert same_law(sample, stats.chi2(beta * degrees))
    correlations = np.corrcoef(np.transpose(factors))[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(draws)


def predicted_top(k, theta, ratio):
    """Largest node of the k-point Gauss rule of a semicircle with an atom at theta + 1 / theta, in closed form.

    The semicircle on [-2, 2] has the orthonormal polynomials sin((j + 1) t) / sin(t), x = 2 cos(t); an atom of mass `ratio` times
    that of the semicircle subtracts ``ratio p_k(y) K(x, y) / (1 + ratio K(y, y))`` from the k-th (Uvarov, 1969).
    """
    place = theta + 1 / theta

    def polynomials(x):
        values = [1.0, x]
        while len(values) <= k:
            values.append(x * values[-1] - values[-2])
        return np.array(values[: k + 1])

    there = polynomials(place)

    def modified(x):
        here = polynomials(x)
        return here[k] - ratio * there[k] * (here[:k] @ there[:k]) / (1 + ratio * there[:k] @ there[:k])

    # The zeros of the modified and of the plain polynomial interlace: one zero lies beyond the last plain one.
    return optimize.brentq(modified, 2 * np.cos(np.pi / (k + 1)), place) if k > 1 else ratio * place / (1 + ratio)


@pytest.mark.parametrize(
    "n, theta",
    [
        *((10**4, theta) for theta in (1.5, 2.0, 4.0, 8.0)),
        *(pytest.param(10**5, theta, marks=pytest.mark.slow) for theta in (1.5, 4.0)),
        pytest.param(10**6, 2.0, marks=pytest.mark.slow),
    ],
)
def test_an_outlier_is_found_when_its_weight_has_grown_to_order_one(n, theta):
    """The step that first has an outlier of strength theta to one per cent is ln n / (2 ln theta) and a few, not "the tenth"."""
    bulk = Semicircle().quantile((np.arange(n) + 0.5) / n)
    direction = random_array((n, 1), np.float64, 1)
    spiked = ls.diagonal_operator(bulk) + ls.low_rank(direction / np.linalg.norm(direction), [theta])
    steps = int(np.log(n) / (2 * np.log(theta))) + 14
    excess = []
    for seed in range(6 if n < 10**6 else 2):
        run = ls.lanczos(spiked, steps, seed=seed, reorthogonalize="none")
        alphas, betas = run.jacobi(0)
        tops = np.array([linalg.eigvalsh_tridiagonal(alphas[:k], betas[: k - 1])[-1] for k in range(1, steps + 1)])
        final = tops[-1]
        assert final == pytest.approx(theta + 1 / theta, abs=6 * np.sqrt(2 / n))  # the spread of an outlier around its limit
        first = 1 + int(np.argmax(tops > 0.99 * final))
        weight = run.weights[0][np.abs(run.ritz_values[0] - final) < 1e-3].sum()
        predicted = next(k for k in range(1, steps) if predicted_top(k, theta, weight / (1 - weight)) > 0.99 * (theta + 1 / theta))
        assert abs(first - predicted) <= 1
        excess.append(first - np.log(n) / (2 * np.log(theta)))
    # The start's own weight moves a single run by ln(1 / chi^2_1) / (2 ln theta) steps; the middle one stays.
    assert 2 <= np.median(excess) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 40, 150])
def test_as_many_steps_as_the_order_recover_the_spectrum(n, dtype):
    eigenvalues = np.sort(np.random.default_rng(n).standard_normal(n))
    run = ls.lanczos(wrap(rotated(eigenvalues, n, dtype)), n, num_probes=2, seed=1)
    norm = max(1.0, np.abs(eigenvalues).max())
    np.testing.assert_allclose(run.ritz_values, [eigenvalues] * 2, atol=1e-10 if eps(dtype) < 1e-10 else 50 * eps(dtype) * norm)
    assert run.alphas.shape == run.betas.shape == (2, n)
    np.testing.assert_array_equal(run.num_steps_taken, n)


def square_all_entries(run):
    """The wrong weights that a published tool computes: every entry of the eigenvectors squared, and summed over the wrong axis."""
    alphas, betas = run.jacobi(0)
    _, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))
    weights = (vectors**2).sum(axis=0)
    return weights / weights.sum()


def has_the_moments(nodes, weights, exact):
    return np.allclose([weights @ nodes**p for p in range(len(exact))], exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_a_rule_of_m_nodes_has_2m_moments_and_wrong_weights_do_not(complex_valued, reorthogonalize):
    dtype = np.complex128 if complex_valued else np.float64
    matrix = rotated(np.linspace(-1, 1, 80) ** 3 + 0.2, 3, dtype)
    start = random_array((80,), dtype, 4)
    v = start / np.linalg.norm(start)
    m = 7
    run = ls.lanczos(wrap(matrix), m, start=start, reorthogonalize=reorthogonalize)
    exact = [np.vdot(v, np.linalg.matrix_power(matrix, p) @ v).real for p in range(2 * m)]
    nodes, weights = run.ritz_values[0], run.weights[0]
    assert has_the_moments(nodes, weights, exact)
    following = np.vdot(v, np.linalg.matrix_power(matrix, 2 * m) @ v).real
    assert abs(weights @ nodes ** (2 * m) - following) > 1e-6 * abs(following)  # exactness ends there
    assert not has_the_moments(nodes, square_all_entries(run), exact)
    assert run.start_norms[0] == pytest.approx(np.linalg.norm(start), rel=1e-14)


def test_moments_survive_without_reorthogonalisation():
    """Ghosts share the weight of an outlier: low moments stay exact although the coefficients do not."""
    eigenvalues = np.r_[np.linspace(-1, 1, 400), 30.0]
    v = random_array((401,), np.float64, 0)
    v /= np.linalg.norm(v)
    run = ls.lanczos(ls.diagonal_operator(eigenvalues), 100, start=v, reorthogonalize="none")
    copies = np.abs(run.ritz_values[0] - 30) < 1e-8
    assert copies.sum() > 1
    assert run.weights[0][copies].sum() == pytest.approx(v[-1] ** 2, rel=1e-8)
    for p in range(12):
        assert run.weights[0] @ run.ritz_values[0] ** p == pytest.approx(v**2 @ eigenvalues**p, rel=1e-10)


@pytest.mark.parametrize("shift, factor", [(3.0, 1.0), (-100.0, 1.0), (0.0, -1.0), (0.0, 1e-6), (0.0, 1e6), (2.0, -3.0)])
def test_shift_and_scale_equivariance(shift, factor):
    matrix = rotated(np.linspace(-1, 2, 60))
    run, other = ls.lanczos(wrap(matrix), 15), ls.lanczos(wrap(factor * matrix + shift * np.eye(60)), 15)
    norm = abs(factor) * 2 + abs(shift)
    np.testing.assert_allclose(other.alphas, factor * run.alphas + shift, atol=1e-9 * norm)
    np.testing.assert_allclose(other.betas, abs(factor) * run.betas, atol=1e-9 * norm)


@pytest.mark.parametrize("power", [-150, -60, 60, 150])
def test_powers_of_two_scale_exactly(power):
    """Rounding is the same at every scale of a power of two, so the coefficients are equal to the bit."""
    matrix = rotated(np.linspace(-1, 2, 40))
    run, other = ls.lanczos(wrap(matrix), 12), ls.lanczos(wrap(matrix * 2.0**power), 12)
    np.testing.assert_array_equal(other.alphas, run.alphas * 2.0**power)
    np.testing.assert_array_equal(other.betas, run.betas * 2.0**power)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_extreme_scales(scale):
    """Squares of the coefficients leave the range of doubles, the coefficients do not."""
    matrix = rotated(np.linspace(-1, 2, 40))
    run, other = ls.lanczos(wrap(matrix), 12), ls.lanczos(wrap(matrix * scale), 12)
    np.testing.assert_array_equal(other.num_steps_taken, [12])
    np.testing.assert_allclose(other.alphas / scale, run.alphas, atol=1e-10)
    np.testing.assert_allclose(other.ritz_values / scale, run.ritz_values, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_in_single_precision(scale):
    matrix = rotated(np.linspace(-1, 2, 40))
    other = ls.lanczos(wrap((matrix * scale).astype(np.float32)), 12)
    np.testing.assert_allclose(other.alphas / scale, ls.lanczos(wrap(matrix), 12).alphas, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "eigenvalues",
    [np.r_[np.linspace(-1, 1, 490), np.linspace(5, 20, 10)], 0.9 ** np.arange(500.0), 10.0 ** np.linspace(-12, 3, 500)],
    ids=["outliers", "geometric", "graded"],
)
def test_basis_is_orthonormal(eigenvalues, dtype):
    """Full reorthogonalisation keeps the basis orthonormal to rounding where three terms alone lose everything."""
    run = ls.lanczos(
        ls.diagonal_operator(eigenvalues.astype(np.float32 if eps(dtype) > 1e-10 else np.float64))
        if np.dtype(dtype).kind == "f"
        else wrap(np.diag(eigenvalues).astype(dtype)),
        80,
    )
    basis = run.vectors.bases[0].to_numpy(int(run.num_steps_taken[0]))
    assert np.abs(basis.conj() @ basis.T - np.eye(len(basis))).max() < 100 * eps(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ritz_vectors_and_residual_norms(dtype):
    matrix = rotated(np.r_[np.linspace(-1, 1, 90), 4, 5, 9], 2, dtype)
    run = ls.lanczos(wrap(matrix), 25, num_probes=2)
    for probe in range(2):
        vectors, values = run.ritz_vectors(probe), run.ritz_values[probe]
        assert vectors.shape == (93, 25)
        true = np.linalg.norm(matrix @ vectors - vectors * values.astype(dtype), axis=0)
        np.testing.assert_allclose(true, run.residual_norms[probe], atol=2e3 * eps(dtype))
        eigenvalues = np.linalg.eigvalsh(matrix)
        distance = np.abs(eigenvalues[:, None] - values).min(axis=0)
        assert np.all(distance <= run.residual_norms[probe] + 500 * eps(dtype))


def test_single_precision_coefficients_are_accurate():
    eigenvalues = np.r_[np.linspace(-1, 1, 990), np.linspace(5, 20, 10)]
    exact = ls.lanczos(ls.diagonal_operator(eigenvalues), 30, start=random_array((1000,), np.float32, 0).astype(float))
    single = ls.lanczos(ls.diagonal_operator(eigenvalues.astype(np.float32)), 30, start=random_array((1000,), np.float32, 0))
    # Coefficients amplify rounding as outliers converge; the measure does not.
    for p in range(8):
        moments = [run.weights[0] @ (run.ritz_values[0] / 20) ** p for run in (exact, single)]
        assert moments[1] == pytest.approx(moments[0], abs=1e-6)


LAPLACIANS = {
    "interval, fixed ends": special_arrays.LaplacianNd((40,), boundary_conditions="dirichlet", dtype=np.float64),
    "rectangle, free": special_arrays.LaplacianNd((6, 7), boundary_conditions="neumann", dtype=np.float64),
    "circle": special_arrays.LaplacianNd((31,), boundary_conditions="periodic", dtype=np.float64),
    "beam": special_arrays.Sakurai(60, dtype=np.float64),
}


@pytest.mark.parametrize("name", LAPLACIANS)
def test_spectra_that_are_known_in_closed_form(name):
    array = LAPLACIANS[name]
    n = array.shape[0]
    analytic = np.sort(array.eigenvalues(n))
    norm = np.abs(analytic).max()
    operator = ls.aslinearoperator(array.tosparse().astype(float), hermitian=True)
    run = ls.lanczos(operator, n, seed=2)
    taken = int(run.num_steps_taken[0])
    distance = np.abs(analytic[:, None] - run.ritz_values[0, :taken])
    assert distance.min(axis=0).max() < 1e-10 * norm and distance.min(axis=1).max() < 1e-10 * norm  # every eigenvalue, and nothing else
    result = ls.eigsh(operator, k=4, which="LA", tol=1e-10)
    np.testing.assert_allclose(result.eigenvalues[-1], analytic[-1], atol=1e-9 * norm)
