"""Where archives in units of work are created: on this machine, or in an object store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import xarray as xr

from sdaxr.archives.archive import Archive
from sdaxr.archives.configuration import HASH, config_attrs
from sdaxr.archives.format import ROUND, UNIT, VARIABLES
from sdaxr.archives.object_archive import ObjectArchive
from sdaxr.archives.paths import store_path
from sdaxr.archives.remote import Remote
from sdaxr.archives.template import check_template

UnitArchive = Archive | ObjectArchive


def create_archive(
    store: object,
    template: xr.Dataset,
    unit: str,
    config: Mapping[str, Any],
    attrs: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    finite: bool = True,
) -> UnitArchive:
    """Create an archive, or resume one that was created with the same configuration.

    Parameters
    ----------
    store
        Path or URL of the finished archive: Zarr (``.zarr``), or a NetCDF file (``.nc``), which is made when all units
        are complete; or a store of Zarr.
    template
        The whole archive: dimensions, coordinates, attributes, dtypes. The values of its data variables are
        not looked at, so they should be lazy (``dask.array.zeros``).
    unit
        Dimension that counts the units, the first one of every data variable.
    config
        What determines the values; has to survive JSON. Its hash decides whether a run resumes.
    attrs
        Further attributes of the archive, such as its provenance.
    overwrite
        Make an archive of sdaxr that is there anew. A finished one stays until the new one is, but for those in object
        stores; an unfinished one is resumed if it has the same configuration, else removed.
    finite
        Refuse NaN in what is written; pass False where data are masked.

    Raises
    ------
    ArchiveError
        If there is something else at ``store``, an archive with another configuration, no permission to write, or no
        space.
    DataError
        If the template cannot be an archive of this unit (`sdaxr.archives.template.check_template`).
    OptionError
        If a path or a URL ends neither in ``.zarr`` nor in ``.nc``.
    """
    check_template(template, unit)
    about, place = config_attrs(config), store_path(store)
    archive: UnitArchive
    if isinstance(place, Remote):
        archive = ObjectArchive(place, unit, about[HASH], finite)
    else:
        archive = Archive(os.path.abspath(place), unit, about[HASH], finite)
    own = {**about, UNIT: unit, VARIABLES: list(map(str, template.data_vars))}
    archive.begin(template, dict(attrs or {}) | own, overwrite=overwrite)
    return replace(archive, round=archive.notes().get(ROUND, 0))
