"""Networks, the times of their window, and the background as one more network."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from instruments import CALENDARS, make_truth, soundings

from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.observations.window import as_networks, background_network, operator_of, window_times
from sdaxr.schema import DataError, OperatorError, OptionError
from sdaxr.states.infer import infer_layout


def networks(truth: xr.Dataset, **options: int) -> dict[str, xr.Dataset]:
    """One network of the whole state."""
    return {"observations": observe(truth, op.identity(), error=0.1, **options).drop_vars("window")}


def test_observations_are_a_mapping_of_networks(truth: xr.Dataset) -> None:
    one = observe(truth, op.identity(), error=0.1)
    assert list(as_networks(one)) == ["observations"]
    assert list(as_networks({"a": one, "b": one})) == ["a", "b"]
    tree = xr.DataTree.from_dict({"/near/surface": one, "/far": one})
    assert set(as_networks(tree)) == {"near/surface", "far"}
    xr.testing.assert_identical(as_networks(tree)["far"], one)
    with pytest.raises(DataError, match="found no network"):
        as_networks({})


def test_operators_are_those_given_or_those_carried(truth: xr.Dataset) -> None:
    one = observe(truth, op.coarsen(2), error=0.1)
    assert operator_of("a", one, None, "error") == op.coarsen(2)
    assert operator_of("a", one, op.arctan(), "error") == op.arctan()
    assert operator_of("a", one, {"a": op.arctan()}, "error") == op.arctan()
    with pytest.raises(OptionError, match="network 'b'; expected one of a"):
        operator_of("b", one, {"a": op.arctan()}, "error")
    with pytest.raises(OperatorError, match="expected an operator"):
        operator_of("a", one.assign_attrs(operator="{}"), None, "error")


@pytest.mark.parametrize("times", CALENDARS)
def test_the_window_goes_from_the_first_to_the_last_observation(times: str) -> None:
    truth = make_truth(times)
    layout = infer_layout(truth)
    found = window_times(networks(truth, every=2, start=1), layout)
    expected = truth.time[1:6]
    np.testing.assert_array_equal(found.size, 5)
    if times == "float":
        np.testing.assert_allclose(found, expected)
    else:
        assert (found.values == expected.values).all()
    whole = window_times({"a": observe(truth, op.identity(), error=0.1, every=2, start=1)}, layout)
    assert whole.size == 6, "`window` says what the truth covers"


def test_several_networks_have_one_window(truth: xr.Dataset) -> None:
    both = {"a": networks(truth)["observations"].isel(time=[1, 2]), "b": soundings(truth).isel(obs=slice(0, 1))}
    both["b"] = both["b"].assign_coords(time=("obs", truth.time.values[[4]]))
    np.testing.assert_allclose(window_times(both, infer_layout(truth)), truth.time[1:5])


def test_times_that_are_asked_for(truth: xr.Dataset) -> None:
    layout, given = infer_layout(truth), networks(truth)
    np.testing.assert_allclose(window_times(given, layout, truth.time.values[2:5]), truth.time[2:5])
    np.testing.assert_allclose(window_times(given, layout, truth.time[2:5].astype("float32")), truth.time[2:5])
    np.testing.assert_allclose(window_times(given, layout, [0.6]), [0.6])
    with pytest.raises(DataError, match=r"times= has the step 0.4 \(float\), expected the prior's 0.2"):
        window_times(given, layout, [0.0, 0.4, 0.8])
    with pytest.raises(DataError, match=r"expected the model's 0.2"):
        window_times(given, layout, CALENDARS["datetime"], "the model")


def test_windows_that_do_not_fit(truth: xr.Dataset) -> None:
    layout, data = infer_layout(truth), networks(truth)["observations"]
    off = data.isel(time=[0, 3]).assign_coords(time=[0.0, 0.65])
    with pytest.raises(DataError, match="the observations span 3.25 steps of the prior .* move them to the nearest"):
        window_times({"a": off}, layout)
    with pytest.raises(DataError, match=r"'a' \('time'\) are of kind datetime, those of the prior of kind float"):
        window_times({"a": data.assign_coords(time=CALENDARS["datetime"])}, layout)
    with pytest.raises(DataError, match="'a' has neither a 'time' nor a 'window' coordinate"):
        window_times({"a": data.isel(time=0, drop=True)}, layout)


@pytest.mark.parametrize("times", CALENDARS)
def test_a_background_is_observed_at_the_first_time(times: str) -> None:
    truth = make_truth(times)
    first = truth.isel(time=[0]).assign(u_error=0.1, v_error=0.2)
    for given in (first, first.isel(time=0), first.isel(time=0, drop=True)):
        found = background_network(given, truth.time)
        assert found.attrs["operator"] == op.identity().to_json() and found.sizes["time"] == 1
        assert found.time.values[0] == truth.time.values[0]
        np.testing.assert_array_equal(found.u, first.u)
        assert set(found.data_vars) == {"u", "v", "u_error", "v_error"}


def test_backgrounds_that_do_not_fit(truth: xr.Dataset) -> None:
    first = truth.isel(time=[0]).assign(u_error=0.1, v_error=0.2)
    near = first.assign_coords(time=[1e-5])
    assert background_network(near, truth.time).time.values[0] == 0.0
    with pytest.raises(DataError, match="the background is at 0.001, expected the first time of the window, 0.0"):
        background_network(first.assign_coords(time=[1e-3]), truth.time)
    with pytest.raises(DataError, match="the background is at 0.2"):
        background_network(first.assign_coords(time=[0.2]), truth.time)
    with pytest.raises(DataError, match="the background are of kind datetime, those of the window of kind float"):
        background_network(first.assign_coords(time=CALENDARS["datetime"][:1]), truth.time)
    with pytest.raises(DataError, match="the background has 6 times, expected one"):
        background_network(truth, truth.time)
    with pytest.raises(DataError, match="the background has 2 states along 'member'"):
        background_network(xr.concat([first, first], "member"), truth.time)
