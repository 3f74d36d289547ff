"""The base class of dynamical systems, and the integrator of the small ones."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from sdaxr.archives.seeds import unit_seed
from sdaxr.schema import DataError, OptionError
from sdaxr.states.registry import convert_fields
from sdaxr.states.validation import Positive

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class System(abc.ABC):
    """A dynamical system with a fixed time between states.

    Subclasses are frozen dataclasses: a system can be a key of a cache, be sent to a worker, and be recorded in the
    provenance of an archive. The fields are the options of the system, and each has a default. A state is a mapping
    from the names of the variables to arrays, whose shapes are those of `template`; or a vector of length n, the
    flattened variables, in the order of the template.

    Parameters
    ----------
    step
        Time between two states, in the units of `time_attrs`.

    Attributes
    ----------
    name
        Name of the system.
    references
        Sources, for the attributes of its trajectories.
    parameters
        Options that may be unknown, one value for each trajectory (`sdaxr.systems.augmented`), with their units.
    symmetries
        Transformations that leave the law of the trajectories as it is, in the form of
        `sdaxr.prior.symmetries.bind_symmetries`; for `Prior.with_symmetries`.
    """

    name: ClassVar[str] = ""
    references: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, str]] = {}
    symmetries: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    step: Positive = 1.0

    def __post_init__(self) -> None:
        # A parameter with a value for each of several states is an array (`of_members`).
        arrays = [field.name for field in fields(self) if isinstance(getattr(self, field.name), np.ndarray)]
        convert_fields(self, but=arrays)

    @abc.abstractmethod
    def template(self) -> xr.Dataset:
        """One state of zeros, without time, with the dtypes, dimensions, coordinates and attributes of all states."""

    @abc.abstractmethod
    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory on the attractor, after the spin-up; each variable ``(steps, *space)``.

        The same ``seed`` (0 to 2**64 - 1) gives the same trajectory.
        """

    def trajectories(self, steps: int, seeds: Sequence[int]) -> list[State]:
        """The `trajectory` of each seed. A system that computes several at once overrides this method."""
        return [self.trajectory(steps, seed) for seed in seeds]

    @abc.abstractmethod
    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states after ``state``, each variable ``(steps, *space)``.

        ``seed`` is used where the system is stochastic.
        """

    def initial(self, count: int, seed: int) -> np.ndarray:
        """Independent draws of the first state of a trajectory as vectors, shape (count, n)."""
        drawn = self.trajectories(1, [unit_seed(seed, number) for number in range(count)])
        return np.concatenate([self.to_vectors(each) for each in drawn])

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        """The next ``steps`` states after each of several state vectors, (count, n) to (steps, count, n).

        ``random`` is used where the system is stochastic. A system that computes several at once overrides this
        method; here one follows the other.
        """
        seeds = random.integers(2**63, size=len(x))
        paths = [self.advance(self.from_vectors(each), steps, int(seed)) for each, seed in zip(x, seeds, strict=True)]
        return np.stack([self.to_vectors(path) for path in paths], axis=1)

    def of_members(self, values: Mapping[str, np.ndarray]) -> System | None:
        """The system for several state vectors at once, each with its own parameters ``values``, (count,) each.

        Its `advance_ensemble` takes ``count`` state vectors. None where each needs a system of its own.
        """
        del values
        return None

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the variables that are the same in all states of a trajectory."""
        return ()

    @property
    def stochastic(self) -> bool:
        """Whether the next state is random, given the present one."""
        return False

    @property
    def size(self) -> int:
        """Length n of a state vector."""
        return sum(variable.size for variable in self.template().data_vars.values())

    def to_vectors(self, states: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors (..., n) in float64 from variables ``(..., *space)``."""
        parts = []
        for name, variable in self.template().data_vars.items():
            array = np.asarray(states[str(name)], float)
            parts.append(array.reshape(*array.shape[: array.ndim - variable.ndim], variable.size))
        return np.concatenate(parts, axis=-1)

    def from_vectors(self, x: np.ndarray) -> State:
        """Variables ``(..., *space)``, in the floating point type of the template, from vectors (..., n)."""
        template = self.template().data_vars
        ends = np.cumsum([variable.size for variable in template.values()])[:-1]
        parts = np.split(x, ends, axis=-1)
        return {
            str(name): part.reshape((*x.shape[:-1], *variable.shape)).astype(variable.dtype)
            for (name, variable), part in zip(template.items(), parts, strict=True)
        }

    @property
    def time_attrs(self) -> dict[str, Any]:
        """Attributes of the time coordinate of this system's states."""
        # No axis T, which CF reserves for times since a date.
        return {"units": "1", "long_name": "model time"}

    def options(self) -> dict[str, Any]:
        """The options as numbers, texts and tuples, for the provenance."""
        return asdict(self)

    def check_state(self, state: Mapping[str, np.ndarray]) -> State:
        """The variables of ``state`` as arrays.

        Raises
        ------
        DataError
            If a variable is missing, or its shape is not that of the template.
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
                    f"{self.name}; open the system with the options with which the state was made"
                )
        return checked


def require(condition: bool, message: str) -> None:
    """Raise `OptionError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise OptionError(message)


def seed_words(seed: int) -> np.ndarray:
    """The 64 bits of a seed as two words of 32, the form of a key in JAX; shape (2,)."""
    return np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def rk4(derivative: Callable[[np.ndarray], np.ndarray], state: np.ndarray, step: float) -> np.ndarray:
    """The state after one step of the classical fourth-order Runge-Kutta method."""
    k1 = derivative(state)
    k2 = derivative(state + step / 2 * k1)
    k3 = derivative(state + step / 2 * k2)
    k4 = derivative(state + step * k3)
    following: np.ndarray = state + step / 6 * (k1 + 2 * (k2 + k3) + k4)
    return following
