"""Patches of a large domain: what a network sees of them, and on which other domains they lie.

A prior of patches is trained on windows that are cut at random places out of a larger domain, and is evaluated on
overlapping tiles of the size of a patch (`sdaxr.prior.tiles`). The statistics are the same everywhere along the
dimensions that are cut, except for what static fields tell: latitude, topography, or the shape of a forcing. To the
network a patch is a bounded domain of its own, with the position of each point in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.schema import DataError, GridError, OptionError, check_units, nearest
from sdaxr.states.coordinates import TOLERANCE, Coordinate, coordinate_of, onto_grid, spacing_of
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import normalised_context
from sdaxr.states.names import recognised
from sdaxr.states.places import places_of


@dataclass(frozen=True)
class Patches:
    """Patches of the states of a layout.

    Attributes
    ----------
    layout
        Layout of the states on the whole domain.
    sizes
        Points of a patch along each dimension that is cut.
    """

    layout: StateLayout
    sizes: dict[str, int]

    @classmethod
    def of(cls, layout: StateLayout, sizes: Mapping[str, int]) -> Patches | None:
        """The patches of these sizes; None where there are none.

        Raises
        ------
        OptionError
            If a dimension is unknown, or the domain is smaller than a patch.
        DataError
            If the states are not alike along the dimensions.
        """
        if not sizes:
            return None
        for dim, size in sizes.items():
            if dim not in layout.space:
                raise OptionError(f"dimension of the patches: {nearest(dim, layout.space)}")
            if not 2 <= size <= layout.sizes[dim]:
                raise OptionError(
                    f"found patches of {size} points along '{dim}', expected from 2 to the {layout.sizes[dim]} points "
                    "of the domain; take smaller patches, or a larger domain"
                )
        if reason := _unlike(layout):
            raise DataError(f"found patches={dict(sizes)} and {reason}")
        return cls(layout, dict(sizes))

    @cached_property
    def tile(self) -> StateLayout:
        """Layout of the states on one patch, which is bounded along the dimensions that are cut."""
        layout, coords = self.layout, dict(self.layout.coords)
        for dim, size in self.sizes.items():
            if dim in coords:
                coords[dim] = Coordinate(coords[dim].values[:size], coords[dim].attrs | {"periodic": 0})
        corner = tuple(slice(self.sizes.get(dim)) for dim in layout.space)
        context = {name: field[corner] for name, field in layout.context.items()}
        return replace(layout, sizes=layout.sizes | self.sizes, coords=coords, context=context, places={})

    def fields(self, times: xr.DataArray) -> np.ndarray:
        """Context on the whole domain without positions, (time, channel, *space), float32; see `placed`."""
        known = self.layout.context_array(times)
        first = 1 + len(self.layout.context)
        positions = slice(first, first + sum(not periodic for periodic in self.layout.periodic))
        return np.delete(known, positions, axis=1)

    def placed(self, context: Tensor) -> Tensor:
        """Context of a patch: its part of `fields`, (..., time, channel, *space), with the positions of its points."""
        first = 1 + len(self.layout.context)
        axis = context.ndim - len(self.layout.space) - 1
        head, tail = context.narrow(axis, 0, first), context.narrow(axis, first, context.shape[axis] - first)
        positions = torch.as_tensor(self._positions, dtype=context.dtype, device=context.device)
        return torch.cat([head, positions.expand(*context.shape[:axis], *positions.shape), tail], dim=axis)

    @cached_property
    def _positions(self) -> np.ndarray:
        """Position along each bounded dimension of a patch, from -1 to 1, (channel, *space)."""
        shape, found = self.tile.shape, []
        for axis, (size, periodic) in enumerate(zip(shape, self.tile.periodic, strict=True)):
            if not periodic:
                line = np.linspace(-1.0, 1.0, size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
                found.append(np.broadcast_to(line, shape))
        return np.stack(found)

    def cut(self, fields: Tensor | Sequence[Tensor], corners: np.ndarray) -> Tensor:
        """One patch of each field, (batch, ..., *patch).

        Parameters
        ----------
        fields
            Shape (batch, ..., *space).
        corners
            First point of each patch along each dimension of ``sizes``, (dimension, batch).
        """
        space = self.layout.space
        for (dim, size), first in zip(self.sizes.items(), corners, strict=True):
            axis = space.index(dim) - len(space)
            points = torch.as_tensor((first[:, None] + np.arange(size)) % self.layout.sizes[dim])
            pairs = zip(fields, points.to(fields[0].device), strict=True)
            fields = [field.index_select(axis, index) for field, index in pairs]
        return torch.stack(list(fields))

    def corners(self, draw: np.random.Generator, count: int) -> np.ndarray:
        """First points of ``count`` patches at random places, (dimension, count)."""
        layout, ends = self.layout, []
        for dim, size in self.sizes.items():
            periodic = layout.periodic[layout.space.index(dim)]
            ends.append(layout.sizes[dim] if periodic else layout.sizes[dim] - size + 1)
        return np.stack([draw.integers(end, size=count) for end in ends])

    def on(self, domain: xr.Dataset, moments: Mapping[str, tuple[float, float]]) -> StateLayout:
        """The layout on another domain of the same spacing.

        Parameters
        ----------
        domain
            Has the horizontal dimensions with their coordinates, and the static fields of the context.
        moments
            Mean and standard deviation with which each static field is normalised.

        Raises
        ------
        GridError, UnitsError
            If dimensions, spacing or units are not those of the patches, or the domain is smaller than a patch.
        DataError
            If a static field is missing.
        """
        layout = self.layout
        domain = recognised(domain, layout.coordinate_attrs)
        for dim in layout.space:
            if dim not in domain.sizes:
                raise GridError(f"dimension {nearest(dim, map(str, domain.sizes))} of the domain")
            if dim in self.sizes:
                self._check_spacing(domain, dim)
        whole: dict[Any, Any] = {d: layout.coords.get(d, layout.sizes[d]) for d in layout.sizes if d not in self.sizes}
        known = {d: grid for d, grid in whole.items() if d in domain.sizes}
        domain = onto_grid(domain, known, of="the domain", like="the prior")
        coords = {d: coordinate_of(domain[d]) if d in self.sizes else c for d, c in layout.coords.items()}
        context = {n: normalised_context(domain, n, layout.space, moments[n]) for n in layout.context}
        sizes = layout.sizes | {d: int(domain.sizes[d]) for d in self.sizes}
        places = places_of(domain, layout.space) if layout.places else {}
        return replace(layout, sizes=sizes, coords=coords, context=context, places=places)

    def _check_spacing(self, domain: xr.Dataset, dim: str) -> None:
        size, coordinate = self.sizes[dim], self.layout.coords.get(dim)
        if domain.sizes[dim] < size:
            raise GridError(
                f"the domain has {domain.sizes[dim]} points along '{dim}', expected at least the {size} of a patch; "
                "take a larger domain, or a prior of smaller patches"
            )
        if coordinate is None:
            return
        if dim not in domain.coords:
            raise GridError(f"'{dim}' has no labels in the domain, expected those of its points; assign coordinates")
        check_units(dim, domain[dim].attrs.get("units"), coordinate.attrs.get("units"), "the domain")
        found, expected = (_step(values) for values in (domain[dim].values, coordinate.values))
        if abs(found - expected) > TOLERANCE * abs(expected):
            raise GridError(
                f"the points along '{dim}' lie {found:.6g} apart in the domain and {expected:.6g} in the prior, "
                "expected the same; interpolate the domain, or train a prior of its spacing"
            )


def _step(values: np.ndarray) -> float:
    """Distance from one point to the next, below 0 where they run down."""
    return spacing_of(values) * float(np.sign(np.median(np.diff(values.astype(float)))))


def _unlike(layout: StateLayout) -> str | None:
    """Why the states of a layout cannot be cut into patches; None where they can."""
    if layout.mask is not None or layout.gappy:
        return "states with land or gaps, expected values everywhere; fill them (ds.interpolate_na, ds.fillna)"
    if layout.climatology is not None or layout.mean.shape[1:] != (1,) * len(layout.space):
        return (
            "a mean of each point, expected one of each variable; train with "
            "statistics={'normalise': 'channel'}, on anomalies where the mean varies"
        )
    if layout.parameters:
        return f"the parameters {list(layout.parameters)}, which are one number of the whole domain; leave them out"
    if any(len(place.dims) == 1 for place in layout.places.values()):
        return "a mesh, whose points have no rows and columns; interpolate to a grid, or train without patches"
    return None
