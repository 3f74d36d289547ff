"""Observations and a prior make a posterior ensemble of trajectories."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from sdaxr import schema
from sdaxr.archive import Archive, open_archive
from sdaxr.fields import StateLayout
from sdaxr.likelihood import bind_observations
from sdaxr.observations import observed_variables
from sdaxr.posterior.execution import Guided, batch_size, sample_members
from sdaxr.posterior.guidance import METHODS
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import Sampler
from sdaxr.prior import Prior, open_prior
from sdaxr.sampling import Sampling, choose_device, resolve_sampling
from sdaxr.schema import MEMBER, OptionError, nearest
from sdaxr.window import Observations, Operators, as_networks, operator_of, window_times

log = logging.getLogger(__name__)


def assimilate(
    observations: Observations,
    prior: str | Path | Prior,
    *,
    members: int = 16,
    seed: int = 0,
    store: str | Path | None = None,
    operator: Operators = None,
    times: Any = None,
    method: str = "sda",
    gamma: float | None = None,
    zeta: float | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    corrections: int | None = None,
    tau: float | None = None,
    outside: str = "error",
    batch: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Sample whole trajectories from the posterior given observations.

    Parameters
    ----------
    observations
        What `sdaxr.observe` returns, or your own in the same form; several networks as a mapping or DataTree.
    prior
        Name of a shipped prior, path of a prior file, or a `Prior`.
    members
        Number of posterior samples.
    seed
        Each member's noise is drawn from (seed, member), so a member does not depend on the number of members or on
        the size of the batches.
    store
        Path of a Zarr archive that the members are streamed to; a killed run goes on when it is run again.
    operator
        Observation operator, or one a network, in the place of the one that the observations carry.
    times
        Times of the trajectory, at the prior's step. Default: the window that the observations carry, else from the
        first to the last observed time.
    method
        ``"sda"`` (Rozet & Louppe 2023) or ``"dps"`` (Chung et al. 2023).
    gamma, zeta
        SDA's scalar Gamma, in units of the variance of what is observed; by default the covariance that it stands for
        is measured on states that the prior carries (`sdaxr.posterior.unresolved`). Step of DPS.
    sampler
        ``"sde-dpm++"``: stochastic and of second order, the default; ``"dpm++"``: DPM-Solver++(2M), deterministic;
        ``"ancestral"`` and ``"ddim"``: of first order; ``"exponential"``: the paper's setting as a whole.
    grid, steps
        Noise levels, ``"karras"`` (dense at high noise), ``"log-snr"`` or ``"uniform"`` (the paper's times), and their
        number.
    eta
        Amount of noise that is drawn anew on the way, for ``"sde-dpm++"`` (below the prior's standard deviation; from
        0) and ``"ddim"`` (0 to 1). More noise forgets more errors of the guidance, and needs more levels.
    corrections, tau
        Langevin corrections on each level below the prior's standard deviation, and their step in units of the level's
        variance; for ``"exponential"`` on every level, with the paper's step.
    outside
        ``"error"``, or ``"drop"`` to leave out observations that are outside the window or off its steps.
    batch
        Members at once; by default as many as fit in memory.
    device
        ``"auto"`` takes a GPU where there is one.
    overwrite
        Replace an archive that is there.
    progress
        Show a progress bar.

    Returns
    -------
    Dataset with the prior's variables on (member, time, ...) in its units; provenance in the attributes. Settings that
    are not given come from the prior's file, then from `Sampling`.

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, OperatorError, PriorError, ArchiveError
        If observations and prior do not fit together; the message says where.
    DivergenceError
        If the sampler does not stay finite.
    """
    prior = open_prior(prior)
    given = {
        "sampler": sampler, "grid": grid, "steps": steps, "eta": eta, "corrections": corrections, "tau": tau,
        "gamma": gamma, "zeta": zeta,
    }  # fmt: skip
    settings = resolve_sampling(prior, given)
    for key, value, least in (("members", members, 1), ("seed", seed, 0)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    if settings.gamma is not None and settings.gamma < 0:
        raise OptionError(f"gamma={settings.gamma}, expected a number from 0 on")
    networks = as_networks(observations)
    axis = window_times(networks, prior.layout, times)
    target = choose_device(device)
    chosen = {name: operator_of(name, data, operator, outside) for name, data in networks.items()}
    measured = method == "sda" and settings.gamma is None
    likelihood = [
        bind_observations(data, chosen[name], prior, axis, target, outside, measured=measured)
        for name, data in networks.items()
    ]
    guided = build_guidance(method, prior, axis, likelihood, settings, target)
    attrs = _provenance(prior, networks, operator, method, settings, seed) | _counts(networks, likelihood)
    return draw(
        guided, settings.build(prior.network.levels), prior.layout, axis, attrs, members=members, seed=seed,
        store=store, batch=batch, device=target, overwrite=overwrite, progress=progress,
    )  # fmt: skip


def build_guidance(
    method: str,
    prior: Prior,
    times: xr.DataArray,
    likelihood: list[GaussianObservation],
    settings: Sampling,
    device: torch.device,
) -> Guided:
    """The denoiser of the posterior on ``times``."""
    if method not in METHODS:
        raise OptionError(f"method={nearest(method, METHODS)}")
    strength: dict[str, Any] = {"gamma": settings.gamma} if method == "sda" else {"zeta": settings.zeta}
    guided: Guided = METHODS[method](prior.denoiser(times, device), likelihood, **strength)
    return guided


def draw(
    guided: Guided,
    sampler: Sampler,
    layout: StateLayout,
    times: xr.DataArray,
    attrs: dict[str, Any],
    *,
    members: int,
    seed: int,
    store: str | Path | None,
    batch: int | None,
    device: torch.device,
    overwrite: bool,
    progress: bool,
) -> xr.Dataset:
    """Sample members in batches, into memory or into an archive."""
    shape = (times.size, layout.channels, *layout.shape)
    template = layout.template(times, {MEMBER: np.arange(members)})
    template[MEMBER].attrs.update(standard_name="realization", long_name="posterior sample", units="1")
    template.attrs.update(attrs)
    archive, waiting = None, set(range(members))
    if store is not None:
        config = {k: v for k, v in attrs.items() if k != "sdaxr_version"} | {"members": members}
        config |= {"start": str(times.values[0]), "states": times.size}
        finite = layout.mask is None
        archive = Archive.create(store, template, MEMBER, config, attrs, overwrite=overwrite, finite=finite)
        waiting = set(archive.pending())
    size = batch or batch_size(guided, shape, members, device)
    # Batches are the same in a resumed run: rounding depends on their size.
    batches = [range(first, min(first + size, members)) for first in range(0, members, size)]
    batches = [b for b in batches if waiting.intersection(b)]
    results: dict[int, dict[str, np.ndarray]] = {}
    total = sum(map(len, batches)) * sampler.evaluations
    with tqdm(total=total, disable=not progress, desc="assimilating", unit="evaluation") as bar:
        batched = sample_members(guided, sampler, batches, shape, seed=seed, device=device, tick=bar.update)
        for drawn, states in batched:
            for member, state in zip(drawn, states.numpy(), strict=True):
                fields = layout.to_physical(state)
                if archive is None:
                    results[member] = fields
                elif member in waiting:
                    archive.write(member, fields)
    if archive is not None:
        return open_archive(archive.finalise())
    stacked = {v: np.stack([results[m][v] for m in range(members)]) for v in layout.variables}
    return template.assign({v: (template[v].dims, a, template[v].attrs) for v, a in stacked.items()})


def _operator_text(name: str, data: xr.Dataset, operator: Operators) -> str:
    given = operator.get(name) if isinstance(operator, Mapping) else operator
    if given is None:
        return str(data.attrs.get("operator", ""))
    return given.to_json() if given.saveable else repr(given)


def _counts(networks: Mapping[str, xr.Dataset], likelihood: list[GaussianObservation]) -> dict[str, list[int]]:
    used = [o.values.shape[-1] for o in likelihood]
    given = [sum(int(d[v].notnull().sum()) for v in observed_variables(d)) for d in networks.values()]
    return {"observations_used": used, "observations_dropped": [g - u for g, u in zip(given, used, strict=True)]}


def _provenance(
    prior: Prior,
    networks: Mapping[str, xr.Dataset],
    operator: Operators,
    method: str,
    settings: Sampling,
    seed: int,
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for data in networks.values():
        for name in sorted(map(str, data.variables)):
            values = np.ascontiguousarray(data[name].values)
            values = values if values.dtype.kind in "biufmM" else values.astype(str)
            digest.update(name.encode() + values.tobytes())
    return {
        "Conventions": "CF-1.11",
        "title": f"posterior ensemble, {method} with the prior {prior.name!r}",
        "source": "score-based data assimilation",
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "method": method,
        "seed": seed,
        "networks": list(networks),
        "operators": [_operator_text(name, data, operator) for name, data in networks.items()],
        "observations_sha256": digest.hexdigest(),
        "sdaxr_version": schema.version(),
        **{f"sampling_{k}": "measured" if v is None else v for k, v in asdict(settings).items()},
    }
