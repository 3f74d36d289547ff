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
from sdaxr.correlation import ATTRIBUTE
from sdaxr.fields import StateLayout
from sdaxr.likelihood import bind_observations
from sdaxr.observations import observed_variables
from sdaxr.operators import identity
from sdaxr.posterior.covariance import LARGEST, PriorCovariance
from sdaxr.posterior.execution import Guided, batch_size, sample_members
from sdaxr.posterior.guidance import METHODS, Guidance
from sdaxr.posterior.guidance.jacobian_free import INDEPENDENT
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import Sampler
from sdaxr.prior import Prior, open_prior
from sdaxr.sampling import METHOD_OPTIONS, Sampling, choose_device, resolve_sampling
from sdaxr.schema import MEMBER, OptionError, nearest
from sdaxr.window import (
    BACKGROUND,
    Observations,
    Operators,
    as_networks,
    background_network,
    operator_of,
    window_times,
)

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
    background: xr.Dataset | None = None,
    method: str = "sda",
    gamma: float | str | None = None,
    zeta: float | None = None,
    iterations: int | None = None,
    sampler: str | None = None,
    steps: int | None = None,
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
    background
        An earlier estimate of the state at the first time: state variables and their ``<variable>_error``, one more
        network of observations (`sdaxr.window.background_network`).
    method
        ``"sda"`` (Rozet & Louppe 2023), ``"bounded"`` (its variance bounded by the prior's), ``"mmps"`` (Rozet et al.
        2024), ``"jacobian_free"`` (an analysis step on the denoised state), ``"dmps"`` (Meng & Kabashima 2022, linear
        operators), ``"soad"`` (Li et al. 2024; what is observed is part of the state) or ``"dps"`` (Chung et al. 2023);
        see `sdaxr.posterior.guidance`.
    gamma
        Of ``"sda"``: a number, Gamma in units of the variance of what is observed; ``"covariance"``, from the prior's
        covariance in time (state vectors); by default the variance that it stands for is measured on states that the
        prior carries (`sdaxr.posterior.unresolved`). Of ``"bounded"``: a number. Of ``"jacobian_free"``:
        ``"covariance"`` (default for state vectors) or ``"independent"``.
    zeta
        Of ``"dps"``: length of its steps.
    iterations
        Of ``"mmps"``: Krylov steps, each one product with the network's Jacobian.
    sampler
        ``"karras"``: few levels, ancestral; ``"exponential"``: the paper's 256 uniform levels.
    steps, corrections, tau
        Number of levels, Langevin corrections on each, and their step.
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
        "sampler": sampler, "steps": steps, "corrections": corrections, "tau": tau,
        "gamma": gamma, "zeta": zeta, "iterations": iterations,
    }  # fmt: skip
    _check_options(method, given)
    settings = resolve_sampling(prior, given)
    for key, value, least in (("members", members, 1), ("seed", seed, 0)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    networks = as_networks(observations)
    axis = window_times(networks, prior.layout, times)
    target = choose_device(device)
    chosen = {name: operator_of(name, data, operator, outside) for name, data in networks.items()}
    texts = [_operator_text(name, data, operator) for name, data in networks.items()]
    if background is not None:
        if BACKGROUND in networks:
            raise OptionError(f"found a network named '{BACKGROUND}' and background=; rename the network")
        # First, so that observations of the same state have the last word where it matters.
        networks = {BACKGROUND: background_network(background, axis)} | networks
        chosen, texts = {BACKGROUND: identity()} | chosen, [identity().to_json(), *texts]
    measured = method == "sda" and settings.gamma is None
    likelihood = [
        bind_observations(data, chosen[name], prior, axis, target, outside, measured=measured)
        for name, data in networks.items()
    ]
    guided = build_guidance(method, prior, axis, likelihood, settings, target)
    drawing = settings.build(prior.network.levels)
    attrs = _provenance(prior, networks, texts, method, seed) | _counts(networks, likelihood)
    attrs |= _settings(settings, guided) | {"evaluations_per_member": guided.cost * drawing.evaluations}
    return draw(
        guided, drawing, prior.layout, axis, attrs, members=members, seed=seed,
        store=store, batch=batch, device=target, overwrite=overwrite, progress=progress,
    )  # fmt: skip


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
    gamma, layout = options.get("gamma"), prior.layout
    if method == "jacobian_free" and not isinstance(gamma, str):
        # A number that a prior's file records is for other methods.
        small = not layout.space and times.size * layout.channels <= LARGEST
        gamma = "covariance" if small else INDEPENDENT
    if gamma == "covariance":
        gamma = PriorCovariance.estimate(torch.as_tensor(prior.reference[0], device=device), times.size)
    if gamma is not None:
        options["gamma"] = gamma
    guided = METHODS[method](prior.denoiser(times, device), likelihood, **options)
    guided.check(torch.zeros(1, times.size, layout.channels, *layout.shape, device=device))
    return guided


def _check_options(method: str, given: Mapping[str, Any]) -> None:
    if method not in METHODS:
        raise OptionError(f"method={nearest(method, METHODS)}")
    known = [name for name in METHOD_OPTIONS if name in METHODS[method].options()]
    for name in METHOD_OPTIONS:
        if given[name] is not None and name not in known:
            others = [m for m, cls in METHODS.items() if name in cls.options()]
            expected = nearest(name, known) if known else f"{name!r}, nor any other"
            raise OptionError(f"method={method!r} has no option {expected} ('{name}' is for {', '.join(others)})")
    if method == "jacobian_free" and isinstance(given["gamma"], float | int):
        raise OptionError(f"gamma={given['gamma']}, expected 'covariance' or 'independent' for method={method!r}")


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


def _settings(settings: Sampling, guided: Guidance) -> dict[str, Any]:
    """Settings of the sampler and of the method, as attributes."""
    options = {k: getattr(guided, k) for k in guided.options()}
    options = {k: "covariance" if isinstance(v, PriorCovariance) else v for k, v in options.items()}
    drawing = {k: v for k, v in asdict(settings).items() if k not in METHOD_OPTIONS}
    named = {k: "measured" if v is None else v for k, v in (drawing | options).items()}
    # Attributes of files have no booleans.
    return {f"sampling_{k}": int(v) if isinstance(v, bool) else v for k, v in named.items()}


def _provenance(
    prior: Prior, networks: Mapping[str, xr.Dataset], operators: list[str], method: str, seed: int
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for data in networks.values():
        for name in sorted(map(str, data.variables)):
            values = np.ascontiguousarray(data[name].values)
            values = values if values.dtype.kind in "biufmM" else values.astype(str)
            digest.update(name.encode() + values.tobytes())
            digest.update(str(data[name].attrs.get(ATTRIBUTE, "")).encode())
    return {
        "Conventions": "CF-1.11",
        "title": f"posterior ensemble, {method} with the prior {prior.name!r}",
        "source": "score-based data assimilation",
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "method": method,
        "seed": seed,
        "networks": list(networks),
        "operators": operators,
        "observations_sha256": digest.hexdigest(),
        "sdaxr_version": schema.version(),
    }
