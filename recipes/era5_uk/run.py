"""A score-based prior of 2 m temperature over the British Isles from 24 days of ERA5, and a week of assimilation.

``python recipes/era5_uk/run.py`` trains on 1-21 March 2019 (22-24 March validate), observes stations on each of the
days 25-31, assimilates, and scores the posterior on the whole field and at 20 stations that were left out.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import t as student

import sdaxr
from sdaxr import operators as op
from sdaxr.operators import Operator
from sdaxr.prior.files import Prior
from sdaxr.verification.baselines import interpolate
from sdaxr.verification.verify import summary, verify

HERE = Path(__file__).resolve().parent
FILE = "era5_uk_t2m_2019-03.nc"
TRAIN = slice("2019-03-01", "2019-03-21")
VALID = slice("2019-03-22", "2019-03-24")
TEST = slice("2019-03-25", "2019-03-31")
MISSING = 0.3
# Number of stations, and the standard deviation of their errors in K. All methods are in the first, which the figure
# shows, and optimal interpolation with the prior's covariance in all.
SCENARIOS = ((60, 0.5), (20, 0.5), (200, 0.5), (60, 1.0))
METRICS = ("rmse", "crps", "spread", "spread_skill")
COLUMNS = (*METRICS, "cover_90", "seconds")
TRAINING: dict[str, Any] = {
    "window": 12,
    "context": ("mean", "spread", "diurnal"),
    "statistics": {"normalise": "point"},
    "network": {"patch": 2, "widths": (32, 64)},
    "optimisation": {"batch": 2, "levels": (0.03, 100.0), "validate_every": 50},
}
SAMPLER: dict[str, Any] = {"corrections": 0}
# Priors of the table: what differs from `TRAINING`, and how the posterior is drawn.
FLOOR: dict[str, Any] = {"steps": 0, "minutes": None}
PRIORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sdaxr": ({}, {"name": "sda"}),
    "sdaxr without network": (FLOOR, {"name": "sda"}),
    "method='oi'": (FLOOR, {"name": "oi"}),
    "oi, variances of the training days": (FLOOR, {"name": "oi", "adapt": False}),
    "oi, anomalies from the hourly climatology": (FLOOR | {"statistics": {"normalise": "climatology"}}, {"name": "oi"}),
    "oi, one mean for all points": (FLOOR | {"statistics": {"normalise": "channel"}}, {"name": "oi"}),
    "cosine modes": ({"parameterisation": "spectral"}, {"name": "sda"}),
}


@click.command()
@click.option(
    "--store", type=click.Path(path_type=Path), default=Path("era5_uk"), help="Folder for prior and posteriors."
)
@click.option("--minutes", default=3.0, show_default=True, help="Most that the training may take.")
@click.option("--members", default=32, show_default=True, help="Posterior samples a window.")
@click.option("--hours", default=24, show_default=True, help="Length of a window.")
@click.option("--split", type=click.Choice(["test", "valid"]), default="test", show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=HERE, help="Folder for the table and the figure.")
def main(store: Path, minutes: float, members: int, hours: int, split: str, results: Path) -> None:
    """Train, assimilate the held-out days, print and write the table."""
    data = load()
    priors = {name: trained(data, store / name_of(name), minutes, *PRIORS[name]) for name in PRIORS}
    chosen = data.sel(time={"test": TEST, "valid": VALID}[split])
    rows, ranks = [], []
    for case, (stations, error) in enumerate(SCENARIOS):
        used, left_out = networks(data, stations)
        for number, truth in enumerate(windows(chosen, hours)):
            observations = truth.sda.observe(used, error=error, missing=MISSING, seed=number)
            where = {"stations": stations, "error": error, "window": str(truth.time.values[0])[:13]}
            found = references(data, truth, observations, error)
            seconds = {}
            for name, (prior, method) in priors.items():
                if case and name != "method='oi'":
                    continue
                begin = time.monotonic()
                found[name] = observations.sda.assimilate(
                    prior, method=method, sampler=SAMPLER, members=members, seed=number, device="cpu"
                )
                seconds[name] = time.monotonic() - begin
            rows += score(where, truth, found, left_out, seconds)
            ranks += [histogram(name, found[name], left_out, truth) for name in priors if not case]
            if number == case == 0:
                found["sdaxr"].sda.plot(truth=truth, observations=observations, path=results / "posterior.png")
    table = pd.DataFrame(rows)
    table.to_csv(results / "results.csv", index=False, float_format="%.4f")
    pooled = pd.concat(ranks).groupby(["method", "rank"], sort=False)["frequency"].mean().reset_index()
    pooled.to_csv(results / "ranks.csv", index=False, float_format="%.4f")
    known = {name: prior for name, (prior, _) in priors.items()}
    (results / "results.json").write_text(
        json.dumps(describe(known, members, hours, summarise(table)), indent=1) + "\n"
    )
    click.echo(summarise(table).to_string(index=False, float_format="{:.3f}".format))


def name_of(method: str) -> str:
    """The file of a prior of the table."""
    return re.sub("[^a-z]+", "-", method).strip("-") + ".safetensors"


def trained(
    data: xr.Dataset, path: Path, minutes: float, changes: dict[str, Any], method: dict[str, Any]
) -> tuple[Prior, dict[str, Any]]:
    """A prior of the table, trained where there is none yet, and the method that it is used with."""
    if not path.exists():
        options = TRAINING | {"minutes": minutes} | changes
        sdaxr.train(training_data(data), path, name="era5_uk", **options)
    return sdaxr.open_prior(path), method


def load() -> xr.Dataset:
    """Hourly 2 m temperature (time, lat, lon): `FILE` in the folder SDAXR_DATA, else from xarray's tutorial data."""
    folder = os.environ.get("SDAXR_DATA")
    if folder:
        return xr.open_dataset(Path(folder) / FILE).load()
    found = xr.tutorial.open_dataset("era5-2mt-2019-03-uk.grib").load()
    data = found[["t2m"]].reset_coords(drop=True).rename(latitude="lat", longitude="lon")
    return data.drop_vars([c for c in data.coords if c not in data.dims])


def training_data(data: xr.Dataset) -> xr.Dataset:
    """The training and validation days, with static fields that tell land from sea."""
    known = data["t2m"].sel(time=TRAIN)
    hourly = known.groupby("time.hour").mean()
    seen = data[["t2m"]].sel(time=slice(TRAIN.start, VALID.stop))
    inside = seen.time <= known.time[-1]
    return seen.assign(
        mean=known.mean("time"), spread=known.std("time"), diurnal=hourly.max("hour") - hourly.min("hour")
    ).assign_coords(split=("time", np.where(inside, "train", "valid").astype(object)))


def networks(data: xr.Dataset, number: int = 60, left_out: int = 20, seed: int = 0) -> tuple[Operator, Operator]:
    """Stations at random points of the map, off the grid: those that are assimilated, and those that are left out."""
    random = np.random.default_rng(seed)

    def stations(count: int) -> Operator:
        ends = {d: (float(data[d].min()), float(data[d].max())) for d in ("lat", "lon")}
        return op.points({d: random.uniform(*e, count).round(2).tolist() for d, e in ends.items()})

    return stations(number), stations(left_out)


def windows(data: xr.Dataset, hours: int) -> Iterator[xr.Dataset]:
    """Consecutive windows without overlap; what is left at the end is not used."""
    for first in range(0, data.sizes["time"] - hours + 1, hours):
        yield data.isel(time=slice(first, first + hours))


