"""Solvers and spectra of linear maps."""
