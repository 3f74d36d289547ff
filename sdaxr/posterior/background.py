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

P is a hybrid (Hamill & Snyder 2000, doi:10.1175/1520-0493(2000)128<2905:AHEKFV>2.0.CO;2): a share of the localised
covariance of the ensemble (Houtekamer & Mitchell 2001, doi:10.1175/1520-0493(2001)129<0123:ASEKFF>2.0.CO;2), and a rest
whose shape is that of the climate and whose size is the ensemble's, band by band of the modes of the prior. Share and
taper are those of the largest likelihood of members that were left out. Of large states, whose covariance is no matrix
in memory, P is the second part alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.covariance.modal import bands_of
from sdaxr.posterior.covariance.trajectory import lag_covariances
from sdaxr.posterior.covariance.unresolved import measure
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.files import Prior
from sdaxr.prior.modes import Modes, cosines
from sdaxr.states.fields import StateLayout
from sdaxr.states.geometry import channel_positions

# States of so many values have a covariance matrix.
_DENSE = 512
# Directions in which the ensemble has a larger part of the climate's variance tell next to nothing.
_KNOWN = 0.98
# No direction is known better than to this part of the climate's variance: members may agree by chance.
_LEAST = 1e-4
# Shares of the ensemble's own covariance, tapers in units of the largest distance, and groups of members that are left
# out to choose among them.
_SHARES, _TAPERS, _GROUPS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0), (0.06, 0.1, 0.17, 0.3, math.inf), 8
# Coefficients of normal numbers of unit size below this one are nothing but rounding.
_NOTHING = 1e-6
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
    """

    whiten: Callable[[Tensor], Tensor]
    bands: Tensor

    @classmethod
    def of(cls, prior: Prior, length: int, device: torch.device) -> Climate:
        """Those of the first of ``length`` states: modes; principal components of state vectors; or the values."""
        modes, states = prior.modes(device), torch.as_tensor(prior.examples, device=device)
        if isinstance(modes, Eofs):
            variances = cosines(length).to(device)[:, 0].square().float() @ modes.spectrum(length)[:, :-1]
            kept = variances > 0
            scale = variances[kept].rsqrt()
            bands = torch.arange(len(scale), device=device) // _TOGETHER
            return cls(lambda x: modes.coefficients(x)[:, kept] * scale, bands)
        if isinstance(modes, Modes):
            variances = modes.spectrum
            if modes.window is not None:
                variances = torch.einsum("f,f...->...", modes.cosines[:, 0].square(), variances)
            # Some waves are no waves: the sine of a constant.
            probe = torch.randn(1, *states.shape[2:], generator=torch.Generator().manual_seed(0)).to(device)
            kept = modes(probe).flatten().abs() > _NOTHING
            bands, scale = bands_of(modes)[..., None], variances.flatten()[kept].rsqrt()
            first = (int(bands.max()) + 1) * torch.arange(variances.shape[-1], device=device)
            return cls(lambda x: modes(x).flatten(1)[:, kept] * scale, _numbered((bands + first).flatten()[kept]))
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
    ratio, directions = _directions(ensemble - mean, climate, prior.layout)
    # The mean of the members has an error of its own.
    ratio = (ratio * (1 + 1 / len(ensemble))).clamp_min(_LEAST).to(ensemble)
    known = ratio < _KNOWN
    if not bool(known.any()):
        return None
    ratio = ratio[known]

    def along(states: Tensor) -> Tensor:
        found = climate.whiten(states)
        return (found if directions is None else found @ directions.to(found))[:, known]

    held_out = prior.held_out(ensemble.device)
    bands = None if directions is not None else _numbered(climate.bands[known])

    def error(denoised: Tensor) -> Tensor:
        square = along((denoised - held_out.states).flatten(0, 1)).square().mean(0)
        return square if bands is None else _mean_of_band(square, bands)

    return GaussianObservation(
        operator=lambda x: along(x[:, 0]),
        values=along(mean)[0] / (1 - ratio),
        errors=(ratio / (1 - ratio)).sqrt(),
        scale=torch.ones_like(ratio),
        unresolved=measure(held_out, error),
    )


def _directions(members: Tensor, climate: Climate, layout: StateLayout) -> tuple[Tensor, Tensor | None]:
    """Ratios q of the ensemble's variance, and their directions as columns; None where these are the coordinates."""
    values = members[0].numel()
    if values > _DENSE:
        return _by_band(climate.whiten(members), climate.bands), None
    matrix = climate.whiten(torch.eye(values).to(members).reshape(values, *members.shape[1:])).double()
    hybrids = [Hybrid(matrix, climate.bands, taper.to(members.device)) for taper in _tapers(layout)]
    members = members.flatten(1).double()
    scored = [(hybrid.likelihoods(members), hybrid) for hybrid in hybrids]
    scores, best = max(scored, key=lambda each: max(each[0]))
    ratios, directions = torch.linalg.eigh(best(members, _SHARES[scores.index(max(scores))]))
    return ratios, directions


