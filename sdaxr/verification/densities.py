"""Log-densities: of trajectories under a system, and of observations given trajectories.

Members of the exact posterior have the distribution of the truth, given the observations. The expectations of both
log-densities are then the same for the members as for the truth.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.filters.state_space import ObservationErrors
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.window import Observations, Operators, as_networks, operator_of
from sdaxr.operators import Template
from sdaxr.schema import DataError, OptionError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.time import same_step, time_axis
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.markov import MarkovChain
from sdaxr.systems.registry import open_system

__all__ = ["log_likelihood", "log_prior"]


def log_prior(states: xr.Dataset, system: str | System) -> xr.DataArray:
    r"""Log-density of trajectories given their first state, :math:`\log p(x_{2:L} | x_1)`.

    Parameters
    ----------
    states
        Trajectories on ([member], time, ...), such as a posterior or a truth, at the system's step.
    system
        Name of a system with Gaussian noise, or a `sdaxr.systems.MarkovChain`.

    Returns
    -------
    xarray.DataArray
        On (member), or without dimensions; in nats, of a density in the units of the states.

    Raises
    ------
    OptionError
        If the system has no Gaussian noise, or noise with a singular covariance.
    DataError, GridError, UnitsError
        If the states are not those of the system, or have another step.
    """
    chain = open_system(system)
    if not isinstance(chain, MarkovChain):
        raise OptionError(
            f"found the system {chain.name!r}, which has no noise, expected a system with a transition density"
        )
    states = system_layout(chain).conform(states, model=f"the system {chain.name!r}")
    step = time_axis(states).step
    if not same_step(step, chain.step):
        raise DataError(
            f"the states have the step {step:g}, expected {chain.step:g}, that of {chain.name}; pass the system with "
            f"step={step:g}"
        )
    template, ensemble = chain.template(), ensemble_dimension(states)
    leading = [] if ensemble is None else [ensemble]
    fields = {str(n): states[n].transpose(*leading, schema.TIME, *v.dims).values for n, v in template.data_vars.items()}
    values = chain.log_transition(chain.to_vectors(fields)).sum(-1)
    return _labelled(values, states, "log_prior", "log-density of the states given the first one")


def log_likelihood(states: xr.Dataset, observations: Observations, *, operator: Operators = None) -> xr.DataArray:
    r"""Log-density of observations given trajectories, :math:`\log p(y | x)`.

    Errors are as the observations describe them: Gaussian or of another family (`sdaxr.observations.noise`),
    independent or correlated (`sdaxr.observations.correlation`), with the biases of their sources integrated out
    (`sdaxr.observations.bias`). Errors of different networks are independent.

    Parameters
    ----------
    states
        Trajectories on ([member], time, ...), such as a posterior or a truth.
    observations
        One network, or several as a mapping or DataTree, as for `sdaxr.assimilate`.
    operator
        Observation operator, or a mapping with one for each network, in the place of the operator that the observations
        carry.

    Returns
    -------
    xarray.DataArray
        On (member), or without dimensions; in nats, of a density in the units of the observations.

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If the observations do not fit the states.
    """
    total = np.zeros(())
    ensemble = ensemble_dimension(states)
    leading = [] if ensemble is None else [str(ensemble)]
    for name, data in as_networks(observations).items():
        projected = operator_of(name, data, operator).apply(states)
        one = projected if ensemble is None else projected.isel({ensemble: 0}, drop=True)
        points = ObservedPoints.of(data, Template.from_dataset(one))
        innovation = points.values - points.predicted(projected, leading)
        # There is no density where no state has a value, as on land.
        there = np.isfinite(innovation).reshape(-1, points.count).any(0)
        total = total + ObservationErrors.of(points.select(there)).log_density(innovation[..., there])
    return _labelled(total, states, "log_likelihood", "log-density of the observations given the states")


def _labelled(values: np.ndarray, states: xr.Dataset, name: str, title: str) -> xr.DataArray:
    ensemble = ensemble_dimension(states)
    dims = () if ensemble is None else (ensemble,)
    coords = {} if ensemble is None or ensemble not in states.coords else {ensemble: states[ensemble]}
    return xr.DataArray(values, coords, dims, name, {"long_name": title, "units": "1"})
