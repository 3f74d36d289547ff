"""Single analyses of ensemble filters: observations without labels, and members as quantiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats
from torch import Tensor

from sdaxr.filters.ensemble import EnsembleFilter, Forecast
from sdaxr.filters.state_space import ObservationErrors, StateObservation


def seen(operator: Callable[[Tensor], Tensor], values, std, family: str = "gaussian") -> StateObservation:
    """Observations of one state with independent errors of one family."""
    y, error = np.atleast_1d(np.asarray(values, float)), np.atleast_1d(np.asarray(std, float))
    return StateObservation(operator, y, ObservationErrors(np.broadcast_to(error, y.shape), np.full(y.size, family)))


def analysed(method: EnsembleFilter, states: np.ndarray, observation: StateObservation, **about) -> np.ndarray:
    """The ensemble (members, n) after one analysis."""
    forecast = Forecast(states, observation, about.pop("points", None), np.random.default_rng(0), **about)
    return method.analyse(forecast)(states[None])[0]


def quantiles(members: int) -> np.ndarray:
    """Members of N(0, 1) without noise of sampling, of variance 1 (divisor N - 1), shape (members, 1)."""
    x = stats.norm.ppf((np.arange(members) + 0.5) / members)
    return (x / x.std(ddof=1))[:, None]
