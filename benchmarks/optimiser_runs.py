"""One training by one method, measured against processor seconds, steps and work; see optimisers.py."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from optimiser_problems import Problem, objective_of

import linop_spectra as ls

LOOKS = 13
"""Times at which the loss is looked at in one training."""

Group = Literal["first order", "spectrum", "diagonal", "Kronecker", "Krylov"]


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with what is tried of its one setting.

    Attributes
    ----------
    group : str
        What curvature it takes.
    make : callable
        From the setting to an `Optimizer`, or to what makes a torch optimiser from parameters.
    grid : tuple of float
        Settings that are tried in short trainings; one alone is not tuned.
    batch : {"small", "large"}
        Examples of the gradient.
    curvature : {"same", "large"}
        Examples of the curvature: the gradient's, or others.
    """

    group: Group
    make: Callable[[float], Any]
    grid: tuple[float, ...]
    batch: Literal["small", "large"]
    curvature: Literal["same", "large"] = "same"


optim = ls.optim


def kfac(damping: float, kind: Literal["kfac", "ekfac"]) -> ls.optim.Optimizer:
    """Factors measured every five steps: each time they cost some ten gradients of these small networks."""
    return optim.KFAC(damping=damping, kind=kind, factors_every=5, inverse_every=20)


METHODS: dict[str, Method] = {
    "gradient descent": Method(
        "first order", lambda rate: lambda p: torch.optim.SGD(p, lr=rate), (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), "large"
    ),
    "SGD, momentum": Method(
        "first order", lambda rate: lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9), (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), "small"
    ),
    "AdamW": Method("first order", lambda rate: lambda p: torch.optim.AdamW(p, lr=rate), (1e-3, 3e-3, 1e-2, 3e-2), "small"),
    "spectral schedule": Method(
        "spectrum", lambda _: optim.SpectralSchedule(refresh_every=100, num_steps=10, factor=0.9, evaluate=False), (0.0,), "small", "large"
    ),
    "AdaHessian": Method("diagonal", lambda rate: optim.AdaHessian(learning_rate=rate), (0.01, 0.05, 0.15), "small"),
    "Sophia-G": Method("diagonal", lambda rate: optim.Sophia(learning_rate=rate), (3e-4, 1e-3, 3e-3, 1e-2), "small"),
    "Sophia-H": Method(
        "diagonal", lambda rate: optim.Sophia(learning_rate=rate, estimator="hutchinson"), (3e-4, 1e-3, 3e-3, 1e-2), "small"
    ),
    "KFAC": Method("Kronecker", lambda damping: kfac(damping, "kfac"), (1e-3, 1e-2, 1e-1), "small"),
    "EKFAC": Method("Kronecker", lambda damping: kfac(damping, "ekfac"), (1e-3, 1e-2, 1e-1), "small"),
    "Lanczos Newton": Method(
        "Krylov",
        lambda damping: optim.LanczosNewton(damping=damping, num_steps=10, refresh_every=10),
        (1e-3, 1e-2, 0.1, 1.0, 10.0),
        "small",
        "large",
    ),
    "saddle-free Newton": Method(
        "Krylov", lambda damping: optim.SaddleFreeNewton(damping=damping, num_steps=20, adaptive=True), (0.01, 0.1), "large"
    ),
    "Hessian-free": Method("Krylov", lambda damping: optim.HessianFree(damping=damping, num_steps=50), (1e-3, 1e-2, 0.1, 1.0), "large"),
    "cubic Newton": Method("Krylov", lambda _: optim.CubicNewton(num_steps=20), (0.0,), "large"),
    "trust region": Method("Krylov", lambda _: optim.TrustRegionNewton(num_steps=20), (0.0,), "large"),
}
LAYERED = ("KFAC", "EKFAC")


