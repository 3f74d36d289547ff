"""Posterior ensembles of trajectories, from observations and a physical model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from sdaxr.archives.ensemble import Ensemble
from sdaxr.archives.paths import Location
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.filters.base import ModelMethod
from sdaxr.filters.binding import build_model
from sdaxr.filters.ensemble import EnsembleMethod, first_ensemble
from sdaxr.filters.state_space import markov_chain
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
from sdaxr.states.axes import ensemble_dimension
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.registry import open_system


def smooth(
    observations: Observations,
    system: str | System,
    *,
    method: str | Method | Mapping[str, Any] | None = None,
    members: int = 16,
    seed: int = 0,
    store: str | Location | None = None,
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
        Name of a system, or a `sdaxr.systems.System`. `FFBS`, `BPF`, `Kalman` and `FourDVar` need one with Gaussian
        noise (`sdaxr.systems.MarkovChain`), ensemble methods take any.
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
        is used as an observation of the first state, in addition to the system's distribution of the first state. Or,
        for ensemble methods, the first states of the members: state variables on (member, ...), without errors.
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
    Dataset with the variables of the system on (member, time, ...). The attributes hold the provenance and diagnostics.
    ``members_distribution`` is ``"smoothing"`` or, where a member at some time knows the earlier observations only,
    ``"filtering"``. Further ones are ``log_evidence``, log p(y), of `Kalman` and particle filters; ``cost_before``,
    ``cost_after`` (means over the members) and ``members_not_converged`` of `FourDVar`; and of ensemble methods those
    of `sdaxr.filters.ensemble.FirstGuess`.

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, OperatorError, ArchiveError
        If observations and system do not fit together, or the method cannot use them.
    DivergenceError
        If the likelihood of a particle or a member is not finite.
    """
    for key, value, least in (("members", members, 1), ("seed", seed, 0)):
        check_least(key, value, least)
    chosen = build_method(method, "ffbs")
    if not isinstance(chosen, ModelMethod):
        raise OptionError(
            f"method={chosen.name!r} needs a prior, found system=; leave system= out, or choose one of "
            f"{', '.join(names('system'))}"
        )
    chosen, model = chosen.resolve(), open_system(system)
    if chosen.markov:
        markov_chain(model)
    layout = system_layout(model)
    how = Screening.asked(screening, outside)
    if how.gross_error is not None:
        raise OptionError("found gross_error= and system=, expected a prior, whose variance the background check needs")
    networks = as_networks(observations, layout)
    networks, moved = places_in_units(networks, layout.coordinate_attrs, units)
    axis = window_times(networks, layout, times, model.name, how)
    operators = {name: operator_of(name, data, operator, how) for name, data in networks.items()}
    networks, converted = in_units(networks, operators, layout.template(axis), units, moved)
    attrs = _provenance(model, chosen, seed) | describe_networks(networks, operator) | converted
    seen, first = networks, None
    if background is not None:
        attrs["background_sha256"] = fingerprint([background])
    if isinstance(chosen, EnsembleMethod):
        first = first_ensemble(background, model, axis, members, seed)
    if background is not None and (first is None or ensemble_dimension(background) is None):
        name = "the background"
        seen, operators = seen | {name: background_network(background, axis)}, operators | {name: identity()}
    space, statuses = build_model(seen, operators, model, axis, how, first)
    chosen.check(space, members)
    attrs |= count_observations(statuses[: len(networks)])
    template = layout.template(axis, {MEMBER: np.arange(members)})
    ensemble = Ensemble.create(template, attrs, store=store, overwrite=overwrite, finite=True)
    if ensemble.complete:
        return ensemble.dataset()
    drawn = chosen.draw(space, members, seed)
    for member in tqdm(sorted(ensemble.waiting), disable=not progress, desc=chosen.name, unit="member"):
        ensemble.write(member, model.from_vectors(drawn.paths[member]))
    return ensemble.dataset(dict(drawn.about))


def _provenance(system: System, method: ModelMethod, seed: int) -> dict[str, Any]:
    return provenance_attrs(
        f"posterior ensemble, {method.name} with the system {system.name!r}",
        "data assimilation with the physical model",
        sdaxr_system=system.name,
        sdaxr_options=json.dumps(system.options(), sort_keys=True),
        **describe_method(method),
        members_distribution=method.distribution,
        seed=seed,
        references=system.references or None,
    )
