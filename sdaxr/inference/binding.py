"""Labelled observations as the tensors of a likelihood.

Coordinates, units and grids are resolved here. Guidance works on values y, errors e and an operator H of normalised
trajectories (`sdaxr.posterior.likelihood`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

from sdaxr.inference.evidence import Evidence, screen
from sdaxr.inference.projection import Projection
from sdaxr.observations.noise import GAUSSIAN
from sdaxr.observations.screening import Screening, counts
from sdaxr.operators import Operator, Template, compose, identity
from sdaxr.operators.base import steps_of
from sdaxr.operators.pointwise import Elementwise
from sdaxr.posterior.covariance.unresolved import UnresolvedVariance, measure
from sdaxr.posterior.likelihood import GaussianObservation, Pointwise
from sdaxr.posterior.mixture import Mixture, MixtureObservation
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError


def bind_observations(
    data: xr.Dataset,
    operator: Operator,
    prior: Prior,
    times: xr.DataArray,
    device: torch.device,
    screening: Screening | None = None,
    *,
    measured: bool = True,
) -> GaussianObservation:
    """The likelihood of one network of observations, for normalised trajectories of ``prior`` on ``times``.

    `sdaxr.inference.evidence` says which observations are used. See `likelihood_of`.

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If ``operator`` does not turn such trajectories into quantities on the grid and in the units of the
        observations, if an observation is implausible, or if there is no finite observation.
    """
    found = screen(data, operator, prior, times, device, Screening() if screening is None else screening)
    return likelihood_of(found, operator, times, measured=measured)


def likelihood_of(
    evidence: Evidence, operator: Operator, times: xr.DataArray, *, measured: bool = True
) -> GaussianObservation:
    """The likelihood of the observations of one network that are used.

    The attributes of the observations say whether the errors are correlated (`sdaxr.observations.correlation`) or have
    biases (`sdaxr.observations.bias`), and name the family of errors that are not Gaussian
    (`sdaxr.observations.noise`). With ``measured``, and for errors that are not Gaussian, the variance of the observed
    quantities given z is measured (`sdaxr.posterior.covariance.unresolved`).

    Raises
    ------
    DataError
        If there is no observation, or some errors are not Gaussian and others have biases or are correlated.
    """
    points, seen, scale = evidence.points, evidence.seen, evidence.scale
    if not points.count:
        reasons = ", ".join(f"{n} {name}" for name, n in counts(points.status).items() if n) or "all are missing"
        raise DataError(
            f"found no finite observation in the window that can be used ({reasons}), expected at least one; check "
            "times, places, flags and values"
        )
    device, prior, families = seen.device, seen.prior, points.families
    matrix, shared = points.correlation, points.shared
    gaussian = bool((families == GAUSSIAN).all())
    unresolved = unresolved_variance(seen, prior, times.size) if measured or not gaussian else None
    values, errors = (torch.as_tensor(a, dtype=torch.float32, device=device) for a in (points.values, points.errors))
    found = seen, values, errors, scale, unresolved
    inside = pointwise(operator, Template.from_dataset(prior.layout.template(times)), seen)
    if gaussian:
        correlation = None if matrix is None else torch.as_tensor(matrix, device=device)
        return GaussianObservation(*found, correlation, inside, None if shared is None else shared.to(device))
    if matrix is not None or shared is not None:
        raise DataError(
            f"found errors of the families {sorted(set(families.tolist()))} in one network, some with a bias or "
            "correlated, expected Gaussian errors beside these; give the variables as two networks"
        )
    return MixtureObservation(*found, pointwise=inside, mixture=Mixture.of(families, scale))


def pointwise(operator: Operator, template: Template, seen: Projection) -> Pointwise | None:
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

    return Pointwise(replace(seen, bound=first.bind(template), sea=None, sparse=None), outer, seen.groups)


def unresolved_variance(seen: Projection, prior: Prior, length: int) -> UnresolvedVariance:
    """Variance of the observed quantities given z, measured on the held-out windows in the file of the prior."""
    held_out = prior.held_out(seen.device)
    window = held_out.states.shape[1]
    repeats = -(-length // window)

    def long(x: Tensor) -> Tensor:
        # The operator is bound to the times of the whole trajectory; the window is repeated to fill these times.
        return x.repeat(1, repeats, *[1] * (x.ndim - 2))[:, :length]

    known = seen.sea_fields(long(held_out.states))

    def error(denoised: Tensor) -> Tensor:
        found = seen.sea_fields(long(denoised))
        errors = {name: value - found[name] for name, value in known.items()}
        return seen.pooled({name: e.square() * seen.redundancy(name, e, window) for name, e in errors.items()})

    return measure(held_out, error)
