"""The readers, in the order in which a source is offered to them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from sdaxr.archives.reading import open_archive
from sdaxr.archives.remote import Remote, kept_copy
from sdaxr.observations.matching import ERROR
from sdaxr.observations.places import OBS
from sdaxr.observations.readers.altimetry import is_altimetry, read_altimetry
from sdaxr.observations.readers.ioda import is_ioda, read_ioda
from sdaxr.observations.readers.obs_seq import is_obs_seq, read_obs_seq
from sdaxr.observations.readers.sampling import is_sampled, read_sampled
from sdaxr.observations.readers.table import is_table, read_table
from sdaxr.schema import ArchiveError, DataError


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of source.

    Attributes
    ----------
    title
        What the source is, in words.
    recognises
        Whether a path, or an object, is such a source.
    read
        The columns of the source on (obs); the second argument holds the names that the caller asks for.
    """

    title: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any, Collection[str]], xr.Dataset]


READERS = (
    Reader("observation sequence of DART", is_obs_seq, lambda source, _: read_obs_seq(source)),
    Reader("table", is_table, lambda source, _: read_table(source)),
    Reader("IODA", is_ioda, lambda source, _: read_ioda(source)),
    Reader("along-track altimetry", is_altimetry, read_altimetry),
    Reader("discrete sampling geometry", is_sampled, lambda source, _: read_sampled(source)),
)


def reader_of(source: Any) -> Reader | None:
    """The reader of a source that is no observations of sdaxr, and no fields; None for these."""
    if isinstance(source, xr.Dataset) and is_own(source):
        return None
    return next((reader for reader in READERS if reader.recognises(source)), None)


def is_own(data: xr.Dataset) -> bool:
    """Whether a Dataset has the point form, or the grid form with an operator."""
    return "operator" in data.attrs or (OBS in data.dims and any(str(n).endswith(ERROR) for n in data.data_vars))


def opened(source: Any) -> Any:
    """The Dataset or DataTree in a file; a path of another kind, or an object, as it is.

    Raises
    ------
    ArchiveError
        If the file cannot be read.
    DataError
        If the object is of a kind that no reader takes.
    """
    if isinstance(source, Remote):
        if source.suffix == ".zarr" or not source.is_file():
            return open_archive(source)
        source = kept_copy(source)
    if isinstance(source, Path):
        return source if reader_of(source) is not None else _opened(source)
    if isinstance(source, xr.DataArray):
        raise DataError(f"found the DataArray '{source.name}', expected a Dataset; pass da.to_dataset(name=...)")
    if isinstance(source, xr.DataTree) and not is_ioda(source):
        raise DataError(
            f"found a DataTree with the groups {list(source.children)}, expected IODA; read each node by itself"
        )
    if isinstance(source, xr.Dataset) or reader_of(source) is not None:
        return source
    raise DataError(f"found {type(source).__name__}, expected a path, a DataFrame, a Dataset or a DataTree")


def _opened(path: Path) -> xr.Dataset | xr.DataTree:
    data = open_archive(path)
    if data.data_vars:
        return data
    try:
        tree = xr.open_datatree(path)
    except Exception as error:  # the libraries below raise whatever they like on a broken file
        raise ArchiveError(f"'{path}' holds no variables, and no groups of variables: {error}") from error
    if not is_ioda(tree):
        raise DataError(f"'{path}' holds no variables, and the groups {list(tree.children)}; expected those of IODA")
    return tree
