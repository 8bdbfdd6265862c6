"""The Lanczos run as users meet it: arguments, breakdown, resuming, interruption and bad operators."""

import time

import numpy as np
import pytest
from helpers import DTYPES, eps, random_array, rotated

import linop_spectra as ls
from linop_spectra.krylov.result import LanczosResult

EIGENVALUES = np.r_[np.linspace(-1, 1, 90), np.linspace(5, 20, 10)]


def wrap(matrix):
    return ls.aslinearoperator(matrix, hermitian=True)


def product_operator(function, n=60, dtype=np.float64):
    return ls.aslinearoperator(function, shape=(n, n), dtype=dtype, hermitian=True)


class Counting:
    """A diagonal product that does something odd at one call."""

    def __init__(self, at, action, n=60):
        self.calls, self.at, self.action, self.diagonal = 0, at, action, np.arange(1.0, n + 1)

    def __call__(self, x):
        self.calls += 1
        product = self.diagonal * x
        return self.action(product) if self.calls == self.at else product


def same(a: LanczosResult, b: LanczosResult):
    for name in ("alphas", "betas", "num_steps_taken", "start_norms"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.start_overlaps is None) == (b.start_overlaps is None)
    if a.start_overlaps is not None:
        np.testing.assert_allclose(a.start_overlaps, b.start_overlaps, atol=1e-6)
    assert a.num_matvecs == b.num_matvecs and a.dtype == b.dtype and a.reorthogonalize == b.reorthogonalize and a.seed == b.seed


# -- starting vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_given_starting_vectors_are_used_and_left_alone(dtype):
    matrix = rotated(EIGENVALUES, 0, dtype)
    start = random_array((100, 3), dtype, 5)
    kept = start.copy()
    run = ls.lanczos(wrap(matrix), 8, start=start, num_probes=3)
    np.testing.assert_array_equal(start, kept)
    for probe in range(3):
        alone = ls.lanczos(wrap(matrix), 8, start=start[:, probe])
        np.testing.assert_allclose(run.alphas[probe], alone.alphas[0], atol=1e3 * eps(dtype))
        np.testing.assert_allclose(run.start_norms[probe], np.linalg.norm(start[:, probe]), rtol=10 * eps(dtype))


def test_probes_in_lockstep_are_the_probes_alone():
    """Probe i of a block starts from the same vector as probe i of any other block."""
    a = wrap(rotated(EIGENVALUES))
    three, two = ls.lanczos(a, 10, num_probes=3, seed=4), ls.lanczos(a, 10, num_probes=2, seed=4)
    np.testing.assert_allclose(three.alphas[:2], two.alphas, atol=1e-10)
    assert not np.allclose(three.alphas[0], three.alphas[1])


def test_an_eigenvector_as_start_ends_after_one_step():
    run = ls.lanczos(ls.diagonal_operator(EIGENVALUES), 10, start=np.eye(100)[95])
    assert run.num_steps == 1 and run.alphas[0, 0] == EIGENVALUES[95] and run.betas[0, 0] == 0
    for vector in (np.zeros(100), np.full(100, np.nan), np.full(100, np.inf)):
        with pytest.raises(ValueError, match="argument start must be finite and not zero"):
            ls.lanczos(ls.diagonal_operator(EIGENVALUES), 3, start=vector)
    with pytest.raises(ValueError, match=r"The argument start must have shape \(100,\)"):
        ls.lanczos(ls.diagonal_operator(EIGENVALUES), 3, start=np.ones(99))


