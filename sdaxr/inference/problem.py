"""What a score-based posterior is drawn from: it is built where it is drawn, in this process or on a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from sdaxr.inference.binding import bind_observations
from sdaxr.operators import Operator
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector
from sdaxr.prior.files import Prior, open_prior
from sdaxr.prior.hardware import choose_device
from sdaxr.states.fields import StateLayout


@dataclass(frozen=True)
class Problem:
    """Observations, prior and settings.

    Only these travel to a worker; networks and likelihood are built there, once, on a device that is there.

    Attributes
    ----------
    networks, operators
        The observations and their operator, by network.
    prior
        Name, path, or the prior itself.
    times
        Times of the trajectory.
    method, sampler
        How observations guide, and how to sample.
    precision
        Of the layers of the network.
    outside
        What is done with observations that are outside the window.
    device
        ``"auto"`` takes a GPU where there is one.
    """

    networks: Mapping[str, xr.Dataset]
    operators: Mapping[str, Operator]
    prior: str | Path | Prior
    times: xr.DataArray
    method: ScoreMethod
    sampler: Sampler
    precision: str
    outside: str
    device: str

    def __getstate__(self) -> dict[str, Any]:
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        state["networks"] = {name: data.compute() for name, data in self.networks.items()}
        if not isinstance(self.prior, Prior) and Path(self.prior).exists():
            state["prior"] = Path(self.prior).resolve()  # workers may stand in another folder
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def target(self) -> torch.device:
        """The device."""
        return choose_device(self.device)

    @cached_property
    def opened(self) -> Prior:
        """The prior."""
        return open_prior(self.prior)

    @property
    def layout(self) -> StateLayout:
        """Labels of the states."""
        return self.opened.layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one trajectory, (time, channel, *space)."""
        return (self.times.size, self.layout.channels, *self.layout.shape)

    @cached_property
    def resolved(self) -> ScoreMethod:
        """The method, with what it takes from the prior."""
        return self.method.resolve(self.opened, self.times, self.target)

    @cached_property
    def observations(self) -> list[GaussianObservation]:
        """Terms of the likelihood, one for each network."""
        return [
            bind_observations(
                data,
                self._operator(name),
                self.opened,
                self.times,
                self.target,
                self.outside,
                measured=self.resolved.measured,
            )
            for name, data in self.networks.items()
        ]

    def _operator(self, name: str) -> Operator:
        """That of a network; on the observed quantities of an augmented prior, where the method needs them."""
        operator = self.operators[name]
        known = self.opened.augmentation.channels(operator) if self.method.augmented else None
        return known or operator

    @cached_property
    def guided(self) -> GuidedDenoiser:
        """The denoiser of the posterior.

        Raises
        ------
        OptionError
            If the observations do not suit the method.
        """
        denoiser = self.opened.denoiser(self.times, self.target, stride=self.sampler.stride, precision=self.precision)
        guided = self.resolved.guide(denoiser, self.observations)
        guided.check(torch.zeros(1, *self.shape, device=self.target))
        return guided

    @cached_property
    def algorithm(self) -> PredictorCorrector:
        """What goes down the noise levels."""
        return self.sampler.build(self.opened.network.levels)
