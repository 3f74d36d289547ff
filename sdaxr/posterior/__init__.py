"""Posterior sampling on tensors: likelihoods, guidance, samplers and their execution.

No file here knows labels (dimensions, coordinates, units); `sdaxr.inference` binds labelled data to these tensors.
"""
