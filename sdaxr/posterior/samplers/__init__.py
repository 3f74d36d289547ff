"""Predictor-corrector sampling, one algorithm a file.

A `PredictorCorrector` goes down a grid of noise levels (`levels`) with a predictor (`ddim`, `dpm`) and Langevin
corrections (`langevin`). It takes any denoiser: that of a prior or a guided one. `registry` is `sdaxr.samplers`.
"""
