r"""Two-layer quasi-geostrophic turbulence on a doubly periodic beta plane.

.. math::
    \partial_t q_i + J(\psi_i, q_i) + U_i \partial_x q_i + Q_{y,i} \partial_x \psi_i
    = -\delta_{i2} r_{ek} \nabla^2 \psi_2, \qquad q_i = \nabla^2 \psi_i + (-1)^i F_i (\psi_1 - \psi_2)

with :math:`F_1 = r_d^{-2} / (1 + \delta)`, :math:`F_2 = \delta F_1`, the background gradients
:math:`Q_{y,i} = \beta - (-1)^i F_i (U_1 - U_2)`, and a filter of the smallest scales in the place of viscosity. The
solver is that of PyQG-JAX: pseudo-spectral, with third-order Adams-Bashforth steps. The defaults of the physical
parameters are those of PyQG-JAX, too. States are anomalies of potential vorticity, means over ``coarsen`` x ``coarsen``
cells. `sdaxr.operators.pv_inversion` derives the streamfunction, the velocities and the vorticity from them.

References
----------
.. [1] Abernathey, R. et al. (2022). PyQG: v0.7.2. doi:10.5281/zenodo.6563667
.. [2] Otness, K. et al. (2024). PyQG-JAX. https://pyqg-jax.readthedocs.io
.. [3] Li, Z., Dong, B. & Zhang, P. (2024). State-observation augmented diffusion model for nonlinear assimilation.
   arXiv:2407.21314
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, ParamSpec, TypeVar

import numpy as np
import xarray as xr
from msgspec import Meta

from sdaxr.states.validation import Cells, NotNegative, Number, Points, Positive
from sdaxr.systems.base import State, require, seed_words
from sdaxr.systems.refinement import refine
from sdaxr.systems.square import Square

if TYPE_CHECKING:
    from jax import Array
    from pyqg_jax.steppers import StepperState

_P = ParamSpec("_P")
_T = TypeVar("_T")

DAY = 86400.0


@dataclass(frozen=True)
class QuasiGeostrophic(Square):
    """Two-layer quasi-geostrophic flow; states are ``q(layer, y, x)``, upper layer first.

    Parameters
    ----------
    step
        Time between two states, in days. It is divided into as many solver steps as stability needs.
    resolution
        Cells of the solver's grid along each side. Li, Dong & Zhang (2024) have 512.
    coarsen
        Cells along each side that are averaged into one cell of a state. Li, Dong & Zhang (2024) have 2.
    spin_up
        Time that is dropped at the start of each trajectory, in years of 365 days.
    length
        Side of the domain, in m.
    rek
        Linear drag in the lower layer, in s-1.
    filterfac
        Amplitude of the spectral filter.
    beta
        Gradient of the Coriolis parameter, in m-1 s-1.
    rd
        Deformation radius, in m.
    delta
        Ratio of the layers' thicknesses, upper to lower.
    H1
        Thickness of the upper layer, in m. The flow does not depend on it, only on ``delta``; budgets do.
    U1, U2
        Background flow along x in the layers, in m s-1.
    cfl_velocity
        Speed, in m s-1, for which the solver's step has the Courant number 0.5.
    precision
        ``"single"`` or ``"double"``. Potential vorticity is always inverted in double precision.
    """

    name: ClassVar[str] = "quasigeostrophic"
    references: ClassVar[str] = "doi:10.5281/zenodo.6563667; arXiv:2407.21314"

    step: Positive = 1.0
    resolution: Points = 128
    coarsen: Cells = 2
    spin_up: Annotated[float, Meta(ge=0, le=1e4)] = 5.0
    length: Positive = 1e6
    rek: NotNegative = 5.787e-7
    filterfac: NotNegative = 23.6
    beta: Number = 1.5e-11
    rd: Positive = 15e3
    delta: Positive = 0.25
    H1: Positive = 500.0
    U1: Number = 0.025
    U2: Number = 0.0
    cfl_velocity: Positive = 1.0
    precision: str = "single"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.precision in ("single", "double"), f"found precision={self.precision!r}, expected 'single' or 'double'"
        )

    @property
    def substeps(self) -> int:
        """Solver steps from one state to the next."""
        stable = 0.5 * self.length / self.resolution / self.cfl_velocity
        return math.ceil(self.step * DAY / stable)

    @property
    def time_attrs(self) -> dict[str, Any]:
        # xarray decodes "days" to timedeltas.
        return {"units": "day", "long_name": "model time"}

    def template(self) -> xr.Dataset:
        """One state of zeros with its labels."""
        coordinates = self.centres(units="m")
        coordinates["layer"] = ("layer", np.array([1, 2]), {"units": "1", "long_name": "layer, from above"})
        attrs = {"units": "s-1", "long_name": "anomaly of quasi-geostrophic potential vorticity"}
        zeros = np.zeros((2, self.cells, self.cells), np.float32)
        return xr.Dataset({"q": (("layer", "y", "x"), zeros, attrs)}, coordinates)

    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory from a random upper layer, after the spin-up; ``(steps, layer, y, x)``."""
        return self.trajectories(steps, [seed])[0]

    def trajectories(self, steps: int, seeds: Sequence[int]) -> list[State]:
        """The trajectories of the seeds in one computation; each agrees with `trajectory` to rounding."""
        solver = _solver(self)
        flow = solver.initial(np.stack([seed_words(seed) for seed in seeds]))
        for _ in range(math.ceil(self.spin_up * 365 / self.step)):
            flow = solver.next_state(flow)
        frames = self._frames(solver, flow, steps)
        return [{"q": frames[:, i]} for i in range(len(seeds))]

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states after a state, ``(steps, layer, y, x)``. The seed is not used.

        The state is interpolated to the solver's grid in Fourier space, where the damping by the cell means is divided
        out. Scales that the grid of the state does not resolve start at zero.
        """
        del seed
        solver = _solver(self)
        q = refine(np.asarray(self.check_state(state)["q"], float), self.coarsen)
        return {"q": self._frames(solver, solver.start(q[None]), steps)[:, 0]}

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        """The next ``steps`` states after each state vector in one computation, (count, n) to (steps, count, n)."""
        del random
        solver = _solver(self)
        q = refine(x.reshape(len(x), 2, self.cells, self.cells), self.coarsen)
        return self._frames(solver, solver.start(q), steps).reshape(steps, *x.shape).astype(float)

    def _frames(self, solver: _Solver, flow: StepperState, steps: int) -> np.ndarray:
        """The next ``steps`` states of a batch of flows, (steps, batch, layer, y, x)."""
        frames = []
        for _ in range(steps):
            flow = solver.next_state(flow)
            frames.append(solver.output(flow))
        if not frames:
            return np.zeros((0, *flow.state.qh.shape[:2], self.cells, self.cells), np.float32)
        return np.stack(frames).astype(np.float32)


@dataclass(frozen=True)
class _Solver:
    """Compiled functions of a batch of flows; a flow is the state of PyQG-JAX's time stepper."""

    initial: Callable[[np.ndarray], StepperState]
    start: Callable[[np.ndarray], StepperState]
    next_state: Callable[[StepperState], StepperState]
    output: Callable[[StepperState], np.ndarray]


