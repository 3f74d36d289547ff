r"""Forecasts by a prior alone: blocks of b new states, each sampled given the k states before the block.

.. math:: x_{k+1}, \ldots, x_{k+b} \sim p(x_{k+1..k+b} | x_{1..k})

The k known states guide the sampler as observations of small error (`sdaxr.posterior.states`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from sdaxr.inference.lead_time import check_times, labels, provenance
from sdaxr.inference.remaining import telling
from sdaxr.posterior.covariance.unresolved import UnresolvedVariance
from sdaxr.posterior.execution import batch_size
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.methods import Method, build_method, describe_method
from sdaxr.posterior.samplers.base import Sampler, refuse_together
from sdaxr.posterior.samplers.predictor_corrector import Denoiser
from sdaxr.posterior.samplers.registry import describe_sampler, resolve_sampler
from sdaxr.posterior.states import blocks, channel_variance, extend, observe_states
from sdaxr.prior.files import Prior
from sdaxr.prior.hardware import choose_device
from sdaxr.schema import TIME, OptionError, check_positive
from sdaxr.states.parameters import warn_of_residuals

# Copies of the states of a forecast that are held at once, in float32.
_HELD = 3


@dataclass(frozen=True)
class PriorForecast:
    """Members continued by a prior, in batches.

    Attributes
    ----------
    prior, method, sampler
        The prior, the method by which the known states guide, and the sampler.
    known
        Last states of the members, normalised, shape (members, k, channel, *space).
    times
        Times from the first known state to the end of the last block.
    steps
        Number of new states.
    context, block
        Number of known states that condition a block, and number of new states in a block.
    error
        Standard deviation of the known states, in normalised units.
    variance
        The measured variance of each channel given z, for methods that need it.
    seed, batch
        Seed of the random numbers; number of members that are sampled at once, None for as many as fit in memory.
    template, attrs
        The forecast without its values, and its attributes.
    """

    prior: Prior
    method: ScoreMethod
    sampler: Sampler
    known: torch.Tensor
    times: xr.DataArray
    steps: int
    context: int
    block: int
    error: float
    variance: UnresolvedVariance | None
    seed: int
    batch: int | None
    template: xr.Dataset
    attrs: dict[str, Any]

    @classmethod
    def of(
        cls,
        prior: Prior,
        data: xr.Dataset,
        steps: int,
        seed: int,
        *,
        context: int | None,
        block: int | None,
        error: float,
        batch: int | None,
        device: str,
        method: str | Method | Mapping[str, Any] | None,
        sampler: str | Sampler | Mapping[str, Any] | None,
    ) -> PriorForecast:
        """The forecast of an ensemble, after checks that the ensemble and the options fit the prior."""
        check_positive("error", error, ", in standard deviations of the prior")
        layout, target = prior.layout, choose_device(device)
        drawing = replace(resolve_sampler(prior, sampler), attempts=1)
        refuse_together(drawing, "a forecast, whose members continue different states")
        held, new = _lengths(prior, context, block)
        known = torch.as_tensor(last_states(prior, data, held), device=target)
        times = layout.times(data[TIME].values[-known.shape[1]], known.shape[1] + steps + held + new)
        # The options in the file of a prior are for sparse observations; here complete states are observed.
        chosen = build_method(method, "sda")
        if not isinstance(chosen, ScoreMethod):
            raise OptionError(
                f"method={chosen.name!r} needs a physical model, found the prior {prior.name!r}; take method='sda'"
            )
        guidance = chosen.resolve(prior, times[: held + new], target)
        still = layout.parameter_channels.values()
        variance = channel_variance(prior.held_out(target), parameters=still) if guidance.measured else None
        about = {"model": prior.name, "model_sha256": prior.sha256, "context": held, "block": new, "error": error}
        about |= describe_method(chosen) | describe_sampler(drawing)
        attrs = provenance(about, f"the prior {prior.name}", {"known": known.cpu().numpy()}, seed)
        blank = layout.template(times[:1])[prior.states].isel({TIME: 0}, drop=True)
        template = labels(blank, data, layout.time, steps, constants=layout.parameters)
        return cls(
            prior, guidance, drawing, known, times, steps, held, new, error, variance, seed, batch, template, attrs
        )

    @property
    def finite(self) -> bool:
        """Whether every value of the forecast is finite."""
        return self.prior.layout.mask is None

    def members(self, waiting: list[int], progress: bool) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The pending members, each with its fields {variable: (steps, *space)}."""
        algorithm = self.sampler.build(**self.prior.noise_levels(self.context + self.block))
        count, held, new = len(self.known), self.context, self.block
        size = self._batch_size()
        # A resumed run has the same batches as the first run, because rounding depends on the size of a batch.
        parts = [range(i, min(i + size, count)) for i in range(0, count, size)]
        parts = [part for part in parts if set(part) & set(waiting)]
        layout, ahead = self.prior.layout, self.times[self.known.shape[1] :][: self.steps]
        evaluations = algorithm.evaluations * len(blocks(self.known.shape[1], self.steps, held, new))
        total = evaluations * sum(map(len, parts))
        with tqdm(total=total, disable=not progress, desc="forecasting") as bar:
            tick = telling(bar.update, total, what="forecast")
            for part in parts:
                drawn = extend(
                    self._denoiser_at, self.known[part.start : part.stop], self.steps, context=held, block=new,
                    sampler=algorithm, method=self.method, error=self.error, variance=self.variance,
                    parameters=self._still, seed=self.seed, members=part, tick=tick,
                )  # fmt: skip
                warn_of_residuals(layout, drawn.cpu().numpy())
                for member, state in zip(part, drawn.cpu().numpy(), strict=True):
                    if member in waiting:
                        yield member, self.prior.augmentation.without(layout.to_physical(state, ahead))

    @property
    def _still(self) -> list[int]:
        """Numbers of the channels of parameters."""
        return list(self.prior.layout.parameter_channels.values())

    def _denoiser_at(self, first: int, count: int) -> Denoiser:
        times = self.times[first : first + count]
        return self.prior.denoiser(times, self.known.device, stride=self.sampler.stride)

    def _batch_size(self) -> int:
        length = self.context + self.block
        likelihood = observe_states(self.known[:1], self.error, self.variance, parameters=self._still)
        one = self.method.guide(self._denoiser_at(0, length), [likelihood])
        # The states of a part, normalised, as they go on and in physical units.
        held = _HELD * self.steps * self.known[0, 0].nbytes
        shape, device = (length, *self.known.shape[2:]), self.known.device
        return batch_size(one, shape, len(self.known), device, asked=self.batch, held=held)


def last_states(prior: Prior, data: xr.Dataset, count: int) -> np.ndarray:
    """The last ``count`` states, or all if there are fewer, normalised: (member, time, channel, *space).

    Raises
    ------
    DataError, GridError, UnitsError
        If variables, grid, units or step are not those of the prior.
    """
    check_times(data, prior.layout.time, f"the prior {prior.name!r}")
    last = data.isel({TIME: slice(-count, None)})
    return prior.layout.to_array(prior.augmentation.apply(last, prior.states))


def _lengths(prior: Prior, context: int | None, block: int | None) -> tuple[int, int]:
    held = max(1, prior.window // 2) if context is None else context
    new = max(1, prior.window - held) if block is None else block
    needed = prior.network.window or 1
    if held < 1 or new < 1 or held + new < needed:
        raise OptionError(
            f"context={held} and block={new}, expected at least 1 each and {needed} together, the window of the prior "
            f"{prior.name!r}"
        )
    return held, new
