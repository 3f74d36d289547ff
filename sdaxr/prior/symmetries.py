"""Transformations of the states that leave their statistics as they are; they take the place of more data.

A flow in a periodic channel that is turned by 180 degrees, both velocities negated, is as probable as the flow itself.
Windows of the training are transformed at random, so that the network learns from all images of a state. Flips and
shifts only permute the points along each axis, so that any number of transformations is one gather along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdaxr.schema import OptionError, nearest
from sdaxr.states.fields import StateLayout

_PARTS = ("flip", "shift", "negate")
# A negated variable is shifted by twice its mean. A sample mean of up to a quarter of a standard deviation passes for
# zero.
_LARGEST_OFFSET = 0.5


@dataclass(frozen=True)
class Symmetry:
    """Flips, then shifts of periodic dimensions, and changes of sign.

    Attributes
    ----------
    flip
        Axes of a window (time, channel, *space) that are flipped, counted from the end.
    shift
        Axes that are shifted, and by how many grid points.
    signs, offset
        1 or -1 for each state channel, and what is added to the channel after the change of sign; both of shape
        (channel, 1, ...). A normalised variable with a mean is negated in physical units by an offset.
    order
        Number of applications that make the identity.
    """

    flip: tuple[int, ...]
    shift: dict[int, int]
    signs: np.ndarray
    offset: np.ndarray
    order: int

    def moved(self, fields: np.ndarray) -> np.ndarray:
        """Flip and shift ``fields``, without a change of sign."""
        fields = np.flip(fields, self.flip) if self.flip else fields
        return np.roll(fields, list(self.shift.values()), list(self.shift)) if self.shift else fields

    def places(self, axis: int, size: int) -> np.ndarray:
        """Where each point along ``axis`` comes from, (order, size), after 0, 1, ... applications."""
        once = np.arange(size)
        once = np.roll(once[::-1] if axis in self.flip else once, self.shift.get(axis, 0))
        table = [np.arange(size)]
        for _ in range(1, self.order):
            table.append(table[-1][once])
        return np.stack(table)


def transform(states: Tensor, symmetries: Sequence[tuple[Symmetry, np.ndarray]]) -> Tensor:
    """Apply symmetries one after another to windows.

    Parameters
    ----------
    states
        Windows of normalised states, (batch, time, channel, *space).
    symmetries
        Each symmetry with the number of its applications to each window, (batch,), from 0 to its order.
    """
    for axis in sorted({axis for symmetry, _ in symmetries for axis in (*symmetry.flip, *symmetry.shift)}):
        size = states.shape[axis]
        places = np.broadcast_to(np.arange(size), (len(states), size))
        for symmetry, times in symmetries:
            places = np.take_along_axis(places, symmetry.places(axis, size)[times], axis=1)
        index = torch.as_tensor(places, device=states.device)
        ahead = states.ndim + axis - 1
        states = states.take_along_dim(index.reshape(len(states), *[1] * ahead, size, *[1] * (-axis - 1)), axis)
    signs, offset = np.ones((len(states), 1), np.float32), np.zeros((len(states), 1), np.float32)
    for symmetry, times in symmetries:
        # Two changes of sign make none, and neither an offset.
        odd = (times % 2 == 1)[:, None]
        sign = np.where(odd, symmetry.signs.reshape(1, -1), np.float32(1))
        signs, offset = signs * sign, offset * sign + np.where(odd, symmetry.offset.reshape(1, -1), np.float32(0))
    if (signs == 1).all():
        return states
    shape = (len(states), 1, -1, *[1] * (states.ndim - 3))
    factor, term = (torch.as_tensor(a, device=states.device).reshape(shape) for a in (signs, offset))
    return states * factor + term


def bind_symmetries(layout: StateLayout, symmetries: Sequence[Mapping[str, Any]]) -> list[Symmetry]:
    """Symmetries of states of ``layout``.

    Parameters
    ----------
    layout
        How states are laid out.
    symmetries
        Each a mapping of ``"flip"`` to dimensions, ``"shift"`` to a mapping of periodic dimensions to numbers of grid
        points, and ``"negate"`` to the state variables and context fields that change sign.

    Raises
    ------
    OptionError
        If a name is unknown, a bounded dimension is shifted, a negated variable has a large mean, there is land, or a
        context field does not have the symmetry.
    """
    return [_parsed(layout, symmetry) for symmetry in symmetries]


def _parsed(layout: StateLayout, symmetry: Mapping[str, Any]) -> Symmetry:
    _check_names(layout, symmetry)
    flip, shift, negate = symmetry.get("flip", ()), dict(symmetry.get("shift", {})), symmetry.get("negate", ())
    signs = np.concatenate([np.full(layout.depth(v), -1.0 if v in negate else 1.0) for v in layout.variables])
    signs = signs.reshape(layout.mean.shape)
    offset = (signs - 1) * layout.mean / layout.std
    if np.abs(offset).max() > _LARGEST_OFFSET:
        raise OptionError(
            f"the symmetry {dict(symmetry)} negates a variable whose mean is {np.abs(offset).max() / 2:.2g} of its "
            "standard deviation, expected zero; negate anomalies, or leave the symmetry out"
        )
    order = 2 if flip or negate else 1
    for dim, points in shift.items():
        order = math.lcm(order, layout.sizes[dim] // math.gcd(layout.sizes[dim], points))
    axes = {dim: layout.space.index(dim) - len(layout.space) for dim in layout.space}
    found = Symmetry(
        tuple(axes[d] for d in flip), {axes[d]: int(n) for d, n in shift.items()},
        signs.astype(np.float32), offset.astype(np.float32), order,
    )  # fmt: skip
    _check_context(layout, symmetry, found)
    return found


def _check_names(layout: StateLayout, symmetry: Mapping[str, Any]) -> None:
    if not isinstance(symmetry, Mapping):
        raise OptionError(f"found the symmetry {symmetry!r}, expected a mapping such as {{'negate': ['u']}}")
    for key in symmetry:
        if key not in _PARTS:
            raise OptionError(f"part of a symmetry: {nearest(key, _PARTS)}")
    for dim in (*symmetry.get("flip", ()), *symmetry.get("shift", {})):
        if dim not in layout.space:
            raise OptionError(f"dimension of the symmetry {dict(symmetry)}: {nearest(dim, layout.space)}")
    for dim in symmetry.get("shift", {}):
        if not layout.periodic[layout.space.index(dim)]:
            raise OptionError(
                f"the symmetry {dict(symmetry)} shifts '{dim}', which is not periodic (attribute 'period')"
            )
    known = (*layout.variables, *layout.context)
    for name in symmetry.get("negate", ()):
        if name not in known:
            raise OptionError(f"negated by the symmetry {dict(symmetry)}: {nearest(name, known)}")
    if layout.mask is not None or layout.mean.shape[1:] != (1,) * len(layout.space):
        raise OptionError(
            "found symmetries of states with land, a climatology or normalise='point', whose statistics differ from "
            "point to point; leave the symmetries out, or take normalise='channel'"
        )


def _check_context(layout: StateLayout, symmetry: Mapping[str, Any], found: Symmetry) -> None:
    """Raise `OptionError` if a context field does not have the symmetry; 1e-4 of the field is rounding of float32."""
    for name, field in layout.context.items():
        sign = -1 if name in symmetry.get("negate", ()) else 1
        change = np.abs(found.moved(field) * sign - field).max()
        if change > 1e-4 * max(1.0, float(np.abs(field).max())):
            raise OptionError(
                f"the context field '{name}' changes by {change:.2g} under the symmetry {dict(symmetry)}; "
                "negate it, shift by another number of grid points, or leave the symmetry out"
            )
