r"""Latent assimilation: the analyses of a filter, made in the space of a few patterns.

Empirical orthogonal functions E (Lorenz 1956) of states that the system visits are the patterns that explain most of
their variance. In units of their standard deviations :math:`s`, and of the size of each field, deviations from the mean
of the forecast have the coefficients

.. math:: c = \frac{E^T (x - \bar x)}{s}, \qquad H'(c) = H(\bar x + E (s c)) .

A filter that knows only c and H' (Amendola et al. 2021, with patterns in the place of a network) corrects few numbers,
which an ensemble knows better than many, and which are uncorrelated in the climatology: filters with isotropic noise
then share what observations say among all elements. What it changes is added to the states,

.. math:: x \leftarrow x + E (s\, (c_a - c)),

so that what the patterns do not span stays that of the forecast. With all patterns, filters that are linear in the
ensemble give what they give without.

References
----------
.. [1] Lorenz, E. N. (1956). Empirical orthogonal functions and statistical weather prediction. MIT Statistical
   Forecasting Project, Report 1
.. [2] Amendola, M. et al. (2021). Data assimilation in the latent space of a convolutional autoencoder.
   doi:10.1007/978-3-030-77977-1_30
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.archives.paths import Location
from sdaxr.archives.reading import open_archive
from sdaxr.filters.base import Drawn
from sdaxr.filters.ensemble import EnsembleFilter, EnsembleMethod, Forecast, Update, first_of, forward
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.state_space import StateObservation, StateSpaceModel
from sdaxr.posterior.methods import METHODS, Method
from sdaxr.schema import TIME, OptionError
from sdaxr.states.validation import Count
from sdaxr.systems.layout import channels_of, system_layout

# Patterns with a smaller fraction of the largest standard deviation are rounding errors.
_LEAST = 1e-6


@dataclass(frozen=True)
class Latent(EnsembleMethod):
    """Any ensemble filter in the space of empirical orthogonal functions (Amendola et al. 2021).

    doi:10.1007/978-3-030-77977-1_30, with patterns in the place of a network. Any system, operators and errors that the
    filter takes.

    Parameters
    ----------
    filter
        The filter: a name, an object or a mapping of options, such as ``{"name": "ensf", "scale": 1}``, without
        localisation. The coefficients of the patterns have the standard deviation 1 in the climatology. Default:
        `ETKF`.
    modes
        Number of patterns. None: all.
    trajectories
        States of which the patterns are, such as training data: variables of the system on any further dimensions; or
        the path of their archive. None: the first ensemble.
    """

    name: ClassVar[str] = "latent"

    filter: Any = field(default=ETKF(), metadata={"registry": METHODS})
    modes: Count | None = None
    trajectories: xr.Dataset | str | Location | None = field(default=None, metadata={"file": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        found = self.filter.name if isinstance(self.filter, Method) else self.filter
        if not isinstance(self.filter, EnsembleFilter):
            raise OptionError(
                f"found filter={found!r} for Latent, expected an ensemble filter such as 'etkf' or 'ensf'"
            )
        if getattr(self.filter, "localisation", None) is not None:
            raise OptionError(
                f"found filter={found!r} with localisation for Latent, expected one without: patterns have no place"
            )

    @property
    def distribution(self) -> str:
        """The members at a time know the observations until this time."""
        return "filtering"

    def resolve(self) -> Latent:
        """The method with the trajectories as a Dataset, so that the result records their values and not their path."""
        if self.trajectories is None or isinstance(self.trajectories, xr.Dataset):
            return self
        return replace(self, trajectories=open_archive(self.trajectories))

    def continued(self, about: Mapping[str, Any]) -> Latent:
        """The method with the filter that goes on where a result with the attributes ``about`` ends."""
        return replace(self, filter=self.filter.continued(about))

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if the filter cannot use the observations, or there are fewer patterns than asked for."""
        if self.filter.gaussian:
            super().check(model, members)
        self.filter.check(model, members)
        self._patterns(model)

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """The ensemble at each time, (members, time, n), given the observations until then."""
        del members
        adaptive = {key: getattr(self.filter, key) for key in ("adaptive", "adaptive_first")}
        return forward(model, _Encoded(filter=self.filter, patterns=self._patterns(model), **adaptive), seed)

    def _patterns(self, model: StateSpaceModel) -> Patterns:
        data = self.resolve().trajectories
        if isinstance(data, xr.Dataset):
            whose, layout = "trajectories", system_layout(model.system)
            if layout.space and layout.scalars:
                raise OptionError(
                    f"trajectories= of latent are for fields alone, found the scalars {list(layout.scalars)} beside "
                    "them in the state; leave trajectories= out for patterns of the first ensemble"
                )
            states = layout.to_array(_listed(data, layout.sizes)).reshape(-1, model.system.size).astype(float)
        else:
            whose, states = "first ensemble", first_of(model)
        found = Patterns.of(states, channels_of(model.system))
        if self.modes is not None and self.modes > len(found.rows):
            raise OptionError(
                f"found modes={self.modes} for latent, expected at most {len(found.rows)}, the patterns of the "
                f"{len(states)} states of the {whose}; ask for fewer, or give more states as trajectories="
            )
        return found.leading(self.modes)


