"""Data in pieces, so that their statistics take little memory however they are stored, and how much that is."""

from __future__ import annotations

import math
import uuid

import xarray as xr

from sdaxr.schema import TIME

# Values of a piece of the data whose moments one thread computes, and the bytes that each takes then.
_PIECE, _MOMENTS = 2**20, 32
# Values that are held in memory for a climatology, those that are read at once, and the bytes that each takes then.
HELD, AT_ONCE = 2**28, 2**22
_READ = 72


def in_pieces(values: xr.DataArray) -> xr.DataArray:
    """The same values, cut along the times where a chunk, or an array in memory, has many of them."""
    if TIME not in values.dims or _largest(values) <= _PIECE:
        return values
    times = values.chunksizes.get(TIME, (values.sizes[TIME],))
    most = max(1, _PIECE * max(times) // _largest(values))
    parts = tuple(min(most, length - first) for length in times for first in range(0, length, most))
    # With a token Dask does not read all values for one.
    return values.chunk({TIME: parts}, token=uuid.uuid4().hex)


def moments_bytes(data: xr.Dataset) -> float:
    """Bytes that the mean and the standard deviation of every variable take, computed in pieces by Dask."""
    from dask.config import get
    from dask.system import CPU_COUNT

    threads = min(get("num_workers", None) or CPU_COUNT, sum(map(_count, data.values())))
    # Of a chunk there are its bytes as stored, and its values.
    each = [
        2 * (v.chunks is not None) * v.dtype.itemsize * _largest(v) + _MOMENTS * min(_PIECE, _largest(v))
        for v in data.values()
    ]
    # Dask copies an array that it cuts.
    cut = sum(v.nbytes for v in data.values() if v.chunks is None and _largest(v) > _PIECE)
    return float(threads * max(each, default=0) + cut)


def climatology_bytes(data: xr.Dataset) -> float:
    """Bytes that a climatology takes."""
    values = sum(v.size for v in data.values())
    held = sum(v.nbytes for v in data.values() if v.chunks is not None) if values <= HELD else 0
    return float(held + _READ * min(values, AT_ONCE))


def _largest(values: xr.DataArray) -> int:
    """Number of values in the largest chunk, or of all in memory."""
    return math.prod(max(values.chunksizes.get(d, (n,))) for d, n in values.sizes.items())


def _count(values: xr.DataArray) -> int:
    return math.ceil(values.size / min(_PIECE, max(1, _largest(values))))
