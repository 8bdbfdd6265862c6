"""Matrices that are hardly any, types that are hardly numbers, products that misbehave: the right number, or one clear sentence."""

import numpy as np
import pytest
from helpers import random_array, rotated

import linop_spectra as ls
from linop_spectra.estimators import diagonal
from linop_spectra.krylov import funm_multiply, solve, svds

METHODS = ("auto", "hutchinson", "hutch++", "xtrace", "exact")
WHICH = ("LM", "LA", "SA", "SM", "BE")

# Every public function of an operator A of order n.
FUNCTIONS = {
    "lanczos": lambda a, n: ls.lanczos(a, min(n, 4)),
    **{f"eigsh {which}": lambda a, n, which=which: ls.eigsh(a, min(n, 3), which=which) for which in WHICH},
    "svds": lambda a, n: svds(a, min(n, 3)),
    "svds SM": lambda a, n: svds(a, min(n, 3), which="SM"),
    "solve": lambda a, n: solve(a, np.ones(n)),
    "funm_multiply": lambda a, n: funm_multiply(a, np.exp, np.ones(n), num_steps=min(n, 8)),
    "spectral_density": lambda a, n: ls.spectral_density(a, num_steps=min(n, 8)),
    **{f"trace {method}": lambda a, n, method=method: ls.trace(a, method=method) for method in METHODS},
    "trace xnystrace": lambda a, n: ls.trace(a, method="xnystrace"),
    "diagonal": lambda a, n: diagonal(a),
    "frobenius_norm": lambda a, n: ls.frobenius_norm(a),
    "spectral_norm": lambda a, n: ls.spectral_norm(a),
    "logdet": lambda a, n: ls.logdet(a, num_steps=min(n, 8)),
    "trace_function": lambda a, n: ls.trace_function(a, np.exp, num_steps=min(n, 8)),
    "check_operator": lambda a, n: ls.check_operator(a),
}


def is_a_sentence(error):
    """Ours, not another library's: it begins with a capital letter, says more than a word, and ends."""
    text = str(error)
    return len(text) > 30 and text[0].isupper() and " " in text and "Traceback" not in text and "ufunc" not in text


# -- what is no matrix --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "matrix, error, message",
    [
        (np.zeros((0, 0)), ValueError, "is empty and has no spectrum"),
        (np.zeros((0, 3)), ValueError, "is empty and has no spectrum"),
        (np.array([["a"]]), TypeError, "holds no numbers"),
        (np.array([[1, None]]), TypeError, "holds no numbers"),
        (np.ones(4), ValueError, "no matrix"),
        (lambda x: x, ValueError, "callable says neither its shape nor its dtype"),
        (None, TypeError, "cannot be used as an operator"),
    ],
    ids=["0 x 0", "0 x 3", "text", "objects", "1-D", "bare function", "None"],
)
def test_what_is_no_matrix(name, matrix, error, message):
    with pytest.raises(error, match=message):
        FUNCTIONS[name](matrix, 3)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("svds", "svds SM", "frobenius_norm", "spectral_norm")])
def test_matrices_that_are_not_square(name):
    if name == "check_operator":
        assert ls.check_operator(np.ones((3, 2))).passed
        return
    with pytest.raises(ValueError, match=r"needs a square.*shape \(3, 2\)"):
        FUNCTIONS[name](np.ones((3, 2)), 2)


# -- tiny and special matrices -------------------------------------------------------------------------------------------------------


def low_rank(n):
    return np.outer(np.arange(1.0, n + 1), np.arange(1.0, n + 1))


