"""Truths of a calibration: windows of trajectories, draws of a system, or draws of the prior itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import xarray as xr

from sdaxr.archives.configuration import HASH
from sdaxr.archives.paths import Location
from sdaxr.inference.unconditional import draw_prior
from sdaxr.posterior.samplers.base import Sampler
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.schema import TIME, DataError, OptionError, check_least, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.inputs import as_dataset
from sdaxr.states.names import named_time
from sdaxr.systems.base import System
from sdaxr.systems.registry import open_system, systems

PRIOR = "prior"


class Truths(Protocol):
    """Where truths come from; small enough to be sent to a worker."""

    def draw(self, number: int, seed: int) -> xr.Dataset:
        """Truth ``number``, on (time, ...)."""
        ...

    def describe(self) -> str:
        """What determines the truths, for the provenance."""
        ...


@dataclass(frozen=True)
class Windows:
    """Windows of trajectories that do not overlap.

    Attributes
    ----------
    data
        The trajectories, ([trajectory], time, ...); they may be lazy.
    places
        Number of the trajectory, and the first state, of each truth.
    steps
        Number of states in a window.
    """

    data: xr.Dataset
    places: tuple[tuple[int, int], ...]
    steps: int

    @classmethod
    def of(cls, data: xr.Dataset, count: int, steps: int | None, default: int | None) -> Windows:
        """``count`` windows of the test trajectories, or of all where there is no split.

        Each trajectory gives its first window before any gives a second one. ``default`` is the number of states where
        ``steps`` is not given; without both, a window is a whole trajectory.

        Raises
        ------
        DataError
            If there is no time, or there are fewer windows than asked for.
        """
        data = named_time(as_dataset(data, "the truth"))
        if TIME not in data.dims or TIME not in data.coords:
            raise DataError(f"the truth has the dimensions {list(data.sizes)}, expected 'time' with a coordinate")
        dim, chosen = ensemble_dimension(data), [0]
        if dim is not None:
            chosen = list(range(data.sizes[dim]))
            if "split" in data.coords:
                chosen = np.flatnonzero(data["split"].values == "test").tolist()
        length = steps or min(default or data.sizes[TIME], data.sizes[TIME])
        each = data.sizes[TIME] // length
        if count > each * len(chosen):
            raise DataError(
                f"found {each * len(chosen)} windows of {length} states in {len(chosen)} trajectories "
                f"{'of the test split ' if 'split' in data.coords else ''}of {data.sizes[TIME]} states, expected "
                f"{count}, one for each truth; ask for fewer truths= or steps=, or simulate more trajectories"
            )
        # As far apart as they can be: windows of one trajectory are then as independent as they can be.
        rounds = -(-count // len(chosen))
        starts = np.linspace(0, data.sizes[TIME] - length, rounds).astype(int).tolist() if rounds > 1 else [0]
        places = [(trajectory, first) for first in starts for trajectory in chosen]
        return cls(data, tuple(places[:count]), length)

    def draw(self, number: int, seed: int) -> xr.Dataset:
        """Window ``number``, in memory."""
        del seed
        trajectory, first = self.places[number]
        dim = ensemble_dimension(self.data)
        found = self.data if dim is None else self.data.isel({dim: trajectory})
        found = found.isel({TIME: slice(first, first + self.steps)})
        return found.drop_vars([n for n in found.coords if n not in found.dims and not found[n].dims]).load()

    def describe(self) -> str:
        """The source of the trajectories, and the places of the windows."""
        source = {k: str(self.data.attrs[k]) for k in ("title", HASH) if k in self.data.attrs}
        return json.dumps({"windows": self.places, "steps": self.steps} | source)


@dataclass(frozen=True)
class Simulated:
    """Trajectories of a system, each from a first state of its own."""

    system: System
    steps: int

    def draw(self, number: int, seed: int) -> xr.Dataset:
        """A trajectory of the system."""
        del number
        fields, state = self.system.trajectory(self.steps, seed), self.system.template()
        time = (TIME, np.arange(self.steps) * self.system.step, self.system.time_attrs)
        constant = self.system.constants
        variables = {
            n: (v.dims, fields[str(n)][0], v.attrs) if n in constant else ((TIME, *v.dims), fields[str(n)], v.attrs)
            for n, v in state.data_vars.items()
        }
        return xr.Dataset(variables, dict(state.coords) | {TIME: time})

    def describe(self) -> str:
        """The system with its options."""
        options = self.system.options()
        return json.dumps({"system": self.system.name, "options": options, "steps": self.steps}, sort_keys=True)


@dataclass(frozen=True)
class Drawn:
    """Samples of a prior without observations, by its sampler."""

    prior: str | Location | Prior
    steps: int
    sampler: Sampler
    device: str
    precision: str

    @cached_property
    def _opened(self) -> Prior:
        return open_prior(self.prior)

    def draw(self, number: int, seed: int) -> xr.Dataset:
        """A trajectory of the prior."""
        del number
        how = {"device": self.device, "precision": self.precision}
        return draw_prior(self._opened, self.steps, sampler=self.sampler, seed=seed, **how)

    def describe(self) -> str:
        """The prior with its sampler."""
        return json.dumps({"prior": self._opened.sha256, "steps": self.steps, "sampler": self.sampler.to_dict()})


def truths_of(
    truth: xr.Dataset | str | System,
    count: int,
    steps: int | None,
    *,
    prior: Prior | None,
    drawn: Any,
) -> Truths:
    """Where the truths come from, as `sdaxr.calibrate` describes it.

    Parameters
    ----------
    truth
        Trajectories, a system or its name, or ``"prior"``.
    count, steps
        Number of truths, and of states in each.
    prior
        The opened prior, or None where there is a system instead.
    drawn
        Function of the number of states: the draws of the prior.

    Raises
    ------
    OptionError, DataError
        If there is no such truth, or there are too few windows.
    """
    window = None if prior is None else prior.window
    if steps is not None:
        check_least("steps", steps, 1)
    if not isinstance(truth, str | System):
        return Windows.of(truth, count, steps, window)
    if truth == PRIOR and prior is None:
        raise OptionError("found truth='prior' without prior=, expected a prior; or name a system as the truth")
    if isinstance(truth, str) and truth not in (PRIOR, *systems()):
        raise OptionError(f"truth={nearest(truth, [PRIOR, *systems()])} Or pass trajectories as a Dataset")
    length = steps or window
    if length is None:
        raise OptionError("found no steps=, expected the number of states of a truth")
    found: Truths = drawn(length) if truth == PRIOR else Simulated(open_system(truth), length)
    return found