# Cached, so that a worker compiles for its first trajectory only.
@functools.lru_cache(maxsize=4)
def _solver(system: QuasiGeostrophic) -> _Solver:
    # By default, JAX reserves most of the memory of a GPU, which PyTorch needs, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    from pyqg_jax import qg_model, state, steppers

    parameters = ("rek", "filterfac", "beta", "rd", "delta", "H1", "U1", "U2")
    double = _double(
        lambda: qg_model.QGModel(
            nx=system.resolution,
            L=system.length,
            precision=state.Precision[system.precision.upper()],
            **{key: getattr(system, key) for key in parameters},
        )
    )
    model = steppers.SteppedModel(double(), steppers.AB3Stepper(dt=system.step * DAY / system.substeps))

    def initial(words: Array) -> StepperState:
        return model.create_initial_state(jax.random.wrap_key_data(words, impl="threefry2x32"))

    def start(q: Array) -> StepperState:
        blank = model.model.create_initial_state(jax.random.key(0))
        return model.initialize_stepper_state(blank.update(q=q.astype(blank.q.dtype)))

    def next_state(flow: StepperState) -> StepperState:
        return jax.lax.scan(lambda f, _: (model.step_model(f), None), flow, length=system.substeps)[0]

    def output(flow: StepperState) -> Array:
        block = (system.cells, system.coarsen) * 2
        means: Array = flow.state.q.reshape(2, *block).mean((2, 4))
        return means

    many = {f.__name__: _double(jax.jit(jax.vmap(f))) for f in (initial, start, next_state, output)}
    return _Solver(**many)


def _double(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """``function`` with double precision of JAX, which PyQG-JAX needs and other solvers do not expect."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        import jax

        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapped
