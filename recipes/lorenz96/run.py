"""Ensemble filters and smoothers on Lorenz 1963 and Lorenz 1996, against published errors.

    python recipes/lorenz96/run.py                                   # every setting and method
    python recipes/lorenz96/run.py --setting spantini2019 --method letkf

The settings and the published errors are those of DAPPER (Raanes et al. 2024, doi:10.21105/joss.05150). Each row of
results.csv is one method in one setting; a row that is computed again replaces the old one. A method of another kind
gets a row with the same columns: `score` takes any members at the observed times. Seconds are those of a CPU, for a
cycle of a smoother or filter, the forecasts included.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr
from rows import save

from sdaxr import operators as op
from sdaxr.filters.binding import build_model
from sdaxr.filters.enff import EnFF
from sdaxr.filters.enkf import EnKF
from sdaxr.filters.enks import EnKS
from sdaxr.filters.ensemble import EnsembleMethod
from sdaxr.filters.ensf import EnSF
from sdaxr.filters.ensrf import EnSRF
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.ienks import IEnKS
from sdaxr.filters.latent import Latent
from sdaxr.filters.letkf import LETKF
from sdaxr.filters.pff import PFF
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.observations.observe import operator_for
from sdaxr.systems.base import System
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.lorenz96 import Lorenz96

HERE = Path(__file__).parent
KEYS = ["setting", "method", "options", "members"]
HEAD = ("method", "members", "RMSE of the filter", "published", "of the smoother", "spread", "CRPS", "ms a cycle")
SCORES = ("rmse_filter", "rmse_smoother", "spread", "crps", "seconds")
# Columns in which an empty field is a missing number; an empty text is a text.
NUMBERS = {key: [""] for key in ("cycles", *(f"{n}{end}" for n in SCORES for end in ("", "_se")), "published")}
# Standard errors are those of the means of so many stretches of the cycles of each truth.
BATCHES = 5
# The support of the taper of DAPPER with the radius 4 ends at twice 1.82 * 4.
HALF = 1.82 * 4


@dataclass(frozen=True)
class Setting:
    """A system, what is observed of it, and the methods that were tried on it.

    ``every`` states are a cycle. ``spread`` is the standard deviation of the first ensemble about the first state. The
    truth is a trajectory of ``nature``; None: of the system, which is then without error.
    """

    system: System
    every: int
    operator: op.Operator
    error: float
    spread: float
    burn_in: int
    cycles: int
    runs: tuple[Run, ...] = ()
    nature: System | None = None


@dataclass(frozen=True)
class Run:
    """A method, its number of members, and the published error of its filter, None where there is none."""

    method: EnsembleMethod
    members: int
    published: float | None = None

    def draw(self, model: StateSpaceModel, seed: int) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Members of the filter and, where there is one, of the smoother, (members, time, n); and CPU seconds."""
        begun = time.process_time()
        if isinstance(self.method, IEnKS):
            found = self.method.iterate(model, seed)
            return found.filtered, found.smoothed, time.process_time() - begun
        drawn = self.method.draw(model, self.members, seed).paths
        spent = time.process_time() - begun
        if isinstance(self.method, EnKS):
            # The smoother has the analyses of this filter, and keeps no copy of what it changes.
            return self.method.filter.draw(model, self.members, seed).paths, drawn, spent
        return drawn, None, spent


LORENZ_63 = Setting(Lorenz63(step=0.01, noise=0.0), 25, op.identity(), 2**0.5, 2**0.5, 50, 1000)
LORENZ_96 = Setting(Lorenz96(), 1, op.identity(), 1.0, 1.0, 200, 500)
HALF_OBSERVED = replace(LORENZ_96, operator=op.subsample(2), error=1.5)
SPANTINI = Setting(Lorenz96(step=0.4, substeps=20), 1, op.subsample(2), 0.5**0.5, 0.1**0.5, 50, 300)

# Methods of which DAPPER lists no errors. Options are the best of tries on the truth of the seed 100. The patterns
# of 40 members leave one direction of 40 without a correction; those of 50 are all.
PATTERNS = Latent(filter=ETKF(inflation=1.02, rotation=True))

