"""What the package says of a device: which it chooses, how much memory a batch takes; and two processes on one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from check_agreement import SAMPLES, Checks, agreement, significant
from check_problems import LENGTHS, observations, opened_on, posed
from phase import Phase

import sdaxr
from sdaxr.inference.problem import Problem
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.memory import peak_bytes
from sdaxr.schema import OptionError

HERE = Path(__file__).resolve().parent
# `sdaxr.posterior.execution.batch_size` counts half as much again as the estimate; beyond that a batch may not fit.
# Less than half of the estimate would be a waste of memory.
LARGEST, SMALLEST = 1.5, 0.5
BATCHES = {"lorenz63": 4096}
SHARED = {"steps": 6, "corrections": 0, "attempts": 1}
# Seconds that a process of two waits for the other one.
WAIT = 120
_ONE_OF_TWO = """
import pathlib, sys
from check_device import one_of_two
one_of_two(int(sys.argv[3]), sys.argv[1], pathlib.Path(sys.argv[2]))
"""


def check_memory(checks: Checks) -> None:
    """The estimate of the memory of one guided evaluation, against that of the allocator of CUDA."""
    for name in LENGTHS:
        checks("memory", name, lambda name=name: _memory(checks, name))


def check_choice(checks: Checks) -> None:
    """``"auto"`` is the GPU where there is one; a device that is not there is refused."""
    checks("device", "auto", _automatic)
    checks("device", "cuda:99", _refused)


def check_two_processes(checks: Checks) -> None:
    """Two processes that assimilate on one device at the same time draw what one process draws alone."""
    checks("two processes", "kolmogorov", lambda: _two_processes(checks))


def draw(seed: int, device: str) -> np.ndarray:
    """Two members of a posterior of Kolmogorov flow, (variable, member, time, y, x)."""
    posterior = sdaxr.assimilate(
        observations("kolmogorov", {}), opened_on("kolmogorov", choose_device(device)), members=2, seed=seed,
        sampler=SHARED, device=device, precision="float32", progress=False,
    )  # fmt: skip
    return np.stack([posterior[v].values for v in ("u", "v")])


def one_of_two(number: int, device: str, folder: Path) -> None:
    """What each of the two processes does; both begin when both are ready."""
    torch.empty(0, device=device)
    (folder / f"ready-{number}").touch()
    end = time.monotonic() + WAIT
    while not all((folder / f"ready-{n}").exists() for n in (0, 1)):
        if time.monotonic() > end:
            raise TimeoutError("the other process is not ready")
        time.sleep(0.01)
    start = time.time()
    members = draw(number, device)
    np.savez(folder / f"drawn-{number}.npz", members=members, span=[start, time.time()])


def _memory(checks: Checks, name: str) -> dict[str, Any]:
    device = checks.phase.device
    method = "soad" if name.endswith("augmented") else None
    problem = posed(observations(name, {}), opened_on(name, device), method=method, device=device)
    # Batches whose tensors are much larger than the work space of a library, which does not grow with them.
    largest = checks.phase.size(BATCHES.get(name, 32), 2)
    found = {f"{members} members": _estimate(checks.phase, problem, members) for members in (largest // 2, largest)}
    passed = all(line.get("passed", True) for line in found.values())
    return found | {"applicable": device.type == "cuda", "passed": passed}


def _estimate(phase: Phase, problem: Problem, members: int) -> dict[str, Any]:
    """The estimate of one guided evaluation, and on a GPU its ratio to what the allocator counts."""
    guided, device = problem.guided.select(torch.arange(members)), phase.device
    z = torch.zeros(members, *problem.shape, device=device)
    guided(z, 1.0)  # what is computed once is not counted
    estimate = peak_bytes(lambda: guided(z.clone(), 1.0))
    line: dict[str, Any] = {"estimate_megabytes": significant(estimate / 1e6)}
    if device.type != "cuda":
        return line
    phase.synchronize()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    guided(z.clone(), 1.0)
    phase.synchronize()
    ratio = (torch.cuda.max_memory_allocated(device) - before) / estimate
    return line | {"measured_over_estimate": significant(ratio), "passed": SMALLEST <= ratio <= LARGEST}


def _automatic() -> dict[str, Any]:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    found = choose_device("auto").type
    return {"found": found, "passed": found == expected}


def _refused() -> dict[str, Any]:
    try:
        choose_device("cuda:99")
    except OptionError as error:
        return {"reason": str(error), "passed": True}
    return {"reason": "no OptionError", "passed": False}


def _two_processes(checks: Checks) -> dict[str, Any]:
    device, folder = str(checks.phase.device), checks.phase.scratch / "two-processes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    alone = [draw(number, device) for number in (0, 1)]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", _ONE_OF_TWO, device, str(folder)]
    processes = [subprocess.Popen([*command, str(n)], env=os.environ | {"PYTHONPATH": path}) for n in (0, 1)]
    limit = 2 * WAIT if checks.phase.tenth else max(15.0, checks.phase.left)
    try:
        status = [process.wait(limit) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(status):
        return {"status": status, "passed": False}
    together = [np.load(folder / f"drawn-{n}.npz") for n in (0, 1)]
    ends, starts = ([drawn["span"][i] for drawn in together] for i in (1, 0))
    overlap = min(ends) - max(starts)
    drawn = [one["members"] for one in together]
    as_tensors = [tuple(map(torch.as_tensor, pair)) for pair in zip(drawn, alone, strict=True)]
    # Sums on a GPU have no fixed order, so that two runs may differ by rounding errors.
    found = agreement({f"process_{n}": pair for n, pair in enumerate(as_tensors)}, SAMPLES["float32"])
    found |= {"to_the_last_bit": all(map(np.array_equal, drawn, alone)), "overlap_seconds": significant(overlap)}
    return found | {"passed": found["passed"] and overlap > 0}
