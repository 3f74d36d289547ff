"""An estimate and the truth on common variables, times and points."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ensembles import ensemble

from sdaxr.schema import DataError, GridError, UnitsError
from sdaxr.verification.alignment import align
from sdaxr.verification.baselines import interpolate
from sdaxr.verification.verify import verify


def test_common_times_only_and_float32_times_match():
    post, truth = ensemble(times=6)
    later = truth.isel(time=slice(2, None))
    early = post.isel(time=slice(0, 4)).assign_coords(time=post.time.values[:4].astype(np.float32))
    scores = verify(early, later)
    np.testing.assert_allclose(scores.time, [0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(scores.rmse_u, verify(post, truth).rmse_u[2:4])
    with pytest.raises(DataError, match=r"no time in common: the estimate covers 0\.0 to .* the truth 0\.8 to"):
        verify(post.isel(time=slice(0, 2)), truth.isel(time=slice(4, None)))


def test_forecasts_align_on_their_valid_time():
    post, truth = ensemble(times=8)
    forecast = post.isel(time=slice(3, 8)).rename(time="lead_time")
    valid = ("lead_time", forecast.lead_time.values)
    forecast = forecast.assign_coords(lead_time=forecast.lead_time - post.time.values[2], init_time=post.time.values[2])
    expected = verify(post, truth).rmse_u.values[3:8]
    for given in (forecast, forecast.assign_coords(valid_time=valid)):
        scores = verify(given, truth)
        assert scores.rmse_u.dims == ("lead_time",)
        np.testing.assert_allclose(scores.rmse_u, expected)
    short = verify(forecast, truth.isel(time=slice(0, 5)))
    np.testing.assert_allclose(short.rmse_u, expected[:2])
    with pytest.raises(DataError, match="valid_time"):
        verify(forecast.drop_vars("init_time"), truth)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_calendar_times(calendar: str):
    post, truth = ensemble(times=4)
    times = xr.date_range("2001-02-27", periods=4, freq="D", calendar=calendar, use_cftime=calendar == "noleap")
    post, truth = post.assign_coords(time=times), truth.assign_coords(time=times)
    scores = verify(post, truth.isel(time=slice(1, None)))
    assert scores.sizes["time"] == 3
    with pytest.raises(DataError, match="expected the same kind"):
        verify(post, truth.assign_coords(time=np.arange(4.0)))


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_a_truth_may_have_its_times_anywhere_in_the_month(calendar: str) -> None:
    """The times of states that a prior of such data makes are the labels of months; equal times stay what they are."""
    post, truth = ensemble(times=4)
    use = calendar == "noleap"
    days = xr.date_range("2001-02-01", periods=4, freq="MS", calendar=calendar, use_cftime=use)
    middle = [d + pd.Timedelta(days=getattr(d, "days_in_month" if not use else "daysinmonth") // 2) for d in days]
    scattered = [d + pd.Timedelta(days=n) for d, n in zip(days, (3, 17, 8, 25), strict=True)]
    post, other = post.assign_coords(time=middle), truth.assign_coords(time=scattered)
    scores = verify(post, other.isel(time=slice(1, None)))
    np.testing.assert_array_equal(scores.time, post.time[1:])
    np.testing.assert_array_equal(scores.rmse_u, verify(post, truth.assign_coords(time=middle)).rmse_u[1:])
    seen = other[["u"]].assign(u_error=xr.full_like(other.u, 0.1)).assign_attrs(operator='{"op": "identity"}')
    assert verify(post, seen).sizes["rank"] == post.sizes["member"] + 1
    with pytest.raises(DataError, match="no time in common"):
        verify(post.assign_coords(time=[d + pd.Timedelta(days=5) for d in days]), other)


def globe() -> tuple[xr.Dataset, xr.Dataset]:
    """An ensemble and its truth on latitudes and longitudes."""
    random = np.random.default_rng(0)
    coords = {"time": np.arange(3.0), "lat": np.linspace(60, -60, 5), "lon": np.arange(0.0, 360.0, 30.0)}
    truth = xr.Dataset({"t": (("time", "lat", "lon"), random.normal(size=(3, 5, 12)), {"units": "K"})}, coords)
    noise = xr.DataArray(random.normal(size=(4, 3, 5, 12)), dims=("member", "time", "lat", "lon"))
    return (truth + noise).assign_attrs({}).assign(t=(truth.t + noise).assign_attrs(units="K")), truth


def shifted(data: xr.Dataset) -> xr.Dataset:
    """Longitudes counted from -180."""
    return data.assign_coords(lon=(data.lon + 180) % 360 - 180).sortby("lon")


CHANGES = {
    "as it is": lambda ds: ds,
    "latitudes the other way": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "from -180": shifted,
    "rolled": lambda ds: ds.roll(lon=5, roll_coords=True),
    "transposed": lambda ds: ds.transpose("lon", "time", "lat"),
    "rounded": lambda ds: ds.assign_coords(lon=ds.lon.astype("float32") + 1e-4),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_truth_comes_onto_the_grid_of_the_estimate_by_its_labels(change: str) -> None:
    estimate, truth = globe()

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed too early")

    with dask.config.set(scheduler=refuse):
        _, lazy = align(estimate, CHANGES[change](truth.chunk(time=1)))
        assert lazy.t.chunks
    xr.testing.assert_identical(lazy.compute().transpose(*truth.t.dims), truth)
    xr.testing.assert_identical(verify(estimate, CHANGES[change](truth)), verify(estimate, truth))
    xr.testing.assert_allclose(
        verify(CHANGES[change](estimate.mean("member")), truth), verify(estimate.mean("member"), truth)
    )


def test_names_are_matched_and_dimensions_without_labels_taken_as_they_are() -> None:
    names = np.array(["a", "b", "c"], object)
    truth = xr.Dataset(
        {"t": (("time", "station"), np.arange(6.0).reshape(2, 3))}, {"time": [0.0, 1.0], "station": names}
    )
    _, found = align(truth, truth.isel(station=[2, 0, 1]))
    xr.testing.assert_identical(found, truth)
    plain = truth.drop_vars("station")
    xr.testing.assert_identical(align(plain, plain)[1], plain)
    with pytest.raises(GridError, match="c is not among the former"):
        align(truth, truth.assign_coords(station=["a", "b", "d"]))


def test_the_advice_about_other_grids_is_right() -> None:
    """On the globe, `baselines.interpolate` loses nothing, whatever longitudes are counted from."""
    estimate, truth = globe()
    field = np.cos(np.deg2rad(truth.lon)) + 0 * truth.t
    fine = xr.Dataset({"t": field.transpose("time", "lat", "lon").assign_attrs(units="K")})
    fine = shifted(fine.interp(lon=np.arange(0.0, 331.0, 10.0)))
    between = estimate.assign_coords(lon=estimate.lon + 4.0)
    with pytest.raises(GridError, match="'lon' has 34 points in the truth and 12 in the estimate"):
        verify(between, fine)
    other = shifted(xr.Dataset({"t": field.transpose("time", "lat", "lon").assign_attrs(units="K")}))
    with pytest.raises(GridError, match="sdaxr.baselines.interpolate, which goes across the seam of 'lon'"):
        verify(between, other)
    advised = interpolate(other, between.isel(member=0))
    np.testing.assert_allclose(advised.t[0, 0], np.cos(np.deg2rad(between.lon)), atol=(np.deg2rad(30)) ** 2 / 8)
    assert verify(between, advised).rmse_t.notnull().all()


def test_grids_and_units_that_differ() -> None:
    estimate, truth = globe()
    with pytest.raises(GridError, match="'t' has the dimensions .* expected the same except for the member"):
        align(estimate, truth.isel(lat=0))
    with pytest.raises(UnitsError, match="'t' has units 'K' in the estimate, expected 'degC'"):
        align(estimate, truth.assign(t=truth.t.assign_attrs(units="degC")))
    with pytest.raises(UnitsError, match="'t' has no units in the truth, expected 'K'"):
        align(estimate, truth.assign(t=truth.t.drop_attrs()))
    with pytest.raises(UnitsError, match="'t' has no units in the estimate, expected 'K'"):
        align(estimate.assign(t=estimate.t.drop_attrs()), truth)


def test_other_names_and_rows_of_curvilinear_grids() -> None:
    estimate, truth = globe()
    other = truth.rename(time="valid_time", lat="latitude", lon="longitude").isel(latitude=slice(None, None, -1))
    xr.testing.assert_identical(align(estimate, other)[1], align(estimate, truth)[1])
    north = xr.DataArray(np.arange(60.0).reshape(5, 12), dims=("lat", "lon"))
    curved = [d.drop_vars(["lat", "lon"]).rename(lat="y", lon="x") for d in (estimate, truth)]
    curved = [d.assign_coords(nav_lat=north.rename(lat="y", lon="x")) for d in curved]
    align(*curved)
    with pytest.raises(GridError, match="'nav_lat' at {'y': 0, 'x': 0} is 48 in the truth and 0 in the estimate"):
        align(curved[0], curved[1].isel(y=slice(None, None, -1)))
