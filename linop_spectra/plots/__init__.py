"""Figures of spectra; matplotlib is imported only when one is drawn."""

from .grid import spectra
from .log_spectrum import log_spectrum
from .spectrum import spectrum

__all__ = ["log_spectrum", "spectra", "spectrum"]
