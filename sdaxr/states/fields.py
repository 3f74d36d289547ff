"""Labelled Datasets to normalised tensors and back.

A `StateLayout` turns a Dataset into the tensor ``(..., time, channel, *space)`` that a score network sees, and a tensor
into a Dataset with the labels of the training data. It holds names, units, coordinates, attributes, normalisation, land
mask, static context and the time axis. Every prior file contains one, so that a posterior carries the labels of the
user's own archive.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.schema import TIME, DataError, GridError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.climatology import Climatology
from sdaxr.states.coordinates import Coordinate, onto_grid
from sdaxr.states.names import recognised
from sdaxr.states.parameters import channel_mean, check_parameter, constant_channel
from sdaxr.states.places import Places, check_places
from sdaxr.states.storage import check_arrays, from_file, to_file
from sdaxr.states.time import TimeAxis, check_kind, phase
from sdaxr.states.units import check_values

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StateLayout:
    """Layout of the state of a system in a tensor.

    Attributes
    ----------
    variables
        Names of the state variables, in the order of their channels.
    attrs
        Attributes of each variable, units among them.
    layered
        Names of the variables that have the layer dimension; each has one channel a layer.
    layer
        Name of the layer dimension, or None.
    space
        Names of the horizontal dimensions: none, one or two.
    coords
        Coordinates of the layer and of the horizontal dimensions.
    sizes
        Sizes of the layer and of the horizontal dimensions.
    time
        Kind, step, units and calendar of the time axis.
    mean, std
        Normalisation in physical units: shape (channel, *space) or (channel, 1, ...).
    mask
        True where there are data, shape (channel, *space); None where there are data everywhere.
    context
        Static fields, each of shape (*space), normalised.
    cycles
        Cyclic time context, among ``"hour_of_day"`` and ``"day_of_year"``.
    gappy
        Whether values are missing at some times only: the network then sees, for each channel, where there are any.
    places
        Latitudes and longitudes of the grid points, of curvilinear grids and of meshes.
    climatology
        Mean and standard deviation by time of day and year, whose constants are ``mean`` and ``std``; None where these
        hold at all times.
    parameters
        Names of the variables that are constants of a trajectory (`sdaxr.states.parameters`). In a Dataset they have
        neither time nor space, in a tensor a channel that is the same at all times and points.
    """

    variables: tuple[str, ...]
    attrs: dict[str, dict[str, Any]]
    layered: tuple[str, ...]
    layer: str | None
    space: tuple[str, ...]
    coords: dict[str, Coordinate]
    sizes: dict[str, int]
    time: TimeAxis
    mean: np.ndarray
    std: np.ndarray
    mask: np.ndarray | None = None
    context: dict[str, np.ndarray] = field(default_factory=dict)
    cycles: tuple[str, ...] = ()
    places: dict[str, Places] = field(default_factory=dict)
    gappy: bool = False
    climatology: Climatology | None = None
    parameters: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the horizontal dimensions."""
        return tuple(self.sizes[d] for d in self.space)

    @property
    def channels(self) -> int:
        """Number of channels: one a variable, or one a layer of it."""
        return sum(self.depth(name) for name in self.variables)

    @property
    def parameter_channels(self) -> dict[str, int]:
        """Number of the channel of each parameter, by name."""
        ends = np.cumsum([self.depth(name) for name in self.variables])
        return {v: int(end) - 1 for v, end in zip(self.variables, ends, strict=True) if v in self.parameters}

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each horizontal dimension is periodic."""
        return tuple(d in self.coords and self.coords[d].period is not None for d in self.space)

    @property
    def coordinate_attrs(self) -> dict[Hashable, dict[str, Any]]:
        """Attributes of the coordinates of a state, by name."""
        return {name: c.attrs for name, c in (self.coords | self.places).items()}

    @property
    def context_channels(self) -> int:
        """Number of channels of `context_tensor`."""
        bounded = sum(not p for p in self.periodic)
        return 1 + len(self.context) + bounded + 2 * len(self.cycles) + self.channels * self.gappy

    def dims(self, name: str) -> tuple[str, ...]:
        """Dimensions of one state of the variable ``name``; none of a parameter."""
        if name in self.parameters:
            return ()
        head = (self.layer,) if self.layer is not None and name in self.layered else ()
        return head + self.space

    def depth(self, name: str) -> int:
        """Number of channels of a variable."""
        return self.sizes[self.layer] if self.layer is not None and name in self.layered else 1

    def moments(self, times: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the states at ``times`` (n,), of shapes that broadcast to that of the states.

        With a climatology the shape is (n, channel, *space), otherwise that of ``mean`` and ``std``.

        Raises
        ------
        DataError
            If there is a climatology, and the times are of another calendar.
        """
        if self.climatology is None:
            return self.mean, self.std
        check_kind(times, self.time.kind, of="the states", like="the climatology", calendar=self.time.calendar)
        return self.climatology.at(times)

    # Datasets to tensors

    def to_array(self, data: xr.Dataset, *, gaps: bool = False) -> np.ndarray:
        """Normalised values of ``data``.

        Parameters
        ----------
        data
            Has every state variable, with a ``time`` dimension and at most one ensemble dimension, on the points of
            the layout in any order (`conform`). A parameter may have these two dimensions; it is the same at all times
            where it has no ``time``.
        gaps
            Whether values may be NaN outside the mask.

        Returns
        -------
        Array of shape (ensemble?, time, channel, *space), float32; masked points are zero.

        Raises
        ------
        DataError, GridError, UnitsError
            If variables, units or coordinates are not those of the layout, or values are not finite.
        """
        data = self.conform(data)
        ensemble = ensemble_dimension(data)
        head = ((ensemble,) if ensemble is not None else ()) + (TIME,)
        parts = []
        for name in self.variables:
            if name in self.parameters:
                parts.append(constant_channel(data[name], {d: data.sizes[d] for d in head}, self.shape))
                continue
            values = data[name].transpose(*head, *self.dims(name)).values
            values = values if name in self.layered and self.layer else np.expand_dims(values, len(head))
            parts.append(values)
        mean, std = self.moments(data[TIME])
        # In place: of large data the numbers are most of the memory.
        array: np.ndarray = np.concatenate(parts, axis=len(head)) - mean
        array /= std
        if self.mask is not None:
            array = np.where(self.mask, array, 0.0)
        if not (gaps and not np.isinf(array).any()) and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise DataError(
                f"found {bad} values that are not finite outside the mask of the prior, expected none; "
                "fill them (ds.interpolate_na, ds.fillna) or select the complete times"
            )
        return array.astype(np.float32)

    def conform(self, data: xr.Dataset, *, model: str = "the prior") -> xr.Dataset:
        """``data`` in the order, and with the labels, of the grid of this layout.

        Points are matched by their labels (`sdaxr.states.coordinates.onto_grid`): latitudes may run the other way, and
        longitudes may be counted from elsewhere. A dimension without labels is taken as it is.

        Parameters
        ----------
        data
            Has every state variable, with any number of times and at most one ensemble dimension.
        model
            Whose layout it is, for errors.

        Raises
        ------
        DataError, GridError, UnitsError
            If variables, dimensions, units or points are not those of the layout.
        """
        data = recognised(data, self.coordinate_attrs)
        missing = [v for v in self.variables if v not in data.data_vars]
        if missing:
            raise DataError(f"variable {schema.nearest(missing[0], map(str, data.data_vars))}")
        for name in self.variables:
            found = data[name]
            check_values(name, found, "the data")
            schema.check_units(name, found.attrs.get("units"), self.attrs[name].get("units"), "the data")
            known = {*self.dims(name), TIME, str(ensemble_dimension(data))}
            if name in self.parameters:
                check_parameter(name, found)
                continue
            if set(self.dims(name)) - set(map(str, found.dims)) or set(map(str, found.dims)) - known:
                raise GridError(f"'{name}' has dimensions {found.dims}, expected {self.dims(name)} besides time")
        grid = {d: self.coords.get(d, size) for d, size in self.sizes.items()}
        data = onto_grid(data, grid, of="the data", like=model)
        check_places(data, self.places, of="the data", like=model)
        return data

    def context_array(self, times: xr.DataArray) -> np.ndarray:
        """Context of the network, besides the state.

        Returns
        -------
        Array of shape (time, context channel, *space), float32. Its channels are: 1 where there are data and 0 on land,
        the static fields, the position along each bounded dimension from -1 to 1, and sine and cosine of each cycle;
        and with ``gappy`` 1 where a channel has a value, which is everywhere except on land.
        """
        present = np.ones(self.shape) if self.mask is None else self.mask.any(axis=0).astype(float)
        static = [present, *self.context.values()]
        for axis, (size, periodic) in enumerate(zip(self.shape, self.periodic, strict=True)):
            if not periodic:
                line = np.linspace(-1.0, 1.0, size).reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
                static.append(np.broadcast_to(line, self.shape))
        stacked = np.broadcast_to(np.stack(static), (times.size, len(static), *self.shape))
        phases = [phase(times, name) for name in self.cycles]
        moving = [f(p) for p in phases for f in (np.sin, np.cos)]
        parts = [stacked]
        if moving:
            varying = np.stack(moving, axis=1).reshape(times.size, -1, *[1] * len(self.shape))
            parts.append(np.broadcast_to(varying, (*varying.shape[:2], *self.shape)))
        if self.gappy:
            seen = np.ones((self.channels, *self.shape)) if self.mask is None else self.mask
            parts.append(np.broadcast_to(seen, (times.size, *seen.shape)))
        return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)

    # Tensors to labels

    def to_fields(self, state: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Physical fields, differentiable: (..., time, channel, *space) to {name: (..., time, [layer], *space)}.

        A parameter is (...), the mean over the times and points of its channel.

        Parameters
        ----------
        state
            Normalised states.
        moments
            Mean and standard deviation at the times of the states (`moments`), as tensors like ``state``.
        """
        import torch

        mean, std = moments
        axis = state.ndim - len(self.space) - 1
        parts = torch.split(state * std + mean, [self.depth(v) for v in self.variables], dim=axis)
        named = self._named(parts, axis)
        return named | self._constants(named, axis - 1)

    def to_physical(self, state: np.ndarray, times: xr.DataArray) -> dict[str, np.ndarray]:
        """Like `to_fields`, in numpy and float32, for states at ``times``, with NaN where the mask has no data."""
        mean, std = self.moments(times)
        physical = (state * std + mean).astype(np.float32)
        if self.mask is not None:
            physical = np.where(self.mask, physical, np.float32(np.nan))
        axis = state.ndim - len(self.space) - 1
        parts = np.split(physical, np.cumsum([self.depth(v) for v in self.variables])[:-1], axis=axis)
        named = self._named(parts, axis)
        return named | {v: np.asarray(a, np.float32) for v, a in self._constants(named, axis - 1).items()}

    def _constants(self, named: Mapping[str, Any], time: int) -> dict[str, Any]:
        """The parameters among the variables (..., time, *space), ``time`` the number of that axis."""
        present = None if self.mask is None else np.asarray(self.mask.any(axis=0))
        return {v: channel_mean(named[v], time, present) for v in self.parameters}

    def _named(self, parts: Sequence[Any], axis: int) -> dict[str, Any]:
        """The channels of each variable, by its name; without the axis of layers where it has none."""
        named = zip(self.variables, parts, strict=True)
        return {v: part if v in self.layered and self.layer else part.squeeze(axis) for v, part in named}

    def template(self, times: xr.DataArray, head: Mapping[str, Any] | None = None) -> xr.Dataset:
        """A Dataset of zeros with the labels of this layout on ``times``; its values occupy no memory.

        Those of the attribute ``parameters`` have the leading dimension only.

        Parameters
        ----------
        times
            The time coordinate, of size L.
        head
            A leading dimension and its coordinate, such as ``{"member": np.arange(8)}``.
        """
        lead = {str(d): len(v) for d, v in (head or {}).items()}
        sizes = lead | {TIME: times.size} | self.sizes
        zero = np.zeros((), np.float32)
        dims = {v: (*lead, *(() if v in self.parameters else (TIME,)), *self.dims(v)) for v in self.variables}
        data = {v: (d, np.broadcast_to(zero, [sizes[k] for k in d]), self.attrs[v]) for v, d in dims.items()}
        coords: dict[Hashable, Any] = {TIME: times.variable}
        coords |= {d: (d, c.values, c.attrs) for d, c in self.coords.items()}
        coords |= {d: (d, np.asarray(v)) for d, v in (head or {}).items()}
        coords |= {name: (p.dims, p.values, p.attrs) for name, p in self.places.items()}
        return xr.Dataset(data, coords)

    def times(self, start: Any, count: int) -> xr.DataArray:
        """A time coordinate of ``count`` steps of this layout, from ``start`` on."""
        attrs: dict[str, Any] = {"long_name": "time"} | ({"axis": "T"} if self.time.calendar else {})
        if self.time.kind == "float":
            attrs |= {"units": self.time.units} if self.time.units else {}
        elif self.time.kind != "timedelta":
            attrs["standard_name"] = "time"
        return xr.DataArray(self.time.after(start, count), dims=TIME, name=TIME, attrs=attrs)

    # Files

    def to_file(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready metadata from which `from_file` makes the same layout."""
        return to_file(self)

    @classmethod
    def from_file(cls, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> StateLayout:
        """The layout that `to_file` took apart.

        Raises
        ------
        PriorError
            If the arrays are not those of the layout.
        """
        found = cls(**from_file(arrays, metadata))
        check_arrays(found, arrays)
        return found
