"""The rules of an operator, for every ensemble in every precision on every backend, against the dense matrix."""

import pickle

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array

import linop_spectra as ls
from linop_spectra.backends import random_vector
from linop_spectra.random_matrices import Semicircle, wigner, wishart
from linop_spectra.random_matrices.ensembles import ensemble
from linop_spectra.random_matrices.ensembles.band_wigner import band_wigner
from linop_spectra.random_matrices.ensembles.deformed_wigner import deformed_wigner
from linop_spectra.random_matrices.ensembles.erdos_renyi import erdos_renyi
from linop_spectra.random_matrices.ensembles.gaussian import gaussian
from linop_spectra.random_matrices.ensembles.haar_rotated import haar_rotated
from linop_spectra.random_matrices.ensembles.haar_rotation import haar_rotation
from linop_spectra.random_matrices.ensembles.levy_matrix import levy_matrix
from linop_spectra.random_matrices.ensembles.power_law_matrix import power_law_matrix
from linop_spectra.random_matrices.ensembles.sample_covariance import sample_covariance
from linop_spectra.random_matrices.ensembles.spiked_wigner import spiked_wigner
from linop_spectra.random_matrices.ensembles.spiked_wishart import spiked_wishart
from linop_spectra.random_matrices.ensembles.thinned_wigner import thinned_wigner
from linop_spectra.random_matrices.ensembles.thinned_wishart import thinned_wishart
from linop_spectra.random_matrices.ensembles.tridiagonal import tridiagonal_wigner, tridiagonal_wishart
from linop_spectra.random_matrices.ensembles.weighted_gram import weighted_gram
from linop_spectra.random_matrices.ensembles.wigner_product import wigner_product
from linop_spectra.random_matrices.ensembles.wishart_product import wishart_product

N = 22


def kind(dtype):
    return {"dtype": dtype, "ensemble": "gue" if np.dtype(dtype).kind == "c" else "goe"}


def wide(dtype):
    return np.dtype(np.complex128 if np.dtype(dtype).kind == "c" else np.float64)


def stream(count, domain, dtype, seed=4):
    return random_vector(count, kind="normal", seed=seed, domain=domain, index=0, dtype=wide(dtype))


def dense_gaussian(m, n, domain, dtype):
    return stream(m * n, domain, dtype).reshape(m, n) / np.sqrt(n)


def dense_wishart(p, n, domain, dtype):
    panel = stream(p * n, domain, dtype).reshape(n, p)
    return panel.T @ panel.conj() / n