def _listed(data: xr.Dataset, space: Mapping[str, int]) -> xr.Dataset:
    """States on any dimensions but those of ``space`` as states of different times, which need no labels."""
    more = [dim for dim in data.dims if dim not in space]
    unlabelled = data.drop_vars([name for name, coord in data.coords.items() if not set(more).isdisjoint(coord.dims)])
    return unlabelled.stack(listed=more, create_index=False).rename(listed=TIME) if more else data


@dataclass(frozen=True)
class Patterns:
    """Empirical orthogonal functions, in units of their standard deviations.

    Attributes
    ----------
    rows
        E s, what a state has of each pattern where the coefficient is 1; shape (modes, n).
    inverse
        What gives the coefficients of deviations, shape (n, modes).
    """

    rows: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray, channels: int) -> Patterns:
        """All patterns of states (count, n), the leading ones first; each of the fields has the same weight."""
        away = states - states.mean(0)
        sizes = np.sqrt((away.reshape(len(away), channels, -1) ** 2).mean((0, 2)))
        unit = np.repeat(np.where(sizes > 0, sizes, 1.0), away.shape[1] // channels)
        _, roots, vectors = np.linalg.svd(away / unit / np.sqrt(max(1, len(away) - 1)), full_matrices=False)
        kept = roots > _LEAST * roots.max(initial=0.0)
        deviations, vectors = roots[kept, None], vectors[kept]
        return cls(deviations * vectors * unit, (vectors / deviations / unit).T)

    def leading(self, modes: int | None) -> Patterns:
        """The first of them; all for None."""
        return Patterns(self.rows[:modes], self.inverse[:, :modes])


@dataclass(frozen=True)
class _Encoded(EnsembleFilter):
    """A filter of coefficients of patterns: `Latent` with its patterns."""

    filter: Any = None
    patterns: Any = None

    def analyse(self, forecast: Forecast) -> Update:
        """What the filter changes in the coefficients, as patterns."""
        patterns, mean, seen = self.patterns, forecast.states.mean(0), forecast.observation
        origin, rows = torch.from_numpy(mean), torch.from_numpy(np.ascontiguousarray(patterns.rows))

        def predicted(coefficients: Tensor) -> Tensor:
            return seen.operator(origin + coefficients @ rows)

        def encoded(states: np.ndarray) -> np.ndarray:
            coefficients: np.ndarray = (states - mean) @ patterns.inverse
            return coefficients

        observation = StateObservation(predicted, seen.values, seen.errors)
        before = None if forecast.previous is None else encoded(forecast.previous)
        inner = Forecast(encoded(forecast.states), observation, None, forecast.random, before, len(rows))
        update = self.filter.analyse(inner)

        def corrected(states: np.ndarray) -> np.ndarray:
            coefficients = encoded(states)
            moved: np.ndarray = states + (update(coefficients) - coefficients) @ patterns.rows
            return moved

        return corrected

    def inflated(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The ensemble ``after`` an analysis, (members, n), with the inflation of the filter."""
        inflated: np.ndarray = self.filter.inflated(before, after)
        return inflated
