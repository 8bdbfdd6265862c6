"""What holds for every matrix: clusters, zeros, repeated and negative eigenvalues, all scales and precisions, tiny orders."""

import dataclasses
import warnings

import numpy as np
import pytest
from helpers import DTYPES, eps, haar, random_array, rotated

import linop_spectra as ls
from linop_spectra.estimators import diagonal
from linop_spectra.krylov import funm_multiply, solve, svds
from linop_spectra.spectra import bounds, quadrature

pytest.importorskip("hypothesis")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

MANY = settings(deadline=None, derandomize=True, max_examples=60, database=None)
SOME = settings(deadline=None, derandomize=True, max_examples=30, database=None)

# Values that meet, nearly meet, vanish, or span all of the range.
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1 + 1e-9, 1 - 1e-6, 1e-12, -1e-12, 1e-6, 1e12, -1e12, 3.0]),
    st.floats(-10, 10, allow_subnormal=False),
)
SEEDS = st.integers(0, 2**20)


@dataclasses.dataclass(frozen=True, repr=False)
class Case:
    """A Hermitian matrix in its own precision."""

    matrix: np.ndarray
    form: str

    def __repr__(self):
        return f"Case({self.form}, {self.matrix.dtype}, eigenvalues {self.exact.tolist()})"

    @property
    def n(self):
        return len(self.matrix)

    @property
    def exact(self):
        return np.linalg.eigvalsh(self.wide)

    @property
    def wide(self):
        return self.matrix.astype(np.complex128)

    @property
    def norm(self):
        return float(np.abs(self.exact).max()) or 1.0

    @property
    def eps(self):
        return eps(self.matrix.dtype)

    @property
    def operator(self):
        if self.form == "diagonal":
            return ls.diagonal_operator(np.diag(self.matrix).copy())
        if self.form == "callable":
            return ls.aslinearoperator(lambda x: self.matrix @ x, shape=self.matrix.shape, dtype=self.matrix.dtype, hermitian=True)
        return ls.aslinearoperator(self.matrix, hermitian=True)


@st.composite
def cases(draw, numbers=NUMBERS, dtypes=DTYPES, most=8):
    pieces = draw(st.lists(st.tuples(numbers, st.integers(1, 4)), min_size=1, max_size=most))
    values = np.array([value for value, count in pieces for _ in range(count)])
    values = values * draw(st.sampled_from([1.0, 1.0, 1e-12, 1e12]))
    values[np.abs(values) < 1e-30] = 0.0  # single precision squares what is left
    dtype, form = draw(st.sampled_from(dtypes)), draw(st.sampled_from(["diagonal", "dense", "callable"]))
    matrix = np.diag(values).astype(dtype) if form == "diagonal" else rotated(values, draw(SEEDS), dtype)
    return Case(matrix, form)


def measure(case, start):
    """Eigenvalues, and the weights that a starting vector gives them."""
    values, vectors = np.linalg.eigh(case.wide)
    v = start.astype(np.complex128) / np.linalg.norm(start.astype(np.complex128))
    return values, np.abs(vectors.conj().T @ v) ** 2


def start_for(case, seed):
    return random_array((case.n,), case.matrix.dtype, seed + 2**21)  # not the numbers that the basis is made of


def with_distinct(case, kind):
    """Whether a run without reorthogonalisation meets its end only where it should: see the failure below."""
    return kind != "none" or len(np.unique((case.exact / case.norm).round(4))) >= case.n


# -- Lanczos and its Gauss rules -------------------------------------------------------------------------------------------------


@MANY
@given(case=cases(), k=st.integers(1, 32), kind=st.sampled_from(["full", "none"]), seed=SEEDS)
def test_weights_are_probabilities_and_nodes_stay_in_the_spectrum(case, k, kind, seed):
    assume(with_distinct(case, kind))
    run = ls.lanczos(case.operator, min(k, case.n), num_probes=2, seed=seed, reorthogonalize=kind)
    assert np.all(np.isfinite(run.alphas)) and np.all(run.betas >= 0)
    for probe in range(2):
        taken = run.num_steps_taken[probe]
        nodes, weights = run.ritz_values[probe, :taken], run.weights[probe, :taken]
        assert np.all(weights >= 0) and weights.sum() == pytest.approx(1, abs=1e-12)
        rounding = 20 * (taken + 2) ** 1.5 * case.eps * case.norm
        assert case.exact[0] - rounding <= nodes[0] and nodes[-1] <= case.exact[-1] + rounding
        # An eigenvalue lies within the residual norm of each Ritz value.
        distance = np.abs(case.exact[:, None] - nodes).min(axis=0)
        assert np.all(distance <= run.residual_norms[probe, :taken] + rounding)


