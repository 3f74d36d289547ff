"""The torch solver of Kolmogorov flow against JAX-CFD: spectra, growth of errors, climate, cost.

    taskset -c 0 python recipes/gpu/solver.py

All start from the same states of JAX-CFD, of independent trajectories after their spin-up; so does a pseudo-spectral
solver, to show what the errors of the finite volumes do. States are the means over 64 x 64 cells that the package
stores. Spectra are means over the states at times 1, 2 and 3. Errors grow from a perturbation of a thousandth; the rate
is the mean slope of the logarithm of its norm between times 1 and 4. The climate is that of trajectories from each
solver's own initial velocities. Standard errors are by the jackknife over trajectories, seconds are those of one
trajectory. Writes solver.csv and solver.png, in 8 minutes on one core.
"""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from turbulence import PAPER, Flow

from sdaxr.systems.base import seed_words
from sdaxr.systems.kolmogorov import _solver

LENGTH, SPIN_UP, COMPARED, UNIT = 64, 64, 20, 5  # states; five are a unit of time
SHELLS, LIMIT = np.arange(1, 33), 0.03


@click.command()
@click.option("--trajectories", default=16, show_default=True, help="Independent ones, of each solver.")
@click.option("--output", type=Path, default=Path(__file__).parent)
def main(trajectories: int, output: Path) -> None:
    """Run the solvers, compare them, and write the table and the picture."""
    flow = Flow("cpu", compiled=True)
    solvers = {"torch": partial(volumes, flow), "jax-cfd": partial(jax_cfd, flow), "spectral": Spectral().run}
    for solve in solvers.values():
        solve(flow.initial([0]), 1)  # compiles
    runs, seconds, climates = ({name: [] for name in solvers} for _ in range(3))
    for seed in range(trajectories):
        drawn = _solver(PAPER).initial(seed_words(seed))
        for name, first in (("torch", flow.initial([seed])), ("jax-cfd", faces(flow, drawn))):
            spun_up = solvers[name](first, SPIN_UP)[1]
            climates[name].append(solvers[name](spun_up, LENGTH)[0])
        disturbed = spun_up + 1e-3 * flow.initial([trajectories + seed])  # of JAX-CFD, the last of the two
        for name, solve in solvers.items():
            start = time.perf_counter()
            runs[name].append([solve(state, COMPARED)[0] for state in (spun_up, disturbed)])
            seconds[name].append((time.perf_counter() - start) * (SPIN_UP + LENGTH) / (2 * COMPARED))
        print(seed + 1, "of", trajectories, {k: f"{np.median(v):.1f} s" for k, v in seconds.items()}, flush=True)
    found = {name: np.array(run) for name, run in runs.items()}
    rows = [*compared("torch", found), *compared("spectral", found)]
    states = [spectra(np.array(climates[name])) for name in ("torch", "jax-cfd")]
    for quantity in states[0]:
        a, b = (s[quantity].sum(-1).mean(1) for s in states)
        rows.append(row(f"mean {quantity}", "torch", a, b, math.hypot(jackknife(a), jackknife(b))))
    for name in ("torch", "spectral"):
        rows.append(row("seconds", name, *(np.array(seconds[n]) for n in (name, "jax-cfd"))) | {"within": ""})
    table = pd.DataFrame(rows)
    table.to_csv(output / "solver.csv", index=False, float_format="%.5g")
    print(table[table.wavenumber.isna()].drop(columns="wavenumber").to_string(index=False))
    for (name, quantity), part in table.dropna(subset="wavenumber").groupby(["solver", "quantity"]):
        worst = {k: (part[part.wavenumber <= k].ratio - 1).abs().max() for k in (21, 32)}
        print(f"{name}, {quantity}: off by at most {worst[21]:.4f} to wavenumber 21, {worst[32]:.4f} to 32")
    plot(found, table, output / "solver.png")


