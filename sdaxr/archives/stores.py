"""Complete Datasets to files, Zarr or NetCDF by the suffix; `archive` holds those that grow unit by unit."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path

import xarray as xr

from sdaxr.schema import ArchiveError, OptionError

logger = logging.getLogger(__name__)


def check_free(store: str | Path | None, overwrite: bool) -> None:
    """Raise `ArchiveError` if ``store`` exists and may not be replaced, or has no known suffix."""
    if store is None:
        return
    if Path(store).suffix not in (".zarr", ".nc"):
        raise OptionError(f"found store='{store}', expected a name that ends in .zarr or .nc")
    if Path(store).exists() and not overwrite:
        raise ArchiveError(f"'{store}' exists; give another store, or overwrite it (overwrite, --overwrite)")
    if Path(store).is_dir() and not (Path(store) / "zarr.json").exists():
        raise ArchiveError(f"'{store}' is a directory, but no Zarr archive, so it is not overwritten; move it away")


def save(data: xr.Dataset, store: str | Path) -> xr.Dataset:
    """Write ``data`` to Zarr or NetCDF by the suffix of ``store``; what was there stays until it is complete."""
    path = Path(store)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        if path.suffix == ".nc":
            data.to_netcdf(partial, engine="netcdf4")
        else:
            _to_zarr(data, partial)
        remove(path)
        partial.rename(path)
    except OSError as error:
        raise ArchiveError(f"cannot write '{path}': {error}; check the folder's permissions and free space") from error
    logger.info("wrote %s", path)
    return data


def _to_zarr(data: xr.Dataset, path: Path) -> None:
    # Zarr has no stable format for strings of fixed length.
    strings = {name: c.astype(object) for name, c in data.coords.items() if c.dtype.kind == "U"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        data.assign_coords(strings).drop_encoding().to_zarr(path, zarr_format=3, consolidated=True)


def remove(path: Path) -> None:
    """Remove a file or an archive, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
