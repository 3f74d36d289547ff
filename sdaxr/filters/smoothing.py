"""Observations and a physical model make a posterior ensemble of trajectories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from sdaxr import schema
from sdaxr.archives.ensemble import Ensemble
from sdaxr.filters.bpf import PARTICLES, genealogies, particle_filter
from sdaxr.filters.ffbs import backward_simulation
from sdaxr.filters.fourdvar import minimise
from sdaxr.filters.kalman import draw_trajectories, kalman_filter
from sdaxr.filters.state_space import StateSpaceModel, build_model
from sdaxr.observations.provenance import count_observations, describe_networks, fingerprint
from sdaxr.observations.window import (
    Observations,
    Operators,
    as_networks,
    background_network,
    operator_of,
    window_times,
)
from sdaxr.operators import identity
from sdaxr.schema import MEMBER, TIME, DataError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import match_times
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.markov import MarkovChain
from sdaxr.systems.registry import open_system

METHODS = ("bpf", "ffbs", "kalman", "4dvar")

Result = tuple[np.ndarray, dict[str, Any]]


def smooth(
    observations: Observations,
    system: str | System,
    *,
    method: str = "ffbs",
    members: int = 16,
    seed: int = 0,
    store: str | Path | None = None,
    operator: Operators = None,
    times: Any = None,
    particles: int | None = None,
    background: xr.Dataset | None = None,
    first_guess: xr.Dataset | None = None,
    outside: str = "error",
    overwrite: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Draw whole trajectories from the posterior given observations, by a method that needs the physical model.

    Parameters
    ----------
    observations
        What `sdaxr.observe` returns, or your own in the same form; several networks as a mapping or DataTree. Every
        observation is of one state: operators that join several times are refused. Errors that are not Gaussian
        (attribute ``distribution``, `sdaxr.observations.noise`) are for ``"bpf"`` and ``"ffbs"``.
    system
        Name of a system with Gaussian noise, or a `sdaxr.systems.MarkovChain`.
    method
        ``"bpf"``, ``"ffbs"``, ``"kalman"`` or ``"4dvar"``; see `sdaxr.filters`.
    members
        Number of posterior samples.
    seed
        Of all random numbers. The members are drawn together: with another number of them, each is another one.
    store
        Path of a Zarr archive that the members are streamed to.
    operator
        Observation operator, or one a network, in the place of the one that the observations carry.
    times
        Times of the trajectory, at the system's step. Default: the window that the observations carry, else from the
        first to the last observed time.
    particles
        Particles of the filter (``"bpf"``, ``"ffbs"``, and ``"4dvar"`` without a first guess); 65536 by default. They
        are kept for all times, in double precision.
    background
        What is known of the first state beside the observations: its variables and ``<variable>_error``, one standard
        deviation. It counts as an observation of the first state: the system's own distribution of that state stays.
    first_guess
        For ``"4dvar"``: trajectories to start from, such as a posterior; by default draws of ``"ffbs"``.
    outside
        ``"error"``, or ``"drop"`` to leave out observations that are outside the window or off its steps.
    overwrite
        Replace an archive that is there.
    progress
        Show a progress bar.

    Returns
    -------
    Dataset with the system's variables on (member, time, ...); provenance in the attributes, among them
    ``log_evidence``, log p(y), where the method has it. ``"4dvar"``: ``cost_before``, ``cost_after`` (mean over the
    members) and ``members_not_converged``.

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, OperatorError, ArchiveError
        If observations and system do not fit together, or the method does not fit them.
    DivergenceError
        If the likelihood of a particle is not finite.
    """
    if method not in METHODS:
        raise OptionError(f"method={nearest(method, METHODS)}")
    for key, value, least in (("members", members, 1), ("seed", seed, 0), ("particles", particles or PARTICLES, 2)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    _check_use(method, particles, first_guess)
    chain = _chain(system)
    layout = system_layout(chain)
    networks = as_networks(observations)
    axis = window_times(networks, layout, times, model=chain.name)
    chosen = {name: operator_of(name, data, operator, outside) for name, data in networks.items()}
    attrs = _provenance(chain, method, seed) | describe_networks(networks, operator)
    if method != "kalman" and first_guess is None:
        attrs["particles"] = particles or PARTICLES
    guess, seen = None, networks
    if first_guess is not None:
        guess = _trajectories(first_guess, layout, axis, members)
        attrs["first_guess_sha256"] = fingerprint([first_guess])
    if background is not None:
        attrs["background_sha256"] = fingerprint([background])
        name = "the background"
        seen, chosen = seen | {name: background_network(background, axis)}, chosen | {name: identity()}
    model, used = build_model(seen, chosen, chain, axis, outside)
    if method in ("kalman", "4dvar"):
        model.check_gaussian(method)
    attrs |= count_observations(networks, used[: len(networks)])
    template = layout.template(axis, {MEMBER: np.arange(members)})
    ensemble = Ensemble.create(template, attrs, store=store, overwrite=overwrite, finite=True)
    if ensemble.complete:
        return ensemble.dataset()
    paths, about = _draw(model, method, members, seed, particles or PARTICLES, guess)
    for member in tqdm(sorted(ensemble.waiting), disable=not progress, desc=method, unit="member"):
        ensemble.write(member, chain.from_vectors(paths[member]))
    return ensemble.dataset(about)


def _draw(
    model: StateSpaceModel, method: str, members: int, seed: int, particles: int, first_guess: np.ndarray | None
) -> Result:
    """Trajectories (members, time, n), and what is known at the end."""
    if method == "kalman":
        kalman = kalman_filter(model)
        return draw_trajectories(kalman, members, seed), {"log_evidence": kalman.log_evidence}
    if method == "4dvar":
        if first_guess is None:
            first_guess, _ = _draw(model, "ffbs", members, seed, particles, None)
        found = minimise(model, first_guess)
        return found.states, {
            "cost_before": float(found.before.mean()),
            "cost_after": float(found.after.mean()),
            "members_not_converged": int((~found.converged).sum()),
        }
    filtered = particle_filter(model, particles, seed)
    about = {"log_evidence": filtered.log_evidence, "smallest_effective_number_of_particles": filtered.effective}
    if method == "bpf":
        return genealogies(filtered, members, seed), about
    return backward_simulation(model.system, filtered, members, seed), about


def _chain(system: str | System) -> MarkovChain:
    chain = open_system(system)
    if not isinstance(chain, MarkovChain):
        raise OptionError(
            f"system={chain.name!r} has no Gaussian noise, expected a sdaxr.systems.MarkovChain such as "
            "'lorenz63': the classical methods need the density of a transition; train a prior for a score-based method"
        )
    return chain


def _check_use(method: str, particles: int | None, first_guess: xr.Dataset | None) -> None:
    if first_guess is not None and method != "4dvar":
        raise OptionError(f"first_guess= is for method='4dvar', found method={method!r}; leave it out")
    if particles is not None and (method == "kalman" or first_guess is not None):
        raise OptionError(
            "particles= is for method='bpf', 'ffbs', and '4dvar' without first_guess=, found "
            f"method={method!r}; leave it out"
        )


def _trajectories(data: xr.Dataset, layout: StateLayout, times: xr.DataArray, members: int) -> np.ndarray:
    """The first guess as vectors, (members, time, n)."""
    if TIME not in data.dims or TIME not in data.coords:
        raise DataError(
            f"first_guess= has the dimensions {list(map(str, data.dims))}, expected 'time' with a coordinate"
        )
    places = match_times(times, data[TIME], of="the window", like="first_guess=")
    if (places < 0).any():
        raise DataError(
            f"first_guess= has no state at {times.values[places < 0][0]}, nor at {int((places < 0).sum()) - 1} other "
            "times of the window, expected all of them; pass times= to choose the window"
        )
    ensemble = ensemble_dimension(data)
    count = 1 if ensemble is None else data.sizes[ensemble]
    if count < members:
        raise DataError(f"first_guess= has {count} members, expected at least members={members}; ask for {count}")
    chosen = data.isel({TIME: places})
    array = layout.to_array(chosen if ensemble is None else chosen.isel({ensemble: slice(members)}))
    return array.reshape(members, times.size, -1).astype(float)


def _provenance(chain: MarkovChain, method: str, seed: int) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.11",
        "title": f"posterior ensemble, {method} with the system {chain.name!r}",
        "source": "data assimilation with the physical model",
        "sdaxr_system": chain.name,
        "sdaxr_options": json.dumps(chain.options(), sort_keys=True),
        "method": method,
        "seed": seed,
        "sdaxr_version": schema.VERSION,
        **({"references": chain.references} if chain.references else {}),
    }
