"""Assimilation window after window, each from the ensemble of the last one.

Between two windows the ensemble is carried one step ahead, by a physical model or by the prior itself. Its mean and
spread there are the background of the first state of the next window: what the past says, beside the observations.
Errors of the background are taken for independent of each other, as its few members cannot say how they are correlated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.configuration import difference
from sdaxr.archives.finished import remove, windows_of
from sdaxr.archives.format import BOOKKEEPING, STATUS
from sdaxr.archives.reading import open_archive
from sdaxr.archives.seeds import unit_seed
from sdaxr.archives.stores import check_free, save, written_whole
from sdaxr.archives.workers import active_client
from sdaxr.inference.assimilate import assimilate
from sdaxr.inference.forecast import forecast, open_model
from sdaxr.observations.matching import ERROR, OBS, observed_variables
from sdaxr.observations.provenance import describe_networks, fingerprint
from sdaxr.observations.window import BACKGROUND, Observations, as_networks, background_network, window_times
from sdaxr.prior.files import Prior, open_prior
from sdaxr.schema import MEMBER, TIME, ArchiveError, DataError, OptionError, SdaxrError
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import elapsed
from sdaxr.systems.base import System

log = logging.getLogger(__name__)

# The least spread that a background is given, in standard deviations of the prior: an ensemble of few members that
# happen to agree knows no more than this.
_LEAST = 1e-2


def cycle(
    observations: Observations,
    prior: str | Path | Prior,
    *,
    window: int | None = None,
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
    """Assimilate a long series of observations window after window.

    Parameters
    ----------
    observations, prior, members, times
        As in `sdaxr.assimilate`. A window without observations is carried on by its background alone.
    window
        States a window; default: the window of the prior's training. What is left over at the end is a window of its
        own, or belongs to the last one where the prior is one of windows and needs more states.
    carry
        What takes the ensemble from the last state of a window to the first of the next: a system or a prior, as in
        `sdaxr.forecast`; it is checked before the first window. Default: the prior.
    seed
        Of the samples; each window has a seed of its own.
    store
        Path of the result, ``.zarr`` or ``.nc``. Windows are archives of their own in ``<store>.windows`` until all of
        them are there, so that a killed run goes on when it is run again.
    background
        An estimate of the first state of all, with its error.
    inflation
        Factor on the ensemble's spread where it becomes the error of a background; more than 1 keeps small ensembles
        from trusting themselves too much, and fields, whose errors are not independent, from counting the same
        information many times (2 in ``recipes/quasigeostrophic/cycling.py``).
    overwrite
        Make an archive that is there anew; it stays until the new one is complete. Windows of the same settings that
        a killed run has left are kept.
    progress
        Show a progress bar for each window.
    **options
        Further options of `sdaxr.assimilate`, such as ``method`` and ``steps``.

    Returns
    -------
    The analyses as one Dataset on (member, time, ...). Members are joined in the order of their numbers: within a
    window each is a trajectory, between two of them there is one only as far as the background says.

    Raises
    ------
    OptionError
        If a number is impossible, there is no such system, or a network of observations has no time.
    DataError, GridError, UnitsError, PriorError
        If the first window has neither observations nor a background, or ``carry`` does not fit the prior; else as
        `sdaxr.assimilate` and `sdaxr.forecast`.
    ArchiveError
        If ``store`` holds something else, such as a cycle with other settings or observations.
    """
    opened = open_prior(prior)
    window = opened.window if window is None else window
    needed = opened.network.window or 1
    for key, value, least in (("window", window, needed), ("members", members, 2)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    if not inflation > 0:
        raise OptionError(f"inflation={inflation}, expected a positive number")
    networks = as_networks(observations)
    axis = window_times(networks, opened.layout, times)
    model = opened if carry is None else _carrier(carry, opened, axis.values[0])
    about = {
        "prior_sha256": opened.sha256, "seed": seed, "observations_sha256": fingerprint(networks.values()),
        "cycle_times": f"{axis.values[0]} to {axis.values[-1]}", "cycle_window": window, "cycle_carry": _named(model),
        "cycle_background": "none" if background is None else fingerprint([background]), "cycle_members": members,
        "cycle_inflation": float(inflation), "cycle_options": json.dumps(options, sort_keys=True, default=str),
    }  # fmt: skip
    if store is not None and Path(store).exists() and not overwrite:
        return _finished(store, about)
    check_free(store, overwrite)
    starts = list(range(0, axis.size, window))
    if len(starts) > 1 and axis.size - starts[-1] < needed:
        starts.pop()
    parts = [axis.isel({TIME: slice(*ends)}) for ends in pairwise([*starts, axis.size])]
    folder = None if store is None else _windows_folder(store, about, overwrite)
    # What is measured of an opened prior is measured once; workers open it by themselves.
    source = opened if active_client() is None else prior
    analyses = []
    for number, part in enumerate(parts):
        seen = {n: d for n, data in networks.items() if (d := within(n, data, part, opened.layout.time.step))}
        log.info("window %d of %d: %d networks of observations", number + 1, len(parts), len(seen))
        if not seen:
            if background is None:
                raise DataError(
                    "found no observation in the first window, expected some, or background=; pass times= to begin "
                    "where the observations do"
                )
            seen, background = {BACKGROUND: background_network(background, part)}, None
        analyses.append(
            assimilate(
                seen, source, times=part, members=members, seed=unit_seed(seed, number), background=background,
                store=folder and folder / f"{number:05d}.zarr", progress=progress, **options,
            )
        )  # fmt: skip
        if part is not parts[-1]:
            ahead = forecast(analyses[-1], model, steps=1, seed=unit_seed(seed, number), progress=False)
            background = as_background(ahead, opened.layout, inflation)
    joined = xr.concat(analyses, TIME, data_vars="minimal", coords="minimal", compat="override", join="override")
    joined = joined.drop_vars(STATUS, errors="ignore")
    own = (*BOOKKEEPING, "observations_used", "observations_dropped")
    joined.attrs = {k: v for k, v in analyses[0].attrs.items() if k not in own}
    joined.attrs |= describe_networks(networks, options.get("operator")) | about
    if store is None or folder is None:
        return joined.load()
    save(joined, store, overwrite=overwrite)
    remove(folder)
    return open_archive(store)


def _carrier(carry: str | Path | System | Prior, prior: Prior, start: Any) -> System | Prior:
    """What carries the ensemble, tried on the labels of two states of the prior before anything is drawn."""
    layout = prior.layout
    try:
        return open_model(carry, layout.template(layout.times(start, 2))[prior.states])
    except SdaxrError as error:
        raise type(error)(f"carry= does not go on from states of the prior {prior.name!r}: {error}") from error


def _named(model: System | Prior) -> str:
    if isinstance(model, System):
        return f"{model.name} {json.dumps(model.options(), sort_keys=True)}"
    return f"{model.name} {model.sha256}"


def _finished(store: str | Path, about: dict[str, Any]) -> xr.Dataset:
    """The archive of an earlier call with the same settings."""
    found = open_archive(store)
    _check_same(store, found.attrs, about)
    return found


def _windows_folder(store: str | Path, about: dict[str, Any], overwrite: bool) -> Path:
    """Where the windows go; those of an earlier call that was killed are kept if it had the same settings."""
    folder = windows_of(Path(store))
    note = folder / "cycle.json"
    if note.exists():
        there = json.loads(note.read_text())
        if overwrite and difference(there, about):
            remove(folder)
        else:
            _check_same(folder, there, about)
    if not note.exists():
        with written_whole(note, overwrite=True) as unfinished:
            unfinished.write_text(json.dumps(about, indent=1))
    return folder


def _check_same(where: str | Path, there: Mapping[Any, Any], about: Mapping[str, Any]) -> None:
    # Numbers of NetCDF files are numpy's.
    known = {key: there[key] for key in about if key in there}
    known = {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}
    changes = difference(known, about)
    if changes:
        raise ArchiveError(
            f"'{where}' was made with another configuration (there -> in this run): {changes}. Choose another store, "
            "or pass overwrite=True"
        )


def within(name: str, data: xr.Dataset, times: xr.DataArray, step: float) -> xr.Dataset | None:
    """The observations of a network at these times; None if there is none."""
    dim = OBS if OBS in data.dims else TIME
    if TIME not in data.coords or data[TIME].dims != (dim,):
        raise OptionError(
            f"the network '{name}' has no times of its own (dimensions {tuple(map(str, data.dims))}), so that it "
            "cannot be cut into windows; assimilate it as a whole"
        )
    offsets = elapsed(data[TIME], times.values[0]) / step
    chosen = data.isel({dim: np.flatnonzero((offsets > -0.5) & (offsets < times.size - 0.5))})
    if not any(bool(np.isfinite(chosen[v]).any()) for v in observed_variables(chosen)):
        return None
    return chosen.drop_vars("window", errors="ignore")


def as_background(ahead: xr.Dataset, layout: StateLayout, inflation: float) -> xr.Dataset:
    """Mean and spread of a forecast by one step, as a background of the state it reaches."""
    first = ahead.isel(lead_time=0, drop=True).drop_vars(["init_time", "valid_time"], errors="ignore")
    found = first.mean(MEMBER, keep_attrs=True)
    shape = (layout.channels, *layout.shape)
    one, none = (layout.to_physical(np.full(shape, value)) for value in (_LEAST, 0.0))
    for variable in [str(v) for v in found.data_vars]:
        floor = xr.DataArray(one[variable] - none[variable], dims=layout.dims(variable))
        error = (first[variable].std(MEMBER, ddof=1) * inflation).clip(min=floor)
        found[f"{variable}{ERROR}"] = error.transpose(*found[variable].dims)
        found[f"{variable}{ERROR}"].attrs = {k: v for k, v in found[variable].attrs.items() if k == "units"}
    return found
