"""Observations in the units of the operator's output, where the user asks for it."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.operators import Operator, Template
from sdaxr.schema import OptionError, nearest
from sdaxr.states.units import check_given, check_values, conversion

UNITS = ("error", "convert")


def in_units(
    networks: Mapping[str, xr.Dataset], operators: Mapping[str, Operator], states: xr.Dataset, units: str
) -> tuple[dict[str, xr.Dataset], dict[str, list[str]]]:
    """Networks of observations in the units of what their operators give.

    Parameters
    ----------
    networks, operators
        Observations and operator of each network.
    states
        Labels of the states that the operators take.
    units
        ``"error"`` leaves the observations as they are, so that other units are an error later; ``"convert"``
        converts values and errors.

    Returns
    -------
    networks, record
        The networks, and ``{"units_converted": [...]}`` for the provenance, one text such as ``"t2m: degC to K"`` for
        each converted variable; empty where nothing is converted.

    Raises
    ------
    OptionError
        If ``units`` is unknown.
    UnitsError
        If an observed variable has no units, or units that cannot be converted.
    """
    if units not in UNITS:
        raise OptionError(f"units={nearest(units, UNITS)}")
    if units == "error":
        return dict(networks), {}
    template, found, done = Template.from_dataset(states), {}, []
    for name, data in networks.items():
        expected = {n: v.units for n, v in operators[name].bind(template).template.variables.items()}
        found[name], record = _converted(data, expected)
        done += record
    return found, {"units_converted": done} if done else {}


def _converted(data: xr.Dataset, expected: Mapping[str, str]) -> tuple[xr.Dataset, list[str]]:
    done = []
    for name in observed_variables(data):
        value, to = data[name], expected.get(name, "")
        if not to:
            continue  # What the operator does not give is refused where observations are matched.
        check_values(name, value, "the observations")
        check_given(name, value.attrs, "the observations")
        units = str(value.attrs["units"])
        scale, offset = conversion(name, units, to)
        label = f"{name}{ERROR}"
        if label in data:
            check_values(label, data[label], "the observations")
            # An error is a difference of two values: the offset of the scale is not part of it.
            per, _ = conversion(label, str(data[label].attrs.get("units") or units), to)
            data = data.assign({label: (data[label] * per).assign_attrs(data[label].attrs | {"units": to})})
        if units != to:
            data = data.assign({name: (value * scale + offset).assign_attrs(value.attrs | {"units": to})})
            done.append(f"{name}: {units} to {to}")
    return data, done
