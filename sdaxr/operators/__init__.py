"""Observation operators: what an instrument sees of the state.

::

    from sdaxr import operators as op

    op.vorticity() >> op.coarsen(4) >> op.saturate()

======================  ==========================================================
`identity`, `select`    the state, some of its variables
`coarsen`, `subsample`  block means; every n-th grid point
`region`                a box in coordinate values
`points`                stations, by bilinear interpolation
`locations`             single measurements, each with its own time and place
`vorticity`             vorticity of a velocity, on a plane or a sphere
`pv_inversion`          velocities of two layers from potential vorticity
`saturate`, `arctan`    sensors that saturate
`sin`, `scale`          sine; multiplication by a factor, and an offset
`standardise`           deviations from the mean, in standard deviations
`standardise_like`      the same, by the standard deviations of given data
`time_difference`       the difference of the states at two times
`function`              a torch function of one's own
`compose`               the same as ``first >> second``
`from_json`, `parse`    an operator from JSON, or from text such as ``coarsen(4)``
======================  ==========================================================
"""

from __future__ import annotations

from sdaxr.operators.base import Bound, Operator, compose, from_json
from sdaxr.operators.calculus import vorticity
from sdaxr.operators.function import function
from sdaxr.operators.grid import coarsen, region, subsample
from sdaxr.operators.interpolation import points
from sdaxr.operators.inversion import pv_inversion
from sdaxr.operators.locations import locations
from sdaxr.operators.parsing import parse
from sdaxr.operators.pointwise import arctan, identity, saturate, scale, select, sin
from sdaxr.operators.standardise import standardise, standardise_like
from sdaxr.operators.template import CoordTemplate, Template, VariableTemplate
from sdaxr.operators.temporal import time_difference

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
