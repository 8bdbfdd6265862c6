"""Small classifiers in double precision, and their class structure written out from the definitions."""

import numpy as np
import torch
from torch import nn

import linop_spectra as ls

PARTS = ("A1", "A2", "B1", "B2")
# Unbalanced on purpose; the CNN has a fourth class that no example belongs to.
LABELS = {"mlp": [0] * 9 + [1] * 3 + [2] * 5, "cnn": [2] * 6 + [0] * 4 + [1] * 2}


def make(name):
    torch.manual_seed(0)
    labels = torch.tensor(LABELS[name])
    labels = labels[torch.randperm(len(labels))]
    if name == "mlp":
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(), torch.randn(17, 4).double(), labels
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)).double()
    return model, torch.randn(12, 1, 4, 4).double(), labels


def jacobian_of(outputs, model):
    """Shape (*outputs.shape, num_parameters)."""
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(o, list(model.parameters()), retain_graph=True, materialize_grads=True)])
        for o in outputs.reshape(-1)
    ]
    return torch.stack(rows).reshape(*outputs.shape, -1).numpy()


class Explicit:
    """All sums of the definitions, with loops over examples and classes; `misprinted` centres the spread of class c on the mean of c'."""

    def __init__(self, jacobian, probabilities, labels, weights=None, misprinted=False):
        count, classes, n = jacobian.shape
        weights = np.full(count, 1 / count) if weights is None else weights
        g = np.empty((count, classes, n))
        for i in range(count):
            for other in range(classes):
                g[i, other] = jacobian[i].T @ (np.eye(classes)[other] - probabilities[i])
        self.pair_weights, self.pairs = np.zeros((classes, classes)), np.zeros((classes, classes, n))
        self.class_weights, self.classes = np.zeros(classes), np.zeros((classes, n))
        for c in range(classes):
            for other in range(classes):
                for i in np.flatnonzero(labels == c):
                    self.pair_weights[c, other] += weights[i] * probabilities[i, other]
                    self.pairs[c, other] += weights[i] * probabilities[i, other] * g[i, other]
                if self.pair_weights[c, other] > 0:
                    self.pairs[c, other] /= self.pair_weights[c, other]
            others = [other for other in range(classes) if other != c]
            self.class_weights[c] = sum(self.pair_weights[c, other] for other in others)
            if self.class_weights[c] > 0:
                self.classes[c] = sum(self.pair_weights[c, o] * self.pairs[c, o] for o in others) / self.class_weights[c]
        self.A1, self.A2, self.B1 = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
        self.B2_pairs = np.zeros((classes, classes, n, n))
        for c in range(classes):
            self.A1 += self.class_weights[c] * np.outer(self.classes[c], self.classes[c])
            self.A2 += self.pair_weights[c, c] * np.outer(self.pairs[c, c], self.pairs[c, c])
            for other in range(classes):
                if other != c:
                    difference = self.pairs[c, other] - self.classes[other if misprinted else c]
                    self.B1 += self.pair_weights[c, other] * np.outer(difference, difference)
                for i in np.flatnonzero(labels == c):
                    difference = g[i, other] - self.pairs[c, other]
                    self.B2_pairs[c, other] += weights[i] * probabilities[i, other] * np.outer(difference, difference)
        self.B2 = self.B2_pairs.sum(axis=(0, 1))

    def sum(self):
        return self.A1 + self.A2 + self.B1 + self.B2


def explicit(name, **kwargs):
    model, inputs, labels = make(name)
    outputs = model(inputs)
    return Explicit(jacobian_of(outputs, model), torch.softmax(outputs, 1).detach().numpy(), labels.numpy(), **kwargs)


def objective_of(name, loss="cross_entropy", **kwargs):
    model, inputs, labels = make(name)
    return ls.objective(model, loss, (inputs, labels), batch_size=kwargs.pop("batch_size", 5), **kwargs)


def assert_close(found, expected, relative=1e-12):
    assert np.linalg.norm(found - expected) <= relative * max(np.linalg.norm(expected), 1e-3)
