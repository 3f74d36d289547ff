"""Sea surface temperature of the tropical Pacific from 60 places, and from 15: eight years, and the index Nino 3.4.

``python recipes/sst_pacific/run.py`` makes four priors of monthly anomalies from 1970-1994, observes the sea at some
places in each of the years 1995-2002, assimilates with each prior, and scores the posteriors on the whole sea, at 20
places that were withheld, and in the index Nino 3.4. A run that was killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import drawing
import numpy as np
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.operators import Operator
from sdaxr.verification.baselines import climatology, interpolate
from sdaxr.verification.verify import summary, verify

HERE = Path(__file__).resolve().parent
FILE, NAME = "sst_anomaly_pacific_1970-2003.nc", "sst_anomaly"
TRAIN = slice("1970-01", "1994-12")  # the last tenth, 30 months, validates
YEARS = range(1995, 2003)
PLACES, WITHHELD = (60, 15), 20
ERROR = 0.3  # K
MISSING = 0.3
NINO = {"lat": slice(-5, 5), "lon": slice(190, 240)}  # 5S-5N, 170W-120W
MAP_YEAR = 1997
METRICS = ("rmse", "crps", "spread", "spread_skill")
TRAINING: dict[str, Any] = {
    "network": {"patch": 2, "widths": (32, 64)},
    "optimisation": {"batch": 4, "learning_rate": 2e-3, "validate_every": 50},
}
# What each prior differs in; those with a network are trained for some minutes.
PRIORS: dict[str, dict[str, Any]] = {
    "network": TRAINING,
    "floor": {"steps": 0},
    "no-climatology": {"steps": 0, "statistics": {"normalise": "channel"}},
    "cosines": TRAINING | {"parameterisation": "spectral"},
}
# The prior and the method of each ensemble.
ENSEMBLES = {
    "network": ("network", "sda"),
    "no network": ("floor", "sda"),
    "optimal interpolation": ("floor", "oi"),
    "no climatology": ("no-climatology", "sda"),
    "cosine modes": ("cosines", "sda"),
}
SAMPLER: dict[str, Any] = {"corrections": 0}


@click.command()
@click.option("--store", type=click.Path(path_type=Path), default=Path("sst_pacific"), help="Folder for all states.")
@click.option("--minutes", default=5.0, show_default=True, help="Most that the training of a network may take.")
@click.option("--members", default=20, show_default=True, help="Posterior samples a window; 20 or more, for scores.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE, help="Folder for the tables and figures.")
def main(store: Path, minutes: float, members: int, results: Path) -> None:
    """Make the priors, assimilate each year, print and write the tables."""
    data = load()
    priors = {name: prior_of(name, data, store, minutes) for name in PRIORS}
    rows, months, ranks = [], [], []
    for count, year in ((c, y) for c in PLACES for y in YEARS):
        truth = data.sel(time=str(year))
        used, withheld = networks(data, count)
        observations = truth.sda.observe(used, error=ERROR, missing=MISSING, seed=year)
        for method, estimate in estimates(data, truth, observations, priors, members, store / f"{count}-{year}"):
            about = {"places": count, "method": method}
            rows.append({"year": year} | about | score(estimate, truth, withheld))
            if "member" in estimate.dims:
                months.append(monthly(estimate, truth).assign(**about))
                ranks.append(histogram(estimate, truth, withheld).assign(**about))
            if method == "network" and year == MAP_YEAR:
                path = results / f"map-{count}.png"
                estimate.sda.plot(truth=truth, observations=observations, times=3, members=1, path=path)
    write(results, pd.DataFrame(rows), pd.concat(months), pd.concat(ranks), priors, members)


def load() -> xr.Dataset:
    """Monthly anomalies (time, lat, lon) in K, NaN on land: `FILE` in the folder that SDAXR_DATA names."""
    path = Path(os.environ.get("SDAXR_DATA", "")) / FILE
    if not path.is_file():
        raise click.ClickException(
            f"found no {FILE}, expected it in the folder that the environment variable SDAXR_DATA names; "
            "recipes/sst_pacific/README.md says where it comes from"
        )
    return xr.open_dataset(path)[[NAME]].load()


def prior_of(name: str, data: xr.Dataset, store: Path, minutes: float) -> sdaxr.Prior:
    """The prior of this name from its file in ``store``; it is made where there is none."""
    path = store / f"{name}.safetensors"
    if path.exists():
        return sdaxr.open_prior(path)
    length = {} if "steps" in PRIORS[name] else {"minutes": minutes}
    return sdaxr.train(data.sel(time=TRAIN), path, window=12, name=f"sst_pacific-{name}", **length, **PRIORS[name])


def networks(data: xr.Dataset, number: int, seed: int = 0) -> tuple[Operator, Operator]:
    """Places at random points of the sea: the first ``number`` that are observed, and those that are withheld."""
    sea = np.argwhere(data[NAME].notnull().all("time").values)
    drawn = np.random.default_rng(seed).choice(sea, max(PLACES) + WITHHELD, replace=False)

    def places(points: np.ndarray) -> Operator:
        return op.points({d: data[d].values[points[:, i]].tolist() for i, d in enumerate(("lat", "lon"))})

    return places(drawn[:number]), places(drawn[max(PLACES) :])


def estimates(
    data: xr.Dataset,
    truth: xr.Dataset,
    observations: xr.Dataset,
    priors: dict[str, sdaxr.Prior],
    members: int,
    folder: Path,
) -> Iterator[tuple[str, xr.Dataset]]:
    """Each method's states, with the seconds that they took as an attribute; ensembles are kept in ``folder``."""
    for method, (prior, sampling) in ENSEMBLES.items():
        if prior in priors:
            options: dict[str, Any] = {"method": sampling, "members": members, "seed": int(truth.time.dt.year[0])}
            options |= {} if sampling == "oi" else {"sampler": SAMPLER}
            path = folder / f"{method.replace(' ', '-')}-{members}.nc"
            yield method, kept(path, lambda p=prior, o=options: observations.sda.assimilate(priors[p], **o))
    sea = truth[NAME].notnull()
    yield "interpolation", timed(lambda: interpolate(observations, truth).where(sea))
    yield "climatology", timed(lambda: climatology(data.sel(time=TRAIN), truth))


