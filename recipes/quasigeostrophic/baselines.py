"""Interpolation of what is observed, and then the inverse of the operator: what needs no prior."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from setting import OPERATORS, POTENTIAL_VORTICITY, VELOCITY

from sdaxr.systems.quasigeostrophic import QuasiGeostrophic
from sdaxr.verification import baselines


def interpolation(networks: Mapping[str, xr.Dataset], truth: xr.Dataset) -> xr.Dataset | None:
    """Potential vorticity of one network, linear in time and space between what is observed; None for several.

    Where an operator has several inverses, it is the one nearest to zero.
    """
    if len(networks) > 1:
        return None
    ((name, seen),) = networks.items()
    # Without the name of its operator, which says that this is not the state.
    filled = baselines.interpolate(seen.drop_attrs(deep=False), OPERATORS[name].apply(truth))
    if name == "velocity":
        return truth.assign(q=(truth.q.dims, _potential_vorticity(filled), truth.q.attrs))
    y = filled.q.transpose(*truth.q.dims).values
    q = np.tan(y.clip(-1.45, 1.45)) / 3 if name == "arctan" else np.arcsin((y / 1.5).clip(-1, 1)) / 3
    return truth.assign(q=(truth.q.dims, q * _column(POTENTIAL_VORTICITY["q"]), truth.q.attrs))


def _potential_vorticity(filled: xr.Dataset) -> np.ndarray:
    """q of standardised velocities: their vorticity, and the stretching of its streamfunction."""
    model = QuasiGeostrophic()
    dims = ("time", "layer", "y", "x")
    u, v = (np.fft.fft2(filled[n].transpose(*dims).values * _column(VELOCITY[n])) for n in ("u", "v"))
    k = 2 * np.pi * np.fft.fftfreq(u.shape[-1], model.length / u.shape[-1])
    square = k[:, None] ** 2 + k**2
    vorticity = 1j * (k * v - k[:, None] * u)
    psi = np.divide(-vorticity, square, out=np.zeros_like(vorticity), where=square > 0)
    upper = model.rd**-2 / (1 + model.delta)
    difference = psi[:, 1] - psi[:, 0]
    stretching = np.stack([upper * difference, -model.delta * upper * difference], axis=1)
    return np.fft.ifft2(vorticity + stretching).real


def _column(numbers: list[float]) -> np.ndarray:
    return np.array(numbers)[:, None, None]
