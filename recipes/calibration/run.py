"""Simulation-based calibration of the methods on Lorenz 1963, with a linear and a nonlinear observation.

    python recipes/calibration/run.py sample --folder calibration
    python recipes/calibration/run.py report --folder calibration

Truths are trajectories of the system, which are also what the shipped prior has learnt. Results of methods lie in the
folder and are not computed again, so a killed run goes on. `report` writes results.csv and coverage.png.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import click

import sdaxr
from sdaxr import operators as op
from sdaxr.verification.verdict import describe

HERE = Path(__file__).parent
STEPS, MEMBERS = 33, 19
# Both are scenarios of recipes/lorenz63: the paper's low frequency, and a nonlinear one.
SCENARIOS: dict[str, dict[str, Any]] = {
    "linear": {"operator": op.select("a"), "every": 8, "error": 0.4},
    "nonlinear": {"operator": op.select("a") >> op.arctan(1 / 8), "every": 4, "error": 0.05},
}
PRIOR, SYSTEM = {"prior": "lorenz63"}, {"system": "lorenz63"}
BOUNDED = {"name": "bounded", "gamma": 0.03}
FAST = {"sampler": {"steps": 28, "corrections": 3}}
# What is calibrated, and with how many truths: more for the default and its cure, fewer for what is slow or far off.
CASES: dict[str, dict[str, Any]] = {
    "sda": PRIOR | FAST | {"truths": 96},
    "sda, covariance": PRIOR | FAST | {"method": {"name": "sda", "variance": "covariance"}, "truths": 96},
    "mmps": PRIOR | FAST | {"method": {"name": "mmps", "iterations": 2}, "truths": 48},
    "jacobian_free": PRIOR | FAST | {"method": "jacobian_free", "truths": 48},
    "dps": PRIOR | FAST | {"method": "dps", "truths": 48},
    "dmps": PRIOR | FAST | {"method": "dmps", "truths": 48},
    "sda, bounded": PRIOR | FAST | {"method": {"name": "sda", "variance": BOUNDED}, "truths": 48},
    "ffbs": SYSTEM | {"method": {"name": "ffbs", "particles": 4096}, "truths": 96},
    "bpf": SYSTEM | {"method": {"name": "bpf", "particles": 4096}, "truths": 96},
    "4dvar": SYSTEM | {"method": "4dvar", "truths": 24},
}
LINEAR_ONLY = ("dmps",)


@click.group()
def main() -> None:
    """Calibrate methods."""
    logging.basicConfig(level=logging.WARNING)


@main.command()
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--case", "chosen", type=click.Choice(list(CASES)), multiple=True, help="Only these. Default: all.")
@click.option("--truths", type=int, help="Number of truths of each case.")
def sample(folder: Path, chosen: tuple[str, ...], truths: int | None) -> None:
    """Draw, observe and assimilate the truths of each case."""
    for name in chosen or CASES:
        for scenario, how in SCENARIOS.items():
            if scenario != "linear" and name in LINEAR_ONLY:
                continue
            case = CASES[name] | ({} if truths is None else {"truths": truths})
            start = time.process_time()
            result = sdaxr.calibrate(
                "lorenz63", steps=STEPS, members=MEMBERS, seed=1, store=path(folder, name, scenario), progress=False,
                **how, **case,
            )  # fmt: skip
            seconds = (time.process_time() - start) / result.sizes["truth"]
            print(f"\n{name}, {scenario} observations: {seconds:.1f} s a truth\n{describe(result)}", flush=True)


def path(folder: Path, name: str, scenario: str) -> Path:
    return folder / f"{name.replace(', ', '-')}-{scenario}.nc"


if __name__ == "__main__":
    main()
