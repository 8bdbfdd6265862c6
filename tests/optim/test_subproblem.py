"""Cubic and trust-region steps against closed forms and dense solutions."""

import numpy as np
import pytest
from helpers import device_of_numpy, rotated
from region_problems import Counted, dense_solution, quadratic, random_problem

import linop_spectra as ls
from linop_spectra.krylov.errors import NonFiniteProductError
from linop_spectra.optim.regions.cubic import cubic_step, cubic_subproblem
from linop_spectra.optim.regions.krylov_space import KrylovSpace
from linop_spectra.optim.regions.secular import Ball, Cubic, solve_diagonal
from linop_spectra.optim.regions.trust_region import trust_region_step, trust_region_subproblem

H = ls.diagonal_operator(np.array([2.0, -1.0]))


def check_optimal(a, g, result, *, radius=None, sigma=None, atol=1e-6):
    """The conditions that a global minimiser fulfils and nothing else does."""
    s, shift = np.asarray(result.step), result.multiplier
    scale = np.linalg.norm(a, 2) * np.linalg.norm(s) + np.linalg.norm(g)
    assert np.linalg.norm(a @ s + shift * s + g) < atol * scale
    assert np.linalg.eigvalsh(a)[0] + shift > -atol * np.linalg.norm(a, 2)
    norm = np.linalg.norm(s)
    if sigma is None:
        assert shift >= 0 and norm <= radius * (1 + 1e-9)
        assert shift * (radius - norm) < atol * max(shift, 1) * radius
        value = quadratic(a, g, s)
    else:
        assert shift == pytest.approx(sigma * norm, rel=atol)
        value = quadratic(a, g, s) + sigma / 3 * norm**3
    assert result.model_value == pytest.approx(value, rel=1e-8, abs=1e-12) and result.model_value <= 0
    assert result.step_norm == pytest.approx(norm, rel=1e-12)


# -- known answers -----------------------------------------------------------------------------------------------------


def test_known_steps_of_two_variables():
    result = cubic_subproblem(H, np.array([1.0, 0.1]), sigma=1.0)
    np.testing.assert_allclose(result.step, [-0.323047, -1.046815], atol=5e-7)
    assert result.multiplier == pytest.approx(1.095528, abs=5e-7) and result.model_value == pytest.approx(-0.433003, abs=5e-7)
    result = trust_region_subproblem(H, np.array([1.0, 0.1]), radius=1.0)
    np.testing.assert_allclose(result.step, [-0.321996, -0.946741], atol=5e-7)
    assert result.multiplier == pytest.approx(1.105626, abs=5e-7) and result.model_value == pytest.approx(-0.761148, abs=5e-7)
    assert not result.hard_case and result.converged


def test_known_hard_cases():
    """With the shift at one the first entry is -1/3; the second fills up the norm, of either sign."""
    result = trust_region_subproblem(H, np.array([1.0, 0.0]), radius=1.0)
    np.testing.assert_allclose(np.abs(result.step), [1 / 3, np.sqrt(8) / 3], rtol=1e-12)
    assert result.step[0] < 0 and result.multiplier == pytest.approx(1.0) and result.model_value == pytest.approx(-2 / 3)
    assert result.hard_case and result.lowest_eigenvalue == pytest.approx(-1.0)
    result = cubic_subproblem(H, np.array([1.0, 0.0]), sigma=0.5)  # |s| = shift / sigma = 2
    np.testing.assert_allclose(np.abs(result.step), [1 / 3, np.sqrt(4 - 1 / 9)], rtol=1e-12)
    assert result.hard_case and result.multiplier == pytest.approx(1.0)


def test_one_variable():
    """2 s + sigma s |s| = -3, a parabola; in a ball, the nearer of Newton step and boundary."""
    a, g = np.array([[2.0]]), np.array([3.0])
    for sigma in (0.1, 1.0, 50.0):
        np.testing.assert_allclose(cubic_step(a, g, sigma=sigma), [-(-2 + np.sqrt(4 + 12 * sigma)) / (2 * sigma)], rtol=1e-12)
    for method in ("gltr", "steihaug"):
        np.testing.assert_allclose(trust_region_step(a, g, radius=10.0, method=method), [-1.5], rtol=1e-12)
        np.testing.assert_allclose(trust_region_step(a, g, radius=0.5, method=method), [-0.5], rtol=1e-12)
        np.testing.assert_allclose(trust_region_step(-a, g, radius=0.5, method=method), [-0.5], rtol=1e-12)
    np.testing.assert_allclose(cubic_step(-a, g, sigma=1.0), [-3.0], rtol=1e-12)  # s^2 - 2 s - 3 = 0


