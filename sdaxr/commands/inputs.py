"""The inputs of the commands: files as Datasets, and operators as texts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

import sdaxr
from sdaxr.archives.paths import Location, located
from sdaxr.archives.remote import Remote, local_copy
from sdaxr.schema import TRAJECTORY, DataError, OperatorError, OptionError, nearest


def read_operator(operator: str | Mapping[str, Any]) -> Any:
    """The operator that a JSON text, or a mapping as in JSON, describes."""
    from sdaxr import operators

    text = operator if isinstance(operator, str) else json.dumps(operator)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise OperatorError(
            f'the operator is not JSON ({error}); expected for example \'{{"op": "coarsen", "factor": 8}}\''
        ) from error
    return operators.from_json(text)


def is_read(path: str | Location) -> bool:
    """Whether a file is opened by a reader of observations, by its name or its first line."""
    from sdaxr.observations.readers.registry import reader_of

    place = located(path)
    if isinstance(place, Remote) and (place.suffix == ".zarr" or not place.is_file()):
        return False
    with local_copy(place) as copy:
        return reader_of(copy) is not None


def open_networks(
    observations: str | Location | Iterable[str | Location], reading: Mapping[str, Any] | None = None
) -> xr.Dataset | dict[str, xr.Dataset]:
    """The Dataset of one file, or the Datasets of several by the names of their files."""
    paths, options = paths_of(observations), check_reading(reading, observations)
    networks = {located(path).stem: read_file(path, options[located(path).stem]) for path in paths}
    if len(networks) < len(paths):
        raise DataError(f"found several networks of the same file name in {paths}; rename the files")
    return next(iter(networks.values())) if len(paths) == 1 else networks


def read_file(path: str | Location, reading: Mapping[str, Any] | None) -> xr.Dataset:
    """The observations in a file of any format, with the options of `sdaxr.read_observations`."""
    return sdaxr.read_observations(path, **check_reading(reading, path)[located(path).stem])


def open_file(path: str | Location, trajectory: int | None) -> xr.Dataset:
    """The Dataset in a file, or one of its trajectories, by its index."""
    data = sdaxr.open_archive(path)
    if trajectory is None:
        return data
    if TRAJECTORY not in data.dims:
        raise DataError(
            f"'{path}' has the dimensions {tuple(map(str, data.dims))}, expected 'trajectory'; leave the parameter out"
        )
    if not -data.sizes[TRAJECTORY] <= trajectory < data.sizes[TRAJECTORY]:
        raise DataError(f"found trajectory={trajectory}, expected an index of the {data.sizes[TRAJECTORY]} in '{path}'")
    return data.isel({TRAJECTORY: trajectory})


def open_mask(path: str | Location) -> xr.DataArray:
    """The only variable of a file."""
    data = sdaxr.open_archive(path)
    if len(data.data_vars) != 1:
        raise DataError(
            f"'{path}' has the variables {list(data.data_vars)}, expected one mask; write it to a file of its own"
        )
    return next(iter(data.data_vars.values()))


def open_for_figure(
    data: str,
    truth: str | None,
    observations: str | None,
    trajectory: int | None,
    reading: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> xr.Dataset:
    """The Dataset that is drawn; truth and observations are put into ``options``."""
    # With a truth, the index is that of a trajectory in it: a posterior has no trajectories.
    if truth is not None:
        options["truth"] = open_file(truth, trajectory)
    if observations is not None:
        options["observations"] = read_file(observations, reading)
    if is_read(data):
        return read_file(data, reading)
    return open_file(data, None if truth is not None else trajectory)


def open_options(options: dict[str, Any], background: str | None) -> None:
    """Open the operator among ``options``, where there is one, and put the background into them."""
    if options.get("operator") is not None:
        options["operator"] = read_operator(options["operator"])
    options["background"] = None if background is None else sdaxr.open_archive(background)


def check_reading(
    reading: Mapping[str, Any] | None, observations: str | Location | Iterable[str | Location]
) -> dict[str, Mapping[str, Any]]:
    """The options of `sdaxr.read_observations` for each file, by the name of the network.

    Raises
    ------
    OptionError
        If an option is unknown.
    """
    names = [located(path).stem for path in paths_of(observations)]
    given = reading or {}
    each = {n: given.get(n, {}) for n in names} if given and set(given) <= set(names) else dict.fromkeys(names, given)
    known = {n for n, p in inspect.signature(sdaxr.read_observations).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for options in each.values():
        for key in options:
            if key not in known:
                raise OptionError(f"reading has the option {nearest(key, known)}")
    return each


def paths_of(observations: str | Location | Iterable[str | Location]) -> list[str | Location]:
    """The paths of one file or of several."""
    return [observations] if isinstance(observations, str | Path | Remote) else list(observations)
