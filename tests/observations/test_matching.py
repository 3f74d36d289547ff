"""Observations matched with the labels of an operator's output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from instruments import CALENDARS, TURN, aligned, make_truth, soundings, with_sites

from sdaxr import operators as op
from sdaxr.observations.matching import find, match, validate
from sdaxr.observations.observe import is_point_form, observe, operator_for
from sdaxr.observations.screening import FLAGGED, OFF_STEP, OUTSIDE, USED, Screening, counts
from sdaxr.operators import Template
from sdaxr.schema import DataError, GridError, OperatorError, OptionError, UnitsError


def test_matching_puts_values_where_they_belong(truth):
    found = observe(truth, op.coarsen(2), every=3, error=0.5)
    result = aligned(found, truth)
    value, error = result["u"]
    assert value.shape == error.shape == (6, 4, 4)
    np.testing.assert_array_equal(value[::3], found["u"])
    assert np.isnan(value[[1, 2, 4, 5]]).all()
    np.testing.assert_array_equal(np.isnan(value), np.isnan(error))
    assert (error[::3] == 0.5).all()
    assert {name: np.unique(status).tolist() for name, status in result.status.items()} == {"u": [USED], "v": [USED]}


def test_matching_does_not_mind_order_or_parts(truth):
    found = observe(truth, op.identity(), error=0.5)
    part = found[["u", "u_error"]].isel(time=[4, 1], x=slice(6, 2, -1)).transpose("x", "y", "time")
    part = part.assign_coords(x=part.x.astype("float32"))
    value, _ = aligned(part, truth)["u"]
    assert list(aligned(part, truth)) == ["u"]
    np.testing.assert_array_equal(value[[1, 4], :, 3:7], found["u"][[1, 4], :, 3:7])
    assert np.isfinite(value).sum() == 2 * 8 * 4


def test_stations_may_be_held_out(truth):
    found = with_sites(truth)
    value, _ = aligned(found.isel(station=[2, 0]), truth)["u"]
    np.testing.assert_array_equal(value[:, [0, 2]], found["u"][:, [0, 2]])
    assert np.isnan(value[:, 1]).all()
    moved = found.assign_coords(x=("station", [0.1, 2.5, 6.2]))
    with pytest.raises(GridError, match=r"station 1 has x=2.5 in the observations, but the operator looks at x=2.0"):
        aligned(moved, truth)


@pytest.mark.parametrize("labelled", [["x"], ["x", "y"]])
def test_a_part_of_a_dimension_has_labels(truth, labelled):
    """Without labels it is not known which part: the first rows would take the values of others."""
    bare = truth.drop_vars({"x", "y"} - set(labelled))
    found = observe(bare, op.identity(), error=0.5)
    whole = found.drop_vars(["x", "y"], errors="ignore")
    for name, pair in aligned(whole, bare).items():
        np.testing.assert_array_equal(pair[0], found[name])
    with pytest.raises(GridError, match="'y' of the observations has 1 points without a coordinate, .* output has 8"):
        aligned(whole.isel(y=[5]), bare)


def test_rows_of_a_curvilinear_grid_are_the_same_rows(truth):
    north = xr.DataArray(np.arange(64.0).reshape(8, 8), dims=("y", "x"))
    curved = truth.drop_vars(["x", "y"]).assign_coords(lat=north, lon=north.T)
    found = observe(curved, op.identity(), error=0.5)
    aligned(found, curved)
    with pytest.raises(GridError, match=r"'lat' at {'y': 0, 'x': 0} is 56 in the observations and 0 in the operator"):
        aligned(found.isel(y=slice(None, None, -1)), curved)


def test_longitudes_may_count_from_anywhere():
    lon = np.arange(0.0, 360.0, 45.0)
    attrs = {"units": "degrees_east", "standard_name": "longitude"}
    fields = {"t": (("time", "lon"), np.arange(16.0).reshape(2, 8))}
    truth = xr.Dataset(fields, {"time": [0.0, 1.0], "lon": ("lon", lon, attrs)})
    found = observe(truth, op.identity(), error=0.1)
    other = found.assign_coords(lon=("lon", (lon + 180) % 360 - 180, attrs)).sortby("lon")
    np.testing.assert_array_equal(aligned(other, truth)["t"][0], found["t"])


def test_quality_flags_are_no_measurements(truth):
    found = observe(truth, op.identity(), error=0.1)
    flagged = found.assign(u_qc=xr.zeros_like(found["u"]))
    assert list(aligned(flagged, truth, good=[0])) == ["u", "v"]
    tests = xr.zeros_like(found["u"], dtype="int8").assign_attrs(standard_name="quality_flag", conventions="QARTOD")
    named = found.assign(tests=tests + 1).assign(u=found.u.assign_attrs(ancillary_variables="u_error tests"))
    assert list(aligned(named, truth)) == ["u", "v"]


def test_flagged_values_are_left_out_wherever_they_are(truth):
    """A bad value needs neither an error nor a place."""
    found = observe(truth, op.identity(), error=0.1)
    flag = xr.where(found.time > 0.5, 4, 1).astype("int8").assign_attrs(conventions="Argo reference table 2")
    found = found.assign(
        u_qc=flag, u_error=found.u_error.where(found.time < 0.5), u=found.u.where(found.time < 0.9, np.inf)
    )
    result = aligned(found[["u", "u_error", "u_qc"]], truth.isel(time=slice(0, 3)))
    assert np.isfinite(result["u"][0]).all()
    np.testing.assert_array_equal(result.status["u"][:, 0, 0], [USED] * 3 + [FLAGGED] * 3)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda o: o.rename(u="U", u_error="U_error"), DataError, "no variable 'U'; expected one of u, v"),
        (lambda o: o.drop_vars("u_error"), DataError, r"'u' has no 'u_error'.*ds\['u_error'\] ="),
        (
            lambda o: o.assign(u_error=0.0 * o["u_error"]),
            DataError,
            "'u_error' is 0.0 where 'u' has a value, 384 times",
        ),
        (lambda o: o.assign(u_error=-o["u_error"]), DataError, "expected a finite standard deviation above 0"),
        (lambda o: o.assign(u_error=o["u_error"] * np.nan), DataError, "'u_error' is nan"),
        (
            lambda o: o.assign(u_error=o["u_error"].expand_dims(z=2)),
            DataError,
            r"'u_error' has the dimensions \['z'\]",
        ),
        (lambda o: o.assign(u=o["u"] / 0), DataError, "infinite values"),
        (lambda o: o.assign(u=o["u"].assign_attrs(units="km h-1")), UnitsError, "'u' has units 'km h-1'"),
        (lambda o: o.assign(u_error=o["u_error"].assign_attrs(units="K")), UnitsError, "'u_error' has units 'K'"),
        (lambda o: o.expand_dims(member=2), DataError, "'u' has the dimensions .*'member'.*expected"),
        (lambda o: o.isel(x=0), DataError, "'u' has the dimensions"),
        (lambda o: o.rename(x="lon"), DataError, "'u' has the dimensions"),
        (lambda o: o.assign_coords(time=o.time + 0.05), DataError, r"time 0.05 is off the steps.*nearest step is 0\.0"),
        (
            lambda o: o.assign_coords(time=o.time + 0.4),
            DataError,
            r"time 1\.2\d* lies outside the window.*outside=\"drop\"",
        ),
        (
            lambda o: o.assign_coords(time=CALENDARS["datetime"]),
            DataError,
            "observations are of kind datetime, those of the window of kind float",
        ),
        (lambda o: o.drop_vars("time"), DataError, "'time' has no coordinate"),
        (
            lambda o: o.isel(time=[0, 0, 1]),
            DataError,
            r"'u' is there twice at time=0.0, y=.*: observations 0 and 64 .and 63 others",
        ),
        (lambda o: o.assign_coords(time=o.time.assign_attrs(units="h")), UnitsError, "'time' has units 'h'"),
        (lambda o: o.assign_coords(x=o.x + 0.1), GridError, r"8 points from 0.49.*not on the grid.*8 points from 0.39"),
        (lambda o: o.assign_coords(x=o.x * 9), GridError, "not on the grid"),
        (lambda o: o[["u_error"]].drop_vars("u_error"), DataError, "at least one measured variable"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_mismatches_are_explained(truth, change, kind, message):
    found = change(observe(truth, op.identity(), error=0.1))
    template = op.identity().bind(Template.from_dataset(truth)).template
    with pytest.raises(kind, match=message):
        validate(found, template)


def test_what_lies_outside_is_dropped_on_request_and_counted(truth):
    found = observe(truth, op.identity(), error=0.1)
    window = truth.isel(time=slice(0, 4))
    with pytest.raises(DataError, match="2 of 6 do"):
        aligned(found, window)
    result = aligned(found, window, outside="drop")
    assert rejected(result) == {"u": {"outside": 128}, "v": {"outside": 128}}
    np.testing.assert_array_equal(result["u"][0], found["u"][:4])
    with pytest.raises(OptionError, match="Did you mean 'drop'"):
        aligned(found, window, outside="drp")
    off = found.assign_coords(time=found.time + 0.05)
    with pytest.raises(DataError, match='off the steps.*outside="drop"'):
        aligned(off.isel(time=slice(0, 3)), window)
    assert rejected(aligned(off, window, outside="drop"))["u"] == {"outside": 192, "off_step": 192}
    part = truth.isel(x=slice(0, 4))
    assert rejected(aligned(found, part, outside="drop")) == {"u": {"outside": 192}, "v": {"outside": 192}}


def rejected(result):
    counted = {name: counts({name: status}) for name, status in result.status.items()}
    return {name: {reason: n for reason, n in found.items() if n} for name, found in counted.items()}


@pytest.mark.parametrize("times", CALENDARS)
def test_points_are_matched_one_by_one(times):
    truth = make_truth(times, dtype=np.float64)
    data = soundings(truth)
    assert is_point_form(data)
    result = aligned(data, truth)
    np.testing.assert_array_equal(result["u"][0], data["u"])
    seen = operator_for(data).apply(truth)["u"]
    at = {"y": [float(data.y[5])], "x": [float(data.x[5])]}
    alone = op.points(at).apply(truth.sel(time=[data.time.values[5]]))["u"]
    np.testing.assert_allclose(seen[5], alone.squeeze())


def test_points_outside_are_refused_or_dropped(truth):
    data = soundings(truth)
    late = data.assign_coords(time=data.time + 0.4)
    outside = int((late.time > 1.1).sum())
    with pytest.raises(OperatorError, match=r"'time' of obs .* is 1\.\d* and lies outside .*expected 0\.0 to 1\.0"):
        aligned(late, truth)
    assert 0 < outside < 20
    assert rejected(aligned(late, truth, outside="drop")) == {"u": {"outside": outside}}
    # What has no value may lie anywhere.
    assert rejected(aligned(late.assign(u=late.u.where(late.time < 1.1)), truth)) == {"u": {}}


def test_points_off_the_steps_are_told_from_those_outside(truth):
    data = soundings(truth).isel(obs=slice(0, 4)).assign_coords(time=("obs", [0.0, 0.27, 0.21, 1.3]))
    how = Screening(time="nearest", tolerance=0.02, outside="drop")
    bound = operator_for(data, how).bind(Template.from_dataset(truth))
    (found,) = find(data, bound.template, how, truth.time).values()
    assert found.status.tolist() == [USED, OFF_STEP, USED, OUTSIDE]
    with pytest.raises(OperatorError, match=r"'time' of obs 1 \(and another one\) is 0.27 and is further than"):
        operator_for(data, Screening(time="nearest", tolerance=0.02)).bind(Template.from_dataset(truth))


def test_one_place_twice_is_refused_dropped_or_kept(truth):
    data = soundings(truth).isel(obs=[3, 4, 3, 3])
    data["u"][1] = np.nan
    with pytest.raises(DataError, match=r"there twice at time=.*: observations 0 and 2 \(and another one\); average"):
        aligned(data, truth)
    dropped = aligned(data, truth, duplicates="drop")
    assert rejected(dropped) == {"u": {"duplicate": 2}}
    assert np.isfinite(dropped["u"][0]).tolist() == [True, False, False, False]
    assert rejected(aligned(data, truth, duplicates="keep")) == {"u": {}}
    # Another time, or a turn around the circle.
    later = data.isel(obs=[0, 2]).assign_coords(time=("obs", [0.2, 0.4]))
    assert rejected(aligned(later, truth)) == {"u": {}}


def test_a_place_has_many_longitudes():
    fields = {"t": (("time", "lon"), np.arange(16.0).reshape(2, 8))}
    truth = xr.Dataset(fields, {"time": [0.0, 1.0], "lon": np.arange(0.0, 360.0, 45.0)})
    data = xr.Dataset({"t": ("obs", [1.0, 2.0]), "t_error": 0.1})
    for lon, repeated in (([350.0, -10.0], True), ([350.0, 10.0], False)):
        seen = data.assign_coords(time=("obs", [0.0, 0.0]), lon=("obs", lon))
        result = aligned(seen, truth, duplicates="drop")
        assert rejected(result) == {"t": {"duplicate": 1} if repeated else {}}


def test_the_numbers_of_stations_are_labels(truth):
    """Numbers of their own, and numbers that reports share, are no index into the list."""
    data = soundings(truth, 4)
    for labels in ([11, 7, 5, 3], [7, 7, 3, 3], list("abcd")):
        np.testing.assert_array_equal(aligned(data.assign_coords(obs=labels), truth)["u"][0], data["u"])


def test_other_coordinates_are_carried(truth):
    data = soundings(truth, 4)
    extra = {"elevation": [1.0, np.nan, 2.0, 3.0], "wmo": [1, 2, 3, 4], "name": list("abcd")}
    data = data.assign_coords({n: ("obs", v) for n, v in extra.items()})
    np.testing.assert_array_equal(aligned(data, truth)["u"][0], data["u"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda o: o.isel(x=slice(None, None, -1), y=slice(None, None, -1)), id="reversed"),
        pytest.param(lambda o: o.roll(x=3, roll_coords=True), id="rolled"),
        pytest.param(lambda o: o.assign_coords(x=o.x - TURN), id="one period to the left"),
        pytest.param(lambda o: o.assign_coords(x=o.x * (1 + 1e-4)), id="rounded"),
    ],
)
def test_points_are_matched_by_their_labels(truth: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset]) -> None:
    found = observe(truth, op.identity(), error=0.1)
    np.testing.assert_array_equal(match(change(found), Template.from_dataset(truth))["u"][0], found["u"])


def test_only_what_is_beyond_the_grid_is_dropped(truth: xr.Dataset) -> None:
    found = observe(truth, op.identity(), error=0.1)
    half = Template.from_dataset(truth.isel(x=slice(0, 4)))
    assert rejected(match(found, half, Screening(outside="drop")))["v"] == {"outside": 192}
    between = found.assign_coords(x=found.x + 0.2)
    for template in (half, Template.from_dataset(truth)):
        with pytest.raises(GridError, match="8 labels, 0.59.* the first|3 labels, 0.59.* the first"):
            match(between, template, Screening(outside="drop"))
