"""An archive of four small units, and what its files hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from sdaxr.archives.creation import create_archive

CONFIG = {"system": "toy", "options": {"step": 0.1}, "seed": 0}


def template(units=4, unit="member", dtype=np.float32):
    return xr.Dataset(
        {
            "u": (
                (unit, "time", "x"),
                np.full((units, 3, 5), 7, dtype),
                {"units": "m s-1", "long_name": "wind"},
            ),
            "total": ((unit,), np.full(units, 7.0), {"units": "1", "long_name": "total"}),
        },
        {
            unit: (unit, np.arange(units), {"standard_name": "realization"}),
            "kind": (unit, np.array(["a", "b", "c", "d"][:units], object)),
            "time": ("time", np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]")),
            "x": ("x", np.arange(5.0), {"units": "1"}),
        },
        {"title": "toy"},
    )


def values(index):
    return {"u": np.full((3, 5), index, np.float32), "total": np.array(index * 15.0)}


def filled(path, skip=(), config=CONFIG, **options):
    archive = create_archive(path, template(), "member", config, {"source": "a test"}, **options)
    for index in archive.pending():
        if index not in skip:
            archive.write(index, values(index))
    return archive


def tree(path):
    """Every file of an archive; metadata as parsed JSON."""
    files = sorted(f for f in Path(path).rglob("*") if f.is_file())
    return {
        str(f.relative_to(path)): json.loads(f.read_text()) if f.suffix == ".json" else f.read_bytes() for f in files
    }
