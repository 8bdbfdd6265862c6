"""From a model of some framework to an objective; only that framework's adapter is imported."""

if __name__ == "adapters":  # reached through the link at the root of the repository
    raise ImportError("Import linop_spectra.adapters; the folder adapters at the root of the repository is only a link to it.")

from .dispatch import objective

__all__ = ["objective"]
