"""An autoregressive series around an unknown constant: denoiser, posterior of both, a prior with a parameter."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr

from sdaxr.prior.constants import as_numbers
from sdaxr.prior.files import Prior
from sdaxr.states.coordinates import Coordinate
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import TimeAxis

MEAN, DEVIATION = {"x": 5.0, "forcing": 8.0}, {"x": 2.0, "forcing": 0.5}


class OffsetSeries:
    r"""Series x around c theta, in units of their standard deviations, at each of some sites by itself.

    .. math:: x_i = c \theta + \sqrt{1 - c^2} \eta_i, \qquad \eta_{i+1} = a \eta_i + \sqrt{1 - a^2} N(0, 1),
              \qquad \theta \sim N(0, 1)

    Parameters
    ----------
    length
        Number of states.
    sites
        Number of sites; None for state vectors, without space.
    damping, coupling
        a and c.
    """

    def __init__(self, length: int, sites: int | None = None, damping: float = 0.8, coupling: float = 0.6) -> None:
        self.length, self.sites, self.damping, self.coupling = length, sites, damping, coupling
        points = sites or 1
        lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
        own = np.kron((1 - coupling**2) * damping**lags, np.eye(points))
        # Coefficients of the numbers that are drawn, of each value in the order (time, channel, site).
        self.noise, self.size = own, length * points
        both = np.block(
            [
                [own + coupling**2, np.full((self.size, self.size), coupling)],
                [np.full((self.size, self.size), coupling), np.ones((self.size, self.size))],
            ]
        )
        order = np.arange(2 * self.size).reshape(2, length, points).transpose(1, 0, 2).ravel()
        self.covariance = both[np.ix_(order, order)]
        values, self.vectors = np.linalg.eigh(self.covariance)
        self.values = values.clip(min=0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a trajectory, (time, channel, [site])."""
        return (self.length, 2) if self.sites is None else (self.length, 2, self.sites)

    @property
    def joint(self) -> np.ndarray:
        """Covariance of the normalised x and of theta, which is last, (time points + 1, time points + 1)."""
        one = np.full((self.size, 1), self.coupling)
        return np.block([[self.noise + self.coupling**2, one], [one.T, np.ones((1, 1))]])

    def denoise(self, z: torch.Tensor, r: float | torch.Tensor) -> torch.Tensor:
        """E[x | z] = C (C + r^2 I)^-1 z, for z (batch, *shape)."""
        vectors, values = (torch.as_tensor(a, dtype=z.dtype) for a in (self.vectors, self.values))
        level = torch.as_tensor(r, dtype=z.dtype).reshape(-1, 1)
        return ((z.flatten(1) @ vectors) * (values / (values + level**2)) @ vectors.T).reshape(z.shape)

    def draw(self, number: int, seed: int) -> np.ndarray:
        """Normalised trajectories, (number, *shape)."""
        random = np.random.default_rng(seed)
        theta = random.normal(size=(number, 1))
        x = self.coupling * theta + random.normal(size=(number, self.size)) @ np.linalg.cholesky(self.noise).T
        both = np.stack([x, np.broadcast_to(theta, x.shape)], 1)
        return both.reshape(number, 2, self.length, -1).swapaxes(1, 2).reshape(number, *self.shape)

    def posterior(
        self, rows: np.ndarray, y: np.ndarray, error: np.ndarray | float, known: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (time points + 1,) and covariance of the normalised x, and theta last.

        Parameters
        ----------
        rows
            Numbers of the values of x, counted over (time, site), that are observed.
        y, error
            Observations and their errors, normalised.
        known
            Value and error of an observation of theta.
        """
        covariance = self.joint
        h = np.eye(self.size + 1)[rows if known is None else [*rows, self.size]]
        y = y if known is None else np.append(y, known[0])
        e = np.broadcast_to(error, len(rows))
        e = e if known is None else np.append(e, known[1])
        gain = np.linalg.solve(h @ covariance @ h.T + np.diag(e**2), h @ covariance).T
        return gain @ y, covariance - gain @ h @ covariance

    def layout(self) -> StateLayout:
        """In physical units: m for x, and N for the forcing."""
        attrs = {"x": {"units": "m", "long_name": "height"}, "forcing": {"units": "N", "long_name": "forcing"}}
        ones = (2, 1) if self.sites else (2,)
        mean, std = (np.array([each["x"], each["forcing"]]).reshape(ones) for each in (MEAN, DEVIATION))
        space = ("site",) if self.sites else ()
        coords = {"site": Coordinate(np.arange(float(self.sites or 0)), {"units": "1"})} if self.sites else {}
        sizes = {"site": self.sites} if self.sites else {}
        time = TimeAxis("float", 0.5, "1")
        return StateLayout(
            ("x", "forcing"), attrs, (), None, space, coords, sizes, time, mean, std, parameters=("forcing",)
        )

    def prior(self, samples: int = 64, *, shared: bool = False) -> Prior:
        """A prior with the exact network, with independent noise in the channel of theta, or shared noise."""
        context = np.ones((1, self.length, 2, self.sites) if self.sites else (1, self.length, 1), np.float32)
        about = {"window": self.length, "name": "offset", "network": {"name": "exact"}}
        network = SharedNetwork(self) if shared else ExactNetwork(self)
        return Prior(self.layout(), network, (self.draw(samples, 0).astype(np.float32), context), about)

    def trajectories(self, number: int, seed: int) -> xr.Dataset:
        """Trajectories in physical units: x (trajectory, time, [site]), forcing (trajectory)."""
        states, layout = self.draw(number, seed), self.layout()
        time = layout.times(0.0, self.length)
        template = layout.template(time, {"trajectory": np.arange(number)})
        fields = layout.to_physical(states, time)
        return template.assign({v: (template[v].dims, fields[v], template[v].attrs) for v in fields})

    def normalised(self, data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Normalised x (member, time points) and theta (member,)."""
        x, theta = ((data[v] - MEAN[v]) / DEVIATION[v] for v in ("x", "forcing"))
        return x.transpose("member", "time", ...).values.reshape(len(theta), -1), theta.values


class ExactNetwork(torch.nn.Module):
    """The exact denoiser in the place of a `DenoisingNetwork`, for any number of states."""

    levels = (5e-3, 100.0)
    modes = None

    def __init__(self, series: OffsetSeries) -> None:
        super().__init__()
        self.network, self.window = SimpleNamespace(), None
        self._known = {series.length: series}
        self._like = series

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        length, like = z.shape[1], self._like
        if length not in self._known:
            self._known[length] = OffsetSeries(length, like.sites, like.damping, like.coupling)
        return self._known[length].denoise(z, r)


class SharedNetwork(ExactNetwork):
    """The exact denoiser of states and a single number, the first value of its channel (`sdaxr.prior.constants`)."""

    constants = (1,)

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        length, like = z.shape[1], self._like
        if length not in self._known:
            self._known[length] = OffsetSeries(length, like.sites, like.damping, like.coupling)
        series, level = self._known[length], torch.as_tensor(r, dtype=z.dtype).reshape(-1, 1)
        values, vectors = (torch.as_tensor(a, dtype=z.dtype) for a in np.linalg.eigh(series.joint))
        z = as_numbers(z, self.constants)
        both = torch.cat([z[:, :, 0].flatten(1), z[:, :1, 1].flatten(1)[:, :1]], 1)
        both = (both @ vectors) * (values / (values + level**2)) @ vectors.T
        x, theta = both[:, :-1].reshape(z[:, :, 0].shape), both[:, -1].reshape(-1, *[1] * (z.ndim - 2))
        return torch.stack([x, theta.expand_as(x)], dim=2)
