"""Biases of sources: the joint posterior of states and biases, in closed form."""

from __future__ import annotations

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


def joint(seen: xr.Dataset, deviation: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (x, b_1, ..., b_k) given y, by the Kalman formulas."""
    _, number = np.unique(seen.source.values, return_inverse=True)
    h = np.hstack([np.ones((number.size, 1)), np.eye(number.max() + 1)[number]])
    b = np.diag([spread**2, *[deviation**2] * (number.max() + 1)])
    gain = b @ h.T @ np.linalg.inv(h @ b @ h.T + np.diag(seen.t_error.values**2))
    return gain @ seen.t.values, b - gain @ h @ b


def test_states_and_biases_have_their_joint_posterior():
    """Members that are drawn with the errors R + s^2 P P^T, and biases given them."""
    seen = with_bias(stations([1.0, 1.5, 3.0, 3.5, 0.2], ["a", "a", "b", "b", "c"]), 0.8, by="source")
    mean, covariance = joint(seen, 0.8, 2.0)
    x = np.random.default_rng(0).normal(mean[0], np.sqrt(covariance[0, 0]), 20_000)
    found = draw_bias(states(x), seen, screening=KEEP, seed=1)
    assert found.t_bias.dims == ("member", "source") and found.source.values.tolist() == ["a", "b", "c"]
    drawn = np.column_stack([x, found.t_bias])
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.03)


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
    np.testing.assert_allclose(points.correlation * points.errors * points.errors[:, None], expected)
    np.testing.assert_allclose(points.own_covariance, 0.25 * np.eye(3))


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
        (1.0, {"by": "station"}, DataError, "by='station'; expected one of source, time"),
    ],
)
def test_what_is_no_bias(deviation, options, error, message):
    with pytest.raises(error, match=message):
        with_bias(stations([1.0], ["a"]), deviation, **options)


def test_what_has_no_bias():
    seen = stations([1.0], ["a"])
    with pytest.raises(DataError, match="found no bias in the observations"):
        draw_bias(states(np.zeros(2)), seen)
    laplace = seen.assign(t_error=seen.t_error.assign_attrs(distribution="laplace"))
    with pytest.raises(DataError, match="'t_error' is laplace, expected Gaussian errors beside a bias"):
        with_bias(laplace, 1.0)
    many = with_bias(stations([0.0] * 5001, ["a"] * 5001), 1.0)
    with pytest.raises(DataError, match="found 5001 observations with a bias in one network, expected at most 5000"):
        draw_bias(states(np.zeros(2)), many, screening=KEEP)
