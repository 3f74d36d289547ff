"""Where archives in units of work are created: on this machine, or in an object store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from sdaxr.archives.archive import Archive
from sdaxr.archives.object_archive import ObjectArchive
from sdaxr.archives.paths import store_path
from sdaxr.archives.remote import Remote

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
    """Create or resume an archive at a path or a URL; parameters and errors are those of `Archive.create`."""
    place = store_path(store)
    if isinstance(place, Remote):
        return ObjectArchive.create(place, template, unit, config, attrs, overwrite=overwrite, finite=finite)
    return Archive.create(place, template, unit, config, attrs, overwrite=overwrite, finite=finite)