# -- breakdown ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eigenvalues", [[3.0], [0.0], [0.0, 1.0], [-2.0, 1.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]], ids=str)
@pytest.mark.parametrize("basis", ["diagonal", "rotated"])
def test_breakdown_at_the_number_of_distinct_eigenvalues(eigenvalues, basis, dtype):
    """The Krylov space is invariant there, so the rule is exact and further steps could only multiply rounding."""
    spectrum = np.repeat(eigenvalues, 20)
    matrix = np.diag(spectrum).astype(dtype) if basis == "diagonal" else rotated(spectrum, 1, dtype)
    for seed in range(3):
        run = ls.lanczos(wrap(matrix), min(30, len(spectrum)), num_probes=2, seed=seed)
        np.testing.assert_array_equal(run.num_steps_taken, len(eigenvalues))
        np.testing.assert_allclose(run.ritz_values, [eigenvalues] * 2, atol=100 * eps(dtype))
        assert np.all(run.betas[:, -1] == 0) and np.all(run.residual_norms == 0)


def test_probes_break_down_on_their_own():
    """One probe stops, the others go on; its row is padded, zeros for coefficients and NaN for Ritz values."""
    start = np.stack([np.eye(60)[:, 3], np.ones(60), np.eye(60)[:, 5] + np.eye(60)[:, 9]], axis=1)
    run = ls.lanczos(ls.diagonal_operator(np.arange(60.0)), 12, start=start, num_probes=3)
    np.testing.assert_array_equal(run.num_steps_taken, [1, 12, 2])
    assert run.num_matvecs == 15
    assert np.all(run.alphas[0, 1:] == 0) and np.all(run.betas[0] == 0) and np.all(np.isnan(run.ritz_values[0, 1:]))
    np.testing.assert_allclose(run.ritz_values[2, :2], [5, 9], atol=1e-12)
    np.testing.assert_allclose(
        run.ritz_values[1], ls.lanczos(ls.diagonal_operator(np.arange(60.0)), 12, start=np.ones(60)).ritz_values[0], atol=1e-10
    )
    assert np.all(np.isfinite(run.ritz_vectors(1))) and run.ritz_vectors(0).shape == (60, 1)


def test_an_operator_of_order_one():
    for dtype in DTYPES:
        run = ls.lanczos(wrap(np.array([[-2.0]], dtype)), 1, num_probes=2)
        np.testing.assert_allclose(run.alphas, [[-2.0]] * 2, rtol=10 * eps(dtype))
        np.testing.assert_array_equal(run.betas, 0)


def test_a_small_coupling_is_no_breakdown():
    """Relative to the norm, not absolute: a matrix of size 1e-12 is a matrix."""
    run = ls.lanczos(ls.diagonal_operator(1e-12 * np.arange(1.0, 41.0)), 20)
    assert run.num_steps_taken[0] == 20


# -- resuming ----------------------------------------------------------------------------------------------------------------

