r"""State-space models from a system and labelled observations.

.. math:: x_{t+1} = f(x_t) + N(0, Q), \qquad y_t = H_t(x_t) + \epsilon_t

The methods of this room work on vectors. This file removes the labels. Observation operators are torch functions of
whole trajectories; here they become functions :math:`H_t` of single states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
import xarray as xr
from torch import Tensor

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.observations.noise import DISTRIBUTION, GAUSSIAN
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.plausibility import implausible_values
from sdaxr.observations.repeats import without_repeats
from sdaxr.observations.screening import DUPLICATE, Screening
from sdaxr.operators import Bound, Operator, Template, compose
from sdaxr.operators.base import steps_of
from sdaxr.operators.locations import Locations
from sdaxr.operators.measurements import Measurements
from sdaxr.posterior.mixture import log_density
from sdaxr.schema import TIME, DataError, OperatorError, OptionError
from sdaxr.states.time import nearest_times
from sdaxr.systems.layout import system_layout
from sdaxr.systems.markov import MarkovChain

_DRAWS = 32  # trajectories by which implausible observations are told; their standard deviation is known to an eighth


@dataclass(frozen=True)
class ObservationErrors:
    """The distribution of observation errors: N(0, R), or independent errors of other families.

    Attributes
    ----------
    std
        Standard deviation of each error, the square root of the diagonal of R; shape (m,).
    families
        Name of the family of each error (`sdaxr.observations.noise`), shape (m,).
    correlation
        Correlation of Gaussian errors, shape (m, m); None where the errors are independent, or ``shared`` is R.
    shared
        R of errors that are independent but for biases of their sources; None for other errors.
    """

    std: np.ndarray
    families: np.ndarray
    correlation: np.ndarray | None = None
    shared: SharedCovariance | None = None

    @property
    def gaussian(self) -> bool:
        """Whether all errors are Gaussian."""
        return bool((self.families == GAUSSIAN).all())

    @property
    def covariance(self) -> np.ndarray:
        """R, shape (m, m)."""
        if self.shared is not None:
            return self.shared.dense().numpy()
        return np.diag(self.std**2) if self.correlation is None else self.std[:, None] * self.correlation * self.std

    def whiten(self, values: np.ndarray) -> np.ndarray:
        """Values (..., m) such that their errors become uncorrelated, with unit variance."""
        if self.shared is not None:
            return self.shared.whiten(torch.from_numpy(np.require(values, requirements=["C", "W"]))).numpy()
        scaled: np.ndarray = values / self.std
        return scaled if self.correlation is None else scaled @ np.linalg.inv(self._root).T

    def log_density(self, innovation: np.ndarray) -> np.ndarray:
        """Log-density of errors, (..., m) to (...)."""
        normalisation = np.log(self.std).sum()
        if self.shared is not None:
            normalisation = self.shared.log_determinant / 2
        elif self.correlation is not None:
            normalisation += np.log(np.diag(self._root)).sum()
        white = self.whiten(innovation)
        density: np.ndarray
        if self.gaussian:
            density = -(white**2).sum(-1) / 2 - len(self.std) / 2 * math.log(2 * math.pi)
        else:
            density = np.sum([log_density(white[..., i], family) for i, family in enumerate(self.families)], axis=0)
        return density - float(normalisation)

    @classmethod
    def of(cls, points: ObservedPoints) -> ObservationErrors:
        """The errors of observations, as their attributes describe them."""
        return cls(points.errors, points.families, points.correlation, points.shared)

    @classmethod
    def joined(cls, parts: Sequence[ObservationErrors]) -> ObservationErrors:
        """The errors of several networks; errors of different networks are independent."""
        std, families = (np.concatenate(arrays) for arrays in zip(*((p.std, p.families) for p in parts), strict=True))
        if all(part.shared is None and part.correlation is None for part in parts):
            return cls(std, families)
        if all(part.correlation is None for part in parts):
            shared = [SharedCovariance.of(p.std**2, None) if p.shared is None else p.shared for p in parts]
            return cls(std, families, shared=SharedCovariance.joined(shared))
        blocks = [part.covariance / np.outer(part.std, part.std) for part in parts]
        return cls(std, families, scipy.linalg.block_diag(*blocks))

    @cached_property
    def _root(self) -> np.ndarray:
        return np.linalg.cholesky(self.covariance / np.outer(self.std, self.std))


@dataclass(frozen=True)
class StateObservation:
    """Observations of one state: y = H(x) + error.

    Attributes
    ----------
    operator
        H: states (count, n) to observed quantities (count, m), float64, differentiable.
    values
        y, shape (m,).
    errors
        Distribution of the errors.
    """

    operator: Callable[[Tensor], Tensor]
    values: np.ndarray
    errors: ObservationErrors

    def predict(self, x: np.ndarray) -> np.ndarray:
        """H of states, (count, n) to (count, m)."""
        with torch.no_grad():
            return self.operator(torch.from_numpy(np.require(x, requirements=["C", "W"]))).numpy()

    def tangent(self, x: np.ndarray) -> np.ndarray:
        """Derivative of H, (count, n) to (count, m, n)."""
        states = torch.from_numpy(np.require(x, requirements=["C", "W"])).requires_grad_()
        # H of one state does not depend on the other states, so that the sum over the states can be differentiated.
        sums = self.operator(states).sum(0)
        rows = [torch.autograd.grad(total, states, retain_graph=True)[0] for total in sums]
        return torch.stack(rows, dim=1).numpy()

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """log p(y | x) of states, (count, n) to (count,)."""
        return self.errors.log_density(self.values - self.predict(x))


@dataclass(frozen=True)
class StateSpaceModel:
    """A Markov chain and its observations.

    Attributes
    ----------
    system
        The Markov chain.
    times
        Times of the states, shape (time,).
    observations
        Observations of each state, one entry for each time; None where there are none.
    """

    system: MarkovChain
    times: xr.DataArray
    observations: tuple[StateObservation | None, ...]

    def __len__(self) -> int:
        return len(self.observations)

    def check_gaussian(self, method: str) -> None:
        """Raise `OptionError` if the errors of some observation are not Gaussian."""
        for observation in self.observations:
            if observation is not None and not observation.errors.gaussian:
                found = sorted(set(observation.errors.families.tolist()))
                raise OptionError(
                    f"method={method!r} is for Gaussian errors, found {', '.join(found)}; use method='ffbs', or drop "
                    f"the attribute '{DISTRIBUTION}' of the errors to treat them as Gaussian"
                )


def build_model(
    networks: Mapping[str, xr.Dataset],
    operators: Mapping[str, Operator],
    system: MarkovChain,
    times: xr.DataArray,
    screening: Screening | None = None,
) -> tuple[StateSpaceModel, list[Mapping[str, np.ndarray]]]:
    """The state-space model of a system on ``times`` and networks of observations.

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
    how = Screening() if screening is None else screening
    parts: list[list[StateObservation]] = [[] for _ in range(times.size)]
    seen: dict[str, ObservedPoints] = {}
    climate = _climate(system, times.size)
    for name, data in networks.items():
        whole = _Network.of(data, operators[name], system, times, how)
        whole = replace(whole, points=without_repeats(whole.points, seen, how))
        _check_plausible(whole, climate)
        split = _by_time(name, _used(data, whole.points), operators[name], whole, times, how)
        for index, part in split if whole.points.count else ():
            parts[index].append(part)
        seen[name] = whole.points
    if not any(points.count for points in seen.values()):
        raise DataError(f"{list(seen)} have no finite observation in the window; check their times, values and flags")
    return StateSpaceModel(system, times, tuple(map(_joined, parts))), [points.status for points in seen.values()]


