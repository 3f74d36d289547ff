r"""A forecast ensemble as evidence of the first state: what the past says beyond the prior.

A prior of windows knows the climate of the first state, N(0, B) in units of its standard deviation, and an ensemble of
forecasts is a sample of :math:`p(x_0 | \mathrm{past}) = N(x^b, P)`. Both know the climate; as independent evidence it
would count twice. What the past adds is the likelihood

.. math:: p(\mathrm{past} | x_0) \propto \frac{p(x_0 | \mathrm{past})}{p(x_0)}, \qquad
          \Lambda = P^{-1} - B^{-1} .

In coordinates c of the state in which the prior has the covariance I, and P is diagonal with the ratios q, these are
independent observations of c with

.. math:: y = \frac{c^b}{1 - q}, \qquad e^2 = \frac{q}{1 - q},

in all directions in which the ensemble knows more than the climate does, q < 1. The posterior given them and nothing
else is that of the ensemble, N(x^b, P), however many directions the ensemble leaves to the climate.

P is a hybrid: a share of the localised covariance of the ensemble, and a rest whose shape is that of the climate and
whose size is the ensemble's, band by band of the modes of the prior. The likelihood of members that are left out
chooses the share and the length of the localisation (`sdaxr.posterior.hybrid`, and `sdaxr.posterior.modulation` of
large states).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sdaxr.posterior.covariance.modal import bands_of
from sdaxr.posterior.covariance.trajectory import lag_covariances
from sdaxr.posterior.covariance.unresolved import measure
from sdaxr.posterior.hybrid import mean_of_band, numbered, told_of_small
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.modulation import told_of_large
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.files import Prior
from sdaxr.prior.modes import Modes, cosines

# States of so many values have a covariance matrix.
_DENSE = 512
# Coefficients of normal numbers of unit size below this one are nothing but rounding.
_NOTHING = 1e-6
# Modes with less than this part of the mean variance do not vary, but for rounding and what a network adds: of a flow
# without divergence half of all modes. In units of their variance any error of them is large.
_VARIES = 1e-8
# White fields whose coordinates are computed at once.
_AT_ONCE = 64
# Number of EOFs that have one ratio.
_TOGETHER = 8
# Windows for each parameter with which its regression coefficients are no noise, and the least part of the variance of
# a value that the parameters leave.
_SAMPLES, _UNTOLD = 16, 0.05


@dataclass(frozen=True)
class Climate:
    """Coordinates of one normalised state in which the prior has the covariance I.

    Attributes
    ----------
    whiten
        States (batch, channel, *space) to coordinates (batch, n).
    bands
        The band of each coordinate, (n,): those of one band have one ratio of variances.
    white, coordinates
        ``whiten`` in two steps: states to white fields of the same shape, in which all scales vary alike, and these to
        coordinates. None where states are white fields themselves, or nothing is known of scales.
    """

    whiten: Callable[[Tensor], Tensor]
    bands: Tensor
    white: Callable[[Tensor], Tensor] | None = None
    coordinates: Callable[[Tensor], Tensor] | None = None

    def modulated(self, members: Tensor, factors: Tensor) -> Tensor:
        """Coordinates (member, k, n) of the white fields of states (member, ...) times factors (k, channel, *space)."""
        fields, coordinates = members, self.coordinates or self.whiten
        if self.white is not None:
            fields = self.white(members)
        return torch.stack([torch.cat([coordinates(part * f) for part in factors.split(_AT_ONCE)]) for f in fields])

    @classmethod
    def of(cls, prior: Prior, length: int, device: torch.device) -> Climate:
        """Those of the first of ``length`` states: modes; principal components of state vectors; or the values."""
        modes, states = prior.modes(device), torch.as_tensor(prior.examples, device=device)
        if isinstance(modes, Eofs):
            variances = cosines(length).to(device)[:, 0].square().float() @ modes.spectrum(length)[:, :-1]
            kept = variances > 0
            scale = variances[kept].rsqrt()
            bands = torch.arange(len(scale), device=device) // _TOGETHER

            def white(x: Tensor) -> Tensor:
                return modes.patterns(modes.coefficients(x) * variances.clamp_min(1e-30).rsqrt() * kept)

            return cls(
                lambda x: modes.coefficients(x)[:, kept] * scale, bands, white, lambda x: modes.coefficients(x)[:, kept]
            )
        if isinstance(modes, Modes):
            variances = modes.spectrum
            if modes.window is not None:
                variances = torch.einsum("f,f...->...", modes.cosines[:, 0].square(), variances)
            # Some waves are no waves: the sine of a constant.
            probe = torch.randn(1, *states.shape[2:], generator=torch.Generator().manual_seed(0)).to(device)
            kept = (modes(probe).flatten().abs() > _NOTHING) & (variances.flatten() > _VARIES * variances.mean())
            bands, scale = bands_of(modes)[..., None], variances.flatten()[kept].rsqrt()
            first = (int(bands.max()) + 1) * torch.arange(variances.shape[-1], device=device)
            return cls(
                lambda x: modes(x).flatten(1)[:, kept] * scale,
                numbered((bands + first).flatten()[kept]),
                lambda x: modes.inverse(modes(x) * variances.rsqrt()),
                lambda x: modes(x).flatten(1)[:, kept],
            )
        size = states[0, 0].numel()
        if size <= _DENSE and not prior.layout.space:
            root = torch.linalg.cholesky(lag_covariances(states, 0)[0])
            return cls(
                lambda x: torch.linalg.solve_triangular(root, x.flatten(1).double().T, upper=False).T.to(x.dtype),
                torch.zeros(size, dtype=torch.long, device=device),
            )
        # Each value by itself: nothing is known of what varies alike.
        if not prior.layout.parameters:
            return cls(lambda x: x.flatten(1), torch.arange(size, device=device))
        beside = Beside.of(states, list(prior.layout.parameter_channels.values()))
        return cls(beside, torch.arange(beside(states[:1, 0]).shape[1], device=device))


@dataclass(frozen=True)
class Beside:
    r"""Values of a state, each by itself, without what parameters tell of their level; and the parameters.

    .. math:: e = (x - b \theta) / \sqrt{1 - |b|^2}

    A parameter is one number, and b its regression coefficient of each channel.

    Attributes
    ----------
    moving, still
        Numbers of the channels of the states and of the parameters.
    slopes
        b, (moving channel, parameter).
    """

    moving: list[int]
    still: list[int]
    slopes: Tensor

    @classmethod
    def of(cls, states: Tensor, still: list[int]) -> Beside:
        """Measured on windows (sample, time, channel, *space) whose channels ``still`` are those of parameters."""
        moving = [c for c in range(states.shape[2]) if c not in still]
        means = states.transpose(1, 2).flatten(2).mean(2).double()
        slopes = torch.zeros(len(still), len(moving)).to(means)
        if len(means) >= _SAMPLES * len(still):
            slopes = torch.linalg.lstsq(means[:, still], means[:, moving]).solution
        return cls(moving, still, slopes.T.to(states))

    def __call__(self, x: Tensor) -> Tensor:
        values, constants = x[:, self.moving].flatten(2), x[:, self.still].flatten(2).mean(2)
        told = constants @ self.slopes.T
        rest = (1 - self.slopes.square().sum(1)).clamp_min(_UNTOLD).sqrt()
        return torch.cat([((values - told[..., None]) / rest[:, None]).flatten(1), constants], 1)


def background_observation(ensemble: Tensor, prior: Prior, length: int) -> GaussianObservation | None:
    """What an ensemble of the first state tells of a trajectory, as observations with independent errors.

    Parameters
    ----------
    ensemble
        Normalised states, (member, channel, *space), two or more, on the device of the computation.
    prior
        The prior of the trajectory.
    length
        Number of states of the trajectory.

    Returns
    -------
    GaussianObservation
        None where the ensemble knows no direction better than the climate.
    """
    climate, mean = Climate.of(prior, length, ensemble.device), ensemble.mean(0, keepdim=True)
    members, centre = ensemble - mean, climate.whiten(mean)[0]
    if members[0].numel() > _DENSE:
        told = told_of_large(
            climate.whiten(members), centre, partial(climate.modulated, members), climate.bands, prior.layout
        )
    else:
        values = torch.eye(members[0].numel()).to(members).unflatten(1, members.shape[1:])
        told = told_of_small(members.flatten(1), centre, climate.whiten(values), climate.bands, prior.layout)
    if told is None:
        return None

    def along(states: Tensor) -> Tensor:
        return told.along(climate.whiten(states))

    held_out = prior.held_out(ensemble.device)

    def error(denoised: Tensor) -> Tensor:
        square = along((denoised - held_out.states).flatten(0, 1)).square().mean(0)
        return square if told.bands is None else mean_of_band(square, told.bands)

    return GaussianObservation(
        operator=lambda x: along(x[:, 0]),
        values=told.values,
        errors=told.errors,
        scale=told.scale,
        unresolved=measure(held_out, error),
    )
