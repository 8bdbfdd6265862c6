"""Small problems in torch, float64: quadratics whose eigenvalues are the data, and a tanh network."""

import numpy as np
import torch
from torch import nn

import linop_spectra as ls


class Vector(nn.Module):
    """A parameter vector."""

    def __init__(self, start, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(np.asarray(start), dtype=dtype))


def _half_square(model, batch):
    return 0.5 * (batch * model.w**2).sum(), 1.0


def quadratic(eigenvalues, start=None, dtype=torch.float64):
    """``sum h_i w_i^2 / 2``; ``with_data([h])`` has other eigenvalues at the same parameters."""
    h = torch.as_tensor(np.asarray(eigenvalues), dtype=dtype)
    start = np.ones(len(h)) if start is None else start
    return ls.objective(Vector(start, dtype), ls.BatchLoss(_half_square), [h])


def of_vector(loss, start):
    """A function of the parameter vector alone."""
    return ls.objective(Vector(start), ls.BatchLoss(lambda model, batch: (loss(model.w), 1.0)), [torch.zeros(1)])


def network(seed=0, examples=24, dtype=torch.float64):
    """A tanh network with its data."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    return model, (torch.randn(examples, 5, dtype=dtype), torch.randint(0, 3, (examples,)))


def run(method, objective, steps, theta=None, **options):
    """Parameters and information after some steps."""
    theta, infos = objective.parameters() if theta is None else theta, []
    for _ in range(steps):
        theta, info = method.step(objective, theta, **options)
        infos.append(info)
    return theta, infos


def resumed_is_identical(make, objectives, folder, **options):
    """Whether three steps, a file and three more steps give the bits of six steps."""
    whole, theta = make(), objectives[0].parameters()
    for objective in objectives:
        theta, _ = whole.step(objective, theta, **options)
    first, other = make(), objectives[0].parameters()
    for objective in objectives[:3]:
        other, _ = first.step(objective, other, **options)
    first.save(folder / "state.npz")
    second = make()
    second.restore(folder / "state.npz")
    for objective in objectives[3:]:
        other, _ = second.step(objective, other, **options)
    same = set(whole.state) == set(second.state)
    for name, value in whole.state.items():
        same = same and np.array_equal(np.asarray(value), np.asarray(second.state[name]))
    return same and np.array_equal(np.asarray(theta), np.asarray(other)) and second.steps_taken == 6
