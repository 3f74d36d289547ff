"""Labels of the states of a system."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdaxr.states.axes import layer_dimension, space_dimensions
from sdaxr.states.coordinates import coordinate_of, plain_attrs
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import TimeAxis
from sdaxr.systems.base import System


@dataclass(frozen=True)
class SystemLayout(StateLayout):
    """A layout with scalars beside fields; ``scalars`` are their names."""

    scalars: tuple[str, ...] = ()

    def dims(self, name: str) -> tuple[str, ...]:
        """Dimensions of one state of the variable ``name``."""
        return () if name in self.scalars else super().dims(name)


def system_layout(system: System) -> SystemLayout:
    """The layout of the states of a system, in physical units: mean 0, standard deviation 1."""
    state = system.template()
    first = next(iter(state.data_vars.values()))
    layers = {str(n): layer_dimension(v) for n, v in state.data_vars.items()}
    layer = next((str(d) for d in layers.values() if d is not None), None)
    space = tuple(map(str, space_dimensions(first)))
    units = str(system.time_attrs.get("units", ""))
    return SystemLayout(
        variables=tuple(layers),
        attrs={str(n): plain_attrs(v.attrs) for n, v in state.data_vars.items()},
        layered=tuple(n for n, d in layers.items() if d is not None),
        layer=layer,
        space=space,
        coords={str(d): coordinate_of(c) for d, c in state.coords.items()},
        sizes={str(d): n for d, n in state.sizes.items()},
        time=TimeAxis("float", system.step, units),
        mean=np.zeros(1),
        std=np.ones(1),
        scalars=tuple(str(n) for n, v in state.data_vars.items() if not v.dims),
    )


def channels_of(system: System) -> int:
    """Number of fields on the grid (variables and layers) one after the other in a state vector; of scalars, all.

    Variables on different grids count as one.
    """
    layout = system_layout(system)
    points = math.prod(layout.sizes[d] for d in layout.space)
    alike = all(
        math.prod(v.sizes[d] for d in v.dims if d in layout.space) == points for v in system.template().values()
    )
    return system.size // points if alike else 1
