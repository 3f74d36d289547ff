"""A prior of white noise, for tests: it knows nothing of a state but its mean and its variance."""

from __future__ import annotations

import torch
import xarray as xr

from sdaxr.prior.files import Prior
from sdaxr.states.infer import infer_layout


class Unknowing(torch.nn.Module):
    """Denoises white noise of unit variance, and says what it was asked."""

    levels = (0.01, 100.0)
    modes = None

    def __init__(self) -> None:
        super().__init__()
        self.network, self.window = torch.nn.Module(), None
        self.asked: list[torch.Tensor] = []

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        self.asked.append(z)
        return z / (1 + r.reshape(-1, *[1] * (z.ndim - 1)) ** 2)


def white_prior(data: xr.Dataset, **options: str) -> Prior:
    """The prior of ``data``, with its times cut into windows of five; ``options`` are those of `infer_layout`."""
    layout = infer_layout(data, **options)
    states = layout.to_array(data).reshape(-1, 5, layout.channels, *layout.shape)
    about = {"window": 5, "name": "white", "network": {"name": "unknowing"}}
    return Prior(layout, Unknowing(), (states, layout.context_array(data.time)[None, :5]), about)
