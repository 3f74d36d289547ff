"""The labels of a set of fields, without the fields.

An operator is bound to the `Template` of its input, and returns the `Template` of its output. Names, dimensions,
coordinates and units of observations are thus known before anything is computed, and the computation has only tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import TIME, DataError, GridError
from sdaxr.states.axes import layer_dimension, space_dimensions
from sdaxr.states.coordinates import period_of, turn_of, unrolled

# Attributes that name variables, or state ranges, which are not those of a transformed field.
_DANGLING = {
    "ancillary_variables",
    "actual_range",
    "bounds",
    "cell_measures",
    "coordinates",
    "grid_mapping",
    "valid_max",
    "valid_min",
    "valid_range",
}


@dataclass(frozen=True)
class VariableTemplate:
    """Dimensions, units (``""`` where the data give none) and other attributes of one variable."""

    dims: tuple[str, ...]
    units: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def long_name(self) -> str:
        """Name of the variable for titles; ``""`` where it has neither a long name nor a standard name."""
        return str(self.attrs.get("long_name") or self.attrs.get("standard_name", "")).replace("_", " ")


@dataclass(frozen=True)
class CoordTemplate:
    """Values and attributes of a coordinate; ``dims`` is None for the coordinate of its own dimension."""

    values: np.ndarray
    attrs: dict[Any, Any] = field(default_factory=dict)
    dims: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Template:
    """Variables and coordinates of a Dataset, without its data.

    Attributes
    ----------
    variables
        One `VariableTemplate` for each variable, by name; ``time`` is the first dimension where there is time.
    coords
        One `CoordTemplate` for each coordinate, by name.
    sizes
        Size of each dimension. Dimensions with a coordinate may be left out.
    attrs
        Attributes of the Dataset, among them those that an operator records.
    """

    variables: dict[str, VariableTemplate]
    coords: dict[str, CoordTemplate] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = dict(self.sizes)
        known |= {name: len(c.values) for name, c in self.coords.items() if c.dims is None}
        used = dict.fromkeys(d for v in self.variables.values() for d in v.dims)
        missing = [d for d in used if d not in known]
        if missing:
            raise DataError(
                f"found the dimensions {missing} without a size, expected a coordinate or a size for each; "
                "pass coords= or sizes= to Template"
            )
        object.__setattr__(self, "sizes", {d: known[d] for d in used})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Template:
        """The template of ``data``, with ``time`` first in every variable. Only coordinates are loaded."""
        variables = {}
        for name, variable in data.data_vars.items():
            attrs = _clean(variable.attrs)
            units = str(attrs.pop("units", ""))
            variables[str(name)] = VariableTemplate(_time_first(variable.dims), units, attrs)
        coords = {}
        for name, coord in data.coords.items():
            dims = tuple(map(str, coord.dims))
            own = None if dims == (str(name),) else dims
            coords[str(name)] = CoordTemplate(np.asarray(coord.values), _clean(coord.attrs), own)
        template = cls(variables, coords, {str(d): n for d, n in data.sizes.items()})
        return template.with_variables(variables)

    def arrays(self, data: xr.Dataset) -> dict[str, np.ndarray]:
        """Values of ``data``, loaded, in the order of the variables and dimensions of the template."""
        return {name: data[name].transpose(*v.dims).values for name, v in self.variables.items()}

    def to_dataset(self, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
        """The Dataset with these labels and ``arrays`` as its values.

        Parameters
        ----------
        arrays
            One array for each variable, of shape ``self.shape(name)``.

        Raises
        ------
        GridError
            If an array has another shape.
        """
        out = {}
        for name, variable in self.variables.items():
            array = np.asarray(arrays[name])
            if array.shape != self.shape(name):
                expected = dict(zip(variable.dims, self.shape(name), strict=True))
                raise GridError(f"'{name}' has shape {array.shape}, expected {expected}")
            units = {"units": variable.units} if variable.units else {}
            out[name] = (variable.dims, array, {**variable.attrs, **units})
        coords = {n: ((n,) if c.dims is None else c.dims, c.values, c.attrs) for n, c in self.coords.items()}
        return xr.Dataset(out, coords, self.attrs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one variable."""
        return tuple(self.sizes[d] for d in self.variables[name].dims)

    def space(self, name: str) -> tuple[str, ...]:
        """Horizontal dimensions of one variable, in order."""
        return tuple(map(str, space_dimensions(self._blank(name))))

    def layer(self, name: str) -> str | None:
        """Layer or level dimension of one variable, or None."""
        found = layer_dimension(self._blank(name))
        return None if found is None else str(found)

    def period(self, dim: str) -> float | None:
        """Period of a dimension (`sdaxr.states.coordinates.period_of`); None where it is bounded."""
        coord = self._own(dim)
        return None if coord is None else period_of(dim, coord.values, coord.attrs)

    def turn(self, dim: str) -> float | None:
        """Distance after which the labels of a dimension repeat (`sdaxr.states.coordinates.turn_of`), or None."""
        coord = self._own(dim)
        return None if coord is None else turn_of(dim, coord.attrs)

    def coordinate(self, dim: str) -> np.ndarray:
        """Values of the coordinate of ``dim``.

        Raises
        ------
        GridError
            If the dimension has no coordinate.
        """
        coord = self._own(dim)
        if coord is None:
            raise GridError(
                f"dimension '{dim}' has no coordinate, expected one; add it with ds.assign_coords({dim}=...)"
            )
        return coord.values

    def line(self, dim: str) -> np.ndarray:
        """Values of the coordinate of ``dim`` as floats, without a jump where the count starts again.

        Raises
        ------
        GridError
            If the dimension has no coordinate.
        """
        return unrolled(self.coordinate(dim), self.turn(dim))

    def with_variables(self, variables: Mapping[str, VariableTemplate]) -> Template:
        """The template with other variables; coordinates are kept whose dimensions these variables have."""
        used = {d for v in variables.values() for d in v.dims}
        coords = {n: c for n, c in self.coords.items() if set((n,) if c.dims is None else c.dims) <= used}
        return replace(self, variables=dict(variables), coords=coords)

    def take(self, dim: str, indices: Sequence[int] | np.ndarray | slice) -> Template:
        """The template at ``indices`` along ``dim``, which stays periodic if they still go once around."""
        positions = np.arange(self.sizes[dim])[indices]
        coords = {}
        for name, coord in self.coords.items():
            axis = _axis(name, coord, dim)
            values = coord.values if axis is None else np.take(coord.values, positions, axis)
            coords[name] = replace(coord, values=values)
        out = replace(self, coords=coords, sizes={**self.sizes, dim: len(positions)})
        if dim in coords and out.period(dim) is None:
            coords[dim] = replace(coords[dim], attrs=without_period(coords[dim].attrs))
        return out

    def block_mean(self, dim: str, factor: int) -> Template:
        """The template of means over blocks of ``factor`` along ``dim``; coordinates without a mean are dropped."""
        coords = {}
        for name, coord in self.coords.items():
            axis = _axis(name, coord, dim)
            if axis is not None:
                points = self.line(dim) if name == dim and coord.values.dtype.kind in "fiu" else coord.values
                values = _block_mean(points, axis, factor, None if name == dim else turn_of(name, coord.attrs))
                if values is None:
                    continue
                coord = replace(coord, values=values)
            coords[name] = coord
        return replace(self, coords=coords, sizes={**self.sizes, dim: self.sizes[dim] // factor})

    def _own(self, dim: str) -> CoordTemplate | None:
        """The coordinate of the dimension itself, or None."""
        coord = self.coords.get(dim)
        return None if coord is None or coord.dims is not None else coord

    def _blank(self, name: str) -> xr.DataArray:
        # The rules for dimensions take DataArrays. This one takes the memory of a single number.
        dims = self.variables[name].dims
        coords = {d: (d, self.coords[d].values, self.coords[d].attrs) for d in dims if d in self.coords}
        return xr.DataArray(np.broadcast_to(np.float32(0), self.shape(name)), coords, dims)


def without_period(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes of a coordinate, except those that mark it as periodic."""
    return {k: v for k, v in attrs.items() if k not in ("periodic", "period")}


def _time_first(dims: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(sorted(map(str, dims), key=lambda d: d != TIME))


def _clean(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): v for k, v in attrs.items() if k not in _DANGLING}


def _axis(name: str, coord: CoordTemplate, dim: str) -> int | None:
    dims = (name,) if coord.dims is None else coord.dims
    return dims.index(dim) if dim in dims else None


def _block_mean(values: np.ndarray, axis: int, factor: int, turn: float | None = None) -> np.ndarray | None:
    kind = values.dtype.kind
    if kind not in "fiubMmO" or (kind == "O" and not hasattr(values.flat[0], "calendar")):
        return None
    shape = (*values.shape[:axis], values.shape[axis] // factor, factor, *values.shape[axis + 1 :])
    blocks = values.reshape(shape)
    if kind in "fiu" and turn is not None:
        # Labels of a circle are averaged the shorter way round, counted from the first of each block.
        start = np.take(blocks, [0], axis + 1).astype(float)
        around = (blocks - start + turn / 2) % turn - turn / 2
        return np.asarray((start + around.mean(axis + 1, keepdims=True)).squeeze(axis + 1))
    if kind in "fiub":
        return np.asarray(blocks.mean(axis + 1))
    # Times cannot be added, distances in time can: those from the first time of each block.
    first = np.take(blocks, [0], axis + 1)
    distance = (blocks - first).sum(axis + 1) // factor
    mean: np.ndarray = first.squeeze(axis + 1) + distance
    return mean
