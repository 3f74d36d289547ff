"""What a dynamical system has to offer, and the integrator that the small ones share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from sdaxr.schema import DataError, OptionError

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class System(abc.ABC):
    """A dynamical system with a fixed time between states.

    Subclasses are frozen dataclasses, so that a system can be a key of a cache, travel to a worker and be
    written into an archive's provenance. Their fields are the system's options, each with a default, and one
    of the fields is ``step``, the time between two states.

    A state is a mapping from the names of variables to arrays of the shape that `template` shows.
    """

    name: ClassVar[str] = ""
    references: ClassVar[str] = ""

    step: float = 1.0

    @abc.abstractmethod
    def template(self) -> xr.Dataset:
        """One state full of zeros: names, dtypes, dimensions, coordinates and attributes, without time."""

    @abc.abstractmethod
    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory on the attractor, each variable ``(steps, *space)``.

        The same ``seed`` (0 to 2**64 - 1) gives the same numbers; the spin-up is not part of the result.
        """

    def trajectories(self, steps: int, seeds: Sequence[int]) -> list[State]:
        """`trajectory` for each of the seeds; a system that can compute them at once does so here."""
        return [self.trajectory(steps, seed) for seed in seeds]

    @abc.abstractmethod
    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states after ``state``, each variable ``(steps, *space)``.

        ``seed`` matters only where the system is stochastic.
        """

    @property
    def time_attrs(self) -> dict[str, Any]:
        """Attributes of the time coordinate of this system's states."""
        return {"units": "1", "long_name": "model time", "axis": "T"}

    def options(self) -> dict[str, Any]:
        """The options as numbers and texts, for provenance."""
        return asdict(self)

    def check_state(self, state: Mapping[str, np.ndarray]) -> State:
        """The variables of ``state`` as arrays.

        Raises
        ------
        DataError
            If a variable is missing, or has another shape than in the template.
        """
        template = self.template()
        checked = {}
        for name, variable in template.data_vars.items():
            if name not in state:
                raise DataError(
                    f"the state has the variables {sorted(map(str, state))}, expected "
                    f"{sorted(map(str, template.data_vars))} of {self.name}; rename or add them"
                )
            checked[str(name)] = array = np.asarray(state[str(name)])
            if array.shape != variable.shape:
                raise DataError(
                    f"'{name}' has the shape {array.shape}, expected {variable.shape} {variable.dims} of "
                    f"{self.name}; open the system with the options the state was made with"
                )
        return checked


def require(condition: bool, message: str) -> None:
    """Raise `OptionError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise OptionError(message)


def seed_words(seed: int) -> np.ndarray:
    """The 64 bits of a seed as JAX takes them, (2,)."""
    return np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def rk4(derivative: Callable[[np.ndarray], np.ndarray], state: np.ndarray, step: float) -> np.ndarray:
    """One step of the classical fourth-order Runge-Kutta method."""
    k1 = derivative(state)
    k2 = derivative(state + step / 2 * k1)
    k3 = derivative(state + step / 2 * k2)
    k4 = derivative(state + step * k3)
    following: np.ndarray = state + step / 6 * (k1 + 2 * (k2 + k3) + k4)
    return following
