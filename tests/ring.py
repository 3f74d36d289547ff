"""A Gaussian field on a ring, correlated in time, with what a prior of it knows in closed form."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import nn

from sdaxr.posterior.covariance.modal import ModalCovariance, WindowCovariance
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
ANGLES = np.pi * np.outer(np.arange(TIMES), np.arange(TIMES) + 0.5) / TIMES
COSINES = np.cos(ANGLES) * np.sqrt(np.where(np.arange(TIMES) == 0, 1, 2) / TIMES)[:, None]
SLOW = COSINES.T @ np.diag(TIMES / 2.0 ** np.arange(TIMES)) @ COSINES
LAGS = np.abs(np.subtract.outer(np.arange(TIMES), np.arange(TIMES)))


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def windows(count: int, phi: float, seed: int) -> np.ndarray:
    """A field on a ring, correlated in time as phi^|lag|: (count, TIMES, 1, POINTS)."""
    roots = np.linalg.cholesky(phi**LAGS), np.linalg.cholesky(SPACE + 1e-9 * np.eye(POINTS))
    white = np.random.default_rng(seed).normal(size=(count, TIMES, POINTS))
    return np.einsum("st,ntx,yx->nsy", roots[0], white, roots[1])[:, :, None].astype(np.float32)


def smooth(count: int, seed: int) -> np.ndarray:
    """A field on a ring whose modes in time are cosines, the quick ones small: (count, TIMES, 1, POINTS)."""
    root = np.linalg.cholesky(np.kron(SLOW, SPACE) + 1e-9 * np.eye(TIMES * POINTS))
    white = np.random.default_rng(seed).normal(size=(count, TIMES * POINTS))
    return (white @ root.T).reshape(count, TIMES, 1, POINTS).astype(np.float32)


@functools.cache
def prior_of_windows(scale: float = 1.0) -> tuple[DenoisingNetwork, ModalCovariance]:
    """The smoother of `smooth`, which is all there is to know; held-out windows are ``scale`` times as large."""
    modes = Modes(1, (POINTS,), (True,), TIMES)
    modes.measure([torch.as_tensor(smooth(20000, 0))])
    return _measured(DenoisingNetwork(Nothing(), "space-time", LEVELS, modes), scale * smooth(2000, 1))


@functools.cache
def prior(phi: float, scale: float = 1.0) -> tuple[DenoisingNetwork, ModalCovariance]:
    """The filter of each state by itself, which is all there is to know for phi = 0; held-out windows as above."""
    modes = Modes(1, (POINTS,), (True,))
    modes.measure([torch.as_tensor(windows(4000, phi, 0))])
    return _measured(DenoisingNetwork(Nothing(), "spectral", LEVELS, modes), scale * windows(2000, phi, 1))


def smoothed(phi: float, scale: float) -> ModalCovariance:
    """Of the exact denoiser of ``windows``, with held-out windows that are ``scale`` times as large."""
    modes = Modes(1, (POINTS,), (True,))
    modes.measure([torch.as_tensor(windows(4000, phi, 0))])
    covariance = np.kron(phi**LAGS, SPACE)

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        gain = torch.as_tensor(np.linalg.solve(covariance + r**2 * np.eye(TIMES * POINTS), covariance)).float()
        return (z.flatten(1) @ gain).reshape(z.shape)

    return ModalCovariance.measure(modes, HeldOut.of(denoise, torch.as_tensor(scale * windows(2000, phi, 1)), LEVELS))


def _measured(network: DenoisingNetwork, states: np.ndarray) -> tuple[DenoisingNetwork, ModalCovariance]:
    context = torch.ones(1, TIMES, 1, POINTS)

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return network(z, torch.full((len(z),), r), context)

    held_out = HeldOut.of(denoise, torch.as_tensor(states), LEVELS)
    assert network.modes is not None
    kind = ModalCovariance if network.modes.window is None else WindowCovariance
    return network, kind.measure(network.modes, held_out)


def dense(covariance: ModalCovariance, r: float) -> np.ndarray:
    size = TIMES * POINTS
    # One more state that is not zero anywhere, so that every row is returned.
    basis = torch.eye(size).reshape(size, TIMES, 1, POINTS)
    return covariance.product(basis, r).reshape(size, size).numpy()
