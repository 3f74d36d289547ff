"""Observations in other units than those of the states."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from weather import weather

from sdaxr import operators as op
from sdaxr.observations.bias import with_bias
from sdaxr.observations.conversion import in_units, places_in_units
from sdaxr.schema import DataError, GridError, OptionError, UnitsError
from sdaxr.states.infer import infer_layout


def states() -> xr.Dataset:
    return infer_layout(weather()).template(weather().time)


def network(**attrs: str) -> xr.Dataset:
    error = attrs.pop("error", None)
    sizes = {"time": 12, "lat": 4, "lon": 6}
    data = weather()[["sp"]].assign(sp=xr.ones_like(weather().sp.drop_attrs().astype(float)).assign_attrs(attrs))
    return data.assign(sp_error=((), 0.5, {} if error is None else {"units": error})).transpose(*sizes)


@pytest.mark.parametrize(("error", "expected"), [(None, 50.0), ("hPa", 50.0), ("Pa", 0.5)])
def test_values_and_errors_are_converted_and_recorded(error: str | None, expected: float) -> None:
    given = network(units="hPa") if error is None else network(units="hPa", error=error)
    found, record = in_units({"buoys": given}, {"buoys": op.select("sp")}, states(), "convert")
    assert record == {"units_converted": ["sp: hPa to Pa"]}
    np.testing.assert_allclose(found["buoys"].sp, 100.0)
    assert float(found["buoys"].sp_error) == pytest.approx(expected)
    assert found["buoys"].sp.attrs["units"] == found["buoys"].sp_error.attrs["units"] == "Pa"
    assert given.sp.attrs["units"] == "hPa"


@pytest.mark.parametrize("error", [None, "Pa"])
def test_biases_are_converted_with_the_values(error: str | None) -> None:
    given = network(units="hPa") if error is None else network(units="hPa", error=error)
    biased = with_bias(given, 2.0, by="lat", predictors={"lon": 0.1})
    found, _ = in_units({"buoys": biased}, {"buoys": op.select("sp")}, states(), "convert")
    attrs = found["buoys"].sp_error.attrs
    assert attrs["bias"] == pytest.approx(200.0) and attrs["bias_by"] == "lat" and attrs["units"] == "Pa"
    assert json.loads(attrs["bias_predictors"]) == {"lon": pytest.approx(10.0)}


def test_an_offset_is_no_part_of_an_error() -> None:
    given = weather()[["t"]].assign(t=weather().t * 0 + 12.0)
    given = given.assign(t=given.t.assign_attrs(units="degC"), t_error=((), 2.0, {"units": "degC"}))
    found, _ = in_units({"all": given}, {"all": op.identity()}, states(), "convert")
    np.testing.assert_allclose(found["all"].t, 285.15, rtol=1e-6)
    assert float(found["all"].t_error) == 2.0


def test_nothing_is_converted_unless_asked() -> None:
    given = {"all": network(units="hPa")}
    found, record = in_units(given, {"all": op.identity()}, states(), "error")
    assert record == {} and found["all"].identical(given["all"])
    same = in_units({"all": network(units="Pa")}, {"all": op.identity()}, states(), "convert")
    assert same[1] == {} and same[0]["all"].sp.identical(network(units="Pa").sp)


@pytest.mark.parametrize(
    ("name", "units", "factor", "record"),
    [
        ("level", "Pa", 100.0, ["level: Pa to hPa"]),
        ("level", "mbar", 1.0, []),
        ("lat", "degreesN", 1.0, []),
        ("lon", "degree", 1.0, []),
        ("lon", "radian", np.pi / 180, ["lon: radian to degrees_east"]),
        ("level", "model levels", 7.0, []),  # units that nobody can read are not compared
        ("level", "", 7.0, []),
    ],
)
def test_coordinates_are_converted_and_recorded(name: str, units: str, factor: float, record: list[str]) -> None:
    layout = infer_layout(weather())
    given = weather()[["t"]]
    given = given.assign_coords({name: (name, given[name].values * factor, {"units": units, "period": 1.0})})
    found, done = places_in_units({"all": given}, layout.coordinate_attrs, "convert")
    assert done == record
    np.testing.assert_allclose(found["all"][name], weather()[name] if record else given[name])
    assert in_units({}, {}, states(), "convert", done)[1] == ({"units_converted": record} if record else {})
    if not record:
        assert places_in_units({"all": given}, layout.coordinate_attrs, "error") == ({"all": given}, [])
        return
    assert found["all"][name].attrs == {"units": layout.coordinate_attrs[name]["units"]}
    with pytest.raises(UnitsError, match=f"'{name}' has units '{units}' in the observations, expected .*convert"):
        places_in_units({"all": given}, layout.coordinate_attrs, "error")


@pytest.mark.parametrize(("period", "differs"), [(16.0, False), (16.000001, False), (24.0, True), (None, False)])
def test_labels_of_another_circle_name_other_places(period: float | None, differs: bool) -> None:
    """A place at 20 is the place at 4 on a circle of 16, and not on one of 24."""
    about = {"units": "m"} | ({} if period is None else {"period": period})
    given = {"all": xr.Dataset({"a": ("x", [1.0], {"units": "K"})}, {"x": ("x", [20.0], about)})}
    expected = {"x": {"units": "m", "period": 16.0}}
    if not differs:
        assert places_in_units(given, expected, "error")[0] == given
        return
    with pytest.raises(GridError, match="the period 24, that of the prior 16"):
        places_in_units(given, expected, "error")


def test_a_height_is_no_pressure() -> None:
    given = weather().assign_coords(level=("level", [500.0, 850.0], {"units": "m"}))
    with pytest.raises(UnitsError, match="'level' has units 'm', which cannot be converted to 'hPa'"):
        places_in_units({"all": given}, infer_layout(weather()).coordinate_attrs, "error")
    with pytest.raises(OptionError, match="units='converted'.*Did you mean 'convert'"):
        places_in_units({}, {}, "converted")


def test_what_cannot_be_converted() -> None:
    def convert(data: xr.Dataset, units: str = "convert") -> None:
        in_units({"all": data}, {"all": op.identity()}, states(), units)

    with pytest.raises(UnitsError, match="'sp' has no units in the observations"):
        convert(network())
    with pytest.raises(UnitsError, match="'sp' has units 'K', which cannot be converted to 'Pa'"):
        convert(network(units="K"))
    packed = network(units="hPa")
    packed.sp.attrs["scale_factor"] = 0.1
    with pytest.raises(DataError, match="'sp' has the attribute 'scale_factor'"):
        convert(packed)
    with pytest.raises(OptionError, match="units='converted'.*Did you mean 'convert'"):
        convert(network(units="hPa"), "converted")


def test_a_predictor_of_a_bias_is_not_converted() -> None:
    labels = {"level": ("obs", [50000.0], {"units": "Pa"})}
    data = xr.Dataset({"t": ("obs", [280.0], {"units": "K"}), "t_error": ("obs", [1.0], {"units": "K"})}, labels)
    biased = with_bias(data, 0.5, predictors={"level": 1e-5})
    with pytest.raises(UnitsError, match="'level' is a predictor of a bias, in Pa"):
        places_in_units({"sondes": biased}, {"level": {"units": "hPa"}}, "convert")
