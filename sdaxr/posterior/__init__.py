"""Posterior sampling on tensors: likelihoods, guidance, samplers and their execution. Labels live above."""
