"""``python -m linop_spectra`` is the ``linop-spectra`` command."""

from .cli.main import run

run()
