"""The same network with the same weights gives the same matrices in torch, JAX and Keras on TensorFlow, and finite differences agree."""

import functools

import numpy as np
import pytest

for _package in ("torch", "jax", "flax", "tensorflow", "keras"):
    pytest.importorskip(_package)

import jax  # noqa: E402
import keras  # noqa: E402
import torch  # noqa: E402

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from framework_networks import FRAMEWORKS, NETWORKS  # noqa: E402

import linop_spectra as ls  # noqa: E402

# NumPy warns where Keras' variables are read with its newest protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")

MATRICES = {
    "hessian": lambda o: o.hessian(),
    "ggn": lambda o: o.ggn(),
    "exact": lambda o: o.fisher(),
    "mc": lambda o: o.fisher("mc", num_samples=2, seed=7),
    "empirical": lambda o: o.fisher("empirical"),
    "residual": lambda o: o.residual(),
}
# Losses times frameworks times all matrices are compared elsewhere, on one network. Here every network has the Hessian and the Gauss-Newton
# matrix in every framework, and the others, which take the same derivatives of the outputs, in torch and in one other.
EVERYWHERE = ("hessian", "ggn", "exact")
COMPLETE = {
    "torch": tuple(NETWORKS), "flax": (),
    "jax": ("convolutional", "lstm", "gru", "encoder", "decoder"), "keras": ("perceptron", "tied"),
}  # fmt: skip
CASES = [(framework, name) for name in NETWORKS for framework in ("jax", "keras", *(("flax",) if name == "convolutional" else ()))]
# JAX and TensorFlow take seconds to compile a network.
SINGLE_PRECISION = {"torch": tuple(NETWORKS), "jax": ("convolutional",), "keras": ("convolutional",)}


@pytest.fixture(autouse=True, scope="module")
def _settings():
    """One thread, and quick compilation of networks that run only a few times; restored at the end."""
    threads, before = torch.get_num_threads(), jax.config.values["jax_disable_most_optimizations"]
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    torch.set_num_threads(threads)
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def _double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def directions(size):
    return np.random.default_rng(11).standard_normal((size, 2))


