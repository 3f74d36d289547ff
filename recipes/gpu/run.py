"""Ten minutes of a GPU: checks, rates, and priors at the scale of the papers.

    python recipes/gpu/run.py --minutes 9                             # the usual phases, as far as the minutes go
    python recipes/gpu/run.py --minutes 9.5 --phases forcing,smoothing,parameters
    python recipes/gpu/run.py --minutes 5 --phases flow --resume DIR  # go on from the files of an earlier run
    python recipes/gpu/run.py --device cpu --tenth                    # the rehearsal

Each phase is a process of its own: a phase that fails or hangs takes no time from the next one.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Seconds of each phase.
PHASES = {
    "check": 60,
    "rates": 60,
    "flow": 300,
    "geostrophic": 90,
    "long": 60,
    "lorenz96": 260,
    "forcing": 250,
    "smoothing": 150,
    "parameters": 130,
    "patches": 500,
}
# What a run of ten minutes has time for; the others are asked for.
USUAL = ("check", "rates", "flow", "geostrophic", "long")
# A rehearsal reaches the last line of every phase on two cores.
REHEARSAL = {
    "check": 150,
    "rates": 150,
    "flow": 240,
    "geostrophic": 150,
    "long": 150,
    "lorenz96": 150,
    "forcing": 150,
    "smoothing": 150,
    "parameters": 150,
    "patches": 300,
}
# After its budget a phase has this long to write what it holds, then it is ended.
GRACE = 20
PACKAGES = ("torch", "jax", "numpy", "xarray", "zarr", "safetensors")


@click.command()
@click.option("--minutes", default=9.5, show_default=True, help="All together; what comes last gets what is left.")
@click.option("--phases", default=",".join(USUAL), show_default=True, help="Which, in their order.")
@click.option("--device", default="auto", show_default=True)
@click.option("--tenth", is_flag=True, help="Rehearse: everything at about a tenth of its size.")
@click.option("--out", type=Path, help="Results. Default: the folder that the variable OUT names, else gpu-results.")
@click.option("--resume", type=Path, help="Results of an earlier run, from which this one goes on.")
@click.option("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "sdaxr-gpu", help="Checkpoints and data.")
@click.option("--inside", type=float, hidden=True, help="Run the one phase in this process, for so many seconds.")
def main(
    minutes: float, phases: str, device: str, tenth: bool, out: Path | None, resume: Path | None, scratch: Path,
    inside: float | None,
) -> None:  # fmt: skip
    """Run the phases one after another; each ends within its budget, and leaves its results in the folder."""
    chosen = phases.split(",")
    unknown = set(chosen) - set(PHASES)
    if unknown:
        raise click.BadParameter(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(PHASES)}")
    out = (out or Path(os.environ.get("OUT", "gpu-results"))).absolute()
    if inside is not None:
        _phase(chosen[0], device, inside, tenth, out, scratch.absolute())
        return
    end = time.monotonic() + 60 * minutes
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(resume.iterdir()) if resume else ():
        if path.is_file() and not (out / path.name).exists():
            shutil.copy2(path, out)
    failed = []
    for name in chosen:
        left = end - time.monotonic() - GRACE
        # The last phase may take what the others left.
        seconds = REHEARSAL[name] if tenth else left if name == chosen[-1] else min(PHASES[name], left)
        if seconds < 10:
            click.echo(f"{name}: left out, no time is left")
            continue
        if _outcome(name, seconds, out, tenth):
            failed.append(name)
    for path in sorted(out.iterdir()):
        click.echo(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}")
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def _outcome(name: str, seconds: float, out: Path, tenth: bool) -> int:
    """Run one phase in a process of its own; its exit status."""
    context = click.get_current_context().params
    command = [
        sys.executable, str(HERE / "run.py"), "--phases", name, "--inside", f"{seconds:.1f}", "--out", str(out),
        "--device", context["device"], "--scratch", str(context["scratch"].absolute()), *(["--tenth"] if tenth else []),
    ]  # fmt: skip
    # The package from the checkout, without installation; JAX leaves memory of the GPU to torch.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # JAX 0.11 hangs on two cores in transforms of several flows at once, unless each has one thread.
    settings["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    start = time.monotonic()
    click.echo(f"{name}: {seconds:.0f} s")
    try:
        # A rehearsal is to reach the last line on any machine; on a GPU the minutes are what counts.
        code = subprocess.run(command, env=os.environ | settings, timeout=None if tenth else seconds + GRACE).returncode
    except subprocess.TimeoutExpired:
        code = -9
    click.echo(f"{name}: status {code} after {time.monotonic() - start:.0f} s")
    return code


def _phase(name: str, device: str, seconds: float, tenth: bool, out: Path, scratch: Path) -> None:
    logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stdout)
    start = time.monotonic()
    from phase import Phase

    from sdaxr.prior.hardware import choose_device

    phase = Phase(name, choose_device(device), seconds, tenth, out, scratch, start=start)
    phase.record("machine", **_machine(phase.device.type))
    importlib.import_module(name).run(phase)
    phase.record("end", seconds=round(time.monotonic() - start, 1))


def _machine(kind: str) -> dict[str, object]:
    """Device, cores and versions: what a number depends on."""
    import torch

    found: dict[str, object] = {"python": platform.python_version(), "cores": os.cpu_count(), "device": kind}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    main()
