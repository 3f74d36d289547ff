"""The forcing of Lorenz 1996 as an unknown constant, estimated with the trajectory: a prior beside ensemble smoothers.

    python recipes/lorenz96/parameters.py                                    # ensemble methods, which know the model
    python recipes/lorenz96/parameters.py --prior lorenz96-forcing --method sda --method mmps
    python recipes/lorenz96/parameters.py --take recipes/gpu/h200/parameters.jsonl   # from a GPU

Each truth has a forcing of its own, drawn from a range. The prior has the variables ``x`` and ``forcing``, and was
trained on trajectories with forcings of this range; a prior of fields of the forcing is taken as one of the parameter.
Each row of parameters.csv is one method in one setting; a row that is computed again replaces the old one.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr
from rows import save
from run import HALF, HALF_OBSERVED, LORENZ_96, Setting, score, text

import sdaxr
from sdaxr.filters.enks import EnKS
from sdaxr.filters.ensemble import EnsembleMethod
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.letkf import LETKF
from sdaxr.posterior.methods import build_method
from sdaxr.prior.files import Prior
from sdaxr.systems.base import System
from sdaxr.systems.registry import open_system
from sdaxr.verification.uniformity import inside, ranks_among

HERE = Path(__file__).parent
KEYS = ["setting", "states", "window", "method", "options", "members"]
LEVEL = 0.9
# Forcings of the truths.
RANGE = (5.0, 11.0)
SETTINGS: dict[str, Setting] = {"sakov2008": LORENZ_96, "bocquet2010": HALF_OBSERVED}
# The options of run.py, with more inflation: the forcing is not inflated by the model.
ENSEMBLES: tuple[tuple[EnsembleMethod, int], ...] = (
    (EnKS(filter=ETKF(inflation=1.02, rotation=True), lag=20), 40),
    (EnKS(filter=LETKF(inflation=1.04, localisation=HALF, rotation=True), lag=20), 20),
)


@click.command(context_settings={"show_default": True})
@click.option("--prior", help="Prior of x and forcing, a file or the name of a shipped one; else ensembles.")
@click.option(
    "--method", "methods", multiple=True, default=("sda", "mmps"), help="Method of the prior; repeat for more."
)
@click.option("--setting", "settings", multiple=True, type=click.Choice(list(SETTINGS)), default=list(SETTINGS))
@click.option("--states", default=64, help="States of a truth, 0.05 apart.")
@click.option("--window", type=int, help="States of a window of a cycle; all states at once without it.")
@click.option("--truths", default=32)
@click.option("--members", default=32, help="Members of the prior.")
@click.option("--levels", type=int, help="Noise levels of the sampler; else those of the prior's file.")
@click.option("--low", default=RANGE[0], help="Least forcing of the truths.")
@click.option("--high", default=RANGE[1], help="Largest forcing of the truths.")
@click.option("--seed", default=0)
@click.option("--take", type=click.Path(exists=True, path_type=Path), help="Only take the truths of a GPU run.")
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "parameters.csv")
def main(
    prior: str | None, methods: tuple[str, ...], settings: tuple[str, ...], states: int, window: int | None,
    truths: int, members: int, levels: int | None, low: float, high: float, seed: int, take: Path | None, output: Path,
) -> None:  # fmt: skip
    """Estimate the forcing of many truths, and write one row for each method."""
    if take is not None:
        taken(take, output)
        return
    opened = None if prior is None else with_forcing(sdaxr.open_prior(prior))
    for name in settings:
        setting = SETTINGS[name]
        system = open_system("lorenz96", forcing=(low, high))
        cases = [case(setting, system, states, seed + number) for number in range(truths)]
        runs: list[tuple[Any, int]] = [(build_method(m, "sda"), members) for m in methods] if opened else [*ENSEMBLES]
        for method, count in runs:
            found = [estimate(c, method, count, opened, system, window, levels) for c in cases]
            options = text(method) if opened is None else f"levels={levels or 'own'}"
            keys = (name, states, window or states, method.name, options, count)
            save(dict(zip(KEYS, keys, strict=True)) | summary(found), KEYS, output)


def taken(path: Path, output: Path) -> None:
    """Write the rows of truths that were estimated on a GPU, by the phase `parameters` of `recipes/gpu`."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    truths = pd.DataFrame([line for line in lines if line["what"] == "truth"])
    for (setting, states, method, levels, members), rows in truths.groupby(
        ["setting", "states", "method", "levels", "members"], sort=False
    ):
        keys = (setting, states, states, method, f"levels={levels}", members)
        save(dict(zip(KEYS, keys, strict=True)) | summary(rows.to_dict("records")), KEYS, output)


