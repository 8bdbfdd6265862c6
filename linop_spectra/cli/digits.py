"""The network of the demo: a small convolutional one on real handwritten digits, and its training."""

from __future__ import annotations

import dataclasses
from typing import Any

from .._progress import ProgressBar

NUM_CLASSES = 10
EPOCHS = 10
BATCH = 64
LEARNING_RATE = 0.05


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images of 8 x 8 pixels and their labels, split once and for all by a seed.

    Attributes
    ----------
    train, held_out : tuple of torch.Tensor
        Images, shape (count, 1, 8, 8), with mean zero and deviation one over the training set, and labels, shape (count,).
    """

    train: tuple[Any, Any]
    held_out: tuple[Any, Any]


def load_digits(seed: int) -> Digits:
    """The 1,797 digits that scikit-learn carries, four fifths of them for training, with the same share of each class."""
    import torch
    from sklearn import datasets, model_selection

    images, labels = datasets.load_digits(return_X_y=True)
    split = model_selection.train_test_split(images, labels, test_size=0.2, random_state=seed, stratify=labels)
    train, held_out = (torch.as_tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) for part in split[:2])
    mean, deviation = train.mean(), train.std()
    targets = [torch.as_tensor(part) for part in split[2:]]
    return Digits(((train - mean) / deviation, targets[0]), ((held_out - mean) / deviation, targets[1]))


def make_network(seed: int) -> Any:
    """Two convolutions and a linear layer, 6,586 parameters; smooth, so that its Hessian is its curvature everywhere."""
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.GELU(),
            nn.Flatten(), nn.Linear(24 * 4 * 4, NUM_CLASSES),
        )  # fmt: skip


def train(network: Any, digits: Digits, seed: int, progress: bool = False) -> None:
    """Train by stochastic gradients with momentum under a cosine schedule; changes the parameters of `network`."""
    import torch

    images, labels = digits.train
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    with ProgressBar(progress or None, EPOCHS, "training", unit="epoch") as bar:
        for _ in range(EPOCHS):
            for index in torch.randperm(len(labels), generator=generator).split(BATCH):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
                optimizer.step()
            schedule.step()
            bar.advance()
    optimizer.zero_grad()


def accuracy(network: Any, data: tuple[Any, Any]) -> float:
    """Share of images that get the right label."""
    import torch

    with torch.no_grad():
        return float((network(data[0]).argmax(dim=1) == data[1]).double().mean())
