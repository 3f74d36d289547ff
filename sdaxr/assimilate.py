"""Observations and a prior, or a physical model, make a posterior ensemble of trajectories."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from tqdm.auto import tqdm

from sdaxr import schema
from sdaxr.classical import METHODS as CLASSICAL
from sdaxr.classical import smooth
from sdaxr.ensemble import Ensemble
from sdaxr.fields import StateLayout
from sdaxr.likelihood import bind_observations
from sdaxr.operators import identity
from sdaxr.posterior.covariance import LARGEST, PriorCovariance
from sdaxr.posterior.execution import Guided, batch_size, sample_members
from sdaxr.posterior.guidance import METHODS, Guidance
from sdaxr.posterior.guidance.jacobian_free import INDEPENDENT
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import Sampler
from sdaxr.prior import Prior, open_prior, priors
from sdaxr.provenance import count_observations, describe_networks
from sdaxr.sampling import METHOD_OPTIONS, Sampling, choose_device, resolve_sampling
from sdaxr.schema import OptionError, nearest
from sdaxr.systems import System
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
    prior: str | Path | Prior | None = None,
    *,
    members: int = 16,
    seed: int = 0,
    store: str | Path | None = None,
    operator: Operators = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    method: str = "sda",
    system: str | System | None = None,
    particles: int | None = None,
    first_guess: xr.Dataset | None = None,
    gamma: float | str | None = None,
    zeta: float | None = None,
    iterations: int | None = None,
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
        Name of a shipped prior, path of a prior file, or a `Prior`; for the score-based methods.
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
        see `sdaxr.posterior.guidance`. With ``system`` in the place of the prior: ``"bpf"``, ``"ffbs"``, ``"kalman"``
        or ``"4dvar"``; see `sdaxr.classical.smooth`.
    system
        Name of a system with Gaussian noise, or a `sdaxr.systems.MarkovChain`; for those four.
    particles, first_guess
        Particles of the filter (65536 by default); trajectories that ``"4dvar"`` starts from.
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
        ``"sde-dpm++"``: stochastic and of second order, the default; ``"dpm++"``: DPM-Solver++(2M), deterministic;
        ``"ancestral"`` and ``"ddim"``: of first order; ``"exponential"``: the paper's setting as a whole.
    grid, steps
        Noise levels, ``"karras"`` (dense at high noise), ``"log-snr"`` or ``"uniform"`` (the paper's times), and their
        number.
    eta
        Amount of noise that is drawn anew on the way, for ``"sde-dpm++"`` (below the prior's standard deviation; from
        0) and ``"ddim"`` (0 to 1). More noise forgets more errors of the guidance, and needs more levels.
    corrections, tau
        Langevin corrections on each level between r = 0.1 and 3 standard deviations of the prior, and their step in
        units of the level's variance; for ``"exponential"`` on every level, with the paper's step.
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
        If the sampler does not stay finite, or a sample ends far from what the prior knows.
    """
    given = {
        "sampler": sampler, "grid": grid, "steps": steps, "eta": eta, "corrections": corrections, "tau": tau,
        "gamma": gamma, "zeta": zeta, "iterations": iterations,
    }  # fmt: skip
    if method in CLASSICAL:
        _refuse(method, {"prior": prior, "batch": batch} | given)
        if system is None:
            raise OptionError(f"method={method!r} needs a physical model, found none; pass system=, such as 'lorenz63'")
        return smooth(
            observations, system, method=method, members=members, seed=seed, store=store, operator=operator,
            times=times, particles=particles, background=background, first_guess=first_guess, outside=outside,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    _refuse(method, {"system": system, "particles": particles, "first_guess": first_guess})
    _check_options(method, given)
    if prior is None:
        raise OptionError(
            f"method={method!r} needs a prior, found none; pass one of {priors()}, or a file of sdaxr.train"
        )
    prior = open_prior(prior)
    settings = resolve_sampling(prior, given)
    for key, value, least in (("members", members, 1), ("seed", seed, 0)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    networks = as_networks(observations)
    axis = window_times(networks, prior.layout, times)
    target = choose_device(device)
    chosen = {name: operator_of(name, data, operator, outside) for name, data in networks.items()}
    if background is not None:
        if BACKGROUND in networks:
            raise OptionError(f"found a network named '{BACKGROUND}' and background=; rename the network")
        # First, so that observations of the same state have the last word where it matters.
        networks = {BACKGROUND: background_network(background, axis)} | networks
        chosen = {BACKGROUND: identity()} | chosen
    measured = method == "sda" and settings.gamma is None
    likelihood = [
        bind_observations(data, chosen[name], prior, axis, target, outside, measured=measured)
        for name, data in networks.items()
    ]
    guided = build_guidance(method, prior, axis, likelihood, settings, target)
    drawing = settings.build(prior.network.levels)
    attrs = _provenance(prior, method, seed) | describe_networks(networks, None if operator is None else chosen)
    attrs |= count_observations(networks, [o.values.shape[-1] for o in likelihood])
    attrs |= _settings(settings, guided) | {"evaluations_per_member": guided.cost * drawing.evaluations}
    return draw(
        guided, drawing, prior.layout, axis, attrs, members=members, seed=seed,
        store=store, batch=batch, device=target, overwrite=overwrite, progress=progress,
    )  # fmt: skip


def _refuse(method: str, foreign: Mapping[str, Any]) -> None:
    """Raise `OptionError` if the method is unknown, or something is given that is for other methods."""
    if method not in (*METHODS, *CLASSICAL):
        raise OptionError(f"method={nearest(method, (*METHODS, *CLASSICAL))}")
    others = ", ".join(METHODS if method in CLASSICAL else CLASSICAL)
    for key, given in foreign.items():
        if given is not None:
            raise OptionError(
                f"found {key}= beside method={method!r}, which does not use it; leave it out, or choose another method "
                f"({others})"
            )


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
    ensemble = Ensemble.create(layout, times, attrs, members=members, store=store, overwrite=overwrite)
    size = batch or batch_size(guided, shape, members, device)
    # Batches are the same in a resumed run: rounding depends on their size.
    batches = [range(first, min(first + size, members)) for first in range(0, members, size)]
    batches = [b for b in batches if ensemble.waiting.intersection(b)]
    total = sum(map(len, batches)) * sampler.evaluations
    with tqdm(total=total, disable=not progress, desc="assimilating", unit="evaluation") as bar:
        batched = sample_members(guided, sampler, batches, shape, seed=seed, device=device, tick=bar.update)
        for drawn, states in batched:
            for member, state in zip(drawn, states.numpy(), strict=True):
                ensemble.write(member, layout.to_physical(state))
    return ensemble.dataset()


def _settings(settings: Sampling, guided: Guidance) -> dict[str, Any]:
    """Settings of the sampler and of the method, as attributes."""
    options = {k: getattr(guided, k) for k in guided.options()}
    options = {k: "covariance" if isinstance(v, PriorCovariance) else v for k, v in options.items()}
    drawing = {k: v for k, v in asdict(settings).items() if k not in METHOD_OPTIONS}
    named = {k: "measured" if v is None else v for k, v in (drawing | options).items()}
    # Attributes of files have no booleans.
    return {f"sampling_{k}": int(v) if isinstance(v, bool) else v for k, v in named.items()}


def _provenance(prior: Prior, method: str, seed: int) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.11",
        "title": f"posterior ensemble, {method} with the prior {prior.name!r}",
        "source": "score-based data assimilation",
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "method": method,
        "seed": seed,
        "sdaxr_version": schema.version(),
    }
