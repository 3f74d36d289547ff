"""What a file holds of a layout: arrays, and metadata that are JSON-ready."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from sdaxr.schema import PriorError
from sdaxr.states.climatology import Climatology
from sdaxr.states.coordinates import Coordinate
from sdaxr.states.months import ANCHORS
from sdaxr.states.places import Places
from sdaxr.states.time import CYCLES, TimeAxis
from sdaxr.states.validation import Count, Natural, Number, Positive

if TYPE_CHECKING:
    from sdaxr.states.fields import StateLayout


Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
"""The name of a variable or a dimension."""


class TimeHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a header says of a time axis (`TimeAxis`)."""

    kind: Literal["float", "timedelta", "datetime", "cftime"]
    step: Positive
    units: str
    calendar: str = ""
    phase: Number = 0.0
    months: Natural = 0
    anchor: str = ""


class PlaceHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a header says of latitudes or longitudes (`Places`)."""

    dims: list[Name]
    attrs: dict[str, Any]


class LayoutHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a header says of a layout."""

    variables: Annotated[list[Name], Meta(min_length=1)]
    attrs: dict[str, dict[str, Any]]
    layered: list[Name]
    layer: Name | None
    space: Annotated[list[Name], Meta(max_length=2)]
    sizes: dict[str, Count]
    cycles: list[str]
    time: TimeHeader
    coord_attrs: dict[str, dict[str, Any]]
    coord_names: dict[str, list[Any]]
    gappy: bool = False
    parameters: list[Name] = []
    places: dict[str, PlaceHeader] = {}
    climatology: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise `PriorError` if two entries contradict each other."""
        dims = [*([] if self.layer is None else [self.layer]), *self.space]
        calendar = self.time.kind in ("datetime", "cftime")
        for name, holds in {
            "variables": len(set(self.variables)) == len(self.variables),
            "attrs": set(self.attrs) == set(self.variables),
            "layered": set(self.layered) <= set(self.variables) and bool(self.layered) == (self.layer is not None),
            "sizes": set(self.sizes) == set(dims) and len(set(dims)) == len(dims),
            "coord_attrs": set(self.coord_attrs) <= set(dims),
            "coord_names": set(self.coord_names) <= set(self.coord_attrs),
            "cycles": set(self.cycles) <= set(CYCLES) and (calendar or not self.cycles),
            "parameters": set(self.parameters) <= set(self.variables),
            "places": all(set(p.dims) <= set(self.space) for p in self.places.values()),
            "time.calendar": bool(self.time.calendar) == calendar,
            "time.anchor": self.time.anchor in ("", *ANCHORS),
        }.items():
            if not holds:
                raise PriorError(f"found the entry layout.{name}, which does not go with the other entries")


def check_arrays(layout: StateLayout, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise `PriorError` unless the arrays of a layout have the shapes of its sizes, and values that can be meant.

    Where the mask has no data, there is no mean and no standard deviation.
    """
    whole = (layout.channels, *layout.shape)
    present = np.ones(whole, bool) if layout.mask is None else layout.mask
    expected = {"layout.mean": (whole,), "layout.std": (whole,), "layout.mask": (whole,)}
    expected |= {f"layout.coord.{d}": ((layout.sizes[d],),) for d in layout.coords}
    expected |= {f"layout.context.{name}": (layout.shape,) for name in layout.context}
    expected |= {f"layout.place.{n}": (tuple(layout.sizes[d] for d in p.dims),) for n, p in layout.places.items()}
    for name, array in arrays.items():
        if name.startswith("layout.climatology.") and layout.climatology is not None:
            shapes: tuple[tuple[int, ...], ...] = tuple((len(array), *s) for s in _broadcast(whole))
        elif name not in expected:
            raise PriorError(f"found the tensor '{name}', which does not belong to the layout")
        else:
            shapes = tuple(_broadcast(whole)) if name in ("layout.mean", "layout.std") else expected[name]
        if array.shape not in shapes:
            raise PriorError(f"found the tensor '{name}' of shape {array.shape}, expected {shapes[-1]}")
        # A grid point that a model does not have has no latitude.
        alike = array.shape[-len(whole) :] if name in ("layout.mean", "layout.std") else None
        values = np.broadcast_to(array, whole)[present] if alike else array
        if not name.startswith(("layout.place", "layout.climatology")) and not np.isfinite(values).all():
            raise PriorError(f"found values that are not finite in the tensor '{name}', expected none")
        if name == "layout.std" and not (values > 0).all():
            raise PriorError("found standard deviations that are not positive in the tensor 'layout.std'")
    for name, coordinate in layout.coords.items():
        if coordinate.values.shape != (layout.sizes[name],):
            raise PriorError(f"found {coordinate.values.size} labels of '{name}', expected {layout.sizes[name]}")


def _broadcast(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes of as many dimensions that broadcast to ``shape``, itself last."""
    return list(itertools.product(*((1, size) for size in shape)))


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
