r"""Kolmogorov flow: two-dimensional turbulence, forced by a sinusoidal shear, on a doubly periodic square.

.. math::
    \dot u = -u \cdot \nabla u + \frac{1}{Re} \nabla^2 u - \nabla p + f, \qquad \nabla \cdot u = 0, \qquad
    f = F \sin(k y) e_x - \alpha u

All quantities are dimensionless. The solver is the finite-volume solver of JAX-CFD, on ``resolution`` x ``resolution``
cells of :math:`[0, 2\pi]^2`, or of a square ``extent`` times as wide. The defaults are the settings of Rozet & Louppe
(2023). The velocities of the solver lie on the faces of the cells and are indexed ``[x, y]``. The velocities of a state
are means over the two faces of each cell, averaged over ``coarsen`` x ``coarsen`` cells, and indexed ``[y, x]``.

Divergence. The net flux through the faces of each cell vanishes. On the grid of the solver (``coarsen=1``), the
divergence of the cell-centred velocity by central differences, each smoothed with ``[1, 2, 1] / 4`` across (a Sobel
stencil), then vanishes to rounding. Coarse means do not commute with this stencil: after coarsening, a divergence of
the size of the unresolved scales remains (one per cent of the vorticity at the default settings).

References
----------
.. [1] Rozet, F. & Louppe, G. (2023). Score-based Data Assimilation. arXiv:2306.10574
.. [2] Kochkov, D. et al. (2021). Machine learning-accelerated computational fluid dynamics.
   doi:10.1073/pnas.2101784118
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import xarray as xr

from sdaxr.states.validation import Cells, Number, Points, Positive, SpinUp, Wavenumber
from sdaxr.systems.base import State, seed_words
from sdaxr.systems.refinement import refine
from sdaxr.systems.square import Square

if TYPE_CHECKING:
    from jax import Array
    from jax_cfd.base.grids import GridVariableVector

_UNIT = 2 * math.pi


@dataclass(frozen=True)
class Kolmogorov(Square):
    """Kolmogorov flow; states are ``u(y, x)`` and ``v(y, x)``.

    Parameters
    ----------
    step
        Time between two states. It is divided into as many solver steps as stability needs (82 by default).
    resolution
        Cells of the solver's grid along each side, also for forecasts (`advance`). Forecasts from states of 64 x 64
        cells are fast with ``resolution=64, coarsen=1`` or ``resolution=128, coarsen=2``.
    extent
        Side of the domain, in units of 2 pi. With ``resolution`` in proportion, a larger domain has the same small
        scales: viscosity and forcing are those of one unit.
    coarsen
        Cells along each side that are averaged into one cell of a state.
    reynolds
        Reynolds number, the inverse of the viscosity (the density is 1).
    spin_up
        States that are dropped at the start of each trajectory.
    forcing, wavenumber
        Amplitude F and wavenumber k of the forcing.
    drag
        Rate alpha of the linear drag; positive values damp.
    max_velocity, peak_wavenumber
        Largest speed and peak wavenumber of the random initial velocity.
    cfl_velocity
        Speed for which the solver's step has the Courant number 0.5.
    """

    name: ClassVar[str] = "kolmogorov"
    references: ClassVar[str] = "arXiv:2306.10574; doi:10.1073/pnas.2101784118"
    # The viscosity is compiled: with a Reynolds number of its own, each trajectory is.
    parameters: ClassVar[Mapping[str, str]] = {"reynolds": "1"}

    step: Positive = 0.2
    resolution: Points = 256
    coarsen: Cells = 4
    reynolds: Positive = 1e3
    spin_up: SpinUp = 64
    forcing: Number = 1.0
    wavenumber: Wavenumber = 4
    drag: Number = 0.1
    max_velocity: Positive = 3.0
    peak_wavenumber: Positive = 4.0
    cfl_velocity: Positive = 5.0
    extent: Cells = 1

    @property
    def length(self) -> float:
        """Side of the domain."""
        return self.extent * _UNIT

    def template(self) -> xr.Dataset:
        """One state of zeros with its labels."""
        zeros = np.zeros((self.cells, self.cells), np.float32)
        return xr.Dataset(
            {
                "u": (("y", "x"), zeros, {"units": "1", "long_name": "velocity along x"}),
                "v": (("y", "x"), zeros, {"units": "1", "long_name": "velocity along y"}),
            },
            self.centres(units="1"),
        )

    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory from a random initial velocity, after the spin-up; each variable ``(steps, y, x)``."""
        return self._run(_solver(self), steps, seed_words(seed))

    def trajectories(self, steps: int, seeds: Sequence[int]) -> list[State]:
        """The trajectories of the seeds in one computation; each agrees with `trajectory` to rounding."""
        together = self._run(_batched(self), steps, np.stack([seed_words(seed) for seed in seeds]))
        return [{name: values[:, i] for name, values in together.items()} for i in range(len(seeds))]

    def _run(self, solver: _Solver, steps: int, words: np.ndarray) -> State:
        velocity = solver.initial(words)
        for _ in range(self.spin_up):
            velocity = solver.next_state(velocity)
        frames = []
        for _ in range(steps):
            velocity = solver.next_state(velocity)
            frames.append(solver.output(velocity))
        return _stacked(frames)

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states after a cell-centred state; each variable ``(steps, y, x)``. The seed is not used.

        The state is interpolated to the faces of the solver's grid in Fourier space, where the damping by the cell
        means is divided out, and projected onto velocities without divergence. Scales that the grid of the state does
        not resolve start at zero.
        """
        del seed
        solver = _solver(self)
        velocity = solver.project(*self._faces(self.check_state(state)))
        frames = []
        for _ in range(steps):
            velocity = solver.next_state(velocity)
            frames.append(solver.output(velocity))
        return _stacked(frames)

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        """The next ``steps`` states after each state vector in one computation, (count, n) to (steps, count, n)."""
        del random
        solver = _batched(self)
        velocity = solver.project(*self._faces(self.from_vectors(x)))
        states = np.empty((steps, *x.shape))
        for i in range(steps):
            velocity = solver.next_state(velocity)
            states[i] = np.concatenate([np.asarray(c).reshape(len(x), -1) for c in solver.output(velocity)], axis=1)
        return states

    def _faces(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Velocities on the faces of the solver's grid, ``[..., x, y]``, from cell means ``(..., y, x)``."""
        u, v = (np.asarray(state[name], float).swapaxes(-1, -2) for name in ("u", "v"))
        faces = refine(u, self.coarsen, face=0), refine(v, self.coarsen, face=1)
        return faces[0].astype(np.float32), faces[1].astype(np.float32)


