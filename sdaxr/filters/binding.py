"""State-space models from a system and labelled observations.

The methods of this room work on vectors. This file removes the labels. Observation operators are torch functions of
whole trajectories; here they become functions of single states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.filters.localisation import coordinates_of
from sdaxr.filters.state_space import ObservationErrors, StateObservation, StateSpaceModel, markov_chain
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.places import OBS
from sdaxr.observations.plausibility import implausible_values
from sdaxr.observations.repeats import without_repeats
from sdaxr.observations.screening import DUPLICATE, Screening
from sdaxr.operators import Bound, Operator, Template, compose
from sdaxr.operators.base import steps_of
from sdaxr.operators.locations import Locations
from sdaxr.operators.measurements import Measurements
from sdaxr.schema import TIME, DataError, OperatorError
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import nearest_times
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.markov import MarkovChain

_DRAWS = 32  # trajectories by which implausible observations are told; their standard deviation is known to an eighth
_RUN = 64  # states of such a trajectory where scalars are the state, after which it is repeated


def build_model(
    networks: Mapping[str, xr.Dataset],
    operators: Mapping[str, Operator],
    system: System,
    times: xr.DataArray,
    screening: Screening | None = None,
    first: np.ndarray | None = None,
) -> tuple[StateSpaceModel, list[Mapping[str, np.ndarray]]]:
    """The state-space model of a system on ``times`` and networks of observations.

    Parameters
    ----------
    networks, operators
        Observations, and the operator of each network.
    system
        Without ``first``, a Markov chain.
    times
        Times of the states.
    screening
        Which observations are used.
    first
        First states of an ensemble, (members, n). With them there may be no observation at all.

    Returns
    -------
    The model, and for each network the status of its observations by variable.

    Raises
    ------
    DataError, GridError, UnitsError
        If observations do not fit the states of the system, are implausible or there twice, or none is in the window.
    OperatorError
        If an operator cannot be applied, or combines several times.
    """
    how, layout = Screening() if screening is None else screening, system_layout(system)
    parts: list[list[StateObservation]] = [[] for _ in range(times.size)]
    seen: dict[str, ObservedPoints] = {}
    climate = _climate(markov_chain(system), times.size) if first is None else _run(system, first, times.size)
    for name, data in networks.items():
        whole = _Network.of(data, operators[name], layout, times, how)
        whole = replace(whole, points=without_repeats(whole.points, seen, how))
        split = {}
        if whole.points.count:
            split = dict(_by_time(_used(data, whole.points), operators[name], whole, times, how))
            states = _different(climate, times.size) if first is not None else system.initial(2 * times.size, seed=0)
            _check_split(name, operators[name], whole, split, states)
        _check_plausible(whole, climate, times.size)
        for index, part in split.items():
            parts[index].append(part)
        seen[name] = whole.points
    if first is None and not any(points.count for points in seen.values()):
        raise DataError(f"{list(seen)} have no finite observation in the window; check their times, values and flags")
    model = StateSpaceModel(system, times, tuple(map(_joined, parts)), first)
    return model, [points.status for points in seen.values()]


def _climate(system: MarkovChain, length: int) -> np.ndarray:
    """Trajectories that know nothing of the observations, flattened, (draws, length * n)."""
    states = [system.initial(_DRAWS, seed=0)]
    noise = system.draw_noise(np.random.default_rng(0), _DRAWS * (length - 1)).reshape(length - 1, _DRAWS, -1)
    for each in noise:
        states.append(system.transition_mean(states[-1]) + each)
    return np.stack(states, axis=1).reshape(_DRAWS, -1)


def _run(system: System, first: np.ndarray, length: int) -> np.ndarray:
    """Trajectories from the first states that know nothing of the observations, flattened, (draws, length * n).

    Fields vary in space, so that their first states tell what is natural. Scalars vary in time: they move on.
    """
    states = first[None, :_DRAWS]
    if not system_layout(system).space and length > 1:
        later = system.advance_ensemble(states[0], min(length, _RUN) - 1, np.random.default_rng(0))
        states = np.concatenate([states, later])
    return states[np.arange(length) % len(states)].swapaxes(0, 1).reshape(states.shape[1], -1)


def _different(climate: np.ndarray, length: int) -> np.ndarray:
    """States (2 * length, n) of trajectories (draws, length * n) such that neighbours in time differ.

    They are in random order, each by a factor of its own, since the first states may be nearly alike.
    """
    random, states = np.random.default_rng(0), climate.reshape(len(climate) * length, -1)
    chosen: np.ndarray = states[random.integers(len(states), size=2 * length)]
    return chosen * random.uniform(0.8, 1.2, (2 * length, 1))


def _check_plausible(network: _Network, climate: np.ndarray, length: int) -> None:
    """Raise `DataError` where an observation is implausible for the trajectories ``climate`` of the system."""
    if not network.points.count:
        return
    predicted = network.observation(None, length).predict(climate)
    predicted = predicted[np.isfinite(predicted).all(1)]  # a trajectory that diverges tells nothing
    mean, scale = np.full((2, network.points.count), np.nan)
    for name in network.points.where:
        own = network.points.names == name
        if predicted[:, own].size:
            mean[own], scale[own] = predicted[:, own].mean(), max(1e-12, predicted[:, own].std())
    implausible_values(network.points, mean, scale, whose="the system's")


def _used(data: xr.Dataset, points: ObservedPoints) -> xr.Dataset:
    """The observations with NaN in the place of those that are there in another network, too."""
    for name, status in points.status.items():
        if (status == DUPLICATE).any():
            kept = xr.DataArray(status != DUPLICATE, dims=points.template.variables[name].dims)
            data = data.assign({name: data[name].where(kept)})
    return data


def _joined(parts: Sequence[StateObservation]) -> StateObservation | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    none = [np.full(part.values.size, np.nan) for part in parts]
    names = dict.fromkeys(name for part in parts for name in part.places)
    return StateObservation(
        lambda x: torch.cat([part.operator(x) for part in parts], dim=1),
        np.concatenate([part.values for part in parts]),
        ObservationErrors.joined([part.errors for part in parts]),
        {name: np.concatenate([p.places.get(name, n) for p, n in zip(parts, none, strict=True)]) for name in names},
    )


def _by_time(
    data: xr.Dataset, operator: Operator, whole: _Network, times: xr.DataArray, screening: Screening
) -> Iterator[tuple[int, StateObservation]]:
    """The observations of one network by state: pairs of the index of the state and its observations."""
    observed = whole.places(times.values)
    order = np.argsort(observed, kind="stable")
    states, firsts = np.unique(observed[order], return_index=True)
    parts = zip(states.tolist(), np.split(order, firsts[1:]), strict=True)
    if operator.steady:
        # One binding, to the first state, is that of every state.
        bound = operator.bind(Template.from_dataset(whole.layout.template(times[:2])))
        for index, own in parts:
            yield index, whole.select(own).at_first(bound).observation(0, 2)
        return
    for index, own in parts:
        # Two states, because times are compared in units of their step, and one state has no step.
        first = max(0, min(index, times.size - 2))
        pair = times[first : first + 2]
        some, of_some = _restricted(data, operator, whole.points.select(own))
        seen = _Network.of(some, of_some, whole.layout, pair, replace(screening, outside="drop"))
        yield index, seen.select(seen.places(pair.values) == index - first).observation(index - first, pair.size)


def _restricted(data: xr.Dataset, operator: Operator, points: ObservedPoints) -> tuple[xr.Dataset, Operator]:
    """The observations and their operator, of measurements those of ``points``; others are dropped, not refused."""
    *before, last = steps_of(operator)
    if isinstance(last, Measurements) and OBS in data.dims:
        rows = np.unique(np.concatenate([_rows(data, points, name) for name in points.where]))
        own = last.take(rows)
        return data.isel({OBS: rows}).assign_coords({OBS: own.labels}), compose(*before, own)
    steps = (replace(s, outside="drop") if isinstance(s, Locations | Measurements) else s for s in steps_of(operator))
    return data, compose(*steps)


def _rows(data: xr.Dataset, points: ObservedPoints, name: str) -> np.ndarray:
    """Numbers along ``obs`` of the observations of a variable, shape (n,)."""
    dims = points.template.variables[name].dims
    return np.unravel_index(points.source[name], [data.sizes[d] for d in dims])[dims.index(OBS)]


@dataclass(frozen=True)
class _Network:
    """A network of observations of the states of a system.

    Attributes
    ----------
    layout
        Labels of the states.
    bound
        The operator, bound to the times of the states.
    points
        The observations.
    """

    layout: StateLayout
    bound: Bound
    points: ObservedPoints

    @classmethod
    def of(
        cls, data: xr.Dataset, operator: Operator, layout: StateLayout, times: xr.DataArray, screening: Screening
    ) -> _Network:
        """The observations in ``data`` of states at ``times``."""
        bound = operator.bind(Template.from_dataset(layout.template(times)))
        return cls(layout, bound, ObservedPoints.of(data, bound.template, screening, times))

    def places(self, times: np.ndarray) -> np.ndarray:
        """Index among ``times`` of each observation, in the order of the variables; shape (n,)."""
        template, places = self.bound.template, []
        for name, where in self.points.where.items():
            coord, dims = template.coords.get(TIME), template.variables[name].dims
            along = TIME if coord is None or coord.dims is None else coord.dims[0]
            if coord is None or along not in dims:
                raise _combines_times(name)
            position = np.unravel_index(where, template.shape(name))[dims.index(along)]
            places.append(nearest_times(coord.values, times)[0][position])
        return np.concatenate(places)

    def select(self, chosen: np.ndarray) -> _Network:
        """The same with some observations, by truth, shape (n,), or by sorted number."""
        return replace(self, points=self.points.select(chosen))

    def at_first(self, bound: Bound) -> _Network:
        """The same observations at the first of other times, to which ``bound`` is bound."""
        where = {}
        for name, index in self.points.where.items():
            axis = bound.template.variables[name].dims.index(TIME)
            place = list(np.unravel_index(index, self.points.template.shape(name)))
            place[axis] = np.zeros_like(index)
            where[name] = np.ravel_multi_index(place, bound.template.shape(name))
        return replace(self, bound=bound, points=replace(self.points, template=bound.template, where=where))

    def observation(self, index: int | None, length: int) -> StateObservation:
        """Observations of state ``index`` among ``length`` states; of flattened trajectories for ``index=None``."""
        where = {name: torch.from_numpy(i) for name, i in self.points.where.items() if len(i)}
        shapes = {n: tuple(self.layout.sizes[d] for d in self.layout.dims(n)) for n in self.layout.variables}
        sizes = [math.prod(shape) for shape in shapes.values()]

        def operator(x: Tensor) -> Tensor:
            # Operators act on trajectories. A trajectory of equal states is a view, which costs no memory.
            states = x[:, None].expand(-1, length, -1) if index is not None else x.unflatten(1, (length, -1))
            parts = zip(shapes.items(), states.split(sizes, dim=2), strict=True)
            out = self.bound(
                {name: part.unflatten(2, shape) if shape else part[..., 0] for (name, shape), part in parts}
            )
            return torch.cat([out[name].reshape(len(x), -1)[:, i] for name, i in where.items()], dim=1).double()

        return StateObservation(
            operator, self.points.values, ObservationErrors.of(self.points), coordinates_of(self.points)
        )


def _check_split(
    name: str, operator: Operator, whole: _Network, split: Mapping[int, StateObservation], states: np.ndarray
) -> None:
    """Raise `OperatorError` unless the likelihood of a trajectory is the product of those of its states.

    This is tried on two trajectories of the ``states``, (2 * length, n).
    """
    length = len(states) // 2
    if sum(part.values.size for part in split.values()) != whole.points.count:
        raise _combines_times(name, operator)
    states = states.reshape(2, length, -1)
    together = whole.observation(None, length).log_likelihood(states.reshape(2, -1))
    apart = np.sum([part.log_likelihood(states[:, index]) for index, part in split.items()], axis=0)
    if not np.allclose(together, apart, rtol=1e-4, equal_nan=True):
        raise _combines_times(name, operator)


def _combines_times(name: str, operator: Operator | None = None) -> OperatorError:
    through = "" if operator is None else f" through {operator}"
    return OperatorError(
        f"'{name}' is observed{through} at several times jointly, expected an operator that acts on each state by "
        "itself, and errors that are not correlated in time, as those with one bias at several times are: methods that "
        "need a system go forward in time; use a score-based method (sda) for such observations, or observe "
        "measurements between two steps at the nearest one, screening={'time': 'nearest', 'tolerance': ...}"
    )
