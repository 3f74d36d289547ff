"""Transformations of the states that leave their statistics as they are; they take the place of more data.

A flow in a periodic channel that is turned by 180 degrees, both velocities negated, is as probable as the flow itself.
Windows of the training are transformed at random, so that the network learns from all images of a state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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

    def __call__(self, states: np.ndarray, times: int = 1) -> np.ndarray:
        """Apply the symmetry ``times`` times to states (time, channel, *space)."""
        for _ in range(times):
            states = self.moved(states) * self.signs + self.offset
        return states

    def moved(self, fields: np.ndarray) -> np.ndarray:
        """Flip and shift ``fields``, without a change of sign."""
        fields = np.flip(fields, self.flip) if self.flip else fields
        return np.roll(fields, list(self.shift.values()), list(self.shift)) if self.shift else fields


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
            "found symmetries of states with land or normalise='point', whose statistics differ from point to point; "
            "leave the symmetries out, or take normalise='channel'"
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