@dataclass(frozen=True)
class _Solver:
    """Compiled functions of a velocity, which is a pair of JAX-CFD's `GridVariable`."""

    initial: Callable[[np.ndarray], GridVariableVector]
    project: Callable[[np.ndarray, np.ndarray], GridVariableVector]
    next_state: Callable[[GridVariableVector], GridVariableVector]
    output: Callable[[GridVariableVector], tuple[Array, ...]]


# Cached, so that a worker compiles for its first trajectory only.
@functools.lru_cache(maxsize=4)
def _solver(system: Kolmogorov) -> _Solver:
    # By default, JAX reserves most of the memory of a GPU, which PyTorch needs, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp
    from jax_cfd import base as cfd

    grid = cfd.grids.Grid((system.resolution,) * 2, domain=((0, system.length),) * 2)
    periodic = cfd.boundaries.periodic_boundary_conditions(2)
    viscosity = 1 / system.reynolds
    stable = min(
        cfd.advection.stable_time_step(system.cfl_velocity, 0.5, grid),
        cfd.diffusion.stable_time_step(viscosity, grid),
    )
    substeps = math.ceil(system.step / stable)
    shear = cfd.forcings.kolmogorov_forcing(grid, scale=system.forcing, k=system.wavenumber)
    drag = cfd.forcings.linear_forcing(grid, -system.drag)

    # The sum of forcings in JAX-CFD calls jax.tree_map, which recent versions of JAX do not have.
    def forcing(velocity: GridVariableVector) -> GridVariableVector:
        return tuple(a + b for a, b in zip(shear(velocity), drag(velocity), strict=True))

    substep = cfd.equations.semi_implicit_navier_stokes(
        density=1.0, viscosity=viscosity, dt=system.step / substeps, grid=grid, forcing=forcing
    )

    @jax.jit
    def initial(words: Array) -> GridVariableVector:
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return cfd.initial_conditions.filtered_velocity_field(key, grid, system.max_velocity, system.peak_wavenumber)

    @jax.jit
    def project(u: Array, v: Array) -> GridVariableVector:
        velocity = cfd.initial_conditions.wrap_variables((u, v), grid, (periodic, periodic))
        return cfd.pressure.projection(velocity)

    @jax.jit
    def output(velocity: GridVariableVector) -> tuple[Array, ...]:
        block = (system.cells, system.coarsen) * 2
        return tuple(
            # The face with index i lies at the upper end of cell i.
            ((c.data + jnp.roll(c.data, 1, axis)) / 2).reshape(block).mean((1, 3)).T
            for axis, c in enumerate(velocity)
        )

    return _Solver(
        initial=initial,
        project=project,
        next_state=jax.jit(cfd.funcutils.repeated(substep, substeps)),
        output=output,
    )


@functools.lru_cache(maxsize=4)
def _batched(system: Kolmogorov) -> _Solver:
    """The functions for several velocities at once."""
    import jax

    one = _solver(system)
    many = {name: jax.jit(jax.vmap(getattr(one, name))) for name in ("initial", "project", "next_state", "output")}
    return replace(one, **many)


def _stacked(frames: list[tuple[Array, ...]]) -> State:
    return {name: np.stack([np.asarray(f[i]) for f in frames]).astype(np.float32) for i, name in enumerate("uv")}
