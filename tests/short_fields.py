"""Gaussian fields of short range, whose exact denoiser is known on any domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr


@dataclass(frozen=True)
class ShortFields:
    """Fields with the covariance exp(-(|dy| + |dx|) / scale), independent from one time to the next.

    Attributes
    ----------
    size
        Points along each side.
    scale
        Range of the correlation, in points.
    periodic
        Whether the sides are joined.
    """

    size: int
    scale: float = 2.0
    periodic: bool = True

    @property
    def along(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Variances (n,) and modes (n, n) along one side; the covariance is the product of two sides."""
        apart = np.abs(np.subtract.outer(np.arange(self.size), np.arange(self.size)))
        apart = np.minimum(apart, self.size - apart) if self.periodic else apart
        variances, modes = np.linalg.eigh(np.exp(-apart / self.scale))
        return torch.as_tensor(variances.clip(0)), torch.as_tensor(modes)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the points of a field, row by row."""
        variances, modes = (a.numpy() for a in self.along)
        side = (modes * variances) @ modes.T
        return np.kron(side, side)

    def draw(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Fields (*shape, y, x) of variance 1."""
        variances, modes = self.along
        noise = torch.as_tensor(np.random.default_rng(seed).normal(size=(*shape, self.size, self.size)))
        root = modes * variances.sqrt()
        return root @ noise @ root.T

    def denoise(self, z: torch.Tensor, r: float) -> torch.Tensor:
        """E[x | z] of fields (..., y, x)."""
        variances, modes = (a.to(z) for a in self.along)
        product = variances[:, None] * variances
        return modes @ (product / (product + r**2) * (modes.T @ z @ modes)) @ modes.T

    def dataset(self, fields: torch.Tensor) -> xr.Dataset:
        """Fields (time, y, x) with labels; the mean is 5 K, the standard deviation 2 K."""
        place = np.arange(self.size) + 0.5
        attrs = {"units": "km"} | ({"period": float(self.size)} if self.periodic else {})
        coords = {"time": np.arange(len(fields)) * 1.0} | {d: (d, place, attrs) for d in ("y", "x")}
        values = (5 + 2 * fields.numpy()).astype(np.float32)
        return xr.Dataset({"a": (("time", "y", "x"), values, {"units": "K"})}, coords)


class ExactPatches(torch.nn.Module):
    """The exact denoiser of a patch, in the place of a network."""

    window = None
    reach = 0

    def __init__(self, fields: ShortFields) -> None:
        super().__init__()
        self.fields = fields
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        assert context.shape[-2:] == z.shape[-2:]
        self.shapes.append(tuple(z.shape))
        return self.fields.denoise(z, float(r[0]))
