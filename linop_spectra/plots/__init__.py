"""Figures of spectra; matplotlib is imported only when one is drawn."""

from .class_means import class_means, gram_spectra
from .comparison import spectrum_comparison
from .critique import critique
from .decomposition import decomposition
from .evolution import edge_of_stability, evolution_overview, spectrum_heat_map, spectrum_ridge
from .grid import spectra
from .landscape import loss_contour, loss_line, loss_surface, slices
from .law import law_comparison, ratio_histogram
from .log_spectrum import log_spectrum
from .spectrum import spectrum

__all__ = [
    "class_means",
    "critique",
    "decomposition",
    "edge_of_stability",
    "evolution_overview",
    "gram_spectra",
    "law_comparison",
    "log_spectrum",
    "loss_contour",
    "loss_line",
    "loss_surface",
    "ratio_histogram",
    "slices",
    "spectra",
    "spectrum",
    "spectrum_comparison",
    "spectrum_heat_map",
    "spectrum_ridge",
]
