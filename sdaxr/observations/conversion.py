"""Observations and their places in the units of the operator's output, where the user asks for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import xarray as xr

from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.shared import converted_bias, predictors
from sdaxr.operators import Operator, Template
from sdaxr.schema import GridError, OptionError, UnitsError, check_units, nearest
from sdaxr.states.coordinates import plain_attrs, turn_of
from sdaxr.states.units import check_given, check_values, conversion, is_readable

UNITS = ("error", "convert")


def places_in_units(
    networks: Mapping[str, xr.Dataset], expected: Mapping[Hashable, Mapping[Any, Any]], units: str
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Networks of observations whose coordinates are in the units of those of the states.

    Units of the same size, such as degrees_east and degree, are the same. Units that cannot be read, such as those of
    model levels, are not compared.

    Parameters
    ----------
    networks
        Observations of each network.
    expected
        Attributes of the coordinates of the states, by name.
    units
        As of `in_units`.

    Returns
    -------
    networks, record
        The networks, and a text such as ``"level: Pa to hPa"`` for each converted coordinate.

    Raises
    ------
    OptionError
        If ``units`` is unknown.
    UnitsError
        If a coordinate has other units, and ``units`` is ``"error"``, or the units cannot be converted, or the
        coordinate is a predictor of a bias.
    GridError
        If a coordinate has another period, so that its labels name other places.
    """
    _check_option(units)
    found, done = dict(networks), []
    for network, data in networks.items():
        for name, attrs in expected.items():
            own = data[name].attrs if name in data.coords else {}
            given, to = (str(a.get("units") or "") for a in (own, attrs))
            same = given == to or not (is_readable(given) and is_readable(to))
            scale, offset = (1.0, 0.0) if same else conversion(str(name), given, to)
            if (scale, offset) == (1.0, 0.0):
                _check_period(name, own, attrs)
                continue
            if units == "error":
                check_units(str(name), given, to)
            if any(name in predictors(data[n].attrs, str(n)) for n in data.data_vars):
                raise UnitsError(
                    f"'{name}' is a predictor of a bias, in {given}; expected {to}: convert it before with_bias, whose "
                    "deviation is for one unit of it"
                )
            about = {k: v for k, v in plain_attrs(data[name].attrs).items() if k != "period"} | {"units": to}
            moved = (data[name] * scale + offset).assign_attrs(about)
            found[network] = found[network].assign_coords({name: (data[name].dims, moved.values, about)})
            done.append(f"{name}: {given} to {to}")
    return found, done


def _check_period(name: Hashable, given: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    if "period" not in given or "period" not in expected:
        return
    found, period = turn_of(name, given), turn_of(name, expected)
    if found is not None and period is not None and abs(found - period) > 1e-6 * period:
        raise GridError(
            f"'{name}' of the observations has the period {found:g}, that of the prior {period:g}, expected one "
            "domain; take a prior of this domain, or one of patches that is put on it (Prior.on, --domain)"
        )


def in_units(
    networks: Mapping[str, xr.Dataset],
    operators: Mapping[str, Operator],
    states: xr.Dataset,
    units: str,
    before: Sequence[str] = (),
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
        converts values, errors and biases.
    before
        What has been converted already (`places_in_units`), for the record.

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
    _check_option(units)
    if units == "error":
        return dict(networks), {}
    template, found, done = Template.from_dataset(states), {}, list(before)
    for name, data in networks.items():
        expected = {n: v.units for n, v in operators[name].bind(template).template.variables.items()}
        found[name], record = _converted(data, expected)
        done += record
    return found, {"units_converted": done} if done else {}


def _check_option(units: str) -> None:
    if units not in UNITS:
        raise OptionError(f"units={nearest(units, UNITS)}")


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
            attrs = data[label].attrs | {"units": to} | converted_bias(data[label].attrs, label, scale)
            data = data.assign({label: (data[label] * per).assign_attrs(attrs)})
        if units != to:
            data = data.assign({name: (value * scale + offset).assign_attrs(value.attrs | {"units": to})})
            done.append(f"{name}: {units} to {to}")
    return data, done
