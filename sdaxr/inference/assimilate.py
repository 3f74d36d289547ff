"""Observations and a prior, or a physical model, make a posterior ensemble of trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from sdaxr import schema
from sdaxr.archives.archive import Archive
from sdaxr.archives.ensemble import Ensemble
from sdaxr.archives.workers import active_client, map_units
from sdaxr.filters.smoothing import METHODS as CLASSICAL
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
from sdaxr.posterior.covariance.modal import ModalCovariance
from sdaxr.posterior.covariance.trajectory import PriorCovariance
from sdaxr.posterior.execution import batch_size, sample_batch
from sdaxr.posterior.guidance import METHODS, Guidance
from sdaxr.posterior.settings import METHOD_OPTIONS, Sampling, resolve_sampling
from sdaxr.prior.files import Prior, open_prior, priors
from sdaxr.schema import MEMBER, OptionError, nearest
from sdaxr.systems.base import System


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
    corrector: bool | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    corrections: int | None = None,
    tau: float | None = None,
    attempts: int | None = None,
    stride: int | None = None,
    precision: str | None = None,
    outside: str = "error",
    batch: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Sample whole trajectories from the posterior given observations.

    Batches of members run in this process or, where there is an active `distributed.Client`, on its workers; give each
    one thread, or one GPU (``dask worker --nthreads 1 --resources "GPU=1"``). They open the prior by themselves, from
    its name or path, and write into the archive side by side.

    Parameters
    ----------
    observations
        What `sdaxr.observe` returns, or your own in the same form; several networks as a mapping or DataTree. The
        attribute ``distribution`` of ``<variable>_error`` names the family of errors that are not Gaussian
        (`sdaxr.observations.noise`). Methods use its density (`sdaxr.posterior.mixture`), but ``"dmps"`` and ``"dps"``,
        and ``"kalman"`` and ``"4dvar"``, which refuse them.
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
        network of observations (`sdaxr.observations.window.background_network`).
    method
        ``"sda"`` (Rozet & Louppe 2023), ``"bounded"`` (its variance bounded by the prior's), ``"mmps"`` (Rozet et al.
        2024), ``"jacobian_free"`` (an analysis step on the denoised state), ``"dmps"`` (Meng & Kabashima 2022, linear
        operators), ``"soad"`` (Li et al. 2024; what is observed is part of the state) or ``"dps"`` (Chung et al. 2023);
        see `sdaxr.posterior.guidance`. With ``system`` in the place of the prior: ``"bpf"``, ``"ffbs"``, ``"kalman"``
        or ``"4dvar"``; see `sdaxr.filters.smooth`.
    system
        Name of a system with Gaussian noise, or a `sdaxr.systems.MarkovChain`; for those four.
    particles, first_guess
        Particles of the filter (65536 by default); trajectories that ``"4dvar"`` starts from.
    gamma
        Of ``"sda"``: a number, Gamma in units of the variance of what is observed; ``"covariance"``, from the prior's
        covariance in time (state vectors); by default what it stands for is measured on states that the prior carries,
        for fields with spectral preconditioning as a covariance (`sdaxr.posterior.covariance.modal`), else as a
        variance (`sdaxr.posterior.covariance.unresolved`). Of ``"bounded"``: a number. Of ``"jacobian_free"``:
        ``"covariance"`` (default for state vectors), ``"independent"``, or nothing for the measured covariance of
        fields. Of ``"soad"``: ``"bounded"``, the paper's variance, or nothing for the measured covariance of fields.
    zeta
        Of ``"dps"``: length of its steps.
    iterations
        Of ``"mmps"``: Krylov steps, each one product with the network's Jacobian.
    corrector
        Of ``"soad"``: whether what is observed is replaced by the noised observations as long as the noise is larger
        than their errors (the paper's forward-diffusion corrector; default).
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
        Langevin corrections on each level between r = 0.1 and 3 standard deviations of the prior (or where its file
        says), and the time of each, in which the noise forgets 1 - exp(-tau) of itself; for ``"exponential"`` on every
        level, with the paper's step.
    attempts
        Samples that end where the observations exclude them (`Guidance.misfit`) are drawn again, until there have been
        this many; the nearest is kept. Default 3, and 1 for ``"exponential"``.
    stride
        Of priors with a network on windows: states from one window to the next; 1 (default) is the paper's composition,
        the window evaluates no state twice; see `sdaxr.prior.blanket`.
    precision
        ``"float32"``, ``"bfloat16"`` for the layers of the network, or ``"auto"``, which takes that for fields on a GPU
        and on processors that have instructions for it.
    outside
        ``"error"``, or ``"drop"`` to leave out observations that are outside the window or off its steps.
    batch
        Members at once; by default as many as fit in memory, and no more than leave some for every worker.
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
        "attempts": attempts, "stride": stride, "precision": precision,
        "gamma": gamma, "zeta": zeta, "iterations": iterations, "corrector": corrector,
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
    opened = open_prior(prior)
    settings = resolve_sampling(opened, given)
    for key, value, least in (("members", members, 1), ("seed", seed, 0), ("attempts", settings.attempts, 1)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    networks = as_networks(observations)
    axis = window_times(networks, opened.layout, times)
    chosen = {name: operator_of(name, data, operator, outside) for name, data in networks.items()}
    if background is not None:
        if BACKGROUND in networks:
            raise OptionError(f"found a network named '{BACKGROUND}' and background=; rename the network")
        # First, so that observations of the same state have the last word where it matters.
        networks = {BACKGROUND: background_network(background, axis)} | networks
        chosen = {BACKGROUND: identity()} | chosen
    problem = Problem(networks, chosen, prior, axis, method, settings, outside, device)
    attrs = _provenance(opened, method, seed) | describe_networks(networks, None if operator is None else chosen)
    attrs |= count_observations(networks, [o.values.shape[-1] for o in problem.likelihood])
    attrs |= _settings(settings, problem.guided)
    attrs |= {"evaluations_per_member": problem.guided.cost * problem.sampler.evaluations}
    return draw(
        problem, attrs, members=members, seed=seed, store=store, batch=batch, overwrite=overwrite, progress=progress
    )


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


def _check_options(method: str, given: Mapping[str, Any]) -> None:
    known = [name for name in METHOD_OPTIONS if name in METHODS[method].options()]
    for name in METHOD_OPTIONS:
        if given[name] is not None and name not in known:
            others = [m for m, cls in METHODS.items() if name in cls.options()]
            expected = nearest(name, known) if known else f"{name!r}, nor any other"
            raise OptionError(f"method={method!r} has no option {expected} ('{name}' is for {', '.join(others)})")
    words = {"jacobian_free": "'covariance' or 'independent'", "soad": "'bounded'"}.get(method)
    if words and isinstance(given["gamma"], float | int):
        raise OptionError(f"gamma={given['gamma']}, expected {words} for method={method!r}")


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
    total = sum(map(len, batches)) * problem.sampler.evaluations
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
    tick: Callable[[int], Any] = lambda n: None,
) -> dict[int, dict[str, np.ndarray]]:
    """Sample the members of one batch into the archive, each into its own region; without one, return their fields."""
    members = batches[number]
    states = sample_batch(
        problem.guided, problem.sampler, members, problem.shape, seed=seed, device=problem.target,
        attempts=problem.settings.attempts, tick=tick,
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


def _settings(settings: Sampling, guided: Guidance) -> dict[str, Any]:
    """Settings of the sampler and of the method, as attributes."""
    options = {k: getattr(guided, k) for k in guided.options()}
    if "gamma" in options and isinstance(options["gamma"], PriorCovariance | ModalCovariance):
        options["gamma"] = "covariance" if isinstance(options["gamma"], PriorCovariance) else "measured"
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
        "sdaxr_version": schema.VERSION,
    }
