"""Any Dataset to a tensor and back, with its labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr.schema import DataError, GridError, OptionError, UnitsError
from sdaxr.states.fields import Coordinate, StateLayout, phase
from sdaxr.states.infer import infer_layout

RANDOM = np.random.default_rng(0)
HOURLY = np.datetime64("2019-01-01") + np.arange(12) * np.timedelta64(1, "h")
TIMES = {
    "float": 0.2 * np.arange(12),
    "timedelta": HOURLY - HOURLY[0],
    "datetime": HOURLY,
    "cftime": xr.date_range("2000-02-27", periods=12, freq="6h", calendar="noleap", use_cftime=True).values,
}


def weather(kind: str = "datetime", lat: str = "lat", lon: str = "lon", globe: bool = False) -> xr.Dataset:
    """Temperature on two levels and surface pressure, latitudes from north to south."""
    longitudes = np.arange(6) * (60.0 if globe else 0.25)
    coords = {
        "time": ("time", TIMES[kind]),
        "level": ("level", [500, 850], {"units": "hPa", "positive": "down"}),
        lat: (lat, [51.0, 50.75, 50.5, 50.25], {"units": "degrees_north"}),
        lon: (lon, longitudes, {"units": "degrees_east"}),
    }
    sizes = {"time": 12, "level": 2, lat: 4, lon: 6}
    t = 250.0 + 30 * np.arange(2)[:, None, None] + 5 * RANDOM.normal(size=(12, 2, 4, 6))
    p = 1e5 + 500 * RANDOM.normal(size=(12, *(sizes[d] for d in (lon, lat))))
    data = {
        "t": (("time", "level", lat, lon), t.astype("float32"), {"units": "K", "long_name": "temperature"}),
        "sp": (("time", lon, lat), p.astype("float32"), {"units": "Pa"}),
        "orography": ((lon, lat), RANDOM.normal(size=(6, 4)), {"units": "m"}),
    }
    return xr.Dataset(data, coords)


def there_and_back(layout: StateLayout, data: xr.Dataset) -> xr.Dataset:
    fields = layout.to_physical(layout.to_array(data))
    template = layout.template(layout.times(data.time.values[0], data.sizes["time"]))
    return template.assign({v: (template[v].dims, a, template[v].attrs) for v, a in fields.items()})


@pytest.mark.parametrize("kind", TIMES)
def test_round_trip_keeps_values_and_labels(kind: str) -> None:
    data = weather(kind)
    layout = infer_layout(data)
    array = layout.to_array(data)
    assert array.shape == (12, 3, 4, 6) and array.dtype == np.float32
    assert abs(array.mean(axis=(0, 2, 3))).max() < 1e-3 and abs(array.std(axis=(0, 2, 3)) - 1).max() < 1e-3
    back = there_and_back(layout, data)
    for name in ("t", "sp"):
        expected = data[name].transpose(*back[name].dims)
        np.testing.assert_allclose(back[name], expected, rtol=1e-6)
        assert back[name].attrs == data[name].attrs
    for dim in ("level", "lat", "lon"):
        xr.testing.assert_identical(back[dim].drop_attrs(), data[dim].drop_attrs())
        assert back[dim].dtype == data[dim].dtype
    assert back.lat.attrs["units"] == "degrees_north"
    if kind == "float":
        np.testing.assert_allclose(back.time, data.time)
    else:
        assert (back.time.values == data.time.values).all() and back.time.dtype.kind == data.time.dtype.kind


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
    assert Coordinate(np.arange(6) * 0.25).period is None
    assert Coordinate(np.arange(6.0), {"period": 6}).period == 6.0


def test_ensembles_come_first_wherever_they_are(trajectories: xr.Dataset) -> None:
    layout = infer_layout(trajectories)
    array = layout.to_array(trajectories)
    assert array.shape == (10, 12, 2, 8, 8) and layout.periodic == (True, True)
    turned = trajectories.transpose("x", "time", "y", "trajectory")
    np.testing.assert_array_equal(layout.to_array(turned), array)
    np.testing.assert_array_equal(layout.to_array(trajectories.isel(trajectory=3)), array[3])


def test_vectors_and_lines() -> None:
    vector = xr.Dataset({v: ("time", RANDOM.normal(size=9)) for v in "abc"}, {"time": np.arange(9.0)})
    layout = infer_layout(vector)
    assert layout.space == () and layout.to_array(vector).shape == (9, 3)
    line = xr.Dataset(
        {"x": (("time", "site"), RANDOM.normal(size=(9, 5)))}, {"time": np.arange(9.0), "site": np.arange(5)}
    )
    layout = infer_layout(line)
    assert layout.space == ("site",) and layout.to_array(line).shape == (9, 1, 5)
    back = there_and_back(layout, line)
    assert back.site.dtype == line.site.dtype and back.x.dims == ("time", "site")


def test_tensors_to_fields_are_the_same_in_torch_and_differentiable() -> None:
    data = weather()
    layout = infer_layout(data)
    array = layout.to_array(data)
    state = torch.as_tensor(array)[None].requires_grad_()
    fields = layout.to_fields(state)
    for name, expected in layout.to_physical(array).items():
        np.testing.assert_allclose(fields[name][0].detach(), expected, rtol=1e-6)
    (slope,) = torch.autograd.grad(fields["sp"].sum(), state)
    np.testing.assert_allclose(slope[0, :, 2], layout.std[2].item(), rtol=1e-6)
    assert float(slope[0, :, :2].abs().max()) == 0


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


@pytest.mark.parametrize("normalise", ["channel", "point"])
@pytest.mark.parametrize("lazy", [False, True])
def test_land_is_masked_and_comes_back(normalise: str, lazy: bool) -> None:
    data = weather()[["t", "sp"]]
    data["t"] = data.t.where((data.lat > 50.3) | (data.level == 500))
    layout = infer_layout(data.chunk(time=5) if lazy else data, normalise=normalise)
    assert layout.mask is not None and layout.mask.shape == (3, 4, 6)
    assert layout.mask[0].all() and layout.mask[2].all() and not layout.mask[1, 3].any() and layout.mask[1, :3].all()
    array = layout.to_array(data)
    assert np.isfinite(array).all() and (array[:, 1, 3] == 0).all()
    back = there_and_back(layout, data)
    np.testing.assert_allclose(back.t, data.t, rtol=1e-6)
    np.testing.assert_array_equal(layout.context_array(data.time)[0, 0], np.ones((4, 6)))


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


def test_what_the_network_is_told() -> None:
    data = weather(globe=True)
    layout = infer_layout(data, context=["orography"], cycles=["hour_of_day"])
    context = layout.context_array(data.time)
    assert context.shape == (12, layout.context_channels, 4, 6) and layout.context_channels == 5
    np.testing.assert_array_equal(context[:, 0], 1)
    height = data.orography.transpose("lat", "lon")
    np.testing.assert_allclose(context[5, 1], (height - height.mean()) / height.std(), rtol=1e-5)
    np.testing.assert_allclose(context[5, 2, :, 3], [-1, -1 / 3, 1 / 3, 1], rtol=1e-6)
    hours = 2 * np.pi * np.arange(12) / 24
    np.testing.assert_allclose(context[:, 3, 0, 0], np.sin(hours), atol=1e-6)
    np.testing.assert_allclose(context[:, 4, 3, 5], np.cos(hours), atol=1e-6)


def test_cycles_are_found_where_the_data_go_through_them() -> None:
    def found(step: str, count: int) -> tuple[str, ...]:
        times = np.datetime64("2019-01-01", "ns") + np.arange(count) * np.timedelta64(pd_hours(step), "h")
        return infer_layout(xr.Dataset({"a": ("time", RANDOM.normal(size=count))}, {"time": times})).cycles

    def pd_hours(step: str) -> int:
        return {"h": 1, "D": 24, "6h": 6}[step]

    assert found("h", 12) == () and found("h", 48) == ("hour_of_day",)
    assert found("D", 400) == ("day_of_year",) and found("6h", 1600) == ("hour_of_day", "day_of_year")
    assert infer_layout(weather("float")).cycles == ()
    noleap = xr.DataArray(
        xr.date_range("2000-01-01", periods=3, freq="D", calendar="noleap", use_cftime=True), dims="time"
    )
    np.testing.assert_allclose(phase(noleap, "day_of_year"), 2 * np.pi * np.arange(3) / 365.25)
    with pytest.raises(OptionError, match="Did you mean 'hour_of_day'"):
        phase(noleap, "hour_of_dy")
    with pytest.raises(DataError, match="expected a calendar"):
        infer_layout(weather("float"), cycles=["hour_of_day"]).context_array(weather("float").time)


def test_other_data_are_told_apart() -> None:
    data = weather()
    layout = infer_layout(data)
    with pytest.raises(DataError, match=r"variable 't'; expected one of"):
        layout.check(data.drop_vars("t"))
    with pytest.raises(UnitsError, match="'sp' has units 'hPa' in the data, expected 'Pa'"):
        layout.check(data.assign(sp=data.sp.assign_attrs(units="hPa")))
    with pytest.raises(GridError, match="'lat' has 3 points, expected 4"):
        layout.check(data.isel(lat=slice(3)))
    with pytest.raises(GridError, match=r"'lat' runs from 50.25 to 51.0, expected 51.0 to 50.25"):
        layout.check(data.isel(lat=slice(None, None, -1)))
    with pytest.raises(GridError, match="'lon' runs from 1.0"):
        layout.check(data.assign_coords(lon=data.lon + 1))
    with pytest.raises(GridError, match="has dimensions"):
        layout.check(data.isel(level=0))
    with pytest.raises(GridError, match="has dimensions"):
        layout.to_array(data.expand_dims(depth_class=2))


def test_dimensions_that_do_not_fit_together() -> None:
    data = weather()
    with pytest.raises(DataError, match=r"'sp' has the horizontal dimensions \('lat',\)"):
        infer_layout(data.assign(sp=data.sp.isel(lon=0, drop=True)))
    with pytest.raises(DataError, match=r"variable 'temp'.*Did you mean"):
        infer_layout(data.rename(t="tempe"), variables=["temp"])
    with pytest.raises(DataError, match="found no variable with a 'time' dimension"):
        infer_layout(data[["orography"]])
    with pytest.raises(DataError, match="at most two horizontal ones"):
        infer_layout(data[["t"]].rename(level="z3").drop_attrs())
    with pytest.raises(DataError, match=r"context field 'orografy'.*Did you mean 'orography'"):
        infer_layout(data, context=["orografy"])
    with pytest.raises(DataError, match="context field 't' has dimensions"):
        infer_layout(data, context=["t"])


def test_layout_survives_its_file_form() -> None:
    data = weather()
    data["t"] = data.t.where(data.lat > 50.3)
    data["level"].attrs["valid_range"] = np.array([1.0, 1000.0])
    layout = infer_layout(data, context=["orography"], cycles=["hour_of_day"])
    import json

    arrays, metadata = layout.to_file()
    again = StateLayout.from_file(arrays, json.loads(json.dumps(metadata)))
    xr.testing.assert_identical(there_and_back(again, data), there_and_back(layout, data))
    np.testing.assert_array_equal(again.context_array(data.time), layout.context_array(data.time))
    assert replace(again, coords={}, mean=0, std=1, mask=None, context={}) == replace(
        layout, coords={}, mean=0, std=1, mask=None, context={}
    )
