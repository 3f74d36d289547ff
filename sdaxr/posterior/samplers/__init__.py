"""Predictor-corrector sampling, one algorithm a file.

A `PredictorCorrector` descends a grid of noise levels (`levels`) with a predictor (`ddim`, `dpm`) and Langevin
corrections (`langevin`). The denoiser may be the denoiser of a prior or of a posterior. `twisted`
weights and resamples the members of a posterior (`particles`) on the way. `registry` is `sdaxr.samplers`.
"""