MATRICES = {"smooth": rotated(EIGENVALUES), "breaks down": np.diag(np.repeat(np.arange(4.0), 25)), "identity": np.eye(100)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("cuts", [(15, 15), (1, 29), (16, 1, 13)], ids=str)
def test_resumed_runs_are_bit_identical(name, dtype, reorthogonalize, cuts, tmp_path):
    a = wrap(MATRICES[name].astype(dtype))
    options = {"num_probes": 2, "seed": 3, "reorthogonalize": reorthogonalize}
    whole = ls.lanczos(a, sum(cuts), **options)
    run = ls.lanczos(a, cuts[0], **options)
    first = (run.alphas.copy(), run.betas.copy())
    in_memory = run
    for number, steps in enumerate(cuts[1:]):
        in_memory = in_memory.extend(steps, operator=a)
        run.save(tmp_path / f"{number}.npz")
        run = ls.load(tmp_path / f"{number}.npz").extend(steps, operator=a)
    same(in_memory, whole)
    same(run, whole)
    untouched = ls.lanczos(a, cuts[0], **options)
    np.testing.assert_array_equal(first, (untouched.alphas, untouched.betas))


def test_one_run_can_be_continued_twice():
    """Continuing does not use up or change the run, not even its vectors."""
    a = wrap(rotated(EIGENVALUES))
    half = ls.lanczos(a, 10)
    one, two = half.extend(10, operator=a), half.extend(10, operator=a)
    same(one, two)
    same(one.extend(5, operator=a), ls.lanczos(a, 25))
    same(half.extend(3, operator=a), ls.lanczos(a, 13))
    assert half.ritz_vectors().shape == (100, 10)


def test_continuing_with_another_operator_is_refused():
    a, b = wrap(rotated(EIGENVALUES)), wrap(rotated(EIGENVALUES + 1))
    half = ls.lanczos(a, 10)
    with pytest.raises(ValueError, match="argument operator is not the one of the run"):
        half.extend(10, operator=b)


def test_a_run_can_be_continued_twice():
    """Branches of one run share what they have in common and nothing else."""
    a = wrap(rotated(EIGENVALUES))
    half = ls.lanczos(a, 10)
    longer, shorter = half.extend(20, operator=a), half.extend(10, operator=a)
    same(shorter, ls.lanczos(a, 20))
    same(longer, ls.lanczos(a, 30))
    assert half.num_steps == 10


def test_saving_without_the_basis(tmp_path):
    a = wrap(rotated(EIGENVALUES))
    run = ls.lanczos(a, 10, num_probes=2)
    run.save(tmp_path / "small.npz", basis=False)
    run.save(tmp_path / "large.npz")
    small, large = ls.load(tmp_path / "small.npz"), ls.load(tmp_path / "large.npz")
    same(small, run)
    assert (tmp_path / "small.npz").stat().st_size < 10_000 < (tmp_path / "large.npz").stat().st_size
    np.testing.assert_array_equal(large.ritz_vectors(1), run.ritz_vectors(1))
    with pytest.raises(ValueError, match="saved without its vectors"):
        small.extend(1, operator=a)
    with pytest.raises(ValueError, match="kept no basis"):
        small.ritz_vectors()


def test_extending_checks_its_arguments():
    a = wrap(rotated(EIGENVALUES))
    run = ls.lanczos(a, 5)
    with pytest.raises(ValueError, match=r"argument operator has shape \(99, 99\)"):
        run.extend(1, operator=ls.identity(99))
    with pytest.raises(ValueError, match="dtype float32"):
        run.extend(1, operator=ls.identity(100, dtype=np.float32))
    with pytest.raises(ValueError, match="argument num_steps"):
        run.extend(0, operator=a)
    with pytest.raises(TypeError, match="was given seed"):
        run.extend(1, operator=a, seed=3)
    with pytest.warns(UserWarning, match="num_steps = 105 is more than the order 100"):
        assert run.extend(100, operator=a).num_steps == 100


# -- interruption ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 7, 20])
def test_nan_in_a_product_keeps_the_steps_before_it(step):
    def spoil(product):
        product[17] = np.nan
        return product

    whole = ls.lanczos(product_operator(Counting(0, None)), 20)
    with pytest.raises(ls.NonFiniteProductError, match=rf"step {step} .*NaN or infinity.*{step - 1} steps before it") as caught:
        ls.lanczos(product_operator(Counting(step, spoil)), 20)
    error = caught.value
    assert isinstance(error, FloatingPointError) and isinstance(error, ls.LanczosInterrupted)
    assert error.step == step - 1 == error.partial.num_steps and error.partial.status == "interrupted" and not error.partial.converged
    np.testing.assert_array_equal(error.partial.alphas, whole.alphas[:, : step - 1])
    np.testing.assert_array_equal(error.partial.betas, whole.betas[:, : step - 1])
    if step > 1:  # and the run can go on once the product is mended
        again = error.partial.extend(20 - error.step, operator=product_operator(Counting(0, None)))
        np.testing.assert_array_equal(again.alphas, whole.alphas)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_in_a_product_is_found(value):
    with pytest.raises(ls.NonFiniteProductError, match="step 3 "), np.errstate(invalid="ignore"):
        ls.lanczos(product_operator(Counting(3, lambda product: np.where(np.arange(60) == 5, value, product))), 20)


def test_nan_in_one_probe_names_it():
    def spoil(x):
        return np.arange(60.0) * x * (np.nan if abs(x[0]) == 1 else 1)

    start = np.stack([np.ones(60), np.eye(60)[0]], axis=1)
    with pytest.raises(ls.NonFiniteProductError, match=r"step 1 \(probe 1\)"):
        ls.lanczos(product_operator(spoil), 20, start=start, num_probes=2)


def _raise(error):
    raise error


@pytest.mark.parametrize("error", [RuntimeError("the cluster went away"), MemoryError("out of memory"), ValueError("bad batch")], ids=repr)
@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_a_product_that_raises_keeps_what_is_done(error, reorthogonalize):
    whole = ls.lanczos(product_operator(Counting(0, None)), 20, reorthogonalize=reorthogonalize)
    with pytest.raises(ls.LanczosInterrupted, match=rf"failed at step 7 \({type(error).__name__}: {error}\)") as caught:
        ls.lanczos(product_operator(Counting(7, lambda _: _raise(error))), 20, reorthogonalize=reorthogonalize)
    partial = caught.value.partial
    assert caught.value.step == partial.num_steps == 6 and caught.value.__cause__ is error
    np.testing.assert_array_equal(partial.alphas, whole.alphas[:, :6])
    again = partial.extend(14, operator=product_operator(Counting(0, None)))
    np.testing.assert_array_equal(again.alphas, whole.alphas)
    assert again.status == "complete"


def test_a_product_that_raises_at_once_raises_its_own_error():
    with pytest.raises(ZeroDivisionError):
        ls.lanczos(product_operator(Counting(1, lambda _: _raise(ZeroDivisionError()))), 5)


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_ctrl_c_returns_the_marked_partial_run(reorthogonalize):
    whole = ls.lanczos(product_operator(Counting(0, None)), 20, reorthogonalize=reorthogonalize)
    run = ls.lanczos(product_operator(Counting(7, lambda _: _raise(KeyboardInterrupt()))), 20, reorthogonalize=reorthogonalize)
    assert run.status == "interrupted" and not run.converged and run.num_steps == 6
    same(run.extend(14, operator=product_operator(Counting(0, None))), whole)


def test_time_budget_returns_the_marked_partial_run():
    def slow(x):
        time.sleep(0.01)
        return np.arange(60.0) * x

    began = time.perf_counter()
    run = ls.lanczos(product_operator(slow), 60, time_budget=0.15)
    assert time.perf_counter() - began < 2
    assert run.status == "time budget" and 1 <= run.num_steps < 60 and not run.converged
    whole = ls.lanczos(product_operator(lambda x: np.arange(60.0) * x), 60)
    np.testing.assert_array_equal(run.alphas, whole.alphas[:, : run.num_steps])
    assert ls.lanczos(product_operator(slow), 60, time_budget=1e-9).num_steps == 1  # never empty-handed
    assert ls.lanczos(product_operator(slow), 3, time_budget=60).status == "complete"


# -- operators that are not what they say --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-2])
def test_an_asymmetric_operator_called_hermitian_raises(dtype, size):
    matrix = rotated(EIGENVALUES, 0, dtype) + (size * random_array((100, 100), dtype, 3)).astype(dtype)
    with pytest.raises(ValueError, match="The operator is not symmetric"):
        ls.lanczos(wrap(matrix), 40)


def test_an_asymmetric_operator_that_says_nothing_raises_before_the_run():
    calls = Counting(0, None)
    matrix = np.random.default_rng(0).standard_normal((60, 60))

    def product(x):
        calls.calls += 1
        return matrix @ x

    with pytest.raises(ValueError, match=r"Lanczos needs a Hermitian .*Pass the symmetric part"):
        ls.lanczos(ls.aslinearoperator(product, shape=(60, 60), dtype=float), 40)
    assert calls.calls == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "eigenvalues",
    [np.r_[np.linspace(-1, 1, 290), np.linspace(5, 500, 10)], 10.0 ** np.linspace(-8, 4, 300), 1 / np.arange(1, 301.0)],
    ids=["outliers", "graded", "power law"],
)
def test_a_symmetric_operator_is_never_accused(eigenvalues, dtype):
    """Loss of orthogonality is not asymmetry: long runs over many converged eigenvalues, with rounding in the product."""
    for seed in range(5):
        run = ls.lanczos(wrap(rotated(eigenvalues, seed, dtype)), 120, num_probes=2, seed=seed)
        assert run.status == "complete"


