"""Models that differentiate inside themselves, with normalisations whose higher derivatives torch gets wrong."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import dense_hessian, gradient_difference, relative  # noqa: E402

import linop_spectra as ls  # noqa: E402

nn = torch.nn
functional = nn.functional
DOUBLE = torch.float64


class Elementary(nn.Module):
    """Layer normalisation over the last axes, batch normalisation, or instance normalisation, in operations that torch gets right."""

    def __init__(self, axes, shape=None, eps=1e-5):
        super().__init__()
        self.axes, self.eps = axes, eps
        self.weight = nn.Parameter(torch.ones(shape)) if shape is not None else None
        self.bias = nn.Parameter(torch.zeros(shape)) if shape is not None else None

    def forward(self, x):
        centred = x - x.mean(self.axes, keepdim=True)
        y = centred / (centred.square().mean(self.axes, keepdim=True) + self.eps).sqrt()
        if self.weight is None:
            return y
        shape = self.weight.shape if self.axes[-1] == -1 else (1, -1, *[1] * (x.dim() - 2))
        return y * self.weight.view(shape) + self.bias.view(shape)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class Physics(nn.Module):
    """Outputs that contain the derivative of a network in its inputs."""

    def __init__(self, norm, how):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 6), norm, nn.Linear(6, 3)
        self.how = how

    def network(self, x):
        h = torch.sin(self.first(x))
        h = self.norm(h.view(-1, 2, 3)).reshape(h.shape) if isinstance(self.norm, nn.InstanceNorm1d) or self.three else self.norm(h)
        return self.last(torch.sin(h))

    @property
    def three(self):
        return getattr(self.norm, "axes", None) in ((2,), (-2, -1)) or getattr(self.norm, "normalized_shape", None) == (2, 3)

    def forward(self, x):
        if self.how == "forward mode":
            y, slope = torch.func.jvp(self.network, (x,), (torch.ones_like(x),))
            return y * slope
        if self.how == "transform":
            return self.network(x) * torch.func.grad(lambda z: self.network(z).sum())(x).sum(1, keepdim=True)
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = self.network(x)
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y * slope.sum(1, keepdim=True)


PAIRS = {
    "layer norm": (lambda: nn.LayerNorm(6), lambda: Elementary((-1,), 6)),
    "layer norm, not affine": (lambda: nn.LayerNorm(6, elementwise_affine=False), lambda: Elementary((-1,))),
    "layer norm, two axes": (lambda: nn.LayerNorm((2, 3)), lambda: Elementary((-2, -1), (2, 3))),
    "batch norm": (lambda: nn.BatchNorm1d(6, track_running_stats=False), lambda: Elementary((0,), 6)),
    "instance norm": (lambda: nn.InstanceNorm1d(2), lambda: Elementary((2,))),
}


def models(name, how):
    torch.manual_seed(0)
    given = Physics(PAIRS[name][0](), how).double()
    exact = Physics(PAIRS[name][1](), how).double()
    exact.load_state_dict(given.state_dict())
    for one in (given, exact):
        for parameter in one.norm.parameters():
            parameter.data += 0.1 * torch.cos(torch.arange(parameter.numel(), dtype=DOUBLE)).view(parameter.shape)
    x = torch.randn(5, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    return given, exact, x, torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.func.jvp loads it
@pytest.mark.parametrize("how", ["reverse mode", "forward mode", "transform"])
@pytest.mark.parametrize("name", PAIRS)
def test_normalisations_inside_models_that_differentiate(name, how):
    given, exact, x, y = models(name, how)
    objective = ls.objective(given, "cross_entropy", (x, y), batch_norm="train" if name == "batch norm" else None)

    def loss(model):
        return functional.cross_entropy(model(x), y)

    value = loss(exact)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(exact.parameters()))]).numpy()
    hessian = dense_hessian(exact, loss)
    v = np.random.default_rng(0).standard_normal(len(hessian))
    assert relative(hessian @ v, gradient_difference(exact, loss, v)) < 1e-6  # the reference itself
    assert relative(objective.gradient(), gradient) < 1e-12
    assert relative(objective.hessian() @ v, hessian @ v) < 1e-11
    fresh = ls.objective(given, "cross_entropy", (x, y), batch_norm="train" if name == "batch norm" else None)
    assert relative(fresh.hessian() @ v, hessian @ v) < 1e-11


def test_torch_itself_is_wrong_there():
    """As long as it is: otherwise the replacement can go."""
    given, exact, x, y = models("layer norm", "reverse mode")
    found, right = (dense_hessian(m, lambda m: functional.cross_entropy(m(x), y)) for m in (given, exact))
    assert relative(found, right) > 1e-3
