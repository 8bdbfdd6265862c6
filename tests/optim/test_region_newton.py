"""Cubic regularisation and trust regions as optimisers: descent, saddles, rejections, state, bad input."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from region_problems import dense_solution, loss_of_a_point, ridge, rosenbrock, small_net

import linop_spectra as ls
from linop_spectra.optim.regions.cubic import CubicNewton
from linop_spectra.optim.regions.trust_region import TrustRegionNewton

METHODS = {
    "cubic": CubicNewton,
    "gltr": TrustRegionNewton,
    "steihaug": lambda **options: TrustRegionNewton(method="steihaug", **options),
}
every_method = pytest.mark.parametrize("name", METHODS)
both_spaces = pytest.mark.parametrize("name", ["cubic", "gltr"])
REGION = {"cubic": "sigma", "gltr": "radius", "steihaug": "radius"}


def run(optimizer, objective, steps, theta=None):
    theta = objective.parameters() if theta is None else theta
    infos = []
    for _ in range(steps):
        theta, info = optimizer.step(objective, theta)
        infos.append(info)
    return theta, infos


# -- descent -----------------------------------------------------------------------------------------------------------


@every_method
def test_rosenbrock(name):
    """From the usual start into the minimum, never uphill, quadratically at the end."""
    theta, infos = run(METHODS[name](), loss_of_a_point([-1.2, 1.0], rosenbrock), 40)
    np.testing.assert_allclose(theta, [1.0, 1.0], atol=1e-10)
    losses = [info.loss for info in infos]
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert sum(info.num_matvecs for info in infos) < 100


@every_method
@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_a_small_net_goes_down(name, matrix):
    objective = small_net()
    theta, infos = run(METHODS[name](matrix=matrix), objective, 30)
    losses = [info.loss for info in infos]
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(losses))
    assert objective.with_parameters(theta).value() < 0.3 * losses[0]
    for info in infos:
        assert info.num_gradients == 1 and info.num_values == 1 and info.num_matvecs <= 50
        assert info.predicted_decrease > 0 and math.isfinite(info.details["residual"])


@every_method
def test_single_precision_keeps_its_type(name):
    objective = small_net(torch.float32)
    theta, infos = run(METHODS[name](), objective, 15)
    assert theta.dtype == np.float32 and infos[-1].loss < 0.6 * infos[0].loss


def test_a_step_is_the_dense_solution():
    """At full dimension, against the whole Hessian from products with unit vectors."""
    objective = small_net()
    a, g = np.asarray(objective.hessian().to_dense()), np.asarray(objective.gradient())
    for optimizer, region in (
        (CubicNewton(sigma=20.0, num_steps=len(g), tol=1e-12), {"sigma": 20.0}),
        (TrustRegionNewton(radius=0.4, num_steps=len(g), tol=1e-12), {"radius": 0.4}),
    ):
        expected, shift = dense_solution((a + a.T) / 2, g, **region)
        theta, info = optimizer.step(objective, objective.parameters())
        np.testing.assert_allclose(theta - objective.parameters(), expected, atol=1e-7)
        assert info.damping == pytest.approx(shift, rel=1e-8) and info.accepted
        model = -(g @ expected + 0.5 * expected @ a @ expected)
        if "sigma" in region:
            model -= region["sigma"] / 3 * np.linalg.norm(expected) ** 3
        assert info.predicted_decrease == pytest.approx(model, rel=1e-8)
        assert info.actual_decrease == pytest.approx(info.loss - objective.with_parameters(theta).value(), rel=1e-9)


# -- saddles -----------------------------------------------------------------------------------------------------------


@both_spaces
@pytest.mark.parametrize("start", [[1.0, 0.0], [0.0, 0.0]])
def test_leaves_a_saddle_that_the_gradient_leads_to(name, start):
    """On the ridge no gradient has a part along y, and at the saddle itself it is zero."""
    theta, infos = run(METHODS[name](), loss_of_a_point(start, ridge), 25)
    np.testing.assert_allclose(np.abs(theta), [0.0, math.sqrt(0.5)], atol=1e-8)
    assert any(info.details["hard_case"] for info in infos)
    assert infos[0].message.startswith("The gradient is zero") == (start[0] == 0.0) or not infos[0].accepted


@both_spaces
def test_leaves_a_saddle_after_coarse_steps(name):
    """Two curvatures along the ridge, so that the Krylov space is not invariant when it is exact enough."""
    objective = loss_of_a_point([1.0, 0.0, 1.0], lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 + 3 * x[2] ** 2 + x[2] ** 4)
    theta, _ = run(METHODS[name](), objective, 40)
    np.testing.assert_allclose(np.abs(theta), [0.0, math.sqrt(0.5), 0.0], atol=1e-7)


@both_spaces
def test_leaves_a_saddle_in_krylov_spaces_that_are_never_complete(name):
    """One dimension a step: only that the model promises nothing any more says that this may be a saddle."""
    objective = loss_of_a_point([1.0, 0.0, 1.0], lambda x: 1 + x[0] ** 2 - x[1] ** 2 + x[1] ** 4 + 3 * x[2] ** 2 + x[2] ** 4)
    theta, _ = run(METHODS[name](num_steps=1), objective, 80)
    np.testing.assert_allclose(np.abs(theta), [0.0, math.sqrt(0.5), 0.0], atol=1e-6)
    theta, _ = run(METHODS[name](num_steps=1, hard_case="never"), objective, 80)
    np.testing.assert_allclose(theta, np.zeros(3), atol=1e-6)


def test_without_the_eigenvector_the_saddle_keeps_them():
    for optimizer in (CubicNewton(hard_case="never"), TrustRegionNewton(hard_case="never"), TrustRegionNewton(method="steihaug")):
        theta, _ = run(optimizer, loss_of_a_point([1.0, 0.0], ridge), 30)
        np.testing.assert_allclose(theta, [0.0, 0.0], atol=1e-6)
        theta, info = optimizer.step(loss_of_a_point([0.0, 0.0], ridge), np.zeros(2))
        assert info.accepted and info.step_norm == 0.0 and info.num_matvecs == 0 and "The gradient is zero" in info.message


@every_method
def test_zero_gradient_at_a_minimum_is_a_zero_step(name):
    optimizer = METHODS[name]()
    theta, info = optimizer.step(loss_of_a_point([0.0, 0.0], lambda x: x[0] ** 2 + 2 * x[1] ** 2), np.zeros(2))
    np.testing.assert_array_equal(theta, [0.0, 0.0])
    assert info.accepted and info.step_norm == 0.0 and info.num_values == 0 and "the parameters stay" in info.message
    _, info = optimizer.step(loss_of_a_point([0.0, 0.0], lambda x: (x - 1).square().sum()), theta)
    assert info.accepted and info.step_norm > 0


# -- the region --------------------------------------------------------------------------------------------------------


def quartic(x):
    """Far flatter at one than its model from zero says: long steps are bad."""
    return (x[0] - 1) ** 2 * 0.5 + 1000 * x[0] ** 4


@every_method
def test_a_rejected_step_changes_the_region_alone(name):
    objective = loss_of_a_point([0.0], quartic)
    optimizer = METHODS[name](**{REGION[name]: 1e-3 if name == "cubic" else 1.0})
    theta = objective.parameters()
    after, info = optimizer.step(objective, theta)
    assert after is theta or np.array_equal(after, theta)
    assert not info.accepted and info.step_norm == 0.0 and info.ratio < 0.1 and "the model promised" in info.message
    assert optimizer.state["rejections"] == 1
    if name == "cubic":
        assert optimizer.state["sigma"] == 2e-3
    else:
        assert optimizer.state["radius"] == pytest.approx(0.25)
    theta, _ = run(optimizer, objective, 60, theta)
    assert optimizer.state["rejections"] == 0
    # Minimum where x - 1 + 4000 x^3 is zero.
    root = next(r.real for r in np.roots([4000.0, 0.0, 1.0, -1.0]) if abs(r.imag) < 1e-12)
    np.testing.assert_allclose(theta, [root], rtol=1e-7)


def test_sigma_and_radius_follow_the_ratio():
    """On a quadratic the ratio of the trust region is one: it grows while steps reach it. A cubic model promises less than it gains."""
    objective = loss_of_a_point([100.0, 50.0], lambda x: 0.5 * (x[0] ** 2 + 2 * x[1] ** 2))
    optimizer = TrustRegionNewton(radius=1.0, max_radius=6.0, tol=1e-9)
    radii = [1.0]
    for _ in range(5):
        _, info = optimizer.step(objective, objective.parameters())
        assert info.ratio == pytest.approx(1.0, rel=1e-9) and info.details["step_norm"] == pytest.approx(radii[-1], rel=1e-9)
        radii.append(optimizer.state["radius"])
    assert radii == [1.0, 2.0, 4.0, 6.0, 6.0, 6.0]
    optimizer = CubicNewton(sigma=1.0)
    _, infos = run(optimizer, objective, 3)
    assert all(info.ratio > 1 for info in infos) and optimizer.state["sigma"] == 0.125


@both_spaces
def test_after_a_rejection_the_krylov_space_is_used_again(name):
    """The second step costs no product, and is what an optimiser that starts there finds."""
    objective = small_net()
    theta = objective.parameters()
    size = {"cubic": 1e-9, "gltr": 1e4}[name]
    optimizer = METHODS[name](**{REGION[name]: size}, tol=1e-6, num_steps=8, very_good=0.99)
    theta, first = optimizer.step(objective, theta)
    assert not first.accepted and first.num_matvecs == 8
    tighter = optimizer.state[REGION[name]]
    fresh = METHODS[name](**{REGION[name]: tighter}, max_radius=1e6) if name == "gltr" else METHODS[name](sigma=tighter)
    fresh.tol, fresh.num_steps, fresh.very_good = optimizer.tol, 8, 0.99
    again, info = optimizer.step(objective, theta)
    expected, other = fresh.step(objective, theta)
    np.testing.assert_array_equal(again, expected)
    assert info.num_matvecs == 0 and not info.refreshed and other.num_matvecs > 0 and other.refreshed
    assert info.details == other.details
    # Other data: nothing of it may be used, be it those of the curvature alone.
    optimizer.state = {**optimizer.state, REGION[name]: size}
    assert not optimizer.step(objective, theta)[1].accepted
    other = objective.with_data((torch.ones(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])))
    _, info = optimizer.step(objective, theta, curvature=other)
    assert info.num_matvecs > 0 and info.refreshed
    moved = objective.with_data((torch.ones(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])))
    optimizer.state = {**optimizer.state, REGION[name]: size}
    _, info = optimizer.step(moved, theta)
    assert info.num_matvecs > 0 and info.loss == pytest.approx(moved.value())


@every_method
def test_a_loss_that_is_not_finite_rejects_the_step(name):
    """The logarithm ends at zero; the first steps lead beyond."""
    objective = loss_of_a_point([3.0], lambda x: 3 * x[0] - torch.log(x[0]))
    optimizer = METHODS[name](**{REGION[name]: 1e-8 if name == "cubic" else 100.0})
    theta, info = optimizer.step(objective, objective.parameters())
    assert not info.accepted and "not finite" in info.message and theta[0] == 3.0 and optimizer.state["rejections"] == 1
    theta, _ = run(optimizer, objective, 60, theta)
    np.testing.assert_allclose(theta, [1 / 3], rtol=1e-8)


@every_method
def test_many_rejections_end_in_a_sentence(name):
    """A curvature that lies about the loss: the loss rises whatever the step."""

    class Fixed(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x[0] * 1.0

        @staticmethod
        def backward(context, gradient):
            return -gradient * torch.ones(1, dtype=torch.float64)

    objective = loss_of_a_point([1.0], lambda x: Fixed.apply(x) + 0 * x[0] ** 2)
    _, infos = run(METHODS[name](), objective, 60)
    assert "rejected" in infos[12].message and "does not follow its gradient" in infos[12].message
    assert not infos[3].message.count("does not follow")
    assert all(np.isfinite(info.details["step_norm"]) for info in infos)


@every_method
def test_a_loss_of_zero(name):
    """Where all decreases underflow there is nothing to divide by."""
    theta, infos = run(METHODS[name](), loss_of_a_point([1e-170], lambda x: x[0] ** 2), 3)
    assert all(info.accepted and info.loss == 0.0 for info in infos) and abs(theta[0]) < 1e-180


@both_spaces
def test_a_search_without_an_answer_is_said(name):
    """The lowest of ten thousand eigenvalues that fill an interval, within 200 products."""
    weights = torch.linspace(0.0, 1.0, 10_000, dtype=torch.float64) ** 4
    objective = loss_of_a_point([0.0] * 10_000, lambda x: 0.5 * (weights * x.square()).sum())
    optimizer = METHODS[name](num_steps=5)
    _, info = optimizer.step(objective, objective.parameters())
    assert info.step_norm == 0.0 and info.num_matvecs <= 210 and "200 products without an answer" in info.message


# -- state -------------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("rejecting", [False, True])
def test_a_restored_run_goes_on_to_the_same_bits(name, rejecting, tmp_path):
    """Also where the run is cut after a rejection, whose Krylov space is then computed again."""
    objective = small_net()
    size = ({"cubic": 1e-8} if rejecting else {"cubic": 1.0}).get(name, 1e4 if rejecting else 1.0)
    options = {REGION[name]: size, "num_steps": 12}
    whole = METHODS[name](**options)
    expected, infos = run(whole, objective, 6)
    assert infos[2].accepted != rejecting
    first, second = METHODS[name](**options), METHODS[name](**options)
    theta, _ = run(first, objective, 3)
    first.save(tmp_path / "state.npz")
    second.restore(tmp_path / "state.npz")
    theta, _ = run(second, objective, 3, theta)
    np.testing.assert_array_equal(theta, expected)
    assert second.state == whole.state and second.steps_taken == 6
    with pytest.raises(ValueError, match="settings"):
        METHODS[name](tol=0.5).restore(tmp_path / "state.npz")


@every_method
def test_the_model_is_left_alone_and_other_sizes_are_refused(name):
    objective = small_net()
    theta = objective.parameters()
    kept = theta.copy()
    optimizer = METHODS[name]()
    optimizer.step(objective, theta)
    np.testing.assert_array_equal(theta, kept)
    np.testing.assert_array_equal(objective.parameters(), kept)
    with pytest.raises(ValueError, match="belongs to 32 parameters"):
        optimizer.step(loss_of_a_point([1.0, 1.0], rosenbrock), np.ones(2))


@every_method
def test_curvature_of_other_data(name):
    """The quadratic term is that of the other batch, the linear one the gradient's own."""
    objective = small_net()
    other = objective.with_data((torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(10, 3), torch.arange(10) % 2))
    sigma = 20.0
    options = {REGION[name]: sigma if name == "cubic" else 0.1, "num_steps": 32, "tol": 1e-10}
    theta, info = METHODS[name](**options).step(objective, objective.parameters(), curvature=other)
    step = theta - objective.parameters()
    a, g = np.asarray(other.hessian().to_dense()), np.asarray(objective.gradient())
    model = g @ step + 0.5 * step @ a @ step + (sigma / 3 * np.linalg.norm(step) ** 3 if name == "cubic" else 0.0)
    assert info.accepted and info.predicted_decrease == pytest.approx(-model, rel=1e-8)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CubicNewton(sigma=0.0), "argument sigma is 0.0, but must be finite and positive"),
        (lambda: CubicNewton(sigma=-1.0), "argument sigma is -1.0"),
        (lambda: CubicNewton(decrease=1.0), "argument decrease is 1.0"),
        (lambda: CubicNewton(increase=1.0), "argument increase is 1.0, but must be above 1"),
        (lambda: CubicNewton(num_steps=0), "argument num_steps must be a whole number"),
        (lambda: CubicNewton(num_steps=None), "argument num_steps is None"),
        (lambda: CubicNewton(tol=1.0), "argument tol must lie between 0 and 1"),
        (lambda: CubicNewton(accept=0.95), "accept must be the smaller one"),
        (lambda: CubicNewton(accept=0.0), "argument accept is 0.0"),
        (lambda: CubicNewton(very_good=1.5), "argument very_good is 1.5"),
        (lambda: CubicNewton(matrix="jacobian"), "argument matrix is 'jacobian'"),
        (lambda: CubicNewton(hard_case="maybe"), "argument hard_case is 'maybe'"),
        (lambda: TrustRegionNewton(radius=0.0), "argument radius is 0.0, but must be finite and positive"),
        (lambda: TrustRegionNewton(radius=float("nan")), "argument radius is nan"),
        (lambda: TrustRegionNewton(max_radius=0.5), "argument max_radius is 0.5, but must be at least the radius"),
        (lambda: TrustRegionNewton(method="cauchy"), "argument method is 'cauchy'"),
        (lambda: TrustRegionNewton(method="steihaug", hard_case="always"), "Steihaug's method cannot do"),
        (lambda: TrustRegionNewton(accept=0.3), "argument accept is 0.3"),
        (lambda: TrustRegionNewton(very_good=0.2), "argument very_good is 0.2"),
        (lambda: TrustRegionNewton(shrink=1.0), "argument shrink is 1.0"),
        (lambda: TrustRegionNewton(grow=0.5), "argument grow is 0.5, but must be above 1"),
    ],
)
def test_settings_that_make_no_sense(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@every_method
def test_a_start_that_is_not_finite_is_said(name):
    objective = small_net()
    with pytest.raises(FloatingPointError):
        METHODS[name]().step(objective, np.full(32, np.nan))


@every_method
def test_curvature_that_is_not_finite_is_said_and_changes_nothing(name):
    objective = small_net()
    optimizer = METHODS[name](matrix=lambda objective: ls.diagonal_operator(np.full(32, np.nan)))
    with pytest.raises(FloatingPointError):
        optimizer.step(objective, objective.parameters())
    assert optimizer.steps_taken == 0 and "rejections" not in optimizer.state


@every_method
def test_matrices_that_do_not_fit_are_refused(name):
    objective = small_net()
    with pytest.raises(ValueError, match=r"operator of shape \(31, 31\), but the objective has 32 parameters"):
        METHODS[name](matrix=lambda objective: ls.identity(31)).step(objective, objective.parameters())
    skew = np.triu(np.ones((32, 32)))
    with pytest.raises(ValueError, match="Newton needs a Hermitian"):
        METHODS[name](matrix=lambda objective: ls.aslinearoperator(skew)).step(objective, objective.parameters())