@MANY
@given(case=cases(), k=st.integers(1, 12), power=st.integers(-40, 40), sign=st.sampled_from([1, -1]), seed=SEEDS)
def test_scaling_by_a_power_of_two_and_turning_the_sign_are_exact(case, k, power, sign, seed):
    assume(2.0**-100 < case.norm * 2.0**power < 2.0**100 or not case.exact.any())
    factor = sign * 2.0**power
    start = start_for(case, seed)
    runs = [ls.lanczos(a, min(k, case.n), start=start) for a in (case.operator, Case(factor * case.matrix, case.form).operator)]
    np.testing.assert_array_equal(runs[1].alphas, factor * runs[0].alphas)
    np.testing.assert_array_equal(runs[1].betas, abs(factor) * runs[0].betas)


@MANY
@given(case=cases(), k=st.integers(1, 12), shift=st.floats(-3, 3), factor=st.floats(0.1, 10), seed=SEEDS)
def test_shift_and_scale_move_the_rule_along(case, k, shift, factor, seed):
    k, start, shift = min(k, case.n), start_for(case, seed), shift * case.norm
    assume(np.abs(factor * case.exact + shift).max() > 0.1 * factor * case.norm)  # else rounding of the two terms is all there is
    moved = factor * case.operator + shift * ls.identity(case.n, dtype=case.matrix.dtype)
    runs = [ls.lanczos(a, k, start=start) for a in (case.operator, moved)]
    low, high = case.exact[0] - case.norm, case.exact[-1] + case.norm
    ends = ((low, high), (factor * low + shift, factor * high + shift))
    taken = min(int(run.num_steps_taken[0]) for run in runs)
    moments = [chebyshev(run.ritz_values[0], run.weights[0], 2 * taken, *interval) for run, interval in zip(runs, ends, strict=True)]
    amplified = 1 + (abs(shift) / case.norm + 1) / factor
    np.testing.assert_allclose(moments[1], moments[0], atol=200 * (k + 1) ** 2 * amplified * case.eps)


def chebyshev(nodes, weights, count, low, high):
    nodes, weights = nodes[np.isfinite(nodes)], weights[np.isfinite(weights)]
    angle = np.arccos(np.clip((2 * nodes - low - high) / (high - low), -1, 1))
    return np.array([np.cos(j * angle) @ weights for j in range(count)])


@MANY
@given(case=cases(), k=st.integers(1, 12), kind=st.sampled_from(["full", "none", "compressed"]), seed=SEEDS)
def test_moments_to_twice_the_steps_are_those_of_the_matrix(case, k, kind, seed):
    assume(with_distinct(case, kind))
    start = start_for(case, seed)
    run = ls.lanczos(case.operator, min(k, case.n), start=start, reorthogonalize=kind)
    interval = case.exact[0] - 0.1 * case.norm, case.exact[-1] + 0.1 * case.norm
    count = 2 * int(run.num_steps_taken[0])
    truth = chebyshev(*measure(case, start), count, *interval)
    np.testing.assert_allclose(chebyshev(run.ritz_values[0], run.weights[0], count, *interval), truth, atol=200 * (k + 1) ** 2 * case.eps)


