"""Where Krylov vectors are kept: the numbers are those of a run that keeps them as they are."""

import logging

import numpy as np
import pytest
from helpers import device_of_numpy, eps, rotated

import linop_spectra as ls
from linop_spectra.backends import get_backend
from linop_spectra.krylov.basis import DenseBasis, StoredBasis

N = 400
EIGENVALUES = np.r_[np.linspace(-1, 1, N - 6), [3, 5, 9, 15, 25, 40]]


def on_device(dtype=np.float64):
    """An operator whose backend is no NumPy, on NumPy arrays."""
    matrix = rotated(EIGENVALUES, dtype=dtype)
    return ls.aslinearoperator(matrix, hermitian=True, backend=device_of_numpy())


def budget(share, k, probes=1, itemsize=8):
    """Bytes of a share of the whole basis, and the newest vectors."""
    return int((share * (k + 1) + 3.5) * probes * N * itemsize)


# -- the basis ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("storage, on_host", [(np.float16, False), (np.float32, False), (None, True)])
@pytest.mark.parametrize("tile", [7, 10**6])
def test_a_stored_basis_does_what_the_vectors_it_returns_would(dtype, storage, on_host, tile):
    rng, backend = np.random.default_rng(0), get_backend("numpy")
    real = np.dtype(np.dtype(dtype).char.lower())
    storage = real if storage is None else np.dtype(storage)
    vectors = rng.standard_normal((40, 50)) + (1j * rng.standard_normal((40, 50)) if np.dtype(dtype).kind == "c" else 0)
    vectors = (np.linalg.qr(vectors.T)[0].T).astype(dtype)
    basis = StoredBasis(backend, 50, dtype, storage=storage, on_host=on_host)
    basis._tile = tile
    for vector in vectors:
        basis.append()[...] = vector
    kept = np.stack([basis.row(i) for i in range(40)])
    np.testing.assert_array_equal(kept[-3:], vectors[-3:])
    assert np.max(np.abs(kept - vectors)) <= (0 if storage == real else float(np.finfo(storage).eps))
    w = rng.standard_normal(50).astype(dtype)
    tolerance = 20 * eps(dtype)
    for length in (1, 16, 17, 36, 37, 40):
        np.testing.assert_allclose(basis.coefficients(w, length), kept[:length].conj() @ w, atol=tolerance)
        weights = rng.standard_normal((2, length))
        np.testing.assert_allclose(basis.combine(weights), weights @ kept[:length], atol=10 * tolerance)
    cleaned = w.copy()
    removed = basis.remove_components(cleaned, 38)
    assert np.concatenate(removed).shape == (38,)
    # Chunk after chunk: against rows that are orthonormal up to storage this is the projection.
    loss = np.max(np.abs(kept.conj() @ kept.T - np.eye(40)))
    np.testing.assert_allclose(cleaned, w - kept[:38].T @ (kept[:38].conj() @ w), atol=tolerance + 200 * loss)


def test_half_precision_is_scaled_to_numbers_of_order_one():
    """Entries of a vector of length n are about 1 / sqrt(n): unscaled ones would fall among the subnormals of half precision."""
    n = 1 << 22
    basis = StoredBasis(get_backend("numpy"), n, np.float32, storage=np.float16)
    vector = np.full(n, np.float32(n**-0.5 / 3), dtype=np.float32)
    for _ in range(4):
        basis.append()[...] = vector
    np.testing.assert_allclose(basis.row(0), vector, rtol=2.0**-11)


