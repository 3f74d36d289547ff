"""What a posterior records of its observations."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr.observations.provenance import count_observations, describe_networks, fingerprint, sum_counts
from sdaxr.observations.screening import DUPLICATE, FLAGGED, GROSS_ERROR, LAND, MISSING, OFF_STEP, OUTSIDE, USED


def network(value: float = 1.0, **attrs: Any) -> xr.Dataset:
    values = ("time", np.array([value, np.nan, 3.0]), attrs)
    data = xr.Dataset({"a": values, "a_error": ((), 0.5)}, {"time": np.arange(3.0)})
    return data.assign_attrs(operator=op.identity().to_json())


def test_networks_are_named_with_the_operator_that_was_used() -> None:
    networks = {"one": network(), "two": network()}
    own = describe_networks(networks, None)
    assert own["networks"] == ["one", "two"]
    assert [json.loads(text)["op"] for text in own["operators"]] == ["identity", "identity"]
    given = describe_networks(networks, {"one": op.scale(2.0), "two": op.function(lambda fields: fields)})
    assert json.loads(given["operators"][0])["op"] == "scale" and "function" in given["operators"][1]
    assert given["observations_sha256"] == own["observations_sha256"]


def test_what_is_left_out_is_counted_by_reason() -> None:
    first = {"a": np.array([USED, MISSING, LAND], np.int8), "b": np.array([[USED, LAND], [OUTSIDE, OFF_STEP]], np.int8)}
    second = {"a": np.array([USED, FLAGGED, DUPLICATE, GROSS_ERROR], np.int8)}
    assert count_observations([first, second]) == {
        "observations_used": [2, 1],
        "observations_dropped": [4, 3],
        "observations_outside": [1, 0],
        "observations_off_step": [1, 0],
        "observations_land": [2, 0],
        "observations_flagged": [0, 1],
        "observations_duplicate": [0, 1],
        "observations_failed_background_check": [0, 1],
    }


def test_counts_of_windows_are_summed_by_network() -> None:
    first = {"networks": ["background", "b"], "observations_used": [9, 1], "observations_land": [0, 2], "title": "x"}
    second = {"networks": "a", "observations_used": 4, "observations_land": 1}
    assert sum_counts(["a", "b"], [first, second]) == {"observations_used": [4, 1], "observations_land": [1, 2]}


@pytest.mark.parametrize(
    "other",
    [
        network(1.5),
        network().rename(a="b", a_error="b_error"),
        network().assign_coords(time=np.arange(3.0) + 1),
        network(distribution="laplace"),
        network(correlation_scales='{"time": 1.0}'),
        network(bias=0.5),
        network(bias_by="source"),
        network(bias_predictors='{"height": 1.0}'),
    ],
)
def test_a_hash_tells_apart_values_names_times_and_errors(other: xr.Dataset) -> None:
    assert fingerprint([network()]) == fingerprint([network()]) != fingerprint([other])


def test_dates_and_texts_have_a_hash_too() -> None:
    days = xr.date_range("2001-02-27", periods=3, freq="D", calendar="360_day", use_cftime=True)
    dated = network().assign_coords(time=days, station=("time", ["x", "y", "z"]))
    moved = dated.assign_coords(station=("time", ["x", "y", "w"]))
    assert fingerprint([dated]) == fingerprint([dated.copy(deep=True)]) != fingerprint([moved])
