"""Long trajectories and many members: the memory of the network does not grow, and time grows linearly.

The cost does not depend on what is observed. The truth of a flow of any length is therefore the prior's held-out
windows, one after another, each forward and backward.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from check_agreement import reason, significant
from check_problems import observing, opened_on, posed, truth
from phase import Phase

import sdaxr
from sdaxr.posterior.execution import sample_batch
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.prior.files import Prior
from sdaxr.prior.memory import peak_bytes

LENGTHS = (1250, 2500, 5000, 10_000)
# In a rehearsal no shorter: a trajectory of up to 160 states is one piece (`sdaxr.prior.blanket`), which grows with it.
SHORTEST = 320
# A sample of four noise levels around the standard deviation of the states is a rough one; its evaluations cost as much
# as those of a good one.
ROUGH = {"steps": 4, "corrections": 0, "largest": 3.0, "smallest": 0.3, "attempts": 1}
MEMBERS, STATES = (64, 1024), 65
# Arrays of the size of the trajectory that may be held at once. The set-up measures the variance of the observed
# quantities on four held-out windows, each repeated to the length of the trajectory: known and denoised states, and
# physical fields of one of the two, are 12; the context is half of one. Of the sampler, 6 were counted on a CPU: z,
# noise, estimates of two levels, and gradients.
ARRAYS = {"setup": 14, "sampling": 9}
# Largest departure of the memory from a straight line, as a fraction, and largest exponent of the time. Short
# trajectories do not fill a GPU, which makes the exponent smaller; a quadratic part makes it larger.
UNEVEN, EXPONENT = 0.1, 1.15
# Seconds per member of the larger ensemble over those of the smaller one.
PER_MEMBER = 1.1


def run(phase: Phase) -> None:
    """Kolmogorov flow at four lengths, then Lorenz 63 with few and with many members.

    Raises
    ------
    SystemExit
        If memory or time grow faster than they should.
    """
    prior, before = opened_on("kolmogorov", phase.device), len(phase.records("failure"))
    for length in sorted({phase.size(length, SHORTEST) for length in LENGTHS}):
        guarded(phase, "flow", lambda n=length: flow(phase, prior, n), length=length)
    for members in (phase.size(count) for count in MEMBERS):
        guarded(phase, "lorenz63", lambda n=members: lorenz63(phase, n), members=members)
    found = growth(phase.records("flow"), state_bytes(prior)) | sharing(phase.records("lorenz63"))
    phase.record("verdict", **found)
    failed = [key for key, part in found.items() if not part["passed"]]
    failed += [f"{line['of']}: {line['reason']}" for line in phase.records("failure")[before:]]
    if failed:
        raise SystemExit(f"long: failed: {', '.join(failed)}")


def guarded(phase: Phase, what: str, compute: Callable[[], dict[str, Any]], **key: int) -> None:
    """Record a result that is not there yet; an exception is recorded, too, and the other results go on.

    A rehearsal does not end early.
    """
    known = any(all(line.get(k) == v for k, v in key.items()) for line in phase.records(what))
    if known or (phase.left <= 0 and not phase.tenth):
        return
    try:
        phase.record(what, **key, **compute())
    except Exception as error:
        phase.record("failure", of=what, **key, reason=reason(error))


def flow(phase: Phase, prior: Prior, length: int) -> dict[str, Any]:
    """Seconds and memory of the set-up and of one rough sample of the posterior."""
    seen = sdaxr.observe(repeated(prior, length), **observing("kolmogorov"), seed=0)
    problem = posed(seen, prior, sampler=ROUGH, device=phase.device)
    warm(phase, prior, SHORTEST)
    found: dict[str, Any] = {"observations": int(seen[["u", "v"]].count().to_array().sum())}
    found["setup"], _ = measured(phase, lambda: problem.guided)
    zero = torch.zeros(1, *problem.shape, device=phase.device)
    found["evaluation"], _ = measured(phase, lambda: problem.guided(zero, 1.0))
    found["sampling"], states = measured(
        phase,
        lambda: sample_batch(problem.guided, problem.algorithm, [0], problem.shape, seed=0, device=phase.device)[0],
    )
    found["noise"], _ = measured(phase, member_noise(0, [0], problem.shape, phase.device))
    return found | {"levels": len(problem.algorithm.levels) - 1, "finite": bool(states.isfinite().all())}


def warm(phase: Phase, prior: Prior, length: int) -> None:
    """What is measured of a prior is measured once, and the first evaluation on a GPU loads its libraries."""
    prior.held_out(phase.device)
    if phase.device.type == "cuda":
        shape = (length, prior.layout.channels, *prior.layout.shape)
        z = torch.zeros(1, *shape, device=phase.device, requires_grad=True)
        prior.denoiser(prior.layout.times(0.0, length), phase.device)(z, 1.0).sum().backward()


def lorenz63(phase: Phase, members: int) -> dict[str, Any]:
    """Seconds and memory of an ensemble as the prior's file says, but for drawing members again."""
    prior = opened_on("lorenz63", phase.device)
    seen = sdaxr.observe(truth("lorenz63", STATES), **observing("lorenz63"), seed=0)
    warm(phase, prior, STATES)
    cost, posterior = measured(
        phase,
        lambda: sdaxr.assimilate(
            seen, prior, members=members, sampler={"attempts": 1}, device=str(phase.device), progress=False
        ),
    )
    draw, _ = measured(phase, member_noise(0, range(members), (STATES, 3), phase.device))
    return {
        **cost,
        "seconds_per_member": significant(cost["seconds"] / members),
        "evaluations": posterior.attrs["evaluations_per_member"],
        "seconds_of_one_draw_of_noise": draw["seconds"],
        "finite": bool(np.isfinite(posterior.to_array()).all()),
    }


