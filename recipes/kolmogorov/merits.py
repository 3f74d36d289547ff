"""What the recipes of this folder share: the trajectories, and figures of merit of a posterior."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import t

import sdaxr

VELOCITY = ("u", "v")


def open_trajectories(store: str) -> xr.Dataset:
    """The archive, with the shape of the forcing as a static field that the network may see."""
    return with_forcing(sdaxr.open_archive(store))


def with_forcing(data: xr.Dataset) -> xr.Dataset:
    """Trajectories with the shape of the forcing as a static field."""
    shape = np.sin(4 * data["y"]) * xr.ones_like(data["x"])
    attrs = {"units": "1", "long_name": "shape of the forcing"}
    return data.assign_coords(forcing=shape.transpose("y", "x").assign_attrs(attrs))


def of_split(trajectories: xr.Dataset, split: str, count: int) -> list[int]:
    """The first trajectories of a split."""
    return [int(i) for i in trajectories.trajectory.values[trajectories.split.values == split][:count]]


def scores(estimate: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Root mean square over both velocity components, in units of their standard deviation in this trajectory."""
    found = sdaxr.verify(estimate, truth).compute()
    sd = {v: float(truth[v].std()) for v in VELOCITY}

    def pooled(metric: str) -> float:
        return float(np.sqrt(np.mean([(found[f"{metric}_{v}"] ** 2).mean() / sd[v] ** 2 for v in sd])))

    if "member" not in estimate.dims:
        return {"rmse": pooled("rmse")}
    merits = {"rmse": pooled("rmse"), "crps": float(np.mean([found[f"crps_{v}"].mean() / sd[v] for v in sd]))}
    if estimate.sizes["member"] == 1:
        return merits
    spread_skill = pooled("spread") / pooled("rmse") * np.sqrt(1 + 1 / estimate.sizes["member"])
    return merits | {"spread_skill": float(spread_skill)}


def inside_90(posterior: xr.Dataset, truth: xr.Dataset) -> float:
    """Share of the truth in intervals of 90 % of a Student t distribution, fitted to the members in each point."""
    count = posterior.sizes["member"]
    half = t.ppf(0.95, count - 1) * np.sqrt(1 + 1 / count)
    deviations = {v: posterior[v].std("member", ddof=1) for v in VELOCITY}
    return float(
        np.mean([(abs(posterior[v].mean("member") - truth[v]) < half * sd).mean() for v, sd in deviations.items()])
    )


def residual(posterior: xr.Dataset, observations: xr.Dataset) -> float:
    """Standard deviation of H(x) - y, in units of the observations' errors."""
    fits = sdaxr.innovations(posterior, observations)
    return float(np.mean([fits[n].mean() for n in fits.data_vars if str(n).endswith("_normalised_rms")]))


def spectrum(posterior: xr.Dataset, truth: xr.Dataset) -> xr.DataArray:
    """Kinetic energy of the members over the truth's, by wavenumber, up to two thirds of the largest on the grid."""
    return _energy_ratio(posterior, truth).sel(wavenumber=slice(0, truth.sizes["x"] // 3))


def bands(posterior: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Kinetic energy of the members over the truth's, means over four wavenumbers each."""
    ratio = _energy_ratio(posterior, truth)
    return {f"k_{k}_{k + 3}": float(ratio.sel(wavenumber=slice(k - 0.5, k + 3.5)).mean()) for k in range(1, 25, 4)}


def _energy_ratio(posterior: xr.Dataset, truth: xr.Dataset) -> xr.DataArray:
    energy = sdaxr.verify(posterior, truth, metrics=["spectrum"]).spectrum_kinetic_energy.mean("time")
    return energy.sel(source="members") / energy.sel(source="truth")