@MANY
@given(
    values=st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4)), min_size=1, max_size=5, unique_by=lambda piece: piece[0]),
    dtype=st.sampled_from([np.float64, np.complex128]), diagonal_form=st.booleans(), kind=st.sampled_from(["full", "none"]), seed=SEEDS,
)  # fmt: skip
def test_a_run_ends_at_the_number_of_distinct_eigenvalues(values, dtype, diagonal_form, kind, seed):
    spectrum = np.array([value for value, count in values for _ in range(count)], dtype=float)
    matrix = np.diag(spectrum).astype(dtype) if diagonal_form else rotated(spectrum, seed, dtype)
    start = random_array((len(spectrum),), dtype, seed + 2**21)
    run = ls.lanczos(ls.aslinearoperator(matrix, hermitian=True), len(values), start=start, reorthogonalize="full")
    # Rounding grows as the residuals shrink: the end is sharp where they do not shrink by much before it.
    assume(len(values) == 1 or np.prod(run.betas[0, : len(values) - 1] / np.abs(spectrum).max()) > 0.1)
    run = ls.lanczos(ls.aslinearoperator(matrix, hermitian=True), len(spectrum), start=start, reorthogonalize=kind)
    assert run.num_steps_taken[0] == len(values) == run.num_matvecs
    np.testing.assert_allclose(run.ritz_values[0, : len(values)], sorted(value for value, _ in values), atol=1e-9)
    assert run.betas[0, len(values) - 1] == 0


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0], [1.0, 2.0, 3.0, 3.0, 3.0], [0.0] * 1000 + [1.0, 2.0, 3.0]], ids=len)
def test_a_symmetric_operator_is_never_accused_past_its_last_eigenvalue(values):
    distinct = len(np.unique(values))
    for seed in range(40):
        ls.lanczos(ls.diagonal_operator(values), min(len(values), distinct + 5), seed=seed, reorthogonalize="none")


@MANY
@given(case=cases(), seed=SEEDS)
def test_ritz_values_interlace(case, seed):
    run = ls.lanczos(case.operator, case.n, start=start_for(case, seed))
    k = int(run.num_steps_taken[0])
    rounding = 100 * (k + 2) * case.eps * case.norm
    exact, before = case.exact, None
    for steps in range(1, k + 1):
        alphas, betas = run.alphas[0, :steps], run.betas[0, : steps - 1]
        nodes = np.linalg.eigvalsh(np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1))
        # With those of the matrix (Cauchy), and with those of one step before.
        assert np.all(exact[:steps] <= nodes + rounding) and np.all(nodes <= exact[case.n - steps :] + rounding)
        if before is not None:
            assert np.all(nodes[:-1] <= before + rounding) and np.all(before <= nodes[1:] + rounding)
        before = nodes


@MANY
@given(case=cases(most=12), k=st.integers(1, 16), seed=SEEDS)
def test_envelopes_and_brackets_hold_what_the_probe_has(case, k, seed):
    start = start_for(case, seed)
    run = ls.lanczos(case.operator, min(k, case.n), start=start)
    rule = quadrature.gauss_rule(*run.jacobi(0))
    values, weights = measure(case, start)
    rounding = 1e3 * case.eps * case.norm
    places = np.sort(np.concatenate([values, rule.nodes]))
    x = (places[1:] + places[:-1]) / 2
    # Within rounding of a jump nothing is claimed, and close to it weights go over from one side to the other.
    x = np.concatenate([x[np.abs(x[:, None] - places).min(axis=1) > rounding], [places[0] - rounding, places[-1] + rounding]])
    truth = (weights * (values <= x[:, None])).sum(axis=1)
    low, high = bounds.envelope(rule.nodes, rule.weights, x, exact=rule.exact)
    slack = 1e2 * (k + 1) * case.eps * (1 + case.norm / np.abs(x[:, None] - places).min(axis=1))
    assert np.all(low <= truth + slack) and np.all(truth <= high + slack)
    brackets = np.array([quadrature.mass_bracket(*run.jacobi(0), float(z)) for z in x])
    assert np.all(brackets[:, 0] <= truth + slack) and np.all(truth <= brackets[:, 1] + slack)


@SOME
@given(case=cases(most=12), k=st.integers(1, 30), probes=st.integers(1, 3), seed=SEEDS)
def test_spectral_densities_are_distributions_with_honest_bounds(case, k, probes, seed):
    S = ls.spectral_density(case.operator, num_steps=min(k, case.n), num_probes=probes, seed=seed)
    assert S.weights.sum() == pytest.approx(1) and np.all(S.weights >= 0) and np.all(np.diff(S.nodes) >= 0)
    x = np.linspace(S.nodes[0] - case.norm, S.nodes[-1] + case.norm, 50)
    low, high = S.cdf_band(x)
    assert np.all((low >= 0) & (low <= high) & (high <= 1)) and np.all(np.diff(S.cdf(x)) >= 0)
    low, high = S.negative_mass()
    assert 0 <= low <= high + 1e-12 <= 1 + 2e-12
    if case.exact[0] > 0:
        assert low <= 1e-9
    for estimate in (S.trace(), S.trace(np.square)):
        assert np.isfinite(estimate.value) and not np.isnan(estimate.standard_error)
    if k >= case.n and len(np.unique(case.exact.round(6))) == case.n and case.norm < 11:
        assert S.trace().value == pytest.approx(case.exact.sum(), abs=1e3 * case.n * case.eps * case.norm)


