"""Gaussian processes of fields with known covariances."""

from __future__ import annotations

import numpy as np
import torch

from sdaxr.prior.eofs import Eofs, spectrum
from sdaxr.prior.modes import cosines


def process() -> Eofs:
    """A process on 3 x 4 points of two channels, with land, of five EOFs."""
    modes = Eofs(2, (3, 4), 5, 6)
    modes.present[0, 0, :2] = 0.0
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(24, 5, generator=generator) * modes.present.reshape(-1, 1)
    modes.vectors.copy_(torch.linalg.qr(vectors)[0])
    variances = torch.tensor([40.0, 10.0, 3.0, 1.0, 0.5, 0.1])
    decay = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.3, 0.0])
    modes.variances.copy_(variances * cosine_variances(decay, 6))
    return modes


def cosine_variances(decay: torch.Tensor, length: int) -> torch.Tensor:
    """Variances (length, n) of the cosines of autoregressive series with unit variance and the correlations (n,)."""
    lags = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    basis = cosines(length)
    return torch.einsum("fs,nst,ft->fn", basis, decay.double()[:, None, None] ** lags, basis).float()


def covariance_of(modes: Eofs, length: int) -> torch.Tensor:
    """Covariance of trajectories, flattened, in double precision: cosines times EOFs, and what is left of the sea."""
    variances, basis = modes.spectrum(length).double(), cosines(length)
    vectors = modes.vectors.double()
    rest = torch.diag(modes.present.flatten().double()) - vectors @ vectors.T
    parts = [vectors * row[:-1] @ vectors.T + row[-1] * rest for row in variances]
    if modes.levels is not None:
        usual = spectrum(modes.variances, length, modes.usual)[0].double()
        levels = modes.levels.double() @ vectors.T
        parts[0] = vectors * usual[:-1] @ vectors.T + usual[-1] * rest + length * levels.T @ levels
    waves = torch.stack(parts)
    whole = torch.einsum("ft,fpq,fu->tpuq", basis, waves, basis)
    return whole.reshape(length * len(rest), -1)


def sampled(times: int, points: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """States (time, point), positions (point, 1), covariance (point, point), lag-one correlation of an AR process."""
    places = np.linspace(0, 1, points)[:, None]
    covariance = np.exp(-0.5 * (places - places.T) ** 2 / scale**2) + 0.05 * np.eye(points)
    covariance *= np.outer(*2 * [1 + 0.5 * places[:, 0]])
    root, rho, random = np.linalg.cholesky(covariance), 0.6, np.random.default_rng(seed)
    states = np.zeros((times, points), np.float32)
    states[0] = root @ random.normal(size=points)
    for i in range(1, times):
        states[i] = rho * states[i - 1] + (1 - rho**2) ** 0.5 * (root @ random.normal(size=points))
    return states, places, covariance, rho
