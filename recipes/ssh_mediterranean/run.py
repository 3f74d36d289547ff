"""Maps of the Mediterranean's sea level from along-track altimetry: 71 days to learn from, 20 days to map.

``python recipes/ssh_mediterranean/run.py`` measures a prior on 1 April - 10 June 2005, maps windows of 10 days of
11-30 June from four tracks a day, and scores the maps against the fields, also by wavelength.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import challenge
import click
import numpy as np
import pandas as pd
import tracks
import xarray as xr

import sdaxr
from sdaxr.observations.shared import ATTRIBUTES
from sdaxr.plotting import maps as cartography
from sdaxr.verification.verify import summary, verify

HERE = Path(__file__).resolve().parent
FILE = "ssh_mediterranean_2005q2.nc"
TRAIN, LENGTH = 71, 10  # days
WINDOWS = (0, 10, 5, 2, 8, 3, 7)  # first days of the windows, counted from the first test day; the first two are apart
METRICS = ("rmse", "crps", "spread", "spread_skill")
SAMPLER: dict[str, Any] = {"steps": 16, "corrections": 0}
POINTS = 200  # of the sea, for the rank histogram
# What the priors differ in; the network is trained for some minutes.
PRIORS: dict[str, dict[str, Any]] = {
    "point": {"steps": 0},
    "channel": {"steps": 0, "normalise": "channel"},
    "cosines": {"steps": 0, "parameterisation": "spectral"},
    "network": {},
}
Method = Callable[[xr.Dataset, xr.Dataset], xr.Dataset]


@click.command()
@click.option("--store", type=click.Path(path_type=Path), default=Path("ssh_mediterranean"), help="Folder for priors.")
@click.option(
    "--coarsen", default=2, show_default=True, help="Grid points that are averaged; 1 is the full resolution."
)
@click.option("--members", default=16, show_default=True, help="Posterior samples a window.")
@click.option("--minutes", default=10.0, show_default=True, help="Most that the training of the network may take.")
@click.option("--windows", default=7, show_default=True, help="Number of windows.")
@click.option("--method", "only", multiple=True, help="Only these, as the table names them.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE, help="Folder for tables and figures.")
def main(
    store: Path, coarsen: int, members: int, minutes: float, windows: int, only: tuple[str, ...], results: Path
) -> None:
    """Measure the priors, map the test days, write tables and figures."""
    data = load(coarsen)
    store.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    maps: dict[str, list[xr.Dataset]] = {}
    ranks = {}
    for name, method in methods(data, store, members, minutes).items():
        if only and name not in only:
            continue
        for first in WINDOWS[:windows]:
            truth = data.isel(time=slice(TRAIN + first, TRAIN + first + LENGTH))
            observations = tracks.altimetry(truth, averaged=averaged(coarsen))
            start = time.perf_counter()
            estimate = method(truth, observations)
            seconds = time.perf_counter() - start
            row, spectra = score(estimate, truth)
            rows.append({"method": name, "first_day": first, **row, "seconds": seconds})
            click.echo(rows[-1])
            if first in (0, LENGTH):
                maps.setdefault(name, []).append(mean_of(estimate))
            if "member" in estimate.dims:
                ranks[name, first] = histogram(estimate, truth)
            if name == "oi" and first == 0:
                draw(estimate, truth, observations, spectra, results)
        table = pd.DataFrame(rows)
        table.to_csv(results / "results.csv", index=False, float_format="%.4f")
        leaderboard(data, name, maps.get(name, []), store, results)
    frequency = pd.DataFrame(ranks).rename_axis("rank").T.groupby(level=0, sort=False).mean()
    frequency.to_csv(results / "ranks.csv", index_label="method", float_format="%.4f")
    about = {"coarsen": coarsen, "members": members, "noise": tracks.NOISE, "bias": tracks.BIAS, "sampler": SAMPLER}
    about["summary"] = json.loads(summarise(table).reset_index().round(4).to_json(orient="records"))
    (results / "results.json").write_text(json.dumps(about, indent=1) + "\n")
    click.echo(summarise(table).to_string(float_format="{:.4f}".format))


def load(coarsen: int = 1) -> xr.Dataset:
    """Daily absolute dynamic topography in m (time, latitude, longitude): `FILE` in the folder SDAXR_DATA."""
    folder = os.environ.get("SDAXR_DATA")
    if not folder:
        raise click.ClickException(f"SDAXR_DATA is not set, expected the folder with {FILE}; see the README")
    data = xr.open_dataset(Path(folder) / FILE)[["adt"]].load()
    return data.coarsen(latitude=coarsen, longitude=coarsen).mean() if coarsen > 1 else data


def averaged(coarsen: int) -> int:
    """Measurements along a track that are averaged: one value a grid cell of some 25 km, for 2 x 2 means."""
    return 3 if coarsen > 1 else 1


def usual(data: xr.Dataset) -> xr.Dataset:
    """The mean of the training days."""
    return data.isel(time=slice(TRAIN)).mean("time", keep_attrs=True)


def prior_of(data: xr.Dataset, name: str, store: Path, minutes: float) -> Any:
    """The prior of the training days of this name; it is made unless the file is there."""
    path = store / f"{name}.safetensors"
    if not path.exists():
        known, options = data.isel(time=slice(TRAIN)), {"normalise": "point"} | PRIORS[name]
        if "steps" in options:
            known = known.assign_coords(split=("time", np.full(TRAIN, "train", object)))
        else:
            options["minutes"] = minutes
        chosen = {"missing": "masked", "normalise": options.pop("normalise")}
        sdaxr.train(known, path, window=LENGTH, statistics=chosen, name=name, **options)
    return sdaxr.open_prior(path)


def methods(data: xr.Dataset, store: Path, members: int, minutes: float) -> dict[str, Method]:
    """Each makes of the truth's times and grid and of the observations a field, or members; none sees the truth."""
    mean = usual(data)

    def assimilate(method: str, name: str = "point", adapt: bool = True, white: bool = False) -> Method:
        def run(truth: xr.Dataset, observations: xr.Dataset) -> xr.Dataset:
            prior = prior_of(data, name, store, minutes)
            observations = unbiased(observations) if white else observations
            options: dict[str, Any] = {} if method == "oi" else {"sampler": SAMPLER}
            options |= {"times": truth.time, "members": members, "progress": False}
            return sdaxr.assimilate(observations, prior, method={"name": method, "adapt": adapt}, **options)

        return run

    return {
        "climatology": lambda truth, _: mean.expand_dims(time=truth.time).assign_attrs(mean.attrs),
        "interpolation": lambda truth, observations: interpolated(observations, truth, mean),
        "oi": assimilate("oi"),
        "sda": assimilate("sda"),
        "sda, network": assimilate("sda", "network"),
        "oi, variances of the training days": assimilate("oi", adapt=False),
        "oi, white errors": assimilate("oi", white=True),
        "oi, without climatology": assimilate("oi", "channel"),
        "oi, cosine modes": assimilate("oi", "cosines"),
    }  # fmt: skip


