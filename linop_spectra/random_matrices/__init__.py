"""Random-matrix theory: ensembles as operators, and the limiting laws of their spectra."""

from .law import Law, SpectralLaw
from .marchenko_pastur import MarchenkoPastur
from .semicircle import Semicircle
from .tracy_widom import TracyWidom
from .wigner import wigner
from .wishart import wishart

__all__ = ["Law", "MarchenkoPastur", "Semicircle", "SpectralLaw", "TracyWidom", "wigner", "wishart"]
