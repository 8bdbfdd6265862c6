"""Networks and data that optimisers are compared on; see optimisers.py."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import linop_spectra as ls

ROOT = pathlib.Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network to train.

    Attributes
    ----------
    name, title : str
        For files and for figures.
    model : callable
        Makes the network from a seed.
    loss : str or BatchLoss
        As for `linop_spectra.objective`.
    inputs, targets : Tensor
        Training data.
    test_inputs, test_targets : Tensor
        Held-out data.
    small, large : int
        Examples in a mini-batch of first-order methods, and of methods that solve with the curvature.
    layered : bool
        Whether Kronecker factors are known for its layers.
    accuracy : bool
        Whether held-out data are judged by the share of right classes, else by the loss.
    judged : int
        Training examples that the loss is looked at on.
    """

    name: str
    title: str
    model: Callable[[int], nn.Module]
    loss: Any
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    small: int
    large: int
    layered: bool = True
    accuracy: bool = False
    judged: int = 1000


def data_folder() -> pathlib.Path:
    """The folder with the data sets.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    for candidate in (os.environ.get("LINOP_SPECTRA_DATA"), ROOT.parent / "shared" / "data"):
        if candidate and (pathlib.Path(candidate) / "mnist").is_dir():
            return pathlib.Path(candidate)
    raise FileNotFoundError("The data sets were not found; set LINOP_SPECTRA_DATA to the folder that holds mnist, cifar10 and text.")


def mnist(count: int, part: str = "train") -> tuple[Tensor, Tensor]:
    """Images as rows in [0, 1], and labels."""
    folder = data_folder() / "mnist"

    def read(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset)

    raw, labels = read("images-idx3", 16), read("labels-idx1", 8)
    images = raw.reshape(-1, 784)[:count].astype(np.float32) / 255
    return torch.from_numpy(images), torch.from_numpy(labels[:count].astype(np.int64))


def halved(images: Tensor) -> Tensor:
    """Images of 14 x 14 means of four pixels, as rows, of images of 28 x 28."""
    return nn.functional.avg_pool2d(images.reshape(-1, 1, 28, 28), 2).reshape(-1, 196)


def cifar10(count: int, part: str = "train") -> tuple[Tensor, Tensor]:
    """Images of shape (count, 3, 32, 32) with mean zero and deviation one for each colour, and labels."""
    with np.load(data_folder() / "cifar10" / "cifar10-train10000-test2000.npz") as held:
        images, labels = held[f"x_{part}"], held[f"y_{part}"]
    images = images[:count].astype(np.float32) / 255
    means, deviations = np.array([0.491, 0.482, 0.447], np.float32), np.array([0.247, 0.243, 0.262], np.float32)
    images = (images - means[:, None, None]) / deviations[:, None, None]
    return torch.from_numpy(images), torch.from_numpy(labels[:count].astype(np.int64))


def sparse_start(model: nn.Module, seed: int, connections: int = 15) -> nn.Module:
    """Weights with a few connections into each unit, as Martens (2010) starts deep networks."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.zero_()
                module.bias.zero_()
                for row in module.weight:
                    chosen = torch.randperm(row.shape[0], generator=generator)[:connections]
                    row[chosen] = torch.randn(len(chosen), generator=generator)
    return model


def autoencoder() -> Problem:
    """A deep autoencoder of sigmoid units on 1,000 images of MNIST (14 x 14 means of pixels), with sparse starting weights."""
    widths = [196, 100, 50, 25, 10, 25, 50, 100, 196]

    def model(seed: int) -> nn.Module:
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Linear(a, b))
            if i not in (3, len(widths) - 2):
                layers.append(nn.Sigmoid())
        torch.manual_seed(seed)
        return sparse_start(nn.Sequential(*layers), seed)

    x, test = halved(mnist(1000)[0]), halved(mnist(500, "t10k")[0])
    return Problem("autoencoder", "deep autoencoder, MNIST", model, "binary_cross_entropy", x, x, test, test, 100, 1000)


def perceptron() -> Problem:
    """A perceptron with one hidden layer on 1,000 images of MNIST, 14 x 14 means of pixels."""

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(196, 32), nn.Tanh(), nn.Linear(32, 10))

    (x, labels), (test, test_labels) = mnist(1000), mnist(1000, "t10k")
    return Problem("perceptron", "MLP 196-32-10, MNIST", model, "cross_entropy", halved(x), labels, halved(test), test_labels, 100, 1000,
                   accuracy=True)  # fmt: skip


def small_cnn() -> Problem:
    """A network with three convolutions on 5,000 images of CIFAR-10."""

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    return Problem("cnn", "small CNN, CIFAR-10", model, "cross_entropy", *cifar10(5000), *cifar10(500, "test"), 64, 500, accuracy=True)