@dataclass(frozen=True)
class Hybrid:
    """A share of the tapered covariance of an ensemble, and a rest that is diagonal in the coordinates of the climate.

    Attributes
    ----------
    matrix
        Coordinates of unit values of a state, (value, n).
    bands
        See `Climate`.
    taper
        Factors of the covariances between the values of a state, (value, value).
    """

    matrix: Tensor
    bands: Tensor
    taper: Tensor

    def __call__(self, members: Tensor, share: float) -> Tensor:
        """The covariance, (n, n), of deviations from the mean (member, value)."""
        own, rest = self.parts(members)
        return share * own + (1 - share) * rest

    def parts(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts, each of the whole size."""
        sample = self.taper * (members.T @ members) / (len(members) - 1)
        return self.matrix.T @ sample @ self.matrix, torch.diag(_by_band(members @ self.matrix, self.bands))

    def likelihoods(self, members: Tensor) -> list[float]:
        """Logarithms of the likelihood of members that are left out, group by group, for each of `_SHARES`."""
        found = [0.0] * len(_SHARES)
        for group in torch.arange(len(members)).chunk(min(_GROUPS, len(members))):
            kept = torch.ones(len(members), dtype=torch.bool)
            kept[group] = False
            if kept.sum() < 2:
                continue
            mean = members[kept].mean(0)
            own, rest = self.parts(members[kept] - mean)
            away = ((members[group] - mean) @ self.matrix).T
            for number, share in enumerate(_SHARES):
                matrix = (1 + 1 / int(kept.sum())) * (share * own + (1 - share) * rest)
                root, failed = torch.linalg.cholesky_ex(matrix)
                white = torch.linalg.solve_triangular(root, away, upper=False)
                score = -0.5 * float(white.square().sum()) - len(group) * float(root.diagonal().log().sum())
                found[number] += -math.inf if int(failed) or not math.isfinite(score) else score
        return found


def _tapers(layout: StateLayout) -> list[Tensor]:
    """Factors by the distance of two points, for all channels: of each length of `_TAPERS`."""
    places = torch.as_tensor(channel_positions(layout)[0])
    distance = torch.cdist(places, places)
    if not layout.space:
        return [torch.ones_like(distance)]
    return [torch.exp(-0.5 * (distance / (length * distance.max())).square()) for length in _TAPERS]


def _by_band(members: Tensor, bands: Tensor) -> Tensor:
    """The variance of deviations (member, n), the same for all of a band."""
    return _mean_of_band(members.square().sum(0) / (len(members) - 1), bands)


def _mean_of_band(values: Tensor, bands: Tensor) -> Tensor:
    total = torch.zeros(int(bands.max()) + 1).to(values)
    mean: Tensor = total.index_add(0, bands, values) / total.index_add(0, bands, torch.ones_like(values))
    return mean[bands]


def _numbered(bands: Tensor) -> Tensor:
    """The same bands with numbers from 0 on."""
    numbers: Tensor = bands.unique(return_inverse=True)[1]
    return numbers
