"""Spectra through training: over saved checkpoints, recorded in a loop, and as tables over grids."""

from .edge import stability_threshold
from .recorder import SpectrumRecorder
from .snapshot import Snapshot
from .study import Study, study
from .trajectory import Evolution, evolution

__all__ = ["Evolution", "Snapshot", "SpectrumRecorder", "Study", "evolution", "stability_threshold", "study"]
