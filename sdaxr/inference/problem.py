"""The inputs of a score-based assimilation; denoiser and likelihood are built from them in the sampling process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from sdaxr.archives.paths import Location, located
from sdaxr.inference.binding import likelihood_of
from sdaxr.inference.evidence import Evidence, screen
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import BACKGROUND, mean_and_spread
from sdaxr.operators import Operator
from sdaxr.posterior.background import background_observation
from sdaxr.posterior.covariance.adaptation import adapted, level_patterns, variance_factors
from sdaxr.posterior.covariance.variance import Variance
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.orbits import Orbits
from sdaxr.posterior.samplers.base import Power, Sampler, always
from sdaxr.posterior.samplers.predictor_corrector import Algorithm
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.posterior.samplers.twisted import Twisted
from sdaxr.posterior.tempering import Tempering
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.files import Prior
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.opening import open_prior
from sdaxr.states.fields import StateLayout


@dataclass(frozen=True)
class Problem:
    """Observations, prior and settings.

    Only these attributes are sent to a worker. Each worker builds denoiser and likelihood once, on its own device.

    Attributes
    ----------
    networks, operators
        Observations and observation operator of each network of instruments.
    prior
        Name or path of a prior, or a `Prior`.
    times
        Times of the trajectory.
    method, sampler
        The method of guidance, and the sampler.
    precision
        Precision of the layers of the neural network.
    screening
        Which observations are used.
    device
        Device of the computation; ``"auto"`` is a GPU where there is one.
    ensemble
        Forecasts of the first state, on (member, time, ...) with one time; None without.
    """

    networks: Mapping[str, xr.Dataset]
    operators: Mapping[str, Operator]
    prior: str | Location | Prior
    times: xr.DataArray
    method: ScoreMethod
    sampler: Sampler
    precision: str
    screening: Screening
    device: str
    ensemble: xr.Dataset | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        place = None if isinstance(self.prior, Prior) else located(self.prior)
        if isinstance(place, Path) and place.exists():
            state["prior"] = place.resolve()  # A worker may have another working directory.
        return state

    def loaded(self) -> Problem:
        """The same problem with its observations in memory: a client cannot compute them while it sends them."""
        ensemble = None if self.ensemble is None else self.ensemble.compute()
        return replace(self, networks={name: data.compute() for name, data in self.networks.items()}, ensemble=ensemble)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def target(self) -> torch.device:
        """Device of the computation."""
        return choose_device(self.device)

    @cached_property
    def opened(self) -> Prior:
        """The opened prior."""
        return open_prior(self.prior)

    @property
    def layout(self) -> StateLayout:
        """Layout of the states: variables, units, grid."""
        return self.opened.layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one trajectory, (time, channel, *space)."""
        return (self.times.size, self.layout.channels, *self.layout.shape)

    @cached_property
    def orbits(self) -> Orbits:
        """The images of states under the symmetries of the prior."""
        return Orbits(self.opened.symmetries)

    @cached_property
    def factors(self) -> torch.Tensor | None:
        """Factors of the variances of a prior with EOFs that follow the observations, by group; None without."""
        modes = self.opened.modes(self.target)
        if not (self.method.adapt and isinstance(modes, Eofs)):
            return None
        like = torch.zeros(1, *self.shape, device=self.target)
        return variance_factors(modes, level_patterns(self.layout), Likelihood(self.observations), like)

    @cached_property
    def adapted(self) -> Prior:
        """The prior, whose Gaussian process has the variances that follow the observations."""
        prior, factors = self.opened, self.factors
        if factors is None:
            return prior
        assert isinstance(prior.network.modes, Eofs)
        modes = adapted(prior.network.modes, level_patterns(self.layout), factors, self.times.size)
        return replace(prior, network=prior.network.with_modes(modes))

    @cached_property
    def resolved(self) -> ScoreMethod:
        """The method, with the options that depend on the prior filled in."""
        return self._usual if self.adapted is self.opened else self._resolved(self.adapted)

    @cached_property
    def _usual(self) -> ScoreMethod:
        return self._resolved(self.opened)

    def _resolved(self, prior: Prior) -> ScoreMethod:
        return self.method.resolve(prior, self.times, self.target)

    @cached_property
    def evidence(self) -> list[Evidence]:
        """The observations of each network that are used, with the status of all."""
        first = self.networks.get(BACKGROUND) if self.ensemble is None else mean_and_spread(self.ensemble)
        found: dict[str, Evidence] = {}
        for name, data in self.networks.items():
            # The background is what observations are checked against.
            how = replace(self.screening, gross_error=None) if name == BACKGROUND else self.screening
            operator = self._operator(name)
            found[name] = screen(
                data, operator, self.opened, self.times, self.target, how,
                background=first, earlier={n: each.points for n, each in found.items()},
            )  # fmt: skip
        return list(found.values())

    @cached_property
    def observations(self) -> list[GaussianObservation]:
        """Likelihood of each network that has observations that are used; an error if nothing has."""
        known = [] if self.background is None else [self.background]
        measured = self._usual.measured
        pairs = list(zip(self.networks, self.evidence, strict=True))
        used = [(name, found) for name, found in pairs if found.points.count] or ([] if known else pairs)
        return known + [
            likelihood_of(found, self._operator(name), self.times, measured=measured) for name, found in used
        ]

    @cached_property
    def background(self) -> GaussianObservation | None:
        """What the ensemble tells of the first state."""
        if self.ensemble is None:
            return None
        return background_observation(self.normalised(self.ensemble)[:, 0], self.opened, self.times.size)

    def _operator(self, name: str) -> Operator:
        """The operator of a network; for a method that needs an augmented prior, on its observed quantities."""
        operator = self.operators[name]
        known = self.opened.augmentation.channels(operator) if self.method.augmented else None
        return known or operator

    @cached_property
    def guided(self) -> GuidedDenoiser:
        """The denoiser of the posterior.

        Raises
        ------
        OptionError
            If the method cannot use the observations.
        """
        denoiser = self.adapted.denoiser(self.times, self.target, stride=self.sampler.stride, precision=self.precision)
        guided = self.resolved.guide(denoiser, self.observations)
        guided.check(torch.zeros(1, *self.shape, device=self.target))
        return guided

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm of the sampler, on the noise levels of the prior."""
        levels = self.adapted.noise_levels(self.times.size)
        return self.resolved.algorithm(self.sampler, **levels, power=self._power)

    @property
    def cost(self) -> float:
        """Cost of a member, in evaluations of the denoiser.

        Raises
        ------
        OptionError
            If the method cannot use the observations.
        """
        return self.guided.method.cost * self.algorithm.evaluations

    @property
    def mixes(self) -> bool:
        """Whether members are drawn again, together, where they disagree about the mode."""
        return self.sampler.mixing and self.method.weighs and not self.sampler.together

    def mixed(self, evaluations: float) -> Problem:
        """The problem with a sampler that draws members together, which takes at most ``evaluations`` for each."""
        known = {key: getattr(self.sampler, key) for key in ("largest", "smallest", "stride")}
        together = replace(resolve_sampler(self.opened, Twisted.name), **known)
        levels = self.adapted.noise_levels(self.times.size)
        return replace(self, sampler=together.within(evaluations / self.method.cost, **levels))

    def normalised(self, states: xr.Dataset) -> torch.Tensor:
        """States on (member, time, ...) as they are sampled, (member, time, channel, *space)."""
        known = self.opened.augmentation.apply(states, self.opened.states)
        return torch.as_tensor(self.layout.to_array(known), device=self.target)

    def _power(self) -> Power:
        """The power of the approximate likelihood that makes it as informative as it is."""
        variance = getattr(self.resolved, "variance", None)
        # A covariance of all observations does not count them as independent, so that its likelihood keeps the power 1.
        if not isinstance(variance, Variance):
            return always
        return Tempering.measure(self.observations, variance, self.adapted.held_out(self.target), self.times.size)
