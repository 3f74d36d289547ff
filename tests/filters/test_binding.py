"""State-space models from labelled observations: what is told, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from chains import TRIPLE, Ring, truth_of
from filtered import LENGTH, QUIET, model_of

from sdaxr import operators as op
from sdaxr.filters.binding import build_model
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, OperatorError
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.lorenz96 import Lorenz96


def joined(fields):
    return {name: x - x.roll(1, dims=-1) for name, x in fields.items()}


@pytest.mark.parametrize("operator", [op.time_difference(), op.coarsen(2, dims="time"), op.function(joined)], ids=repr)
def test_observations_of_several_times_are_refused(operator: op.Operator) -> None:
    seen = observe(truth_of(TRIPLE, LENGTH, 1), operator, error=0.1)
    with pytest.raises(OperatorError, match="at several times jointly, expected an operator that acts on each state"):
        smooth(seen, TRIPLE, operator=operator, times=0.5 * np.arange(LENGTH), **QUIET)


def test_errors_correlated_in_time_are_refused() -> None:
    seen = observe(truth_of(TRIPLE, LENGTH, 1), op.select("x1"), error=0.1, correlation={"time": 0.5})
    with pytest.raises(OperatorError, match="errors that are not correlated in time"):
        smooth(seen, TRIPLE, **QUIET)


@pytest.mark.parametrize("system", [Ring(), Lorenz63(spin_up=100)], ids=lambda s: s.name)
def test_first_states_that_are_nearly_alike_tell_operators_of_several_times(system: System) -> None:
    first = system.initial(1, seed=0) + 1e-6 * np.random.default_rng(0).normal(size=(5, system.size))
    seen = observe(truth_of(system, 4, 1), op.time_difference(), error=0.1)
    with pytest.raises(OperatorError, match="at several times jointly"):
        model_of(system, {"seen": seen}, 4, first=first)


@pytest.mark.parametrize("system", [Lorenz96(), Lorenz63(spin_up=100)], ids=lambda s: s.name)
def test_fill_values_are_refused_whatever_the_first_states_are(system: System) -> None:
    """A narrow first ensemble does not tell what is natural; the variety in space, or the model in time, does."""
    first = system.initial(1, seed=0) + 1e-3 * np.random.default_rng(0).normal(size=(5, system.size))
    seen = observe(truth_of(system, 40, 1), op.identity(), error=0.5)
    model_of(system, {"seen": seen}, 40, first=first)
    name = next(iter(seen.data_vars))
    bad = seen.copy(deep=True)
    bad[name].values.flat[-1] = -9999.0
    with pytest.raises(DataError, match="= -9999 at .* standard deviations from the system's mean"):
        model_of(system, {"seen": bad}, 40, first=first)


def test_places_of_networks_without_a_coordinate_are_missing() -> None:
    truth, axis = truth_of(Ring(), 2, 1), system_layout(Ring()).times(0.0, 2)
    total = op.function(lambda fields: {"total": fields["x"].sum(-1)}, dims={"total": ("time",)})
    operators = {"sites": op.identity(), "whole": total}
    networks = {name: observe(truth, operator, error=1.0) for name, operator in operators.items()}
    model, _ = build_model(networks, operators, Ring(), axis)
    np.testing.assert_array_equal(model.observations[0].places["site"], [0, 1, 2, 3, np.nan])


ALIKE = [op.subsample(2), op.coarsen(2) >> op.arctan(), op.points({"site": [1.5, 6.0]})]


@pytest.mark.parametrize("operator", ALIKE, ids=repr)
def test_an_operator_that_is_alike_at_all_times_sees_each_state(operator: op.Operator) -> None:
    """As the operator sees the trajectory: with gaps, and observations in another order than the states."""
    system = Lorenz96()
    truth = truth_of(system, 6, 1)
    seen = observe(truth, operator, error=0.5, missing=0.4, seed=2).isel(time=[4, 0, 3, 5])
    axis, first = system_layout(system).times(0.0, 6), system.initial(3, 0)
    model, _ = build_model({"seen": seen}, {"seen": operator}, system, axis, first=first)
    assert operator.steady
    whole, states, values = operator.apply(truth).x.values, truth.x.values.astype(float), np.full((6, 40), np.nan)
    values[[4, 0, 3, 5], : seen.x.shape[1]] = seen.x.values
    for index, observation in enumerate(model.observations):
        there = np.flatnonzero(np.isfinite(values[index]))
        if observation is None:
            assert not there.size
            continue
        np.testing.assert_array_equal(observation.values, values[index, there])
        predicted = observation.predict(states[index : index + 1])
        np.testing.assert_allclose(predicted[0], whole[index, there], rtol=1e-5)


@pytest.mark.parametrize("operator", [op.coarsen(1, dims="time"), op.region(time=(0.0, 0.25))], ids=repr)
def test_an_operator_along_time_is_bound_to_each_state(operator: op.Operator) -> None:
    system = Lorenz96()
    seen = observe(truth_of(system, 6, 1), operator, error=0.5)
    axis, first = system_layout(system).times(0.0, 6), system.initial(3, 0)
    model, _ = build_model({"seen": seen}, {"seen": operator}, system, axis, first=first)
    assert not operator.steady and not (op.identity() >> operator).steady
    np.testing.assert_array_equal([o.values for o in model.observations], seen.x.values)
