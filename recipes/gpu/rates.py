"""Phase `rates`: how fast the device trains and samples, and how much of its peak that is.

Floating point operations are those that torch counts in one training step: products of matrices and convolutions,
forward and backward, nothing computed twice. The utilisation is their rate over the peak of the device in bfloat16.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import turbulence
import xarray as xr
from phase import Phase
from priors import neighbour
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import sdaxr
from sdaxr import operators as op
from sdaxr.prior.assembly import assemble
from sdaxr.prior.files import Prior
from sdaxr.prior.run import TrainingRun
from sdaxr.prior.settings import Settings
from sdaxr.prior.sizes import Sizes
from sdaxr.prior.windows import Windows
from sdaxr.states.infer import infer_layout
from sdaxr.systems.kolmogorov import Kolmogorov

# Dense products in bfloat16 of the H100 and H200 (SXM), by their data sheet, in FLOP/s.
PEAKS = {"H100": 989e12, "H200": 989e12}
# Seconds that a compilation may take: 50 of one core beside an H200.
COMPILATION = 60
# Networks whose training is timed: the shipped one, and one as wide as a file of 16 MB holds.
WIDTHS = {"shipped": (64, 96, 128), "wide": (128, 160, 224)}


@dataclass
class Bench:
    """What is timed: training runs of the recipe of Kolmogorov flow, on a few trajectories.

    Attributes
    ----------
    phase
        The phase whose device is timed.
    data
        Trajectories of the flow.
    peak
        FLOP/s of the device in bfloat16.
    """

    phase: Phase
    data: xr.Dataset
    peak: float

    def __post_init__(self) -> None:
        self.recipe = neighbour("kolmogorov", "run")
        self.layout = infer_layout(self.data, variables=["u", "v"], context=["forcing"])
        self.windows = Windows(
            self.data, self.layout, 8, seed=0, homogeneous=["x"], symmetries=self.recipe.SYMMETRIES,
            device=self.phase.device,
        )  # fmt: skip
        self._flops: dict[str, float] = {}

    def training(self, name: str, batch: int, *, compiled: bool = False) -> TrainingRun:
        """A training run; its modes are measured roughly, which changes no time."""
        statistics = sdaxr.Statistics(homogeneous=("x",), symmetries=tuple(self.recipe.SYMMETRIES))
        settings = Settings.choose(
            sizes=Sizes(self.layout.shape, 0, 8), device=self.phase.device, window=8, parameterisation="spectral",
            statistics=statistics,
            network=replace(self.recipe.NETWORK, widths=WIDTHS[name]), steps=10**9, minutes=None, seed=0,
            optimisation=replace(self.recipe.OURS, batch=batch, compile=compiled),
        )  # fmt: skip
        torch.manual_seed(0)
        model = assemble(self.layout, settings.to_dict()).to(self.phase.device)
        assert model.modes is not None
        model.modes.measure([self.windows.batch(0, 16)[0]])
        return TrainingRun(
            settings, settings.to_dict(), self.layout, model, self.windows, self.windows, self.phase.device
        )

    def flops(self, name: str) -> float:
        """Floating point operations of one step for each window."""
        if name not in self._flops:
            steps = self.training(name, 2)
            with FlopCounterMode(display=False) as counter:
                steps.update()
            self._flops[name] = counter.get_total_flops() / 2
        return self._flops[name]


def run(phase: Phase) -> None:
    """Measure; what matters most comes first."""
    prior = sdaxr.open_prior("kolmogorov")
    bench = Bench(phase, sample(phase, prior), ceilings(phase))
    batches = (2, 4) if phase.tenth else (16, 64, 256, 1024)
    for batch in batches:
        training(bench, "shipped", batch, "eager")
    members(phase, bench.data)
    evaluations(phase, prior)
    training(bench, "wide", batches[1], "eager")
    training(bench, "shipped", batches[1], "channels last")
    graph(bench, batches[1])
    kernels(bench, batches[1])
    training(bench, "wide", batches[-1], "eager")
    for name in WIDTHS:
        if phase.tenth or phase.left > COMPILATION:
            training(bench, name, batches[1], "compiled")


def ceilings(phase: Phase) -> float:
    """The device's own rates: a large product of matrices in bfloat16, and a large copy; returns the peak."""
    size = 512 if phase.tenth else 8192
    a, b = (torch.randn(size, size, device=phase.device).bfloat16() for _ in range(2))
    product = 2 * size**3 / timed(phase, lambda: a @ b)
    source = torch.randn(2**22 if phase.tenth else 2**30, device=phase.device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / timed(phase, lambda: target.copy_(source))
    name = torch.cuda.get_device_name(phase.device) if phase.device.type == "cuda" else "cpu"
    peak = next((value for key, value in PEAKS.items() if key in name), product)
    phase.record("ceilings", device=name, bf16=f"{product:.4g}", bytes_per_second=f"{copied:.4g}", peak=f"{peak:.4g}")
    return peak


def training(bench: Bench, name: str, batch: int, how: str) -> None:
    """Steps per second of `sdaxr.train`, data and optimiser included, and the utilisation."""
    phase = bench.phase
    if not phase.missing("training", network=name, batch=batch, how=how):
        return
    begin = time.monotonic()
    try:
        steps = bench.training(name, batch, compiled=how == "compiled")
        if how == "channels last":
            steps.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seconds = timed(phase, steps.update)
    except Exception as error:  # out of memory, or nothing to compile with: the other rates go on
        phase.record("training", network=name, batch=batch, how=how, failed=f"{type(error).__name__}: {error}"[:300])
        return
    work = bench.flops(name) * batch
    phase.record(
        "training", network=name, batch=batch, how=how, steps_per_second=round(1 / seconds, 2),
        windows_per_second=round(batch / seconds, 1), flop_per_window=f"{work / batch:.4g}",
        utilisation=round(work / seconds / bench.peak, 4), first_seconds=round(time.monotonic() - begin, 1),
    )  # fmt: skip


def members(phase: Phase, data: xr.Dataset) -> None:
    """Seconds of the demo's posterior, 32 states, on the device and on the cores of the machine beside it."""
    length, count = (8, 2) if phase.tenth else (32, 8)
    truth = data.isel(trajectory=0, time=slice(length)).drop_vars("split")
    observations = sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=1)

    def draw(device: str, number: int) -> float:
        begin = time.monotonic()
        sdaxr.assimilate(
            observations, "kolmogorov", times=truth.time, members=number, seed=0, device=device, progress=False,
            sampler={"corrections": 1, "tau": 1.0},
        )  # fmt: skip
        return time.monotonic() - begin

    for number in () if phase.tenth else (32, count):
        if phase.missing("demo", device=phase.device.type, members=number):
            first = draw(str(phase.device), number)
            again = draw(str(phase.device), number)
            phase.record(
                "demo", device=phase.device.type, members=number, states=length, first_seconds=round(first, 2),
                seconds=round(again, 2), seconds_per_member=round(again / number, 3),
            )  # fmt: skip
    if phase.missing("demo", device="cpu", members=2):
        seconds = draw("cpu", 2)
        phase.record(
            "demo", device="cpu", members=2, states=length, threads=torch.get_num_threads(),
            seconds=round(seconds, 2), seconds_per_member=round(seconds / 2, 3),
        )  # fmt: skip