def test_a_matrix_of_zeros():
    """Only the region is left: -g / |g| times the radius, or times the root of |g| / sigma."""
    g = np.array([3.0, 4.0, 0.0])
    np.testing.assert_allclose(trust_region_step(np.zeros((3, 3)), g, radius=2.0), -0.4 * g, rtol=1e-12)
    np.testing.assert_allclose(cubic_step(np.zeros((3, 3)), g, sigma=0.2), -g, rtol=1e-12)


# -- against the dense solution ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2])
def test_random_indefinite_problems(seed, size):
    a, g = random_problem(seed)
    expected, shift = dense_solution(a, g, radius=size)
    result = trust_region_subproblem(a, g, radius=size, tol=1e-12)
    np.testing.assert_allclose(result.step, expected, rtol=1e-6, atol=1e-7 * size)
    assert result.multiplier == pytest.approx(shift, rel=1e-8) and result.converged
    check_optimal(a, g, result, radius=size)
    expected, shift = dense_solution(a, g, sigma=size)
    result = cubic_subproblem(a, g, sigma=size, tol=1e-12)
    np.testing.assert_allclose(result.step, expected, rtol=1e-6, atol=1e-7 * np.linalg.norm(expected))
    assert result.multiplier == pytest.approx(shift, rel=1e-8)
    check_optimal(a, g, result, sigma=size)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_units_do_not_matter(unit):
    """Of loss and of length: the step scales with them."""
    a, g = random_problem(3)
    step = trust_region_step(a, g, radius=0.5, tol=1e-11)
    np.testing.assert_allclose(trust_region_step(unit * a, unit * g, radius=0.5, tol=1e-11), step, rtol=1e-7)
    np.testing.assert_allclose(trust_region_step(a, unit * g, radius=0.5 * unit, tol=1e-11), unit * step, rtol=1e-7)
    step = cubic_step(a, g, sigma=0.5, tol=1e-11)
    np.testing.assert_allclose(cubic_step(unit * a, unit * g, sigma=0.5 * unit, tol=1e-11), step, rtol=1e-7)
    np.testing.assert_allclose(cubic_step(a, unit * g, sigma=0.5 / unit, tol=1e-11), unit * step, rtol=1e-7)


@pytest.mark.parametrize("multiplicity", [1, 3])
@pytest.mark.parametrize("part", [0.0, 1e-14, 1e-9])
def test_hard_case_of_a_full_matrix(multiplicity, part):
    """The gradient has no part, or hardly any, along the lowest eigenvectors, which a Krylov space then does not find."""
    n = 30
    values = np.concatenate([np.full(multiplicity, -2.0), np.linspace(-1.0, 5.0, n - multiplicity)])
    a = rotated(values, seed=4)
    vectors = np.linalg.eigh(a)[1]
    lowest, others = vectors[:, :multiplicity], vectors[:, multiplicity:]
    rng = np.random.default_rng(0)
    g = others @ rng.standard_normal(n - multiplicity) / 10
    g = g + part * np.linalg.norm(g) * lowest[:, 0]
    for result, region in (
        (trust_region_subproblem(a, g, radius=3.0), {"radius": 3.0}),
        (cubic_subproblem(a, g, sigma=0.5), {"sigma": 0.5}),
    ):
        check_optimal(a, g, result, **region)
        least = others @ ((others.T @ g) / (values[multiplicity:] + 2.0))
        assert result.multiplier == pytest.approx(2.0, abs=1e-6) and result.converged
        np.testing.assert_allclose(others.T @ result.step, -others.T @ least, atol=1e-5)
        size = 3.0 if "radius" in region else 4.0
        assert np.linalg.norm(lowest.T @ result.step) == pytest.approx(np.sqrt(size**2 - least @ least), rel=1e-6)
    missed = trust_region_subproblem(a, g, radius=3.0, num_steps=8, hard_case="never")
    assert np.isnan(missed.lowest_eigenvalue) and missed.model_value > result.model_value and missed.multiplier < 1.5


