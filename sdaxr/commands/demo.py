"""An example with the shipped prior of Kolmogorov flow: simulate, observe, assimilate, verify, draw."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sdaxr import operators as op
from sdaxr.archives.paths import local_path
from sdaxr.inference.assimilate import assimilate
from sdaxr.observations.innovations import innovations
from sdaxr.observations.observe import observe
from sdaxr.plotting.animate import animate
from sdaxr.plotting.plot import plot
from sdaxr.prior.files import Prior
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.opening import open_prior
from sdaxr.schema import TIME
from sdaxr.systems.generation import generate
from sdaxr.verification import baselines
from sdaxr.verification.verify import summary, verify

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

# The training data have the seed 0: the truth is another flow.
SEED = 2023


def run(
    directory: str | Path = "sdaxr-demo",
    *,
    members: int | None = None,
    length: int | None = None,
    seed: int = SEED,
    quiet: bool = False,
) -> pd.DataFrame:
    """Assimilate synthetic observations of a turbulent flow, and compare the posterior with two baselines.

    The scenario is that of Rozet & Louppe (2023, figure 4): 8 x 8 means of the velocity at every fourth state, with
    errors of 0.1. The truth is simulated by JAX-CFD and is not part of the training data. The sampler makes one
    Langevin correction at each noise level, for speed; the file of the prior records three.

    Parameters
    ----------
    directory
        Folder to which truth, observations, posterior, scores, figure and animation are written.
    members
        Number of members of the ensemble. Default: 8 on a CPU, 32 on a GPU.
    length
        Number of states, 0.2 time units apart. Default: 32 on a CPU, 65 on a GPU.
    seed
        Seed of the truth, of the observation errors and of the samples.
    quiet
        Write no messages, and show no progress bars.

    Returns
    -------
    pandas.DataFrame
        The scores, which are also printed and written to ``scores.csv``: one row for each estimate, errors in the units
        of the velocity.

    Raises
    ------
    ArchiveError
        If the directory cannot be written, or holds the truth of other settings.
    OptionError
        If ``members`` or ``length`` is below 1.
    """
    folder = local_path(directory)
    gpu = choose_device("auto").type == "cuda"
    members = (32 if gpu else 8) if members is None else members
    length = (65 if gpu else 32) if length is None else length
    prior = open_prior("kolmogorov")
    start = time.perf_counter()

    _say(quiet, f"1. simulate {length} states of Kolmogorov flow with JAX-CFD")
    # The truth is the first trajectory of an archive of its own.
    archive = generate(
        "kolmogorov", folder / "truth.zarr", trajectories=1, steps=length, seed=seed, split=(0, 0, 1), progress=False
    )
    truth = archive.isel(trajectory=0, drop=True).load()
    _say(quiet, "2. observe 8 x 8 means of the velocity at every fourth state, with errors of 0.1")
    observations = observe(truth, op.coarsen(8), every=4, error=0.1, seed=seed)
    observations.to_netcdf(folder / "observations.nc")
    _say(quiet, f"3. draw {members} trajectories from the posterior")
    posterior = assimilate(
        observations, prior, members=members, sampler={"corrections": 1, "tau": 1.0}, seed=seed, store=folder /
        "posterior.zarr", overwrite=True, progress=not quiet,
    )  # fmt: skip
    posterior = posterior.load()
    table = compare(posterior, truth, observations, prior)
    table.to_csv(folder / "scores.csv", float_format="%.4f")
    plot(posterior, truth=truth, observations=observations, path=folder / "posterior.png")
    animate(posterior, folder / "posterior.gif", truth=truth, observations=observations)
    seconds = time.perf_counter() - start
    _say(quiet, f"4. compare with the truth (mean over {length} states; velocity sd {float(truth.u.std()):.2f})\n")
    _say(quiet, table.round(3).to_string(na_rep="-") + "\n")
    _say(quiet, _FAREWELL.format(folder=folder, seconds=seconds))
    return table


def compare(posterior: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset, prior: Prior) -> pd.DataFrame:
    """Scores of the posterior, of the interpolated observations and of the climatology, one row each."""
    import pandas as pd

    estimates = {
        "posterior (sdaxr)": posterior,
        "interpolated observations": baselines.interpolate(observations, truth),
        "climatology": climatological_mean(prior, truth),
    }
    rows = {}
    for name, estimate in estimates.items():
        scores = summary(verify(estimate, truth, metrics=_metrics(estimate)))
        rows[name] = scores.mean(axis=1)
    table = pd.DataFrame(rows).T.rename(columns={"spread_skill": "spread/skill"})
    fit = innovations(posterior, observations)
    names = [v for v in fit.data_vars if str(v).endswith("_normalised_rms")]
    table.loc["posterior (sdaxr)", "residual/error"] = float(np.mean([fit[v].mean() for v in names]))
    return table


def climatological_mean(prior: Prior, like: xr.Dataset) -> xr.Dataset:
    """The mean state of the prior's training data, at the times of ``like``."""
    layout = prior.layout
    state = np.zeros((like.sizes[TIME], layout.channels, *layout.shape), np.float32)
    template = layout.template(like[TIME])
    fields = layout.to_physical(state, like[TIME])
    return template.assign({v: (template[v].dims, fields[v], template[v].attrs) for v in layout.variables})


def _metrics(estimate: xr.Dataset) -> tuple[str, ...]:
    # A single member has no spread.
    many = estimate.sizes.get("member", 1) > 1
    return ("rmse", "crps", "spread", "spread_skill") if many else ("rmse", "crps")


def _say(quiet: bool, text: str) -> None:
    import click

    if not quiet:
        click.echo(text)


_FAREWELL = """\
Done in {seconds:.0f} s. In {folder}/:
  posterior.zarr    the ensemble (member, time, y, x): xarray.open_zarr("{folder}/posterior.zarr")
  posterior.png     figure: truth, observations, members, mean and spread
  posterior.gif     animation of the same
  truth.zarr, observations.nc, scores.csv

Next:
  sdaxr info {folder}/posterior.zarr
  sdaxr forecast {folder}/posterior.zarr --model kolmogorov --steps 10 --store {folder}/forecast.zarr
  notebooks/quickstart.ipynb   the same steps in Python
  sdaxr train YOUR_ARCHIVE --store my-prior.safetensors --window 8   a prior for your own data"""
