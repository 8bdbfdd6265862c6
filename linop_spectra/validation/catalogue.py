"""The experiments by name; each module of them is imported when it is asked for."""

from __future__ import annotations

import importlib

from .experiment import Experiment

_MODULES = ("krylov", "laws", "regression", "classes")


def experiments() -> dict[str, Experiment]:
    """All experiments, by the name that the command takes.

    Examples
    --------
    >>> from linop_spectra.validation import experiments
    >>> "lanczos-coefficients" in experiments()
    True
    """
    found: dict[str, Experiment] = {}
    for module in _MODULES:
        for experiment in importlib.import_module(f".{module}", __package__).EXPERIMENTS:
            found[experiment.name] = experiment
    return found
