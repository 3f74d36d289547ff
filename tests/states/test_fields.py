"""Any Dataset to a tensor and back, with its labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from weather import RANDOM, TIMES, weather

from sdaxr.schema import DataError, GridError, UnitsError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout


def there_and_back(layout: StateLayout, data: xr.Dataset) -> xr.Dataset:
    fields = layout.to_physical(layout.to_array(data), data.time)
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


def test_ensembles_come_first_wherever_they_are(trajectories: xr.Dataset) -> None:
    layout = infer_layout(trajectories)
    array = layout.to_array(trajectories)
    assert array.shape == (10, 12, 2, 8, 8) and layout.periodic == (True, True)
    turned = trajectories.transpose("x", "time", "y", "trajectory")
    np.testing.assert_array_equal(layout.to_array(turned), array)
    np.testing.assert_array_equal(layout.to_array(trajectories.isel(trajectory=3)), array[3])


def test_vectors_and_lines() -> None:
    vector = xr.Dataset({v: ("time", RANDOM.normal(size=9), {"units": "1"}) for v in "abc"}, {"time": np.arange(9.0)})
    layout = infer_layout(vector)
    assert layout.space == () and layout.to_array(vector).shape == (9, 3)
    values = (("time", "site"), RANDOM.normal(size=(9, 5)), {"units": "1"})
    line = xr.Dataset({"x": values}, {"time": np.arange(9.0), "site": np.arange(5)})
    layout = infer_layout(line)
    assert layout.space == ("site",) and layout.to_array(line).shape == (9, 1, 5)
    back = there_and_back(layout, line)
    assert back.site.dtype == line.site.dtype and back.x.dims == ("time", "site")


def test_tensors_to_fields_are_the_same_in_torch_and_differentiable() -> None:
    data = weather()
    layout = infer_layout(data)
    array = layout.to_array(data)
    state = torch.as_tensor(array)[None].requires_grad_()
    fields = layout.to_fields(state, tuple(torch.as_tensor(a).float() for a in layout.moments(data.time)))
    for name, expected in layout.to_physical(array, data.time).items():
        np.testing.assert_allclose(fields[name][0].detach(), expected, rtol=1e-6)
    (slope,) = torch.autograd.grad(fields["sp"].sum(), state)
    np.testing.assert_allclose(slope[0, :, 2], layout.std[2].item(), rtol=1e-6)
    assert float(slope[0, :, :2].abs().max()) == 0


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


def test_other_data_are_told_apart() -> None:
    data = weather()
    layout = infer_layout(data)
    with pytest.raises(DataError, match=r"variable 't'; expected one of"):
        layout.conform(data.drop_vars("t"))
    with pytest.raises(UnitsError, match="'sp' has units 'hPa' in the data, expected 'Pa'"):
        layout.conform(data.assign(sp=data.sp.assign_attrs(units="hPa")))
    with pytest.raises(GridError, match="'lat' has 3 points in the data and 4 in the prior"):
        layout.conform(data.isel(lat=slice(3)))
    with pytest.raises(GridError, match=r"'lon' has 6 points from 1.0 to 2.25 in the data, .* 0.0 is not among"):
        layout.to_array(data.assign_coords(lon=data.lon + 1))
    with pytest.raises(GridError, match="in the system"):
        layout.conform(data.assign_coords(level=[500, 700]), model="the system")
    with pytest.raises(GridError, match="has dimensions"):
        layout.conform(data.isel(level=0))
    with pytest.raises(GridError, match="has dimensions"):
        layout.to_array(data.expand_dims(depth_class=2))


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


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda ds: ds.isel(lat=slice(None, None, -1), level=[1, 0]), id="reversed"),
        pytest.param(lambda ds: ds.roll(lon=2, roll_coords=True), id="rolled"),
        pytest.param(lambda ds: ds.assign_coords(lon=(ds.lon + 180) % 360 - 180).sortby("lon"), id="from -180"),
        pytest.param(lambda ds: ds.drop_vars(["lat", "lon"]), id="without labels"),
    ],
)
def test_data_come_in_by_their_labels(change: Callable[[xr.Dataset], xr.Dataset]) -> None:
    data = weather(globe=True)
    layout = infer_layout(data)
    np.testing.assert_array_equal(layout.to_array(change(data)), layout.to_array(data))
    found = layout.conform(change(data))
    np.testing.assert_array_equal(found.t, data.t)
    if "lon" in found.coords:
        np.testing.assert_array_equal(found.lon, data.lon)
