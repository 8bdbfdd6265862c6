"""Figures of spectra; matplotlib is imported only when one is drawn."""

from .grid import spectra
from .law import law_comparison, ratio_histogram
from .log_spectrum import log_spectrum
from .spectrum import spectrum

__all__ = ["law_comparison", "log_spectrum", "ratio_histogram", "spectra", "spectrum"]
