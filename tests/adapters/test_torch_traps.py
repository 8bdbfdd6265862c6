"""Models and data on which other code is silently wrong."""

import numpy as np
import pytest

import linop_spectra as ls

torch = pytest.importorskip("torch")
functional = torch.nn.functional


class Cube(torch.autograd.Function):
    """A first derivative only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2


class Cubic(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 3), torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.last(Cube.apply(self.first(x)))


def data(count=20, features=6, classes=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, features, generator=generator), torch.randint(0, classes, (count,), generator=generator)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("memory_budget", [None, 1], ids=["kept", "recomputed"])
def test_once_differentiable_functions_are_refused(matrix, memory_budget):
    objective = ls.objective(Cubic(), "cross_entropy", data(), memory_budget=memory_budget)
    assert np.isfinite(objective.gradient()).all()  # first derivatives are fine
    with pytest.raises(TypeError, match="custom function Cube, whose backward is marked once_differentiable"):
        getattr(objective, matrix)() @ objective.parameters()


def test_functions_of_torch_are_the_losses_they_name():
    """A mean over the examples would be wrong where positions are ignored and batches are uneven."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3).double()
    x, y = data()
    x, y = x.double(), y.clone()
    y[:7] = -100
    by_name = ls.objective(model, "cross_entropy", (x, y), batch_size=6).hessian().to_dense()
    by_function = ls.objective(model, functional.cross_entropy, (x, y), batch_size=6).hessian().to_dense()
    np.testing.assert_array_equal(by_function, by_name)
    whole = torch.func.hessian(lambda w: functional.cross_entropy(functional.linear(x, w, model.bias), y))(model.weight.detach())
    np.testing.assert_allclose(by_function[:18, :18], whole.detach().reshape(18, 18).numpy(), atol=1e-12)


def test_a_loss_that_is_linear_in_the_outputs_has_no_gauss_newton_matrix():
    model = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.LogSoftmax(dim=1))
    objective = ls.objective(model, torch.nn.NLLLoss(), data())
    assert np.abs(objective.hessian() @ objective.parameters()).max() > 0
    with pytest.raises(TypeError, match="linear in the model's outputs.*use loss='cross_entropy'"):
        objective.ggn()


def test_data_changed_in_place_change_nothing():
    torch.manual_seed(0)
    for convert in (lambda t: t, lambda t: t.numpy()):
        x, y = data()
        x = convert(x)
        objective = ls.objective(torch.nn.Linear(6, 3), "cross_entropy", (x, y), batch_size=7)
        v = np.ones(objective.num_parameters, np.float32)
        before = np.array(objective.hessian() @ v)
        x *= 3
        np.testing.assert_array_equal(objective.hessian() @ v, before)


def test_a_loader_of_a_stream_without_length():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return zip(*data(), strict=True)

    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    objective = ls.objective(model, "cross_entropy", torch.utils.data.DataLoader(Stream(), batch_size=6))
    assert objective.num_examples == 20
    assert objective.value() == pytest.approx(ls.objective(model, "cross_entropy", data()).value(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype):
    """Their products round at their own precision: that is no asymmetry, and the noise floor says how much."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))
    x, y = data(60)
    exact = np.linalg.eigvalsh(ls.objective(model, "cross_entropy", (x, y)).hessian().to_dense())
    rounded = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3)).to(dtype)
    rounded.load_state_dict(model.state_dict())
    for matrix in ("hessian", "ggn"):
        operator = getattr(ls.objective(rounded, "cross_entropy", (x.to(dtype), y)), matrix)()
        assert operator.dtype == np.float32 and operator.unit_rounding == torch.finfo(dtype).eps
        S = ls.spectral_density(operator, num_steps=30)
        assert S.noise_floor > 1e-5
    (_, _), (largest, _) = ls.spectral_density(ls.objective(rounded, "cross_entropy", (x.to(dtype), y)).hessian()).extreme_eigenvalues()
    assert largest == pytest.approx(exact[-1], rel=20 * torch.finfo(dtype).eps)


class Mixed(torch.nn.Module):
    """Single precision outside, half precision where it computes."""

    def __init__(self, decorated=False):
        super().__init__()
        self.first, self.last, self.decorated = torch.nn.Linear(6, 10), torch.nn.Linear(10, 3), decorated

    def compute(self, x):
        return self.last(torch.tanh(self.first(x))).float()

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.compute(x)


class Decorated(Mixed):
    forward = torch.autocast("cpu", dtype=torch.bfloat16)(Mixed.compute)


@pytest.mark.parametrize("kind", [Mixed, Decorated])
def test_mixed_precision_inside_a_model_is_in_the_noise_floor(kind):
    torch.manual_seed(0)
    model = kind()
    x, y = data(60)
    plain = torch.nn.Sequential(model.first, torch.nn.Tanh(), model.last)
    exact = np.linalg.eigvalsh(ls.objective(plain, "cross_entropy", (x, y)).hessian().to_dense())
    eps = torch.finfo(torch.bfloat16).eps
    assert ls.objective(plain, "cross_entropy", (x, y)).hessian().unit_rounding == np.finfo(np.float32).eps
    for matrix in ("hessian", "ggn"):
        operator = getattr(ls.objective(model, "cross_entropy", (x, y)), matrix)()
        assert operator.unit_rounding == eps  # before the first product: the symmetry of that is judged by it
        assert ls.spectral_density(operator, num_steps=30).noise_floor > 1e-5
    hessian = ls.objective(model, "cross_entropy", (x, y)).hessian()
    assert ls.eigsh(hessian, 1, tol=0.05).eigenvalues[0] == pytest.approx(exact[-1], rel=20 * eps)
