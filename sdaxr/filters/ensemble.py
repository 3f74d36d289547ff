r"""What ensemble methods share: first states, forecasts by any system, analyses in sequence, and what is left over.

An ensemble of N members stands for a Gaussian distribution with its mean and its covariance :math:`X^T X / (N - 1)`,
where the rows of X are the deviations of the members from their mean. Any system moves the members; nothing is needed
but its next states. A method is a subclass of `EnsembleFilter` in a file of its own, whose `analyse` says how the
observations of one state change the ensemble.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr

from sdaxr.archives.seeds import unit_seed
from sdaxr.filters.advancing import advanced
from sdaxr.filters.base import Drawn, ModelMethod
from sdaxr.filters.inflation import adapted_factor, relaxed_to_perturbations, relaxed_to_spread
from sdaxr.filters.localisation import Points
from sdaxr.filters.state_space import StateObservation, StateSpaceModel
from sdaxr.observations.window import background_ensemble
from sdaxr.schema import TIME, DataError, OptionError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.validation import Factor, Positive, Share
from sdaxr.systems.base import System
from sdaxr.systems.layout import channels_of, system_layout

Update = Callable[[np.ndarray], np.ndarray]
"""A function of ensembles, (..., members, n) to the same shape, which an analysis applies to the states of any time."""

ADAPTIVE = "adaptive_inflation"
"""Attribute of results: the last factor of adaptive inflation, its mean over the points."""


@dataclass(frozen=True)
class Forecast:
    """The ensemble before an analysis, and the observations that it is compared with.

    Attributes
    ----------
    states
        Shape (members, n).
    observation
        Observations of this state, m of them.
    points
        Where the points of the grid are; None for methods without localisation.
    random
        Source of random numbers.
    previous
        The ensemble after the analysis before, or the first one, shape (members, n). None: as ``states``.
    channels
        Number of parts of a state vector, as long as each other, whose values are of one size each.
    """

    states: np.ndarray
    observation: StateObservation
    points: Points | None
    random: np.random.Generator
    previous: np.ndarray | None = None
    channels: int = 1

    @cached_property
    def predicted(self) -> np.ndarray:
        """Observed quantities of the members, H(x), shape (members, m)."""
        return self.observation.predict(self.states)

    @property
    def innovation(self) -> np.ndarray:
        """Observations minus the mean of the predicted quantities, shape (m,)."""
        difference: np.ndarray = self.observation.values - self.predicted.mean(0)
        return difference

    @property
    def deviations(self) -> np.ndarray:
        """Deviations of the predicted quantities from their mean, shape (members, m)."""
        deviations: np.ndarray = self.predicted - self.predicted.mean(0)
        return deviations

    @property
    def whitened(self) -> tuple[np.ndarray, np.ndarray]:
        """Deviations Y, (members, m), and innovation d, (m,), such that the errors are uncorrelated of variance 1."""
        return self.observation.errors.whiten(self.deviations), self.observation.errors.whiten(self.innovation)


@dataclass
class FirstGuess:
    """Statistics of first guesses, the predicted quantities before each analysis, in units of the observation errors.

    ``first_guess_innovation`` is the root of the mean square of the innovations d (observation minus ensemble mean),
    ``first_guess_spread`` that of the standard deviations s of the ensemble, and ``first_guess_consistency`` the root
    of the mean of :math:`d^2 / (s^2 + e^2)`: 1 where ensemble and errors e say how large innovations are, more where
    the ensemble is too narrow.
    """

    _sums: np.ndarray = field(default_factory=lambda: np.zeros(4))

    def add(self, forecast: Forecast) -> None:
        """Add the first guess of one analysis."""
        error = forecast.observation.errors.std
        innovation = forecast.innovation / error
        variance = (forecast.deviations**2).sum(0) / (len(forecast.predicted) - 1) / error**2
        parts = innovation**2, variance, innovation**2 / (1 + variance), np.ones(error.size)
        self._sums += [part.sum() for part in parts]

    @property
    def about(self) -> dict[str, float]:
        """The statistics, for the attributes of the result; none where nothing was observed."""
        if not self._sums[-1]:
            return {}
        names = (f"first_guess_{name}" for name in ("innovation", "spread", "consistency"))
        return dict(zip(names, np.sqrt(self._sums[:-1] / self._sums[-1]).tolist(), strict=True))


@dataclass(frozen=True)
class EnsembleMethod(ModelMethod):
    """A method that moves an ensemble by any system; the first ensemble is that of the model."""

    markov: ClassVar[bool] = False
    gaussian: ClassVar[bool] = True

    def continued(self, about: Mapping[str, Any]) -> Self:
        """The method that goes on where a result with the attributes ``about`` ends."""
        del about
        return self

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error unless there is an ensemble, and the observations are those that the method needs."""
        super().check(model, members)
        if members < 2:
            raise OptionError(f"method={self.name!r} needs at least 2 members, found members={members}")


