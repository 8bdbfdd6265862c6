"""Ensembles: random matrices as operators."""
