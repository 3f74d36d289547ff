"""Maps with cartopy. Coastlines are read from disk; nothing is downloaded.

Coastlines are Natural Earth or GSHHS shapefiles in the folders of cartopy. Where there are none, maps have no
coastlines, and one warning says how to install them.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from sdaxr.states.axes import is_latitude, is_longitude

if TYPE_CHECKING:
    from cartopy.crs import PlateCarree
    from cartopy.mpl.geoaxes import GeoAxes

_log = logging.getLogger(__name__)
_SYSTEM_FOLDERS = (Path("/usr/share/cartopy/data"), Path("/usr/share/cartopy"))
# Width of a map, in degrees of longitude, below which the finest coastlines are preferred: coarse ones show corners.
_FINE = 20.0


def is_map(field: xr.DataArray, y: Hashable, x: Hashable) -> bool:
    """Whether ``y`` and ``x`` of ``field`` are latitude and longitude."""
    return is_latitude(y, field[y].attrs) and is_longitude(x, field[x].attrs)


def projection(extent: tuple[float, float, float, float]) -> PlateCarree:
    """Plate carrée centred on ``extent`` (west, east, south, north in degrees)."""
    import cartopy.crs

    return cartopy.crs.PlateCarree(central_longitude=(extent[0] + extent[1]) / 2)


def decorate(axes: GeoAxes, extent: tuple[float, float, float, float]) -> PlateCarree:
    """Cut a GeoAxes to ``extent``, and draw coastlines where there are any; return the coordinate system of the data.

    ``extent`` is west, east, south, north in degrees.
    """
    import cartopy.crs

    plain = cartopy.crs.PlateCarree()
    width = extent[1] - extent[0]
    if width < 359:
        # In the coordinates of the axes, whose origin is the centre: those of the data have a seam.
        axes.set_extent((-width / 2, width / 2, *extent[2:]), crs=axes.projection)
    shapes = coastlines(width < _FINE)
    if shapes:
        axes.add_geometries(shapes, crs=plain, facecolor="none", edgecolor="0.15", linewidth=0.6, zorder=3)
    return plain


@functools.cache
def coastlines(fine: bool = False) -> tuple[Any, ...]:
    """Geometries of the coastlines on disk; empty if there are none."""
    path = _find(fine)
    if path is None:
        _warn()
        return ()
    from cartopy.io.shapereader import Reader

    # Of GSHHS, pyshp says of each island in which order its points are.
    reading, level = logging.getLogger("shapefile"), logging.getLogger("shapefile").level
    reading.setLevel(logging.ERROR)
    try:
        return tuple(Reader(str(path)).geometries())
    finally:
        reading.setLevel(level)


@functools.cache
def _warn() -> None:
    _log.warning(
        "no coastline data on disk: maps are drawn without coastlines. Install the package "
        "'python-cartopy-data' (Debian) or 'cartopy_offlinedata' (conda-forge) to have them."
    )


def _find(fine: bool) -> Path | None:
    import cartopy

    keys = ("pre_existing_data_dir", "data_dir", "repo_data_dir")
    configured = [Path(str(cartopy.config.get(key, "."))) for key in keys]
    shared = [Path(sys.prefix) / "share/cartopy", *_SYSTEM_FOLDERS]
    folders = [f / "shapefiles" for f in [*configured, *shared] if f != Path(".")]
    natural = ["10m", "50m", "110m"] if fine else ["110m", "50m", "10m"]
    names = [f"natural_earth/physical/ne_{scale}_coastline.shp" for scale in natural]
    names += [f"gshhs/{level}/GSHHS_{level}_L1.shp" for level in ("ihlc" if fine else "clih")]
    return next((f / n for n in names for f in folders if (f / n).is_file()), None)