def at_tracks(field: xr.DataArray, observations: xr.Dataset) -> xr.DataArray:
    """A field, of all times or of each, at the measurements, (obs); NaN beside land."""
    where = {str(d): xr.DataArray(observations[d].values, dims="obs") for d in field.dims}
    return field.interp(where).drop_vars(list(where))


def unbiased(observations: xr.Dataset) -> xr.Dataset:
    """The observations with errors of the same variance that are taken as independent."""
    error = observations["adt_error"]
    kept = {k: v for k, v in error.attrs.items() if k not in ATTRIBUTES}
    whole = (error**2 + tracks.BIAS**2) ** 0.5
    return observations.assign(adt_error=whole.drop_attrs().assign_attrs(kept))


def interpolated(observations: xr.Dataset, truth: xr.Dataset, mean: xr.Dataset) -> xr.Dataset:
    """Anomalies from the mean, linear on Delaunay simplices of longitude, latitude and time, nearest outside.

    A day counts as half a degree, a tenth of the distance between neighbouring tracks.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    anomaly = (observations["adt"] - at_tracks(mean["adt"], observations)).values
    good = np.isfinite(anomaly)

    def place(latitude: Any, longitude: Any, when: Any) -> np.ndarray:
        days = (when - truth.time.values[0]) / np.timedelta64(1, "D")
        return np.stack([latitude, longitude * np.cos(np.deg2rad(38)), 0.5 * days], -1)

    # Points of one track lie on a line: a little noise keeps the simplices from being flat.
    points = place(*(observations[d].values[good] for d in ("latitude", "longitude", "time")))
    points = points + 1e-4 * np.random.default_rng(0).normal(size=points.shape)
    when, latitude, longitude = np.meshgrid(
        *(truth[d].values for d in ("time", "latitude", "longitude")), indexing="ij"
    )
    targets = place(latitude, longitude, when)
    found = LinearNDInterpolator(points, anomaly[good])(targets)
    found = np.where(np.isfinite(found), found, NearestNDInterpolator(points, anomaly[good])(targets))
    field = mean["adt"] + xr.DataArray(found, {d: truth[d] for d in truth["adt"].dims}, truth["adt"].dims)
    return field.transpose(*truth["adt"].dims).assign_attrs(truth["adt"].attrs).to_dataset(name="adt")


def score(estimate: xr.Dataset, truth: xr.Dataset) -> tuple[dict[str, float], pd.DataFrame]:
    """Scores of one window, and the spectra of the error and of the truth."""
    ensemble = "member" in estimate.dims
    numbers = summary(verify(estimate, truth, metrics=METRICS if ensemble else METRICS[:2]))["adt"].to_dict()
    if ensemble:
        # Weibull's plotting positions: members that are exchangeable with the truth cover 90 %.
        low, high = (estimate["adt"].quantile(q, "member", method="weibull", skipna=False) for q in (0.05, 0.95))
        inside = ((truth["adt"] >= low) & (truth["adt"] <= high)).where(truth["adt"].notnull())
        numbers["coverage_90"] = float(inside.weighted(np.cos(np.deg2rad(truth["latitude"]))).mean())
    error = (mean_of(estimate)["adt"] - truth["adt"]).transpose(*truth["adt"].dims)
    points = max(16, round(8 / float(truth["longitude"].diff("longitude").mean())))
    wavelength, spectra = challenge.effective_resolution(error, truth["adt"], points)
    return {**numbers, "resolution_km": wavelength}, spectra


def histogram(estimate: xr.Dataset, truth: xr.Dataset) -> pd.Series:
    """Frequency of each rank of the truth among the members, at random points of the sea on all days."""
    sea = np.argwhere(truth["adt"].notnull().all("time").transpose("latitude", "longitude").values)
    drawn = np.random.default_rng(0).choice(sea, POINTS, replace=False).T
    at = {d: xr.DataArray(i, dims="point") for d, i in zip(("latitude", "longitude"), drawn, strict=True)}
    found = verify(estimate.isel(at), truth.isel(at), metrics=("rank_histogram",))["rank_histogram_adt"]
    return found.mean([d for d in found.dims if d != "rank"]).to_pandas()


def mean_of(estimate: xr.Dataset) -> xr.Dataset:
    """The mean over the members, where there are any."""
    return estimate.mean("member", keep_attrs=True) if "member" in estimate.dims else estimate


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the windows, and its standard error as if they did not overlap."""
    columns = [c for c in table.columns if c not in ("method", "first_day")]
    grouped = table.groupby("method", sort=False)[columns]
    found = grouped.mean().join(grouped.sem()[["rmse", "crps"]].add_suffix("_se"))
    return found.assign(windows=grouped.size())


