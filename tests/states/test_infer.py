"""What is found out about the states of a Dataset."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from weather import HOURLY, RANDOM, weather

from sdaxr.schema import DataError, OptionError, UnitsError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout


@pytest.mark.parametrize(("lat", "lon"), [("latitude", "longitude"), ("y", "x"), ("rlat", "rlon")])
def test_dimensions_may_have_any_name(lat: str, lon: str) -> None:
    layout = infer_layout(weather(lat=lat, lon=lon))
    assert layout.space == (lat, lon) and layout.layer == "level" and layout.layered == ("t",)
    assert layout.channels == 3 and layout.shape == (4, 6) and layout.periodic == (False, False)


def test_which_dimensions_are_periodic() -> None:
    assert infer_layout(weather(globe=True)).periodic == (False, True)
    assert infer_layout(weather(lon="longitude", globe=True)).periodic == (False, True)
    marked = weather(lat="y", lon="x")
    marked["x"].attrs["period"] = 1.5
    assert infer_layout(marked).periodic == (False, True)


def test_normalisation_by_channel_and_by_point() -> None:
    data = weather()
    by_point = infer_layout(data, normalise="point")
    assert by_point.mean.shape == (3, 4, 6)
    np.testing.assert_allclose(by_point.mean[0], data.t.isel(level=0).astype(float).mean("time"))
    np.testing.assert_allclose(by_point.std[2], data.sp.astype(float).std("time").transpose("lat", "lon"))
    by_channel = infer_layout(data)
    assert by_channel.mean.shape == (3, 1, 1)
    assert by_channel.mean[1, 0, 0] == pytest.approx(float(data.t.isel(level=1).astype(float).mean()))
    with pytest.raises(OptionError, match=r"'chanel'.*Did you mean 'channel'"):
        infer_layout(data, normalise="chanel")


def test_gaps_and_constants_are_refused() -> None:
    data = weather()
    with pytest.raises(DataError, match="'t' is NaN at some times only, at 1 points"):
        infer_layout(
            data.assign(t=data.t.where((data.time > HOURLY[3]) | (data.lat < 51) | (data.lon > 0) | (data.level > 500)))
        )
    with pytest.raises(DataError, match="or everywhere"):
        infer_layout(data.assign(sp=data.sp * np.nan))
    with pytest.raises(DataError, match="'sp' does not vary"):
        infer_layout(data.assign(sp=data.sp * 0 + 1e5))
    layout = infer_layout(data)
    with pytest.raises(DataError, match="found 48 values that are not finite"):
        layout.to_array(data.assign(sp=data.sp.where(data.time > HOURLY[1])))


def test_units_and_decoded_values_are_needed() -> None:
    data = weather()
    with pytest.raises(UnitsError, match="'sp' has no units in the training data"):
        infer_layout(data.assign(sp=data.sp.drop_attrs()))
    packed = ((data.t - 250) / 0.01).round().astype("i2").assign_attrs(units="K", scale_factor=0.01, add_offset=250.0)
    with pytest.raises(DataError, match="'t' has the attribute 'scale_factor' .0.01. in the training data"):
        infer_layout(data.assign(t=packed))
    with pytest.raises(DataError, match="'t' has the attribute 'scale_factor' .0.01. in the data"):
        infer_layout(data).to_array(data.assign(t=packed))


def test_static_fields_are_context_where_asked() -> None:
    data = weather().assign(lsm=(("lat", "lon"), np.eye(4, 6)), axis=("lat", np.arange(4.0)))
    data["lat_bnds"] = (("lat", "lon"), np.zeros((4, 6)))
    assert list(infer_layout(data, context="auto").context) == ["orography", "lsm"]
    assert list(infer_layout(data, context=["auto"]).context) == ["orography", "lsm"]
    assert list(infer_layout(data, context="lsm").context) == ["lsm"]
    assert infer_layout(data).context == {} and infer_layout(data.drop_vars("lsm")[["t"]], context="auto").context == {}


def test_cycles_are_found_where_the_data_go_through_them() -> None:
    def found(step: str, count: int) -> tuple[str, ...]:
        times = np.datetime64("2019-01-01", "ns") + np.arange(count) * np.timedelta64(pd_hours(step), "h")
        return infer_layout(
            xr.Dataset({"a": ("time", RANDOM.normal(size=count), {"units": "m"})}, {"time": times})
        ).cycles

    def pd_hours(step: str) -> int:
        return {"h": 1, "D": 24, "6h": 6}[step]

    assert found("h", 12) == () and found("h", 48) == ("hour_of_day",)
    assert found("D", 400) == ("day_of_year",) and found("6h", 1600) == ("hour_of_day", "day_of_year")
    assert infer_layout(weather("float")).cycles == ()
    with pytest.raises(DataError, match="expected a calendar"):
        infer_layout(weather("float"), cycles=["hour_of_day"]).context_array(weather("float").time)


@pytest.mark.parametrize(("step", "unit"), [(6, "h"), (15, "m"), (1, "s"), (20, "ms")])
def test_times_are_made_exactly(step: int, unit: str) -> None:
    """To the nanosecond: xarray aligns times that are equal, and drops all the others."""
    times = np.datetime64("2019-01-01", "ns") + np.arange(1460) * np.timedelta64(step, unit)
    layout = infer_layout(xr.Dataset({"a": ("time", RANDOM.normal(size=1460), {"units": "m"})}, {"time": times}))
    np.testing.assert_array_equal(layout.times(times[0], 1460), times)


def test_dimensions_that_do_not_fit_together() -> None:
    data = weather()
    with pytest.raises(DataError, match=r"'sp' has the horizontal dimensions \('lat',\)"):
        infer_layout(data.assign(sp=data.sp.isel(lon=0, drop=True)))
    with pytest.raises(DataError, match=r"variable 'temp'.*Did you mean"):
        infer_layout(data.rename(t="tempe"), variables=["temp"])
    with pytest.raises(DataError, match="found no variable with a 'time' dimension"):
        infer_layout(data[["orography"]])
    with pytest.raises(DataError, match="at most two horizontal ones"):
        infer_layout(data[["t"]].drop_vars("level").rename(level="z3"))
    with pytest.raises(DataError, match=r"context field 'orografy'.*Did you mean 'orography'"):
        infer_layout(data, context=["orografy"])
    with pytest.raises(DataError, match="context field 't' has dimensions"):
        infer_layout(data, context=["t"])


def test_a_cut_of_a_periodic_domain_is_not_periodic(trajectories: xr.Dataset) -> None:
    assert infer_layout(trajectories).periodic == (True, True)
    assert infer_layout(trajectories.isel(x=slice(0, 4))).periodic == (True, False)
    assert infer_layout(trajectories.isel(x=slice(0, None, 2))).periodic == (True, True)
    assert infer_layout(weather(globe=True).isel(lon=slice(0, 3))).periodic == (False, False)
    cut = infer_layout(trajectories.isel(y=slice(2, 8)))
    assert StateLayout.from_file(*cut.to_file()).periodic == (False, True)
