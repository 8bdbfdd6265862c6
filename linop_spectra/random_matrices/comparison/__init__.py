"""Measured spectra against laws: tests, fits, and local statistics."""
