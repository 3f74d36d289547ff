"""A score-based prior of 2 m temperature over the British Isles from 24 days of ERA5, and a week of assimilation.

``python recipes/era5_uk/run.py`` trains on 1-21 March 2019 (22-24 March validate), observes 60 stations on each of
the days 25-31, assimilates, and scores the posterior on the whole field and at 20 stations that were left out.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr

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
ERROR = 0.5  # K
MISSING = 0.3
METRICS = ("rmse", "crps", "spread", "spread_skill")
TRAINING: dict[str, Any] = {
    "window": 12,
    "context": ("mean", "spread", "diurnal"),
    "statistics": {"normalise": "point"},
    "network": {"patch": 2, "widths": (32, 64)},
    "optimisation": {"batch": 2, "learning_rate": 2e-3, "levels": (0.03, 30.0), "validate_every": 100},
}
SAMPLER: dict[str, Any] = {"name": "ancestral", "steps": 16, "corrections": 1}


@click.command()
@click.option(
    "--store", type=click.Path(path_type=Path), default=Path("era5_uk"), help="Folder for prior and posteriors."
)
@click.option("--minutes", default=9.0, show_default=True, help="Most that the training may take.")
@click.option("--members", default=8, show_default=True, help="Posterior samples a window.")
@click.option("--hours", default=24, show_default=True, help="Length of a window.")
@click.option("--split", type=click.Choice(["test", "valid"]), default="test", show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=HERE, help="Folder for the table and the figure.")
def main(store: Path, minutes: float, members: int, hours: int, split: str, results: Path) -> None:
    """Train, assimilate the held-out days, print and write the table."""
    data = load()
    path = store / "prior.safetensors"
    if not path.exists():
        sdaxr.train(training_data(data), path, minutes=minutes, name="era5_uk", **TRAINING)
    prior = sdaxr.open_prior(path)
    used, left_out = networks(data)
    chosen = data.sel(time={"test": TEST, "valid": VALID}[split])
    rows = []
    for number, truth in enumerate(windows(chosen, hours)):
        observations = truth.sda.observe(used, error=ERROR, missing=MISSING, seed=number)
        start = str(truth.time.values[0])[:13]
        posterior = observations.sda.assimilate(
            prior, sampler=SAMPLER, members=members, seed=number, store=store / f"posterior-{start}.zarr"
        )
        rows += score(start, truth, {"sda": posterior} | references(data, truth, observations), left_out)
        if number == 0:
            posterior.sda.plot(truth=truth, observations=observations, path=results / "posterior.png")
    table = pd.DataFrame(rows)
    table.to_csv(results / "results.csv", index=False, float_format="%.4f")
    about = describe(prior, members, hours, summarise(table))
    (results / "results.json").write_text(json.dumps(about, indent=1) + "\n")
    click.echo(summarise(table).to_string(index=False, float_format="{:.3f}".format))


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


def references(data: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset) -> dict[str, xr.Dataset]:
    """What else can be made of the same stations and training days; none of them sees the truth."""
    from optimal_interpolation import optimal_interpolation

    known = data["t2m"].sel(time=TRAIN)
    hourly = known.groupby("time.hour").mean()
    background = hourly.sel(hour=truth.time.dt.hour).drop_vars("hour").assign_attrs(truth["t2m"].attrs)
    usual = background.to_dataset(name="t2m")
    at_stations = op.from_json(observations.attrs["operator"]).apply(usual)
    anomalies = observations.assign(t2m=(observations["t2m"] - at_stations["t2m"]).assign_attrs(truth["t2m"].attrs))
    training = (known.groupby("time.hour") - hourly).drop_vars("hour").assign_attrs(truth["t2m"].attrs)
    analysis = optimal_interpolation(training, anomalies["t2m"].assign_attrs(error=ERROR), background)
    found = {
        "interpolation": interpolate(observations, truth),
        "interpolation of anomalies": interpolate(anomalies, truth) + usual,
        "optimal interpolation": analysis.to_dataset(name="t2m"),
        "hourly climatology": usual,
    }
    return {name: field.assign(t2m=field["t2m"].assign_attrs(truth["t2m"].attrs)) for name, field in found.items()}


def score(start: str, truth: xr.Dataset, estimates: dict[str, xr.Dataset], left_out: Operator) -> list[dict[str, Any]]:
    """One row a method and place: the whole field, and the stations that were left out (their true values)."""
    rows = []
    for name, estimate in estimates.items():
        places = {"field": (estimate, truth), "stations": (left_out.apply(estimate), left_out.apply(truth))}
        for place, (found, true) in places.items():
            metrics = METRICS if "member" in estimate.dims else ("rmse", "crps")
            numbers = summary(verify(found, true, metrics=metrics))["t2m"].reindex(METRICS).to_dict()
            rows.append({"window": start, "place": place, "method": name, **numbers})
    return rows


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the windows with its standard error, and how far each method lies below linear interpolation."""
    grouped = table.groupby(["place", "method"], sort=False)
    result = grouped[["rmse", "crps", "spread_skill"]].mean()
    error = grouped[["rmse", "crps", "spread_skill"]].sem().add_suffix("_se")
    plain = table[table.method == "interpolation"].set_index(["window", "place"])["rmse"]
    gain = 1 - table["rmse"] / plain.loc[list(zip(table.window, table.place, strict=True))].values
    result["below_interpolation"] = gain.groupby([table.place, table.method]).mean()
    error["below_interpolation_se"] = gain.groupby([table.place, table.method]).sem()
    columns = [c for pair in zip(result.columns, error.columns, strict=True) for c in pair]
    return result.join(error)[columns].sort_index(level="place", sort_remaining=False).reset_index()


def describe(prior: Prior, members: int, hours: int, table: pd.DataFrame) -> dict[str, Any]:
    """What the numbers were made with."""
    training = {k: v for k, v in prior.metadata["training"].items() if k != "history"}
    return {
        "data": "ERA5 hourly 2 m temperature, British Isles, March 2019; "
        "contains modified Copernicus Climate Change Service information 2019",
        "training": TRAINING | training,
        "parameters": sum(p.numel() for p in prior.network.parameters()),
        "assimilation": {"sampler": SAMPLER, "members": members, "hours": hours, "error": ERROR, "missing": MISSING},
        "machine": {
            "processor": platform.machine(),
            "python": platform.python_version(),
            "sdaxr": sdaxr.schema.VERSION,
        },
        "summary": json.loads(table.round(4).to_json(orient="records")),
    }


if __name__ == "__main__":
    main()
