"""Observation operators: what an instrument sees of the state.

    from sdaxr import operators as op

    op.vorticity() >> op.coarsen(4) >> op.saturate()

======================  ==========================================================
`identity`, `select`    the state, some of its variables
`coarsen`, `subsample`  block means; every n-th grid point
`region`                a box in coordinate values
`points`                stations, by bilinear interpolation
`locations`             single measurements, each with its own time and place
`vorticity`             of a velocity, on a plane or on the sphere
`pv_inversion`          velocities of two layers from potential vorticity
`saturate`, `arctan`    sensors that saturate
`sin`, `scale`          sine; factor and offset
`standardise`           by mean and standard deviation, for each layer
`time_difference`       between two times
`function`              a torch function of one's own
`compose`               the same as ``first >> second``
`from_json`, `parse`    an operator from its JSON, or from the text of the calls
======================  ==========================================================
"""

from __future__ import annotations

from .base import Bound, Operator, compose, from_json
from .calculus import vorticity
from .function import function
from .grid import coarsen, region, subsample
from .interpolation import points
from .inversion import pv_inversion
from .locations import locations
from .parsing import parse
from .pointwise import arctan, identity, saturate, scale, select, sin
from .standardise import standardise, standardise_like
from .template import CoordTemplate, Template, VariableTemplate
from .temporal import time_difference

__all__ = [
    "identity",
    "select",
    "coarsen",
    "subsample",
    "region",
    "points",
    "locations",
    "vorticity",
    "pv_inversion",
    "saturate",
    "arctan",
    "sin",
    "scale",
    "standardise",
    "standardise_like",
    "time_difference",
    "function",
    "compose",
    "from_json",
    "parse",
    "Operator",
    "Bound",
    "Template",
    "VariableTemplate",
    "CoordTemplate",
]
