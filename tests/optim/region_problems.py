"""Sub-problems solved by brute force, operators that count, and losses of the parameters alone."""

import numpy as np
import torch
from scipy import optimize

import linop_spectra as ls


class Counted(ls.LinearOperator):
    """A matrix that counts the vectors it is multiplied with, apart from the library's own count."""

    def __init__(self, matrix):
        super().__init__(matrix.shape, matrix.dtype, hermitian=True)
        self.matrix, self.count = matrix, 0

    def _matmat(self, x):
        self.count += x.shape[1]
        return self.matrix @ x


def random_problem(seed, n=30):
    """An indefinite symmetric matrix and a gradient."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n))
    return (x + x.T) / 2, rng.standard_normal(n)


def quadratic(a, g, s):
    return g @ s + 0.5 * s @ a @ s


def dense_solution(a, g, *, radius=None, sigma=None):
    """Step and shift by the whole eigenproblem and bisection in the shift; not for the hard case."""
    values, vectors = np.linalg.eigh(a)
    c = vectors.T @ g

    def excess(shift):
        norm = np.linalg.norm(c / (values + shift))
        return norm - (radius if sigma is None else shift / sigma)

    if sigma is None and values[0] > 0 and np.linalg.norm(c / values) <= radius:
        shift = 0.0
    else:
        low = max(0.0, -values[0])
        high = low + 1.0
        while excess(high) > 0:
            high = 2 * high
        shift = optimize.bisect(excess, low + 1e-13, high, xtol=1e-14, rtol=1e-14, maxiter=1000)
    return -vectors @ (c / (values + shift)), shift


class Point(torch.nn.Module):
    def __init__(self, start, function):
        super().__init__()
        self.at = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.function = function


def loss_of_a_point(start, function):
    """Objective whose parameters are a point and whose loss is a function of it."""
    return ls.objective(Point(start, function), ls.BatchLoss(lambda module, batch: (module.function(module.at), 1)), None)


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def ridge(x):
    """A saddle at zero; minima of -1/4 where x is zero and y is the root of 1/2 or minus that."""
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4


def small_net(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / 2)
    x = torch.randn(40, 3, generator=generator, dtype=dtype)
    return ls.objective(model, "cross_entropy", (x, (x[:, 0] * x[:, 1] > 0).long()))
