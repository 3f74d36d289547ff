"""Labelled observations to the tensors that guidance works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.observations.correlation import error_correlation
from sdaxr.observations.matching import match
from sdaxr.observations.noise import GAUSSIAN, family_of
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
    """One network of observations, for normalised trajectories of ``prior`` on ``times``.

    Their errors are independent, or correlated as the observations say (`sdaxr.observations.correlation`); Gaussian, or
    of the family that these name (`sdaxr.observations.noise`). With ``measured``, and for such a family, the variance
    of what is observed given z is measured, too (`sdaxr.posterior.covariance.unresolved`).

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If the observations are not what ``operator`` makes of such trajectories, or there is none.
    """
    template = Template.from_dataset(prior.layout.template(times))
    bound = operator.bind(template)
    matched = match(data, bound.template, outside=outside)
    seen = _Seen(prior, bound, {name: np.flatnonzero(np.isfinite(y)) for name, (y, _) in matched.items()}, device)
    if not seen.count:
        raise DataError("found no finite observation in the window, expected at least one; check times and values")

    def chosen(which: int) -> Tensor:
        parts = [pair[which].reshape(-1)[seen.where[name]] for name, pair in matched.items()]
        return torch.as_tensor(np.concatenate(parts), dtype=torch.float32, device=device)

    families = [family_of(data, name) for name in matched]
    gaussian = set(families) == {GAUSSIAN}
    unresolved = unresolved_variance(seen, prior, times.size) if measured or not gaussian else None
    matrix = error_correlation(data, bound.template, seen.where)
    correlation = None if matrix is None else torch.as_tensor(matrix, device=device)
    scale = natural_scale(seen, prior, times.size)
    found = seen, chosen(0), chosen(1), scale, unresolved
    inside = pointwise(operator, template, seen)
    if gaussian:
        return GaussianObservation(*found, correlation, inside)
    mixture = Mixture.of(np.repeat(families, [len(i) for i in seen.where.values()]), scale)
    return MixtureObservation(*found, pointwise=inside, mixture=mixture)


def pointwise(operator: Operator, template: Template, seen: _Seen) -> Pointwise | None:
    """How an operator is made up whose last steps are functions of each value by itself; None if it is another one."""
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
class _Seen:
    """H of normalised trajectories, at the points where there are observations: (batch, time, ...) to (batch, n)."""

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
        """Numbers from zero on, (n,): the same for the same variable, time and layer."""
        found, most = [], 0
        for name, index in self.where.items():
            dims = self.bound.template.variables[name].dims
            sizes = [self.bound.template.sizes[d] for d in dims]
            kept = [d in (TIME, self.prior.layout.layer) for d in dims]
            places = np.unravel_index(index, sizes) if dims else []
            parts = [p for p, keep in zip(places, kept, strict=True) if keep]
            widths = [n for n, keep in zip(sizes, kept, strict=True) if keep]
            number = np.ravel_multi_index(parts, widths) if parts else np.zeros_like(index)
            found.append(most + number)
            most += int(np.prod(widths, dtype=int))
        _, group = np.unique(np.concatenate(found), return_inverse=True)
        return torch.as_tensor(group, device=self.device)

    def fields(self, x: Tensor) -> dict[str, Tensor]:
        """H of normalised trajectories, everywhere: {name: (batch, *dims)}."""
        return self.bound(self.prior.layout.to_fields(x))

    def flat(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The observed points of fields: (batch, n)."""
        index: Mapping[str, Tensor] = self._index  # type: ignore[attr-defined]
        return torch.cat([fields[name].reshape(len(fields[name]), -1)[:, i] for name, i in index.items()], dim=1)

    def pooled(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Mean of each variable (and layer) over members, times and places, at the observed points: (n,)."""
        return self.flat({name: self.mean(name, v).expand(1, *v.shape[1:]) for name, v in fields.items()})[0]

    def mean(self, name: str, values: Tensor) -> Tensor:
        """Mean over all but the layers, each of size one; what is NaN (land) does not count."""
        dims, layer = self.bound.template.variables[name].dims, self.prior.layout.layer
        over = [0, *(i + 1 for i, d in enumerate(dims) if d != layer)]
        return values.nanmean(dim=over, keepdim=True).nan_to_num(0.0)

    def redundancy(self, name: str, errors: Tensor, window: int) -> float:
        """Largest eigenvalue of the correlation of ``errors`` between the observed times of a window.

        Guidance takes observations for independent given z. Where their errors are correlated in time, the variances
        have to be larger by this factor, or else the same information is counted several times and sampling diverges.
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
        # What chance makes of independent errors (Marchenko-Pastur) is no redundancy.
        return max(1.0, largest / float(1 + np.sqrt(times.size / len(series))) ** 2)

    def off_land(self, x: Tensor) -> Tensor:
        """Normalised trajectories with NaN on land, so that operators say where they see it."""
        mask = self.prior.layout.mask
        return x if mask is None else x.masked_fill(~torch.as_tensor(mask, device=x.device), torch.nan)

    def __call__(self, x: Tensor) -> Tensor:
        return self.flat(self.fields(x))


def natural_scale(seen: _Seen, prior: Prior, length: int, draws: int = 4) -> Tensor:
    """Standard deviation of each observed quantity over trajectories whose states are drawn at random, shape (n,)."""
    states = torch.as_tensor(prior.reference[0], device=seen.device).flatten(0, 1)
    pick = torch.as_tensor(np.random.default_rng(0).integers(len(states), size=(draws, length)))
    with torch.no_grad():
        fields = seen.fields(seen.off_land(states[pick]))
        return seen.pooled({k: (v - seen.mean(k, v)).square() for k, v in fields.items()}).sqrt().clamp_min(1e-12)


def unresolved_variance(seen: _Seen, prior: Prior, length: int) -> UnresolvedVariance:
    """Variance of the observed quantities given z, measured on the windows that the prior carries."""
    held_out = prior.held_out(seen.device)
    window = held_out.states.shape[1]
    repeats = -(-length // window)

    def long(x: Tensor) -> Tensor:
        # Operators are bound to the times of the whole trajectory; a window is repeated to fill them.
        return seen.off_land(x).repeat(1, repeats, *[1] * (x.ndim - 2))[:, :length]

    def error(true: Tensor, denoised: Tensor) -> Tensor:
        a, b = seen.fields(long(true)), seen.fields(long(denoised))
        errors = {name: a[name] - b[name] for name in a}
        return seen.pooled({name: e.square() * seen.redundancy(name, e, window) for name, e in errors.items()})

    return measure(held_out, error)
