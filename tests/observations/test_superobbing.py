"""Averages within the cells and steps of a grid, against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from grids import sphere
from measurements import HOUR, START, measured

from sdaxr.observations.superobbing import superob
from sdaxr.schema import DataError, OptionError
from sdaxr.states.infer import infer_layout

GRID = sphere(lat=np.array([50.0, 51.0]), lon=np.array([0.0, 1.0, 2.0]))


def dates(calendar, count):
    return xr.date_range("2019-03-01", periods=count, freq="h", calendar=calendar, use_cftime=True)


def test_values_errors_places_and_times_by_hand():
    obs = measured(
        [50.1, 49.9, 51.2], [0.1, 0.3, 2.1], [280.0, 283.0, 290.0], hours=[0.25, -0.25, 1.0], errors=[1.0, 2.0, 3.0]
    )
    made = superob(obs, GRID, representativeness={"t2m": 0.5})
    weights = np.array([1.0, 0.25])
    np.testing.assert_allclose(made.t2m, [(280 + 283 / 4) / weights.sum(), 290.0])
    np.testing.assert_allclose(made.t2m_error, np.sqrt([1 / weights.sum() + 0.25, 9.25]))
    np.testing.assert_array_equal(made.t2m_count, [2, 1])
    np.testing.assert_allclose(made.lat, [50.0, 51.2])
    np.testing.assert_allclose(made.lon, [0.2, 2.1])
    np.testing.assert_array_equal(made.time, [START, START + HOUR])
    assert made.t2m.attrs["ancillary_variables"] == "t2m_error t2m_count"
    assert made.t2m_count.attrs["standard_name"] == "air_temperature number_of_observations"


def test_the_variance_of_the_average_is_the_error_that_it_has():
    draw = np.random.default_rng(0)
    errors = np.array([0.5, 1.0, 2.0])
    found = [
        float(superob(measured(50.0, 0.0, draw.normal(280, errors), errors=errors), GRID).t2m[0]) for _ in range(400)
    ]
    assert np.std(found) == pytest.approx(1 / np.sqrt(np.sum(errors**-2)), rel=0.1)


def test_sources_are_averaged_each_by_itself():
    obs = measured(50.0, 0.0, [1.0, 2.0, 4.0], source=["a", "b", "b"])
    made = superob(obs, GRID)
    assert dict(zip(made.source.values, made.t2m.values, strict=True)) == {"a": 1.0, "b": 3.0}


@pytest.mark.parametrize("good", [None, (1, 2), {"t2m": [1, 2]}])
def test_what_the_flags_call_bad_is_left_out(good):
    """Among them a value that would decide the average, with an error that is ten times smaller."""
    flags = ("obs", np.array([1, 4, 2], "i1"), {"conventions": "Argo"} if good is None else {})
    obs = measured(50.0, 0.0, [1.0, 99.0, 3.0], errors=[1.0, 0.1, 1.0]).assign(t2m_qc=flags)
    made = superob(obs, GRID, good=good)
    assert (made.t2m.item(), made.t2m_count.item()) == (2.0, 2) and "t2m_qc" not in made
    assert made.attrs["observations_flagged"] == 1 and made.attrs["averaged_from"] == 3


def test_missing_values_do_not_count():
    obs = measured(50.0, 0.0, [1.0, np.nan, 3.0]).assign(u=("obs", [np.nan, 5.0, np.nan], {"units": "m"}), u_error=1.0)
    made = superob(obs, GRID)
    assert (made.t2m.item(), made.t2m_count.item(), made.u.item(), made.u_count.item()) == (2.0, 2, 5.0, 1)


def test_across_the_seam_of_the_longitudes():
    around = sphere(lon=np.arange(0.0, 360.0, 10.0), lat=np.array([50.0, 60.0]))
    made = superob(measured(50.0, [359.0, 2.0], [1.0, 3.0]), around)
    assert made.sizes == {"obs": 1} and made.t2m.item() == 2.0
    assert made.lon.item() % 360 == pytest.approx(0.5)


def test_what_lies_outside_stays_as_it_is():
    obs = measured([50.0, 50.0, 53.0, 50.0], [0.0, 0.0, 0.0, 0.0], [1.0, 3.0, 5.0, 7.0], hours=[0, 0, 0, 30])
    made = superob(obs, GRID)
    np.testing.assert_array_equal(made.t2m, [2, 5, 7])
    np.testing.assert_array_equal(made.lat, [50, 53, 50])
    np.testing.assert_array_equal(made.time, START + np.array([0, 0, 30]) * HOUR)


@pytest.mark.parametrize("kind", ["layout", "prior"])
def test_the_steps_of_a_prior_are_whole_hours(kind):
    layout = infer_layout(GRID)
    grid = layout if kind == "layout" else type("Prior", (), {"layout": layout})()
    made = superob(measured(50.0, 0.0, [1.0, 3.0, 5.0], hours=[7.9, 8.1, 8.8]), grid)
    np.testing.assert_array_equal(made.t2m, [2.0, 5.0])
    np.testing.assert_array_equal(made.time, START + np.array([8, 9]) * HOUR)


def test_model_time():
    field = np.random.default_rng(0).normal(size=(3, 4))
    grid = xr.Dataset({"u": (("time", "x"), field, {"units": "1"})}, {"time": [0.0, 0.5, 1.0], "x": np.arange(4.0)})
    at = {"time": ("obs", [0.4, 0.6]), "x": ("obs", [1.1, 0.9])}
    obs = xr.Dataset({"u": ("obs", [1.0, 3.0], {"units": "1"}), "u_error": 0.1}, at)
    for given in (grid, infer_layout(grid)):
        made = superob(obs, given)
        assert (made.u.item(), made.time.item(), made.x.item()) == (2.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("change", "grid", "options", "error", "message"),
    [
        (lambda o: o, "era5", {}, OptionError, "grid is str, expected a prior"),
        (lambda o: o.rename(obs="station"), GRID, {}, DataError, "superob: found the dimensions"),
        (lambda o: o.assign(t2m_qc=("obs", [0, 0])), GRID, {}, DataError, "flags 0, not known .* good={'t2m'"),
        (
            lambda o: o.assign(t2m_error=o.t2m_error.assign_attrs(distribution="laplace")),
            GRID,
            {},
            DataError,
            "'distribution', expected independent Gaussian",
        ),
        (lambda o: o.rename(lat="y", lon="x"), GRID, {}, DataError, "expected some of .*'lat', 'lon'"),
        (lambda o: o.drop_vars("t2m_error").drop_attrs(), GRID, {}, DataError, "no 't2m_error'"),
        (lambda o: o.assign_coords(time=("obs", [0.0, 1.0])), GRID, {}, DataError, "kind float"),
        (
            lambda o: o.isel(obs=[0]).assign_coords(time=("obs", dates("360_day", 1))),
            GRID.assign_coords(time=dates("noleap", GRID.sizes["time"])),
            {},
            DataError,
            "have the calendar '360_day', those of the grid 'noleap'",
        ),
        (lambda o: o, GRID, {"representativeness": {"u": 1.0}}, OptionError, "representativeness= names 'u'"),
        (
            lambda o: o,
            GRID,
            {"representativeness": -1.0},
            OptionError,
            "representativeness.*=-1.0, expected a positive",
        ),
    ],
)
def test_what_cannot_be_averaged(change, grid, options, error, message):
    with pytest.raises(error, match=message):
        superob(change(measured(50.0, 0.0, [1.0, 2.0])), grid, **options)