# -- runs -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_compressed_vectors_give_the_coefficients_of_full_ones(dtype):
    """Semi-orthogonality is enough (Simon, 1984): the error is of the order of the square of the loss, or of rounding."""
    matrix, k = rotated(EIGENVALUES, dtype=dtype), 60
    full = ls.lanczos(matrix, k, num_probes=2)
    itemsize = np.dtype(dtype).itemsize
    narrowest = {2: 0.3, 1: 0.6}[np.dtype(dtype.__name__.replace("complex128", "float64").replace("complex64", "float32")).itemsize // 4]
    run = ls.lanczos(matrix, k, num_probes=2, reorthogonalize="compressed", memory_budget=budget(narrowest, k, 2, itemsize))
    assert (run.reorthogonalize, run.basis_dtype) == ("compressed", "float16")
    assert np.all(run.orthogonality_loss < 2e-3) and np.all(run.orthogonality_loss > eps(dtype)) and not run.num_ghosts.any()
    worst = float(run.orthogonality_loss.max())
    # Ritz values are the robust ones: the last coefficients of a run that has found its outliers are not.
    np.testing.assert_allclose(run.ritz_values[:, -6:], full.ritz_values[:, -6:], atol=40 * (40 * eps(dtype) + worst**2))
    np.testing.assert_allclose(run.alphas[:, :10], full.alphas[:, :10], atol=40 * (100 * eps(dtype) + worst**2))
    plain = ls.lanczos(matrix, k, num_probes=2, reorthogonalize="none")
    assert plain.num_ghosts.all() or eps(dtype) < 1e-10


def test_single_precision_comes_before_half():
    run = ls.lanczos(rotated(EIGENVALUES), 60, reorthogonalize="compressed")
    assert run.basis_dtype == "float32" and run.orthogonality_loss[0] < 1e-7


def test_the_host_keeps_the_vectors_of_a_device():
    full, hosted = (ls.lanczos(on_device(), 40, num_probes=2, reorthogonalize=kind) for kind in ("full", "host"))
    assert hosted.reorthogonalize == "host"
    np.testing.assert_allclose(hosted.alphas, full.alphas, atol=1e-12)
    np.testing.assert_allclose(hosted.ritz_vectors(1), full.ritz_vectors(1), atol=1e-9)
    assert isinstance(hosted.vectors.bases[0], StoredBasis) and hosted.vectors.bases[0].on_host
    # Without a device the memory is the host's already.
    assert isinstance(ls.lanczos(rotated(EIGENVALUES), 9, reorthogonalize="host").vectors.bases[0], DenseBasis)


@pytest.mark.parametrize("kind", ["compressed", "host"])
@pytest.mark.parametrize("through", ["memory", "file", "checkpoint"])
def test_runs_go_on_bit_identically(kind, through, tmp_path):
    a = on_device()
    # Half precision, for the shorter run and for the longer one.
    options = {"num_probes": 2, "reorthogonalize": kind, "memory_budget": int(13.5 * 2 * N * 8)}
    whole = ls.lanczos(a, 40, **options)
    if through == "checkpoint":
        ls.lanczos(a, 22, checkpoint=tmp_path / "c", **options)
        longer = ls.lanczos(a, 40, checkpoint=tmp_path / "c", **options)
    else:
        half = ls.lanczos(a, 22, **options)
        assert half.basis_dtype == whole.basis_dtype
        if through == "file":
            half.save(tmp_path / "half.npz")
            half = ls.load(tmp_path / "half.npz")
        longer = half.extend(18, operator=a)
    np.testing.assert_array_equal(longer.alphas, whole.alphas)
    np.testing.assert_array_equal(longer.betas, whole.betas)
    assert longer.reorthogonalize == kind and longer.basis_dtype == whole.basis_dtype


@pytest.mark.parametrize("name", ["identity", "zero", "rank one"])
def test_breakdown(name):
    values = {"identity": np.ones(60), "zero": np.zeros(60), "rank one": np.r_[7.0, np.zeros(59)]}[name]
    run = ls.lanczos(rotated(values), 12, reorthogonalize="compressed")
    assert run.num_steps_taken[0] == (2 if name == "rank one" else 1)
    assert np.nanmax(run.ritz_values) == pytest.approx(values.max(), abs=1e-12)


def test_density_of_a_compressed_run_pins_its_outliers():
    matrix = rotated(EIGENVALUES).astype(np.float32)
    full = ls.spectral_density(matrix, num_steps=60)
    narrow = ls.spectral_density(matrix, num_steps=60, reorthogonalize="compressed")
    assert len(narrow.outliers()) == len(full.outliers()) == 6
    assert narrow.trace().value == pytest.approx(full.trace().value, rel=1e-4)


# -- the plan -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "share, expected", [(1.0, ("full", "float64")), (0.5, ("compressed", "float32")), (0.25, ("compressed", "float16"))]
)
def test_the_plan_takes_the_first_that_fits(share, expected, caplog):
    with caplog.at_level(logging.INFO, logger="linop_spectra"):
        run = ls.lanczos(rotated(EIGENVALUES), 60, memory_budget=budget(share, 60))
    assert (run.reorthogonalize, run.basis_dtype) == expected
    assert "60 steps from 1 probes" in caplog.text and expected[1] in caplog.text


def test_a_device_turns_to_its_host_before_it_gives_up():
    assert ls.lanczos(on_device(), 60, memory_budget=budget(0.1, 60)).reorthogonalize == "host"


def test_a_basis_that_fits_nowhere_warns_and_runs_on():
    a = rotated(EIGENVALUES)
    with pytest.warns(UserWarning, match=r"2 x 21 vectors takes 134 kB, 52\.8 kB in half precision, over the .* 20 kB: running without"):
        run = ls.lanczos(a, 20, num_probes=2, memory_budget="20kB")
    assert run.reorthogonalize == "none"
    for kind in ("full", "compressed"):
        with pytest.raises(MemoryError, match="raise memory_budget"):
            ls.lanczos(a, 20, num_probes=2, memory_budget="20kB", reorthogonalize=kind)
