"""The observation operator at the observed points, for normalised trajectories of a prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.operators import Operator, Template, compose
from sdaxr.operators.base import Bound, steps_of
from sdaxr.operators.measurements import Measurements
from sdaxr.operators.sea import SeaPart
from sdaxr.prior.files import Prior
from sdaxr.schema import TIME, OperatorError
from sdaxr.states.time import nearest_times

PLACES = 2**15
"""Most measurements over whose places moments are taken; the standard error of a variance is then below a percent."""

_OF_ALL_TIMES = 64


@dataclass(frozen=True)
class Projection:
    """H of normalised trajectories at the observed points: (batch, time, channel, *space) to (batch, n).

    Attributes
    ----------
    prior, times
        The prior, and the times of the trajectories.
    bound
        H, bound to the labels of the trajectories.
    where
        The flat indices of the observed points in the output of H, by variable.
    device
        Device of the computation.
    sea
        H over the sea part of coastal cells, where the prior has land and H is an interpolation or an average.
    sparse
        H at some of the places, over which means are taken where there are very many places.
    """

    prior: Prior
    times: xr.DataArray
    bound: Bound
    where: Mapping[str, np.ndarray]
    device: torch.device
    sea: SeaPart | None = None
    sparse: Projection | None = None

    def __post_init__(self) -> None:
        index = {name: torch.as_tensor(i, device=self.device) for name, i in self.where.items()}
        object.__setattr__(self, "_index", index)

    @classmethod
    def of(
        cls,
        operator: Operator,
        bound: Bound,
        prior: Prior,
        times: xr.DataArray,
        where: Mapping[str, np.ndarray],
        device: torch.device,
    ) -> Projection:
        """``operator``, bound as ``bound``, for trajectories of ``prior`` on ``times``."""
        fewer = thinned(operator)
        template = Template.from_dataset(prior.layout.template(times))
        sparse = None if fewer is None else cls.of(fewer, fewer.bind(template), prior, times, {}, device)
        found = cls(prior, times, bound, where, device, sparse=sparse)
        if prior.layout.mask is None:
            return found
        blank = torch.zeros(1, times.size, prior.layout.channels, *prior.layout.shape, device=device)
        at_sea = {name: v.isfinite() for name, v in found.physical(found.off_land(blank)).items()}
        return replace(found, sea=SeaPart.of(operator, bound, at_sea))

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(len(i) for i in self.where.values())

    @property
    def groups(self) -> Tensor:
        """Group of each observation, integers from 0 on, (n,); one group for each variable, time and layer."""
        found, first = [], 0
        for name, index in self.where.items():
            dims = self.bound.template.variables[name].dims
            sizes = [self.bound.template.sizes[d] for d in dims]
            kept = [d in (TIME, self.prior.layout.layer) for d in dims]
            places = np.unravel_index(index, sizes) if dims else []
            parts = [p for p, keep in zip(places, kept, strict=True) if keep]
            widths = [n for n, keep in zip(sizes, kept, strict=True) if keep]
            number = np.ravel_multi_index(parts, widths) if parts else np.zeros_like(index)
            found.append(first + number)
            first += int(np.prod(widths, dtype=int))
        _, group = np.unique(np.concatenate(found), return_inverse=True)
        return torch.as_tensor(group, device=self.device)

    def __call__(self, x: Tensor) -> Tensor:
        return self.flat(self.fields(x))

    def physical(self, x: Tensor) -> dict[str, Tensor]:
        """Physical fields of normalised trajectories: {variable: (batch, time, [layer], *space)}."""
        known: dict[torch.dtype, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_tensors", {})
        if x.dtype not in known:
            moments = self.prior.layout.moments(self.times)
            mean, std = (torch.as_tensor(a, dtype=x.dtype, device=x.device) for a in moments)
            known[x.dtype] = mean, std
        return self.prior.layout.to_fields(x, known[x.dtype])

    def fields(self, x: Tensor) -> dict[str, Tensor]:
        """H of normalised trajectories at all points: {variable: (batch, *dims)}."""
        physical = self.physical(x)
        return self.bound(physical) if self.sea is None else self.sea(physical)

    def sea_fields(self, x: Tensor) -> dict[str, Tensor]:
        """H of normalised trajectories at all points (or `sparse` ones), NaN on land: {variable: (batch, *dims)}."""
        if self.sparse is not None:
            return self.sparse.sea_fields(x)
        template = self.bound.template
        places = sum(math.prod(template.shape(name)) for name in template.variables)
        # Of many places a few trajectories at once: what is gathered for them then stays in the processor's cache.
        parts = [self._sea_fields(part) for part in x.split(max(1, PLACES // max(1, places)))]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _sea_fields(self, x: Tensor) -> dict[str, Tensor]:
        if self.sea is None:
            return self.fields(self.off_land(x))
        land = self.sea.on_land()
        return {name: value.masked_fill(land[name], torch.nan) for name, value in self.fields(x).items()}

    def flat(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The observed points of fields: (batch, n)."""
        index: Mapping[str, Tensor] = self._index  # type: ignore[attr-defined]
        return torch.cat([fields[name].reshape(len(fields[name]), -1)[:, i] for name, i in index.items()], dim=1)

    def pooled(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Mean of each variable and layer over members, times and places, given at each observed point: (n,).

        Where the prior has a climatology, the mean is that of each time over members and places, and the mean over all
        times with the weight of 64 values: a single station has few values at a time.
        """
        shape, found = self.bound.template.shape, {}
        for name, values in fields.items():
            mean = self.mean(name, values)
            if self.prior.layout.climatology is not None:
                mean = self._of_each_time(name, values, mean)
            found[name] = mean.expand(1, *shape(name))
        return self.flat(found)[0]

    def mean(self, name: str, values: Tensor) -> Tensor:
        """Mean over all dimensions except the layers, with these dimensions kept; NaN (land) is left out."""
        mean = values.nanmean(dim=self._over(name), keepdim=True)
        return mean.nan_to_num(0.0, posinf=torch.inf, neginf=-torch.inf)

    def _over(self, name: str, *kept: str) -> list[int]:
        """Numbers of the dimensions of (member, *dims) except the layers and ``kept``."""
        dims = self.bound.template.variables[name].dims
        return [0, *(i + 1 for i, d in enumerate(dims) if d not in (self.prior.layout.layer, *kept))]

    def _of_each_time(self, name: str, values: Tensor, mean: Tensor) -> Tensor:
        """Mean of the values at the step of each point; values of `sparse` places where there are some."""
        source = self if self.sparse is None else self.sparse
        (dim, steps), (_, own) = source._steps(name), self._steps(name)
        if dim is None:
            return mean
        axis, over = self.bound.template.variables[name].dims.index(dim) + 1, self._over(name, dim)
        parts = [a.to(values).sum(over, keepdim=True) for a in (values.nan_to_num(0.0, 0.0, 0.0), values.isfinite())]
        blank = parts[0].new_zeros(*parts[0].shape[:axis], self.times.size, *parts[0].shape[axis + 1 :])
        total, count = (blank.index_add(axis, steps, part) for part in parts)
        table = (total + _OF_ALL_TIMES * mean) / (count + _OF_ALL_TIMES)
        return table.index_select(axis, own)

    def _steps(self, name: str) -> tuple[str | None, Tensor]:
        """The dimension of a variable along which time runs, None without one, and the nearest step of each point."""
        template = self.bound.template
        coordinate = template.coords.get(TIME)
        dims = () if coordinate is None else coordinate.dims or (TIME,)
        if len(dims) != 1 or dims[0] not in template.variables[name].dims or coordinate is None:
            return None, torch.zeros(0)
        steps, _ = nearest_times(coordinate.values, self.times.values)
        return dims[0], torch.as_tensor(steps, device=self.device)

    def redundancy(self, name: str, errors: Tensor, window: int) -> float:
        """Largest eigenvalue of the correlation matrix of ``errors`` between the observed times of a window.

        Guidance treats the observed quantities as independent given z. Where the errors of the denoised state are
        correlated in time, the variances have to be larger by this factor; otherwise guidance counts the same
        information several times, and sampling diverges. The eigenvalue is divided by the largest eigenvalue that
        independent errors have by chance, the upper edge of the distribution of Marchenko & Pastur (1967,
        doi:10.1070/SM1967v001n04ABEH001994). The factor is at least 1.
        """
        dims = self.bound.template.variables[name].dims
        if TIME not in dims or name not in self.where:
            return 1.0
        sizes = [self.bound.template.sizes[d] for d in dims]
        times = np.unique(np.unravel_index(self.where[name], sizes)[dims.index(TIME)])
        times = times[times < window]
        if times.size < 2:
            return 1.0
        series = errors.movedim(dims.index(TIME) + 1, -1)[..., times].flatten(0, -2)
        series = series[series.isfinite().all(dim=1)]
        covariance = series.T @ series
        deviation = covariance.diagonal().sqrt().clamp_min(1e-20)
        largest = float(torch.linalg.eigvalsh(covariance / deviation / deviation[:, None])[-1])
        return max(1.0, largest / float(1 + np.sqrt(times.size / len(series))) ** 2)

    def off_land(self, x: Tensor) -> Tensor:
        """Normalised trajectories with NaN on land: the output of an operator is NaN where it depends on land."""
        mask = self.prior.layout.mask
        return x if mask is None else x.masked_fill(~torch.as_tensor(mask, device=x.device), torch.nan)

    def on_land(self, length: int) -> np.ndarray:
        """Which observations depend on land only, shape (n,), for trajectories of ``length`` states."""
        mask = self.prior.layout.mask
        if mask is None:
            return np.zeros(self.count, bool)
        if self.sea is not None:
            return np.asarray(self.flat(self.sea.on_land())[0].cpu().numpy())
        with torch.no_grad():
            blank = torch.zeros(1, length, self.prior.layout.channels, *self.prior.layout.shape, device=self.device)
            off_sea = blank.masked_fill(torch.as_tensor(mask, device=self.device), torch.nan)
            both = (self.flat(self.bound(self.physical(x)))[0] for x in (self.off_land(blank), off_sea))
            land, sea = (values.isnan().cpu().numpy() for values in both)
        return np.asarray(land & ~sea)

    def draw(self, length: int, draws: int) -> Tensor:
        """Normalised trajectories (draws, length, channel, *space) of held-out states that are drawn at random."""
        states = torch.as_tensor(self.prior.examples, device=self.device).flatten(0, 1)
        pick = torch.as_tensor(np.random.default_rng(0).integers(len(states), size=(draws, length)))
        return states[pick]


def thinned(operator: Operator) -> Operator | None:
    """The operator at places that are drawn at random, where it has more than `PLACES`; else None."""
    *before, last = steps_of(operator)
    if not isinstance(last, Measurements) or len(last.labels) <= PLACES:
        return None
    rows = np.random.default_rng(0).choice(len(last.labels), PLACES, replace=False)
    return compose(*before, last.take(np.sort(rows)))


def natural_moments(seen: Projection, length: int, draws: int = 4) -> tuple[Tensor, Tensor]:
    """Natural mean and scale of each observed quantity, shape (n,) each.

    These are its mean and its standard deviation over trajectories whose states are drawn at random from the held-out
    states of the prior, and over the places and times of a variable and layer. Where the prior has a climatology, both
    are those of the anomalies from it, at the time of the quantity, and the mean has the climatology added.

    Raises
    ------
    OperatorError
        If the operator gives values that are not finite.
    """
    with torch.no_grad():
        x = seen.draw(length, draws)
        fields, usual = seen.sea_fields(x), x.new_zeros(seen.count)
        if seen.prior.layout.climatology is not None:
            # A quantity that is not finite for the mean state has no anomaly from it.
            still = torch.zeros_like(x[:1])
            usual = seen(still)[0].nan_to_num(0.0, 0.0, 0.0)
            fields = {k: fields[k] - v.nan_to_num(0.0, 0.0, 0.0) for k, v in seen.sea_fields(still).items()}
        mean = usual + seen.pooled(fields)
        scale = seen.pooled({k: (v - seen.mean(k, v)).square() for k, v in fields.items()}).sqrt().clamp_min(1e-12)
    if not bool((mean.isfinite() & scale.isfinite()).all()):
        raise OperatorError(
            "the operator gives values that are not finite for held-out states of the prior, expected finite values; "
            "correct the operator, or observe another quantity"
        )
    return mean, scale


def local_moments(
    seen: Projection, length: int, draws: int = 32, first: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance of each observed quantity at its own place and time, shape (n,) each.

    Parameters
    ----------
    seen
        The operator at the observations.
    length
        Number of states in a trajectory.
    draws
        Number of trajectories of held-out states over which the moments are taken. The variance includes the sampling
        error of the mean.
    first
        Mean and standard deviation of the first normalised state, (channel, *space) each, of which the first states are
        drawn; NaN where nothing is known.
    """
    x = seen.draw(length, draws)
    if first is not None:
        noise = torch.randn(x[:, 0].shape, generator=torch.Generator().manual_seed(0)).to(x)
        drawn = first[0] + first[1] * noise
        x[:, 0] = torch.where(drawn.isfinite(), drawn, x[:, 0])
    with torch.no_grad():
        values = torch.cat([seen(one[None]) for one in x]).double()
    return values.mean(0), values.var(0) * (1 + 1 / draws)
