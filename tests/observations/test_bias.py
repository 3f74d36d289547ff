"""Biases of sources: the joint posterior of states and biases, in closed form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from white import white_prior

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.evidence import screen
from sdaxr.observations.bias import draw_bias, with_bias
from sdaxr.observations.observe import operator_for
from sdaxr.observations.screening import Screening
from sdaxr.schema import DataError, OptionError

UNITS = {"units": "K"}
KEEP = Screening(duplicates="keep")


def stations(values: list[float], sources: list[str], error: float = 0.5) -> xr.Dataset:
    """Measurements of one temperature at time 0, by several sources."""
    at = {"time": ("obs", np.zeros(len(values))), "source": ("obs", sources)}
    data = {"t": ("obs", values, UNITS), "t_error": ("obs", np.full(len(values), error), UNITS)}
    return xr.Dataset(data, at)


def states(values: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"t": (("member", "time"), values[:, None], UNITS)}, {"time": [0.0]})


def joint(seen: xr.Dataset, design: np.ndarray, deviations: list[float], spread: float) -> tuple[np.ndarray, ...]:
    """Mean and covariance of x and b given y = x + design b + error, by the Kalman formulas."""
    h = np.hstack([np.ones((len(design), 1)), design])
    b = np.diag([spread**2, *np.square(deviations)])
    gain = b @ h.T @ np.linalg.inv(h @ b @ h.T + measurement_covariance(seen))
    return gain @ seen.t.values, b - gain @ h @ b


def measurement_covariance(seen: xr.Dataset) -> np.ndarray:
    """R, whose errors may be correlated along the coordinate x."""
    errors = seen.t_error.values
    if "correlation_scales" not in seen.t_error.attrs:
        return np.diag(errors**2)
    return np.exp(-np.abs(np.subtract.outer(seen.x.values, seen.x.values))) * np.outer(errors, errors)


CORRELATED = {"correlation_scales": '{"x": 1.0}'}


@pytest.mark.parametrize("attrs", [{}, CORRELATED], ids=["independent", "correlated"])
@pytest.mark.parametrize("predictors", [{}, {"height": 0.3}], ids=["constant", "linear"])
def test_states_and_biases_have_their_joint_posterior(attrs, predictors):
    """Members that are drawn with the errors R + P S P^T, and biases given them."""
    plain = stations([1.0, 1.5, 3.0, 3.5, 0.2], ["a", "a", "b", "b", "c"])
    plain = plain.assign_coords(x=("obs", [0.0, 0.5, 1.5, 2.0, 4.0]), height=("obs", [1.0, 2.0, -1.0, 0.0, 3.0]))
    seen = with_bias(plain, 0.8, by="source", predictors=predictors)
    seen["t_error"].attrs |= attrs
    own = np.eye(3)[[0, 0, 1, 1, 2]]
    design = np.stack([own, own * plain.height.values[:, None]][: 1 + len(predictors)], axis=-1).reshape(5, -1)
    mean, covariance = joint(seen, design, [0.8, *predictors.values()] * 3, 2.0)
    x = np.random.default_rng(0).normal(mean[0], np.sqrt(covariance[0, 0]), 4000)
    found = draw_bias(states(x).t.expand_dims(x=[0.0, 4.0]).to_dataset(), seen, screening=KEEP, seed=1)
    assert found.t_bias.dims == ("member", "source", "predictor") and found.source.values.tolist() == ["a", "b", "c"]
    assert found.predictor.values.tolist() == ["constant", *predictors]
    drawn = np.column_stack([x, found.t_bias.values.reshape(len(x), -1)])
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.08)


@pytest.mark.parametrize("by", [None, "source"])
def test_the_assimilation_allows_for_biases(by):
    series = {"t": ("time", np.random.default_rng(0).normal(size=60), UNITS)}
    prior = white_prior(xr.Dataset(series, {"time": np.arange(60.0)}))
    plain = stations([0.1, 0.2, 0.3], ["a", "b", "a"])
    seen = with_bias(plain, {"t": 0.3}, by=by)
    assert seen.t_error.values.tolist() == plain.t_error.values.tolist()
    times = prior.layout.times(0.0, 1)
    points = screen(seen, operator_for(seen), prior, times, torch.device("cpu"), KEEP).points
    same = np.ones((3, 3)) if by is None else np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    expected = 0.25 * np.eye(3) + 0.09 * same
    np.testing.assert_allclose(points.errors**2, np.diag(expected))
    assert points.correlation is None
    np.testing.assert_allclose(points.shared.dense(), expected)
    np.testing.assert_allclose(points.own_errors, 0.5)


def test_a_bias_widens_a_posterior_by_a_system():
    """Of one value, the error and the bias are one error."""
    system = sdaxr.open_system("linear")
    truth = xr.Dataset({v: ("time", np.zeros(3), UNITS | a.attrs) for v, a in system.template().data_vars.items()})
    truth = truth.assign_coords(time=("time", np.arange(3) * system.step, system.time_attrs))
    seen = sdaxr.observe(truth, op.identity(), every=10, error=0.3, seed=0)
    name = next(iter(truth.data_vars))
    wider = seen.copy()
    wider[f"{name}_error"] = (0 * seen[f"{name}_error"] + 0.5).assign_attrs(seen[f"{name}_error"].attrs)
    options: dict[str, Any] = {
        "system": "linear", "method": "kalman", "members": 3, "seed": 0, "times": truth.time, "progress": False,
    }  # fmt: skip
    biased = sdaxr.assimilate(with_bias(seen, {name: 0.4}), **options)
    np.testing.assert_allclose(biased[name], sdaxr.assimilate(wider, **options)[name], atol=1e-6)


@pytest.mark.parametrize(
    ("deviation", "options", "error", "message"),
    [
        (-1.0, {}, OptionError, r"deviation\['t'\]"),
        ({"u": 1.0}, {}, DataError, "deviation= names 'u'; expected one of t"),
        (1.0, {"by": "station"}, DataError, r"found the coordinates \['time', 'source', .*\], expected 'station'"),
        (1.0, {"predictors": {"heigth": 1.0}}, DataError, "has the predictor 'heigth'; .* Did you mean 'height'"),
        (1.0, {"predictors": {"height": 0.0}}, OptionError, r"predictors\['height'\]\['t'\]=0.0"),
        (1.0, {"predictors": {"height": {"u": 1.0}}}, DataError, r"predictors\['height'\]= names 'u'; expected"),
        (
            1.0,
            {"predictors": {"constant": 1.0}},
            DataError,
            "predictors= names 'constant', which is that of deviation=",
        ),
        (1.0, {"predictors": {"source": 1.0}}, DataError, "'source' of the bias of 't' holds .*, expected numbers"),
        (1.0, {"predictors": {"angle": 1.0}}, DataError, "'angle' of the bias of 't' is nan at 1 of 2 observations"),
        (1.0, {"predictors": {"level": 1.0}}, DataError, r"'level' has the dimensions \('z',\), expected some of"),
    ],
)
def test_what_is_no_bias(deviation, options, error, message):
    along = {"height": ("obs", [1.0, 2.0, np.nan]), "angle": ("obs", [1.0, np.nan, 0.0]), "level": ("z", [0.0])}
    with pytest.raises(error, match=message):
        with_bias(stations([1.0, 2.0, np.nan], ["a"] * 3).assign_coords(along), deviation, **options)


def test_what_has_no_bias():
    seen = stations([1.0], ["a"])
    with pytest.raises(DataError, match="found no bias in the observations"):
        draw_bias(states(np.zeros(2)), seen)
    laplace = seen.assign(t_error=seen.t_error.assign_attrs(distribution="laplace"))
    with pytest.raises(DataError, match="'t_error' is laplace, expected Gaussian errors beside a bias"):
        with_bias(laplace, 1.0)
    with pytest.raises(DataError, match="'t' has no 't_error'"):
        with_bias(seen[["t"]], 1.0)


def test_a_second_call_replaces_the_first():
    along = {"height": ("obs", [1.0, 2.0])}
    first = with_bias(stations([1.0, 2.0], ["a", "b"]).assign_coords(along), 1.0, by="source", predictors={"height": 2})
    assert json.loads(first.t_error.attrs["bias_predictors"]) == {"height": 2.0}
    second = with_bias(first, 3.0)
    assert {k: v for k, v in second.t_error.attrs.items() if k != "units"} == {"bias": 3.0, "bias_by": ""}


def test_the_draws_survive_a_file_and_say_their_units(tmp_path):
    """Variables with other predictors, and sources of which one variable has no value."""
    both = stations([1.0, 2.0, 3.0], ["a", "b", "c"]).assign_coords(height=("obs", [1.0, 2.0, 3.0], {"units": "km"}))
    both = both.assign(u=("obs", [1.0, np.nan, 2.0], {"units": "m"}), u_error=("obs", [1.0] * 3, {"units": "m"}))
    seen = with_bias(both, {"t": 0.5, "u": 2.0}, by="source", predictors={"height": {"t": 0.1}})
    seen.to_netcdf(tmp_path / "seen.nc")
    state = states(np.zeros(2)).assign(u=(("member", "time"), np.zeros((2, 1)), {"units": "m"}))
    with xr.open_dataset(tmp_path / "seen.nc") as stored:
        found = draw_bias(state, stored, screening=KEEP)
    xr.testing.assert_identical(found.drop_attrs(), draw_bias(state, seen, screening=KEEP).drop_attrs())
    assert found.predictor.values.tolist() == ["constant", "height"]
    assert found.predictor_units.values.tolist() == ["1", "km"]
    assert found.t_bias.notnull().all() and found.u_bias.sel(predictor="height").isnull().all()
    constant = found.u_bias.sel(predictor="constant")
    assert constant.isel(member=0).notnull().values.tolist() == [True, False, True] and constant.units == "m"
    assert "in K over the units of the predictor" in found.t_bias.comment
    single = draw_bias(state.isel(member=0), seen, screening=KEEP)
    assert single.t_bias.dims == ("source", "predictor") and "member" not in single.dims


def test_observations_on_land_have_no_bias():
    field = np.array([[[0.0, np.nan, np.nan]]] * 2)
    sea = xr.Dataset({"t": (("member", "time", "x"), field, UNITS)}, {"time": [0.0], "x": [0.0, 1.0, 2.0]})
    seen = with_bias(stations([1.0, 2.0], ["land", "ship"]).assign_coords(x=("obs", [1.5, 0.4])), 1.0, by="source")
    found = draw_bias(sea, seen, screening=KEEP)
    assert found.source.values.tolist() == ["ship"] and bool(found.t_bias.notnull().all())


def test_the_cost_of_biases_grows_with_the_number_of_observations():
    """A matrix of all pairs of these observations would take 20 GB."""
    count, sources = 50_000, 400
    number = np.arange(count) % sources
    seen = stations([0.0] * count, [f"{i:03d}" for i in number])
    values = np.random.default_rng(0).normal(size=sources)
    seen["t"] = ("obs", values[number], UNITS)
    seen = with_bias(seen.assign_coords(height=("obs", np.linspace(-1, 1, count))), 1.0, by="source")
    found = draw_bias(states(np.zeros(2)), seen, screening=KEEP)
    each = count / sources
    shrunk = values * each / (each + 0.25)
    np.testing.assert_allclose(found.t_bias[:, :, 0], np.tile(shrunk, (2, 1)), atol=5 * 0.5 / np.sqrt(each))
