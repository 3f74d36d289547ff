"""Transformations of the states that leave their statistics as they are: data for nothing.

A flow in a periodic channel looks the same from the other end: turned by 180 degrees, with both velocities negated, it
is as good a state as before. Windows of the training are transformed at random.
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


@dataclass(frozen=True)
class Symmetry:
    """Flips, then shifts of periodic dimensions, and changes of sign.

    Attributes
    ----------
    flip
        Axes of a window (time, channel, *space) that are flipped, counted from the end.
    shift
        Axes that are rolled, and by how many cells.
    signs, offset
        1 or -1 for each state channel, and what is added to it then (normalised variables that have a mean), both of
        shape (channel, 1, ...).
    order
        Number of applications after which everything is as before.
    """

    flip: tuple[int, ...]
    shift: dict[int, int]
    signs: np.ndarray
    offset: np.ndarray
    order: int

    def __call__(self, states: np.ndarray, times: int = 1) -> np.ndarray:
        """Apply it so many times to states (time, channel, *space)."""
        for _ in range(times):
            states = self.moved(states) * self.signs + self.offset
        return states

    def moved(self, fields: np.ndarray) -> np.ndarray:
        """Flipped and shifted, with signs as they are."""
        fields = np.flip(fields, self.flip) if self.flip else fields
        return np.roll(fields, list(self.shift.values()), list(self.shift)) if self.shift else fields


def parse(layout: StateLayout, symmetries: Sequence[Mapping[str, Any]]) -> list[Symmetry]:
    """Symmetries of states of ``layout``.

    Each is a mapping of ``"flip"`` to dimensions, ``"shift"`` to a mapping of periodic dimensions to numbers of cells,
    and ``"negate"`` to the state variables and context fields that change sign.

    Raises
    ------
    OptionError
        If a name is unknown, a bounded dimension is shifted, a variable that is negated has a mean, there is land, or a
        context field does not have the symmetry.
    """
    return [_parsed(layout, symmetry) for symmetry in symmetries]


def _parsed(layout: StateLayout, symmetry: Mapping[str, Any]) -> Symmetry:
    for key in symmetry:
        if key not in _PARTS:
            raise OptionError(f"part of a symmetry: {nearest(key, _PARTS)}")
    flip, shift, negate = symmetry.get("flip", ()), dict(symmetry.get("shift", {})), symmetry.get("negate", ())
    for dim in (*flip, *shift):
        if dim not in layout.space:
            raise OptionError(f"dimension of the symmetry {dict(symmetry)}: {nearest(dim, layout.space)}")
    for dim in shift:
        if not layout.periodic[layout.space.index(dim)]:
            raise OptionError(
                f"the symmetry {dict(symmetry)} shifts '{dim}', which is not periodic (attribute 'period')"
            )
    for name in negate:
        if name not in (*layout.variables, *layout.context):
            known = (*layout.variables, *layout.context)
            raise OptionError(f"negated by the symmetry {dict(symmetry)}: {nearest(name, known)}")
    axes = {dim: layout.space.index(dim) - len(layout.space) for dim in layout.space}
    if layout.mask is not None or layout.mean.shape[1:] != (1,) * len(layout.space):
        raise OptionError("found symmetries= beside land or normalise='point', which have none; leave symmetries out")
    signs = np.concatenate([np.full(layout.depth(v), -1.0 if v in negate else 1.0) for v in layout.variables])
    signs = signs.reshape(layout.mean.shape)
    offset = (signs - 1) * layout.mean / layout.std
    if np.abs(offset).max() > 0.5:
        raise OptionError(
            f"the symmetry {dict(symmetry)} negates a variable whose mean is {np.abs(offset).max() / 2:.2g} of its "
            "standard deviation, expected zero; negate anomalies, or leave the symmetry out"
        )
    order = 2 if flip or negate else 1
    for dim, cells in shift.items():
        size = layout.sizes[dim]
        order = math.lcm(order, size // math.gcd(size, cells))
    found = Symmetry(
        tuple(axes[d] for d in flip), {axes[d]: int(n) for d, n in shift.items()},
        signs.astype(np.float32), offset.astype(np.float32), order,
    )  # fmt: skip
    for name, field in layout.context.items():
        change = np.abs(found.moved(field) * (-1 if name in negate else 1) - field).max()
        if change > 1e-4 * max(1.0, float(np.abs(field).max())):
            raise OptionError(
                f"the context field '{name}' changes by {change:.2g} under the symmetry {dict(symmetry)}; "
                "negate it, shift by another number of cells, or leave the symmetry out"
            )
    return found
