"""The status of every observation, which is what an assimilation counts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from assimilated import QUICK
from weather import weather
from white import white_prior

import sdaxr
from sdaxr.inference.assimilate import assimilate
from sdaxr.inference.report import report
from sdaxr.observations.screening import STATUS
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError, UnitsError


def reports(values: list[float], times: list[float]) -> xr.Dataset:
    """Measurements of the variable a of the Gaussian chain, whose mean is 280 and standard deviation 2."""
    data = {"a": ("obs", values, {"units": "K"}), "a_error": ("obs", np.full(len(values), 0.4), {"units": "K"})}
    return xr.Dataset(
        data, {"time": ("obs", times, {"units": "1"}), "station": ("obs", list("abcdefgh")[: len(values)])}
    )


def words(found: xr.Dataset, name: str = "a") -> list[str]:
    return [STATUS[code] for code in found[f"{name}_status"].values.tolist()]


@pytest.fixture
def mixed() -> xr.Dataset:
    data = reports([281, np.nan, 279, 281, 282, 295, -9999, 280], [0.0, 0.0, 9.0, 0.0, 0.5, 1.0, 1.5, 1.1])
    return data.assign(a_qc=("obs", np.array([1, 1, 1, 1, 4, 1, 1, 1], "i1"), {"conventions": "QARTOD"}))


OPTIONS = {"gross_error": {"a": 4}, "time": "nearest", "tolerance": 0.05}
EXPECTED = ["used", "missing", "outside", "duplicate", "flagged", "failed_background_check", "implausible", "off_step"]


def test_every_observation_has_a_status(prior: Prior, mixed: xr.Dataset) -> None:
    found = sdaxr.observations.report(mixed, prior, times=0.5 * np.arange(6), screening=OPTIONS)
    assert words(found) == EXPECTED
    assert found.a_status.dtype == np.int8 and found.a_status.attrs["flag_values"].dtype == np.int8
    assert found.a_status.attrs["flag_meanings"].split() == list(STATUS.values())
    assert found.station.values.tolist() == list("abcdefgh") and found.a.attrs["ancillary_variables"] == "a_status"
    assert found.attrs["observations_used"] == 1 and found.attrs["observations_duplicate"] == 1


def test_an_assimilation_counts_the_same(prior: Prior, mixed: xr.Dataset) -> None:
    plausible = mixed.isel(obs=[0, 1, 2, 3, 4, 5, 7])
    options = {"times": 0.5 * np.arange(6), "screening": OPTIONS | {"duplicates": "drop"}}
    posterior = assimilate(plausible, prior, members=1, outside="drop", **options, **QUICK)
    found = report(plausible, prior, **options)
    counted = {key: value for key, value in found.attrs.items() if key.startswith("observations_")}
    assert counted == {key: posterior.attrs[key][0] for key in counted}
    assert counted["observations_dropped"] == 5 and len(counted) == 8
    with pytest.raises(DataError, match=r"observation 6, a = -9999 K at time=1.5, is 3.*e\+03 standard deviations"):
        assimilate(mixed, prior, members=1, outside="drop", **options, **QUICK)


def test_the_background_check_is_that_of_an_assimilation(prior: Prior, truth: xr.Dataset) -> None:
    """A background of 284 K with an error of 0.3 K excludes 281.5 K at the first time, not at later ones."""
    data = reports([281.5, 281.5, 284.2], [0.0, 1.0, 0.0])
    first = truth.isel(time=0, drop=True).assign(a_error=0.3)[["a", "a_error"]]
    first["a"] = xr.full_like(first.a, 284.0)
    how = {"background": first, "screening": {"gross_error": 4, "duplicates": "keep"}}
    found = report(data, prior, **how)
    assert words(found) == ["failed_background_check", "used", "used"] and found.attrs["observations_used"] == 2
    # Members with this mean and spread say the same.
    spread = xr.DataArray([-1.0, 0.0, 1.0], dims="member")
    ensemble = xr.Dataset({v: first[v] + first[f"{v}_error"] * spread for v in first if f"{v}_error" in first})
    ensemble = ensemble.assign({v: a.assign_attrs(first[v].attrs) for v, a in ensemble.items()})
    assert words(report(data, prior, **how | {"background": ensemble})) == words(found)
    posterior = assimilate(data, prior, members=1, **how, **QUICK)
    assert posterior.attrs["observations_used"] == [1, 2]
    assert words(report(data, prior, screening=how["screening"])) == ["used"] * 3


def test_several_networks_have_a_tree(prior: Prior, mixed: xr.Dataset) -> None:
    both = {"one": mixed.isel(obs=[0]), "two": mixed.isel(obs=[0, 3])}
    found = report(both, prior, screening={"duplicates": "keep"})
    assert isinstance(found, xr.DataTree)
    assert words(found["one"].to_dataset()) == ["used"] and words(found["two"].to_dataset()) == ["used", "used"]


def test_a_station_in_two_networks_is_used_once(prior: Prior) -> None:
    """Refused, unless one of the two, or both, are asked for."""
    synop, metar = reports([281.0, 282.0], [0.0, 0.5]), reports([281.5, 279.0], [0.5, 1.0])
    both = {"synop": synop, "metar": metar}
    with pytest.raises(DataError, match="observation 0, a = 281.5 K at time=0.5, is there at .* network 'synop', too"):
        assimilate(both, prior, members=1, **QUICK)
    found = report(both, prior)
    assert words(found["metar"].to_dataset()) == ["duplicate", "used"]
    posterior = assimilate(both, prior, members=1, screening={"duplicates": "drop"}, **QUICK)
    assert posterior.attrs["observations_used"] == [2, 1] and posterior.attrs["observations_duplicate"] == [0, 1]
    kept = assimilate(both, prior, members=1, screening={"duplicates": "keep"}, **QUICK)
    assert kept.attrs["observations_used"] == [2, 2]


def test_a_report_survives_a_file(prior: Prior, mixed: xr.Dataset, tmp_path) -> None:
    found = report(mixed, prior, times=0.5 * np.arange(6), screening=OPTIONS)
    found.to_netcdf(tmp_path / "status.nc")
    with xr.open_dataset(tmp_path / "status.nc") as again:
        assert words(again) == EXPECTED


def test_measurements_between_months_on_a_curvilinear_grid_in_other_units() -> None:
    """Temperatures of buoys in degrees Celsius, for an ocean of monthly means in kelvin."""
    north, east = np.meshgrid(np.linspace(50.0, 60.0, 11), np.linspace(0.0, 10.0, 11), indexing="ij")
    field = 280 + (north + east)[None] / 10 + np.random.default_rng(0).normal(size=(40, 1, 1))
    ocean = xr.Dataset(
        {"t": (("time", "y", "x"), np.where(east > 8.5, np.nan, field), {"units": "K"})},
        {
            "time": xr.date_range("1999-01-01", periods=40, freq="MS"),
            "nav_lat": (("y", "x"), north, {"units": "degrees_north"}),
            "nav_lon": (("y", "x"), east, {"units": "degrees_east"}),
        },
    )
    buoys = xr.Dataset(
        {"t": ("obs", [10.0, 11.0, 12.0, 13.0, 400.0], {"units": "degC"}), "t_error": 0.5},
        {
            "time": ("obs", np.array(["2000-02-16", "2000-02-01", "2000-03-30", "2000-03-01", "2000-03-01"], "M8[ns]")),
            "latitude": ("obs", [55.5, 80.0, 55.0, 55.0, 52.0]),
            "longitude": ("obs", [2.5, 5.0, 9.5, 5.0, 2.0]),
            "altitude": ("obs", [0.0, np.nan, 1.0, 2.0, 3.0]),
        },
    )
    found = report(buoys, white_prior(ocean), units="convert")
    assert words(found, "t") == ["used", "outside", "land", "used", "implausible"]
    np.testing.assert_allclose(found.t[:2], [283.15, 284.15])
    with pytest.raises(UnitsError, match="'t' has units 'degC'"):
        report(buoys, white_prior(ocean))


@pytest.mark.parametrize("name", ["level", "isobaricInPa"])
def test_levels_in_other_units_are_refused_or_converted(name: str) -> None:
    levels = weather()[["t"]].isel(time=slice(10))
    sonde = xr.Dataset(
        {"t": ("obs", [250.0, 280.0], {"units": "K"}), "t_error": 1.0},
        {
            "time": ("obs", levels.time.values[[1, 2]]),
            "lat": ("obs", [50.6, 50.9]),
            "lon": ("obs", [0.1, 0.3], {"units": "degree"}),
            name: ("obs", [50000.0, 85000.0], {"units": "Pa", "standard_name": "air_pressure"}),
        },
    )
    with pytest.raises(UnitsError, match="'level' has units 'Pa' in the observations, expected 'hPa'.*convert"):
        report(sonde, white_prior(levels))
    found = report(sonde, white_prior(levels), units="convert")
    assert words(found, "t") == ["used", "used"] and found.level.values.tolist() == [500.0, 850.0]


def test_there_is_nothing_else_in_the_room() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reports'"):
        sdaxr.observations.reports  # noqa: B018