SETTINGS = {
    "sakov2012": replace(
        LORENZ_63,
        runs=(
            Run(ETKF(inflation=1.30), 3, 0.80),
            Run(ETKF(inflation=1.02, rotation=True), 10, 0.60),
            Run(EnKF(inflation=1.04), 10, 0.65),
            Run(EnKF(inflation=1.01), 100, 0.56),
            Run(ETKF(finite_size=1.0), 3, 0.60),
            Run(ETKF(finite_size=1.0, rotation=True), 10, 0.54),
            Run(ETKF(adaptive=0.1, rotation=True), 10),
            Run(EnKS(filter=ETKF(inflation=1.02, rotation=True), lag=25), 10),
            Run(IEnKS(lag=25, inflation=1.02, rotation=True), 10, 0.31),
        ),
    ),
    "sakov2008": replace(
        LORENZ_96,
        runs=(
            Run(EnKF(inflation=1.06), 40, 0.22),
            Run(EnKF(inflation=1.08), 28, 0.24),
            Run(EnKF(inflation=1.05, localisation=HALF), 20),
            Run(ETKF(inflation=1.013, rotation=True), 24, 0.18),
            Run(ETKF(finite_size=1.0, rotation=True), 24, 0.21),
            Run(ETKF(finite_size=2.0, rotation=True), 24, 0.18),
            Run(EnSRF(inflation=1.02), 28, 0.18),
            Run(EnSRF(inflation=1.07, localisation=1.82 * 6), 7, 0.23),
            Run(LETKF(inflation=1.04, localisation=HALF, rotation=True), 7, 0.22),
            Run(ETKF(adaptive=0.1, rotation=True), 24),
            Run(LETKF(adaptive=0.1, localisation=HALF, rotation=True), 7),
            Run(EnKS(filter=ETKF(inflation=1.013, rotation=True), lag=20), 24),
            Run(EnKS(filter=LETKF(inflation=1.04, localisation=HALF, rotation=True), lag=10), 7),
            Run(IEnKS(lag=20, finite_size=2.0), 24),
            Run(PATTERNS, 40),
            Run(PATTERNS, 50),
            Run(PFF(localisation=HALF), 20),
            Run(EnSF(scale=2.0, steps=50, batch=1), 20),
            Run(EnFF(guidance=0.015, sigma=0.03), 20),
        ),
    ),
    "forcing": replace(
        LORENZ_96,
        nature=Lorenz96(forcing=8.5),
        runs=(
            Run(LETKF(inflation=1.04, localisation=HALF, rotation=True), 7),
            Run(LETKF(inflation=1.1, localisation=HALF, rotation=True), 7),
            Run(LETKF(adaptive=0.1, localisation=HALF, rotation=True), 7),
        ),
    ),
    "bocquet2013": replace(
        LORENZ_96,
        system=Lorenz96(step=0.2, substeps=4),
        burn_in=100,
        runs=(Run(ETKF(finite_size=1.0, rotation=True), 20), Run(IEnKS(lag=4, finite_size=2.0), 20, 0.31)),
    ),
    "bocquet2010": replace(
        HALF_OBSERVED,
        runs=(
            Run(ETKF(finite_size=1.0, inflation=1.01, rotation=True), 24, 0.58),
            Run(ETKF(finite_size=2.0, rotation=True), 24),
            Run(ETKF(adaptive=0.1, rotation=True), 24),
            Run(LETKF(inflation=1.04, localisation=HALF, rotation=True), 10),
            Run(LETKF(adaptive=0.1, localisation=HALF, rotation=True), 10),
            Run(IEnKS(lag=2, inflation=1.04), 19, 0.46),
            Run(IEnKS(lag=2, finite_size=1.5), 19, 0.45),
            Run(EnKF(inflation=1.05, localisation=HALF), 20),
            Run(EnSRF(inflation=1.04, localisation=HALF), 10),
            Run(EnKS(filter=LETKF(inflation=1.04, localisation=HALF, rotation=True), lag=10), 10),
            Run(PATTERNS, 40),
            Run(PATTERNS, 50),
            Run(PFF(localisation=HALF), 20),
            Run(EnSF(scale=3.0, steps=50), 20),
            Run(EnFF(guidance=0.05, sigma=0.1), 20),
        ),
    ),
    "spantini2019": replace(
        SPANTINI,
        runs=(
            Run(ETKF(inflation=1.10), 40, 2.2),
            Run(ETKF(inflation=1.10), 60, 1.3),
            Run(ETKF(inflation=1.10), 100, 0.97),
            Run(LETKF(inflation=1.10, localisation=HALF), 40, 1.0),
            Run(LETKF(inflation=1.02, localisation=HALF), 60, 0.89),
            Run(LETKF(inflation=1.02, localisation=HALF), 100, 0.84),
            Run(LETKF(inflation=1.06, localisation=HALF), 100),
            Run(LETKF(adaptive=0.1, localisation=HALF), 40),
            Run(IEnKS(lag=2, inflation=1.10), 40, 0.52),
            Run(IEnKS(lag=2, finite_size=1.0, rotation=True), 100, 0.43),
            Run(EnKF(inflation=1.1, localisation=HALF), 40),
            Run(EnSRF(inflation=1.1, localisation=HALF), 40),
            Run(EnKS(filter=LETKF(inflation=1.1, localisation=HALF), lag=2), 40),
            Run(PATTERNS, 40),
            Run(Latent(filter=ETKF(inflation=1.1)), 100),
            Run(PFF(localisation=HALF), 40),
            Run(EnSF(steps=50), 40),
            Run(EnFF(guidance=0.1, adaptive=0.1), 20),
        ),
    ),
}


