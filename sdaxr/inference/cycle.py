r"""Cycled assimilation: one window after another, each with a background from the analysis of the window before.

The ensemble of the last analysed state is forecast by one step, with a physical model or with the prior. This forecast
is the background of the first state of the next window: it tells what the past says beyond the prior
(`sdaxr.posterior.background`). Its deviations from the mean may be inflated,

.. math:: x^b_i = \bar f + \alpha (f(x_i) - \bar f)

(Anderson & Anderson 1999, doi:10.1175/1520-0493(1999)127<2741:AMCIOT>2.0.CO;2).
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.configuration import difference
from sdaxr.archives.finished import remove, windows_of
from sdaxr.archives.format import BOOKKEEPING, STATUS
from sdaxr.archives.paths import store_path
from sdaxr.archives.reading import open_archive
from sdaxr.archives.seeds import unit_seed
from sdaxr.archives.stores import check_free, save, written_whole
from sdaxr.archives.workers import active_client
from sdaxr.inference.assimilate import assimilate, score_method
from sdaxr.inference.forecast import forecast, open_model
from sdaxr.observations.matching import observed_variables
from sdaxr.observations.places import OBS
from sdaxr.observations.provenance import describe_networks, fingerprint, sum_counts
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import (
    BACKGROUND,
    Observations,
    as_networks,
    background_ensemble,
    background_network,
    window_times,
)
from sdaxr.posterior.methods import describe_method
from sdaxr.posterior.samplers.registry import describe_sampler, resolve_sampler
from sdaxr.prior.files import Prior, open_prior
from sdaxr.schema import (
    MEMBER,
    TIME,
    ArchiveError,
    DataError,
    OptionError,
    SdaxrError,
    check_least,
    check_positive,
    nearest,
)
from sdaxr.states.coordinates import TOLERANCE
from sdaxr.states.time import elapsed
from sdaxr.systems.base import System

_log = logging.getLogger(__name__)

# Parameters of `assimilate` that `cycle` passes on, with their defaults.
_PASSED_ON = {
    key: inspect.signature(assimilate).parameters[key].default
    for key in ("method", "sampler", "operator", "outside", "units", "screening", "batch", "device", "precision")
}


def cycle(
    observations: Observations,
    prior: str | Path | Prior,
    *,
    window: int | None = None,
    lag: int = 0,
    carry: str | Path | System | Prior | None = None,
    members: int = 16,
    seed: int = 0,
    store: str | Path | None = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    inflation: float = 1.0,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Assimilate a long series of observations, one window after another.

    Between two windows the ensemble is forecast by one step. The forecast is the background of the first state of the
    next window.

    Parameters
    ----------
    observations, prior, members, times
        As in `sdaxr.assimilate`. A window without observations is sampled given its background only.
    window
        Number of states in a window. Default: the window of the prior's training. The states that remain at the end are
        a window of their own; they belong to the last full window where the network of the prior needs more states.
        With a window of one state the prior is a filter.
    lag
        Number of states after a window whose observations its estimate knows, too: a fixed-lag smoother (Moore 1973,
        doi:10.1016/0005-1098(73)90077-1). Each window is then sampled twice: with these observations for the result,
        and without them for the ensemble that is carried on, which meets them in the next window. 0: each state knows
        the observations up to the end of its window.
    carry
        The model that forecasts the ensemble from the last state of a window to the first state of the next: a system
        or a prior, as in `sdaxr.forecast`. It is checked before the first window. Default: the prior. A prior forecasts
        on ``device``, ``batch`` members at once, by the default method of `sdaxr.forecast` and the sampler that its own
        file records, because it is given complete states; ``method`` and ``sampler`` are those of the analysis.
    seed
        Seed of the samples. Each window has a seed of its own, which follows from ``seed``.
    store
        Path of the result, ``.zarr`` or ``.nc``. The windows are archives in ``<store>.windows`` until all windows are
        complete. A killed run resumes when it is run again.
    background
        An estimate of the first state of the first window: one state with its error, or an ensemble.
    inflation
        Factor on the deviations of the forecast from its mean (Anderson & Anderson 1999,
        doi:10.1175/1520-0493(1999)127<2741:AMCIOT>2.0.CO;2). A factor above 1 corrects for the small spread of small
        ensembles, and for a model that is not that of the truth.
    overwrite
        Replace an existing archive when the new archive is complete. Windows that a killed run with the same settings
        has left are kept.
    progress
        Show a progress bar for each window.
    **options
        Further parameters of `sdaxr.assimilate`: ``method``, ``sampler``, ``operator``, ``outside``, ``units``,
        ``screening``,
        ``batch``, ``device`` and ``precision``.

    Returns
    -------
    The analyses as one Dataset on (member, time, ...). Members of consecutive windows are joined by their numbers. A
    member is a trajectory within a window; from one window to the next it is continuous only within the error of the
    background.

    Raises
    ------
    OptionError
        If a number is impossible, there is no such system or option, or a network of observations has no time.
    DataError, GridError, UnitsError, PriorError
        If the first window has neither observations nor a background, or ``carry`` does not fit the prior; otherwise as
        in `sdaxr.assimilate` and `sdaxr.forecast`.
    ArchiveError
        If ``store`` holds something else, such as a cycle with other settings or observations.
    """
    opened = open_prior(prior)
    window = opened.window if window is None else window
    needed = opened.network.window or 1
    options = _complete(options)
    numbers = {
        "window": (window, needed),
        "lag": (lag, 0),
        "members": (members, 2),
        "seed": (seed, 0),
        "batch": (options["batch"], 1),
    }
    for key, (value, least) in numbers.items():
        if key != "batch" or value is not None:
            check_least(key, value, least)
    check_positive("inflation", inflation)
    guidance, sampler = score_method(opened, options["method"]), resolve_sampler(opened, options["sampler"])
    how = Screening.asked(options["screening"], options["outside"])
    options |= {"method": guidance, "sampler": sampler, "screening": how, "outside": how.outside}
    networks = as_networks(observations, opened.layout)
    axis = window_times(networks, opened.layout, times, screening=how)
    model = opened if carry is None else _carrier(carry, opened, axis.values[0])
    of_carrier = {} if isinstance(model, System) else {key: options[key] for key in ("batch", "device")}
    about = {
        "prior_sha256": opened.sha256, "seed": seed, "observations_sha256": fingerprint(networks.values()),
        "cycle_times": f"{axis.values[0]} to {axis.values[-1]}", "cycle_window": window, "cycle_lag": lag,
        "cycle_carry": _named(model),
        "cycle_background": "none" if background is None else fingerprint([background]), "cycle_members": members,
        "cycle_inflation": float(inflation), **{key: options[key] for key in ("precision", "outside", "units")},
        "screening": how.to_json(),
        "cycle_operators": json.dumps(describe_networks(networks, options["operator"])["operators"]),
        **describe_method(guidance), **describe_sampler(sampler),
    }  # fmt: skip
    store = None if store is None else store_path(store)
    if store is not None and store.exists() and not overwrite:
        return _finished(store, about)
    check_free(store, overwrite)
    starts = list(range(0, axis.size, window))
    if len(starts) > 1 and axis.size - starts[-1] < needed:
        starts.pop()
    parts = list(pairwise([*starts, axis.size]))
    folder = None if store is None else _windows_folder(store, about, overwrite)
    # An opened prior keeps what is measured on its held-out states, for all windows. Workers open the prior themselves.
    source = opened if active_client() is None else prior
    series = _Series(networks, axis, how, source, members, folder, progress, options)
    analyses, attrs = [], []
    for number, (first, end) in enumerate(parts):
        _log.info("window %d of %d", number + 1, len(parts))
        own = series.analyse((first, end), background, f"{number:05d}", unit_seed(seed, number))
        attrs.append(own.attrs)
        later, found = min(end + lag, axis.size), own
        if later > end:
            # The ensemble that is carried on has not seen what follows, which the next window sees.
            found = series.analyse((first, later), background, f"{number:05d}-smoothed", unit_seed(seed, number))
        analyses.append(found.isel({TIME: slice(0, end - first)}))
        if end < axis.size:
            last = own.isel({TIME: slice(0, end - first)})
            ahead = forecast(last, model, steps=1, seed=unit_seed(seed, number), progress=False, **of_carrier)
            background = inflated(ahead, axis[end : end + 1], inflation)
    joined = xr.concat(analyses, TIME, data_vars="minimal", coords="minimal", compat="override", join="override")
    joined = joined.drop_vars(STATUS, errors="ignore")
    joined.attrs = {k: v for k, v in analyses[0].attrs.items() if k not in BOOKKEEPING}
    joined.attrs |= describe_networks(networks, options["operator"]) | about
    joined.attrs |= sum_counts(list(networks), attrs)
    if store is None or folder is None:
        return joined.load()
    save(joined, store, overwrite=overwrite)
    remove(folder)
    return open_archive(store)