def references(data: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset, error: float) -> dict[str, xr.Dataset]:
    """What else can be made of the same stations and training days; none of them sees the truth."""
    from optimal_interpolation import optimal_interpolation

    known = data["t2m"].sel(time=TRAIN)
    hourly = known.groupby("time.hour").mean()
    background = hourly.sel(hour=truth.time.dt.hour).drop_vars("hour").assign_attrs(truth["t2m"].attrs)
    usual = background.to_dataset(name="t2m")
    at_stations = op.from_json(observations.attrs["operator"]).apply(usual)
    anomalies = observations.assign(t2m=(observations["t2m"] - at_stations["t2m"]).assign_attrs(truth["t2m"].attrs))
    training = (known.groupby("time.hour") - hourly).drop_vars("hour").assign_attrs(truth["t2m"].attrs)
    analysis = optimal_interpolation(training, anomalies["t2m"].assign_attrs(error=error), background)
    found = {
        "interpolation": interpolate(observations, truth),
        "interpolation of anomalies": interpolate(anomalies, truth) + usual,
        "optimal interpolation": analysis.to_dataset(name="t2m"),
        "hourly climatology": usual,
    }
    return {name: field.assign(t2m=field["t2m"].assign_attrs(truth["t2m"].attrs)) for name, field in found.items()}


def score(
    where: dict[str, Any], truth: xr.Dataset, estimates: dict[str, xr.Dataset], left_out: Operator,
    seconds: dict[str, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a method and place: the whole field, and the stations that were left out (their true values)."""
    rows = []
    for name, estimate in estimates.items():
        places = {"field": (estimate, truth), "stations": (left_out.apply(estimate), left_out.apply(truth))}
        for place, (found, true) in places.items():
            ensemble = "member" in estimate.dims
            metrics = METRICS if ensemble else ("rmse", "crps")
            numbers = summary(verify(found, true, metrics=metrics))["t2m"].reindex(COLUMNS).to_dict()
            if ensemble:
                numbers["cover_90"] = covered(found["t2m"], true["t2m"])
                numbers["seconds"] = seconds[name]
            rows.append(where | {"place": place, "method": name, **numbers})
    return rows


def covered(ensemble: xr.DataArray, truth: xr.DataArray) -> float:
    """Fraction of the truth in the interval that 90 % of further draws of a normal distribution would fall into."""
    members = ensemble.sizes["member"]
    width = float(student.ppf(0.95, members - 1)) * (1 + 1 / members) ** 0.5 * ensemble.std("member", ddof=1)
    return float((np.abs(truth - ensemble.mean("member")) <= width).mean())


def histogram(method: str, ensemble: xr.Dataset, left_out: Operator, truth: xr.Dataset) -> pd.DataFrame:
    """Frequency of each rank of the true values among the members, at the stations that were left out."""
    found = verify(left_out.apply(ensemble), left_out.apply(truth), metrics=("rank_histogram",))
    frequency = found["rank_histogram_t2m"]
    frequency = frequency.mean([d for d in frequency.dims if d != "rank"])
    return pd.DataFrame({"method": method, "rank": frequency["rank"].values, "frequency": frequency.values})


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the windows with its standard error."""
    grouped = table.groupby(["stations", "error", "place", "method"], sort=False)[list(COLUMNS)]
    result, error = grouped.mean(), grouped.sem().add_suffix("_se")
    columns = [c for pair in zip(result.columns, error.columns, strict=True) for c in pair if c != "seconds_se"]
    return result.join(error)[columns].reset_index()


def describe(priors: dict[str, Prior], members: int, hours: int, table: pd.DataFrame) -> dict[str, Any]:
    """What the numbers were made with."""
    return {
        "data": "ERA5 hourly 2 m temperature, British Isles, March 2019; "
        "contains modified Copernicus Climate Change Service information 2019",
        "training": TRAINING,
        "priors": {name: about(prior) for name, prior in priors.items()},
        "assimilation": {"sampler": SAMPLER, "members": members, "hours": hours, "missing": MISSING},
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "sdaxr": sdaxr.schema.VERSION,
        },
        "summary": json.loads(table.round(4).to_json(orient="records")),
    }


def about(prior: Prior) -> dict[str, Any]:
    """What was chosen and learnt: modes, weight of the network by noise level, losses."""
    training = {k: v for k, v in prior.metadata["training"].items() if k != "history"}
    known = {k: prior.metadata[k] for k in ("modes", "share") if k in prior.metadata}
    return {**known, "training": training}


if __name__ == "__main__":
    main()