def kept(path: Path, draw: Callable[[], xr.Dataset]) -> xr.Dataset:
    """The ensemble in the file ``path``; it is drawn where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        timed(draw).to_netcdf(part)
        part.rename(path)  # a file of this name is whole
    with xr.open_dataset(path) as found:
        return found.load()


def timed(draw: Callable[[], xr.Dataset]) -> xr.Dataset:
    """What ``draw`` returns, with the attribute ``seconds``."""
    start = time.perf_counter()
    found = draw()
    return found.assign_attrs(seconds=time.perf_counter() - start)


def score(estimate: xr.Dataset, truth: xr.Dataset, withheld: Operator) -> dict[str, float]:
    """Scores on the whole sea, weighted by area, and at the places that were withheld (their true values)."""
    ensemble = "member" in estimate.dims
    metrics = METRICS if ensemble else ("rmse", "crps")
    found: dict[str, float] = {}
    for prefix, (x, y) in {
        "": (estimate, truth),
        "withheld_": (withheld.apply(estimate), withheld.apply(truth)),
    }.items():
        table = summary(verify(x, y, metrics=metrics))[NAME].reindex(METRICS)
        found |= {prefix + metric: float(value) for metric, value in table.items()}
        area = np.cos(np.deg2rad(y["lat"])) if "lat" in y.dims else xr.DataArray(1.0)
        inside = covered(x[NAME], y[NAME]).where(y[NAME].notnull()) if ensemble else y[NAME] * np.nan
        found[prefix + "coverage"] = float(inside.weighted(area).mean())
    return found | {"seconds": estimate.attrs["seconds"]}


def interval(ensemble: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Ends of the 90 % interval. One more draw of the same distribution lies in it with this probability."""
    # The default quantiles of an ensemble of 20 would hold 0.81.
    ends = ensemble.quantile([0.05, 0.95], "member", method="weibull", skipna=False)
    return ends.isel(quantile=0, drop=True), ends.isel(quantile=1, drop=True)


def covered(ensemble: xr.DataArray, true: xr.DataArray) -> xr.DataArray:
    """1 where the 90 % interval holds the truth, else 0."""
    low, high = interval(ensemble)
    return ((true >= low) & (true <= high)).astype(float)


