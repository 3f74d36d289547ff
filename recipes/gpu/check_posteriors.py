"""Guidance, samplers, noise and assimilation, on the CPU and on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import xarray as xr
from check_agreement import FLOOR, GUIDANCE, SAMPLES, Checks, agreement, significant, tf32
from check_problems import CPU, Method, cases, observations, opened_on, posed, truth
from torch import Tensor

import sdaxr
from sdaxr.inference.problem import Problem
from sdaxr.posterior.execution import sample_batch
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.registry import SAMPLERS
from sdaxr.states.fields import StateLayout

LEVELS = (0.05, 0.5, 5.0)
MEMBERS = 2
SHORT = {"steps": 8, "corrections": 1, "attempts": 1}
# The states that a forecast goes on from are nearly exact, and need the levels that the prior's file records.
CORRECTED = {"corrections": 1}


def check_priors(checks: Checks) -> None:
    """Each shipped prior by the public function: in float32, in bfloat16, and as by default."""
    for name in sdaxr.priors():
        checks("assimilation", name, lambda name=name: _assimilation(checks, name))


def check_functions(checks: Checks) -> None:
    """The other public functions that take a device."""
    checks("forecast", "kolmogorov", lambda: _forecast(checks))
    checks("denoise", "kolmogorov", lambda: _denoise(checks))


def check_guidance(checks: Checks) -> None:
    """One evaluation at three noise levels by every method, every variance, and every kind of observation."""
    for case, (prior, method, how) in cases().items():
        checks("guidance", case, lambda p=prior, m=method, h=how: _guidance(checks, p, m, h))


def check_samplers(checks: Checks) -> None:
    """A short run of every sampler from the same noise."""
    for name in SAMPLERS.names():
        checks("sampler", name, lambda name=name: _sampling(checks, name))


def check_noise(checks: Checks) -> None:
    """The noise of a member is the same on every device, and in every batch."""
    checks("noise", "same on every device", lambda: _noise(checks))


def evaluations(problem: Problem) -> dict[str, Tensor]:
    """The increment E[x | z, y] - E[x | z], and the noise (z - E[x | z, y]) / r, of members at three noise levels."""
    x = torch.as_tensor(problem.opened.reference[0][:1, : problem.shape[0]], device=problem.target)
    noise = member_noise(0, range(MEMBERS), problem.shape, problem.target)
    found = {}
    for r in LEVELS:
        z = problem.guided.pin(x + r * noise(), r, noise)
        mean = problem.guided(z, r)
        with torch.no_grad():
            found[f"increment, r={r:g}"] = mean - problem.guided.denoiser(z, r)
        found[f"noise, r={r:g}"] = (z - mean) / r
    return found


def _guidance(checks: Checks, prior: str, method: Method, how: dict[str, Any]) -> dict[str, Any]:
    seen = observations(prior, how)

    def evaluated(device: torch.device, precision: str) -> dict[str, Tensor]:
        chosen = method(device) if isinstance(method, Callable) else method
        with tf32(False):
            opened = opened_on(prior, device)
            return evaluations(
                posed(seen, opened, method=chosen, precision=precision, device=device, operator=how.get("operator"))
            )

    return _compared(evaluated, checks.phase.device, GUIDANCE, FLOOR)


def _sampling(checks: Checks, name: str) -> dict[str, Any]:
    seen = observations("lorenz63", {})

    def drawn(device: torch.device, precision: str) -> dict[str, Tensor]:
        opened, options = opened_on("lorenz63", device), {"name": name, **SHORT}
        problem = posed(seen, opened, sampler=options, precision=precision, device=device)
        with tf32(False):
            states, _ = sample_batch(
                problem.guided, problem.algorithm, range(MEMBERS), problem.shape, seed=0, device=device
            )
        return {"members": states}

    return _compared(drawn, checks.phase.device, SAMPLES)


def _assimilation(checks: Checks, name: str) -> dict[str, Any]:
    seen, method = observations(name, {}), "soad" if name.endswith("augmented") else None

    def drawn(device: torch.device, precision: str) -> dict[str, Tensor]:
        opened = opened_on(name, device)
        layers = "auto" if precision == "default" else precision
        with nullcontext() if precision == "default" else tf32(False):
            posterior = sdaxr.assimilate(
                seen, opened, method=method, members=MEMBERS, sampler=SHORT, device=str(device), precision=layers,
                progress=False,
            )  # fmt: skip
        return {v: _anomaly(opened.layout, posterior, v) for v in opened.states}

    # By default fields are computed in bfloat16, and convolutions of float32 in TF32.
    return _compared(drawn, checks.phase.device, SAMPLES | {"default": SAMPLES["bfloat16"]})


def _forecast(checks: Checks) -> dict[str, Any]:
    start = truth("kolmogorov").isel(time=slice(4)).expand_dims(member=MEMBERS)

    def drawn(device: torch.device, precision: str) -> dict[str, Tensor]:
        del precision
        opened = opened_on("kolmogorov", device)
        found = sdaxr.forecast(start, opened, steps=2, sampler=CORRECTED, device=str(device), progress=False)
        return {v: torch.as_tensor(found[v].values) for v in opened.states}

    return _compared(drawn, checks.phase.device, {"default": SAMPLES["bfloat16"]})


def _denoise(checks: Checks) -> dict[str, Any]:
    clean = truth("kolmogorov")
    noise = np.random.default_rng(0).normal(scale=0.3, size=(2, *clean.u.shape)).astype(np.float32)
    noisy = clean.assign(u=clean.u + noise[0], v=clean.v + noise[1])

    def denoised(device: torch.device, precision: str) -> dict[str, Tensor]:
        del precision
        opened = opened_on("kolmogorov", device)
        found = sdaxr.denoise(noisy, opened, error=0.3, device=str(device), progress=False)
        return {v: torch.as_tensor(found[v].values)[None] for v in opened.states}

    return _compared(denoised, checks.phase.device, {"default": SAMPLES["bfloat16"]})


def _anomaly(layout: StateLayout, posterior: xr.Dataset, name: str) -> Tensor:
    """Departures of a variable from its mean under the prior, (member, time, ...)."""
    first = sum(map(layout.depth, layout.variables[: layout.variables.index(name)]))
    return torch.as_tensor(posterior[name].values - layout.mean[first].mean())


def _compared(
    compute: Callable[[torch.device, str], dict[str, Tensor]],
    device: torch.device,
    bounds: dict[str, float],
    floor: float = 0.0,
) -> dict[str, Any]:
    """Results on the device in each precision, against those of the CPU in float32."""
    expected = compute(CPU, "float32")
    found = {}
    for precision, bound in bounds.items():
        computed = compute(device, precision)
        found[precision] = agreement({key: (computed[key], expected[key]) for key in expected}, bound, floor)
    return found | {"passed": all(part["passed"] for part in found.values())}


def _noise(checks: Checks) -> dict[str, Any]:
    """Also how long one draw takes at the size of the demo on a GPU: noise is drawn on the CPU."""
    phase = checks.phase
    shape, members = (phase.size(65, 8), 2, 64, 64), range(phase.size(32, 2))
    here, there = (member_noise(0, members, shape, device)() for device in (CPU, phase.device))
    alone = member_noise(0, members[-1:], shape, phase.device)()
    phase.synchronize()
    start = time.monotonic()
    member_noise(0, members, shape, phase.device)()
    phase.synchronize()
    milliseconds = 1000 * (time.monotonic() - start)
    passed = torch.equal(here, there.cpu()) and torch.equal(there[-1:], alone)
    return {"passed": passed, "numbers": here.numel(), "milliseconds": significant(milliseconds)}
