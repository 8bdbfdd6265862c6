"""Closed-form second derivatives of layers, against torch's own double backward and finite differences, in every form of the call."""

import gc
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.overrides import TorchFunctionMode  # noqa: E402
from torch_networks import NETWORKS, dense_gauss_newton, dense_hessian, gradient_difference, make, relative  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.adapters.torch import layer_derivatives  # noqa: E402
from linop_spectra.adapters.torch import second_derivatives as module  # noqa: E402
from linop_spectra.adapters.torch.layer_derivatives import HigherDerivative  # noqa: E402
from linop_spectra.adapters.torch.second_derivatives import second_derivatives  # noqa: E402

nn = torch.nn
functional = nn.functional
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything counts as large."""
    monkeypatch.setattr(module, "SMALLEST", 0)


def array(*shape, seed=0, frozen=False, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(seed + 10 * len(shape))
    return torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype).requires_grad_(not frozen)


def waves(like, rate):
    return torch.cos(rate * torch.arange(like.numel(), dtype=DOUBLE) + 1).view(like.shape).to(like.dtype)


def outer(arrays):
    """Something curved of each, so that second derivatives flow into what is given to the layer."""
    return [a if a is None or not a.requires_grad else a + 0.1 * a.square() for a in arrays]


def derivatives(call, arrays, *, curved, wanted):
    """Outputs, first derivatives by both ways, Jacobian products, Hessian products and names."""
    arrays = [a if a is None else a.detach().clone(memory_format=torch.preserve_format).requires_grad_(a.requires_grad) for a in arrays]
    live = [a for a in arrays if a is not None and a.requires_grad]
    with second_derivatives(curved=curved, wanted=wanted) as mode:
        y = call(*outer(arrays))
        z = y.square() if curved else y
    u = waves(z, 3.0).requires_grad_()
    plain = torch.autograd.grad(z, live, u, retain_graph=True)
    graph = torch.autograd.grad(z, live, u, create_graph=True)
    directions = [waves(g, 2.0 + i) for i, g in enumerate(graph)]
    (pushed,) = torch.autograd.grad(graph, u, directions, retain_graph=True)
    # Where the gradient counts as a function of `u` only, its own value is not computed.
    assert [g.shape for g in graph] == [p.shape for p in plain]
    found = [y, *plain, pushed]
    if curved:
        found += graph
        found += torch.autograd.grad(graph, live, directions, retain_graph=True, materialize_grads=True)
        again = torch.autograd.grad(graph, live, directions, materialize_grads=True)
        assert all(torch.equal(a, b) for a, b in zip(found[-len(live) :], again, strict=True))
    return [f.detach() for f in found], list(mode._names) if mode is not None else []


def check(call, arrays, name, tolerance=1e-14):
    """Both purposes against torch itself; `name` is None where the call is to be left to torch."""
    for curved in (True, False):
        found, names = derivatives(call, arrays, curved=curved, wanted=True)
        assert names == ([] if name is None else [name])
        expected, _ = derivatives(call, arrays, curved=curved, wanted=False)
        assert torch.equal(found[0], expected[0])  # to the last bit: other rounding would cross kinks
        for f, e in zip(found, expected, strict=True):
            assert f.shape == e.shape and f.dtype == e.dtype
            assert torch.linalg.vector_norm(f - e) <= tolerance * torch.linalg.vector_norm(e)


ELEMENTWISE = {
    "relu": (torch.relu, "ReLU"),
    "relu, functional": (functional.relu, "ReLU"),
    "relu, method": (lambda x: x.relu(), "ReLU"),
    "relu, keyword": (lambda x: functional.relu(input=x, inplace=False), "ReLU"),
    "relu, module": (nn.ReLU(), "ReLU"),
    "relu, in place": (lambda x: functional.relu(x * 2, inplace=True), "ReLU"),
    "relu, in place, method": (lambda x: (x * 2).relu_() + 1, "ReLU"),
    "relu, in place, function": (lambda x: torch.relu_(x * 2), "ReLU"),
    "relu, in place, of a view": (lambda x: functional.relu((x * 2)[1:], inplace=True), None),
    "relu, in place, seen by others": (lambda x: (lambda z: functional.relu(z, inplace=True) * z)(x * 2), "ReLU"),
    "gelu": (functional.gelu, "GELU"),
    "gelu, tanh": (lambda x: functional.gelu(x, approximate="tanh"), "GELU"),
    "gelu, keywords": (lambda x: functional.gelu(input=x, approximate="none"), "GELU"),
    "gelu, module": (nn.GELU(approximate="tanh"), "GELU"),
    "silu": (functional.silu, "SiLU"),
    "silu, module": (nn.SiLU(), "SiLU"),
    "silu, in place": (lambda x: functional.silu(x * 2, inplace=True), None),
    "softmax": (lambda x: torch.softmax(x, 1), "softmax"),
    "softmax, keywords": (lambda x: torch.softmax(input=x, dim=0), "softmax"),
    "softmax, method": (lambda x: x.softmax(-1), "softmax"),
    "softmax, method with keyword": (lambda x: x.softmax(dim=2), "softmax"),
    "softmax, functional": (lambda x: functional.softmax(x, dim=-2), "softmax"),
    "softmax, functional with warning level": (lambda x: functional.softmax(x, 1, 3), "softmax"),
    "softmax, module": (nn.Softmax(1), "softmax"),
    "softmax, same type": (lambda x: torch.softmax(x, 1, dtype=DOUBLE), "softmax"),
    "softmax, of masked": (lambda x: x.masked_fill(torch.ones(6, 6).triu(1).bool()[:3], -torch.inf).softmax(-1), "softmax"),
    "softmax, several axes": (lambda x: torch.softmax(x.flatten(1), 1), "softmax"),
    "of a transpose": (lambda x: functional.gelu(x.transpose(0, 2)), "GELU"),
    "of a number": (lambda x: functional.gelu(x.sum()), "GELU"),
    "broadcast": (lambda x: functional.silu(x[:1].expand(4, 3, 6)), "SiLU"),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    call, replaced = ELEMENTWISE[name]
    check(call, [array(4, 3, 6)], replaced)


@pytest.mark.parametrize("name", ["gelu", "gelu, tanh", "silu", "of a transpose"])
def test_arrays_that_are_worked_on_in_pieces(name, monkeypatch):
    monkeypatch.setattr(layer_derivatives, "_PIECE", 5)
    call, replaced = ELEMENTWISE[name]
    check(call, [array(4, 3, 6)], replaced)


def test_other_types_asked_of_softmax_are_left_to_torch():
    check(lambda x: torch.softmax(x, 1, dtype=DOUBLE), [array(4, 3, dtype=torch.float32)], None)
    check(lambda x: functional.softmax(x, 1, dtype=torch.float32).double(), [array(4, 3)], None)


LINEAR = {
    "linear": (lambda x, w, b: functional.linear(x, w, b), (4, 3, 6), "linear layers"),
    "linear, keywords": (lambda x, w, b: functional.linear(input=x, weight=w, bias=b), (4, 6), "linear layers"),
    "linear, no bias": (lambda x, w, b: functional.linear(x, w) * b, (4, 3, 6), "linear layers"),
    "linear, module": (lambda x, w, b: torch.func.functional_call(nn.Linear(6, 5), {"weight": w, "bias": b}, x), (2, 6), "linear layers"),
    "linear, of a transpose": (lambda x, w, b: functional.linear(x.transpose(0, 2), w, b), (6, 2, 4), "linear layers"),
    "linear, of a transposed weight": (lambda x, w, b: functional.linear(x, w.t().contiguous().t(), b), (4, 6), "linear layers"),
    "linear, broadcast": (lambda x, w, b: functional.linear(x[:1].expand(4, 3, 6), w, b), (2, 3, 6), "linear layers"),
    "linear, of one row": (lambda x, w, b: functional.linear(x, w, b), (6,), None),
    "linear, one output": (lambda x, w, b: functional.linear(x, w[0]) * b[0], (4, 6), None),
    "linear, bias of one": (lambda x, w, b: functional.linear(x, w, b[:1]), (4, 6), None),
}


@pytest.mark.parametrize("frozen", ["", "x", "w", "b", "wb", "xw", "xb"])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers(name, frozen):
    call, shape, replaced = LINEAR[name]
    arrays = [array(*shape, frozen="x" in frozen), array(5, 6, seed=1, frozen="w" in frozen), array(5, seed=2, frozen="b" in frozen)]
    inside = "xw" if name == "linear, no bias" else "xwb"
    check(call, arrays, replaced if set(inside) - set(frozen) else None)


NORMS = {
    "layer norm": (lambda x, w, b: functional.layer_norm(x, (6,), w, b), (6,), "layer normalisation"),
    "layer norm, keywords": (
        lambda x, w, b: functional.layer_norm(input=x, normalized_shape=[6], bias=b, weight=w, eps=0.1), (6,), "layer normalisation"
    ),
    "layer norm, torch": (lambda x, w, b: torch.layer_norm(x, (6,), w, b, 0.01), (6,), "layer normalisation"),
    "layer norm, no bias": (lambda x, w, b: functional.layer_norm(x, (6,), w) * b, (6,), "layer normalisation"),
    "layer norm, no weight": (lambda x, w, b: functional.layer_norm(x, (6,)) * w + b, (6,), None),
    "layer norm, two axes": (lambda x, w, b: functional.layer_norm(x, (3, 6), w, b), (3, 6), None),
    "layer norm, of a transpose": (lambda x, w, b: functional.layer_norm(x.transpose(0, 2), (4,), w, b), (4,), "layer normalisation"),
    "layer norm, of one row": (lambda x, w, b: functional.layer_norm(x[0, 0], (6,), w, b), (6,), None),
    "batch norm": (lambda x, w, b: functional.batch_norm(x, MEAN, VARIANCE, w, b), (3,), "batch normalisation"),
    "batch norm, keywords": (
        lambda x, w, b: functional.batch_norm(
            x, running_var=VARIANCE, running_mean=MEAN, bias=b, weight=w, training=False, momentum=0.2, eps=0.1
        ),
        (3,), "batch normalisation"
    ),
    "batch norm, of rows": (lambda x, w, b: functional.batch_norm(x[..., 0], MEAN, VARIANCE, w, b), (3,), "batch normalisation"),
    "batch norm, far from zero": (lambda x, w, b: functional.batch_norm(x + 1e3, MEAN + 1e3, VARIANCE, w, b), (3,), "batch normalisation"),
    "batch norm, not affine": (
        lambda x, w, b: functional.batch_norm(x, MEAN, VARIANCE) * w.view(3, 1) + b.view(3, 1), (3,), None
    ),
    "batch norm, no bias": (lambda x, w, b: functional.batch_norm(x, MEAN, VARIANCE, w) + b.view(3, 1), (3,), None),
    "batch norm, training": (lambda x, w, b: functional.batch_norm(x, MEAN.clone(), VARIANCE.clone(), w, b, True), (3,), None),
    "batch norm, of the batch": (lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True), (3,), None),
}  # fmt: skip
MEAN, VARIANCE = torch.tensor([0.5, -1.0, 2.0], dtype=DOUBLE), torch.tensor([0.3, 1.0, 4.0], dtype=DOUBLE)


@pytest.mark.parametrize("frozen", ["", "x", "w", "b", "wb", "xw", "xb"])
@pytest.mark.parametrize("name", NORMS)
def test_normalisations(name, frozen):
    call, shape, replaced = NORMS[name]
    shapes = {"x": (4, 3, 6), "w": shape, "b": shape}
    arrays = [array(*shapes[key], seed=seed, frozen=key in frozen) for seed, key in enumerate(shapes)]
    # What depends on nothing that is differentiated in is left to torch.
    inside = "xw" if name == "layer norm, no bias" else "xwb"
    check(call, arrays, replaced if set(inside) - set(frozen) else None, tolerance=1e-13 if "far" in name else 1e-14)


CONVOLUTIONS = {
    "plain": (lambda x, w, b: functional.conv2d(x, w, b), (2, 4, 6, 7), (6, 4, 3, 2)),
    "keywords": (
        lambda x, w, b: torch.conv2d(input=x, weight=w, bias=b, stride=(2, 1), padding=[1, 0], dilation=2, groups=1),
        (2, 4, 6, 7), (6, 4, 3, 2)
    ),
    "positions": (lambda x, w, b: functional.conv2d(x, w, b, 2, 1, 1, 2), (2, 4, 6, 7), (6, 2, 3, 3)),
    "no bias": (lambda x, w, b: functional.conv2d(x, w, None, stride=(2,)) * b.view(-1, 1, 1), (2, 4, 6, 7), (6, 4, 3, 3)),
    "depthwise": (lambda x, w, b: functional.conv2d(x, w, b, groups=4), (2, 4, 6, 7), (8, 1, 3, 3)),
    "same": (lambda x, w, b: functional.conv2d(x, w, b, padding="same", dilation=(2, 1)), (2, 4, 6, 7), (6, 4, 3, 3)),
    "valid": (lambda x, w, b: functional.conv2d(x, w, b, padding="valid"), (2, 4, 6, 7), (6, 4, 3, 3)),
    "channels last": (
        lambda x, w, b: functional.conv2d(x.contiguous(memory_format=torch.channels_last), w, b), (2, 4, 6, 7), (6, 4, 3, 3)
    ),
    "one axis": (lambda x, w, b: functional.conv1d(x, w, b, padding=1, stride=2), (2, 4, 9), (6, 4, 3)),
    "three axes": (lambda x, w, b: functional.conv3d(x, w, b, padding=(1, 0, 1)), (2, 2, 4, 3, 5), (3, 2, 2, 3, 2)),
    "module": (
        lambda x, w, b: torch.func.functional_call(nn.Conv2d(4, 6, 3, padding=1), {"weight": w, "bias": b}, x), (2, 4, 6, 7), (6, 4, 3, 3)
    ),
    "circular": (
        lambda x, w, b: torch.func.functional_call(
            nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), {"weight": w, "bias": b}, x
        ),
        (2, 4, 6, 7), (6, 4, 3, 3)
    ),
}  # fmt: skip
TRANSPOSED = {
    "plain": (lambda x, w, b: functional.conv_transpose2d(x, w, b), (2, 4, 5, 6), (4, 6, 3, 2)),
    "all arguments": (lambda x, w, b: functional.conv_transpose2d(x, w, b, 3, 1, (1, 2), 2, 1), (2, 4, 5, 6), (4, 3, 3, 3)),
    "one axis": (lambda x, w, b: functional.conv_transpose1d(x, w, b, stride=2, output_padding=1), (2, 4, 5), (4, 6, 3)),
    "three axes": (lambda x, w, b: functional.conv_transpose3d(x, w, b, dilation=2), (2, 4, 3, 2, 3), (4, 6, 2, 2, 2)),
}


@pytest.mark.parametrize("frozen", ["", "x", "w", "b", "xb", "wb", "xw"])
@pytest.mark.parametrize(("table", "name"), [*(("plain", n) for n in CONVOLUTIONS), *(("transposed", n) for n in TRANSPOSED)])
def test_convolutions(table, name, frozen):
    call, shape, kernel = (CONVOLUTIONS if table == "plain" else TRANSPOSED)[name]
    arrays = [array(*shape, frozen="x" in frozen), array(*kernel, seed=1, frozen="w" in frozen)]
    features = 6 if table == "transposed" else kernel[0]
    arrays.append(array(features, seed=2, frozen="b" in frozen))
    replaced = None if frozen == "xw" and name == "no bias" else "convolution"
    check(call, arrays, replaced)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("call", [
    lambda x, w: functional.conv2d(x[0], w),  # no axis of examples
    lambda x, w: functional.conv2d(x, w[..., :2, :2], padding="same"),
])  # fmt: skip
def test_convolutions_left_to_torch(call):
    check(call, [array(2, 4, 6, 7), array(6, 4, 3, 3)], None)


def test_torch_refuses_what_it_refuses():
    x, w = array(2, 4, 6, 7), array(6, 4, 3, 3)
    with second_derivatives(curved=True):
        with pytest.raises(RuntimeError, match="padding='same' is not supported for strided"):
            functional.conv2d(x, w, padding="same", stride=2)
        with pytest.raises(RuntimeError, match="expected input"):
            functional.conv2d(x, w[:, :2])
        with pytest.raises(RuntimeError, match="normalized_shape"):
            functional.layer_norm(x, (5,), array(5))
        with pytest.raises(IndexError, match="Dimension out of range"):
            torch.softmax(x, 4)
        with pytest.raises(TypeError):
            torch.softmax(x, 1, surprise=True)
        with pytest.raises(RuntimeError, match="leaf Variable"):
            torch.relu_(x)
        y = functional.softmax(x * 2, 1)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_to_torch(dtype):
    arrays = [array(4, 6, dtype=dtype), array(6, dtype=dtype, seed=1), array(6, dtype=dtype, seed=2)]
    check(lambda x, w, b: functional.gelu(functional.layer_norm(x, (6,), w, b)), arrays, None)


def test_empty_arrays_and_what_needs_no_gradient():
    with second_derivatives(curved=True) as mode:
        assert functional.gelu(array(0, 3)).shape == (0, 3)
        assert functional.conv2d(array(0, 4, 6, 7), array(6, 4, 3, 3)).shape == (0, 6, 4, 5)
        assert functional.layer_norm(array(0, 3), (3,), array(3)).shape == (0, 3)
        functional.gelu(array(4, 3, frozen=True))
        with torch.no_grad():
            functional.gelu(array(4, 3))
    assert mode.sentence == ""


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", ["relu", "gelu", "gelu, tanh", "silu", "softmax"])
def test_no_nan_where_torch_has_none(name, dtype):
    call, replaced = ELEMENTWISE[name]
    x = torch.tensor([[[-torch.inf, torch.inf, torch.nan, 1e30, -1e30, 1e3, -1e3, 80.0, -80.0, 30.0, -30.0, 0.0, 1.0]]], dtype=dtype)
    x = torch.cat([x, x.clamp(max=5).nan_to_num(1.0)], dim=1).mT.contiguous()

    def all_of(wanted):
        inputs = x.clone().requires_grad_()
        with second_derivatives(curved=True, wanted=wanted) as mode:
            y = call(inputs)
        (g,) = torch.autograd.grad(y, inputs, torch.ones_like(y), create_graph=True)
        h = torch.zeros_like(x)
        if g.requires_grad:
            h = torch.autograd.grad(g, inputs, torch.ones_like(g), materialize_grads=True)[0]
        return mode, (y.detach(), g.detach(), h)

    mode, found = all_of(True)
    assert replaced in mode.sentence
    for f, e in zip(found, all_of(False)[1], strict=True):
        finite = torch.isfinite(e)
        assert finite.any()
        torch.testing.assert_close(f[finite], e[finite], rtol=100 * torch.finfo(dtype).eps, atol=100 * torch.finfo(dtype).eps)


def test_third_derivatives_are_refused_and_never_wrong():
    x = array(3, 4)
    for curved in (True, False):
        with second_derivatives(curved=curved):
            y = functional.gelu(x).sum()
            with pytest.raises(HigherDerivative):
                torch.autograd.grad(y, x, create_graph=True)
    with second_derivatives(curved=True):
        y = functional.gelu(x).sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(HigherDerivative):
        torch.autograd.grad(g.sum(), x, create_graph=True)


class Slope(nn.Module):
    """A network whose outputs contain its derivative in the inputs, as for differential equations."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 6), nn.GELU(), nn.Linear(6, 3))

    @torch.enable_grad()
    def forward(self, x):
        x = x.detach().requires_grad_()
        y = self.layers(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y * slope.sum(1, keepdim=True)


@pytest.mark.parametrize("memory_budget", [None, 1])
@pytest.mark.parametrize("first", ["hessian", "ggn"])
def test_models_that_differentiate_inside(memory_budget, first):
    torch.manual_seed(0)
    model, x, y = Slope().double(), array(5, 2, frozen=True), torch.tensor([0, 1, 2, 0, 1])
    objective = ls.objective(model, "cross_entropy", (x, y), memory_budget=memory_budget, batch_size=5)
    v = np.random.default_rng(0).standard_normal((objective.num_parameters, 2))
    expected = {
        "hessian": dense_hessian(model, lambda m: functional.cross_entropy(m(x), y)),
        "ggn": dense_gauss_newton(model, x, lambda z: functional.cross_entropy(z, y)),
    }
    for name in sorted(expected, reverse=first == "hessian"):
        for columns in (v, v[:, 0]):
            operator = getattr(objective, name)()
            assert relative(operator @ columns, expected[name] @ columns) < 1e-12
            assert "closed-form" not in operator.engine
    check = ls.check_operator(objective.hessian())
    assert check.passed and check.finite_difference_error < 1e-6


class Doubled(TorchFunctionMode):
    """A user's mode that gives functions another meaning."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        factor = 2 if func in (functional.gelu, torch.softmax) else 1
        return func(*args, **(kwargs or {})) * factor if factor == 2 else func(*args, **(kwargs or {}))


class Inside(nn.Module):
    def forward(self, x):
        with Doubled():
            return functional.gelu(x)


def test_modes_of_the_user_keep_their_meaning():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 3)).double()
    inside = nn.Sequential(plain[0], Inside(), plain[2])
    x, y = array(5, 3, frozen=True), torch.tensor([0, 1, 2, 0, 1])
    v = np.random.default_rng(0).standard_normal(31)
    expected = dense_hessian(inside, lambda m: functional.cross_entropy(m(x), y)) @ v
    assert relative(ls.objective(inside, "cross_entropy", (x, y)).hessian() @ v, expected) < 1e-12
    operator = ls.objective(plain, "cross_entropy", (x, y)).hessian()
    with Doubled():
        assert relative(operator @ v, expected) < 1e-12
    assert "closed-form" not in operator.engine


class Marked(torch.Tensor):
    """A subclass with functions of its own."""


def test_subclasses_transforms_and_mixed_precision_are_left_to_torch():
    x = array(4, 3)
    with second_derivatives(curved=True) as mode:
        assert type(functional.gelu(x.detach().as_subclass(Marked).requires_grad_())) is Marked
        torch.func.jacrev(functional.gelu)(x)
        torch.func.vmap(functional.gelu)(x)
        with torch.autograd.forward_ad.dual_level():
            functional.gelu(torch.autograd.forward_ad.make_dual(x, x.detach()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            functional.conv2d(array(1, 1, 3, 3, dtype=torch.float32), array(1, 1, 2, 2, dtype=torch.float32))
    assert mode.sentence == ""


def test_the_default_device_changes_nothing():
    with torch.device("cpu"), second_derivatives(curved=True) as mode:
        functional.gelu(array(4, 3))
    assert "GELU" in mode.sentence


@pytest.mark.parametrize("place", [(torch.compiler, "is_compiling"), (torch.jit, "is_tracing")])
def test_compilation_and_tracing_see_torch_only(place, monkeypatch):
    monkeypatch.setattr(*place, lambda: True)
    with second_derivatives(curved=True) as mode:
        functional.gelu(array(4, 3))
    assert mode.sentence == ""


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    model, inputs, targets = make(name)
    objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=4)
    v = np.random.default_rng(1).standard_normal((objective.num_parameters, 2))
    hessian, gauss_newton = objective.hessian(), objective.ggn()
    assert relative(hessian @ v, dense_hessian(model, lambda m: functional.cross_entropy(m(inputs), targets)) @ v) < 1e-12
    assert relative(hessian @ v[:, 0], gradient_difference(model, lambda m: functional.cross_entropy(m(inputs), targets), v[:, 0])) < 1e-7
    assert relative(gauss_newton @ v, dense_gauss_newton(model, inputs, lambda z: functional.cross_entropy(z, targets)) @ v) < 1e-12
    for operator in (hessian, gauss_newton):
        assert ls.check_operator(operator).passed
    replaced = {
        "silu": "SiLU and linear layers", "layer norm": "GELU, layer normalisation and linear layers",
        "group norm": "SiLU, convolution and linear layers", "max pooling": "ReLU, convolution and linear layers",
        "batch norm": "ReLU, batch normalisation, convolution and linear layers",
        "encoder layer": "ReLU, layer normalisation and linear layers",
    }.get(name, "linear layers")  # fmt: skip
    assert f"retained graph of the gradient, with closed-form second derivatives of {replaced};" in hessian.engine
    assert f"retained, with closed-form derivatives of {replaced};" in gauss_newton.engine


def test_tied_and_frozen_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.LayerNorm(5)

        def forward(self, x):
            for _ in range(2):
                x = functional.gelu(self.norm(self.convolution(x)))
            return x.flatten(1)[:, :3]

    torch.manual_seed(0)
    model, x, y = Tied().double(), array(4, 2, 4, 5, frozen=True), torch.tensor([0, 1, 2, 0])
    for frozen in ((), ("convolution.weight",), ("norm.weight", "convolution.bias"), ("norm.weight", "norm.bias")):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
        objective = ls.objective(model, "cross_entropy", (x, y))
        dense = dense_hessian(model, lambda m: functional.cross_entropy(m(x), y))
        assert relative(objective.hessian().to_dense(), dense) < 1e-12
        assert relative(objective.ggn().to_dense(), dense_gauss_newton(model, x, lambda z: functional.cross_entropy(z, y))) < 1e-12


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_weights_whose_gradient_is_read(matrix):
    """Computed from other parameters, used several times, and in other functions besides: nothing of that may be a placeholder."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = torch.tanh(self.middle(torch.tanh(self.first(x))))
            x = torch.tanh(functional.linear(x, self.middle.weight.t(), self.middle.bias.exp()))
            return self.last(x @ self.middle.weight) * self.middle.weight.square().sum()

    torch.manual_seed(0)
    model, x, y = Shared().double(), array(5, 4, frozen=True), torch.tensor([0, 1, 2, 0, 1])
    operator = getattr(ls.objective(model, "cross_entropy", (x, y)), matrix)()
    if matrix == "hessian":
        v = np.random.default_rng(0).standard_normal(operator.shape[0])
        expected, product = gradient_difference(model, lambda m: functional.cross_entropy(m(x), y), v), operator @ v
        assert relative(product, expected) < 1e-7
    else:
        dense = dense_gauss_newton(model, x, lambda z: functional.cross_entropy(z, y))
        assert relative(operator.to_dense(), dense) < 1e-12
    assert "linear layers" in operator.engine


def test_sizes_decide(monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 12)
    for size, scale, replaced in ((11, 1.0, False), (12, 1.0, True), (6, 2.0, True), (6, 1.9, False)):
        with second_derivatives(curved=True, scale=scale) as mode:
            functional.gelu(array(size))
        assert bool(mode.sentence) == replaced


class Box:
    """What a graph holds in place of a tensor."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
@pytest.mark.parametrize("name", ["layer norm", "batch norm", "encoder layer", "gru"])
def test_measured_sizes_are_those_of_the_kept_graph(name, matrix):
    """By hooks around everything that a graph saves, as far as it still does so after a product."""
    model, inputs, targets = make(name, examples=64)
    objective = ls.objective(model, "cross_entropy", (inputs, targets))
    alive = weakref.WeakSet()

    def pack(tensor):
        box = Box(tensor)
        alive.add(box)
        return box

    _ = objective.gradient()  # copies of a first pass are not kept
    operator = getattr(objective, matrix)()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        _ = operator @ objective.parameters()
    held = {box.tensor.untyped_storage().data_ptr(): box.tensor.untyped_storage().nbytes() for box in alive}
    for tensor in (*objective.point.leaves, *next(objective.batches())):
        held.pop(tensor.untyped_storage().data_ptr(), None)
    found = operator._linearizations._spent
    # The results themselves are held, too, unless they are placeholders.
    assert 0.9 * sum(held.values()) <= found <= sum(held.values()) + objective.num_parameters * 8 + 5000
    if matrix == "hessian":
        estimate = objective.functions.retained_bytes(objective.point, next(objective.batches()))
        assert estimate == pytest.approx(found, rel=0.35)


@pytest.mark.parametrize("name", ["layer norm", "batch norm", "max pooling", "encoder layer"])
def test_graphs_are_freed_without_the_garbage_collector(name):
    model, inputs, targets = make(name)
    objective = ls.objective(model, "cross_entropy", (inputs, targets))
    functions, batch = objective.functions, next(objective.batches())
    gc.collect()
    gc.disable()
    try:
        with functions.session():
            graph = functions.differentiable_gradient(objective.point, batch)
            torch.autograd.grad(graph.gradient, graph.leaves, graph.leaves)
        assert "ReLU" in graph.closed_forms or "GELU" in graph.closed_forms
        leaf = weakref.ref(graph.leaves[0])
        del graph
        assert leaf() is None
    finally:
        gc.enable()