@click.command()
@click.option("--setting", "names", multiple=True, type=click.Choice(list(SETTINGS)), help="Default: all.")
@click.option("--method", "methods", multiple=True, help="Names of methods, or with options. Default: all.")
@click.option("--truths", default=4, show_default=True, help="Independent series.")
@click.option("--cycles", type=int, help="Cycles of each after the burn-in. Default: 1000 or 500.")
@click.option("--output", type=Path, default=HERE / "results.csv", show_default=True)
def main(names: tuple[str, ...], methods: tuple[str, ...], truths: int, cycles: int | None, output: Path) -> None:
    """Measure, write a row for each method, and the tables of the page."""
    for name in names or SETTINGS:
        setting = SETTINGS[name] if cycles is None else replace(SETTINGS[name], cycles=cycles)
        runs = [run for run in setting.runs if not methods or any(label(run.method).startswith(m) for m in methods)]
        series = [experiment(setting, seed) for seed in range(truths)]
        for run in runs:
            found = measure(setting, run, series)
            row = {"setting": name, "method": run.method.name, "options": text(run.method), "members": run.members}
            found = {name: found.get(name) for name in NUMBERS} | {"published": run.published}
            save(row | found, KEYS, output)
    if output == HERE / "results.csv":
        page = HERE / "README.md"
        page.write_text(with_tables(page.read_text(), pd.read_csv(output, keep_default_na=False, na_values=NUMBERS)))
    print(pd.read_csv(output).to_string())


def experiment(setting: Setting, seed: int) -> tuple[np.ndarray, StateSpaceModel]:
    """A truth at the observed times, (cycle, n), and the model with observations of it."""
    system, count = setting.system, setting.every * (setting.burn_in + setting.cycles)
    template = system.template()
    fields = (setting.nature or system).trajectory(count + 1, seed)
    axis = xr.DataArray(np.arange(count + 1) * system.step, dims="time", name="time", attrs=system.time_attrs)
    data = {n: (("time", *v.dims), fields[n], v.attrs) for n, v in template.data_vars.items()}
    truth = xr.Dataset(data, dict(template.coords) | {"time": axis})
    how = {"every": setting.every, "start": setting.every, "error": setting.error, "seed": seed}
    seen = truth.sda.observe(setting.operator, **how)
    states = system.to_vectors(fields)
    noise = np.random.default_rng([seed, 9]).normal(size=(400, system.size))
    first = states[0] + setting.spread * noise
    model, _ = build_model({"seen": seen}, {"seen": operator_for(seen)}, system, truth.time, first=first)
    return states[setting.every :: setting.every], model


