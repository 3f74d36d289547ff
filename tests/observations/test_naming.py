"""Names of coordinates in the attributes of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.bias import draw_bias, with_bias
from sdaxr.observations.desroziers import estimate_errors
from sdaxr.observations.innovations import innovations
from sdaxr.observations.naming import recognised_observations
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.window import as_networks
from sdaxr.operators import Template
from sdaxr.verification.observed import verify_at

LIKE: dict[Any, Any] = {"time": {}, "lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}}


def stations() -> xr.Dataset:
    along = {"valid_time": [0.0, 1.0], "longitude": [1.0, 2.0], "latitude": [50.0, 51.0], "source": ["a", "b"]}
    data = {"t": ("obs", [1.0, 2.0], {"units": "K"}), "u": ("obs", [1.0, 2.0])}
    data |= {"t_error": ("obs", [0.5, 0.5]), "u_error": ((), 1.0)}
    return xr.Dataset(data, {name: ("obs", values) for name, values in along.items()})


def test_attributes_of_errors_follow_their_coordinates() -> None:
    seen = with_bias(stations(), {"t": 2.0}, by="longitude", predictors={"latitude": 0.1})
    seen["t_error"].attrs["correlation_scales"] = json.dumps({"valid_time": 3.0, "latitude": 1.0})
    found = recognised_observations(seen, LIKE)
    assert {"lat", "lon", "time"} <= set(found.coords)
    attrs = found.t_error.attrs
    assert attrs["bias_by"] == "lon" and json.loads(attrs["bias_predictors"]) == {"lat": 0.1}
    assert json.loads(attrs["correlation_scales"]) == {"time": 3.0, "lat": 1.0}
    assert found.u_error.attrs == {} and seen.t_error.attrs["bias_by"] == "longitude"
    places = xr.Dataset({n: ("obs", np.zeros(2)) for n in "tu"}, found[["lat", "lon", "time"]].coords)
    points = ObservedPoints.of(found, Template.from_dataset(places))
    np.testing.assert_allclose(points.errors**2, [0.25 + 4 + 25, 0.25 + 4 + 5.1**2, 1, 1])


POSTERIOR = xr.Dataset(
    {"t": (("member", "time", "lat", "lon"), np.zeros((2, 2, 2, 2)), {"units": "K"})},
    {"time": [0.0, 1.0], "lat": ("lat", [50.0, 51.0], LIKE["lat"]), "lon": ("lon", [1.0, 2.0], LIKE["lon"])},
)


@pytest.mark.parametrize(
    "function",
    [
        lambda seen: draw_bias(POSTERIOR, seen),
        lambda seen: innovations(POSTERIOR, seen),
        lambda seen: verify_at(POSTERIOR, seen),
        lambda seen: estimate_errors(seen, POSTERIOR + 1, POSTERIOR, by="source"),
    ],
    ids=["draw_bias", "innovations", "verify_at", "estimate_errors"],
)
def test_other_names_are_taken_wherever_observations_meet_states(function: Callable[[xr.Dataset], xr.Dataset]) -> None:
    seen = with_bias(stations()[["t", "t_error"]], 2.0, by="source", predictors={"latitude": 0.1})
    same = recognised_observations(seen, LIKE)
    xr.testing.assert_identical(function(seen).drop_attrs(), function(same).drop_attrs())


def test_names_that_stay() -> None:
    seen = with_bias(stations(), {"t": 2.0}, by="source", predictors={"latitude": 0.1})
    assert recognised_observations(seen, {"valid_time": {}}).t_error.attrs == seen.t_error.attrs
    (found,) = as_networks(seen).values()
    assert json.loads(found.t_error.attrs["bias_predictors"]) == {"latitude": 0.1} and "time" in found.coords


@pytest.mark.parametrize("text", ["latitude", "[1]", 3])
def test_attributes_that_cannot_be_read_are_left_to_their_reader(text: Any) -> None:
    seen = stations()
    seen["t_error"].attrs["correlation_scales"] = text
    assert recognised_observations(seen, LIKE).t_error.attrs["correlation_scales"] == text
