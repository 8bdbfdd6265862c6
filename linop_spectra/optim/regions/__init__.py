"""Cubic regularisation and trust regions: the steps and the methods."""