@dataclass(frozen=True)
class _Series:
    """What the assimilations of all windows have in common."""

    networks: Mapping[str, xr.Dataset]
    axis: xr.DataArray
    screening: Screening
    prior: str | Path | Prior
    members: int
    folder: Path | None
    progress: bool
    options: Mapping[str, Any]

    def analyse(self, part: tuple[int, int], background: xr.Dataset | None, name: str, seed: int) -> xr.Dataset:
        """The ensemble of the states ``part[0]`` to ``part[1] - 1`` at least, given their observations."""
        seen: dict[str, xr.Dataset] = {}
        last, options = part[1], dict(self.options)
        for network, data in self.networks.items():
            chosen, reach = within(network, data, self.axis, part, self.screening)
            seen |= {} if chosen is None else {network: chosen}
            last = max(last, reach)
        times = self.axis.isel({TIME: slice(part[0], last)})
        if not seen:
            if background is None:
                raise DataError(
                    "found no observation in the first window, expected at least one, or background=; pass times= to "
                    "begin at the first observation"
                )
            if background_ensemble(background, times) is None:
                seen, background = {BACKGROUND: background_network(background, times)}, None
                # The background is observed through the identity, and not through the operator of the observations.
                options["operator"] = None
        return assimilate(
            seen, self.prior, times=times, members=self.members, seed=seed, background=background,
            store=self.folder and self.folder / f"{name}.zarr", progress=self.progress, **options,
        )  # fmt: skip


