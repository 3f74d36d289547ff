"""What a file holds of a layout: arrays, and metadata that are JSON-ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sdaxr.states.climatology import Climatology
from sdaxr.states.coordinates import Coordinate
from sdaxr.states.places import Places
from sdaxr.states.time import TimeAxis

if TYPE_CHECKING:
    from sdaxr.states.fields import StateLayout


def to_file(layout: StateLayout) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and JSON-ready metadata of a layout."""
    arrays = {"layout.mean": layout.mean, "layout.std": layout.std}
    numeric = {d: c.values for d, c in layout.coords.items() if c.values.dtype.kind == "f"}
    arrays |= {f"layout.coord.{d}": values for d, values in numeric.items()}
    arrays |= {f"layout.context.{n}": a for n, a in layout.context.items()}
    arrays |= {f"layout.place.{name}": p.values for name, p in layout.places.items()}
    if layout.mask is not None:
        arrays["layout.mask"] = layout.mask.astype(np.uint8)
    plain = ("variables", "attrs", "layered", "layer", "space", "sizes", "cycles")
    metadata = {key: getattr(layout, key) for key in plain} | {"time": layout.time.to_dict()}
    metadata["coord_attrs"] = {d: c.attrs for d, c in layout.coords.items()}
    metadata["coord_names"] = {d: c.values.tolist() for d, c in layout.coords.items() if d not in numeric}
    # Optional, so that files without them are as they are.
    if layout.gappy:
        metadata["gappy"] = True
    if layout.parameters:
        metadata["parameters"] = layout.parameters
    if layout.places:
        metadata["places"] = {name: {"dims": p.dims, "attrs": p.attrs} for name, p in layout.places.items()}
    if layout.climatology is not None:
        seasonal, metadata["climatology"] = layout.climatology.to_file()
        arrays |= {f"layout.{name}": a for name, a in seasonal.items()}
    return arrays, metadata


def from_file(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the layout that `to_file` took apart."""
    names = {d: np.array(v) for d, v in metadata["coord_names"].items()}
    values = {d: names[d] if d in names else arrays[f"layout.coord.{d}"] for d in metadata["coord_attrs"]}
    prefix, mean, std = "layout.context.", arrays["layout.mean"], arrays["layout.std"]
    own = {name.removeprefix("layout."): a for name, a in arrays.items()}
    seasonal = metadata.get("climatology")
    return {
        "variables": tuple(metadata["variables"]),
        "attrs": metadata["attrs"],
        "layered": tuple(metadata["layered"]),
        "layer": metadata["layer"],
        "space": tuple(metadata["space"]),
        "coords": {d: Coordinate(values[d], attrs) for d, attrs in metadata["coord_attrs"].items()},
        "sizes": metadata["sizes"],
        "time": TimeAxis(**metadata["time"]),
        "mean": mean,
        "std": std,
        "mask": arrays["layout.mask"].astype(bool) if "layout.mask" in arrays else None,
        "context": {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)},
        "cycles": tuple(metadata["cycles"]),
        "gappy": bool(metadata.get("gappy", False)),
        "parameters": tuple(metadata.get("parameters", ())),
        "places": {
            name: Places(tuple(p["dims"]), arrays[f"layout.place.{name}"], p["attrs"])
            for name, p in metadata.get("places", {}).items()
        },
        "climatology": None if seasonal is None else Climatology.from_file(own, seasonal, mean, std),
    }
