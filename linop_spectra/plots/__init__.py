"""Figures of spectra; matplotlib is imported only when one is drawn."""

from .critique import critique
from .grid import spectra
from .landscape import loss_contour, loss_line, loss_surface, slices
from .law import law_comparison, ratio_histogram
from .log_spectrum import log_spectrum
from .spectrum import spectrum

__all__ = [
    "critique",
    "law_comparison",
    "log_spectrum",
    "loss_contour",
    "loss_line",
    "loss_surface",
    "ratio_histogram",
    "slices",
    "spectra",
    "spectrum",
]