# -- eigenpairs, singular triplets, systems, functions -----------------------------------------------------------------------------


@MANY
@given(case=cases(), k=st.integers(1, 8), which=st.sampled_from(["LM", "LA", "SA", "SM", "BE"]), seed=SEEDS)
def test_eigenpairs(case, k, which, seed):
    k = min(k, case.n)
    result = ls.eigsh(case.operator, k, which=which, tol=1e-10, seed=seed)
    values, vectors = result.eigenvalues, result.eigenvectors.astype(np.complex128)
    rounding = 100 * (case.n + 1) * case.eps * case.norm
    tolerance = rounding + 1e-10 * case.norm
    residuals = np.linalg.norm(case.wide @ vectors - vectors * values, axis=0)
    np.testing.assert_allclose(result.residual_norms, residuals, atol=rounding)
    assert result.converged.all() and np.all(residuals <= tolerance)
    assert np.abs(vectors.conj().T @ vectors - np.eye(k)).max() <= 200 * case.eps
    assert np.all(np.diff(values) >= 0)
    exact = case.exact
    if which in ("LM", "SM"):  # where two have the same modulus, either will do
        order = np.sort(np.abs(exact))
        np.testing.assert_allclose(np.sort(np.abs(values)), order[-k:] if which == "LM" else order[:k], atol=tolerance)
        distance = np.abs(exact[:, None] - values).min(axis=0)
        assert np.all(distance <= residuals + rounding)
    else:
        low = {"LA": 0, "SA": k, "BE": k // 2}[which]
        expected = np.concatenate([exact[:low], exact[case.n - (k - low) :]])
        np.testing.assert_allclose(values, expected, atol=tolerance)


@MANY
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)), pool=st.lists(NUMBERS, min_size=12, max_size=12),
    dtype=st.sampled_from(DTYPES), k=st.integers(1, 12), which=st.sampled_from(["LM", "SM"]), seed=SEEDS,
)  # fmt: skip
def test_singular_triplets(shape, pool, dtype, k, which, seed):
    m, n = shape
    short = min(shape)
    k = min(k, short)
    kind = np.dtype(dtype).kind == "c"
    values = np.where(np.abs(pool[:short]) < 1e-30, 0.0, np.abs(pool[:short]))  # single precision squares what is left
    matrix = ((haar(m, seed, kind)[:, :short] * values) @ haar(n, seed + 1, kind)[:, :short].conj().T).astype(dtype)
    result = svds(ls.aslinearoperator(matrix), k, which=which, tol=1e-10)
    exact = np.linalg.svd(matrix.astype(np.complex128), compute_uv=False)
    tolerance = max(exact[0], 1e-300) * (1e-10 + 200 * (short + 1) * eps(dtype))
    np.testing.assert_allclose(result.singular_values, exact[:k] if which == "LM" else exact[short - k :], atol=tolerance)
    left, right = (x.astype(np.complex128) for x in (result.left_vectors, result.right_vectors))
    for vectors in (left, right):
        assert np.abs(vectors.conj().T @ vectors - np.eye(k)).max() <= 500 * eps(dtype)
    if k == short:
        np.testing.assert_allclose((left * result.singular_values) @ right.conj().T, matrix, atol=10 * tolerance)


