"""The template of an archive in units of work: labels and metadata, before any unit is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.abc.store import Store

from sdaxr.archives.chunks import chunk_encoding
from sdaxr.archives.format import PENDING, STATUS, STATUS_NAMES
from sdaxr.schema import DataError
from sdaxr.states.attributes import plain

# Chunks of at most 64 MiB: several fit in the memory of a small worker.
_CHUNK_BYTES = 2**26


def check_template(template: xr.Dataset, unit: str) -> None:
    """Raise `DataError` unless the unit is the first dimension of every variable."""
    for name, variable in template.data_vars.items():
        if variable.dims[:1] != (unit,):
            raise DataError(f"'{name}' has the dimensions {variable.dims}, expected {unit!r} to be the first one")


def write_template(path: Path | Store, template: xr.Dataset, unit: str, attrs: Mapping[str, Any]) -> None:
    """Write coordinates, attributes and the metadata of the variables; no values of variables."""
    import dask.array

    status_attrs = {
        "long_name": f"status of the {unit}",
        "flag_values": list(STATUS_NAMES),
        "flag_meanings": " ".join(STATUS_NAMES.values()),
    }
    status = np.full(template.sizes[unit], PENDING, np.int8)
    template = template.assign_coords({STATUS: (unit, status, status_attrs)})
    template = plain(template.assign_attrs(attrs)).drop_encoding()
    encoding = chunk_encoding(template.variables)
    # One unit to a chunk, so that writers lose nothing of each other. Pending is the fill value, so no chunk is stored.
    encoding[STATUS] |= {"chunks": (1,), "write_empty_chunks": False}
    for name, variable in template.data_vars.items():
        chunks = _chunk_shape(variable.shape, variable.dtype.itemsize)
        encoding[name] |= {"chunks": chunks}
        # Lazy whatever it was, so that only metadata is written.
        template[name] = variable.copy(data=dask.array.zeros(variable.shape, dtype=variable.dtype, chunks=chunks))
    template.to_zarr(path, mode="w", compute=False, consolidated=False, zarr_format=3, encoding=encoding)


def _chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """One unit to a chunk; long units are split along their first dimension."""
    if len(shape) == 1:
        return (1,)
    slice_bytes = itemsize * int(np.prod(shape[2:]))
    return (1, max(1, min(shape[1], _CHUNK_BYTES // slice_bytes)), *shape[2:])
