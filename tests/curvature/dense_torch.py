"""Curvature matrices of small torch models by torch's own transforms, written out and without batching."""

import numpy as np
import torch
from torch.func import functional_call, jacrev, vmap

import linop_spectra as ls

nn = torch.nn


class Dense:
    """The matrices of a float64 model whose loss is ``sum_loss(outputs, targets) / terms``.

    Parameters
    ----------
    model : torch.nn.Module
        In double precision.
    sum_loss : callable
        Summed loss of a batch of outputs.
    inputs, targets : torch.Tensor
        All data.
    terms : float
        Number of terms.
    """

    def __init__(self, model, sum_loss, inputs, targets, terms):
        self.model, self.sum_loss, self.inputs, self.targets, self.terms = model, sum_loss, inputs, targets, float(terms)
        named = dict(model.named_parameters())
        self.names, self.shapes = list(named), [p.shape for p in named.values()]
        self.theta = torch.cat([p.detach().reshape(-1) for p in named.values()])

    def outputs(self, theta, inputs=None):
        pieces = theta.split([s.numel() for s in self.shapes])
        values = {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}
        return functional_call(self.model, values, (self.inputs if inputs is None else inputs,))

    def loss(self, theta):
        return self.sum_loss(self.outputs(theta), self.targets) / self.terms

    @property
    def gradient(self):
        return jacrev(self.loss)(self.theta).numpy()

    @property
    def hessian(self):
        return jacrev(jacrev(self.loss))(self.theta).numpy()

    @property
    def jacobian(self):
        return jacrev(lambda t: self.outputs(t).reshape(-1))(self.theta).numpy()

    @property
    def output_hessian(self):
        z = self.outputs(self.theta).detach()
        return jacrev(jacrev(lambda flat: self.sum_loss(flat.view(z.shape), self.targets)))(z.reshape(-1)).numpy()

    @property
    def ggn(self):
        return self.jacobian.T @ self.output_hessian @ self.jacobian / self.terms

    @property
    def example_gradients(self):
        """Gradient of each example's summed loss, shape (num_examples, num_parameters)."""

        def one(theta, x, y):
            return self.sum_loss(self.outputs(theta, x[None]), y[None])

        return vmap(jacrev(one), in_dims=(None, 0, 0))(self.theta, self.inputs, self.targets).numpy()


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def _cross_entropy(**options):
    torch.manual_seed(1)
    x, y = torch.randn(11, 4).double(), torch.randint(0, 3, (11,))
    y[[2, 7]] = -100
    loss = nn.CrossEntropyLoss(**options)
    weight = options.get("weight")
    valid = y != -100
    terms = valid.sum() if weight is None else weight[y[valid]].sum()
    return classifier(), loss, nn.CrossEntropyLoss(**options, reduction="sum"), x, y, terms


def _tokens():
    """Classes along dimension 1 at seven positions, some masked."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 3, 1)).double()
    x, y = torch.randn(6, 2, 7).double(), torch.randint(0, 3, (6, 7))
    y[:2, 3:] = -100
    return model, "cross_entropy", nn.CrossEntropyLoss(reduction="sum"), x, y, (y != -100).sum()


def _soft():
    torch.manual_seed(3)
    x, y = torch.randn(9, 4).double(), torch.rand(9, 3).double()
    return classifier(), nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum"), x, y, 9


def _squares():
    torch.manual_seed(4)
    x, y = torch.randn(9, 4).double(), torch.randn(9, 3).double()
    return classifier(), "mse", nn.MSELoss(reduction="sum"), x, y, 27


def _labels(**options):
    torch.manual_seed(5)
    x, y = torch.randn(9, 4).double(), torch.randint(0, 2, (9, 3)).double()
    return classifier(), nn.BCEWithLogitsLoss(**options), nn.BCEWithLogitsLoss(**options, reduction="sum"), x, y, 27


def _sum():
    torch.manual_seed(6)
    x, y = torch.randn(9, 4).double(), torch.randint(0, 3, (9,))
    loss = nn.CrossEntropyLoss(reduction="sum")
    return classifier(), loss, loss, x, y, 1


CASES = {
    "masked": lambda: _cross_entropy(),
    "class weights": lambda: _cross_entropy(weight=torch.tensor([0.5, 2.0, 1.5]).double()),
    "label smoothing": lambda: _cross_entropy(label_smoothing=0.2, weight=torch.tensor([0.5, 2.0, 1.5]).double()),
    "tokens": _tokens,
    "soft targets": _soft,
    "squared errors": _squares,
    "binary": lambda: _labels(),
    "weighted binary": lambda: _labels(weight=torch.tensor([1.0, 0.0, 2.0]).double(), pos_weight=torch.tensor([3.0, 1.0, 0.5]).double()),
    "sum": _sum,
}


def case(name, **options):
    """A library objective in uneven batches, and the dense matrices of the same problem."""
    model, loss, sum_loss, x, y, terms = CASES[name]()
    options = {"batch_size": 4, **options}
    return ls.objective(model, loss, (x, y), **options), Dense(model, sum_loss, x, y, terms)


def to_dense(operator):
    matrix = np.asarray(operator.to_dense())
    if operator.hermitian:
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-14 * max(1, abs(matrix).max()))
    return matrix


def assert_close(operator, expected, tolerance=1e-12):
    matrix = operator if isinstance(operator, np.ndarray) else to_dense(operator)
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=tolerance * max(1.0, scale))