@MANY
@given(
    case=cases(numbers=st.one_of(st.floats(0.01, 100), st.floats(-100, -0.01), st.sampled_from([1.0, -1.0, 2.0]))),
    columns=st.sampled_from([0, 1, 3]), method=st.sampled_from(["auto", "minres"]), seed=SEEDS,
)  # fmt: skip
def test_solutions_have_the_residual_that_they_say(case, columns, method, seed):
    b = random_array((case.n, columns) if columns else (case.n,), case.matrix.dtype, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what single precision does not allow is marked
        result = solve(case.operator, b, method=method, tol=1e-6)
    x = np.asarray(result).astype(np.complex128)
    assert x.shape == b.shape and np.all(np.isfinite(x))
    residual = np.linalg.norm((b - case.wide @ x).reshape(case.n, -1), axis=0)
    size = np.linalg.norm(b.reshape(case.n, -1), axis=0)
    large = case.norm * np.linalg.norm(x.reshape(case.n, -1), axis=0)
    np.testing.assert_allclose(result.residual_norms, residual, atol=float((50 * case.n * case.eps * (size + large)).max()))
    assert np.all(residual[result.converged] <= (1e-6 * size + 50 * case.n * case.eps * large)[result.converged])
    if case.eps < 1e-10:
        assert result.converged.all()


@SOME
@given(case=cases(numbers=st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1.0, -1.0]))), seed=SEEDS)
def test_functions_times_vectors(case, seed):
    assume(case.norm < 20)
    b = start_for(case, seed)
    values, vectors = np.linalg.eigh(case.wide)
    expected = vectors @ (np.exp(values) * (vectors.conj().T @ b))
    found = np.asarray(funm_multiply(case.operator, np.exp, b, num_steps=case.n))
    np.testing.assert_allclose(found, expected, atol=200 * case.n * case.eps * np.exp(values[-1]) * np.linalg.norm(b))


# -- traces and diagonals ---------------------------------------------------------------------------------------------------------


@MANY
@given(case=cases(), seed=SEEDS)
def test_n_products_give_the_trace_and_the_diagonal(case, seed):
    rounding = 20 * case.n**1.5 * case.eps * case.norm
    estimate = ls.trace(case.operator, num_matvecs=case.n, seed=seed)
    assert estimate.num_matvecs <= case.n and estimate.standard_error == 0
    assert estimate.value == pytest.approx(np.trace(case.wide).real, abs=rounding)
    entries = diagonal(case.operator, num_matvecs=case.n, seed=seed)
    np.testing.assert_allclose(entries.value, np.diag(case.wide).real, atol=rounding)


@SOME
@given(case=cases(), method=st.sampled_from(["hutchinson", "hutch++", "xtrace", "auto"]), products=st.integers(1, 40), seed=SEEDS)
def test_traces_are_numbers_with_intervals(case, method, products, seed):
    assume(case.norm < 1e15)  # extreme scales have tests of their own
    estimate = ls.trace(case.operator, method=method, num_matvecs=products, seed=seed)
    low, high = estimate.confidence_interval(0.99)
    assert np.isfinite(estimate.value) and low <= estimate.value <= high and estimate.num_matvecs <= max(products, case.n)
    if method == "hutchinson" and np.ptp(case.exact) < 1e-9 * case.norm and case.form == "diagonal":
        assert estimate.value == pytest.approx(case.exact.sum(), abs=50 * case.n**1.5 * case.eps * case.norm)


# -- expressions of operators --------------------------------------------------------------------------------------------------------


def leaf(draw, m, n, dtype):
    kinds = ["dense", "callable", "sparse"] + (["diagonal", "identity", "low rank"] if m == n else [])
    kind, seed = draw(st.sampled_from(kinds)), draw(SEEDS)
    matrix = random_array((m, n), dtype, seed)
    if kind == "diagonal":
        return ls.diagonal_operator(matrix[0]), np.diag(matrix[0])
    if kind == "identity":
        return ls.identity(n, dtype=dtype), np.eye(n, dtype=dtype)
    if kind == "low rank":
        return ls.low_rank(matrix[:, :1], [-2.0]), -2 * matrix[:, :1] @ matrix[:, :1].conj().T
    if kind == "sparse":
        from scipy import sparse

        matrix = np.where(np.abs(matrix) > 0.7, matrix, 0).astype(dtype)
        return ls.aslinearoperator(sparse.csr_array(matrix)), matrix
    if kind == "callable":
        from scipy.sparse.linalg import LinearOperator

        return ls.aslinearoperator(
            LinearOperator((m, n), matvec=lambda x: matrix @ x, rmatvec=lambda x: matrix.conj().T @ x, dtype=dtype)
        ), matrix
    return ls.aslinearoperator(matrix), matrix


