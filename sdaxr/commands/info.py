"""Description of a file: its kind, its provenance, whether it is complete, and what can be done with it."""

from __future__ import annotations

import timeit
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdaxr.archives.description import describe, provenance, short
from sdaxr.archives.finished import partial_of
from sdaxr.archives.paths import Location, local_path, located
from sdaxr.archives.remote import Remote
from sdaxr.schema import ArchiveError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior

# Metadata of a prior that hold the options of an object.
_OPTIONS = ("network", "statistics", "optimisation", "modes")


def info(path: str | Location, *, storage_options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Describe the file or archive at ``path``: its kind, its provenance, and whether it is complete.

    Parameters
    ----------
    path
        Trajectories, observations, posterior or forecast (Zarr or NetCDF, also an unfinished ``.partial`` archive); a
        prior (``.safetensors``, or the name of a shipped one); a recipe (``.yaml``); or a table of observations with
        units and errors; by its path, or, but for a recipe, its URL.
    storage_options
        Options of the file system of a URL (fsspec).

    Returns
    -------
    dict
        Text by topic, ``kind`` first. ``complete`` is yes, or no and what to do.

    Raises
    ------
    ArchiveError, PriorError
        If there is no such file or shipped prior, or the file is none of these.
    """
    from sdaxr.archives.reading import open_archive
    from sdaxr.commands.inputs import is_read
    from sdaxr.observations.read_observations import read_observations

    path = located(path, storage_options)
    if path.suffix == ".safetensors" or _is_name(path):
        return _prior_info(path)
    if path.suffix in (".yaml", ".yml"):
        from sdaxr.commands.recipe import status

        return status(local_path(path))
    if is_read(path):
        data = read_observations(path)
        return {**describe(data), "complete": "yes", "size": _size(path), **provenance(data)}
    try:
        data, complete = open_archive(path), "yes"
    except ArchiveError as error:
        # An unfinished archive opens here, and the first error says how far it is. Anything else fails again.
        data, complete = open_archive(path, allow_incomplete=True), f"no: {error}"
    with data:
        facts = describe(data)
        return {**facts, "complete": complete, "size": _size(path), **provenance(data)}


def _is_name(path: Location) -> bool:
    """Whether ``path`` is a word and not a file, and so the name of a shipped prior."""
    return isinstance(path, Path) and path.name == str(path) and not path.suffix and not path.exists()


def _prior_info(name: Location) -> dict[str, str]:
    from sdaxr.prior.catalogue import prior_path
    from sdaxr.prior.opening import open_prior

    path = prior_path(name)
    prior = open_prior(path)
    facts = {"kind": "prior", "summary": repr(prior).strip("<>"), "complete": "yes", "size": _size(path)}
    if _is_name(name):
        facts["path"] = str(path)
    if prior.layout.parameters:
        facts["parameters"] = ", ".join(prior.layout.parameters)
    for grid, places in prior.layout.places.items():
        ends = f"{np.nanmin(places.values):g} to {np.nanmax(places.values):g}"
        facts[f"grid.{grid}"] = f"{ends} on ({', '.join(places.dims)})"
    if prior.layout.climatology is not None:
        facts["climatology"] = str(prior.layout.climatology)
    for topic, value in prior.metadata.items():
        # One row for each option: a long text would be cut.
        rows = {f"{topic}.{key}": each for key, each in value.items()} if topic in _OPTIONS else {topic: value}
        facts |= {str(key): short(each) for key, each in rows.items()}
    return {**facts, **_cost_of_modes(prior), "next": "assimilate, forecast, denoise"}


def _cost_of_modes(prior: Prior) -> dict[str, str]:
    """What the filter of the Gaussian process takes for one window on the CPU, measured here; nothing without modes."""
    import torch

    from sdaxr.prior.memory import peak_bytes

    modes, layout, length = prior.network.modes, prior.layout, int(prior.metadata["window"])
    if modes is None:
        return {}
    z, r = torch.zeros(1, length, layout.channels, *layout.shape), torch.ones(1)
    with torch.no_grad():
        modes.filter(z, r)  # What is computed once is not counted.
        work = peak_bytes(lambda: modes.filter(z, r))
        seconds = min(timeit.repeat(lambda: modes.filter(z, r), number=1, repeat=5))
    held = sum(buffer.nbytes for buffer in modes.buffers())
    return {
        "modes.application": f"{seconds:.2g} s a window of {length} states, with {work / 1e6:.3g} MB of work space "
        f"beside {held / 1e6:.3g} MB of modes"
    }


def _size(path: Location) -> str:
    if not path.exists():
        path = partial_of(path)
    if isinstance(path, Remote):
        return f"{path.size() / 1e6:.3g} MB"
    files = path.rglob("*") if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files if file.is_file()) / 1e6:.3g} MB"
