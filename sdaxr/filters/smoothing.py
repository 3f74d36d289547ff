"""Posterior ensembles of trajectories, from observations and a physical model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from sdaxr.archives.ensemble import Ensemble
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.filters.base import ModelMethod
from sdaxr.filters.state_space import build_model
from sdaxr.observations.conversion import in_units, places_in_units
from sdaxr.observations.provenance import count_observations, describe_networks, fingerprint
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import (
    Observations,
    Operators,
    as_networks,
    background_network,
    operator_of,
    window_times,
)
from sdaxr.operators import identity
from sdaxr.posterior.methods import Method, build_method, describe_method, names
from sdaxr.schema import MEMBER, OptionError, check_least
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.markov import MarkovChain
from sdaxr.systems.registry import open_system


def smooth(
    observations: Observations,
    system: str | System,
    *,
    method: str | Method | Mapping[str, Any] | None = None,
    members: int = 16,
    seed: int = 0,
    store: str | Path | None = None,
    operator: Operators = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    outside: str = "error",
    units: str = "error",
    screening: Screening | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Draw whole trajectories from the posterior given observations, by a method that needs the physical model.

    Parameters
    ----------
    observations
        Observations as `sdaxr.observe` returns them; several networks as a mapping or DataTree. Each observation has to
        be an observation of one state: operators that combine several times are refused.
    system
        Name of a system with Gaussian noise, or a `sdaxr.systems.MarkovChain`.
    method
        A name or an object of `sdaxr.methods` that needs a system, or a mapping of its name and options. Default:
        ``"ffbs"``; a mapping without a name holds options of it.
    members
        Number of posterior samples.
    seed
        Seed of all random numbers. The members are drawn together, so that each member depends on ``members``.
    store
        Path of an archive (``.zarr`` or ``.nc``) to which the members are written.
    operator
        Observation operator, or one for each network. It replaces the operator in the attributes of the observations.
    times
        Times of the trajectory, at the step of the system. Default: the window in the coordinates of the observations,
        else from the first to the last observed time.
    background
        An estimate of the first state: state variables and ``<variable>_error``, one standard deviation. The background
        is used as an observation of the first state, in addition to the system's distribution of the first state.
    outside
        ``"error"``, or ``"drop"`` to leave out observations that are outside the window or off its steps.
    units
        ``"error"``, or ``"convert"`` to convert observations and their errors to the units of what the operator gives,
        and coordinates to those of the states; the attribute ``units_converted`` of the result says which.
    screening
        Further options that say which observations are used (`sdaxr.observations.screening.Screening`). Measurements
        between two steps need ``time="nearest"``; there is no background check.
    overwrite
        Replace an existing archive.
    progress
        Show a progress bar.

    Returns
    -------
    Dataset with the variables of the system on (member, time, ...). The attributes hold the provenance and diagnostics:
    ``log_evidence``, log p(y), of the filters; ``cost_before``, ``cost_after`` (means over the members) and
    ``members_not_converged`` of `FourDVar`.

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, OperatorError, ArchiveError
        If observations and system do not fit together, or the method cannot use them.
    DivergenceError
        If the likelihood of a particle is not finite.
    """
    for key, value, least in (("members", members, 1), ("seed", seed, 0)):
        check_least(key, value, least)
    chosen = build_method(method, "ffbs")
    if not isinstance(chosen, ModelMethod):
        raise OptionError(
            f"method={chosen.name!r} needs a prior, found system=; leave system= out, or choose one of "
            f"{', '.join(names('system'))}"
        )
    chosen, chain = chosen.resolve(), _chain(system)
    layout = system_layout(chain)
    how = Screening.asked(screening, outside)
    if how.gross_error is not None:
        raise OptionError("found gross_error= and system=, expected a prior, whose variance the background check needs")
    networks = as_networks(observations, layout)
    networks, moved = places_in_units(networks, layout.coordinate_attrs, units)
    axis = window_times(networks, layout, times, chain.name, how)
    operators = {name: operator_of(name, data, operator, how) for name, data in networks.items()}
    networks, converted = in_units(networks, operators, layout.template(axis), units, moved)
    attrs = _provenance(chain, chosen, seed) | describe_networks(networks, operator) | converted
    seen = networks
    if background is not None:
        attrs["background_sha256"] = fingerprint([background])
        name = "the background"
        seen, operators = seen | {name: background_network(background, axis)}, operators | {name: identity()}
    model, statuses = build_model(seen, operators, chain, axis, how)
    chosen.check(model, members)
    attrs |= count_observations(statuses[: len(networks)])
    template = layout.template(axis, {MEMBER: np.arange(members)})
    ensemble = Ensemble.create(template, attrs, store=store, overwrite=overwrite, finite=True)
    if ensemble.complete:
        return ensemble.dataset()
    drawn = chosen.draw(model, members, seed)
    for member in tqdm(sorted(ensemble.waiting), disable=not progress, desc=chosen.name, unit="member"):
        ensemble.write(member, chain.from_vectors(drawn.paths[member]))
    return ensemble.dataset(dict(drawn.about))


def _chain(system: str | System) -> MarkovChain:
    chain = open_system(system)
    if not isinstance(chain, MarkovChain):
        raise OptionError(
            f"system={chain.name!r} has no Gaussian noise, expected a sdaxr.systems.MarkovChain such as 'lorenz63': "
            "methods that need a system use the density of its transitions; train a prior for a score-based method"
        )
    return chain


def _provenance(chain: MarkovChain, method: ModelMethod, seed: int) -> dict[str, Any]:
    return provenance_attrs(
        f"posterior ensemble, {method.name} with the system {chain.name!r}",
        "data assimilation with the physical model",
        sdaxr_system=chain.name,
        sdaxr_options=json.dumps(chain.options(), sort_keys=True),
        **describe_method(method),
        seed=seed,
        references=chain.references or None,
    )
