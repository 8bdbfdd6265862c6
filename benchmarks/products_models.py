"""Networks and data of products.py: an MLP, a VGG-like network with and without batch normalisation, a small GPT, from a seed."""

# ruff: noqa: D102 -- the methods of modules are torch's

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAMES = ("mlp", "cnn", "cnn_bn", "gpt")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model in evaluation mode and its data: batches (inputs, targets) of equal size, under the mean cross-entropy.

    Peers weigh batches in different ways; with equal ones all of them mean the same matrix.
    """

    name: str
    model: Any
    batches: list[tuple[Tensor, Tensor]]

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def kinked(self) -> bool:
        """Whether it is made of ReLU and max-pooling."""
        return self.name != "gpt"

    def copied(self, dtype: torch.dtype = torch.float32) -> Problem:
        """A copy that shares nothing; some peers write to what they are given."""
        batches = [(x.to(dtype) if x.is_floating_point() else x.clone(), y.clone()) for x, y in self.batches]
        return Problem(self.name, copy.deepcopy(self.model).to(dtype), batches)


class Attention(torch.nn.Module):
    """Causal self-attention in elementary operations: fused attention has no second derivative, and the peers do not avoid it."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.inwards, self.outwards = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.register_buffer("future", torch.ones(length, length).triu(1).bool(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in self.inwards(x).split(width, dim=2))
        scores = (q @ k.transpose(2, 3)) * (width // self.heads) ** -0.5
        weights = scores.masked_fill(self.future, float("-inf")).softmax(dim=3)
        return self.outwards((weights @ v).transpose(1, 2).reshape(n, t, width))


class Block(torch.nn.Module):
    """Layer normalisation before attention and before a network of one hidden layer."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.norm1, self.attention = torch.nn.LayerNorm(width), Attention(width, heads, length)
        self.norm2 = torch.nn.LayerNorm(width)
        self.wide, self.narrow = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(self.norm2(x)), approximate="tanh"))


class Gpt(torch.nn.Module):
    """A decoder; logits of shape (examples, words, positions), as the cross-entropy of torch wants them."""

    def __init__(self, *, words: int, width: int, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.words, self.positions = torch.nn.Embedding(words, width), torch.nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = torch.nn.ModuleList(Block(width, heads, length) for _ in range(depth))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).transpose(1, 2)


def mlp(sizes: tuple[int, ...]) -> Any:
    layers: list[Any] = []
    for inwards, outwards in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inwards, outwards), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def cnn(channels: tuple[int, ...], side: int, hidden: int, *, batch_norm: bool) -> Any:
    layers: list[Any] = []
    for inwards, outwards in itertools.pairwise((3, *channels)):
        for first, last in ((inwards, outwards), (outwards, outwards)):
            layers.append(torch.nn.Conv2d(first, last, 3, padding=1))
            layers += [torch.nn.BatchNorm2d(last)] if batch_norm else []
            layers.append(torch.nn.ReLU())
        layers.append(torch.nn.MaxPool2d(2))
        side //= 2
    features = channels[-1] * side * side
    return torch.nn.Sequential(
        *layers, torch.nn.Flatten(), torch.nn.Linear(features, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
    )


def problem(name: str, num_batches: int, *, small: bool) -> Problem:
    """Network and data; the same for the same arguments, on every machine with the same torch."""
    generator = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "gpt":
            size = {"words": 32, "width": 16, "depth": 2, "heads": 2, "length": 12}
            if not small:
                size = {"words": 512, "width": 192, "depth": 6, "heads": 6, "length": 128}
            model: Any = Gpt(**size)
            # Eight batches have one sequence each: four cannot be divided further.
            count = 4 if num_batches == 1 else num_batches
            # Each word follows from the last by a rule that holds nine times in ten.
            tokens = np.empty((count, size["length"] + 1), dtype=np.int64)
            tokens[:, 0] = generator.integers(size["words"], size=count)
            for t in range(size["length"]):
                odd = generator.random(count) < 0.1
                tokens[:, t + 1] = np.where(odd, generator.integers(size["words"], size=count), (5 * tokens[:, t] + 1) % size["words"])
            x, y = torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(tokens[:, 1:].copy())
        else:
            count = {"mlp": (64, 2000)}.get(name, (16, 128))[not small]
            if name == "mlp":
                sizes = (20, 16, 12, 10) if small else (784, 512, 256, 10)
                model, shape = mlp(sizes), (sizes[0],)
            else:
                side = 8 if small else 32
                channels, hidden = ((4, 6), 16) if small else ((16, 32, 64), 1024)
                model, shape = cnn(channels, side, hidden, batch_norm=name == "cnn_bn"), (3, side, side)
            y = torch.from_numpy(np.arange(count) % 10)
            means = generator.standard_normal((10, *shape))
            x = torch.from_numpy((means[y.numpy()] + generator.standard_normal((count, *shape))).astype(np.float32))
            if name == "cnn_bn":  # running statistics of the data themselves
                with torch.no_grad():
                    for module in model.modules():
                        if isinstance(module, torch.nn.BatchNorm2d):
                            module.momentum = 1.0
                    model(x)
    return Problem(name, model.eval(), list(zip(x.chunk(num_batches), y.chunk(num_batches), strict=True)))


def mean_loss(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """The objective of one batch."""
    return torch.nn.functional.cross_entropy(model(x), y)


def gradient(of: Problem) -> list[Tensor]:
    """One gradient over all batches by plain torch: the unit of costs."""
    parameters = list(of.model.parameters())
    total: list[Tensor] | None = None
    for x, y in of.batches:
        rows = torch.autograd.grad(mean_loss(of.model, x, y), parameters)
        total = list(rows) if total is None else [a.add_(b) for a, b in zip(total, rows, strict=True)]
    assert total is not None
    return [row.div_(len(of.batches)) for row in total]


def reference(of: Problem, matrix: str) -> Callable[[np.ndarray], np.ndarray]:
    """Products by reverse mode over reverse mode throughout, written without the library: in double precision where that is possible.

    Where ReLU and max-pooling have kinks, two of a million units may lie on different sides of them in single and in double
    precision. That makes two different matrices (5e-4 apart for the MLP), so that single precision is compared with single.
    """
    dtype = torch.float32 if of.kinked else torch.float64
    of = of.copied(dtype)
    parameters = list(of.model.parameters())
    sizes = [p.numel() for p in parameters]

    def product(v: np.ndarray) -> np.ndarray:
        pieces = [part.view(p.shape) for part, p in zip(torch.as_tensor(v).to(dtype).split(sizes), parameters, strict=True)]
        total = torch.zeros(sum(sizes), dtype=dtype)
        for x, y in of.batches:
            if matrix == "hessian":
                rows = torch.autograd.grad(mean_loss(of.model, x, y), parameters, create_graph=True)
                rows = torch.autograd.grad(rows, parameters, pieces)
            else:
                outputs = of.model(x)
                u = torch.zeros_like(outputs, requires_grad=True)
                pulled = torch.autograd.grad(outputs, parameters, u, create_graph=True)
                (pushed,) = torch.autograd.grad(pulled, u, pieces, retain_graph=True)
                probabilities = outputs.detach().softmax(dim=1)
                inner = (probabilities * pushed).sum(dim=1, keepdim=True)
                terms = outputs.numel() / outputs.shape[1]
                rows = torch.autograd.grad(outputs, parameters, probabilities * (pushed - inner) / terms)
            total += torch.cat([row.reshape(-1) for row in rows])
        return (total / len(of.batches)).numpy()

    return product
