"""The approximate likelihood of noisy states against the exact one, level by level.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/levels.py --store lorenz63.zarr

Exact draws of a posterior with several modes get noise of the level r: z. Particle filters with and without the
observations y, both with z as observations of every state, give the exact log p(y | z). The approximate log p~(y | z)
is that of `SDA()`. The slope of the exact one over the approximate one, among these z, is the power that p~ should
have; *power* is the one that the sampler `twisted` measures. Writes levels.csv; levels that are there already are not
computed again.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.binding import bind_observations
from sdaxr.posterior.covariance.variance import Measured
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.tempering import Tempering

HERE = Path(__file__).parent
NAMES = ("a", "b", "c")
LEVELS = (8.0, 5.0, 3.0)
SCALE = 8.6


@click.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", "name", default="lorenz63", help="Name or file.")
@click.option("--level", "levels", type=float, multiple=True, default=LEVELS, show_default=True)
@click.option("--draws", default=16, show_default=True, help="Noisy states at each level.")
@click.option("--particles", default=2**14, show_default=True)
@click.option("--length", default=65, show_default=True, help="Number of states.")
@click.option("--output", type=Path, default=HERE)
def main(
    store: str, name: str, levels: tuple[float, ...], draws: int, particles: int, length: int, output: Path
) -> None:
    """Compare the likelihoods on the first test trajectory."""
    trajectories, prior, cpu = sdaxr.open_archive(store), sdaxr.open_prior(name), torch.device("cpu")
    index = int(np.flatnonzero(trajectories.split.values == "test")[0])
    truth = trajectories.isel(trajectory=index, time=slice(length)).load()
    seen = sdaxr.observe(truth, op.select("c"), every=6, error=0.1 * SCALE, seed=index)
    exact = seen.sda.assimilate(system="lorenz63", method="ffbs", members=draws, progress=False)
    x = torch.stack([torch.as_tensor(prior.layout.to_array(exact.isel(member=m))) for m in range(draws)])
    observed = bind_observations(seen, op.select("c"), prior, truth.time, cpu)
    denoiser, likelihood = prior.denoiser(truth.time, cpu), Likelihood([observed])
    power = Tempering.measure([observed], Measured(), prior.held_out(cpu), length)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    path = output / "levels.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for r in levels:
        if any(row["r"] == r for row in rows):
            continue
        z = x + r * noise
        with torch.no_grad():
            approximate = Measured().log_likelihood(likelihood, denoiser(z, r), r).numpy()
        true = np.array([evidence(prior, state, r, truth.time, seen, particles) for state in z])
        row = {"r": r, "sd_exact": true.std(), "sd_approximate": approximate.std()}
        row |= {"correlation": np.corrcoef(approximate, true)[0, 1]}
        rows.append(row | {"slope": np.polyfit(approximate, true, 1)[0], "power": power(r)})
        print({key: round(float(value), 2) for key, value in rows[-1].items()}, flush=True)
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.2f")


def evidence(
    prior: sdaxr.prior.files.Prior, z: torch.Tensor, r: float, times: xr.DataArray, seen: xr.Dataset, particles: int
) -> float:
    """log p(y | z) as log p(y, z) - log p(z), each from a particle filter with the same particles."""
    fields = prior.layout.to_physical(z.numpy(), times)
    _, std = (np.broadcast_to(a, (1, len(NAMES)))[0] for a in prior.layout.moments(times[:1]))
    noisy = xr.Dataset({"time": times})
    for name, deviation in zip(NAMES, std, strict=True):
        attrs = {"units": "1", "ancillary_variables": f"{name}_error"}
        noisy[name] = ("time", fields[name].astype(float), attrs)
        noisy[f"{name}_error"] = ("time", np.full(times.size, r * deviation), {"units": "1"})
    method, found = sdaxr.methods.BPF(particles=particles), []
    for networks in ({"z": noisy, "y": seen}, {"z": noisy}):
        operators = {"z": op.identity(), "y": op.select("c")}
        drawn = sdaxr.assimilate(
            networks, system="lorenz63", method=method, members=2, progress=False,
            operator={name: operators[name] for name in networks},
        )  # fmt: skip
        found.append(drawn.attrs["log_evidence"])
    return float(found[0] - found[1])


if __name__ == "__main__":
    main()