def leaderboard(data: xr.Dataset, method: str, parts: list[xr.Dataset], store: Path, results: Path) -> None:
    """Scores of the 20 test days, where both halves are mapped, and the files that further methods are scored with."""
    names = {"adt": "ssh", "latitude": "lat", "longitude": "lon"}
    truth = data.isel(time=slice(TRAIN, TRAIN + 2 * LENGTH)).rename(names)
    truth.to_netcdf(store / "truth.nc")
    if len(parts) == 2:
        found = xr.concat(parts, "time")[["adt"]].rename(names).transpose(*truth["ssh"].dims)
        found = found.drop_vars([c for c in found.coords if c not in found.dims]).drop_attrs()
        found.to_netcdf(store / f"maps-{method.replace(', ', '-').replace(' ', '-')}.nc")
        scores = challenge.on_grid(challenge.read(found), truth)
        challenge.add(results / "leaderboard.csv", {"method": method, **scores, "notes": "20 days, 4 tracks a day"})


def draw(
    estimate: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset, spectra: pd.DataFrame, results: Path
) -> None:
    """Truth, mean and spread of the middle day with the tracks of the window, and the spectra."""
    from matplotlib.figure import Figure

    day = {"time": LENGTH // 2}
    fields = {
        "truth": truth["adt"].isel(day), "mean": mean_of(estimate)["adt"].isel(day),
        "spread": estimate["adt"].isel(day).std("member", ddof=1),
    }  # fmt: skip
    figure = Figure(figsize=(7.5, 8.5), layout="constrained")
    west, east, south, north = (float(end(truth[d])) for d in ("longitude", "latitude") for end in (np.min, np.max))
    extent = west, east, south, north
    for place, (name, field) in enumerate(fields.items(), 1):
        limits = {"vmin": 0, "cmap": "viridis"} if name == "spread" else {"vmin": -0.35, "vmax": 0.25, "cmap": "RdBu_r"}
        axes = figure.add_subplot(3, 1, place, projection=cartography.projection(extent))
        degrees = cartography.decorate(axes, extent)
        image = axes.pcolormesh(
            field.longitude, field.latitude, field.transpose("latitude", "longitude"), transform=degrees, **limits
        )
        axes.set_title(f"{name}, {str(truth.time.values[LENGTH // 2])[:10]}")
        axes.set_facecolor("0.8")
        axes.gridlines(draw_labels=["left", "bottom"], linewidth=0)
        figure.colorbar(image, ax=axes, label="m")
        if name == "spread":
            axes.plot(observations.longitude, observations.latitude, ",", color="white", transform=degrees)
    figure.savefig(results / "maps.png", dpi=70)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(spectra["wavelength_km"], spectra["truth"], label="truth")
    axes.loglog(spectra["wavelength_km"], spectra["error"], label="error of the mean")
    axes.loglog(spectra["wavelength_km"], spectra["truth"] / 2, ":", color="0.5", label="half the truth")
    axes.set(xlabel="wavelength [km]", ylabel="m² per cycle/km")
    axes.invert_xaxis()
    axes.legend()
    figure.savefig(results / "spectra.png", dpi=70)


if __name__ == "__main__":
    main()