class Judge:
    """Loss on fixed training examples, and loss or accuracy on held-out ones; not part of what is timed."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        whole = objective_of(problem, seed)
        self.train = whole.with_data((problem.inputs[: problem.judged], problem.targets[: problem.judged]))
        self.test = whole.with_data((problem.test_inputs, problem.test_targets))

    def look(self, theta: Any) -> tuple[float, float]:
        """Training loss, and held-out accuracy (or loss); infinite where not finite."""
        try:
            loss, held_out = self.train.with_parameters(theta).value(), self.test.with_parameters(theta)
            if not self.problem.accuracy:
                return loss, held_out.value()
            functions, right = held_out.functions, 0
            with functions.session():
                outputs = np.concatenate(
                    [functions.flat_outputs(functions.outputs_at(held_out.point, batch)).reshape(-1, 10) for batch in held_out.batches()]
                )
            right = int((outputs.argmax(axis=1) == self.problem.test_targets.numpy()).sum())
            return loss, right / len(outputs)
        except FloatingPointError:
            return math.inf, math.nan


def train(problem: Problem, method: Method, setting: float, seed: int, budget: float) -> dict[str, Any]:
    """One training for `budget` processor seconds.

    Returns
    -------
    dict
        Lists over the looks: ``seconds``, ``steps``, ``work`` (examples whose gradient was computed, a product counting twice and a value
        as a third, over the size of the training data), ``products``, ``loss``, ``held_out``; and the seconds of a step.
    """
    judge = Judge(problem, seed)
    generator = np.random.default_rng([seed, 1])
    size = {"small": problem.small, "large": problem.large}
    runner = (_Torch if not isinstance(method.make(setting), optim.Optimizer) else _Ours)(problem, method, setting, seed)
    rows: dict[str, list[float]] = {name: [] for name in ("seconds", "steps", "work", "products", "loss", "held_out")}
    spent = steps = work = products = 0.0
    looks = np.concatenate([[0.0], budget * np.linspace(0, 1, LOOKS)[1:] ** 1.5])
    while True:
        if spent >= looks[len(rows["loss"])] or not math.isfinite(runner.loss):
            loss, held_out = judge.look(runner.theta()) if math.isfinite(runner.loss) else (math.inf, math.nan)
            late = sum(look <= spent for look in looks) - len(rows["loss"]) if math.isfinite(runner.loss) else len(looks)
            for _ in range(max(1, min(late, len(looks) - len(rows["loss"])))):
                for name, value in zip(rows, (spent, steps, work, products, loss, held_out), strict=True):
                    rows[name].append(float(value))
            if len(rows["loss"]) >= len(looks):
                break
        batch = generator.choice(len(problem.inputs), size[method.batch], replace=False)
        other = None if method.curvature == "same" else generator.choice(len(problem.inputs), problem.large, replace=False)
        began = time.process_time()
        gradients, values, multiplied = runner.step(torch.from_numpy(batch), None if other is None else torch.from_numpy(other))
        spent += time.process_time() - began
        steps += 1
        products += multiplied
        share, curved = len(batch) / len(problem.inputs), (len(batch) if other is None else len(other)) / len(problem.inputs)
        work += share * (gradients + values / 3) + curved * 2 * multiplied
    return {**rows, "seconds_per_step": spent / max(steps, 1), "setting": setting, "seed": seed}


class _Torch:
    """A torch optimiser in torch's own loop."""

    def __init__(self, problem: Problem, method: Method, setting: float, seed: int) -> None:
        self.problem, self.model, self.loss = problem, problem.model(seed), 0.0
        self.optimizer = method.make(setting)(self.model.parameters())
        self.function = {
            "cross_entropy": torch.nn.functional.cross_entropy, "mse": torch.nn.functional.mse_loss,
            "binary_cross_entropy": torch.nn.functional.binary_cross_entropy_with_logits,
        }[problem.loss]  # fmt: skip

    def step(self, batch: torch.Tensor, other: Any) -> tuple[int, int, int]:
        self.optimizer.zero_grad()
        loss = self.function(self.model(self.problem.inputs[batch]), self.problem.targets[batch])
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()
        return 1, 0, 0

    def theta(self) -> Any:
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])


class _Ours:
    """A method of this library on flat vectors."""

    def __init__(self, problem: Problem, method: Method, setting: float, seed: int) -> None:
        self.problem, self.method, self.loss = problem, method.make(setting), 0.0
        self.objective = objective_of(problem, seed)
        self.vector = self.objective.parameters()

    def step(self, batch: torch.Tensor, other: torch.Tensor | None) -> tuple[int, int, int]:
        problem = self.problem
        here = self.objective.with_data((problem.inputs[batch], problem.targets[batch]))
        curvature = None if other is None else self.objective.with_data((problem.inputs[other], problem.targets[other]))
        try:
            self.vector, info = self.method.step(here, self.vector, curvature=curvature)
        except FloatingPointError:
            self.loss = math.inf
            return 1, 0, 0
        self.loss = info.loss
        return info.num_gradients, info.num_values, info.num_matvecs

    def theta(self) -> Any:
        return self.vector