def test_noise_at_the_level_of_single_precision_is_not_asymmetry():
    rng, diagonal = np.random.default_rng(0), np.linspace(1, 10, 300).astype(np.float32)
    noisy = ls.aslinearoperator(
        lambda x: (diagonal * x * (1 + 1e-6 * rng.standard_normal(300))).astype(np.float32),
        shape=(300, 300),
        dtype=np.float32,
        hermitian=True,
    )
    assert ls.lanczos(noisy, 40).status == "complete"


@pytest.mark.parametrize("reorthogonalize", ["full", "none"])
def test_a_product_that_returns_its_argument_or_a_shared_buffer(reorthogonalize):
    """The core writes neither to the block that it hands out nor to what comes back."""
    buffer = np.empty(60)

    class Sharing(ls.LinearOperator):
        def _matmat(self, x):
            if x.shape[1] > 1:
                return np.arange(60.0)[:, None] * x
            buffer[:] = np.arange(60.0) * x[:, 0]
            view = buffer[:, None]
            view.flags.writeable = False
            return view

    expected = ls.lanczos(ls.diagonal_operator(np.arange(60.0)), 12, reorthogonalize=reorthogonalize)
    got = ls.lanczos(Sharing((60, 60), float, hermitian=True), 12, reorthogonalize=reorthogonalize)
    np.testing.assert_array_equal(got.alphas, expected.alphas)
    assert ls.lanczos(ls.identity(60), 5).alphas[0, 0] == pytest.approx(1, abs=1e-15)


