"""Figures of spectra; matplotlib is imported only when one is drawn."""

from .grid import spectra
from .spectrum import spectrum

__all__ = ["spectra", "spectrum"]
