"""Spectra that are known in closed form with their multiplicities, and those of real matrices from dense LAPACK."""

import functools
import itertools
import math

import numpy as np
import pytest
from helpers import data_file
from scipy import io, sparse
from scipy.sparse.linalg import _special_sparse_arrays as special_arrays

import linop_spectra as ls
from linop_spectra.krylov import solve

# -- Laplacians, a beam, a chain of masses and springs --------------------------------------------------------------------------


def laplacian(shape, conditions):
    array = special_arrays.LaplacianNd(shape, boundary_conditions=conditions, dtype=np.float64)
    return array, sparse.csr_array(array.tosparse().astype(float)), np.sort(array.eigenvalues())


GRIDS = [
    ((200,), "dirichlet"), ((201,), "neumann"), ((202,), "periodic"),
    ((16, 21), "dirichlet"), ((12, 12), "neumann"), ((10, 20), "periodic"), ((5, 6, 8), "periodic"), ((6, 6, 6), "dirichlet"),
]  # fmt: skip


@functools.cache
def case(name):
    """Operator and its eigenvalues in ascending order."""
    if name == "beam":
        array = special_arrays.Sakurai(200, dtype=np.float64)
        return ls.aslinearoperator(sparse.csr_array(array.tosparse()), hermitian=True), np.sort(array.eigenvalues())
    _, matrix, exact = laplacian(*name)
    return ls.aslinearoperator(matrix), exact


NAMES = [*GRIDS, "beam"]




