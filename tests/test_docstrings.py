"""Every example in a docstring of the package runs as it stands."""
import doctest
import importlib
import pkgutil

import pytest

import linop_spectra

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    module.name for module in pkgutil.walk_packages(linop_spectra.__path__, "linop_spectra.") if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["linop_spectra", *MODULES])
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert results.failed == 0


def test_the_package_has_examples():
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))) > 50