# -- arguments and plan --------------------------------------------------------------------------------------------------------


def test_more_steps_than_the_order_are_clamped_with_a_warning():
    with pytest.warns(UserWarning, match="num_steps = 101 is more than the order 100 of the operator; 100 steps are taken"):
        assert ls.lanczos(wrap(rotated(EIGENVALUES)), 101).num_steps == 100


@pytest.mark.parametrize(
    "options, name",
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"num_steps": True}, "num_steps"),
        ({"num_probes": 0}, "num_probes"),
        ({"reorthogonalize": "partial"}, "reorthogonalize"),
        ({"memory_budget": "lots"}, "memory_budget"),
        ({"memory_budget": -1}, "memory_budget"),
        ({"time_budget": 0.0}, "time_budget"),
        ({"time_budget": np.nan}, "time_budget"),
    ],
)
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=rf"The argument {name} .*\."):
        ls.lanczos(wrap(rotated(EIGENVALUES)), **{"num_steps": 5, **options})


def test_bad_operators_are_named():
    with pytest.raises(ValueError, match=r"Lanczos needs a square Hermitian operator, but this one has shape \(3, 4\)"):
        ls.lanczos(np.ones((3, 4)), 2)
    with pytest.raises(ValueError, match="Hermitian"):
        ls.lanczos(np.triu(np.ones((4, 4))), 2)
    with pytest.raises(TypeError, match="cannot be used as an operator"):
        ls.lanczos("matrix", 2)


def test_progress_is_told_every_step(capsys):
    seen = []
    ls.lanczos(wrap(rotated(EIGENVALUES)), 4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert capsys.readouterr().err == ""
    ls.lanczos(wrap(rotated(EIGENVALUES)), 4, progress=True)
    assert "4/4" in capsys.readouterr().err


def test_notebook_form_is_escaped_html():
    html = ls.lanczos(wrap(rotated(EIGENVALUES)), 4)._repr_html_()
    assert html.startswith("<table>") and "n = 100" in html
