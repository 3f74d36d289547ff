"""What a posterior records of its observations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr.observations.provenance import count_observations, describe_networks, fingerprint


def network(value: float = 1.0, **attrs: str) -> xr.Dataset:
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


def test_what_is_left_out_is_counted() -> None:
    assert count_observations({"one": network(), "two": network()}, [2, 1]) == {
        "observations_used": [2, 1],
        "observations_dropped": [0, 1],
    }


@pytest.mark.parametrize(
    "other",
    [
        network(1.5),
        network().rename(a="b", a_error="b_error"),
        network().assign_coords(time=np.arange(3.0) + 1),
        network(distribution="laplace"),
        network(correlation_scales='{"time": 1.0}'),
    ],
)
def test_a_hash_tells_apart_values_names_times_and_errors(other: xr.Dataset) -> None:
    assert fingerprint([network()]) == fingerprint([network()]) != fingerprint([other])


def test_dates_and_texts_have_a_hash_too() -> None:
    days = xr.date_range("2001-02-27", periods=3, freq="D", calendar="360_day", use_cftime=True)
    dated = network().assign_coords(time=days, station=("time", ["x", "y", "z"]))
    moved = dated.assign_coords(station=("time", ["x", "y", "w"]))
    assert fingerprint([dated]) == fingerprint([dated.copy(deep=True)]) != fingerprint([moved])
