"""A Gaussian field on a ring, correlated in time, with what a prior of it knows in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sdaxr.posterior.modal import ModalCovariance
from sdaxr.prior.held_out import HeldOut
from sdaxr.prior.modes import Modes
from sdaxr.prior.preconditioning import DenoisingNetwork

LEVELS = (0.02, 50.0)
POINTS, TIMES, PHI = 12, 8, 0.8
WAVES = np.fft.fftfreq(POINTS, 1 / POINTS)
VARIANCES = 1 / (0.1 + WAVES**2)
VARIANCES = VARIANCES / VARIANCES.mean()
FOURIER = np.fft.fft(np.eye(POINTS), norm="ortho")
SPACE = (FOURIER.conj().T @ np.diag(VARIANCES) @ FOURIER).real
LAGS = np.abs(np.subtract.outer(np.arange(TIMES), np.arange(TIMES)))


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def windows(count: int, phi: float, seed: int) -> np.ndarray:
    """A field on a ring, correlated in time as phi^|lag|: (count, TIMES, 1, POINTS)."""
    roots = np.linalg.cholesky(phi**LAGS), np.linalg.cholesky(SPACE + 1e-9 * np.eye(POINTS))
    white = np.random.default_rng(seed).normal(size=(count, TIMES, POINTS))
    return np.einsum("st,ntx,yx->nsy", roots[0], white, roots[1])[:, :, None].astype(np.float32)


def prior(phi: float) -> tuple[DenoisingNetwork, ModalCovariance]:
    """The filter of each state by itself, which is all there is to know for phi = 0."""
    modes = Modes(1, (POINTS,), (True,))
    modes.measure([torch.as_tensor(windows(4000, phi, 0))])
    network = DenoisingNetwork(Nothing(), "spectral", LEVELS, modes)
    context = torch.ones(1, TIMES, 1, POINTS)

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return network(z, torch.full((len(z),), r), context)

    held_out = HeldOut.of(denoise, torch.as_tensor(windows(2000, phi, 1)), LEVELS)
    return network, ModalCovariance.measure(modes, held_out)


def dense(covariance: ModalCovariance, r: float) -> np.ndarray:
    size = TIMES * POINTS
    # One more state that is not zero anywhere, so that every row is returned.
    basis = torch.eye(size).reshape(size, TIMES, 1, POINTS)
    return covariance.given(basis, r).reshape(size, size).numpy()