def volumes(flow: Flow, state: torch.Tensor, length: int) -> tuple[np.ndarray, torch.Tensor]:
    """Cell means (length, 2, n, n) of the states that follow, and the last state."""
    means = []
    for _ in range(length):
        state = flow.step_state(state)
        means.append(flow.velocity(state)[0].numpy())
    return np.stack(means), state


def jax_cfd(flow: Flow, state: torch.Tensor, length: int) -> tuple[np.ndarray, torch.Tensor]:
    solver, means = _solver(PAPER), []
    velocity = solver.project(*state[0].mT.numpy())
    for _ in range(length):
        velocity = solver.next_state(velocity)
        means.append(np.stack(solver.output(velocity)))
    return np.stack(means), faces(flow, velocity)


def faces(flow: Flow, velocity) -> torch.Tensor:
    return flow.from_velocity(*(np.asarray(c.data) for c in velocity))


class Spectral:
    """Vorticity, dealiased by two thirds, Runge-Kutta, exact viscosity and drag; more points change no spectrum."""

    def __init__(self, n: int = 192, steps: int = 45) -> None:
        self.n, self.steps, self.width = n, steps, 2 * math.pi / PAPER.resolution
        self.k = self.kx, self.ky = torch.arange(n // 2 + 1.0), torch.fft.fftfreq(n, 1 / n)[:, None]
        square = self.kx**2 + self.ky**2
        self.kept = (self.ky.abs() < n / 3) & (self.kx < n / 3)
        self.to_velocity = torch.stack((1j * self.ky.expand_as(square), -1j * self.kx.expand_as(square)))
        self.to_velocity *= self.kept / square.clamp(min=1)
        self.half = torch.exp(-(square / PAPER.reynolds + PAPER.drag) * PAPER.step / steps / 2)
        self.forcing = torch.zeros_like(square)
        self.forcing[[PAPER.wavenumber, -PAPER.wavenumber], 0] = -PAPER.forcing * PAPER.wavenumber * n**2 / 2

    def run(self, state: torch.Tensor, length: int) -> tuple[np.ndarray, None]:
        w, h, e, means = self.vorticity(state[0]), PAPER.step / self.steps, self.half, []
        for _ in range(length):
            for _ in range(self.steps):
                a = self.rate(w)
                b = self.rate(e * (w + h / 2 * a))
                c = self.rate(e * w + h / 2 * b)
                d = self.rate(e * (e * w + h * c))
                w = e * e * w + h / 6 * (e * e * a + 2 * e * (b + c) + d)
            means.append(self.means(w))
        return np.stack(means), None

    def rate(self, w: torch.Tensor) -> torch.Tensor:
        u, v, vorticity = torch.fft.irfft2(torch.cat((self.to_velocity * w, w[None])))
        flux = torch.fft.rfft2(torch.stack((u * vorticity, v * vorticity)))
        return -1j * self.kept * (self.kx * flux[0] + self.ky * flux[1]) + self.forcing

    def vorticity(self, state: torch.Tensor) -> torch.Tensor:
        rows = self.ky[:, 0].long() % PAPER.resolution
        u, v = torch.fft.rfft2(state.double())[:, rows, : len(self.kx)] * (self.n / PAPER.resolution) ** 2
        x, y = (torch.exp(-0.5j * k * self.width) for k in self.k)
        return (1j * self.kept * x * y * (self.kx * y * v - self.ky * x * u)).to(torch.complex64)

    def means(self, w: torch.Tensor) -> np.ndarray:
        """The package's means: over two faces of a cell, then over a block of cells, exact for each wave."""
        means = self.to_velocity * w * torch.stack([torch.cos(k * self.width / 2).expand(w.shape) for k in self.k])
        for k in self.k:
            damping = torch.sinc(k * PAPER.coarsen / PAPER.resolution) / torch.sinc(k / PAPER.resolution)
            means = means * damping * torch.exp(0.5j * k * self.width * PAPER.coarsen)
        return torch.fft.irfft2(means)[:, :: self.n // PAPER.cells, :: self.n // PAPER.cells].numpy()


def compared(name: str, found: dict[str, np.ndarray]) -> list[dict]:
    """Rows of a solver, of runs (trajectory, 2, time, 2, n, n): undisturbed and disturbed."""
    pair = found[name], found["jax-cfd"]
    both = [spectra(run[:, 0, UNIT - 1 : 3 * UNIT : UNIT]) for run in pair]
    shells = [(key, k) for key in both[0] for k in SHELLS]
    rows = [row(f"{key} spectrum", name, *(s[key].mean(1)[:, k - 1] for s in both), k=k) for key, k in shells]
    return [*rows, row("growth of errors", name, *(growth(run)[1] for run in pair))]


def spectra(means: np.ndarray) -> dict[str, np.ndarray]:
    """Kinetic energy and enstrophy by wavenumber, of cell means (..., 2, n, n)."""
    n = means.shape[-1]
    u, v = np.moveaxis(np.fft.fft2(means.astype(float)) / n**2, -3, 0)
    k = np.fft.fftfreq(n, 1 / n)
    density = {"energy": abs(u) ** 2 + abs(v) ** 2, "enstrophy": abs(k * v - k[:, None] * u) ** 2}
    shell = np.rint(np.hypot(k, k[:, None]))
    return {key: np.stack([d[..., shell == s].sum(-1) / 2 for s in SHELLS], -1) for key, d in density.items()}


def growth(run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (trajectory, time) between undisturbed and disturbed, and the rate at which each grows."""
    distance = np.sqrt(((run[:, 1] - run[:, 0]) ** 2).mean((-3, -2, -1)))
    return distance, np.log(distance[:, 4 * UNIT - 1] / distance[:, UNIT - 1]) / 3


def row(quantity: str, solver: str, a: np.ndarray, b: np.ndarray, error: float = 0, k: float = math.nan) -> dict:
    """The ratio of the means of values by trajectory; by pairs, unless the relative error is given."""
    ratio = a.mean() / b.mean()
    return {
        "quantity": quantity, "solver": solver, "wavenumber": k, "value": a.mean(), "jax-cfd": b.mean(),
        "ratio": ratio, "standard_error": ratio * error or jackknife(a, b), "within": abs(ratio - 1) <= LIMIT,
    }  # fmt: skip


def jackknife(a: np.ndarray, b: np.ndarray | None = None) -> float:
    """Standard error of the ratio of two means, or of one mean over itself."""
    without = (a.sum() - a) / (a.sum() * (1 - 1 / len(a)) if b is None else b.sum() - b)
    return math.sqrt((len(a) - 1) * without.var())


def plot(found: dict[str, np.ndarray], table: pd.DataFrame, path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    colours = {"jax-cfd": "0.7", "torch": "C0", "spectral": "C1"}
    for name, colour in colours.items():
        style = {"color": colour, "lw": 4 if name == "jax-cfd" else 1}
        energy = spectra(found[name][:, 0, UNIT - 1 : 3 * UNIT : UNIT])["energy"]
        axes[0].loglog(SHELLS, energy.mean((0, 1)), label=name, **style)
        logarithm = np.log(growth(found[name])[0]).mean(0)
        axes[2].semilogy(PAPER.step * np.arange(1, COMPARED + 1), np.exp(logarithm), label=name, **style)
    for name, part in table[table.quantity == "energy spectrum"].groupby("solver"):
        axes[1].errorbar(part.wavenumber, part.ratio, part.standard_error, color=colours[name], label=name)
    axes[1].axhspan(1 - LIMIT, 1 + LIMIT, color="grey", alpha=0.3)
    labels = {"kinetic energy": "wavenumber", "spectra over jax-cfd's": "wavenumber", "rms perturbation": "time"}
    for axis, (what, against) in zip(axes, labels.items(), strict=True):
        axis.set(xlabel=against, ylabel=what)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
