"""Which observations are evidence: at sea, plausible, and near the prior."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from assimilated import QUICK
from white import white_prior

from sdaxr import operators as op
from sdaxr.inference.assimilate import assimilate
from sdaxr.inference.evidence import screen
from sdaxr.observations.observe import observe, operator_for
from sdaxr.observations.screening import LAND, Screening
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError, OperatorError

CPU = torch.device("cpu")


def one_value(observations: xr.Dataset, name: str, value: float) -> xr.Dataset:
    changed = observations.copy(deep=True)
    changed[name] = changed[name].broadcast_like(changed["a"]).copy()
    changed[name].values[1] = value
    return changed


@pytest.mark.parametrize("value", [1e20, 9.96921e36, -9999.0, -999.0, 99999.0, 1e5, -32768.0])
@pytest.mark.parametrize("method", ["sda", "dps", "jacobian_free", "mmps"])
def test_a_fill_value_is_refused_before_sampling(
    prior: Prior, observations: xr.Dataset, method: str, value: float
) -> None:
    """One fill value would count as a solved system, and switch all observations off."""
    with pytest.raises(DataError, match=r"^observation 1, a = .* K at time=1.0, is .* standard deviations"):
        assimilate(one_value(observations, "a", value), prior, method=method, members=1, **QUICK)


@pytest.mark.parametrize("error", [1e-30, 1e20])
def test_an_absurd_error_is_refused_before_sampling(prior: Prior, observations: xr.Dataset, error: float) -> None:
    with pytest.raises(DataError, match=r"^observation 1, a = .* K at time=1.0, has the error 1e.* correct 'a_error'"):
        assimilate(one_value(observations, "a_error", error), prior, members=1, **QUICK)


def test_usual_values_and_what_has_a_large_error_are_plausible(prior: Prior, observations: xr.Dataset) -> None:
    """Ten standard deviations are rare, not absurd; and a wide error says itself how far a value may be."""
    far = one_value(observations, "a", 300.0)
    wide = one_value(one_value(observations, "a", 1000.0), "a_error", 100.0)
    for data in (far, wide):
        assert assimilate(data, prior, members=1, **QUICK).attrs["observations_used"] == [10]


def test_the_background_check_is_relative_to_prior_and_error(prior: Prior, observations: xr.Dataset) -> None:
    """The prior has the variance 4 at every time, and the errors 0.16."""
    bound = np.sqrt(4 + 0.16)
    for factor, expected in ((2.0, 10), (4.5, 9)):
        data = one_value(observations, "a", 280 + factor * bound)
        found = assimilate(data, prior, members=1, screening={"gross_error": {"a": 3.3}}, **QUICK)
        assert found.attrs["observations_used"] == [expected]
        assert found.attrs["observations_failed_background_check"] == [10 - expected]


def test_the_background_check_is_local() -> None:
    """Where the climate differs from place to place, a value that is usual elsewhere is a gross error here."""
    random = np.random.default_rng(0)
    values = np.array([0.0, 100.0])[:, None] + random.normal(size=(200, 2, 6))
    data = xr.Dataset(
        {"t": (("time", "y", "x"), values, {"units": "K"})},
        {"time": np.arange(200.0), "y": [0.0, 1.0], "x": np.arange(6.0)},
    )
    seen = observe(data.isel(time=slice(5)), op.identity(), error=0.5)
    seen["t"].values[0, 0, 0] = 100.0
    prior = white_prior(data)
    found = screen(seen, op.identity(), prior, prior.layout.times(0.0, 5), CPU, Screening(gross_error=6))
    assert found.points.count == seen.t.size - 1 == len(found.scale)


def coast() -> xr.Dataset:
    """Sea in the two southern rows of a plane, at 20 in the south and 10 north of it; land in the others."""
    random = np.random.default_rng(0)
    values = np.array([20.0, 10.0, np.nan, np.nan])[:, None] + random.normal(size=(200, 4, 6))
    coords = {"time": np.arange(200.0), "y": np.arange(4.0), "x": np.arange(6.0)}
    return xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, coords)


def buoys(y: list[float]) -> xr.Dataset:
    n = len(y)
    data = {"t": ("obs", np.full(n, 15.0), {"units": "K"}), "t_error": ("obs", np.ones(n))}
    return xr.Dataset(data, {"time": ("obs", np.arange(n) * 1.0), "y": ("obs", y), "x": ("obs", np.full(n, 2.0))})


@pytest.mark.parametrize("normalise", ["channel", "point"])
def test_observations_on_land_are_refused_or_dropped(normalise: str) -> None:
    prior = white_prior(coast(), normalise=normalise)
    times, data = prior.layout.times(0.0, 5), buoys([0.5, 2.5, 3.0, 1.9])
    with pytest.raises(DataError, match=r"^observation 1, t = 15 K at .*y=2.5.* \(and another one\) is on land"):
        screen(data, operator_for(data), prior, times, CPU, Screening())
    how = Screening(outside="drop")
    found = screen(data, operator_for(data, how), prior, times, CPU, how)
    assert found.points.source["t"].tolist() == [0, 3] and (found.points.status["t"] == LAND).sum() == 2


@pytest.mark.parametrize("normalise", ["channel", "point"])
def test_a_coastal_cell_is_its_sea_part(normalise: str) -> None:
    """Interpolated with the mean over all places, or with zero, the coast would be seen at another temperature."""
    prior = white_prior(coast(), normalise=normalise)
    times, data = prior.layout.times(0.0, 5), buoys([0.5, 1.0, 1.9])
    found = screen(data, operator_for(data), prior, times, CPU, Screening())
    states = torch.as_tensor(prior.layout.to_array(coast().isel(time=slice(5))))[None]
    south, north = (coast().t.isel(time=slice(3), x=2, y=y).values for y in (0, 1))
    np.testing.assert_allclose(found.seen(states)[0], [(south[0] + north[0]) / 2, north[1], north[2]], rtol=1e-4)
    grid = op.coarsen(2) >> op.scale(2.0)
    blocks = op.coarsen(2).apply(coast().isel(time=slice(5), y=slice(2)))
    assert blocks.t.notnull().all()
    seen = (2 * blocks).assign_coords(y=[0.5]).assign(t_error=1.0).assign_attrs(operator=grid.to_json())
    found = screen(seen, grid, prior, times, CPU, Screening())
    np.testing.assert_allclose(found.seen(states)[0], 2 * blocks.t.values.ravel(), rtol=1e-4)


def test_other_operators_see_land_as_they_do() -> None:
    """A nonlinear operator has no sea part; where it sees land only, there is no observation."""
    prior = white_prior(coast())
    bent = op.arctan(0.1)
    seen = bent.apply(coast().isel(time=slice(5))).fillna(1.0).assign(t_error=0.1)
    seen.t.attrs["units"] = bent.apply(coast()).t.attrs.get("units", "1")
    how = Screening(outside="drop")
    found = screen(seen, bent, prior, prior.layout.times(0.0, 5), CPU, how)
    assert found.points.count == 5 * 12 and (found.points.status["t"] == LAND).sum() == 5 * 12


def test_an_operator_that_is_not_finite_is_refused(prior: Prior, observations: xr.Dataset) -> None:
    own = op.function(lambda fields: {name: x / 0 for name, x in fields.items()})
    with pytest.raises(OperatorError, match="gives values that are not finite for held-out states"):
        screen(observations, own, prior, prior.layout.times(0.0, 9), CPU, Screening())


def test_a_network_of_which_nothing_is_left_is_counted_beside_others(prior: Prior, observations: xr.Dataset) -> None:
    flags = ("time", np.full(5, 4, "i1"), {"conventions": "QARTOD"})
    bad = observations[["a", "a_error"]].assign(a_qc=flags)
    both = {"bad": bad, "good": observations}
    found = assimilate(both, prior, members=1, **QUICK)
    assert found.attrs["observations_used"] == [0, 10] and found.attrs["observations_flagged"] == [5, 0]
    assert json.loads(found.attrs["screening"])["outside"] == "error"
    alone = assimilate(observations, prior, members=1, **QUICK)
    xr.testing.assert_equal(found, alone)
    with pytest.raises(DataError, match=r"found no finite observation in the window that can be used \(5 flagged\)"):
        assimilate(bad, prior, members=1, **QUICK)


def test_the_background_check_of_the_first_state_is_relative_to_the_background(
    prior: Prior, truth: xr.Dataset, observations: xr.Dataset
) -> None:
    """A background of 284 K with an error of 0.3 K excludes 281.5 K at the first time, not at later ones."""
    data = observations[["a", "a_error"]].copy(deep=True)
    data["a"].values[:2] = 281.5
    first = truth.isel(time=0, drop=True).assign(a_error=0.3)[["a", "a_error"]]
    first["a"] = xr.full_like(first.a, 284.0)
    how = {"members": 1, "screening": {"gross_error": 4}, **QUICK}
    assert assimilate(data, prior, **how).attrs["observations_failed_background_check"] == [0]
    found = assimilate(data, prior, background=first, **how)
    assert found.attrs["networks"] == ["background", "observations"]
    assert found.attrs["observations_used"] == [1, 4]
    assert found.attrs["observations_failed_background_check"] == [0, 1]
