"""What limits the reconstruction: the posterior mean in closed form, with other means and other covariances.

``python recipes/sst_pacific/limits.py`` takes the observations of `run.py` and writes limits.csv: the RMSE of the mean
where the Gaussian process of 1970-1994 is given what no training could know (the mean of the test years, or all
months), a trend, or covariances between its EOFs. The variances do not follow the observations here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import run
import xarray as xr

import sdaxr
from sdaxr.prior.modes import cosines

HERE = Path(__file__).resolve().parent
LENGTH = 12
TEST = slice("1995-01", "2002-12")


@dataclass(frozen=True)
class Process:
    """A Gaussian process of normalised fields in a window of `LENGTH` months.

    Attributes
    ----------
    prior
        Its mean and standard deviation in K, and its EOFs.
    eofs
        The patterns, (point, rank).
    own
        Covariance in time of the coefficient of each EOF, (rank, time, time), and of what they leave, the last.
    lagged
        Covariances in time of some leading EOFs with each other, in addition, (count, count, time, time).
    """

    prior: sdaxr.Prior
    eofs: np.ndarray
    own: np.ndarray
    lagged: np.ndarray

    @classmethod
    def of(cls, prior: sdaxr.Prior) -> Process:
        """The process of a prior."""
        modes = prior.network.modes
        waves, spectrum = cosines(LENGTH).double().numpy(), modes.spectrum(LENGTH).double().numpy()
        own = np.einsum("ft,fk,fs->kts", waves, spectrum, waves)
        return cls(prior, modes.vectors.double().numpy(), own, np.zeros((0, 0, LENGTH, LENGTH)))

    def with_lags(self, months: xr.Dataset, count: int, share: float) -> Process:
        """Covariances of the leading EOFs at all lags, as in ``months``, with a share of the whole."""
        series = np.nan_to_num(self.prior.layout.to_array(months, gaps=True)).reshape(months.sizes["time"], -1)
        coefficients = (series - series.mean(0)) @ self.eofs[:, :count]
        lags = [coefficients[: len(series) - lag].T @ coefficients[lag:] / len(series) for lag in range(LENGTH)]
        lagged = np.empty((count, count, LENGTH, LENGTH))
        for first in range(LENGTH):
            for second in range(LENGTH):
                lagged[..., first, second] = lags[second - first] if second >= first else lags[first - second].T
        own = self.own.copy()
        own[:count] *= 1 - share
        return replace(self, own=own, lagged=share * lagged)

    def mean(self, year: xr.Dataset, observations: xr.Dataset) -> np.ndarray:
        """Posterior mean in K, (time, point), given values at grid points (time, station)."""
        mean, std = (m.reshape(len(m), -1) + np.zeros((LENGTH, 1)) for m in self.prior.layout.moments(year.time))
        values = observations[run.NAME].transpose("time", ...)
        time, station = np.nonzero(np.isfinite(values.values))
        rows, columns = (year.indexes[d].get_indexer(observations[d].values[station]) for d in ("lat", "lon"))
        point = rows * year.sizes["lon"] + columns
        seen = self.eofs[point]
        innovation = (values.values[time, station] - mean[time, point]) / std[time, point]
        # Covariance of each observation with the coefficients of all times, (observation, rank, time).
        both, count, rest = seen[:, :, None] * self.own[:-1, time].transpose(1, 0, 2), len(self.lagged), self.own[-1]
        both[:, :count] += np.einsum("nj,jknt->nkt", seen[:, :count], self.lagged[:, :, time])
        matrix = rest[np.ix_(time, time)] * ((point[:, None] == point) - seen @ seen.T)
        for month in range(LENGTH):
            matrix[:, time == month] += both[:, :, month] @ seen[time == month].T
        weights = np.linalg.solve(matrix + np.diag((run.ERROR / std[time, point]) ** 2), innovation)
        left = np.zeros((len(self.eofs), LENGTH))
        np.add.at(left, point, weights[:, None] * rest[time])
        left -= self.eofs @ (seen.T @ (weights[:, None] * rest[time]))
        states = (self.eofs @ np.einsum("n,nkt->kt", weights, both) + left).T
        return mean + std * states


def rmse(process: Process, data: xr.Dataset, count: int) -> np.ndarray:
    """RMSE of the posterior mean in K by year, weighted by area."""
    found = []
    for number in run.YEARS:
        year = data.sel(time=str(number))
        observations = sdaxr.observe(
            year, run.networks(data, count)[0], error=run.ERROR, missing=run.MISSING, seed=number
        )
        truth = year[run.NAME].transpose("time", "lat", "lon")
        error = truth.copy(data=process.mean(year, observations).reshape(truth.shape)) - truth
        found.append(float((error**2).weighted(np.cos(np.deg2rad(year["lat"]))).mean()) ** 0.5)
    return np.array(found)


def without_trend(data: xr.Dataset) -> xr.Dataset:
    """The months without the linear trend that each point has in the training months."""
    fit = data.sel(time=run.TRAIN).polyfit("time", 1)[f"{run.NAME}_polyfit_coefficients"]
    slope = fit.sel(degree=1, drop=True)
    nanoseconds = (data["time"] - data["time"].sel(time=run.TRAIN).mean()) / np.timedelta64(1, "ns")
    return data.assign({run.NAME: (data[run.NAME] - slope * nanoseconds).transpose(*data[run.NAME].dims)})


def with_known_mean(data: xr.Dataset) -> xr.Dataset:
    """The test years moved so that their means by calendar month are those of the training months."""
    means = [data.sel(time=t).groupby("time.month").mean() for t in (run.TRAIN, TEST)]
    moved = data.sel(time=TEST).groupby("time.month") + (means[0] - means[1])
    return xr.concat([data.sel(time=run.TRAIN), moved.drop_vars("month")], "time")


@click.command()
@click.option("--store", type=click.Path(path_type=Path), default=Path("sst_pacific"), help="Folder of the priors.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE, help="Folder of the table.")
def main(store: Path, results: Path) -> None:
    """Compute the rows and write them."""
    data = run.load()

    def process(name: str, months: xr.Dataset) -> Process:
        path = store / f"limits-{name}.safetensors"
        if not path.exists():
            sdaxr.train(months, path, window=LENGTH, steps=0, name=path.stem)
        return Process.of(sdaxr.open_prior(path))

    known = data.sel(time=run.TRAIN)
    usual, straight = process("training", known), without_trend(data)
    cases = {
        "training months": (usual, data),
        "without their trend": (process("trend", straight.sel(time=run.TRAIN)), straight),
        "with the mean of the test years": (usual, with_known_mean(data)),
        "all months": (process("all", data), data),
        "lag covariances of 20 EOFs": (usual.with_lags(known, 20, 0.5), data),
        "lag covariances of 40 EOFs": (usual.with_lags(known, 40, 0.5), data),
    }
    rows = []
    for name, (chosen, months) in cases.items():
        for count in run.PLACES:
            found = rmse(chosen, months, count)
            rows.append(
                {"places": count, "case": name, "rmse": found.mean(), "se": found.std(ddof=1) / len(found) ** 0.5}
            )
            click.echo(rows[-1])
    pd.DataFrame(rows).to_csv(results / "limits.csv", index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
