"""The algebra of leaving vectors out, against doing it; and intervals that cover."""

import numpy as np
import pytest
from helpers import haar, same_law
from scipy import stats

from linop_spectra.estimators.leave_out import NystromForms, RangeForms, _mixture, mean_and_variance

N, RUNS = 150, 400
_I = np.arange(N, dtype=float)
SPECTRA = {
    "flat": np.linspace(1.0, 3.0, N),
    "geometric": 0.9**_I,
    "power law": 1 / (1 + _I) ** 2,
    "outliers": np.r_[np.linspace(5.0, 10.0, 10), np.linspace(0.01, 0.05, N - 10)],
}


def h(x):
    return np.swapaxes(x, -1, -2).conj()


def xtrace_without(A, omega, i, j):
    """Section 2 of the paper, word for word: a basis without vectors i and j, a probe i of the length that it has on average."""
    keep = [k for k in range(omega.shape[1]) if k not in (i, j)]
    Q = np.linalg.qr(A @ omega[:, keep])[0]
    rest = omega[:, i] - Q @ (h(Q) @ omega[:, i])
    scale = (len(A) - len(keep)) / np.linalg.norm(rest) ** 2
    return np.real(np.trace(h(Q) @ A @ Q) + scale * np.vdot(rest, A @ rest))


def xnystrace_without(A, omega, i, j):
    keep = [k for k in range(omega.shape[1]) if k not in (i, j)]
    others, probe = omega[:, keep], omega[:, i]
    Y = A @ others
    approximation = Y @ np.linalg.solve(h(others) @ Y, h(Y))
    rest = probe - others @ np.linalg.lstsq(others, probe, rcond=None)[0]
    scale = (len(A) - len(keep)) / np.linalg.norm(rest) ** 2
    return np.real(np.trace(approximation) + scale * np.vdot(probe, (A - approximation) @ probe))


def range_forms(A, omega, spanning=0):
    Q, R = np.linalg.qr(A @ omega)
    probing, AQ = omega[..., spanning:], A @ Q
    return RangeForms.of(R, h(Q) @ AQ, h(Q) @ probing, h(AQ) @ probing, h(probing) @ probing, A.shape[-1])


def nystrom_forms(A, omega, spanning=0):
    Y = A @ omega
    R = np.linalg.qr(Y, mode="r")
    return NystromForms.of(R, h(omega) @ Y, h(omega) @ omega, A.shape[-1], omega.shape[-1] - spanning)


def small_problem(complex_valued):
    rng = np.random.default_rng(0)
    draw = (lambda *s: rng.standard_normal(s) + 1j * rng.standard_normal(s)) if complex_valued else (lambda *s: rng.standard_normal(s))
    return draw(25, 25), draw(25, 9)


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.parametrize("spanning", [0, 3])
def test_estimates_without_one_and_without_two(spanning, complex_valued):
    B, omega = small_problem(complex_valued)
    positive = B @ h(B)
    general = positive if complex_valued else B  # XTrace takes real matrices that are not symmetric
    for forms, A, without in (
        (range_forms(general, omega, spanning), general, xtrace_without),
        (nystrom_forms(positive, omega, spanning), positive, xnystrace_without),
    ):
        t, both = forms.estimates()
        m = 9 - spanning
        expected = [[without(A, omega, spanning + i, spanning + j) for j in range(m)] for i in range(m)]
        np.testing.assert_allclose(t, np.diag(expected), rtol=1e-9)
        np.testing.assert_allclose(both, expected, rtol=1e-9)