@dataclass(frozen=True)
class EnsembleFilter(EnsembleMethod):
    r"""A filter: forecasts and analyses in turn. The options are those of inflation, which every filter has.

    Parameters
    ----------
    inflation
        Factor on the deviations from the mean after each analysis (Anderson & Anderson 1999,
        doi:10.1175/1520-0493(1999)127<2741:AMCIOT>2.0.CO;2).
    rtps
        Relaxation of the spread to that before the analysis, 0 to 1 (`sdaxr.filters.inflation`).
    rtpp
        Relaxation of the deviations to those before the analysis, 0 to 1.
    adaptive
        Adaptive inflation before each analysis: how far the factor on the variance of the forecast, which the
        innovations tell, may move from one analysis to the next, one standard deviation (Miyoshi 2011,
        doi:10.1175/2010MWR3570.1). With localisation, each point has a factor. None: none.
    adaptive_first
        This factor before the first analysis.
    """

    # Whether the update of an analysis may be applied to states of other times, which a smoother does.
    transfers: ClassVar[bool] = True

    inflation: Factor = 1.0
    rtps: Share = 0.0
    rtpp: Share = 0.0
    adaptive: Positive | None = None
    adaptive_first: Factor = 1.0

    @property
    def distribution(self) -> str:
        """The members at a time know the observations until this time."""
        return "filtering"

    def points(self, model: StateSpaceModel) -> Points | None:
        """Where the points of the grid are; None for methods without localisation."""
        del model
        return None

    @abstractmethod
    def analyse(self, forecast: Forecast) -> Update:
        """How the observations of one state change the ensemble of this state, before inflation."""

    def weights(self, forecast: Forecast) -> np.ndarray:
        """How much each observation counts at each point, (points, m); without localisation, at all as one."""
        return np.ones((1, forecast.observation.values.size))

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """The ensemble at each time, (members, time, n), given the observations until then."""
        del members
        return forward(model, self, seed)

    def adapted(self, forecast: Forecast, factor: np.ndarray) -> tuple[Forecast, np.ndarray]:
        """The forecast with its variance times the factors of adaptive inflation, (points,), and the next factors."""
        if self.adaptive is None:
            return forecast, factor
        deviations, innovation = forecast.whitened
        if forecast.points is not None:
            # What is whitened has no place.
            error = forecast.observation.errors.std
            deviations, innovation = forecast.deviations / error, forecast.innovation / error
        variances = (deviations**2).sum(0) / (len(deviations) - 1)
        later = adapted_factor(factor, self.adaptive, innovation**2, variances, self.weights(forecast))
        wide = factor if forecast.points is None else forecast.points.spread(factor)
        mean = forecast.states.mean(0)
        return replace(forecast, states=mean + np.sqrt(wide) * (forecast.states - mean)), later

    def continued(self, about: Mapping[str, Any]) -> Self:
        """The method with the adaptive inflation that a result with the attributes ``about`` ends with."""
        return self if ADAPTIVE not in about else replace(self, adaptive_first=float(about[ADAPTIVE]))

    def inflated(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The ensemble ``after`` an analysis, (members, n), with relaxation and inflation."""
        after = relaxed_to_perturbations(before, after, self.rtpp) if self.rtpp else after
        after = relaxed_to_spread(before, after, self.rtps) if self.rtps else after
        mean: np.ndarray = after.mean(0)
        return after if self.inflation == 1 else mean + self.inflation * (after - mean)


@dataclass(frozen=True)
class LocalFilter(EnsembleFilter):
    """A filter with localisation.

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `EnsembleFilter`.
    localisation
        Half of the distance beyond which observations do not act, in the units of the coordinates, km on the sphere
        (`sdaxr.filters.localisation`). None: they act everywhere.
    """

    localisation: Positive | None = None

    def points(self, model: StateSpaceModel) -> Points | None:
        """Where the points of the grid are; None without localisation."""
        return None if self.localisation is None else Points.of(model.system)

    def weights(self, forecast: Forecast) -> np.ndarray:
        """How much each observation counts at each point, (points, m): the taper of their distance."""
        if self.localisation is None or forecast.points is None:
            return super().weights(forecast)
        return forecast.points.tapers(forecast.observation.places, self.localisation)

    def tapers(self, forecast: Forecast) -> tuple[np.ndarray, np.ndarray]:
        """Tapers of elements of the state and observations, (n, m), and among observations, (m, m); else 1 and 1."""
        points, half = forecast.points, self.localisation
        if half is None or points is None:
            return np.ones(()), np.ones(())
        places = forecast.observation.places
        return points.spread(points.tapers(places, half)), points.tapers_among(places, half)

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if grid or observations have no places, and as the base class."""
        super().check(model, members)
        points = self.points(model)
        for observation in model.observations:
            if points is not None and observation is not None:
                points.known(observation.places)


def check_independent(model: StateSpaceModel, method: str) -> None:
    """Raise `OptionError` if the errors of some observations of one state are correlated."""
    for observation in model.observations:
        errors = None if observation is None else observation.errors
        if errors is not None and (errors.correlation is not None or errors.shared is not None):
            raise OptionError(
                f"method={method!r} is for independent errors, found correlated errors or a bias of a source; use "
                "method='etkf' or 'enkf', or drop the attributes of the errors to treat them as independent"
            )


def forward(model: StateSpaceModel, method: EnsembleFilter, seed: int, lag: int = 0) -> Drawn:
    """Run a filter over the window; each analysis changes the states of the last ``lag`` steps, too.

    Raises
    ------
    DivergenceError
        If a member is not finite.
    """
    random, first = np.random.default_rng([seed, 4]), first_of(model)
    points = method.points(model)
    paths, factor = np.empty((len(model), *first.shape)), np.full(points.count if points else 1, method.adaptive_first)
    paths[0], statistics, time, last, channels = first, FirstGuess(), 0, 0, channels_of(model.system)
    for index, observation in enumerate(model.observations):
        if observation is None and index + 1 < len(model):
            continue
        if index > time:
            paths[time + 1 : index + 1] = advanced(model, paths[time], index - time, random, time)
        time = index
        if observation is not None:
            forecast = Forecast(paths[index], observation, points, random, paths[last], channels)
            forecast, factor = method.adapted(forecast, factor)
            statistics.add(forecast)
            since, before = max(0, index - lag), forecast.states.copy()
            paths[index] = before
            paths[since : index + 1] = method.analyse(forecast)(paths[since : index + 1])
            paths[index] = method.inflated(before, paths[index])
            last = index
    adaptive = {} if method.adaptive is None else {ADAPTIVE: float(factor.mean())}
    return Drawn(paths.swapaxes(0, 1), statistics.about | adaptive)


def first_of(model: StateSpaceModel) -> np.ndarray:
    """The first states of the ensemble, (members, n)."""
    if model.first is None:
        raise OptionError("ensemble methods need first states, found a model without; pass first= to build_model")
    return np.array(model.first, float)


def first_ensemble(
    background: xr.Dataset | None, system: System, times: xr.DataArray, members: int, seed: int
) -> np.ndarray:
    """First states of an ensemble, (members, n): those of the background where it has members, else draws.

    Raises
    ------
    DataError, GridError, UnitsError
        If the background is not one of the first time, on the grid of the system, and with as many members.
    """
    found = None if background is None else background_ensemble(background, times)
    if found is None:
        return system.initial(members, unit_seed(seed))
    dim = ensemble_dimension(found)
    if found.sizes[dim] != members:
        count = found.sizes[dim]
        raise DataError(f"the background has {count} members, expected members={members}; pass members={count}")
    layout = system_layout(system)
    data = layout.conform(found.isel({TIME: 0}, drop=True), model=system.name)
    states = {n: data[n].transpose(dim, *layout.dims(n)).values for n in layout.variables}
    for name, values in states.items():
        if not np.isfinite(values).all():
            raise DataError(f"'{name}' of the background has values that are not finite, expected complete states")
    return system.to_vectors(states)
