"""Labelled observations as the tensors of a likelihood.

Coordinates, units and grids are resolved here. Guidance works on values y, errors e and an operator H of normalised
trajectories (`sdaxr.posterior.likelihood`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.observations.noise import GAUSSIAN
from sdaxr.observations.observed import ObservedPoints
from sdaxr.operators import Operator, Template, compose, identity
from sdaxr.operators.base import Bound, steps_of
from sdaxr.operators.pointwise import Elementwise
from sdaxr.posterior.covariance.unresolved import UnresolvedVariance, measure
from sdaxr.posterior.likelihood import GaussianObservation, Pointwise
from sdaxr.posterior.mixture import Mixture, MixtureObservation
from sdaxr.prior.files import Prior
from sdaxr.schema import TIME, DataError


def bind_observations(
    data: xr.Dataset,
    operator: Operator,
    prior: Prior,
    times: xr.DataArray,
    device: torch.device,
    outside: str = "error",
    *,
    measured: bool = True,
) -> GaussianObservation:
    """The likelihood of one network of observations, for normalised trajectories of ``prior`` on ``times``.

    The attributes of the observations say whether the errors are correlated (`sdaxr.observations.correlation`), and
    name the family of errors that are not Gaussian (`sdaxr.observations.noise`). With ``measured``, and for errors that
    are not Gaussian, the variance of the observed quantities given z is measured
    (`sdaxr.posterior.covariance.unresolved`).

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If ``operator`` does not turn such trajectories into quantities on the grid and in the units of the
        observations, or if there is no finite observation.
    """
    template = Template.from_dataset(prior.layout.template(times))
    bound = operator.bind(template)
    points = ObservedPoints.of(data, bound.template, outside)
    if not points.count:
        raise DataError("found no finite observation in the window, expected at least one; check times and values")
    seen = _ObservedOperator(prior, bound, points.where, device)
    families, matrix = points.families, points.correlation
    gaussian = bool((families == GAUSSIAN).all())
    unresolved = unresolved_variance(seen, prior, times.size) if measured or not gaussian else None
    values, errors = (torch.as_tensor(a, dtype=torch.float32, device=device) for a in (points.values, points.errors))
    scale = natural_scale(seen, prior, times.size)
    found = seen, values, errors, scale, unresolved
    inside = pointwise(operator, template, seen)
    if gaussian:
        correlation = None if matrix is None else torch.as_tensor(matrix, device=device)
        return GaussianObservation(*found, correlation, inside)
    return MixtureObservation(*found, pointwise=inside, mixture=Mixture.of(families, scale))


def pointwise(operator: Operator, template: Template, seen: _ObservedOperator) -> Pointwise | None:
    """The parts f and A of an operator f(A x) whose last steps act on each value by itself; else None."""
    steps = steps_of(operator)
    last: list[Elementwise] = []
    for step in reversed(steps):
        if not isinstance(step, Elementwise):
            break
        last.insert(0, step)
    first = compose(*steps[: len(steps) - len(last)]) if len(last) < len(steps) else identity()
    if not last or not first.affine:
        return None

    def outer(x: Tensor) -> Tensor:
        for step in last:
            x = step.function(x)
        return x

    return Pointwise(replace(seen, bound=first.bind(template)), outer, seen.groups)


@dataclass(frozen=True)
class _ObservedOperator:
    """H of normalised trajectories at the observed points: (batch, time, channel, *space) to (batch, n).

    ``where`` holds the flat indices of the observed points in the output of the operator, by variable.
    """

    prior: Prior
    bound: Bound
    where: Mapping[str, np.ndarray]
    device: torch.device

    def __post_init__(self) -> None:
        index = {name: torch.as_tensor(i, device=self.device) for name, i in self.where.items()}
        object.__setattr__(self, "_index", index)

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

    def fields(self, x: Tensor) -> dict[str, Tensor]:
        """H of normalised trajectories at all points: {variable: (batch, *dims)}."""
        return self.bound(self.prior.layout.to_fields(x))

    def flat(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The observed points of fields: (batch, n)."""
        index: Mapping[str, Tensor] = self._index  # type: ignore[attr-defined]
        return torch.cat([fields[name].reshape(len(fields[name]), -1)[:, i] for name, i in index.items()], dim=1)

    def pooled(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Mean of each variable and layer over members, times and places, given at each observed point: (n,)."""
        return self.flat({name: self.mean(name, v).expand(1, *v.shape[1:]) for name, v in fields.items()})[0]

    def mean(self, name: str, values: Tensor) -> Tensor:
        """Mean over all dimensions except the layers, with these dimensions kept; NaN (land) is left out."""
        dims, layer = self.bound.template.variables[name].dims, self.prior.layout.layer
        over = [0, *(i + 1 for i, d in enumerate(dims) if d != layer)]
        return values.nanmean(dim=over, keepdim=True).nan_to_num(0.0)

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

    def __call__(self, x: Tensor) -> Tensor:
        return self.flat(self.fields(x))


def natural_scale(seen: _ObservedOperator, prior: Prior, length: int, draws: int = 4) -> Tensor:
    """Natural scale of each observed quantity, shape (n,).

    This is its standard deviation over trajectories whose states are drawn at random from the held-out states of the
    prior.
    """
    states = torch.as_tensor(prior.reference[0], device=seen.device).flatten(0, 1)
    pick = torch.as_tensor(np.random.default_rng(0).integers(len(states), size=(draws, length)))
    with torch.no_grad():
        fields = seen.fields(seen.off_land(states[pick]))
        return seen.pooled({k: (v - seen.mean(k, v)).square() for k, v in fields.items()}).sqrt().clamp_min(1e-12)


def unresolved_variance(seen: _ObservedOperator, prior: Prior, length: int) -> UnresolvedVariance:
    """Variance of the observed quantities given z, measured on the held-out windows in the file of the prior."""
    held_out = prior.held_out(seen.device)
    window = held_out.states.shape[1]
    repeats = -(-length // window)

    def long(x: Tensor) -> Tensor:
        # The operator is bound to the times of the whole trajectory; the window is repeated to fill these times.
        return seen.off_land(x).repeat(1, repeats, *[1] * (x.ndim - 2))[:, :length]

    def error(true: Tensor, denoised: Tensor) -> Tensor:
        a, b = seen.fields(long(true)), seen.fields(long(denoised))
        errors = {name: a[name] - b[name] for name in a}
        return seen.pooled({name: e.square() * seen.redundancy(name, e, window) for name, e in errors.items()})

    return measure(held_out, error)