@pytest.mark.parametrize("complex_valued", [False, True])
def test_mixtures_are_other_vectors(complex_valued):
    B, omega = small_problem(complex_valued)
    A = B @ h(B)
    mixture = haar(6, 1, complex_valued) * np.linspace(0.5, 2.0, 6)[:, None]
    other, dual = np.concatenate([omega[:, :3], omega[:, 3:] @ mixture], axis=1), np.linalg.inv(h(mixture))
    for make in (range_forms, nystrom_forms):
        for one, two in zip(make(A, omega, 3).mixed(mixture, dual).estimates(), make(A, other, 3).estimates(), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize("complex_valued", [False, True])
def test_mixtures_make_gaussian_vectors(complex_valued):
    """Orthogonal vectors of any length become as long as Gaussian ones, and are then mixed by a unitary matrix."""
    n, m = 6, 200
    gram = np.diag(np.linspace(1.0, 3.0, m)).astype(complex if complex_valued else float)
    forms = RangeForms(*[np.zeros((m, m))] * 5, gram, n)
    mixture, dual = _mixture(forms, 0, 0)
    np.testing.assert_allclose(h(dual) @ mixture, np.eye(m), atol=1e-12)
    squares = np.real(np.diag(mixture @ h(mixture))) * np.linspace(1.0, 3.0, m)
    assert same_law(squares, stats.gamma(n) if complex_valued else stats.chi2(n))
    unitary = mixture / np.linalg.norm(mixture, axis=1)[:, None]
    np.testing.assert_allclose(unitary @ h(unitary), np.eye(m), atol=1e-12)
    assert np.iscomplexobj(mixture) == complex_valued and not np.allclose(mixture, _mixture(forms, 0, 1)[0])


def test_lengths_of_the_vectors_do_not_matter():
    B, omega = small_problem(False)
    for make in (range_forms, nystrom_forms):
        A = B @ B.T
        for one, two in zip(make(A, omega).estimates(), make(A, omega * np.linspace(0.1, 10, 9)).estimates(), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-8)


def many_runs(name, m, make):
    """Estimates, variances and truth for independent sphere probes; rotation makes no difference, so the matrix is diagonal."""
    rng = np.random.default_rng(7)
    omega = rng.standard_normal((RUNS, N, m))
    omega *= np.sqrt(N) / np.linalg.norm(omega, axis=1, keepdims=True)
    eigenvalues = SPECTRA[name]
    Q, R = np.linalg.qr(eigenvalues[:, None] * omega)
    if make == "xtrace":
        AQ = eigenvalues[:, None] * Q
        forms = RangeForms.of(R, h(Q) @ AQ, h(Q) @ omega, h(AQ) @ omega, h(omega) @ omega, N)
    else:
        forms = NystromForms.of(R, h(omega) @ (eigenvalues[:, None] * omega), h(omega) @ omega, N, m)
    return (*mean_and_variance(forms, 0), float(eigenvalues.sum()))


@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_variance_is_unbiased_and_the_interval_covers(name, method):
    """44 products with XTrace, 30 with XNysTrace; the spread of the estimates alone covers 57 to 95 % (below)."""
    m = 22 if method == "xtrace" else 30
    value, variance, truth = many_runs(name, m, method)
    errors = value - truth
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(RUNS)
    # Standard error of a sample variance, with room for tails heavier than normal ones.
    assert variance.mean() == pytest.approx(np.mean(errors**2), rel=5 * np.sqrt(2 / RUNS))
    covered = np.mean(np.abs(errors) <= stats.t.ppf(0.975, m - 1) * np.sqrt(variance))
    assert 0.92 <= covered <= 0.98


def test_the_spread_alone_does_not_cover():
    """Why the correlation is measured: for XNysTrace and a geometric spectrum the plain standard error is half of what it should be."""
    rng = np.random.default_rng(7)
    omega = rng.standard_normal((RUNS, N, 30))
    eigenvalues = SPECTRA["geometric"]
    R = np.linalg.qr(eigenvalues[:, None] * omega, mode="r")
    t, _ = NystromForms.of(R, h(omega) @ (eigenvalues[:, None] * omega), h(omega) @ omega, N, 30).estimates()
    error = t.std(axis=1, ddof=1) / np.sqrt(30)
    assert np.mean(np.abs(t.mean(axis=1) - eigenvalues.sum()) <= stats.t.ppf(0.975, 29) * error) < 0.85
