"""Scores of sea-level maps as in the ocean data challenges 2020a and 2021a, and a table that any method joins.

``python recipes/ssh_mediterranean/challenge.py maps.nc --truth truth.nc --name "my method"`` adds a row to
``leaderboard.csv``. The truth is a series of maps, as in the challenge 2020a (doi:10.5281/zenodo.4045400), or
measurements along tracks that no map has seen, as in 2021a (doi:10.5281/zenodo.5511905).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import click
import contourpy
import numpy as np
import pandas as pd
import xarray as xr

HERE = Path(__file__).resolve().parent
# Sea level in the files of the challenges: the simulation and regridded maps of 2020a, its maps, the maps of 2021a.
NAMES = ("sossheig", "gssh", "ssh", "adt")
AXES = {"latitude": "lat", "longitude": "lon"}
COLUMNS = ["method", "mu", "sigma", "lambda_x", "lambda_x_units", "lambda_t_days", "notes"]
KM = 111.2  # km in a degree of latitude
ALONG = 6.77 * 0.9434  # km between measurements of CryoSat-2 at 1 Hz
SEGMENT = 1000.0  # km, length of the pieces of a track whose spectra are averaged


@click.command()
@click.argument("maps", type=click.Path(exists=True, path_type=Path))
@click.option("--truth", type=click.Path(exists=True, path_type=Path), required=True, help="Maps, or tracks.")
@click.option("--name", required=True, help="Name of the method in the table.")
@click.option("--notes", default="", help="A few words.")
@click.option("--table", type=click.Path(path_type=Path), default=HERE / "leaderboard.csv", show_default=True)
def main(maps: Path, truth: Path, name: str, notes: str, table: Path) -> None:
    """Score a file, add the row to the table, print the table."""
    with xr.open_dataset(truth) as known, xr.open_dataset(maps) as found:
        score = along_tracks if "sla_unfiltered" in known else on_grid
        rows = add(table, {"method": name, **score(read(found), known), "notes": notes})
    click.echo(rows.to_string(index=False, float_format="{:.3f}".format))


def add(table: Path, row: dict[str, object]) -> pd.DataFrame:
    """The table with a row more, best score first; a row of the same method and the same truth is replaced."""
    rows = pd.DataFrame([row], columns=COLUMNS)
    if table.exists():
        before = pd.read_csv(table, keep_default_na=False, na_values={"lambda_x": [""], "lambda_t_days": [""]})
        rows = pd.concat([before[before["method"] != row["method"]], rows], ignore_index=True)
    rows = rows.sort_values("mu", ascending=False)
    rows.to_csv(table, index=False, float_format="%.4f")
    return rows


def read(data: xr.Dataset) -> xr.DataArray:
    """Maps of sea level (time, lat, lon), whatever a challenge calls them."""
    names = [n for n in NAMES if n in data.data_vars]
    if len(names) != 1:
        raise click.ClickException(f"found {sorted(map(str, data.data_vars))}, expected one of {NAMES}; rename it")
    known = data[names[0]].rename({k: v for k, v in AXES.items() if k in data[names[0]].dims})
    if set(known.dims) != {"time", "lat", "lon"}:
        raise click.ClickException(f"'{names[0]}' has the dimensions {known.dims}, expected time, lat and lon")
    return known.transpose("time", "lat", "lon").sortby(["lat", "lon"]).astype(float).load()


def on_grid(maps: xr.DataArray, truth: xr.Dataset) -> dict[str, object]:
    """Scores against maps at the points and times of these, as in 2020a: lambda_x in degrees of longitude."""
    true = read(truth)
    found = _onto(maps, {d: true[d] for d in true.dims}).where(true.notnull())
    true = true.where(found.notnull())
    if not bool(true.notnull().any()):
        raise click.ClickException("the maps and the truth have no time and place in common; check both files")
    mu, sigma = _rmse_scores(found - true, true, ["lat", "lon"])
    lambda_x, lambda_t = resolution_in_space_and_time(found - true, true)
    return {
        "mu": mu, "sigma": sigma, "lambda_x": lambda_x, "lambda_x_units": "degree", "lambda_t_days": lambda_t,
    }  # fmt: skip


def along_tracks(maps: xr.DataArray, tracks: xr.Dataset) -> dict[str, object]:
    """Scores at measurements (time) with ``latitude, longitude``, as in 2021a: lambda_x in km, sigma over days."""
    sea_level = (tracks["sla_unfiltered"] + tracks["mdt"] - tracks["lwe"]).load()
    at = {"time": tracks["time"], "lat": tracks["latitude"], "lon": tracks["longitude"]}
    found = _onto(maps, {d: xr.DataArray(v.values, dims="obs") for d, v in at.items()})
    good = np.flatnonzero(np.isfinite(found.values) & np.isfinite(sea_level.values))
    if not len(good):
        raise click.ClickException("no measurement lies within the maps; check the two files")
    error, true = found.values[good] - sea_level.values[good], sea_level.values[good]
    daily = pd.DataFrame({"e": error**2, "t": true**2}, index=pd.to_datetime(tracks["time"].values[good]))
    means = daily.resample("1D").mean().dropna()
    score = 1 - np.sqrt(means["e"] / means["t"])
    result = {"mu": float(1 - np.sqrt((error**2).mean() / (true**2).mean())), "sigma": float(score.std(ddof=0))}
    pieces = _pieces(tracks["time"].values[good], int(SEGMENT / ALONG))
    crossing = float("nan")
    if pieces:
        ratio = np.mean([power(error[p]) for p in pieces], 0) / np.mean([power(true[p]) for p in pieces], 0)
        crossing = crossing_of(np.fft.rfftfreq(int(SEGMENT / ALONG), ALONG)[1:], ratio[1:])
    return {**result, "lambda_x": crossing, "lambda_x_units": "km", "lambda_t_days": float("nan")}


def _rmse_scores(error: xr.DataArray, true: xr.DataArray, space: list[str]) -> tuple[float, float]:
    """1 - RMSE / RMS of the truth over all times, and its standard deviation in time."""
    by_time = 1 - np.sqrt((error**2).mean(space) / (true**2).mean(space))
    whole = 1 - np.sqrt((error**2).mean() / (true**2).mean())
    return float(whole), float(by_time.std())


def resolution_in_space_and_time(error: xr.DataArray, true: xr.DataArray, points: int = 48) -> tuple[float, float]:
    """Shortest wavelength (degrees of longitude) and period (days) whose error has half the power of the truth.

    Spectra in longitude and time are averaged over the parallels, as in the challenge 2020a. Where there is land, they
    are those of the pieces of ``points`` longitudes without land. NaN where no scale, or each, is resolved.
    """
    points = min(points, true.sizes["lon"])
    pieces = [p for row in range(true.sizes["lat"]) for p in _open_sea(true.values[:, row], row, points)]
    if not pieces or true.sizes["time"] < 4:
        return float("nan"), float("nan")
    e, t = (np.mean([power(a.values[:, row, s]) for row, s in pieces], 0)[1:, 1:] for a in (error, true))
    days = float(np.median(np.diff(true["time"].values)) / np.timedelta64(1, "D"))
    step = float(np.diff(true["lon"].values).mean())
    waves = 1 / np.fft.rfftfreq(points, step)[1:]
    periods = 1 / np.fft.fftfreq(true.sizes["time"], days)[1 : (true.sizes["time"] + 1) // 2]
    lines = contourpy.contour_generator(waves, periods, 1 - e[: len(periods)] / t[: len(periods)]).lines(0.5)
    if not lines:
        return float("nan"), float("nan")
    longest = max(lines, key=len)
    return float(longest[:, 0].min()), float(longest[:, 1].min())


def effective_resolution(error: xr.DataArray, true: xr.DataArray, points: int = 64) -> tuple[float, pd.DataFrame]:
    """Wavelength in km along parallels below which the error has more than half the power of the truth.

    Spectra are those of all pieces of ``points`` longitudes without land, in all maps (time, latitude, longitude), on
    one axis of wavenumbers. Returned are the wavelength, NaN where there is none, and both spectra in m2 per cycle/km.
    """
    step = float(np.diff(true["longitude"].values).mean())
    latitude = true["latitude"].values
    pieces = [p for row in range(len(latitude)) for p in _open_sea(true.values[:, row], row, points)]
    distance = step * KM * np.cos(np.deg2rad(latitude))
    axis = np.fft.rfftfreq(points, distance.max())[1:]
    spectra = {}
    for name, data in (("error", error), ("truth", true)):
        each = [
            np.interp(axis, np.fft.rfftfreq(points, distance[row]), distance[row] * _rows(data.values[:, row, s]))
            for row, s in pieces
        ]
        spectra[name] = np.mean(each, 0)
    table = pd.DataFrame({"wavelength_km": 1 / axis, **spectra})
    return crossing_of(axis, spectra["error"] / spectra["truth"]), table


def crossing_of(wavenumber: np.ndarray, ratio: np.ndarray) -> float:
    """Wavelength where the ratio of error to truth first reaches a half, from long to short waves; NaN if nowhere."""
    above = np.flatnonzero(ratio >= 0.5)
    if not len(above) or above[0] == 0:
        return float("nan")
    last = above[0]
    at = np.interp(0.5, ratio[last - 1 : last + 1], wavenumber[last - 1 : last + 1])
    return float(1 / at)


def power(values: np.ndarray) -> np.ndarray:
    """Power in waves of the last axis, and of the first where there are two, without trend, with a Hann window."""
    from scipy.signal.windows import hann

    axes = [np.arange(n) - (n - 1) / 2 for n in values.shape]
    grid = np.stack([np.ones(values.size), *(g.ravel() for g in np.meshgrid(*axes, indexing="ij"))], 1)
    rest = values - (grid @ np.linalg.lstsq(grid, values.ravel(), rcond=None)[0]).reshape(values.shape)
    for axis, size in enumerate(values.shape):
        rest = rest * hann(size, sym=False).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.abs(np.fft.rfftn(rest)) ** 2 / values.size


def _rows(values: np.ndarray) -> np.ndarray:
    """Mean power of series (time, longitude) along longitude."""
    return np.mean([power(row) for row in values], 0)


def _open_sea(values: np.ndarray, row: int, points: int) -> list[tuple[int, slice]]:
    """Pieces of a parallel (time, longitude) that have a value at all times, half of each shared with the next."""
    there, found, first = np.isfinite(values).all(0), [], 0
    while first + points <= len(there):
        if there[first : first + points].all():
            found.append((row, slice(first, first + points)))
            first += points // 2
        else:
            first += 1
    return found


def _pieces(times: np.ndarray, points: int) -> list[slice]:
    """Pieces of tracks of ``points`` measurements without a gap of more than three of them."""
    gaps = np.diff(times) / np.timedelta64(1, "ns") * 1e-9 > 4 * 0.9434
    edges = np.concatenate([[0], np.flatnonzero(gaps) + 1, [len(times)]])
    return [
        slice(first, first + points)
        for start, stop in pairwise(edges)
        for first in range(start, stop - points + 1, max(1, points // 4))
    ]


def _onto(maps: xr.DataArray, at: dict[str, xr.DataArray]) -> xr.DataArray:
    """Maps interpolated linearly; longitudes are counted as those of the maps."""
    low = float(maps["lon"].min())
    there = at["lon"].copy(data=(at["lon"].values - low + 1e-6) % 360 + low - 1e-6)
    found = maps.interp({**at, "lon": there})
    return found.assign_coords({d: at[d].values for d in at if d in found.dims})


if __name__ == "__main__":
    main()