SPECIAL = {
    "1 x 1": np.array([[3.0]]), "1 x 1, negative": np.array([[-2.0]]), "1 x 1, complex": np.array([[-2 + 0j]]),
    "1 x 1, zero": np.zeros((1, 1)), "2 x 2, zero": np.zeros((2, 2)), "zero": np.zeros((9, 9)), "identity": np.eye(9),
    "minus identity": -np.eye(9),
    "rank one": low_rank(9), "one entry": np.diag(np.arange(9) == 4).astype(float), "projector": rotated(np.arange(9) % 2, 1),
    "integers": np.diag([1, 2, 3]), "booleans": np.ones((3, 3), dtype=bool), "bytes": np.full((3, 3), 200, np.uint8),
    "half": np.diag([1, 2, 4]).astype(np.float16), "extended": np.eye(3, dtype=np.longdouble),
    "big endian": np.diag([1.0, 2, 3]).astype(">f8"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("wrap", ["array", "callable"])
def test_special_matrices(name, wrap):
    matrix = SPECIAL[name]
    wide = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
    n, exact = len(matrix), np.linalg.eigvalsh(wide)
    a = matrix
    if wrap == "callable":
        a = ls.aslinearoperator(lambda x: wide @ x, shape=wide.shape, dtype=wide.dtype, hermitian=True)
    tolerance = {"atol": 1e-6 * max(1.0, np.abs(exact).max()), "rtol": 1e-6}
    k, modulus = min(n, 3), np.argsort(np.abs(exact), kind="stable")
    expected = {"LM": np.abs(exact[modulus[-k:]]), "SM": np.abs(exact[modulus[:k]]), "LA": exact[-k:], "SA": exact[:k]}
    expected["BE"] = np.r_[exact[: k // 2], exact[k // 2 - k :]]
    for which in WHICH:
        found = ls.eigsh(a, k, which=which)
        values = np.sort(np.abs(found.eigenvalues)) if which in ("LM", "SM") else found.eigenvalues
        np.testing.assert_allclose(values, np.sort(expected[which]), err_msg=which, **tolerance)
        assert found.converged.all()
    singular = np.sort(np.abs(exact))[::-1]
    np.testing.assert_allclose(svds(a, k).singular_values, singular[:k], **tolerance)
    np.testing.assert_allclose(svds(a, k, which="SM").singular_values, singular[n - k :], **tolerance)
    run = ls.lanczos(a, n)
    assert np.all(np.isfinite(run.alphas)) and np.all(np.isfinite(run.betas))
    distance = np.abs(run.ritz_values[0, : run.num_steps_taken[0], None] - exact)
    assert distance.min(axis=1).max() <= tolerance["atol"]  # nothing but eigenvalues
    small = wide / max(1.0, np.abs(exact).max())
    values, vectors = np.linalg.eigh(small)
    product = vectors @ (np.exp(values) * (vectors.conj().T @ np.ones(n)))
    np.testing.assert_allclose(np.asarray(funm_multiply(small, np.exp, np.ones(n), num_steps=n)), product, rtol=1e-9)
    S = ls.spectral_density(a, num_steps=n)
    assert S.weights.sum() == pytest.approx(1) and np.all(np.isfinite(S.nodes))
    for method in ("auto", "exact"):
        assert ls.trace(a, method=method).value == pytest.approx(exact.sum(), abs=tolerance["atol"])
    for method in ("hutchinson", "hutch++", "xtrace"):
        low, high = ls.trace(a, method=method).confidence_interval(0.9999)
        assert low - tolerance["atol"] <= exact.sum() <= high + tolerance["atol"]
    np.testing.assert_allclose(np.asarray(diagonal(a).value), np.real(np.diag(wide)), **tolerance)
    assert ls.frobenius_norm(a).value == pytest.approx(np.linalg.norm(exact), abs=tolerance["atol"])
    assert ls.spectral_norm(a).value == pytest.approx(singular[0], abs=tolerance["atol"])
    assert ls.check_operator(a).passed
    if exact[0] > 1e-9:
        assert ls.logdet(a, num_steps=n).value == pytest.approx(np.log(exact).sum(), abs=1e-6)
        np.testing.assert_allclose(wide @ np.asarray(solve(a, np.ones(n))), np.ones(n), atol=1e-5)
    else:
        with pytest.raises(ValueError, match=r"not positive definite.*argument shift"):
            ls.logdet(a, num_steps=n)


@pytest.mark.parametrize("method", ["auto", "minres"])
@pytest.mark.parametrize("n", [3, 9, 40])
def test_singular_systems_that_have_a_solution(method, n):
    """The right-hand side lies in the range."""
    for matrix in (low_rank(n), np.diag(np.arange(n) % 3.0), rotated(np.arange(n) % 3.0, 1)):
        b = matrix @ random_array((n,), np.float64, 0)
        x = np.asarray(solve(matrix, b, method=method, tol=1e-8))
        np.testing.assert_allclose(matrix @ x, b, atol=2e-8 * np.linalg.norm(b))


@pytest.mark.parametrize(
    "matrix", [low_rank(6), np.ones((6, 6)), np.diag([1.0, 2, 0, 0, 0]), rotated([1.0, 2, 3, 0, 0, 0])], ids=["1", "ones", "2", "3"]
)
def test_singular_systems_without_solution(matrix):
    b = np.arange(1.0, len(matrix) + 1)
    if np.linalg.norm(matrix @ b - (b @ b) * b) < 1e-9:  # b itself spans the range
        b[0] = -1.0
    with pytest.warns(UserWarning, match="singular, and for 1 of 1 right-hand sides it has no solution"):
        result = solve(matrix, b)
    assert np.linalg.norm(np.asarray(result)) <= 1e3 * np.linalg.norm(b)
    residual = np.linalg.norm(b - matrix @ np.asarray(result))
    least = np.linalg.norm(b - matrix @ np.linalg.lstsq(matrix, b, rcond=None)[0])
    assert result.residual_norms[0] == pytest.approx(residual, rel=1e-6)
    assert result.least_squares.all() and residual == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize("matrix", [low_rank(6), np.ones((6, 6)), np.diag([1.0, 2, 0, 0, 0]), rotated([1.0, 2, 3, 0, 0, 0])], ids=str)
def test_singular_systems_with_solutions(matrix):
    """The one of least norm, since no start vector adds to it."""
    b = matrix @ np.arange(1.0, len(matrix) + 1)
    result = solve(matrix, b, tol=1e-12)
    assert result.converged.all() and not result.least_squares.any()
    np.testing.assert_allclose(np.asarray(result), np.linalg.lstsq(matrix, b, rcond=1e-12)[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("kind", ["few values", "generic", "decaying"])
def test_random_singular_systems(kind, dtype):
    """Marked where there is no solution, with the residual of a dense solver; solved where there is one."""
    for seed in range(20):
        n = 4 + 2 * seed
        rank = 1 + (7 * seed) % (n - 1)
        random = random_array((4, n), np.float64, seed)
        x = random[0]
        values = {"few values": np.resize([1.0, 2, -3], n), "generic": x + np.sign(x), "decaying": 10 ** np.clip(x - 1, -2, 0)}[kind]
        matrix = rotated(np.where(np.arange(n) < rank, values, 0.0), seed, dtype)
        wide, b = matrix.astype(np.complex128), random[1].astype(dtype)
        tol = 1e-4 if dtype == np.float32 else 1e-8
        with pytest.warns(UserWarning, match="it has no solution"):
            result = solve(matrix, b, tol=tol)
        residual = np.linalg.norm(b - wide @ np.asarray(result))
        eigenvalues, vectors = np.linalg.eigh(wide)
        null = vectors[:, np.argsort(np.abs(eigenvalues))[: n - rank]]
        least, size = np.linalg.norm(null.conj().T @ b), float(np.linalg.norm(b))
        assert result.least_squares.all() and not result.converged.any()
        assert least - 1e-5 * size <= residual <= least + 1e-3 * size
        assert result.residual_norms[0] == pytest.approx(residual, abs=(1e-3 if dtype == np.float32 else 1e-9) * size)
        solvable = solve(matrix, matrix @ b, tol=tol)
        assert solvable.converged.all() and not solvable.least_squares.any()


@pytest.mark.parametrize("library", ["torch", "ml_dtypes"])
def test_systems_of_bfloat16_matrices_reach_what_single_precision_allows(library):
    """Products of such a matrix are exact in float32: only its symmetry is narrow."""
    values = np.array([0.5, 1.0, 2.0, 4.0, -8.0, 3.0])
    wide = np.diag(values) + 0.25 * np.ones((6, 6))
    if library == "torch":
        torch = pytest.importorskip("torch")
        matrix = torch.tensor(wide).to(torch.bfloat16)
    else:
        matrix = wide.astype(pytest.importorskip("ml_dtypes").bfloat16)
    b = np.arange(1.0, 7.0, dtype=np.float32)
    for operator in (ls.aslinearoperator(matrix), ls.aslinearoperator(matrix) + 0 * ls.identity(6, dtype=np.float32)):
        result = solve(operator, b, tol=2e-6)
        residual = np.linalg.norm(b - wide @ np.asarray(result, dtype=float)) / np.linalg.norm(b)
        assert result.converged.all() and residual <= 3e-6


def test_functions_with_large_values():
    result = funm_multiply(np.diag([1.0, 650.0]), np.exp, np.ones(2), num_steps=2)
    assert np.asarray(result)[1] == pytest.approx(np.exp(650.0), rel=1e-9)


# -- narrow types ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["torch", "ml_dtypes"])
def test_bfloat16_matrices(library):
    values = np.array([0.5, 1.0, 2.0, 4.0, -8.0])
    if library == "torch":
        torch = pytest.importorskip("torch")
        matrix = torch.diag(torch.tensor(values)).to(torch.bfloat16)
    else:
        matrix = np.diag(values).astype(pytest.importorskip("ml_dtypes").bfloat16)
    operator = ls.aslinearoperator(matrix)
    assert operator.dtype == np.float32
    np.testing.assert_allclose(ls.eigsh(matrix, 2, which="LM").eigenvalues, [-8, 4], rtol=1e-5)
    np.testing.assert_allclose(ls.eigsh(matrix, 2, which="SM").eigenvalues, [0.5, 1], rtol=1e-4)
    np.testing.assert_allclose(svds(matrix, 2).singular_values, [8, 4], rtol=1e-5)
    assert ls.trace(matrix).value == pytest.approx(values.sum(), rel=1e-6)
    np.testing.assert_allclose(np.asarray(diagonal(matrix).value), values, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(solve(matrix, np.ones(5, np.float32), tol=1e-4)), 1 / values, rtol=1e-3)
    assert ls.spectral_density(matrix, num_steps=5).trace().value == pytest.approx(values.sum(), rel=1e-4)


# -- infinite entries and products ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "check_operator"])
def test_entries_that_are_no_numbers(name, bad):
    with pytest.raises(FloatingPointError, match=r"NaN or infinity") as caught:
        FUNCTIONS[name](np.diag([1.0, bad, 2.0, 3.0]), 4)
    assert is_a_sentence(caught.value)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_the_self_check_of_entries_that_are_no_numbers(bad):
    assert not ls.check_operator(np.diag([1.0, bad, 2.0, 3.0])).passed


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("check_operator", "trace exact")])
def test_products_that_become_infinite(name, after):
    """From some product on."""
    n, calls = 150, []
    values = np.linspace(1, 2, n)

    def product(x):
        calls.append(1)
        return values * x if len(calls) <= after else np.full(n, np.inf)

    with pytest.raises(FloatingPointError, match=r"NaN or infinity") as caught:
        FUNCTIONS[name](ls.aslinearoperator(product, shape=(n, n), dtype=float, hermitian=True), n)
    assert is_a_sentence(caught.value)


# -- products that misbehave ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "function, message",
    [
        (lambda x: x[:-1], r"should return a vector of shape \(6,\), but returned an array of shape \(5,\)"),
        (lambda x: np.outer(x, x), r"shape \(6,\), but returned an array of shape \(6, 6\)"),
        (lambda x: x[:, None], r"shape \(6,\), but returned an array of shape \(6, 1\)"),
        (lambda x: float(x @ x), r"shape \(6,\), but returned an array of shape \(\)"),
    ],
    ids=["short", "matrix", "column", "number"],
)
def test_products_of_another_shape(name, function, message):
    operator = ls.aslinearoperator(function, shape=(6, 6), dtype=float, hermitian=True)
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](operator, 6)


@pytest.mark.parametrize("result", [None, "text", [None] * 6], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_that_are_no_numbers(name, result):
    operator = ls.aslinearoperator(lambda x: result, shape=(6, 6), dtype=float, hermitian=True)
    with pytest.raises((TypeError, ValueError)) as caught:
        FUNCTIONS[name](operator, 6)
    assert is_a_sentence(caught.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_product_that_writes_into_its_input_is_stopped(name):
    def product(x):
        x *= 2
        return x

    operator = ls.aslinearoperator(product, shape=(6, 6), dtype=float, hermitian=True)
    with pytest.raises(ValueError, match="read-only"):
        FUNCTIONS[name](operator, 6)


class Disturbing(ls.LinearOperator):
    """Returns its input, or one buffer for all products, or keeps what it was given."""

    def __init__(self, values, habit):
        self.values, self.habit, self.buffer = values, habit, None
        super().__init__((len(values),) * 2, float, hermitian=True)

    def _matmat(self, x):
        if self.habit == "its input":
            return x
        product = self.values[:, None] * x
        if self.buffer is None or self.buffer.shape != product.shape:
            self.buffer = np.empty_like(product)
        self.buffer[...] = product
        return self.buffer


@pytest.mark.parametrize("habit", ["its input", "one buffer"])
def test_products_in_shared_memory(habit):
    n = 60
    values = np.ones(n) if habit == "its input" else np.linspace(1, 3, n)
    operator = Disturbing(values, habit)
    np.testing.assert_allclose(ls.eigsh(operator, 3, which="LA").eigenvalues, np.sort(values)[-3:], atol=1e-5)
    np.testing.assert_allclose(ls.eigsh(operator, 3, which="SM").eigenvalues, np.sort(values)[:3], atol=1e-5)
    np.testing.assert_allclose(svds(operator, 3).singular_values, np.sort(values)[:-4:-1], atol=1e-5)
    np.testing.assert_allclose(np.asarray(solve(operator, np.ones(n))), 1 / values, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(funm_multiply(operator, np.exp, np.ones(n), num_steps=40)), np.exp(values), rtol=1e-9)
    for method in METHODS:
        assert ls.trace(operator, method=method).value == pytest.approx(values.sum(), rel=0.02)
    np.testing.assert_allclose(np.asarray(diagonal(operator).value), values)
    assert ls.spectral_density(operator, num_steps=30).trace().value == pytest.approx(values.sum(), rel=0.1)


PARTIAL = [name for name in FUNCTIONS if name not in ("check_operator", "trace exact", "spectral_norm", "eigsh SM", "svds SM", "diagonal")]


@pytest.mark.parametrize("name", PARTIAL)
def test_a_function_that_raises_in_the_middle(name):
    """What was done before is kept, and the error names the product and the cause."""
    n, calls = 400, []
    values = np.linspace(1, 2, n) ** 4

    def product(x):
        calls.append(1)
        if len(calls) > 24:
            raise OSError("the disk is gone")
        return values * x

    operator = ls.aslinearoperator(product, shape=(n, n), dtype=float, hermitian=True)
    options = {"solve": lambda a: solve(a, np.sin(np.arange(n)), tol=1e-14), "lanczos": lambda a: ls.lanczos(a, 60)}
    options |= {"funm_multiply": lambda a: funm_multiply(a, np.exp, np.ones(n), num_steps=60)}
    options |= {"spectral_density": lambda a: ls.spectral_density(a, num_steps=60)}
    options |= {"logdet": lambda a: ls.logdet(a, num_steps=60), "trace_function": lambda a: ls.trace_function(a, np.exp, num_steps=60)}
    with pytest.raises(RuntimeError, match=r"OSError: the disk is gone") as caught:
        options.get(name, lambda a: FUNCTIONS[name](a, n))(operator)
    assert is_a_sentence(caught.value) and isinstance(caught.value.__cause__, OSError)
    assert caught.value.partial is not None


# -- extreme scales -------------------------------------------------------------------------------------------------------------------

SCALES = [1e-290, 1e-200, 1e-100, 1e-60, 1e60, 1e150, 1e200, 1e290]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", ["auto", "hutchinson", "hutch++", "xtrace", "xnystrace"])
def test_traces_at_extreme_scales(method, scale):
    """An estimate scales with the matrix, and so does its error."""
    matrix = rotated(0.7 ** np.arange(60.0), 1)
    one, scaled = (ls.trace(factor * matrix, method=method, num_matvecs=24) for factor in (1.0, scale))
    assert scaled.value / scale == pytest.approx(one.value, rel=1e-9)
    assert scaled.standard_error / scale == pytest.approx(one.standard_error, rel=1e-4)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", ["auto", "hutchinson", "xdiag"])
def test_diagonals_at_extreme_scales(method, scale):
    matrix = rotated(0.7 ** np.arange(60.0), 1)
    one, scaled = (diagonal(factor * matrix, method=method, num_matvecs=24) for factor in (1.0, scale))
    np.testing.assert_allclose(np.asarray(scaled.value) / scale, np.asarray(one.value), rtol=1e-7)
    np.testing.assert_allclose(np.asarray(scaled.standard_error) / scale, np.asarray(one.standard_error), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e-60, 1e60, 1e200])
def test_other_functions_at_extreme_scales(scale):
    values = np.linspace(1, 2, 60)
    a = ls.diagonal_operator(scale * values)
    np.testing.assert_allclose(svds(a, 3).singular_values / scale, values[:-4:-1], rtol=1e-5)
    np.testing.assert_allclose(ls.eigsh(a, 3, which="SM").eigenvalues / scale, values[:3], rtol=1e-4)
    np.testing.assert_allclose(np.asarray(solve(a, scale * np.ones(60))), 1 / values, rtol=1e-6)
    assert ls.spectral_norm(a).value / scale == pytest.approx(2)
    assert ls.frobenius_norm(a).value / scale == pytest.approx(np.linalg.norm(values), rel=0.2)
    assert ls.spectral_density(a, num_steps=40).trace().value / scale == pytest.approx(values.sum(), rel=0.1)
    assert ls.check_operator(a).passed


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("scale", [4e-277, 1e-290, 1e-300, 1e290, 1e300])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 3), (8, 5)], ids=str)
def test_singular_values_at_extreme_scales(shape, scale, dtype):
    matrix = random_array(shape, dtype, 1)
    exact = np.linalg.svd(matrix, compute_uv=False)
    for which, expected in (("LM", exact[0]), ("SM", exact[-1])):
        result = svds(scale * matrix, 1, which=which, tol=1e-10)
        assert result.singular_values[0] / scale == pytest.approx(expected, rel=1e-9)
        assert result.converged.all() and result.residual_norms[0] / scale <= 1e-9 * exact[0]
        assert result.norm_estimate / scale == pytest.approx(exact[0], rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e12])
def test_xtrace_where_its_vectors_span_nearly_everything(scale):
    values = np.r_[0.0, 1e-12, np.ones(11)]
    estimate = ls.trace(ls.diagonal_operator(scale * values), method="xtrace", num_matvecs=24)
    assert np.isfinite(estimate.standard_error)
    assert estimate.value == pytest.approx(scale * values.sum(), rel=1e-9)
