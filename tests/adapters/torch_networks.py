"""Small float64 networks, and their curvature by other means than the library's."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

CLASSES = 3


class Attention(nn.Module):
    """Scaled dot-product attention called directly."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.project(x).chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.layer(x, x, x, need_weights=False)[0]


class LastState(nn.Module):
    """A recurrent layer's last output."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class TiedEmbedding(nn.Module):
    """Tokens in, one class for each position out, the same matrix at both ends; classes along dimension 1."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.middle(self.embedding(tokens)))).transpose(1, 2)


def _sequence(*layers):
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Flatten(), nn.Linear(16, CLASSES))


def _image(*layers, features):
    return nn.Sequential(nn.Conv2d(1, 3, 3), *layers, nn.Flatten(), nn.Linear(features, CLASSES))


NETWORKS = {
    "tanh": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "silu": lambda: nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, CLASSES)),
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, CLASSES)),
    "group norm": lambda: _image(nn.GroupNorm(3, 3), nn.SiLU(), features=27),
    "batch norm": lambda: _image(nn.BatchNorm2d(3), nn.ReLU(inplace=True), features=27).eval(),
    "max pooling": lambda: _image(nn.ReLU(), nn.MaxPool2d(2), features=3),
    "attention": lambda: _sequence(Attention()),
    "multihead attention": lambda: _sequence(SelfAttention()).eval(),
    "encoder layer": lambda: _sequence(nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)).eval(),
    "lstm": lambda: nn.Sequential(LastState(nn.LSTM(3, 4, batch_first=True)), nn.Linear(4, CLASSES)),
    "gru": lambda: nn.Sequential(LastState(nn.GRU(3, 4, batch_first=True)), nn.Linear(4, CLASSES)),
    "tied embedding": TiedEmbedding,
}
_SHAPES = {"tanh": (4,), "silu": (4,), "layer norm": (4,), "group norm": (1, 5, 5), "batch norm": (1, 5, 5), "max pooling": (1, 5, 5)}


def make(name, seed=0, examples=7):
    """A network with its inputs and class labels."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    if name == "tied embedding":
        return model, torch.randint(0, 5, (examples, 3)), torch.randint(0, 5, (examples, 3))
    inputs = torch.randn(examples, *_SHAPES.get(name, (4, 3)), dtype=torch.float64)
    return model, inputs, torch.randint(0, CLASSES, (examples,))


def parameters_of(model):
    return [p for p in model.parameters() if p.requires_grad]


def _flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def dense_hessian(model, loss):
    """Row by row, by double backward of ``loss(model)`` on the model's own parameters."""
    model = copy.deepcopy(model)
    parameters = parameters_of(model)
    with sdpa_kernel(SDPBackend.MATH):
        gradient = _flat(torch.autograd.grad(loss(model), parameters, create_graph=True))
        rows = [
            _flat(torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True)) for g in gradient
        ]
    return torch.stack(rows).numpy()


def dense_gauss_newton(model, inputs, loss_of_outputs):
    """``J^T H J`` from the Jacobian's rows by single backward passes and the loss Hessian by double backward."""
    model = copy.deepcopy(model)
    parameters = parameters_of(model)
    with sdpa_kernel(SDPBackend.MATH):
        outputs = model(inputs)
        jacobian = torch.stack(
            [_flat(torch.autograd.grad(o, parameters, retain_graph=True, materialize_grads=True)) for o in outputs.reshape(-1)]
        )
    curvature = torch.autograd.functional.hessian(lambda z: loss_of_outputs(z.reshape(outputs.shape)), outputs.detach().reshape(-1))
    return (jacobian.T @ curvature @ jacobian).numpy()


def gradient_difference(model, loss, v, step=1e-6):
    """Central difference of the gradient along `v`."""
    sides = []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        parameters = parameters_of(moved)
        with torch.no_grad():
            theta = torch.nn.utils.parameters_to_vector(parameters) + sign * step * torch.as_tensor(v)
            torch.nn.utils.vector_to_parameters(theta, parameters)
        sides.append(_flat(torch.autograd.grad(loss(moved), parameters, materialize_grads=True)).numpy())
    return (sides[0] - sides[1]) / (2 * step)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
