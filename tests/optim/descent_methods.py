"""A method with a state, for tests of what all methods share."""

import numpy as np

from linop_spectra.optim import Optimizer
from linop_spectra.optim.evaluation import Start
from linop_spectra.optim.optimizer import Proposal, check_number, rate_at


class Averaged(Optimizer):
    """Descent along a running mean of gradients, with noise from seed and step."""

    _settings = ("learning_rate", "noise", "seed")

    def __init__(self, *, learning_rate=0.1, noise=0.0, seed=0):
        super().__init__()
        self.learning_rate, self.noise, self.seed = learning_rate, check_number("noise", noise), seed

    def _propose(self, start: Start) -> Proposal:
        rate = rate_at(self.learning_rate, start.step)
        mean = 0.5 * start.state["mean"] + start.gradient if "mean" in start.state else start.gradient
        noise = self.noise * np.random.default_rng([self.seed, start.step]).standard_normal(len(start.gradient))
        rejected = {"rejections": start.state.get("rejections", 0) + 1}
        return Proposal(-rate * mean + noise, {"mean": mean, "scale": rate}, rejected, learning_rate=rate)
