"""What the tests of iterations share."""

import importlib

import pytest


@pytest.fixture(autouse=True)
def no_short_cut(request, monkeypatch):
    """The iteration itself, also for matrices that LAPACK would take."""
    if "dense" not in request.module.__name__:
        # The package's own name eigsh is the function.
        monkeypatch.setattr(importlib.import_module("linop_spectra.krylov.eigsh"), "SMALL_DENSE", 0)
