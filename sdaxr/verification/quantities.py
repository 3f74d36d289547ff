r"""Test quantities: numbers that are computed alike of the truth and of each member of its posterior.

==================  ==============================================================================================
``state``           state variables at some times and places
``mean``            mean of a state variable over the trajectory
``energy``          half the mean square of a state variable, as a deviation from the mean of its trajectory
``observed``        H(x) at some times and places of the observations
``log_likelihood``  log p(y | x)
==================  ==============================================================================================

Ranks are uniform for every quantity where the posterior is exact. Quantities that depend on the data, such as the
log-likelihood, find faults that no quantity of the state alone finds, such as a posterior that ignores the observations
(Modrák et al. 2023, doi:10.1214/23-BA1404, arXiv:2211.02383).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import observed_variables
from sdaxr.operators import Operator
from sdaxr.schema import MEMBER, TIME, DataError, OptionError, check_least, nearest
from sdaxr.verification.densities import log_likelihood

KINDS = ("state", "mean", "energy", "observed", "log_likelihood")
# Members of a filter are draws at each time, but no trajectories: only these are theirs.
OF_ONE_TIME = ("state", "observed")
Points = int | Mapping[str, Sequence[int]]
_Where = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Quantities:
    """The quantities of one calibration: the same for all of its truths.

    Attributes
    ----------
    kinds
        Some of `KINDS`.
    states, observed
        Positions by variable: the indices along each dimension, in the states and in the output of the operator.
    operator, every, start
        The operator, and which of the times of its output are observed.
    """

    kinds: tuple[str, ...]
    states: Mapping[str, _Where]
    observed: Mapping[str, _Where]
    operator: Operator
    every: int = 1
    start: int = 0

    @classmethod
    def choose(
        cls,
        kinds: Iterable[str] | None,
        points: Points,
        truth: xr.Dataset,
        observations: xr.Dataset,
        operator: Operator,
        seed: int,
    ) -> Quantities:
        """The quantities that are asked for.

        Parameters
        ----------
        kinds
            Some of `KINDS`, None for all.
        points
            Number of random positions of each variable, or the positions of the states: indices along each dimension,
            as many for each.
        truth, observations
            A truth and its observations; positions are those with a value.
        operator
            The observation operator.
        seed
            Seed of the random positions.

        Raises
        ------
        OptionError
            If a kind does not exist, or ``points`` are no positions of the states.
        """
        wanted = KINDS if kinds is None else tuple(dict.fromkeys(kinds))
        for kind in wanted:
            if kind not in KINDS:
                raise OptionError(f"unknown quantity {nearest(kind, KINDS)}")
        if not wanted:
            raise OptionError(f"found no quantities, expected some of {', '.join(KINDS)}")
        random = np.random.default_rng([seed, 2])
        if not isinstance(points, Mapping):
            check_least("points", points, 1)
            number = points
            states = {str(n): _random_places(v, points, random) for n, v in truth.data_vars.items()}
        else:
            states = {str(n): _given_places(v, points) for n, v in truth.data_vars.items()}
            number = max(len(indices) for where in states.values() for indices in where.values())
        how = {key: int(observations.attrs[key]) for key in ("every", "start")}
        projected = _observed(operator.apply(truth), **how)
        seen = {n: _random_places(projected[n], number, random) for n in observed_variables(observations)}
        return cls(wanted, states, seen, operator, **how)

    @property
    def labels(self) -> xr.Dataset:
        """Coordinates along ``quantity``: its name, its kind and its variable."""
        rows = list(self._rows())
        columns = dict(zip(("quantity", "quantity_kind", "quantity_variable"), zip(*rows, strict=True), strict=True))
        titles = dict(zip(columns, ("test quantity", "kind of the quantity", "variable of the quantity"), strict=True))
        named = {k: ("quantity", np.array(v, object), {"long_name": titles[k]}) for k, v in columns.items()}
        return xr.Dataset(coords=named)

    def of(self, states: xr.Dataset, observations: xr.Dataset) -> np.ndarray:
        """The quantities of trajectories ([member], time, ...), shape ([member], quantity), in float64."""
        leading = [MEMBER] if MEMBER in states.dims else []
        found: list[np.ndarray] = []
        if "state" in self.kinds:
            found += [_at(states[name], where, leading) for name, where in self.states.items()]
        if "mean" in self.kinds:
            found += [_moment(states[name], leading, 1)[..., None] for name in self._moving]
        if "energy" in self.kinds:
            found += [_moment(states[name], leading, 2)[..., None] / 2 for name in self._moving]
        if "observed" in self.kinds:
            projected = _observed(self.operator.apply(states), self.every, self.start)
            found += [_at(projected[name], where, leading) for name, where in self.observed.items()]
        if "log_likelihood" in self.kinds:
            density = log_likelihood(states, observations, operator=self.operator)
            found.append(density.transpose(*leading).values[..., None])
        return np.concatenate(found, axis=-1).astype(np.float64)

    @property
    def _moving(self) -> list[str]:
        """The state variables without the parameters, which are their own mean and do not move."""
        return [name for name, where in self.states.items() if where]

    def _rows(self) -> Iterable[tuple[str, str, str]]:
        if "state" in self.kinds:
            yield from ((label, "state", name) for name, where in self.states.items() for label in _names(name, where))
        for kind in ("mean", "energy"):
            if kind in self.kinds:
                yield from ((f"{kind} of {name}", kind, name) for name in self._moving)
        if "observed" in self.kinds:
            for name, where in self.observed.items():
                yield from ((f"H(x): {label}", "observed", name) for label in _names(name, where))
        if "log_likelihood" in self.kinds:
            yield "log-likelihood", "log_likelihood", ""


def _names(variable: str, where: _Where) -> list[str]:
    """Labels of positions: the index of the time, then those of the places."""
    count = max((len(i) for i in where.values()), default=1)
    texts = []
    for n in range(count):
        parts = [str(i[n]) if dim == TIME else f"{dim} {i[n]}" for dim, i in where.items()]
        texts.append(f"{variable}[{', '.join(parts)}]" if parts else variable)
    return texts


def _random_places(variable: xr.DataArray, number: int, random: np.random.Generator) -> _Where:
    """Positions with a value, at random, without repetition, in their order."""
    there = np.flatnonzero(np.isfinite(variable.values))
    if not len(there):
        raise DataError(f"'{variable.name}' of the truth has no value, expected some; leave the variable out")
    chosen = np.sort(random.choice(there, min(number, len(there)), replace=False))
    indices = np.unravel_index(chosen, variable.shape) if variable.ndim else ()
    return dict(zip(map(str, variable.dims), indices, strict=True))


def _given_places(variable: xr.DataArray, points: Mapping[str, Sequence[int]]) -> _Where:
    dims = list(map(str, variable.dims))
    if not dims:  # a parameter
        return {}
    lengths = {len(v) if isinstance(v, Sequence) and not isinstance(v, str) else -1 for v in points.values()}
    if set(points) != set(dims) or len(lengths) != 1 or lengths & {0, -1}:
        raise OptionError(
            f"found points={dict(points)}, expected lists of indices along {', '.join(dims)} for '{variable.name}', as "
            "many for each; or a number of random positions"
        )
    for dim in dims:
        for index in points[dim]:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < variable.sizes[dim]:
                raise OptionError(
                    f"found the index {index!r} along '{dim}' in points=, expected 0 to {variable.sizes[dim] - 1}"
                )
    where = {dim: np.asarray(points[dim]) for dim in dims}
    if not np.isfinite(_at(variable, where, [])).all():
        raise OptionError(f"found points= where '{variable.name}' of the truth is NaN, expected places with a value")
    return where


def _at(variable: xr.DataArray, where: _Where, leading: list[str]) -> np.ndarray:
    values = variable.transpose(*leading, *where).values
    index: tuple[Any, ...] = (..., *where.values()) if where else (..., None)
    return np.asarray(values[index])


def _moment(variable: xr.DataArray, leading: list[str], power: int) -> np.ndarray:
    """Mean over all but the members, or mean square of the deviations from it; NaN (land) is left out."""
    double = variable.astype(np.float64)
    rest: Any = [d for d in double.dims if d not in leading]
    found = double.mean(rest) if power == 1 else double.var(rest)
    return np.asarray(found.transpose(*leading).values)


def _observed(projected: xr.Dataset, every: int, start: int) -> xr.Dataset:
    """The observed times of the output of an operator."""
    return projected.isel({TIME: slice(start, None, every)}) if TIME in projected.dims else projected