class Block(nn.Module):
    """Causal attention and a small perceptron, with normalisation before each."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.full((context, context), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Of shape (batch, context, width), as `x`."""
        b, t, w = x.shape
        q, k, v = (part.reshape(b, t, self.heads, w // self.heads).transpose(1, 2) for part in self.mix(self.first(x)).chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5 + self.mask[:t, :t]).softmax(dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, t, w))
        return x + self.down(torch.nn.functional.gelu(self.up(self.second(x)), approximate="tanh"))


class CharacterModel(nn.Module):
    """A transformer over characters; logits have the classes along dimension 1."""

    def __init__(self, symbols: int, width: int = 32, context: int = 32, depth: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.places = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads, context) for _ in range(depth)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (batch, symbols, context)."""
        x = self.embedding(tokens) + self.places[: tokens.shape[1]]
        return self.head(self.last(self.blocks(x))).transpose(1, 2)


def transformer() -> Problem:
    """A character transformer on tiny Shakespeare."""
    text = (data_folder() / "text" / "tinyshakespeare.txt").read_text()
    symbols = sorted(set(text))
    places = {symbol: index for index, symbol in enumerate(symbols)}
    codes = torch.tensor([places[symbol] for symbol in text[:120_000]])

    def pieces(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        rows = codes[: count * 33].reshape(count, 33)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return CharacterModel(len(symbols))

    return Problem(
        "transformer", "character transformer, text", model, "cross_entropy", *pieces(codes, 1024), *pieces(codes[80_000:], 128), 16, 128,
        layered=False, judged=256,
    )  # fmt: skip


class Recurrent(nn.Module):
    """A plain recurrent network that reads pairs and answers at the end."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read, self.pass_on, self.answer = nn.Linear(2, width), nn.Linear(width, width, bias=False), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers of shape (batch, 1) for `x` of shape (batch, steps, 2)."""
        state = x.new_zeros(x.shape[0], self.pass_on.in_features)
        for step in range(x.shape[1]):
            state = torch.tanh(self.read(x[:, step]) + self.pass_on(state))
        return self.answer(state)


def adding(length: int = 20) -> Problem:
    """The adding problem (Hochreiter and Schmidhuber, 1997): the sum of two marked numbers of a sequence; its variance is 1/6."""

    def sequences(count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng(seed)
        numbers, marks = generator.random((count, length)), np.zeros((count, length))
        first, second = generator.integers(0, length // 2, count), generator.integers(length // 2, length, count)
        marks[np.arange(count), first] = marks[np.arange(count), second] = 1
        answers = (numbers * marks).sum(axis=1, keepdims=True)
        return torch.tensor(np.stack([numbers, marks], axis=-1), dtype=torch.float32), torch.tensor(answers, dtype=torch.float32)

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        made = Recurrent()
        nn.init.orthogonal_(made.pass_on.weight)
        return made

    return Problem(
        "adding", f"recurrent net, adding problem, {length} steps", model, "mse", *sequences(1000, 0), *sequences(500, 1), 50, 1000,
        layered=False,
    )  # fmt: skip


class PreActivation(nn.Module):
    """Normalisation and rectifier before each of two convolutions, around which the input passes (He et al., 2016b)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(into), nn.BatchNorm2d(out)
        self.one = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.two = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.around = nn.Conv2d(into, out, 1, stride=stride, bias=False) if stride > 1 or into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's outputs."""
        hidden = torch.relu(self.first(x))
        return self.around(x) + self.two(torch.relu(self.second(self.one(hidden))))


def residual_network() -> Problem:
    """A pre-activation ResNet with three blocks on 2,000 images of CIFAR-10."""

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), PreActivation(8, 8, 1), PreActivation(8, 16, 2), PreActivation(16, 32, 2),
            nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    return Problem("resnet", "pre-activation ResNet, CIFAR-10", model, "cross_entropy", *cifar10(2000), *cifar10(500, "test"), 128, 256,
                   layered=False, accuracy=True)  # fmt: skip


PROBLEMS = {"autoencoder": autoencoder, "cnn": small_cnn, "transformer": transformer, "adding": adding}


def objective_of(problem: Problem, seed: int, weight_decay: float = 0.0) -> ls.Objective:
    """The problem's objective over all training data, at the starting weights of a seed."""
    normalised = problem.name == "resnet"
    return ls.objective(
        problem.model(seed), problem.loss, (problem.inputs, problem.targets), batch_norm="train" if normalised else None,
        weight_decay=weight_decay,
    )  # fmt: skip