def tree(draw, m, n, dtype, depth):
    """A random expression of shape (m, n), as an operator and as a matrix."""
    if depth == 0:
        return leaf(draw, m, n, dtype)
    nodes = ["leaf", "sum", "difference", "product", "scaled", "adjoint", "transpose", "negative", "submatrix", "divided"]
    nodes += ["shift", "compress", "deflate"] if m == n else []
    nodes += ["kronecker"] if m % 2 == n % 2 == 0 else []
    nodes += ["block diagonal"] if m > 1 and n > 1 else []
    node = draw(st.sampled_from(nodes))
    if node == "leaf":
        return leaf(draw, m, n, dtype)
    if node in ("sum", "difference"):
        (a, x), (b, y) = tree(draw, m, n, dtype, depth - 1), tree(draw, m, n, dtype, depth - 1)
        return (a + b, x + y) if node == "sum" else (a - b, x - y)
    if node == "product":
        inner = draw(st.integers(1, 6))
        (a, x), (b, y) = tree(draw, m, inner, dtype, depth - 1), tree(draw, inner, n, dtype, depth - 1)
        return a @ b, x @ y
    if node in ("adjoint", "transpose"):
        a, x = tree(draw, n, m, dtype, depth - 1)
        return (a.H, x.conj().T) if node == "adjoint" else (a.T, x.T)
    if node == "submatrix":
        rows, columns = draw(st.permutations(range(m + 1))), draw(st.permutations(range(n + 2)))
        a, x = tree(draw, m + 1, n + 2, dtype, depth - 1)
        return ls.submatrix(a, rows[:m], columns[:n]), x[rows[:m]][:, columns[:n]]
    if node == "kronecker":
        (a, x), (b, y) = tree(draw, m // 2, n // 2, dtype, depth - 1), tree(draw, 2, 2, dtype, depth - 1)
        return ls.kronecker(a, b), np.kron(x, y)
    if node == "block diagonal":
        (a, x), (b, y) = tree(draw, m - 1, n - 1, dtype, depth - 1), leaf(draw, 1, 1, dtype)
        out = np.zeros((m, n), dtype=dtype)
        out[:-1, :-1], out[-1:, -1:] = x, y
        return ls.block_diagonal([a, b]), out
    if node == "compress":
        (a, x), (p, y) = tree(draw, n + 1, n + 1, dtype, depth - 1), leaf(draw, n + 1, n, dtype)
        return ls.compress(a, p), y.conj().T @ x @ y
    a, x = tree(draw, m, n, dtype, depth - 1)
    factor = draw(st.sampled_from([2.0, -0.5, 3, 1.5 - 2j] if np.dtype(dtype).kind == "c" else [2.0, -0.5, 3]))
    if node == "deflate":
        vector = random_array((n, 1), dtype, draw(SEEDS))
        vector /= np.linalg.norm(vector)
        hermitian = a + a.H
        return ls.deflate(hermitian, [1.5], vector), x + x.conj().T - 1.5 * vector @ vector.conj().T
    if node == "shift":
        return ls.shift(a, factor), x + factor * np.eye(n)
    if node == "divided":
        return a / factor, x / factor
    return (factor * a, factor * x) if node == "scaled" else (-a, -x)


@settings(MANY, max_examples=150)
@given(data=st.data())
def test_expressions_of_operators_are_expressions_of_matrices(data):
    m, n = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    dtype = data.draw(st.sampled_from(DTYPES))
    operator, matrix = tree(data.draw, m, n, dtype, 3)
    size = max(1.0, float(np.abs(matrix).max()))
    assert operator.shape == matrix.shape and operator.dtype == dtype
    np.testing.assert_allclose(operator.to_dense(), matrix, atol=3e4 * eps(dtype) * size)
    np.testing.assert_allclose(operator.H.to_dense(), matrix.conj().T, atol=3e4 * eps(dtype) * size)
    x = random_array((n, 3), dtype, 7)
    np.testing.assert_allclose(operator @ x, matrix @ x, atol=3e5 * eps(dtype) * size)
    if operator.hermitian:
        np.testing.assert_allclose(matrix, matrix.conj().T, atol=3e4 * eps(dtype) * size)
        if operator.positive_semidefinite:
            assert np.linalg.eigvalsh(matrix)[0] >= -3e4 * eps(dtype) * size
