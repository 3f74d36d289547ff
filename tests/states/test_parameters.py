"""Constants of a trajectory: variables without time outside, constant channels inside."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import xarray as xr
from unknown_offset import DEVIATION, MEAN, OffsetSeries

from sdaxr.schema import DataError, GridError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout
from sdaxr.states.parameters import channel_residuals, warn_of_residuals

SERIES = OffsetSeries(5, sites=3)


@pytest.fixture
def data() -> xr.Dataset:
    return SERIES.trajectories(40, seed=1)


def test_a_variable_of_the_trajectories_alone_is_a_parameter_with_its_own_mean_and_deviation(data: xr.Dataset) -> None:
    layout = infer_layout(data, variables=["x", "forcing"])
    assert layout.parameters == ("forcing",) and layout.channels == 2 and layout.parameter_channels == {"forcing": 1}
    np.testing.assert_allclose(layout.mean[1].item(), data.forcing.mean(), rtol=1e-5)
    np.testing.assert_allclose(layout.std[1].item(), data.forcing.std(), rtol=1e-5)
    assert infer_layout(data).variables == ("x",)


@pytest.mark.parametrize("normalise", ["channel", "point"])
def test_the_channel_is_constant_and_land_stays_land(data: xr.Dataset, normalise: str) -> None:
    data["x"] = data.x.where(data.site != 1)
    layout = infer_layout(data, variables=["forcing", "x"], normalise=normalise)
    assert layout.mask is not None and layout.mask.tolist() == [[True, False, True]] * 2
    array = layout.to_array(data)
    assert array.shape == (40, 5, 2, 3)
    expected = ((data.forcing - data.forcing.mean()) / data.forcing.std()).values
    np.testing.assert_allclose(array[:, :, 0, [0, 2]], np.broadcast_to(expected[:, None, None], (40, 5, 2)), atol=1e-5)
    assert not array[:, :, 0, 1].any()
    fields = layout.to_physical(array, data.time)
    np.testing.assert_allclose(fields["forcing"], data.forcing, rtol=1e-6)
    moments = tuple(torch.as_tensor(a, dtype=torch.float32) for a in layout.moments(data.time))
    # What is on land counts for nothing.
    spoilt = torch.as_tensor(array).masked_fill(~torch.as_tensor(layout.mask), torch.nan)
    np.testing.assert_allclose(layout.to_fields(spoilt, moments)["forcing"], data.forcing, rtol=1e-6)


def test_a_sample_has_the_mean_of_its_channel() -> None:
    layout, states = SERIES.layout(), np.random.default_rng(0).normal(size=(7, 5, 2, 3)).astype(np.float32)
    fields = layout.to_physical(states, layout.times(0.0, 5))
    expected = MEAN["forcing"] + DEVIATION["forcing"] * states[:, :, 1].mean((1, 2))
    np.testing.assert_allclose(fields["forcing"], expected, rtol=1e-6)
    assert fields["x"].shape == (7, 5, 3)


@pytest.mark.parametrize("sites", [None, 3])
def test_the_residual_is_what_varies_within_a_sample(sites: int | None, caplog: pytest.LogCaptureFixture) -> None:
    series = OffsetSeries(200, sites)
    layout, states = series.layout(), series.draw(4, 0)
    with caplog.at_level(logging.WARNING):
        warn_of_residuals(layout, states)
    assert channel_residuals(layout, states)["forcing"] < 1e-6 and not caplog.messages
    states[:, :, 1] += np.random.default_rng(1).normal(size=states[:, :, 1].shape)
    np.testing.assert_allclose(channel_residuals(layout, states)["forcing"], 1.0, rtol=0.1)
    warn_of_residuals(layout, states)
    assert "'forcing' varies by" in caplog.text and "of its standard deviation within a sample" in caplog.text


def test_a_time_is_that_of_each_value(data: xr.Dataset) -> None:
    values = data.forcing.expand_dims({"time": 5}) + xr.DataArray(np.arange(5.0), dims="time")
    array = SERIES.layout().to_array(data.assign(forcing=values.assign_attrs(data.forcing.attrs)))
    np.testing.assert_allclose(np.diff(array[:, :, 1], axis=1), 1 / DEVIATION["forcing"], rtol=1e-4)


def test_a_file_tells_which_variables_are_parameters() -> None:
    layout = SERIES.layout()
    arrays, metadata = layout.to_file()
    assert StateLayout.from_file(arrays, metadata).parameters == ("forcing",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.isel(trajectory=0), "'forcing' has the dimensions ()"),
        (lambda d: d.assign(forcing=d.forcing.expand_dims({"site": 3})), r"\('site', 'trajectory'\)"),
        (lambda d: d.assign(x=d.x.isel(time=0, drop=True)), "'x' has the dimensions"),
        (lambda d: d.assign(x=d.forcing), r"\['x', 'forcing'\] alone"),
    ],
)
def test_other_dimensions_are_refused(data: xr.Dataset, change, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        infer_layout(change(data), variables=["x", "forcing"])


def test_a_field_of_a_parameter_is_refused_with_the_remedy(data: xr.Dataset) -> None:
    field = data.assign(forcing=data.forcing.expand_dims({"time": 5, "site": 3}))
    with pytest.raises(GridError, match=r"expected a parameter without \['site'\]; take .*isel\(site=0, drop=True\)"):
        SERIES.layout().to_array(field)
    remedied = field.assign(forcing=field["forcing"].isel(site=0, drop=True))
    np.testing.assert_array_equal(SERIES.layout().to_array(remedied), SERIES.layout().to_array(data))
