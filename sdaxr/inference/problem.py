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
from sdaxr.posterior.covariance.modal import ModalCovariance
from sdaxr.posterior.covariance.trajectory import LARGEST, PriorCovariance
from sdaxr.posterior.guidance import METHODS, Guidance
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import Sampler
from sdaxr.posterior.settings import Sampling
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
    method, settings
        Guidance, and how to sample.
    outside
        What is done with observations that are outside the window.
    device
        ``"auto"`` takes a GPU where there is one.
    """

    networks: Mapping[str, xr.Dataset]
    operators: Mapping[str, Operator]
    prior: str | Path | Prior
    times: xr.DataArray
    method: str
    settings: Sampling
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
    def likelihood(self) -> list[GaussianObservation]:
        """Terms of the likelihood, one a network."""
        fields = self.method in ("jacobian_free", "soad") and self.opened.network.modes is not None
        measured = (self.method == "sda" or fields) and self.settings.gamma is None
        return [
            bind_observations(
                data, self._operator(name), self.opened, self.times, self.target, self.outside, measured=measured
            )
            for name, data in self.networks.items()
        ]

    def _operator(self, name: str) -> Operator:
        """That of a network; for states that hold what it sees, where the method needs them."""
        operator = self.operators[name]
        known = self.opened.augmentation.channels(operator) if self.method == "soad" else None
        return known or operator

    @cached_property
    def guided(self) -> Guidance:
        """The denoiser of the posterior."""
        return build_guidance(self.method, self.opened, self.times, self.likelihood, self.settings, self.target)

    @cached_property
    def sampler(self) -> Sampler:
        """What goes down the noise levels."""
        return self.settings.build(self.opened.network.levels)


def build_guidance(
    method: str,
    prior: Prior,
    times: xr.DataArray,
    likelihood: list[GaussianObservation],
    settings: Sampling,
    device: torch.device,
) -> Guidance:
    """The denoiser of the posterior on ``times``.

    Raises
    ------
    OptionError
        If the method does not know its options, or the observations do not suit it.
    """
    options = {k: v for k in METHODS[method].options() if (v := getattr(settings, k, None)) is not None}
    if (gamma := _gamma(method, prior, times, options.get("gamma"), device)) is not None:
        options["gamma"] = gamma
    denoiser = prior.denoiser(times, device, stride=settings.stride, precision=settings.precision)
    guided = METHODS[method](denoiser, likelihood, **options)
    layout = prior.layout
    guided.check(torch.zeros(1, times.size, layout.channels, *layout.shape, device=device))
    return guided


def _gamma(method: str, prior: Prior, times: xr.DataArray, given: float | str | None, device: torch.device) -> Any:
    """The option gamma of a method; what is not given is measured, where the prior knows its modes."""
    if method in ("jacobian_free", "soad") and not isinstance(given, str):
        # A number that a prior's file records is for other methods.
        small = not prior.layout.space and times.size * prior.layout.channels <= LARGEST
        given = "covariance" if small and method == "jacobian_free" else None
    if given is None and method in ("sda", "jacobian_free", "soad"):
        return ModalCovariance.of(prior, device)
    if given == "covariance" and method != "soad":
        return PriorCovariance.estimate(torch.as_tensor(prior.reference[0], device=device), times.size)
    return given