def nino34(data: xr.Dataset) -> xr.DataArray:
    """The index: mean anomaly over the points in 5S-5N, 170W-120W, weighted by area."""
    box = data[NAME].sel(NINO)
    return box.weighted(np.cos(np.deg2rad(box["lat"]))).mean(("lat", "lon"))


def monthly(estimate: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
    """The index of each month: truth, ensemble mean and spread, and the ends of the 90 % interval."""
    index = nino34(estimate)
    low, high = interval(index)
    columns = {"truth": nino34(truth), "mean": index.mean("member"), "spread": index.std("member", ddof=1)}
    columns |= {"low": low, "high": high}
    return pd.DataFrame({k: v.values for k, v in columns.items()}, index=truth.indexes["time"])


def histogram(estimate: xr.Dataset, truth: xr.Dataset, withheld: Operator) -> pd.DataFrame:
    """Frequency of each rank of the truth among the members, at the places that were withheld."""
    found = verify(withheld.apply(estimate), withheld.apply(truth), metrics=("rank_histogram",))
    frequency = found[f"rank_histogram_{NAME}"]
    frequency = frequency.mean([d for d in frequency.dims if d != "rank"])
    return pd.DataFrame({"rank": frequency["rank"].values, "frequency": frequency.values})


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the years with its standard error."""
    grouped = table.drop(columns="year").groupby(["places", "method"], sort=False)
    mean, error = grouped.mean(), grouped.sem().add_suffix("_se")
    columns = [c for pair in zip(mean.columns, error.columns, strict=True) for c in pair]
    return mean.join(error)[columns].reset_index()


def summarise_index(months: pd.DataFrame) -> pd.DataFrame:
    """Scores of the index over all months."""
    rows = []
    for (places, method), m in months.groupby(["places", "method"], sort=False):
        scores = {
            "correlation": m["mean"].corr(m["truth"]),
            "rmse": ((m["mean"] - m["truth"]) ** 2).mean() ** 0.5,
            "spread": (m["spread"] ** 2).mean() ** 0.5,
            "coverage": m["truth"].between(m["low"], m["high"]).mean(),
            "truth_sd": m["truth"].std(),
        }
        rows.append({"places": places, "method": method} | scores)
    return pd.DataFrame(rows)


def write(
    results: Path,
    table: pd.DataFrame,
    months: pd.DataFrame,
    ranks: pd.DataFrame,
    priors: dict[str, sdaxr.Prior],
    members: int,
) -> None:
    """Tables, figure and settings into the folder; print the summaries."""
    ranks = ranks.groupby(["places", "method", "rank"], sort=False)["frequency"].mean().reset_index()
    table.to_csv(results / "results.csv", index=False, float_format="%.4f")
    months.to_csv(results / "nino34.csv", float_format="%.4f", date_format="%Y-%m")
    ranks.to_csv(results / "ranks.csv", index=False, float_format="%.4f")
    drawing.index_and_ranks(months, ranks, results / "nino34.png")
    scores, index = summarise(table), summarise_index(months)
    about = {
        "data": "SSTdata of the R package STRbook, monthly anomalies, tropical Pacific",
        "priors": {name: described(prior) for name, prior in priors.items()},
        "assimilation": {"sampler": SAMPLER, "members": members, "error": ERROR, "missing": MISSING},
        "machine": {"processor": platform.machine(), "sdaxr": sdaxr.schema.VERSION},
        "summary": json.loads(scores.round(4).to_json(orient="records")),
        "nino34": json.loads(index.round(4).to_json(orient="records")),
    }
    (results / "results.json").write_text(json.dumps(about, indent=1) + "\n")
    for shown in (scores, index):
        click.echo(shown.to_string(index=False, float_format="{:.3f}".format))


def described(prior: sdaxr.Prior) -> dict[str, Any]:
    """What a prior was made with, and what was chosen by validation."""
    about = {k: prior.metadata[k] for k in ("modes", "share", "statistics", "parameterisation") if k in prior.metadata}
    return about | {"training": {k: v for k, v in prior.metadata["training"].items() if k != "history"}}


if __name__ == "__main__":
    main()