def _complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are passed on to `assimilate`, with its defaults for those that are not given."""
    own = [name for name, p in inspect.signature(cycle).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in options:
        if key not in _PASSED_ON:
            raise OptionError(f"unknown option of cycle: {nearest(key, [*own, *_PASSED_ON])}")
    return _PASSED_ON | dict(options)


def _carrier(carry: str | Path | System | Prior, prior: Prior, start: Any) -> System | Prior:
    """The model that forecasts the ensemble, checked on the labels of two states of the prior before any sampling."""
    layout = prior.layout
    try:
        return open_model(carry, layout.template(layout.times(start, 2))[prior.states])
    except SdaxrError as error:
        raise type(error)(f"carry= cannot forecast states of the prior {prior.name!r}: {error}") from error


def _named(model: System | Prior) -> str:
    if isinstance(model, System):
        return f"{model.name} {json.dumps(model.options(), sort_keys=True)}"
    return f"{model.name} {model.sha256}"


def _finished(store: str | Path, about: dict[str, Any]) -> xr.Dataset:
    """The finished archive of an earlier call; an error if its settings were different."""
    found = open_archive(store)
    _check_same(store, found.attrs, about)
    return found


def _windows_folder(store: str | Path, about: dict[str, Any], overwrite: bool) -> Path:
    """Folder of the windows. The windows of a killed call are kept if the settings are the same."""
    folder = windows_of(Path(store))
    note = folder / "cycle.json"
    if note.exists():
        recorded = json.loads(note.read_text())
        if overwrite and difference(recorded, about):
            remove(folder)
        else:
            _check_same(folder, recorded, about)
    if not note.exists():
        with written_whole(note, overwrite=True) as unfinished:
            unfinished.write_text(json.dumps(about, indent=1))
    return folder


def _check_same(where: str | Path, recorded: Mapping[Any, Any], about: Mapping[str, Any]) -> None:
    # Attributes of NetCDF files are numpy scalars.
    known = {key: recorded[key] for key in about if key in recorded}
    known = {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}
    changes = difference(known, about)
    if changes:
        raise ArchiveError(
            f"'{where}' was made with another configuration (there -> in this run): {changes}. Choose another store, "
            "or pass overwrite=True"
        )


def within(
    name: str, data: xr.Dataset, axis: xr.DataArray, part: tuple[int, int], screening: Screening
) -> tuple[xr.Dataset | None, int]:
    """The observations of a network that belong to a window, the states ``part[0]`` to ``part[1] - 1`` of ``axis``.

    Measurements between the last state of a window and the next state belong to the window, which then has this state,
    too. The first and the last window have all observations that lie before and after ``axis``.

    Returns
    -------
    data, end
        The observations, None if there is none; and the number of the first state that the window does not need.
    """
    dim = OBS if OBS in data.dims else TIME
    if TIME not in data.coords or data[TIME].dims != (dim,):
        raise OptionError(
            f"the network '{name}' has no times of its own (dimensions {tuple(map(str, data.dims))}), expected the "
            "time of each observation, by which the network is split into windows; assimilate this network as a whole"
        )
    first, end = part
    place = _places(data[TIME], axis)
    between = dim == OBS and screening.time == "linear"
    number = np.floor(place + TOLERANCE) if between else np.round(place)
    chosen = ((number >= first) | (first == 0)) & ((number < end) | (end == axis.size))
    found = data.isel({dim: np.flatnonzero(chosen)})
    if not any(bool(np.isfinite(found[v]).any()) for v in observed_variables(found)):
        return None, end
    beyond = between and end < axis.size and bool((place[chosen] > end - 1 + TOLERANCE).any())
    return found.drop_vars("window", errors="ignore"), end + beyond


def _places(times: xr.DataArray, axis: xr.DataArray) -> np.ndarray:
    """Numbers of the steps of ``axis`` at ``times``, not whole between two steps; below 0 before the first one."""
    apart, steps = elapsed(times, axis.values[0]), elapsed(axis, axis.values[0])
    mean = steps[-1] / (steps.size - 1) if steps.size > 1 else 1.0
    place = np.interp(apart, steps, np.arange(steps.size))
    return np.asarray(place + np.where(apart < 0, apart, (apart - steps[-1]).clip(min=0.0)) / mean)


def inflated(ahead: xr.Dataset, time: xr.DataArray, inflation: float) -> xr.Dataset:
    """The ensemble of a forecast by one step, at ``time`` (1,), with inflated deviations from its mean."""
    first = ahead.isel(lead_time=0, drop=True).drop_vars(["init_time", "valid_time"], errors="ignore")
    with xr.set_options(keep_attrs=True):
        mean = first.mean(MEMBER)
        return (mean + inflation * (first - mean)).expand_dims({TIME: time})
