"""Random-matrix theory: limiting laws of spectra."""

from .marchenko_pastur import MarchenkoPastur

__all__ = ["MarchenkoPastur"]
