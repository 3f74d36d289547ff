r"""A system together with unknown constants, its parameters, which are part of the state (Anderson 2001).

.. math:: (x_{i+1}, \theta_{i+1}) = (f_{\theta_i}(x_i), \theta_i)

Each trajectory has values of its own, drawn from ranges. An ensemble method estimates the parameters with the state: a
parameter changes in analyses only, through its covariance with what is observed.

References
----------
.. [1] Anderson, J. L. (2001). An ensemble adjustment Kalman filter for data assimilation.
   doi:10.1175/1520-0493(2001)129<2884:AEAKFF>2.0.CO;2
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.seeds import unit_seed
from sdaxr.schema import OptionError, nearest
from sdaxr.systems.base import State, System, require

# Tells the random numbers of the parameters from those of the system, whose seed is the same.
_STREAM = 7


@dataclass(frozen=True)
class Augmented(System):
    """A system with parameters as further, scalar variables of its state.

    Parameters
    ----------
    step
        That of the system, whatever is given.
    system
        The system.
    ranges
        Name of each parameter, and the least and the largest of its values, which are drawn uniformly.

    Raises
    ------
    OptionError
        If there is no such parameter, or a range is none.
    """

    system: System | None = None
    ranges: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self) -> None:
        require(isinstance(self.system, System), f"found system={self.system!r}, expected a System")
        object.__setattr__(self, "step", self.model.step)
        require(bool(self.ranges), f"found no range, expected one of a parameter of {self.name}")
        for name, low, high in self.ranges:
            if name not in self.model.parameters:
                raise OptionError(f"parameter of {self.name}: {nearest(name, self.model.parameters)}")
            require(
                -math.inf < low <= high < math.inf,
                f"found {name}=({low}, {high}), expected the least and the largest value",
            )
            for value in (low, high):
                replace(self.model, **{name: value})  # The system says which values are impossible.

    @classmethod
    def of(cls, system: System, ranges: Mapping[str, Sequence[float]]) -> Augmented:
        """``system`` with the parameters ``{name: (least, largest)}``."""
        for name, pair in ranges.items():
            if len(pair) != 2:
                raise OptionError(f"found {name}={tuple(pair)}, expected the least and the largest value")
        return cls(system=system, ranges=tuple((n, float(pair[0]), float(pair[1])) for n, pair in ranges.items()))

    @classmethod
    def known(cls, system: System, data: xr.Dataset, dims: Sequence[str]) -> System:
        """``system``, with those of its parameters that ``data`` has as variables along ``dims`` at most."""
        names = [n for n in system.parameters if n in data.data_vars and set(data[n].dims) <= set(dims)]
        return cls.of(system, {n: [getattr(system, n)] * 2 for n in names}) if names else system

    @property
    def model(self) -> System:
        """The system."""
        assert self.system is not None
        return self.system

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the system."""
        return self.model.name

    @property
    def references(self) -> str:  # type: ignore[override]
        """Sources of the system."""
        return self.model.references

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(name for name, _, _ in self.ranges)

    @property
    def stochastic(self) -> bool:
        """Whether the system is."""
        return self.model.stochastic

    @property
    def time_attrs(self) -> dict[str, Any]:
        """Those of the system."""
        return self.model.time_attrs

    def options(self) -> dict[str, Any]:
        """Those of the system, with the range of each parameter in the place of its value."""
        return self.model.options() | {name: [low, high] for name, low, high in self.ranges}

    def template(self) -> xr.Dataset:
        """A state of the system, and the parameters as scalars after it."""
        units, zero = self.model.parameters, np.zeros((), np.float32)
        labels = {n: {"units": units[n], "long_name": n.replace("_", " ")} for n in self.constants}
        return self.model.template().assign({n: ((), zero, attrs) for n, attrs in labels.items()})

    def values(self, seed: int) -> dict[str, float]:
        """The parameters of the trajectory of this seed."""
        random = np.random.default_rng([seed, _STREAM])
        return {name: float(random.uniform(low, high)) for name, low, high in self.ranges}

    def trajectory(self, steps: int, seed: int) -> State:
        """The trajectory of the system with the parameters of this seed; each of them ``(steps,)``."""
        values = self.values(seed)
        return replace(self.model, **values).trajectory(steps, seed) | _constant(values, steps)

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states of the system with the parameters of the state."""
        checked = self.check_state(state)
        values = {name: float(checked[name]) for name in self.constants}
        return replace(self.model, **values).advance(checked, steps, seed) | _constant(values, steps)

    def initial(self, count: int, seed: int) -> np.ndarray:
        """Independent draws of parameters, each with a first state of the system that has them; shape (count, n)."""
        rows = []
        for number in range(count):
            own = unit_seed(seed, number)
            values = self.values(own)
            rows.append(np.append(replace(self.model, **values).initial(1, own)[0], list(values.values())))
        return np.stack(rows)

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        """The next ``steps`` states after each state vector, the parameters last, (count, n) to (steps, count, n)."""
        first = x.shape[1] - len(self.ranges)
        states, values = x[:, :first], dict(zip(self.constants, x[:, first:].T, strict=True))
        together = self.model.of_members(values)
        if together is not None:
            later = together.advance_ensemble(states, steps, random)
        else:
            each = [replace(self.model, **{n: float(v[i]) for n, v in values.items()}) for i in range(len(x))]
            later = np.concatenate(
                [one.advance_ensemble(states[i : i + 1], steps, random) for i, one in enumerate(each)], axis=1
            )
        return np.concatenate([later, np.broadcast_to(x[:, first:], (steps, *x[:, first:].shape))], axis=2)


def _constant(values: Mapping[str, float], steps: int) -> State:
    return {name: np.full(steps, value, np.float32) for name, value in values.items()}