def test_the_eigenvector_is_as_good_as_the_rest():
    """The first search for it is rough; a step that needs it has the tolerance of the problem."""
    values = np.append(-3.0, np.linspace(-2.5, 4.0, 399))
    g = np.append(0.0, np.ones(399)) / 10
    for tol in (1e-5, 1e-11):
        result = trust_region_subproblem(Counted(np.diag(values)), g, radius=10.0, tol=tol)
        residual = np.linalg.norm((values + result.multiplier) * result.step + g)
        assert result.hard_case and result.converged and residual < 4 * 10 * 2 * tol
        assert result.residual_norm == pytest.approx(residual, rel=1e-2, abs=1e-12)


def test_a_short_krylov_space_and_the_eigenvector_together():
    """Neither space is invariant: the direction that joins makes the model lower, and the residual is the true one."""
    a, g = random_problem(7)
    vectors = np.linalg.eigh(a)[1]
    g = (g - (1 - 1e-3) * vectors[:, 0] * (vectors[:, 0] @ g)) / 10
    for solve, region in ((trust_region_subproblem, {"radius": 20.0}), (cubic_subproblem, {"sigma": 0.1})):
        without, with_it = (solve(a, g, num_steps=4, hard_case=word, **region) for word in ("never", "always"))
        assert with_it.hard_case and with_it.model_value < without.model_value
        residual = np.linalg.norm(a @ with_it.step + with_it.multiplier * with_it.step + g)
        assert with_it.residual_norm == pytest.approx(residual, rel=1e-6)
        assert without.residual_norm == pytest.approx(np.linalg.norm(a @ without.step + without.multiplier * without.step + g), rel=1e-8)
        # The global minimum in that space, by projection and brute force.
        krylov = np.linalg.qr(np.stack([np.linalg.matrix_power(a, k) @ g for k in range(4)] + [vectors[:, 0]], axis=1))[0]
        small, _ = dense_solution(krylov.T @ a @ krylov, krylov.T @ g, **region)
        np.testing.assert_allclose(with_it.step, krylov @ small, atol=1e-5)


def test_zero_gradient():
    """Nothing to do, but where there is negative curvature: along its vector, up to the region."""
    positive, zero = np.diag([1.0, 2.0, 3.0]), np.zeros(3)
    assert not cubic_step(positive, zero, sigma=1.0).any() and not trust_region_step(positive, zero, radius=1.0).any()
    indefinite = np.diag([1.0, -2.0, 3.0])
    result = trust_region_subproblem(indefinite, zero, radius=0.5)
    np.testing.assert_allclose(np.abs(result.step), [0.0, 0.5, 0.0], atol=1e-9)
    assert result.model_value == pytest.approx(-0.25) and result.hard_case and result.num_steps == 0
    np.testing.assert_allclose(np.abs(cubic_step(indefinite, zero, sigma=4.0)), [0.0, 0.5, 0.0], atol=1e-9)
    for step in (
        cubic_step(indefinite, zero, sigma=4.0, hard_case="never"),
        trust_region_step(indefinite, zero, radius=1.0, method="steihaug"),
    ):
        assert step.shape == (3,) and not step.any()


# -- Steihaug ----------------------------------------------------------------------------------------------------------


def test_both_methods_are_the_newton_step_inside():
    a = rotated(np.linspace(1.0, 10.0, 25), seed=1)
    g = np.random.default_rng(1).standard_normal(25)
    newton = -np.linalg.solve(a, g)
    for method in ("gltr", "steihaug"):
        result = trust_region_subproblem(a, g, radius=2 * np.linalg.norm(newton), method=method, tol=1e-11)
        np.testing.assert_allclose(result.step, newton, rtol=1e-8)
        assert result.model_value == pytest.approx(-0.5 * g @ np.linalg.solve(a, g), rel=1e-12) and result.converged