def measure(setting: Setting, run: Run, series: list[tuple[np.ndarray, StateSpaceModel]]) -> dict[str, float]:
    """Means over all cycles and truths, with their standard errors."""
    parts, seconds = [], []
    for seed, (truth, model) in enumerate(series):
        given = replace(model, first=model.first[: run.members])
        run.method.check(given, run.members)
        filtered, smoothed, spent = run.draw(given, seed)
        scores = score(at_observed(setting, filtered), truth)
        if smoothed is not None:
            scores["rmse_smoother"] = score(at_observed(setting, smoothed), truth)["rmse_filter"]
        seconds.append(spent / len(truth))
        parts.append({key: values[setting.burn_in :] for key, values in scores.items()})
    found: dict[str, float] = {"cycles": len(series) * setting.cycles}
    for key in ("rmse_filter", "rmse_smoother", "spread", "crps"):
        if key in parts[0]:
            found |= dict(zip((key, f"{key}_se"), batch_means([part[key] for part in parts]), strict=True))
    error = np.std(seconds, ddof=1) / len(seconds) ** 0.5 if len(seconds) > 1 else np.nan
    return found | {"seconds": float(np.mean(seconds)), "seconds_se": float(error)}


def at_observed(setting: Setting, paths: np.ndarray) -> np.ndarray:
    """Members at the observed times, (cycle, members, n), of trajectories (members, time, n)."""
    return paths[:, setting.every :: setting.every].swapaxes(0, 1)


def score(members: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Scores by cycle: error of the mean and spread, each the root of a mean over the elements, and the fair CRPS.

    Parameters
    ----------
    members
        Shape (cycle, members, n).
    truth
        Shape (cycle, n).
    """
    count = members.shape[1]
    error = np.sqrt(((members.mean(1) - truth) ** 2).mean(1))
    spread = np.sqrt(members.var(1, ddof=1).mean(1))
    rank = 2 * np.arange(1, count + 1) - count - 1
    between = (rank[:, None] * np.sort(members, 1)).sum(1) / (count * (count - 1))
    crps = (np.abs(members - truth[:, None]).mean(1) - between).mean(1)
    return {"rmse_filter": error, "spread": spread, "crps": crps}


def batch_means(series: list[np.ndarray]) -> tuple[float, float]:
    """The mean of correlated series, and its standard error from the means of long stretches."""
    means = np.array([part.mean() for each in series for part in np.array_split(each, BATCHES)])
    return float(np.concatenate(series).mean()), float(means.std(ddof=1) / len(means) ** 0.5)


def text(method: EnsembleMethod) -> str:
    """The options that are not the defaults."""
    parts = []
    for key, value in method.to_dict().items():
        if key == "filter":
            parts.append(f"{method.filter.name}({text(method.filter)})")
        elif value != type(method)().to_dict()[key]:
            parts.append(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}")
    return ", ".join(parts)


def label(method: EnsembleMethod) -> str:
    """The name and the options that are not the defaults, as in the tables."""
    return f"{method.name} {text(method)}".strip()


def with_tables(page: str, table: pd.DataFrame) -> str:
    """The page with the rows of each setting between its marks: those of `SETTINGS` in their order, then others."""
    for name, setting in SETTINGS.items():
        keys = [(run.method.name, text(run.method), run.members) for run in setting.runs]
        own = table[table.setting == name]
        places = [_place((row.method, row.options, row.members), keys) for row in own.itertuples()]
        rows = [_row(own.iloc[i]) for i in np.argsort(places, kind="stable")]
        lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *rows]
        marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = page.split(marks[0])
        page = "\n".join([before + marks[0], "", *lines, "", marks[1] + rest.split(marks[1])[1]])
    return page


def _place(key: tuple[str, str, int], keys: list[tuple[str, str, int]]) -> int:
    return keys.index(key) if key in keys else len(keys)


def _row(row: pd.Series) -> str:
    def with_error(key: str, factor: float = 1.0, digits: int = 3) -> str:
        if pd.isna(row[key]):
            return ""
        return f"{factor * row[key]:.{digits}f} ± {factor * row[f'{key}_se']:.{digits}f}"

    cells = (
        f"`{row.method}` {row.options}".strip(), f"{row.members}", with_error("rmse_filter"),
        "" if pd.isna(row.published) else f"{row.published:g}", with_error("rmse_smoother"), with_error("spread"),
        with_error("crps"), with_error("seconds", 1000, 2),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