@pytest.mark.parametrize("which", ["LA", "SA", "LM", "SM", "BE"])
@pytest.mark.parametrize("name", NAMES, ids=str)
def test_all_copies_of_the_extreme_eigenvalues(name, which):
    operator, exact = case(name)
    norm = np.abs(exact).max()
    k = 7
    result = ls.eigsh(operator, k, which=which, tol=1e-9)
    expected = {"LA": exact[-k:], "SA": exact[:k], "BE": np.r_[exact[: k // 2], exact[k // 2 - k :]]}
    by_modulus = exact[np.argsort(np.abs(exact), kind="stable")]
    expected |= {"SM": np.sort(by_modulus[:k]), "LM": np.sort(by_modulus[-k:])}
    np.testing.assert_allclose(result.eigenvalues, expected[which], atol=1e-8 * norm)
    assert result.converged.all()


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_densities_against_the_eigenvalues(name):
    operator, exact = case(name)
    norm, n = np.abs(exact).max(), len(exact)
    S = ls.spectral_density(operator, num_steps=30, num_probes=3)
    grid = np.concatenate([exact, S.nodes])
    for side in (1e-9 * norm, -1e-9 * norm):
        share = np.searchsorted(exact, grid + side, side="right") / n
        assert np.abs(S.cdf(grid + side) - share).max() <= S.kolmogorov_bound + 1e-9
    for function in (lambda x: x, lambda x: x**2 / norm, lambda x: x**3 / norm**2):
        low, high = S.trace(function).confidence_interval(0.9999)
        assert low - 1e-9 * n * norm <= function(exact).sum() <= high + 1e-9 * n * norm
    (smallest, low), (largest, high) = S.extreme_eigenvalues()
    for value, residual in ((smallest, low), (largest, high)):
        assert np.abs(exact - value).min() <= residual + 1e-10 * norm


def test_a_chain_of_masses_and_springs():
    """The generalised problem K x = lambda M x with lambda = 1, 4, 9, ..., n^2, as M^(-1/2) K M^(-1/2)."""
    n = 60
    pair = special_arrays.MikotaPair(n, dtype=np.float64)
    root = ls.diagonal_operator(1 / np.sqrt(pair.m.toarray().diagonal()))
    stiffness = ls.aslinearoperator(sparse.csr_array(pair.k.tosparse()), hermitian=True)
    symmetric = root @ stiffness @ root
    assert symmetric.hermitian is True
    squares = np.arange(1.0, n + 1) ** 2
    np.testing.assert_allclose(np.sort(pair.eigenvalues()), squares, rtol=1e-12)
    for which, expected in (("LA", squares[-5:]), ("SM", squares[:5]), ("SA", squares[:5]), ("BE", np.r_[squares[:2], squares[-3:]])):
        np.testing.assert_allclose(ls.eigsh(symmetric, 5, which=which, tol=1e-12).eigenvalues, expected, atol=1e-8 * n**2)
    estimate = ls.logdet(symmetric, num_steps=n)
    assert estimate.value == pytest.approx(2 * math.lgamma(n + 1), rel=1e-9)
    x = np.asarray(solve(symmetric, np.ones(n), tol=1e-12))
    np.testing.assert_allclose(symmetric @ x, np.ones(n), atol=1e-8)


# -- Kneser graphs ------------------------------------------------------------------------------------------------------------------


def kneser(n, k):
    """Adjacency matrix of the k-subsets of n things, joined when they share none, with its eigenvalues and multiplicities."""
    subsets = list(itertools.combinations(range(n), k))
    incidence = sparse.csr_array(np.array([[thing in subset for thing in range(n)] for subset in subsets], dtype=np.float64))
    shared = incidence @ incidence.T
    adjacency = sparse.csr_array((shared.toarray() == 0).astype(np.float64))
    spectrum = {
        (-1) ** j * math.comb(n - k - j, k - j): math.comb(n, j) - (math.comb(n, j - 1) if j else 0) for j in range(k + 1)
    }
    return adjacency, spectrum


GRAPHS = [(5, 2), (7, 2), (7, 3), (9, 3), (9, 4), (10, 3), (11, 5)]


@pytest.mark.parametrize("n, k", GRAPHS)
def test_eigenvalues_of_kneser_graphs_with_all_their_copies(n, k):
    adjacency, spectrum = kneser(n, k)
    exact = np.sort(np.concatenate([np.full(count, float(value)) for value, count in spectrum.items()]))
    assert len(exact) == adjacency.shape[0] == math.comb(n, k)
    operator = ls.aslinearoperator(adjacency)
    wanted = min(n + 1, len(exact))  # the top one, and all n - 1 copies of the next in modulus
    top = exact[-1]
    for which in ("LA", "SA", "LM"):
        result = ls.eigsh(operator, wanted, which=which, tol=1e-9)
        by_modulus = np.sort(np.abs(exact))[-wanted:]
        expected = {"LA": exact[-wanted:], "SA": exact[:wanted], "LM": by_modulus}[which]
        found = np.sort(np.abs(result.eigenvalues)) if which == "LM" else result.eigenvalues
        np.testing.assert_allclose(found, expected, atol=1e-7 * top)
    smallest = ls.eigsh(operator, 5, which="SM", tol=1e-9).eigenvalues
    np.testing.assert_allclose(np.sort(np.abs(smallest)), np.sort(np.abs(exact))[:5], atol=1e-7 * top)


@pytest.mark.parametrize("n, k", GRAPHS)
def test_runs_on_kneser_graphs_end_after_one_step_for_each_eigenvalue(n, k):
    adjacency, spectrum = kneser(n, k)
    size = adjacency.shape[0]
    operator = ls.aslinearoperator(adjacency)
    # The order, so that the weight of the simple top eigenvalue is seldom so small that rounding hides the end.
    run = ls.lanczos(operator, min(20, size), num_probes=4, seed=1)
    assert np.all(run.num_steps_taken == k + 1)
    for probe in range(4):
        np.testing.assert_allclose(run.ritz_values[probe, : k + 1], sorted(spectrum), atol=1e-8 * max(spectrum))
        # Each weight follows a Beta law whose mean is the multiplicity over the order.
        for value, weight in zip(sorted(spectrum), run.weights[probe], strict=False):
            share = spectrum[value] / size
            assert abs(weight - share) <= 6 * np.sqrt(2 * share * (1 - share) / (size + 2))


@pytest.mark.parametrize("n, k", GRAPHS[2:])
def test_densities_of_kneser_graphs(n, k):
    adjacency, spectrum = kneser(n, k)
    size = adjacency.shape[0]
    S = ls.spectral_density(ls.aslinearoperator(adjacency), num_steps=min(20, size))
    for edges, power in ((0.0, 1), (size * math.comb(n - k, k), 2)):  # no loops; every vertex has as many neighbours
        estimate = S.trace(lambda x, power=power: x**power)
        low, high = estimate.confidence_interval(0.999)
        assert low <= edges <= high
    (top,) = (outlier for outlier in S.outliers() if outlier.value > 0.9 * max(spectrum)) if S.outliers() else (None,)
    if top is not None:
        assert top.value == pytest.approx(max(spectrum), rel=1e-9)
        assert top.weight == pytest.approx(1 / size)
    x = np.array(sorted(spectrum)) + 0.5
    share = np.array([sum(count for value, count in spectrum.items() if value <= place) for place in x]) / size
    assert np.abs(S.cdf(x) - share).max() <= S.kolmogorov_bound


# -- real matrices ----------------------------------------------------------------------------------------------------------------

SMALL = ["LFAT5", "lund_a", "lund_b", "494_bus", "662_bus-banner", "Si2-banner", "nos3-banner", "G51", "bcsstk09", "1138_bus-headerfix"]


@functools.cache
def real(name):
    matrix = io.mmread(data_file("matrices", f"{name}.mtx.gz")).tocsr()
    return matrix, np.linalg.eigvalsh(matrix.toarray())


MISSING_COPIES = [("bcsstk09", "SA"), ("bcsstk09", "BE")]
# The smallest of mhd1280b lie 1e-12 of the norm apart: any set of them would do.
PAIRS = [(name, which) for name in SMALL for which in ("LA", "SA", "LM", "SM", "BE") if (name, which) not in MISSING_COPIES]
PAIRS += [("mhd1280b", "LA"), ("mhd1280b", "LM")]


@pytest.mark.parametrize("name, which", PAIRS)
def test_real_matrices(name, which):
    matrix, exact = real(name)
    norm = np.abs(exact).max()
    k = 6
    result = ls.eigsh(ls.aslinearoperator(matrix, hermitian=True), k, which=which, tol=1e-9)
    order = np.argsort(np.abs(exact), kind="stable")
    expected = {
        "LA": exact[-k:], "SA": exact[:k], "BE": np.r_[exact[: k // 2], exact[k // 2 - k :]],
        "LM": np.sort(exact[order[-k:]]), "SM": np.sort(exact[order[:k]]),
    }[which]  # fmt: skip
    np.testing.assert_allclose(result.eigenvalues, expected, atol=1e-8 * norm)
    assert result.converged.all()
    true = np.linalg.norm(matrix @ result.eigenvectors - result.eigenvectors * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residual_norms, true, atol=1e-13 * norm)


@pytest.mark.parametrize("name, which", MISSING_COPIES)
def test_double_eigenvalues_of_a_plate(name, which):
    matrix, exact = real(name)
    for seed in range(4):
        result = ls.eigsh(ls.aslinearoperator(matrix), 6, which=which, tol=1e-9, seed=seed)
        if result.converged.all():  # else it is said
            expected = exact[:6] if which == "SA" else np.r_[exact[:3], exact[-3:]]
            np.testing.assert_allclose(result.eigenvalues, expected, atol=1e-8 * exact[-1])


@pytest.mark.parametrize("k", [6, 7])
def test_both_ends_of_a_ring(k):
    """All eigenvalues of a ring but the two at its ends are double."""
    operator, exact = case(((400,), "periodic"))
    for seed in range(3):
        result = ls.eigsh(operator, k, which="BE", tol=1e-9, seed=seed)
        if result.converged.all():  # else it is said
            np.testing.assert_allclose(result.eigenvalues, np.r_[exact[: k // 2], exact[k // 2 - k :]], atol=1e-6)


@pytest.mark.parametrize("name", ["bcsstk13", "bcsstk15-banner", "3elt", "ca-GrQc", "bcspwr10"])
def test_larger_matrices_against_arpack(name):
    """Too large for LAPACK here: another implementation, and residuals."""
    from scipy.sparse.linalg import eigsh

    matrix = io.mmread(data_file("matrices", f"{name}.mtx.gz")).tocsr().astype(float)
    norm = np.abs(matrix).sum(axis=0).max()
    result = ls.eigsh(ls.aslinearoperator(matrix), 6, which="LA", tol=1e-9)
    v0 = np.random.default_rng(0).standard_normal(matrix.shape[0])
    other = eigsh(matrix, 10, which="LA", tol=1e-12, ncv=60, return_eigenvectors=False, v0=v0)
    np.testing.assert_allclose(result.eigenvalues, np.sort(other)[-6:], atol=1e-8 * norm)
    true = np.linalg.norm(matrix @ result.eigenvectors - result.eigenvectors * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residual_norms, true, atol=1e-13 * norm)
    assert result.converged.all()
