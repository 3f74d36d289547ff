"""Log-densities of trajectories against sums of scalar normal densities."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from chains import TRIPLE, truth_of
from scipy import stats

import sdaxr
from sdaxr import operators as op
from sdaxr.observations.bias import with_bias
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, GridError, OptionError, UnitsError
from sdaxr.verification.densities import log_likelihood, log_prior


@pytest.fixture(scope="module")
def states() -> xr.Dataset:
    """Three trajectories of five states."""
    members = [truth_of(TRIPLE, 5, seed) for seed in range(3)]
    return xr.concat(members, "member").assign_coords(member=[4, 5, 6])


def test_log_prior_is_the_density_of_each_transition(states: xr.Dataset) -> None:
    found = log_prior(states, TRIPLE)
    assert found.dims == ("member",) and found.member.values.tolist() == [4, 5, 6] and found.attrs["units"] == "1"
    for number in range(3):
        x = np.stack([states[f"x{i}"][number].values for i in (1, 2, 3)], -1).astype(float)
        steps = [stats.multivariate_normal(TRIPLE.transition_mean(a), TRIPLE.noise_covariance) for a in x[:-1]]
        expected = sum(density.logpdf(after) for density, after in zip(steps, x[1:], strict=True))
        assert float(found[number]) == pytest.approx(expected, rel=1e-6)
        one = log_prior(states.isel(member=number), TRIPLE)
        assert one.dims == () and float(one) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(log_prior(states.transpose("time", "member"), TRIPLE), found)


def test_log_likelihood_is_the_density_of_each_value(states: xr.Dataset) -> None:
    truth = states.isel(member=0)
    one = observe(truth, op.select("x1", "x2") >> op.scale(2.0), error={"x1": 0.5, "x2": 0.7}, every=2, missing=0.3)
    two = observe(truth, op.arctan(), error=0.1, start=1, seed=3)
    found = log_likelihood(states, {"one": one, "two": two})
    assert found.dims == ("member",) and found.name == "log_likelihood"
    for number in range(3):
        expected = 0.0
        for data, seen in ((one, 2 * states), (two, np.arctan(states))):
            for name in [n for n in data.data_vars if not n.endswith("_error")]:
                predicted = seen[name].isel(member=number).sel(time=data.time)
                density = stats.norm(predicted, data[f"{name}_error"]).logpdf(data[name])
                expected += np.nansum(density)
        assert float(found[number]) == pytest.approx(expected, rel=1e-5)
    plain = log_likelihood(truth, one.drop_attrs(deep=False), operator=op.scale(2.0))
    assert float(plain) == pytest.approx(float(log_likelihood(truth, one)))


def test_log_likelihood_is_the_joint_density_of_errors_that_share_a_part(states: xr.Dataset) -> None:
    truth = states.isel(member=0)
    plain = observe(truth, op.identity(), error=0.5, seed=1)
    step = np.subtract.outer(truth.time.values, truth.time.values)
    biased = with_bias(plain, {"x1": 0.8})
    correlated = observe(truth, op.identity(), error=0.5, seed=1, correlation={"time": 1.0})
    both = with_bias(correlated, {"x1": 0.8})
    own, same = 0.25 * np.eye(5), np.full((5, 5), 0.64)
    exponential = 0.25 * np.exp(-np.abs(step))
    cases = {"biased": (biased, own + same, own), "correlated": (correlated, exponential, exponential)}
    cases["both"] = (both, exponential + same, exponential)
    for data, first, other in cases.values():
        found = log_likelihood(states, data)
        for number in range(3):
            d = {v: (data[v] - states[v][number]).values.astype(float) for v in ("x1", "x2", "x3")}
            expected = stats.multivariate_normal(cov=first).logpdf(d["x1"])
            expected += sum(stats.multivariate_normal(cov=other).logpdf(d[v]) for v in ("x2", "x3"))
            assert float(found[number]) == pytest.approx(expected, rel=1e-5)


def test_there_is_no_density_where_no_state_has_a_value(states: xr.Dataset) -> None:
    seen = observe(states.isel(member=0), op.identity(), error=0.5, seed=1)
    land = states.where(states.time != states.time[1])
    fewer = seen.assign({v: seen[v].where(seen.time != seen.time[1]) for v in ("x1", "x2", "x3")})
    np.testing.assert_allclose(log_likelihood(land, seen), log_likelihood(states, fewer))
    failed = states.where(states.member != 5)
    assert log_likelihood(failed, seen).isnull().values.tolist() == [False, True, False]


def test_states_that_do_not_fit(states: xr.Dataset) -> None:
    assert sdaxr.densities.log_prior is log_prior
    with pytest.raises(OptionError, match="'lorenz96', which has no noise"):
        log_prior(states, "lorenz96")
    with pytest.raises(DataError, match="variable 'x3'"):
        log_prior(states[["x1", "x2"]], TRIPLE)
    with pytest.raises(DataError, match="the states have the step 1, expected 0.5, that of linear"):
        log_prior(states.isel(time=slice(None, None, 2)), TRIPLE)
    with pytest.raises(UnitsError, match="'x1' has units 'K'"):
        log_prior(states.assign(x1=states.x1.assign_attrs(units="K")), TRIPLE)
    with pytest.raises(GridError, match="'x1' has dimensions"):
        log_prior(states.expand_dims(layer=2), TRIPLE)
    with pytest.raises(DataError, match="'x1' has no 'x1_error'"):
        log_likelihood(states, states.isel(member=0)[["x1"]])
