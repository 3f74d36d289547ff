"""Potential vorticity in two layers, and what PyQG-JAX makes of it."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr
from pyqg_jax import qg_model, state

from sdaxr.systems.quasigeostrophic import QuasiGeostrophic

CELLS, SIDE = 32, 1e6
RD, DELTA = 15e3, 0.25


def labelled(q: np.ndarray, system: QuasiGeostrophic | None = None) -> xr.Dataset:
    """Potential vorticity (layer, y, x) with the labels of the model."""
    template = (system or QuasiGeostrophic(resolution=q.shape[-1], coarsen=1)).template()
    return template.assign(q=template.q.copy(data=q))


def turbulence(seed: int = 0) -> np.ndarray:
    """Random potential vorticity of the model's size, without a mean."""
    noise = np.random.default_rng(seed).standard_normal((2, CELLS, CELLS))
    return 1e-5 * (noise - noise.mean((1, 2), keepdims=True))


def reference(q: np.ndarray, **options) -> dict[str, np.ndarray]:
    """Streamfunction, velocities and tendency by PyQG-JAX, in double precision."""
    with jax.enable_x64(True):
        model = qg_model.QGModel(nx=q.shape[-1], precision=state.Precision.DOUBLE, **options)
        full = model.get_full_state(model.create_initial_state(jax.random.key(0)).update(q=q))
        return {name: np.asarray(getattr(full, name)) for name in ("p", "u", "v", "dqdt")}


def wave(kx: int, ky: int) -> tuple[np.ndarray, float]:
    """cos(kx x + ky y) on the grid, wavenumbers in waves per side, and its total wavenumber squared."""
    at = (np.arange(CELLS) + 0.5) / CELLS * 2 * np.pi
    return np.cos(kx * at + ky * at[:, None]), (kx**2 + ky**2) * (2 * np.pi / SIDE) ** 2
