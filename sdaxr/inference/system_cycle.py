"""Cycled assimilation with a physical model: the ensemble goes on from window to window.

An ensemble method analyses a window. A forecast of the members by one step, from the last state of the window, is the
first ensemble of the next window. A filter in windows is the filter of the whole series, but for its random numbers and
the single precision of states. A smoother knows the observations of a window only: of a long series it knows more in
long windows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.paths import Location
from sdaxr.archives.seeds import unit_seed
from sdaxr.filters.ensemble import ADAPTIVE, EnsembleMethod
from sdaxr.filters.smoothing import smooth
from sdaxr.inference.place import Place
from sdaxr.inference.windows import joined, named, settings_of, within
from sdaxr.observations.provenance import describe_networks
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import Observations, Operators, as_networks, window_times
from sdaxr.posterior.methods import Method, build_method, describe_method
from sdaxr.schema import MEMBER, TIME, OptionError, check_least
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.registry import open_system

_log = logging.getLogger(__name__)

METHOD = "etkf"
"""Name of the default method."""

_WINDOW = 64


def cycle_system(
    observations: Observations,
    system: str | System,
    *,
    window: int | None = None,
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
    """Assimilate a long series of observations by an ensemble method, one window after another.

    Parameters
    ----------
    observations, system, method, members, operator, times, background, outside, units, screening
        As of `sdaxr.filters.smoothing.smooth`; the method is an ensemble method, by default ``"etkf"``.
    window, seed, store, overwrite, progress
        As of `sdaxr.cycle`.

    Returns
    -------
    The ensembles as one Dataset on (member, time, ...).

    Raises
    ------
    OptionError
        If the method is no ensemble method, or a number is impossible.
    DataError, GridError, UnitsError, OperatorError, ArchiveError, DivergenceError
        As of `sdaxr.filters.smoothing.smooth`, and of `sdaxr.cycle`.
    """
    size = _WINDOW if window is None else window
    for key, value, least in (("window", size, 1), ("members", members, 2), ("seed", seed, 0)):
        check_least(key, value, least)
    model, chosen = open_system(system), ensemble_method(method).resolve()
    layout = system_layout(model)
    how = Screening.asked(screening, outside)
    networks = as_networks(observations, layout)
    axis = window_times(networks, layout, times, model.name, how)
    about = settings_of(networks, axis, operator, background, window=size, members=members, carry=named(model))
    about |= {"seed": seed, "units": units, "screening": how.to_json(), "outside": how.outside}
    about |= describe_method(chosen)
    place = Place.open(store, about, overwrite)
    if isinstance(place, xr.Dataset):
        return place
    analyses: list[xr.Dataset] = []
    parts = list(pairwise([*range(0, axis.size, size), axis.size]))
    for number, (first, end) in enumerate(parts):
        chosen_data = {name: within(name, data, axis, (first, end), how)[0] for name, data in networks.items()}
        seen = {name: data for name, data in chosen_data.items() if data is not None}
        if not seen:
            # Nothing is observed: the same networks without a value.
            seen = {name: data.where(False).assign_attrs(data.attrs) for name, data in networks.items()}
        _log.info("window %d of %d: %d networks of observations", number + 1, len(parts), len(seen))
        with place.in_use():
            analysis = smooth(
                seen, model, method=chosen, members=members, seed=unit_seed(seed, number), operator=operator,
                times=axis[first:end], background=background, outside=outside, units=units, screening=how,
                store=place.part(f"{number:05d}"), overwrite=False, progress=progress,
            )  # fmt: skip
            analyses.append(analysis)
            if end < axis.size:
                chosen = chosen.continued(analysis.attrs)
                background = _carried(analysis, model, axis[end : end + 1], unit_seed(seed, number))
    attrs = describe_networks(networks, operator) | about | _first_guess(analyses)
    return joined(analyses, list(networks), attrs, place)


def ensemble_method(method: str | Method | Mapping[str, Any] | None) -> EnsembleMethod:
    """The method as an object, by default `METHOD`, which has to carry an ensemble from window to window.

    Raises
    ------
    OptionError
        If it is no ensemble method; if its name or an option is unknown or impossible.
    """
    chosen = build_method(method, METHOD)
    if not isinstance(chosen, EnsembleMethod):
        raise OptionError(
            f"method={chosen.name!r} carries no ensemble from window to window, expected an ensemble method such as "
            f"{METHOD!r}; assimilate the whole series with sdaxr.assimilate"
        )
    return chosen


def _carried(analysis: xr.Dataset, system: System, time: xr.DataArray, seed: int) -> xr.Dataset:
    """The first ensemble of the next window, at ``time`` (1,): a forecast of the last states by one step."""
    layout, last = system_layout(system), analysis.isel({TIME: -1})
    states = system.to_vectors({n: last[n].transpose(MEMBER, *layout.dims(n)).values for n in layout.variables})
    later = system.advance_ensemble(states, 1, np.random.default_rng([seed, 5]))[0]
    template = layout.template(time, {MEMBER: analysis[MEMBER].values})
    fields = system.from_vectors(later)
    return template.assign({n: (v.dims, fields[str(n)][:, None], v.attrs) for n, v in template.data_vars.items()})


def _first_guess(analyses: Sequence[xr.Dataset]) -> dict[str, float]:
    """Statistics of first guesses of all windows, roots of means over the observations; and the last inflation."""
    counts = [sum(np.atleast_1d(analysis.attrs["observations_used"])) for analysis in analyses]
    names = dict.fromkeys(n for analysis in analyses for n in analysis.attrs if str(n).startswith("first_guess_"))
    found = {ADAPTIVE: float(analyses[-1].attrs[ADAPTIVE])} if ADAPTIVE in analyses[-1].attrs else {}
    for name in map(str, names):
        squares = [count * float(a.attrs.get(name, 0.0)) ** 2 for a, count in zip(analyses, counts, strict=True)]
        found[name] = float(np.sqrt(sum(squares) / sum(counts)))
    return found