def relative(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@functools.cache
def side(framework, name, dtype):
    return FRAMEWORKS[framework](NETWORKS[name], dtype)


@functools.cache
def numbers(framework, name, dtype):
    """What is to be the same: loss, gradient, products of all matrices with two directions, in the common order."""
    here = side(framework, name, dtype)
    objective = here.objective
    v = directions(objective.num_parameters)
    found = {"value": np.asarray(objective.value()), "gradient": here.common(objective.gradient())}
    found["parameters"] = here.common(objective.parameters())
    wanted = MATRICES if name in COMPLETE[framework] else EVERYWHERE
    return found | {matrix: here.product(MATRICES[matrix](objective), v) for matrix in wanted}


class Plain:
    """Gradient and outputs of a network by torch alone, on all examples at once and without this library."""

    def __init__(self, name):
        self.network = NETWORKS[name]
        self.model = self.network.torch_model("float64")
        self.inputs, self.targets = torch.tensor(self.network.inputs), torch.tensor(self.network.targets)
        self.parameters = {key: p.detach() for key, p in self.model.named_parameters() if p.requires_grad}
        self.theta = np.concatenate([p.numpy().ravel() for p in self.parameters.values()])

    def outputs(self, theta):
        """Outputs, and the tensors they depend on."""
        ends = np.cumsum([p.numel() for p in self.parameters.values()])[:-1]
        leaves = {
            key: torch.tensor(piece.reshape(p.shape), requires_grad=True)
            for (key, p), piece in zip(self.parameters.items(), np.split(theta, ends), strict=True)
        }
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.func.functional_call(self.model, leaves, (self.inputs,)), list(leaves.values())

    def loss(self, outputs, examples=slice(None), reduction="mean"):
        function = {
            "cross_entropy": torch.nn.functional.cross_entropy,
            "mse": torch.nn.functional.mse_loss,
            "binary_cross_entropy": torch.nn.functional.binary_cross_entropy_with_logits,
        }[self.network.loss]
        return function(outputs[examples], self.targets[examples], reduction=reduction)

    @property
    def terms(self):
        return int((self.targets != -100).sum())

    def gradient(self, theta):
        outputs, leaves = self.outputs(theta)
        return flat(torch.autograd.grad(self.loss(outputs), leaves)) + self.network.weight_decay * theta

    def hessian_product(self, v, step=1e-6):
        return (self.gradient(self.theta + step * v) - self.gradient(self.theta - step * v)) / (2 * step)

    def gauss_newton_product(self, v, step=1e-6):
        """Slope of the outputs by differences, the loss Hessian in its textbook form, and one backward pass."""
        outputs, leaves = self.outputs(self.theta)
        slope = (self.outputs(self.theta + step * v)[0] - self.outputs(self.theta - step * v)[0]).detach() / (2 * step)
        z = outputs.detach()
        if self.network.loss == "cross_entropy":
            p = z.softmax(1)
            curved = p * (slope - (p * slope).sum(1, keepdim=True)) * (self.targets != -100).unsqueeze(1)
        elif self.network.loss == "mse":
            curved = 2 * slope
        else:
            curved = z.sigmoid() * (1 - z.sigmoid()) * slope
        product = flat(torch.autograd.grad(outputs, leaves, curved)) / self.terms
        return product + self.network.weight_decay * v

    def empirical_product(self, v):
        outputs, leaves = self.outputs(self.theta)
        rows = []
        for n in range(len(self.inputs)):
            one = self.loss(outputs, slice(n, n + 1), reduction="sum")
            rows.append(flat(torch.autograd.grad(one, leaves, retain_graph=True)))
        rows = np.stack(rows)
        return rows.T @ (rows @ v) / self.terms


def flat(tensors):
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


@functools.cache
def plain_numbers(name):
    plain = Plain(name)
    v = directions(plain.theta.size).T
    hessian, ggn, empirical = (
        np.stack([product(column) for column in v], axis=1)
        for product in (plain.hessian_product, plain.gauss_newton_product, plain.empirical_product)
    )
    gradient = plain.gradient(plain.theta)
    return {"gradient": gradient, "hessian": hessian, "ggn": ggn, "exact": ggn, "empirical": empirical, "residual": hessian - ggn}


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("framework, name", CASES)
def test_the_same_as_in_torch(framework, name):
    expected = numbers("torch", name, "float64")
    for quantity, found in numbers(framework, name, "float64").items():
        assert relative(found, expected[quantity]) < 1e-12, quantity
    assert relative(expected["mc"], expected["exact"]) > 0.01  # targets were drawn


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("framework, name", [*(("torch", name) for name in NETWORKS), *CASES])
def test_finite_differences_by_torch_alone(framework, name):
    found = numbers(framework, name, "float64")
    for quantity, expected in plain_numbers(name).items():
        if quantity not in found:
            continue
        # Rounding errors over a step of 1e-6, relative to the matrix that the differences are taken of.
        scale = np.linalg.norm(plain_numbers(name)["hessian" if quantity == "residual" else quantity])
        tolerance = 1e-12 if quantity in ("gradient", "empirical") else 2e-9
        assert np.linalg.norm(found[quantity] - expected) < tolerance * scale, quantity


@functools.cache
def spectra(framework, name):
    """The largest eigenvalues, and the traces where they take few products."""
    objective, found = side(framework, name, "float64").objective, []
    for matrix in ("hessian", "ggn"):
        operator = MATRICES[matrix](objective)
        found.extend(ls.eigsh(operator, k=2, which="LA", tol=1e-9).eigenvalues)
        if objective.num_parameters < 200:
            found.append(ls.trace(operator, method="exact").value)
    return np.asarray(found)


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("framework, name", CASES)
def test_traces_and_largest_eigenvalues(framework, name):
    """Numbers that do not depend on the order of parameters, from runs that differ in it."""
    np.testing.assert_allclose(spectra(framework, name), spectra("torch", name), rtol=1e-10)


@pytest.mark.parametrize("framework", SINGLE_PRECISION)
def test_single_precision(framework):
    for name in SINGLE_PRECISION[framework]:
        assert side(framework, name, "float32").objective.dtype == np.float32
        expected = numbers("torch", name, "float64")
        for quantity, found in numbers(framework, name, "float32").items():
            assert relative(found, expected[quantity]) < 1e-4, (name, quantity)