@pytest.mark.parametrize("seed", range(4))
def test_steihaug_follows_conjugate_gradients_to_the_boundary(seed):
    """Against the iterates written out: the last one inside, and the point where the next one leaves."""
    a, g = random_problem(seed)
    a = a + 3 * seed * np.eye(len(g))  # indefinite at first, then not
    radius = 0.7 * np.linalg.norm(np.linalg.solve(a, g))
    s, r = np.zeros_like(g), g.copy()
    p = -r
    for _ in range(100):
        curvature = p @ a @ p
        after = s + (r @ r) / curvature * p
        if curvature <= 0 or np.linalg.norm(after) >= radius:
            roots = np.roots([p @ p, 2 * s @ p, s @ s - radius**2])
            s = s + max(roots.real) * p
            break
        new = r + (r @ r) / curvature * (a @ p)
        s, p, r = after, -new + (new @ new) / (r @ r) * p, new
    result = trust_region_subproblem(a, g, radius=radius, method="steihaug")
    np.testing.assert_allclose(result.step, s, rtol=1e-7, atol=1e-9)
    assert result.step_norm == pytest.approx(radius, rel=1e-9) and result.model_value == pytest.approx(quadratic(a, g, s), rel=1e-8)
    assert result.residual_norm == pytest.approx(np.linalg.norm(a @ s + g), rel=1e-7)
    best = trust_region_subproblem(a, g, radius=radius).model_value
    assert best <= result.model_value + 1e-12
    if np.linalg.eigvalsh(a)[0] > 0:
        assert result.model_value <= 0.5 * best


def test_a_preconditioner_measures_the_step_in_its_own_norm():
    """M = (L L^T)^-1 is the plain method in the variables L^T s."""
    a, g = random_problem(2)
    a = a + 9 * np.eye(30)
    lower = np.linalg.cholesky(a + np.diag(np.linspace(0.0, 4.0, 30)))
    inverse = np.linalg.inv(lower @ lower.T)
    for radius in (0.3, 100.0):
        step = trust_region_step(a, g, radius=radius, method="steihaug", preconditioner=(inverse + inverse.T) / 2, tol=1e-11)
        changed = np.linalg.solve(lower, np.linalg.solve(lower, a).T)
        plain = trust_region_step((changed + changed.T) / 2, np.linalg.solve(lower, g), radius=radius, method="steihaug", tol=1e-11)
        np.testing.assert_allclose(lower.T @ step, plain, rtol=1e-7, atol=1e-9)
    with pytest.raises(ValueError, match="preconditioner is not positive definite"):
        trust_region_step(a, g, radius=1.0, method="steihaug", preconditioner=-np.eye(30))
    with pytest.raises(ValueError, match="preconditioner has shape"):
        trust_region_step(a, g, radius=1.0, method="steihaug", preconditioner=np.eye(29))
    with pytest.raises(ValueError, match="preconditioner is for method='steihaug'"):
        trust_region_step(a, g, radius=1.0, preconditioner=np.eye(30))


# -- cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["never", "auto"])
def test_cost_with_a_number_of_steps_is_that_number(word):
    a, g = random_problem(0, n=60)
    for num_steps in (1, 7, 20):
        for solve in (
            lambda op, k: cubic_subproblem(op, g, sigma=1e-3, num_steps=k, tol=1e-14, hard_case=word),
            lambda op, k: trust_region_subproblem(op, g, radius=1e3, num_steps=k, tol=1e-14, hard_case=word),
        ):
            operator = Counted(a)
            result = solve(operator, num_steps)
            assert operator.count == result.num_matvecs == result.num_steps == num_steps


def test_cost_is_the_number_of_distinct_eigenvalues():
    """Then the Krylov space is invariant; a matrix that says it is semidefinite is not searched for more."""
    values = np.repeat([1.0, 2.0, 5.0], 10)
    g = np.ones(30)
    operator = ls.diagonal_operator(values)
    assert operator.positive_semidefinite
    for result in (
        cubic_subproblem(operator, g, sigma=1e-2, tol=1e-13),
        trust_region_subproblem(operator, g, radius=1.0, tol=1e-13),
        trust_region_subproblem(operator, g, radius=100.0, tol=1e-13, method="steihaug"),
    ):
        assert result.num_matvecs == result.num_steps == 3 and result.converged


def test_cost_of_the_eigenvector_is_counted():
    a = np.diag(np.append(-3.0, np.linspace(1.0, 4.0, 299)))
    g = np.append(0.0, np.ones(299)) / 10
    operator = Counted(a)
    result = trust_region_subproblem(operator, g, radius=1.0)
    assert result.hard_case and operator.count == result.num_matvecs > result.num_steps + 1
    again = Counted(a)
    assert trust_region_subproblem(again, g, radius=1.0, hard_case="never").num_matvecs == again.count == result.num_steps


