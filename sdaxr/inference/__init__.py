"""Posteriors, forecasts and denoised fields, from observations and a prior or a physical model."""