def measured(phase: Phase, compute: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds and most bytes of memory; on a CPU the bytes of torch's tensors only."""
    found: list[Any] = []
    cuda = phase.device.type == "cuda"
    phase.synchronize()
    before = torch.cuda.memory_allocated(phase.device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(phase.device)
    start = time.monotonic()
    if cuda:
        found.append(compute())
    else:
        most = peak_bytes(lambda: found.append(compute()))
    phase.synchronize()
    seconds = time.monotonic() - start
    most = torch.cuda.max_memory_allocated(phase.device) - before if cuda else most
    return {"seconds": significant(seconds), "megabytes": significant(most / 1e6, 5)}, found[0]


def growth(lines: list[dict[str, Any]], state: int) -> dict[str, Any]:
    """Memory and time of the flow as functions of the length L: a + b L, and L to a power.

    a is what the network needs for one piece; b is given in arrays of the size of the trajectory.
    """
    found: dict[str, Any] = {"finite": {"passed": all(line["finite"] for line in lines)}}
    lengths = np.array([line["length"] for line in lines], float)
    if len(lines) < 3:
        return found | {"lengths": {"found": len(lines), "passed": False}}
    for stage, arrays in ARRAYS.items():
        used = 1e6 * np.array([line[stage]["megabytes"] for line in lines])
        slope, constant = np.polyfit(lengths, used, 1)
        uneven = float(np.abs(used - constant - slope * lengths).max() / used.max())
        found[f"memory of {stage}"] = {
            "arrays": significant(slope / state),
            "constant_megabytes": significant(constant / 1e6),
            "uneven": significant(uneven),
            "passed": slope <= arrays * state and uneven <= UNEVEN,
        }
        seconds = np.array([line[stage]["seconds"] for line in lines])
        exponent = float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])
        found[f"time of {stage}"] = {"exponent": significant(exponent), "passed": exponent <= EXPONENT}
    return _plain(found)


def sharing(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds per member of the largest ensemble over those of the smallest one."""
    if len(lines) < 2:
        return {"members": {"found": len(lines), "passed": False}}
    few, many = min(lines, key=lambda x: x["members"]), max(lines, key=lambda x: x["members"])
    ratio = many["seconds_per_member"] / few["seconds_per_member"]
    finite = few["finite"] and many["finite"]
    return {"members": {"ratio": significant(ratio), "passed": bool(finite and ratio <= PER_MEMBER)}}


def repeated(prior: Prior, length: int) -> xr.Dataset:
    """A series of that length without jumps: a held-out window, forward and backward."""
    window = prior.reference[0][0]
    both = np.concatenate([window, window[::-1]])
    states = both[np.arange(length) % len(both)]
    template, fields = prior.layout.template(prior.layout.times(0.0, length)), prior.layout.to_physical(states)
    return template.assign({v: (template[v].dims, fields[v], template[v].attrs) for v in prior.states})


def state_bytes(prior: Prior) -> int:
    """Bytes of one state in float32."""
    return 4 * prior.layout.channels * int(np.prod(prior.layout.shape))


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {key: part | {"passed": bool(part["passed"])} for key, part in found.items()}