def dense_wigner(n, domain, dtype):
    matrix = np.zeros((n, n), wide(dtype))
    matrix[np.tril_indices(n)] = stream(n * (n + 1) // 2, domain, dtype)
    diagonal = np.diag(matrix).real * np.sqrt(2)
    matrix = np.tril(matrix, -1) + np.tril(matrix, -1).conj().T
    matrix[np.diag_indices(n)] = diagonal
    return matrix / np.sqrt(n)


def dense_weighted(weights, p, dtype):
    panel = stream(p * len(weights), "ensemble/weighted_gram", dtype).reshape(len(weights), p)
    return (panel.T * np.asarray(weights)) @ panel.conj() / len(weights)


def dense_spiked_wishart(dtype):
    spiked = spiked_wishart(N, 40, [5.0, 0.2], dtype=dtype, seed=4)
    population = np.eye(N) + spiked.directions.astype(wide(dtype)) * [4.0, -0.8] @ spiked.directions.conj().T
    values, vectors = np.linalg.eigh(population)
    root = (vectors * np.sqrt(values)) @ vectors.conj().T
    return root @ dense_wishart(N, 40, "ensemble/wishart", dtype) @ root


def dense_spiked_wigner(dtype):
    u = spiked_wigner(N, [3.0, -2.0], **kind(dtype), seed=4).directions
    return dense_wigner(N, f"ensemble/{kind(dtype)['ensemble']}", dtype) + (u * [3.0, -2.0]) @ u.conj().T


def dense_product(dtype):
    x = dense_gaussian(N, 30, "ensemble/wishart_product/1", dtype)
    return x @ dense_wishart(30, 9, "ensemble/wishart_product/2", dtype) @ x.conj().T


def dense_low_rank(dtype):
    domain = f"ensemble/wigner_product/{kind(dtype)['ensemble']}"
    x = dense_gaussian(N, 7, f"{domain}/outer", dtype)
    return x @ dense_wigner(7, f"{domain}/inner", dtype) @ x.conj().T


def dense_tridiagonal(operator):
    return np.diag(operator.diagonal) + np.diag(operator.off_diagonal, 1) + np.diag(operator.off_diagonal, -1)


def dense_band(dtype, periodic):
    b = 3
    entries = stream(N * (b + 1), "ensemble/band_wigner", dtype).reshape(b + 1, N) / np.sqrt(2 * b + 1)
    matrix = np.zeros((N, N), wide(dtype))
    for k in range(1, b + 1):
        for j in range(N):
            if periodic or j + k < N:
                matrix[(j + k) % N, j] = entries[k, j]
    matrix = matrix + matrix.conj().T
    matrix[np.diag_indices(N)] = entries[0].real * (np.sqrt(2) if np.dtype(dtype).kind == "c" else 1)
    return matrix


def dense_covariance(dtype, method):
    q = haar_rotation(N, method=method, dtype=wide(dtype), seed=4).to_dense()
    t = np.sqrt(np.linspace(0, 3, N))
    return q @ (t[:, None] * dense_wishart(N, 40, "ensemble/wishart", dtype) * t) @ q.conj().T


def dense_rotated(eigenvalues, dtype, method="fast"):
    q = haar_rotation(len(eigenvalues), method=method, dtype=wide(dtype), seed=4).to_dense()
    return (q * eigenvalues) @ q.conj().T


WEIGHTS = np.linspace(-1, 2, 35)
# Name: (operator of a dtype and a backend, dense matrix of a dtype or None where it is the operator's own, only real ones).
ZOO = {
    "wigner": (
        lambda t, b, **o: wigner(N, seed=4, **kind(t), backend=b, **o),
        lambda t: dense_wigner(N, f"ensemble/{kind(t)['ensemble']}", t),
    ),
    "wishart": (lambda t, b, **o: wishart(N, 40, seed=4, dtype=t, backend=b, **o), lambda t: dense_wishart(N, 40, "ensemble/wishart", t)),
    "gaussian": (
        lambda t, b, **o: gaussian(13, N, seed=4, dtype=t, backend=b, **o),
        lambda t: dense_gaussian(13, N, "ensemble/gaussian", t),
    ),
    "levy": (lambda t, b, **o: levy_matrix(N, 1.5, seed=4, dtype=t, backend=b, **o), None),
    "tridiagonal wigner": (
        lambda t, b: tridiagonal_wigner(N, beta=2, seed=4, dtype=t, backend=b),
        lambda t: dense_tridiagonal(tridiagonal_wigner(N, beta=2, seed=4)),
    ),
    "tridiagonal wishart": (
        lambda t, b: tridiagonal_wishart(N, 9, seed=4, dtype=t, backend=b),
        lambda t: dense_tridiagonal(tridiagonal_wishart(N, 9, seed=4)),
    ),
    "spiked wigner": (lambda t, b, **o: spiked_wigner(N, [3.0, -2.0], seed=4, **kind(t), backend=b, **o), dense_spiked_wigner),
    "spiked wishart": (lambda t, b, **o: spiked_wishart(N, 40, [5.0, 0.2], seed=4, dtype=t, backend=b, **o), dense_spiked_wishart),
    "deformed wigner": (
        lambda t, b, **o: deformed_wigner(np.arange(N) / 9, seed=4, **kind(t), backend=b, **o),
        lambda t: np.diag(np.arange(N) / 9) + dense_wigner(N, f"ensemble/{kind(t)['ensemble']}", t),
    ),
    "sample covariance": (
        lambda t, b, **o: sample_covariance(np.linspace(0, 3, N), 40, basis="fast", seed=4, dtype=t, backend=b, **o),
        lambda t: dense_covariance(t, "fast"),
    ),
    "sample covariance, exact": (
        lambda t, b: sample_covariance(np.linspace(0, 3, N), 40, basis="exact", seed=4, dtype=t, backend=b),
        lambda t: dense_covariance(t, "exact"),
    ),
    "wishart product": (lambda t, b, **o: wishart_product((N, 30, 9), seed=4, dtype=t, backend=b, **o), dense_product),
    "wigner product": (lambda t, b, **o: wigner_product(N, 7, seed=4, **kind(t), backend=b, **o), dense_low_rank),
    "thinned wigner": (lambda t, b: thinned_wigner(N, 4, seed=4, **kind(t), backend=b), None),
    "thinned wishart": (lambda t, b: thinned_wishart(N, 15, 3.5, seed=4, dtype=t, backend=b), None),
    "erdos-renyi": (lambda t, b: erdos_renyi(N, probability=0.3, seed=4, dtype=t, backend=b), None),
    "centered erdos-renyi": (
        lambda t, b: erdos_renyi(N, probability=0.3, centered=True, seed=4, dtype=t, backend=b),
        lambda t: erdos_renyi(N, probability=0.3, seed=4).to_dense() - 0.3 / np.sqrt(0.21 * N) * (1 - np.eye(N)),
    ),
    "band": (lambda t, b: band_wigner(N, 3, seed=4, dtype=t, backend=b), lambda t: dense_band(t, True)),
    "open band": (lambda t, b: band_wigner(N, 3, periodic=False, seed=4, dtype=t, backend=b), lambda t: dense_band(t, False)),
    "rotation, even": (lambda t, b: haar_rotation(N, seed=4, dtype=t, backend=b), None),
    "rotation, odd": (lambda t, b: haar_rotation(21, seed=4, dtype=t, backend=b), None),
    "rotation, exact": (lambda t, b: haar_rotation(N, method="exact", seed=4, dtype=t, backend=b), None),
    "rotated": (
        lambda t, b: haar_rotated(Semicircle(), n=N, seed=4, dtype=t, backend=b),
        lambda t: dense_rotated(Semicircle().quantile((np.arange(N) + 0.5) / N), t),
    ),
    "power law": (
        lambda t, b: power_law_matrix(N, 1.3, seed=4, method="exact", dtype=t, backend=b),
        lambda t: dense_rotated(np.arange(1.0, N + 1) ** -1.3, t, "exact"),
    ),
    "weighted gram": (
        lambda t, b, **o: weighted_gram(WEIGHTS, N, seed=4, dtype=t, backend=b, **o),
        lambda t: dense_weighted(WEIGHTS, N, t),
    ),
}
REAL = {"levy", "tridiagonal wigner", "tridiagonal wishart", "erdos-renyi", "centered erdos-renyi"}
SPARSE = {"thinned wigner", "thinned wishart", "erdos-renyi", "centered erdos-renyi"}
POSITIVE = {
    "wishart",
    "tridiagonal wishart",
    "spiked wishart",
    "sample covariance",
    "sample covariance, exact",
    "wishart product",
    "thinned wishart",
    "power law",
}
REGENERATED = [name for name in ZOO if name in {"wigner", "wishart", "gaussian", "levy", "weighted gram"} or name.endswith("product")]
REGENERATED += ["spiked wigner", "spiked wishart", "deformed wigner", "sample covariance"]


def dense_of(name, dtype):
    make, dense = ZOO[name]
    matrix = make(wide(dtype), "numpy").to_dense() if dense is None else dense(dtype)
    return np.asarray(matrix, dtype=wide(dtype))


def tolerance(matrix, dtype):
    return 100 * eps(dtype) * max(1.0, float(np.abs(matrix).max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", ZOO)
def test_the_contract_in_every_precision(name, dtype):
    if name in REAL and np.dtype(dtype).kind == "c":
        with pytest.raises(TypeError, match=r"The argument dtype is complex.*pass float32 or float64"):
            ZOO[name][0](dtype, "numpy")
        return
    operator, matrix = ZOO[name][0](dtype, "numpy"), dense_of(name, dtype)
    bound = tolerance(matrix, dtype)
    m, n = matrix.shape
    assert isinstance(operator, ls.LinearOperator) and operator.shape == (m, n) and operator.dtype == dtype
    dense = operator.to_dense()
    assert dense.dtype == dtype
    np.testing.assert_allclose(dense, matrix, atol=bound)
    x, y = random_array((n, 5), dtype, 7), random_array((m, 3), dtype, 8)
    kept = x.copy()
    before = operator.num_matvecs
    product = operator.matmat(x).copy()
    np.testing.assert_allclose(product, matrix @ x, atol=10 * bound)
    np.testing.assert_allclose(operator.rmatmat(y), matrix.conj().T @ y, atol=10 * bound)
    assert operator.num_matvecs == before + 8
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(operator.matmat(x), product)
    for width in (1, 2, 4):
        np.testing.assert_allclose(operator.matmat(x[:, :width]), product[:, :width], atol=10 * bound)
    np.testing.assert_allclose(operator @ x[:, 0], product[:, 0], atol=10 * bound)
    assert operator.matmat(np.zeros((n, 0), dtype)).shape == (m, 0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(operator)) @ x, product)
    np.testing.assert_allclose(operator.to_scipy() @ x, product, atol=10 * bound)
    check = ls.check_operator(operator)
    assert check.passed, str(check)
    if np.dtype(dtype).kind != "c":
        z = random_array((n, 2), np.complex128, 9)
        np.testing.assert_allclose(operator @ z, matrix @ z, atol=10 * bound)
    assert repr(operator).splitlines()[0].split()[1:4] == [str(m), "x", str(n)]


@pytest.mark.parametrize("name", ZOO)
def test_claims_are_true_and_made(name):
    operator, matrix = ZOO[name][0](np.float64, "numpy"), dense_of(name, np.float64)
    if name == "gaussian" or name.startswith("rotation"):
        assert operator.hermitian is not True
        return
    assert operator.hermitian is True
    np.testing.assert_allclose(matrix, matrix.conj().T, atol=1e-13)
    assert (operator.positive_semidefinite is True) == (name in POSITIVE)
    if name in POSITIVE:
        assert np.linalg.eigvalsh(matrix).min() > -1e-12
    else:
        assert np.linalg.eigvalsh(matrix).min() < -0.01


@pytest.mark.parametrize("place", [name for name in BACKENDS if name != "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128], ids=("float32", "complex128"))
@pytest.mark.parametrize("name", ZOO)
def test_the_contract_on_every_backend(name, dtype, place):
    if name in REAL and np.dtype(dtype).kind == "c":
        return
    backend = BACKENDS[place]()
    if place == "strict" and name in SPARSE:
        with pytest.raises(TypeError, match=r"multiplies vectors of NumPy, CuPy and torch"):
            ZOO[name][0](dtype, backend)
        return
    operator, matrix = ZOO[name][0](dtype, backend), dense_of(name, dtype)
    bound, host = 10 * tolerance(matrix, dtype), backend.to_numpy
    m, n = matrix.shape
    assert operator.backend is backend
    x, y = random_array((n, 3), dtype, 7), random_array((m, 2), dtype, 8)
    ours = backend.asarray(x.copy())
    product = operator.matmat(ours)
    assert backend.owns(product) and backend.dtype_of(product) == dtype
    np.testing.assert_allclose(host(product), matrix @ x, atol=bound)
    np.testing.assert_allclose(host(operator.rmatmat(backend.asarray(y))), matrix.conj().T @ y, atol=bound)
    np.testing.assert_array_equal(host(ours), x)
    assert tuple(operator.matmat(np.zeros((n, 0), dtype)).shape) == (m, 0)
    assert ls.check_operator(operator).passed


@pytest.mark.parametrize("dtype", [np.float32, np.complex128], ids=("float32", "complex128"))
@pytest.mark.parametrize("name", REGENERATED)
def test_products_are_the_same_to_the_bit_held_or_made_anew(name, dtype, monkeypatch):
    if name in REAL and np.dtype(dtype).kind == "c":
        return
    monkeypatch.setattr(ensemble, "PANEL_BYTES", 400)
    make = ZOO[name][0]
    held, anew = make(dtype, "numpy"), make(dtype, "numpy", memory_budget=900)
    assert "regenerated in every product" in repr(anew) and "regenerated in every product" not in repr(held)
    for k in (1, 3):
        x = random_array((held.shape[1], k), dtype, 1)
        np.testing.assert_array_equal(held @ x, anew @ x)
        np.testing.assert_array_equal(held @ x, held @ x)


ROUNDED_ONCE = [
    ("wigner", (float, np.float32)),
    ("wigner", (complex, np.complex64)),
    ("gaussian", (complex, np.complex64)),
    ("levy", (float, np.float32)),
    ("tridiagonal wigner", (float, np.float32)),
    ("tridiagonal wishart", (float, np.float32)),
    ("thinned wigner", (float, np.float32)),
    ("thinned wigner", (complex, np.complex64)),
    ("erdos-renyi", (float, np.float32)),
    ("band", (float, np.float32)),
    ("open band", (complex, np.complex64)),
]


@pytest.mark.parametrize(("name", "types"), ROUNDED_ONCE)
def test_single_precision_is_double_precision_rounded_once(name, types):
    wide_matrix, narrow = (ZOO[name][0](dtype, "numpy").to_dense() for dtype in types)
    np.testing.assert_array_equal(narrow, wide_matrix.astype(types[1]))


def probe_correlation(operator, seed):
    """Cosine of the first row of a matrix with the probe of the same seed, in units of its standard deviation."""
    n = operator.shape[1]
    probe = random_vector(n, kind="sphere", seed=seed, domain="probe", index=0, dtype=np.dtype(float))
    row = operator.rmatvec(np.eye(operator.shape[0])[0])
    return np.sqrt(n) * (row @ probe) / np.linalg.norm(row)


@pytest.mark.parametrize("name", ZOO)
def test_the_same_seed_is_the_same_matrix(name):
    first, again = (ZOO[name][0](float, "numpy").to_dense() for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_streams_of_different_ensembles_are_apart():
    """Same seed, different domains: no two matrices share their numbers, nor does one share a probe's."""
    n = 60
    square = {
        "wigner": wigner(n, seed=3),
        "gaussian": gaussian(n, n, seed=3),
        "wishart": wishart(n, n, seed=3),
        "band": band_wigner(n, 29, seed=3),
        "levy": levy_matrix(n, 1.9, seed=3),
        "thinned": thinned_wigner(n, n, seed=3),
        "gram": weighted_gram(np.ones(n), n, seed=3),
        "product": wigner_product(n, n, seed=3),
        "wishart product": wishart_product((n, n), seed=3),
        "rotation": haar_rotation(n, seed=3),
        "exact rotation": haar_rotation(n, seed=3, method="exact"),
    }
    lower = np.tril_indices(n, -1)
    samples = np.array([np.sign(operator.to_dense()[lower]) for operator in square.values()])
    correlations = np.corrcoef(samples)[np.triu_indices(len(samples), 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(len(lower[0]))
    for operator in square.values():
        assert abs(probe_correlation(operator, 3)) < 4


@pytest.mark.parametrize("name", ZOO)
def test_wrong_shapes_and_not_a_number(name):
    operator = ZOO[name][0](float, "numpy")
    with pytest.raises(ValueError, match=r"needs a vector of length"):
        operator @ np.ones(7)
    with pytest.raises(ValueError, match=r"needs a block of vectors"):
        operator @ np.ones((7, 2))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("band", lambda **o: band_wigner(9, 2, **o)),
        ("gaussian", lambda **o: gaussian(9, 2, **o)),
        ("levy", lambda **o: levy_matrix(9, 1.0, **o)),
        ("tridiagonal wigner", lambda **o: tridiagonal_wigner(9, **o)),
        ("tridiagonal wishart", lambda **o: tridiagonal_wishart(9, 9, **o)),
        ("spiked wigner", lambda **o: spiked_wigner(9, 3.0, **o)),
        ("spiked wishart", lambda **o: spiked_wishart(9, 9, 3.0, **o)),
        ("deformed", lambda **o: deformed_wigner(np.ones(9), **o)),
        ("covariance", lambda **o: sample_covariance(np.ones(9), 9, basis="fast", **o)),
        ("wishart product", lambda **o: wishart_product((9, 9, 9), **o)),
        ("wigner product", lambda **o: wigner_product(9, 4, **o)),
        ("thinned wigner", lambda **o: thinned_wigner(9, 4, **o)),
        ("thinned wishart", lambda **o: thinned_wishart(9, 9, 4, **o)),
        ("erdos-renyi", lambda **o: erdos_renyi(9, degree=4, **o)),
        ("rotation", lambda **o: haar_rotation(9, **o)),
        ("rotated", lambda **o: haar_rotated(np.ones(9), **o)),
        ("power law", lambda **o: power_law_matrix(9, **o)),
        ("weighted gram", lambda **o: weighted_gram(np.ones(9), 9, **o)),
    ],
)
def test_bad_options_are_named(name, make):
    for seed in (-1, 1.5, True, None):
        with pytest.raises(ValueError, match="The argument seed must be a whole number of at least 0"):
            make(seed=seed)
    with pytest.raises(ValueError, match="The argument backend is 'abacus'"):
        make(backend="abacus")
    with pytest.raises(TypeError, match="The argument dtype is int64"):
        make(dtype=int)