def _climate(system: MarkovChain, length: int) -> np.ndarray:
    """Trajectories that know nothing of the observations, flattened, (draws, length * n)."""
    states = [system.initial(_DRAWS, seed=0)]
    noise = system.draw_noise(np.random.default_rng(0), _DRAWS * (length - 1)).reshape(length - 1, _DRAWS, -1)
    for each in noise:
        states.append(system.transition_mean(states[-1]) + each)
    return np.stack(states, axis=1).reshape(_DRAWS, -1)


def _check_plausible(network: _Network, climate: np.ndarray) -> None:
    """Raise `DataError` where an observation is implausible for the trajectories ``climate`` of the system."""
    if not network.points.count:
        return
    length = climate.shape[1] // network.system.size
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
    return StateObservation(
        lambda x: torch.cat([part.operator(x) for part in parts], dim=1),
        np.concatenate([part.values for part in parts]),
        ObservationErrors.joined([part.errors for part in parts]),
    )


def _by_time(
    name: str, data: xr.Dataset, operator: Operator, whole: _Network, times: xr.DataArray, screening: Screening
) -> Iterator[tuple[int, StateObservation]]:
    """The observations of one network by state: pairs of the index of the state and its observations."""
    system = whole.system
    observed = whole.places(times.values)
    split = {}
    for index in sorted(set(observed)):
        # Two states, because times are compared in units of their step, and one state has no step.
        first = max(0, min(index, times.size - 2))
        pair = times[first : first + 2]
        seen = _Network.of(data, _dropping(operator), system, pair, replace(screening, outside="drop"))
        split[index] = seen.select(seen.places(pair.values) == index - first).observation(index - first, pair.size)
    _check_split(name, operator, whole, split, system, times.size)
    yield from split.items()