def test_another_operator_takes_over_the_count():
    """A Krylov space that goes on with an equal operator: the products are the new one's, the space is that of one run."""
    a, g = random_problem(0)
    whole, first, second = Counted(a), Counted(a), Counted(a)
    expected, space = KrylovSpace(whole, g, 8), KrylovSpace(first, g, 8)
    for step in range(8):
        expected.grow()
        if step == 3:
            space.operator = second
        space.grow()
    assert (first.count, second.count) == (3, 5) and space.size == 8
    np.testing.assert_array_equal(space.jacobi(8), expected.jacobi(8))
    for one in (0, 5, 8):
        np.testing.assert_array_equal(space.vector(one), expected.vector(one))


def test_cost_of_steihaug_is_one_product_a_step():
    a, g = random_problem(0, n=60)
    operator = Counted(a + 20 * np.eye(60))
    result = trust_region_subproblem(operator, g, radius=100.0, method="steihaug", num_steps=5, tol=1e-14)
    assert operator.count == result.num_matvecs == result.num_steps == 5 and not result.converged


# -- types, backends, bad input ----------------------------------------------------------------------------------------


def test_single_precision():
    a, g = random_problem(5)
    for solve, region in ((cubic_step, {"sigma": 1.0}), (trust_region_step, {"radius": 1.0})):
        exact = solve(a, g, **region)
        step = solve(a.astype(np.float32), g.astype(np.float32), **region)
        assert step.dtype == np.float32
        np.testing.assert_allclose(step, exact, atol=2e-4 * np.linalg.norm(exact))
    step = trust_region_step(ls.diagonal_operator(np.array([2.0, -1.0], np.float32)), np.array([1.0, 0.0], np.float32), radius=1.0)
    np.testing.assert_allclose(np.abs(step), [1 / 3, 0.942809], atol=1e-5)


def test_vectors_stay_in_the_operators_library():
    torch = pytest.importorskip("torch")
    a, g = random_problem(6)
    for solve, options in (
        (cubic_step, {"sigma": 1.0}), (trust_region_step, {"radius": 1.0}), (trust_region_step, {"radius": 1.0, "method": "steihaug"}),
    ):  # fmt: skip
        operator = ls.aslinearoperator(torch.as_tensor(a), backend="torch:cpu")
        step = solve(operator, torch.as_tensor(g), **options)
        assert isinstance(step, torch.Tensor)
        np.testing.assert_allclose(step.numpy(), solve(a, g, **options), rtol=1e-8, atol=1e-10)


def test_scalars_that_stay_on_a_device():
    """The hard case included, which takes every kind of operation; NumPy plays the device."""
    a = rotated(np.concatenate([[-2.0], np.linspace(-1.0, 5.0, 29)]), seed=4)
    vectors = np.linalg.eigh(a)[1]
    g = vectors[:, 1:] @ np.random.default_rng(0).standard_normal(29) / 10
    for solve, options in (
        (cubic_step, {"sigma": 0.5}), (trust_region_step, {"radius": 3.0}), (trust_region_step, {"radius": 3.0, "method": "steihaug"}),
    ):  # fmt: skip
        step = solve(ls.aslinearoperator(a, backend=device_of_numpy()), g, **options)
        expected = solve(a, g, **options)
        sign = np.sign(vectors[:, 0] @ step) * np.sign(vectors[:, 0] @ expected)
        expected = expected + (sign - 1) * vectors[:, 0] * (vectors[:, 0] @ expected)
        np.testing.assert_allclose(step, expected, rtol=1e-5, atol=1e-6)


def test_arguments_are_left_alone():
    a, g = random_problem(1)
    kept = a.copy(), g.copy()
    g.flags.writeable = False
    for method in ("gltr", "steihaug"):
        trust_region_step(a, g, radius=1.0, method=method)
    cubic_step(a, g, sigma=1.0)
    np.testing.assert_array_equal(a, kept[0])
    np.testing.assert_array_equal(g, kept[1])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_regions_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match=r"argument sigma is .* but must be finite and positive"):
        cubic_step(H, np.ones(2), sigma=bad)
    with pytest.raises(ValueError, match=r"argument radius is .* but must be finite and positive"):
        trust_region_step(H, np.ones(2), radius=bad)


