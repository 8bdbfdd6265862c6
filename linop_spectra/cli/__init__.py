"""The ``linop-spectra`` command."""