def _dropping(operator: Operator) -> Operator:
    """The operator, with measurements at other times dropped instead of refused."""
    steps = (replace(s, outside="drop") if isinstance(s, Locations | Measurements) else s for s in steps_of(operator))
    return compose(*steps)


@dataclass(frozen=True)
class _Network:
    """A network of observations of the states of a system.

    Attributes
    ----------
    system
        The system.
    bound
        The operator, bound to the times of the states.
    points
        The observations.
    """

    system: MarkovChain
    bound: Bound
    points: ObservedPoints

    @classmethod
    def of(
        cls, data: xr.Dataset, operator: Operator, system: MarkovChain, times: xr.DataArray, screening: Screening
    ) -> _Network:
        """The observations in ``data`` of states at ``times``."""
        bound = operator.bind(Template.from_dataset(system_layout(system).template(times)))
        return cls(system, bound, ObservedPoints.of(data, bound.template, screening, times))

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
        """The same with the observations for which ``chosen``, shape (n,), is true."""
        return replace(self, points=self.points.select(chosen))

    def observation(self, index: int | None, length: int) -> StateObservation:
        """Observations of state ``index`` among ``length`` states; of flattened trajectories for ``index=None``."""
        where = {name: torch.from_numpy(i) for name, i in self.points.where.items() if len(i)}
        shapes = {str(n): v.shape for n, v in self.system.template().data_vars.items()}
        sizes = [math.prod(shape) for shape in shapes.values()]

        def operator(x: Tensor) -> Tensor:
            # Operators act on trajectories. A trajectory of equal states is a view, which costs no memory.
            states = x[:, None].expand(-1, length, -1) if index is not None else x.unflatten(1, (length, -1))
            parts = zip(shapes.items(), states.split(sizes, dim=2), strict=True)
            out = self.bound(
                {name: part.unflatten(2, shape) if shape else part[..., 0] for (name, shape), part in parts}
            )
            return torch.cat([out[name].reshape(len(x), -1)[:, i] for name, i in where.items()], dim=1).double()

        errors = ObservationErrors.of(self.points)
        return StateObservation(operator, self.points.values, errors)


def _check_split(
    name: str,
    operator: Operator,
    whole: _Network,
    split: Mapping[int, StateObservation],
    system: MarkovChain,
    length: int,
) -> None:
    """Raise `OperatorError` unless the likelihood of a trajectory is the product of those of its states."""
    if sum(part.values.size for part in split.values()) != whole.points.count:
        raise _combines_times(name, operator)
    states = system.initial(2 * length, seed=0).reshape(2, length, -1)
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
