"""Losses whose derivatives are known, for tests of methods that use curvature."""

import numpy as np
import pytest

import linop_spectra as ls

torch = pytest.importorskip("torch")


class Point(torch.nn.Module):
    """A parameter vector and a function of it."""

    def __init__(self, at, function):
        super().__init__()
        self.at = torch.nn.Parameter(torch.as_tensor(np.array(at)))
        self.function = function


def function_of(function, at):
    """Objective of a function of a vector, without data."""
    return ls.objective(Point(at, function), ls.BatchLoss(lambda model, batch: (model.function(model.at), 1)), None)


def quadratic(matrix, linear, at):
    """``x^T A x / 2 + b^T x``."""
    a, b = torch.as_tensor(np.array(matrix)), torch.as_tensor(np.array(linear))
    return function_of(lambda x: 0.5 * x @ (a @ x) + b @ x, at)


def symmetric(eigenvalues, seed=0, dtype=np.float64):
    """A matrix with these eigenvalues and random eigenvectors (the columns of the second result)."""
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))[0]
    return ((q * eigenvalues) @ q.T).astype(dtype), q


def regression(curvatures, targets_seed=1, dtype=np.float64):
    """Linear regression by mean squared errors whose Hessian has these eigenvalues, in random directions, away from its minimum."""
    n = len(curvatures)
    rng = np.random.default_rng(targets_seed)
    u = np.linalg.qr(rng.standard_normal((2 * n, n)))[0]
    v = np.linalg.qr(rng.standard_normal((n, n)))[0]
    x = np.sqrt(n) * (u * np.sqrt(curvatures)) @ v.T  # 2 / (2n) x^T x
    model = torch.nn.Linear(n, 1, bias=False).to(getattr(torch, np.dtype(dtype).name))
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(rng.standard_normal((1, n))))
    y = rng.standard_normal((2 * n, 1))
    return ls.objective(model, "mse", (torch.as_tensor(x.astype(dtype)), torch.as_tensor(y.astype(dtype))))


def network(dtype=np.float64, examples=40, seed=3):
    """A small tanh classifier with its objective."""
    generator = torch.Generator().manual_seed(seed)
    kind = getattr(torch, np.dtype(dtype).name)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(kind) / 2)
    x = torch.randn(examples, 4, generator=generator, dtype=torch.float64).to(kind)
    return ls.objective(model, "cross_entropy", (x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()))


def other_data(examples=30, seed=8):
    """More examples for `network`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def modulus(matrix):
    """``|A|`` by a dense eigendecomposition."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.abs(values)) @ vectors.T


def same_after_restoring(make, objective, tmp_path, steps=6):
    """Whether a run that was saved halfway, and taken up by a new optimiser, ends bit-identically."""
    whole, theta = make(), objective.parameters()
    for step in range(steps):
        if step == steps // 2:
            whole.save(tmp_path / "state.npz")
            halfway = theta.copy()
        theta, info = whole.step(objective, theta)
    again = make()
    again.restore(tmp_path / "state.npz")
    for _ in range(steps // 2, steps):
        halfway, other = again.step(objective, halfway)
    return (theta == halfway).all() and info.loss == other.loss and info.num_matvecs == other.num_matvecs
