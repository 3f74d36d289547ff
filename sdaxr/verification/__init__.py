"""Scores, spectra, baselines and densities."""
