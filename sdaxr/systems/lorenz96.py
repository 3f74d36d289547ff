r"""Lorenz's model of 1996: an atmospheric quantity on a circle of latitude.

.. math:: \dot x_i = (x_{i+1} - x_{i-2}) x_{i-1} - d x_i + F

The model is deterministic and, with the forcing F = 8, chaotic. The quadratic term conserves the energy
:math:`\sum_i x_i^2 / 2`. All quantities are dimensionless.

References
----------
.. [1] Lorenz, E. N. (1996). Predictability: a problem partly solved. ECMWF Seminar on Predictability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from sdaxr.states.validation import Number, Points, Positive, SpinUp, Steps
from sdaxr.systems.base import State, System, rk4


@dataclass(frozen=True)
class Lorenz96(System):
    """Lorenz 1996; states are ``x(site)``.

    Parameters
    ----------
    step
        Time between two states. Lorenz (1996) compares 0.05 with six hours in the atmosphere.
    sites
        Number of sites on the circle.
    forcing
        Forcing F. The model is chaotic from about F = 4.5 on.
    damping
        Coefficient d of the linear damping.
    substeps
        Steps of the integrator between two states.
    spin_up
        States that are dropped at the start of each trajectory.
    """

    name: ClassVar[str] = "lorenz96"
    references: ClassVar[str] = "Lorenz, E. N. (1996), Predictability: a problem partly solved"
    parameters: ClassVar[Mapping[str, str]] = {"forcing": "1", "damping": "1"}

    step: Positive = 0.05
    sites: Points = 40
    forcing: Number = 8.0
    damping: Number = 1.0
    substeps: Steps = 1
    spin_up: SpinUp = 400

    def template(self) -> xr.Dataset:
        """One state of zeros with its labels."""
        attrs = {"units": "1", "long_name": "site on the circle", "periodic": 1, "period": float(self.sites)}
        return xr.Dataset(
            {
                "x": (
                    "site",
                    np.zeros(self.sites, np.float32),
                    {"units": "1", "long_name": "atmospheric quantity"},
                )
            },
            {"site": ("site", np.arange(self.sites, dtype=float), attrs)},
        )

    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory that starts from the forcing plus N(0, 1) noise, after the spin-up; ``(steps, site)``."""
        start = self.forcing + np.random.default_rng(seed).standard_normal(self.sites)
        return {"x": self._states(start, self.spin_up + steps)[self.spin_up :].astype(np.float32)}

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states, ``(steps, site)``. The seed is not used."""
        del seed
        return {"x": self._states(np.asarray(self.check_state(state)["x"], float), steps).astype(np.float32)}

    def initial(self, count: int, seed: int) -> np.ndarray:
        """Independent states: the forcing plus N(0, 1) noise, after the spin-up; shape (count, site)."""
        x = self.forcing + np.random.default_rng(seed).standard_normal((count, self.sites))
        first: np.ndarray = self._states(x, self.spin_up + 1)[-1]
        return first

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        """The next ``steps`` states after each state, (count, site) to (steps, count, site), in double precision."""
        del random
        return self._states(np.asarray(x, float), steps)

    def of_members(self, values: Mapping[str, np.ndarray]) -> Lorenz96:
        """The system for several states at once, each with its own forcing or damping, (count,)."""
        columns: dict[str, Any] = {name: value[:, None] for name, value in values.items()}
        return replace(self, **columns)

    def _states(self, x: np.ndarray, steps: int) -> np.ndarray:
        """The next ``steps`` states after each state, (..., site) to (steps, ..., site)."""
        states = np.empty((steps, *x.shape))
        for i in range(steps):
            for _ in range(self.substeps):
                x = rk4(self._derivative, x, self.step / self.substeps)
            states[i] = x
        return states

    def _derivative(self, x: np.ndarray) -> np.ndarray:
        # Three views of one padded copy are several times faster than three calls of np.roll.
        padded = np.concatenate([x[..., -2:], x, x[..., :1]], axis=-1)
        advection = (padded[..., 3:] - padded[..., :-3]) * padded[..., 1:-2]
        slope: np.ndarray = advection - self.damping * x + self.forcing
        return slope