def evaluations(phase: Phase, prior: Prior) -> None:
    """Evaluations of the shipped denoiser a second, without guidance, by the number of trajectories at once."""
    states = phase.size(32, 8)
    denoiser = prior.denoiser(prior.layout.times(0.0, states), phase.device)
    for batch in (1, 2) if phase.tenth else (1, 8, 32, 128):
        if phase.missing("evaluations", batch=batch):
            z = torch.randn(batch, states, 2, 64, 64, device=phase.device)
            with torch.no_grad():
                seconds = timed(phase, lambda z=z: denoiser(z, 1.0))
            phase.record(
                "evaluations", batch=batch, states=states, per_second=round(1 / seconds, 2),
                states_per_second=round(batch * states / seconds, 1),
            )  # fmt: skip


def graph(bench: Bench, batch: int) -> None:
    """Forward and backward as one CUDA graph, beside the same kernels launched one by one."""
    phase = bench.phase
    if phase.device.type != "cuda" or not phase.missing("graph", batch=batch):
        return
    steps = bench.training("shipped", batch)
    x, context = steps.windows.batch(0, batch)
    r, noise = torch.ones(batch, device=phase.device), torch.randn_like(x)

    def once() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = steps.model.loss(x, r, noise, context, None).mean()
        loss.backward()

    try:
        eager = timed(phase, once)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                once()
        torch.cuda.current_stream().wait_stream(aside)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            once()
        replayed = timed(phase, recorded.replay)
    except Exception as error:
        phase.record("graph", batch=batch, failed=f"{type(error).__name__}: {error}"[:300])
        return
    phase.record("graph", batch=batch, eager=round(1 / eager, 2), graph=round(1 / replayed, 2))


def kernels(bench: Bench, batch: int) -> None:
    """Which kernels take the time of a training step: the reason where the utilisation is low."""
    phase = bench.phase
    if not phase.missing("kernels", batch=batch):
        return
    gpu = phase.device.type == "cuda"
    steps = bench.training("shipped", batch)
    steps.update()
    phase.synchronize()
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as found:
        for _ in range(1 if phase.tenth else 5):
            steps.update()
        phase.synchronize()
    name = "self_device_time_total" if gpu else "self_cpu_time_total"
    times = {e.key: getattr(e, name) for e in found.key_averages()}
    whole = sum(times.values()) or 1.0
    for key, value in sorted(times.items(), key=lambda item: -item[1])[:12]:
        phase.record("kernels", batch=batch, kernel=key[:100], share=round(value / whole, 4))


def sample(phase: Phase, prior: Prior) -> xr.Dataset:
    """A few trajectories of the flow at the resolution of the states: cheap, and as smooth as what is learnt."""
    system = Kolmogorov(resolution=64, coarsen=1)
    states, count = (16, 2) if phase.tenth else (40, 8)
    parts = turbulence.trajectories(
        phase.device, range(count), steps=states, spin_up=8, batch=count, system=system, compiled=False
    )  # fmt: skip
    fields = torch.cat(list(parts)).cpu().numpy()
    template = prior.layout.template(prior.layout.times(0.0, states), {"trajectory": np.arange(count)})
    named = {v: template[v].copy(data=fields[:, :, i]) for i, v in enumerate("uv")}
    split = ("trajectory", ["train"] * count)
    return neighbour("kolmogorov", "merits").with_forcing(template.assign(named).assign_coords(split=split))


def timed(phase: Phase, call: Callable[[], Any]) -> float:
    """Seconds of a call: the mean over about a second, after three calls that do not count."""
    for _ in range(1 if phase.tenth else 3):
        call()
    phase.synchronize()
    start, calls = time.monotonic(), 0
    while time.monotonic() - start < (0.1 if phase.tenth else 1.0):
        for _ in range(1 if phase.tenth else 5):
            call()
            calls += 1
        phase.synchronize()
    return (time.monotonic() - start) / calls