def estimate_one(
    prior: str, setting: str, states: int, method: str, levels: int, members: int, seed: int, device: str
) -> dict[str, float]:
    """Scores of one truth with a prior; ``states`` are smoothed at once."""
    system = open_system("lorenz96", forcing=RANGE)
    found = case(SETTINGS[setting], system, states, seed)
    return estimate(
        found, build_method(method, "sda"), members, with_forcing(sdaxr.open_prior(prior)), system, None, levels, device
    )


def with_forcing(prior: Prior) -> Prior:
    """The prior, whose variable ``forcing`` is a parameter, as it may be already."""
    return prior if prior.layout.parameters else prior.with_parameters("forcing")


def case(setting: Setting, system: System, states: int, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """A truth with a forcing of its own, and its observations."""
    fields, template = system.trajectory(states, seed), system.template()
    time = ("time", np.arange(states) * system.step, system.time_attrs)
    variables = {
        "x": (("time", "site"), fields["x"], template.x.attrs),
        "forcing": ((), fields["forcing"][0], template.forcing.attrs),
    }
    truth = xr.Dataset(variables, dict(template.coords) | {"time": time})
    return truth, sdaxr.observe(truth[["x"]], setting.operator, error=setting.error, seed=seed)


def estimate(
    case: tuple[xr.Dataset, xr.Dataset], method: Any, members: int, prior: Prior | None, system: System,
    window: int | None, levels: int | None, device: str = "auto",
) -> dict[str, float]:  # fmt: skip
    """Scores of the forcing, with all observations known, and of the states, for one truth."""
    truth, observations = case
    given: dict[str, Any] = {"method": method, "members": members, "times": truth.time, "progress": False}
    if prior is None:
        given["system"] = system
    else:
        given |= {
            "prior": prior,
            "device": device,
            "sampler": {"mixing": False} | ({} if levels is None else {"steps": levels}),
        }
    begun = time.perf_counter()
    found = sdaxr.assimilate(observations, **given) if window is None else sdaxr.cycle(
        observations, window=window, **given
    )  # fmt: skip
    spent = time.perf_counter() - begun
    forcing = found.forcing.isel(time=-1) if "time" in found.forcing.dims else found.forcing
    error = np.sqrt(float(((found.x.mean("member") - truth.x) ** 2).mean()))
    return scores_of(forcing.values.astype(float), float(truth.forcing)) | {"rmse_state": error, "seconds": spent}


def scores_of(members: np.ndarray, truth: float) -> dict[str, float]:
    """Error and squared spread of members (members,), fair CRPS, and whether the truth is in their interval of 90 %."""
    rank = ranks_among(np.array([truth]), members[:, None], np.random.default_rng(0))
    within = inside(rank, len(members), (LEVEL,))
    crps = score(members[None, :, None], np.array([[truth]]))["crps"]
    return {
        "error": members.mean() - truth, "variance": members.var(ddof=1), "crps": float(crps[0]),
        "covered": float(within.mean()), "truth": truth,
    }  # fmt: skip


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    """Means over the truths: root mean square error of the forcing with its standard error, spread, coverage, CRPS."""
    table = pd.DataFrame(found)
    square, count = table.error**2, len(table)
    rmse, spread = square.mean() ** 0.5, table.variance.mean() ** 0.5
    return {
        "truths": count, "rmse": rmse, "rmse_se": square.sem() / (2 * rmse), "bias": table.error.mean(),
        "spread": spread, "coverage": table.covered.mean(), "coverage_se": (LEVEL * (1 - LEVEL) / count) ** 0.5,
        "crps": table.crps.mean(), "deviation": table.truth.std(ddof=0), "rmse_state": table.rmse_state.mean(),
        "seconds": table.seconds.mean(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
