"""Observations and a prior, or a physical model, make a posterior ensemble of trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from sdaxr.archives.archive import Archive
from sdaxr.archives.ensemble import Ensemble
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.archives.workers import active_client, map_units
from sdaxr.filters.smoothing import smooth
from sdaxr.inference.problem import Problem
from sdaxr.observations.provenance import count_observations, describe_networks
from sdaxr.observations.window import (
    BACKGROUND,
    Observations,
    Operators,
    as_networks,
    background_network,
    operator_of,
    window_times,
)
from sdaxr.operators import identity
from sdaxr.posterior.execution import batch_size, sample_batch
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.methods import METHODS, Method, describe_method, names, resolve_method
from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.registry import describe_sampler, resolve_sampler
from sdaxr.prior.files import Prior, open_prior, priors
from sdaxr.schema import MEMBER, OptionError
from sdaxr.systems.base import System


def assimilate(
    observations: Observations,
    prior: str | Path | Prior | None = None,
    *,
    method: str | Method | Mapping[str, Any] = "sda",
    sampler: str | Sampler | Mapping[str, Any] | None = None,
    members: int = 16,
    seed: int = 0,
    store: str | Path | None = None,
    operator: Operators = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    system: str | System | None = None,
    outside: str = "error",
    batch: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Sample whole trajectories from the posterior given observations.

    Batches of members run in this process or, where there is an active `distributed.Client`, on its workers; give each
    worker one thread, or one GPU (``dask worker --nthreads 1 --resources "GPU=1"``). Workers open the prior by
    themselves, from its name or path, and write into the archive side by side.

    Parameters
    ----------
    observations
        What `sdaxr.observe` returns, or your own in the same form; several networks as a mapping or DataTree. Where
        errors are not Gaussian, the attribute ``distribution`` of ``<variable>_error`` names their family
        (`sdaxr.observations.noise`). All methods use its density, except for `DMPS` and `DPS`, which do not, and
        `Kalman` and `FourDVar`, which refuse such observations.
    prior
        Name of a shipped prior, path of a prior file, or a `Prior`; for the methods that need a prior.
    method
        How observations act on the prior: a name or an object of `sdaxr.methods`, such as ``"mmps"`` or
        ``MMPS(iterations=2)``; or a mapping of its options, ``{"variance": 0.01}``, with or without ``"name"``. Options
        that are not given are as the prior's file records them for this method. With ``system``: ``"ffbs"``,
        ``"bpf"``, ``"kalman"`` or ``"4dvar"``.
    sampler
        How samples are drawn: a name or an object of `sdaxr.samplers`, or a mapping of options, such as
        ``{"steps": 64}``. Default: the sampler that the prior's file records.
    members
        Number of posterior samples.
    seed
        Each member's noise is drawn from (seed, member), so that a member does not depend on the number of members or
        on the size of the batches.
    store
        Path of a Zarr archive that the members are streamed to; a killed run goes on when it is run again.
    operator
        Observation operator, or one for each network, in the place of the operator that the observations carry.
    times
        Times of the trajectory, at the prior's step. Default: the window that the observations carry, else from the
        first to the last observed time.
    background
        An earlier estimate of the state at the first time: state variables and their ``<variable>_error``, one more
        network of observations (`sdaxr.observations.window.background_network`).
    system
        Name of a system with Gaussian noise, or a `sdaxr.systems.MarkovChain`; for the methods that need a system.
    outside
        ``"error"``, or ``"drop"`` to leave out observations that are outside the window or off its steps.
    batch
        Members at once. Default: as many as fit in memory, divided among the workers.
    device
        ``"auto"`` takes a GPU where there is one.
    precision
        ``"float32"``, ``"bfloat16"`` for the layers of the network, or ``"auto"``: bfloat16 for fields on a GPU and on
        processors that have instructions for it.
    overwrite
        Replace an archive that is there.
    progress
        Show a progress bar.

    Returns
    -------
    Dataset with the prior's variables on (member, time, ...) in its units; provenance in the attributes.

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, OperatorError, PriorError, ArchiveError
        If observations and prior do not fit together; the message says where.
    DivergenceError
        If the sampler does not stay finite, or a sample ends far from what the prior knows.
    """
    if system is not None:
        _refuse_with_a_system({"prior": prior, "sampler": sampler, "batch": batch})
        return smooth(
            observations, system, method=method, members=members, seed=seed, store=store, operator=operator,
            times=times, background=background, outside=outside, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if prior is None:
        raise OptionError(_nothing_to_draw_from(method))
    opened = open_prior(prior)
    guidance = _score_method(resolve_method(opened, method))
    drawing = resolve_sampler(opened, sampler)
    for key, value, least in (("members", members, 1), ("seed", seed, 0)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    networks = as_networks(observations)
    axis = window_times(networks, opened.layout, times)
    operators = {name: operator_of(name, data, operator, outside) for name, data in networks.items()}
    if background is not None:
        if BACKGROUND in networks:
            raise OptionError(f"found a network named '{BACKGROUND}' and background=; rename the network")
        # First, so that observations of the same state have the last word where it matters.
        networks = {BACKGROUND: background_network(background, axis)} | networks
        operators = {BACKGROUND: identity()} | operators
    problem = Problem(networks, operators, prior, axis, guidance, drawing, precision, outside, device)
    attrs = _provenance(opened, guidance, seed) | describe_networks(networks, None if operator is None else operators)
    attrs |= count_observations(networks, [o.values.shape[-1] for o in problem.observations])
    attrs |= describe_sampler(drawing) | {"precision": precision}
    # The guided denoiser is built here, so that observations that do not suit the method leave no archive behind.
    attrs |= {"evaluations_per_member": problem.guided.method.cost * problem.algorithm.evaluations}
    return draw(
        problem, attrs, members=members, seed=seed, store=store, batch=batch, overwrite=overwrite, progress=progress
    )


def _refuse_with_a_system(foreign: Mapping[str, Any]) -> None:
    for key, given in foreign.items():
        if given is not None:
            raise OptionError(
                f"found {key}= beside system=, which does not use it; leave one of them out (these methods need a "
                f"prior: {', '.join(names('prior'))})"
            )


def _score_method(method: Method) -> ScoreMethod:
    if not isinstance(method, ScoreMethod):
        raise OptionError(
            f"found prior= beside method={method.name!r}, which needs a physical model; pass system=, such as "
            f"'lorenz63', in the place of the prior, or choose one of {', '.join(names('prior'))}"
        )
    return method


def _nothing_to_draw_from(method: str | Method | Mapping[str, Any]) -> str:
    chosen = METHODS.build(method if not isinstance(method, Mapping) else {"name": "sda", **method})
    if chosen.needs == "system":
        return f"method={chosen.name!r} needs a physical model, found none; pass system=, such as 'lorenz63'"
    return f"method={chosen.name!r} needs a prior, found none; pass one of {priors()}, or a file of sdaxr.train"


def draw(
    problem: Problem,
    attrs: dict[str, Any],
    *,
    members: int,
    seed: int,
    store: str | Path | None,
    batch: int | None,
    overwrite: bool,
    progress: bool,
) -> xr.Dataset:
    """Sample members in batches, here or on the workers of the active client, into memory or into an archive."""
    template = problem.layout.template(problem.times, {MEMBER: np.arange(members)})[problem.opened.states]
    finite = problem.layout.mask is None
    ensemble = Ensemble.create(template, attrs, store=store, overwrite=overwrite, finite=finite)
    client = active_client()
    size = batch or batch_size(problem.guided, problem.shape, members, problem.target)
    if client is not None and batch is None:
        size = min(size, math.ceil(members / max(1, len(client.nthreads()))))
    # Batches are the same in a resumed run: rounding depends on their size.
    batches = [range(first, min(first + size, members)) for first in range(0, members, size)]
    batches = [b for b in batches if ensemble.waiting.intersection(b)]
    if client is not None:
        # Scattered once: as a plain argument, the observations would travel with every batch.
        sent = client.scatter([problem], hash=False)[0]
        drawn = map_units(
            draw_batch, range(len(batches)), sent, batches, seed, ensemble.archive,
            progress=progress, description="assimilating", resource="GPU",
        )  # fmt: skip
        with closing(drawn):  # at once, while the client is there
            for _, outcome in drawn:
                if isinstance(outcome, Exception):
                    raise outcome
                for member, fields in outcome.items():
                    ensemble.write(member, fields)
        return ensemble.dataset()
    total = sum(map(len, batches)) * problem.algorithm.evaluations
    with tqdm(total=total, disable=not progress, desc="assimilating", unit="evaluation") as bar:
        for number in range(len(batches)):
            for member, fields in draw_batch(number, problem, batches, seed, ensemble.archive, bar.update).items():
                ensemble.write(member, fields)
    return ensemble.dataset()


def draw_batch(
    number: int,
    problem: Problem,
    batches: Sequence[Sequence[int]],
    seed: int,
    archive: Archive | None,
    tick: Callable[[int], Any] = lambda _: None,
) -> dict[int, dict[str, np.ndarray]]:
    """Sample the members of one batch into the archive, each into its own region; without one, return their fields."""
    members = batches[number]
    states = sample_batch(
        problem.guided, problem.algorithm, members, problem.shape, seed=seed, device=problem.target,
        attempts=problem.sampler.attempts, tick=tick,
    )  # fmt: skip
    layout, augmentation = problem.layout, problem.opened.augmentation
    pairs = zip(members, states.numpy(), strict=True)
    fields = {m: augmentation.without(layout.to_physical(state)) for m, state in pairs}
    if archive is None:
        return fields
    for member, values in fields.items():
        if not archive.is_complete(member):
            archive.write(member, values)
    return {}


def _provenance(prior: Prior, method: ScoreMethod, seed: int) -> dict[str, Any]:
    return provenance_attrs(
        f"posterior ensemble, {method.name} with the prior {prior.name!r}",
        "score-based data assimilation",
        prior=prior.name,
        prior_sha256=prior.sha256,
        **describe_method(method),
        seed=seed,
    )
