"""Small trainings: a process whose denoiser is known, options that take seconds, and kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr.prior import checkpoint
from sdaxr.prior.files import Prior
from sdaxr.prior.training import train

TINY = {"width": 8, "blocks": 1, "kernel": 3}
QUICK: dict[str, Any] = {"window": 5, "steps": 6, "network": TINY, "progress": False}
BATCH = {"batch": 4, "validate_every": 2}


def trained(
    data: xr.Dataset | Path, store: Path, *, optimisation: dict[str, Any] | None = None, **options: Any
) -> Prior:
    """`train` with quick options in the place of the defaults."""
    return train(data, store, **{**QUICK, "optimisation": BATCH | (optimisation or {}), **options})


def autoregressive(number: int, steps: int, phi: float = 0.9, seed: int = 0) -> xr.Dataset:
    """Stationary AR(1) series of mean 3 and standard deviation 2, in physical units."""
    random = np.random.default_rng(seed)
    x = np.empty((number, steps))
    x[:, 0] = random.normal(size=number)
    for i in range(1, steps):
        x[:, i] = phi * x[:, i - 1] + np.sqrt(1 - phi**2) * random.normal(size=number)
    split = np.array(["train"] * (number - 2) + ["valid", "test"], dtype=object)
    coords = {"time": 0.5 * np.arange(steps), "split": ("trajectory", split)}
    return xr.Dataset({"a": (("trajectory", "time"), 3 + 2 * x, {"units": "m"})}, coords)


def weights(prior: Prior) -> dict[str, torch.Tensor]:
    return prior.network.state_dict()


def assert_same(one: Prior, other: Prior) -> None:
    assert all(torch.equal(w, weights(other)[k]) for k, w in weights(one).items())


class KilledError(Exception):
    """In the place of SIGKILL, right after a checkpoint."""


def killed_training(monkeypatch: pytest.MonkeyPatch, data: xr.Dataset, store: Path, after: int, **options: Any) -> None:
    calls = []

    def save_and_die(path: Path, run: object) -> None:
        original(path, run)
        calls.append(path)
        if len(calls) == after:
            raise KilledError

    original = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KilledError):
            trained(data, store, **options)
