"""A result with the attributes that figures read, made from known eigenvalues."""
import dataclasses
from types import SimpleNamespace

import numpy as np


@dataclasses.dataclass
class FakeSpectrum:
    bulk: np.ndarray
    spikes: tuple = ()
    noise_floor: float = 1e-7
    num_steps: int = 64
    num_probes: int = 2
    status: str = "complete"
    residual: float = 0.02

    @property
    def dimension(self):
        return len(self.bulk) + len(self.spikes)

    @property
    def nodes(self):
        return np.sort(np.concatenate([np.quantile(self.bulk, np.linspace(0, 1, 40)), self.spikes]))

    def bulk_edges(self):
        return float(self.bulk.min()), float(self.bulk.max())

    def outliers(self):
        return tuple(SimpleNamespace(value=s, residual_norm=self.residual * abs(s), weight=1 / self.dimension, multiplicity=1)
                     for s in self.spikes)

    def density(self, x, broadening="adaptive", outliers=True):
        centres = np.quantile(self.bulk, (np.arange(200) + 0.5) / 200)
        widths = np.maximum(np.gradient(centres) * 3, 1e-9)
        kernels = np.exp(-0.5 * ((np.asarray(x)[:, None] - centres) / widths) ** 2) / (widths * np.sqrt(2 * np.pi))
        return kernels.mean(axis=1) * len(self.bulk) / self.dimension

    def density_band(self, x, confidence=0.95):
        return 0.8 * self.density(x), 1.25 * self.density(x)

    def negative_mass(self, threshold=None):
        share = float(np.mean(self.bulk < -(self.noise_floor if threshold is None else threshold)))
        return max(share - 0.01, 0.0), min(share + 0.02, 1.0)
