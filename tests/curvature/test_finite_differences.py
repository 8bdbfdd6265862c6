"""The finite-difference check must catch wrong derivatives, exactly symmetric ones too."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402
from linop_spectra.curvature import GaussNewtonOperator, HessianOperator  # noqa: E402

nn = torch.nn


def objective(model=None, **arguments):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return ls.objective(model, "cross_entropy", (torch.randn(20, 4), torch.randint(0, 3, (20,))), **arguments)


class AtTheVector(HessianOperator):
    """A published mistake: the probe vector is passed where the parameters belong."""

    def _product_of_batch(self, linearization, v):
        functions, batch = linearization._functions, linearization._batch
        point = type(self.objective.point)(v, self.objective.point.rest)
        return functions.linearize(point, batch, num_products=1).hvp(v)


class OfAnotherSize(HessianOperator):
    """Right but for a factor: linear, deterministic and exactly symmetric."""

    def _product_of_batch(self, linearization, v):
        return tuple(1.01 * row for row in linearization.hvp(v))


class Diagonal(HessianOperator):
    """Symmetric, and no Hessian."""

    def _product_of_batch(self, linearization, v):
        return tuple(linearization.num_terms * row for row in v)


class WithoutTheLoss(GaussNewtonOperator):
    """``J^T J``: forgets the Hessian of the loss."""

    def _in_outputs(self, part, u):
        return u


@pytest.mark.parametrize("wrong", [AtTheVector, OfAnotherSize, Diagonal, WithoutTheLoss])
def test_wrong_operators_are_caught(wrong):
    operator = wrong(objective())
    check = ls.check_operator(operator)
    assert not check.passed
    assert check.finite_difference_error > 5e-3
    if wrong is not AtTheVector:  # nothing else would have told
        assert ls.check_operator(operator, finite_differences=False).passed


class _OnceOnly(torch.autograd.Function):
    """A cube whose backward pass is not to be differentiated; torch prunes the guard when inputs are named."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class _Detached(torch.autograd.Function):
    """A cube that keeps its input outside of the graph."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.x**2 * gradient


@pytest.mark.parametrize("function", [_OnceOnly, _Detached])
def test_functions_that_cannot_be_differentiated_twice_are_caught(function):
    """The mark of the first is seen in the graph; the second looks like any other function, and only differences tell."""
    class Cube(nn.Module):
        def forward(self, x):
            return function.apply(x)

    model = nn.Sequential(nn.Linear(4, 5), Cube(), nn.Linear(5, 3))
    if function is _OnceOnly:
        with pytest.raises(TypeError, match="custom function _OnceOnly, whose backward is marked once_differentiable"):
            ls.check_operator(objective(model).hessian())
    else:
        assert not ls.check_operator(objective(model).hessian()).passed

    class Plain(nn.Module):
        def forward(self, x):
            return x**3

    assert ls.check_operator(objective(nn.Sequential(nn.Linear(4, 5), Plain(), nn.Linear(5, 3))).hessian()).passed


@pytest.mark.parametrize("seed", range(5))
def test_kinks_do_not_disturb(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 30), nn.LeakyReLU(), nn.Linear(30, 3))
    for operator in (objective(model).hessian(), objective(model).ggn()):
        assert operator.derivative_error(seed) < 1e-6


def test_zero_parameters_and_a_masked_first_batch():
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    for operator in (objective(model).hessian(), objective(model).ggn()):
        assert operator.derivative_error(0) < 1e-8
    targets = torch.randint(0, 3, (20,))
    targets[:10] = -100
    masked = ls.objective(model, "cross_entropy", (torch.randn(20, 4), targets))
    assert ls.check_operator(masked.hessian()).passed


def test_batch_statistics_are_checked_with_a_whole_small_batch():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    for operator in (objective(model, batch_norm="train").hessian(), objective(model, batch_norm="train").ggn()):
        assert operator.derivative_error(0) < 1e-6


def test_the_check_is_deterministic():
    hessian = objective().hessian()
    assert hessian.derivative_error(3) == hessian.derivative_error(3)
    assert isinstance(hessian.derivative_error(3), float)
    assert np.isfinite(hessian.derivative_error(3))
