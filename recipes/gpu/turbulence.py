r"""Kolmogorov flow for many trajectories at once: the finite volumes of JAX-CFD in torch, fused on a GPU.

The numbers of a step are those of `sdaxr.systems.kolmogorov.Kolmogorov` to rounding. The errors of this scheme are a
part of its climate: van Leer's limiter and the step of first order remove about as much energy as the viscosity, at all
wavenumbers that the states resolve. A pseudo-spectral solver, which has no such errors, is compared in solver.py.

One step of the velocity components c on the faces of square cells of width h (Kochkov et al. 2021):

.. math::
    c^* = c + \Delta t \, [-\delta_x F_x - \delta_y F_y + \nu \nabla_h^2 c - \alpha c + f], \qquad
    c = c^* - \delta_c p, \qquad \nabla_h^2 p = \nabla_h \cdot u^*

The flux over a face with the velocity w, between the values c_0 and c_1, is that of Lax and Wendroff with van Leer's
limiter, with d = c_1 - c_0 and d' the difference over the next face upwind:

.. math::
    F = w c_\mathrm{upwind} + \frac{|w|}{2} \left(1 - \frac{|w| \Delta t}{h}\right) s, \qquad
    s = \frac{2 d d'}{d + d'} \ \mathrm{where} \ d d' > 0, \ \mathrm{else} \ 0

References
----------
.. [1] Kochkov, D. et al. (2021). Machine learning-accelerated computational fluid dynamics.
   doi:10.1073/pnas.2101784118
.. [2] van Leer, B. (1974). Towards the ultimate conservative difference scheme II. doi:10.1016/0021-9991(74)90019-9
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sdaxr.systems.kolmogorov import Kolmogorov

PAPER = Kolmogorov()
X, Y = -1, -2
# Keeps 0 / 0 out of the limiter; far below any difference of two velocities.
_TINY = 1e-30


def trajectories(
    device: torch.device | str, seeds: Sequence[int], *, steps: int = 64, spin_up: int = 64, batch: int = 128,
    out: torch.dtype = torch.float32, **options,
) -> Iterator[Tensor]:  # fmt: skip
    """Trajectories from random initial velocities, after the spin-up, batch by batch.

    Parameters
    ----------
    device, options
        As for `Flow`.
    steps, spin_up
        States of each seed's trajectory that are kept, in the precision ``out``, and that are dropped before.
    batch
        Trajectories side by side. The last batch is filled up and cut, because another shape would be compiled anew.

    Yields
    ------
    Cell means of the velocities u and v, shape (batch, steps, 2, cells, cells), indexed [y, x], on the device.
    """
    flow = Flow(device, **options)
    batch = min(batch, len(seeds))
    for first in range(0, len(seeds), batch):
        part = list(seeds[first : first + batch])
        state = flow.initial(part + part[-1:] * (batch - len(part)))
        for _ in range(spin_up):
            state = flow.step_state(state)
        means = []
        for _ in range(steps):
            state = flow.step_state(state)
            means.append(flow.velocity(state).to(out))
        yield torch.stack(means, 1)[: len(part)]


class Flow:
    """The solver. A state holds the velocities u and v on the upper faces of the cells: (batch, 2, n, n), [y, x].

    Parameters
    ----------
    device
        Where it computes.
    system, dtype
        Its equation, resolution and step; single or double precision.
    compiled
        Fuse the arithmetic of a step into a few kernels, which takes some ten seconds once. Default: on a GPU.
    """

    def __init__(
        self, device: torch.device | str, *, system: Kolmogorov = PAPER, dtype=torch.float32, compiled=None
    ) -> None:
        self.device, self.dtype, self.system, n = torch.device(device), dtype, system, system.resolution
        self.width = system.length / n
        stable = min(0.5 * self.width / system.cfl_velocity, self.width**2 * system.reynolds / 4)
        self.substeps = math.ceil(system.step / stable)
        self._dt = system.step / self.substeps
        y = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) * self.width
        self._shear = (system.forcing * torch.sin(system.wavenumber * y)).to(self.device, dtype)
        self._k = (
            torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None] / system.extent,
            torch.arange(n // 2 + 1).double() / system.extent,
        )
        laplacian = -sum((2 / self.width * torch.sin(k * self.width / 2)) ** 2 for k in self._k)
        laplacian[0, 0] = torch.inf  # the mean of the pressure is free
        self._inverse_laplacian = (1 / laplacian).to(self.device, dtype)
        self._graph: torch.cuda.CUDAGraph | None = None
        if self.device.type == "cuda" if compiled is None else compiled:
            for name in ("_provisional", "_divergence", "_corrected"):
                setattr(self, name, torch.compile(getattr(self, name), dynamic=False))

    def initial(self, seeds: Sequence[int]) -> Tensor:
        """Random velocities without divergence, as JAX-CFD draws them: a log-normal spectrum, and a largest speed.

        The noise of a seed is drawn on the CPU. Each velocity depends on its seed alone.
        """
        size = (2, self.system.resolution, self.system.resolution)
        noise = torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(int(s))) for s in seeds])
        k = torch.hypot(*self._k)
        log = torch.log(k / self.system.peak_wavenumber) - 0.25
        density = (torch.exp(-2 * log**2) / k**2).nan_to_num(0.0).to(self.device, self.dtype)
        spectrum = torch.fft.rfft2(noise.to(self.device, self.dtype)) * density
        state = self.project(torch.fft.irfft2(spectrum, s=size[1:]))
        speed = state.norm(dim=1).amax((-2, -1))
        return state * (self.system.max_velocity / speed)[:, None, None, None]

    def from_velocity(self, u: np.ndarray, v: np.ndarray) -> Tensor:
        """The state of velocities of JAX-CFD's solver, which are indexed [x, y]: (n, n) or (batch, n, n) each."""
        n = self.system.resolution
        faces = np.stack([np.reshape(c, (-1, n, n)) for c in (u, v)], 1)
        return torch.as_tensor(faces).to(self.device, self.dtype).mT.contiguous()

    def velocity(self, state: Tensor) -> Tensor:
        """Means over the two faces of each cell, averaged over blocks of cells: (batch, 2, cells, cells), [y, x]."""
        u, v = state.unbind(1)
        centred = torch.stack((u + _before(u, X), v + _before(v, Y)), 1) / 2
        return torch.nn.functional.avg_pool2d(centred, self.system.coarsen)

    def project(self, state: Tensor) -> Tensor:
        """Subtract the gradient that makes the net flux through the faces of each cell zero."""
        pressure = torch.fft.rfft2(self._divergence(state)) * self._inverse_laplacian
        return self._corrected(state, torch.fft.irfft2(pressure, s=state.shape[-2:]))

    def step_state(self, state: Tensor) -> Tensor:
        """The state one step of the system later."""
        return self._replayed(state) if state.is_cuda else self._stepped(state)

    def _stepped(self, state: Tensor) -> Tensor:
        for _ in range(self.substeps):
            state = self.project(self._provisional(state))
        return state

    def _replayed(self, state: Tensor) -> Tensor:
        """`_stepped`, recorded once for a shape: a thousand small kernels would wait for the CPU to launch them."""
        if self._graph is None or self._input.shape != state.shape:
            self._input = state.clone()
            # Compiles the kernels and plans the transforms, which cannot be recorded.
            self.project(self._provisional(self._input))
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._output = self._stepped(self._input)
        self._input.copy_(state)
        self._graph.replay()
        return self._output.clone()

    def _provisional(self, state: Tensor) -> Tensor:
        """The velocity after a step without pressure."""
        u, v = state.unbind(1)
        result = []
        for c, own in ((u, X), (v, Y)):
            neighbours = _after(c, X) + _before(c, X) + _after(c, Y) + _before(c, Y)
            rate = (neighbours - 4 * c) / (self.system.reynolds * self.width**2) - self.system.drag * c
            for component, axis in ((u, X), (v, Y)):
                # On the faces of the control volumes of c, which lie between two points of either component.
                flux = self._flux(c, (component + _after(component, own)) / 2, axis)
                rate = rate - (flux - _before(flux, axis)) / self.width
            result.append(c + self._dt * (rate + self._shear if own == X else rate))
        return torch.stack(result, 1)

    def _flux(self, c: Tensor, w: Tensor, axis: int) -> Tensor:
        """Flux of c, carried by w, over the upper faces of its control volumes."""
        difference = _after(c, axis) - c
        upwards = w > 0
        upwind = torch.where(upwards, _before(difference, axis), _after(difference, axis))
        slope = 2 * (difference * upwind).clamp(min=0) / (difference + upwind + _TINY)
        correction = (w.abs() - w * w * (self._dt / self.width)) / 2 * slope
        return w * torch.where(upwards, c, _after(c, axis)) + correction

    def _divergence(self, state: Tensor) -> Tensor:
        u, v = state.unbind(1)
        return (u - _before(u, X) + v - _before(v, Y)) / self.width

    def _corrected(self, state: Tensor, pressure: Tensor) -> Tensor:
        parts = zip(state.unbind(1), (X, Y), strict=True)
        return torch.stack([c - (_after(pressure, axis) - pressure) / self.width for c, axis in parts], 1)


def _after(values: Tensor, axis: int) -> Tensor:
    return values.roll(-1, axis)


def _before(values: Tensor, axis: int) -> Tensor:
    return values.roll(1, axis)