def test_bad_input():
    for solve, region in ((cubic_step, {"sigma": 1.0}), (trust_region_step, {"radius": 1.0})):
        with pytest.raises(ValueError, match="argument g holds NaN or infinity"):
            solve(H, np.array([1.0, np.nan]), **region)
        with pytest.raises(ValueError, match=r"argument g must have shape \(2,\).*but has shape \(3,\)"):
            solve(H, np.ones(3), **region)
        with pytest.raises(TypeError, match="argument g is complex"):
            solve(H, np.ones(2) * 1j, **region)
        with pytest.raises(TypeError, match="real variables"):
            solve(np.eye(2) * (1 + 0j), np.ones(2), **region)
        with pytest.raises(ValueError, match="attribute hermitian is False"):
            solve(np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), **region)
        with pytest.raises(ValueError, match="shape"):
            solve(np.ones((2, 3)), np.ones(3), **region)
        with pytest.raises(ValueError, match="argument num_steps must be a whole number"):
            solve(H, np.ones(2), num_steps=0, **region)
        with pytest.raises(ValueError, match="argument tol must lie between 0 and 1"):
            solve(H, np.ones(2), tol=0.0, **region)
        with pytest.raises(ValueError, match="argument hard_case is 'sometimes'"):
            solve(H, np.ones(2), hard_case="sometimes", **region)
        with pytest.raises(NonFiniteProductError):
            solve(ls.diagonal_operator(np.array([1.0, np.nan])), np.ones(2), **region)
    with pytest.raises(FloatingPointError, match="not finite"):
        trust_region_step(ls.diagonal_operator(np.array([1.0, np.nan])), np.ones(2), radius=1.0, method="steihaug")
    with pytest.raises(ValueError, match="argument method is 'dogleg'"):
        trust_region_step(H, np.ones(2), radius=1.0, method="dogleg")
    with pytest.raises(ValueError, match="Steihaug's method cannot do"):
        trust_region_step(H, np.ones(2), radius=1.0, method="steihaug", hard_case="always")


def test_a_space_that_is_too_small_is_said():
    values = np.geomspace(1e-6, 1.0, 700)
    operator = ls.diagonal_operator(values)
    with pytest.warns(UserWarning, match="stopped in a Krylov space of 500 dimensions"):
        result = trust_region_subproblem(operator, np.ones(700), radius=1e9, tol=1e-13)
    assert not result.converged and result.num_matvecs == 500
    with pytest.warns(UserWarning, match="stopped after 500 conjugate gradient steps"):
        trust_region_step(operator, np.ones(700), radius=1e9, tol=1e-13, method="steihaug")


# -- the small problem -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiny", [1e-3, 1e-12, 1e-100])
def test_no_digits_are_lost_near_the_hard_case(tiny):
    """A gradient of `tiny` along the lowest eigenvector: the entry there is minus the gradient over the shift's small excess."""
    values, c = np.array([-1.0, 2.0]), np.array([tiny, 1.0])
    for region, norm in ((Ball(2.0), lambda shift: 2.0), (Cubic(0.25), lambda shift: shift / 0.25)):
        step, shift, hard = solve_diagonal(values, c, region)
        assert np.linalg.norm(step) == pytest.approx(norm(shift), rel=1e-13)
        assert step[1] == pytest.approx(-1 / (2 + shift), rel=1e-13)
        assert hard == (tiny < 1e-15) and (step[0] > 0) == hard


def test_shifts_at_the_edge_of_the_interior():
    """A radius that the Newton step just reaches, or just exceeds."""
    values, c = np.array([1.0, 3.0]), np.array([1.0, 1.0])
    norm = np.hypot(1.0, 1 / 3)
    assert solve_diagonal(values, c, Ball(norm * (1 + 1e-15))).multiplier == 0.0
    for part in (1e-14, 1e-8, 1e-2):
        step, shift, _ = solve_diagonal(values, c, Ball(norm * (1 - part)))
        assert shift > 0 and np.linalg.norm(step) == pytest.approx(norm * (1 - part), rel=1e-14)
    singular = solve_diagonal(np.array([0.0, 1.0]), np.array([0.0, 1.0]), Ball(5.0))
    np.testing.assert_array_equal(singular.coefficients, [0.0, -1.0])
    assert singular.multiplier == 0.0 and not singular.hard_case
