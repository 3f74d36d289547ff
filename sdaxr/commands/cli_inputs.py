"""Commands that make what an assimilation needs: trajectories, a prior, observations."""

from __future__ import annotations

from typing import Any

import click

from sdaxr.commands import texts
from sdaxr.commands.options import (
    background,
    device,
    domain,
    observing,
    on_files,
    option,
    overwrite,
    prior,
    seed,
    simulating,
    store,
    training,
    trajectory,
    with_options,
)
from sdaxr.commands.running import run_step


@click.command()
@click.argument("system")
@on_files(
    store,
    click.option("--trajectories", type=int, required=True, help="Number of trajectories."),
    click.option("--steps", type=int, required=True, help="Number of states in a trajectory, after the spin-up."),
    click.option("--batch", type=int, help="Number of trajectories that are computed at once."),
    seed,
    click.option("--split", type=float, nargs=3, help="Fractions for training, validation and test."),
    option,
    overwrite,
)
def generate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Simulate trajectories of a dynamical system.

    SYSTEM is lorenz63, lorenz96, linear, kolmogorov or quasigeostrophic. The result is an archive, .zarr or .nc. The
    same command resumes a run that was interrupted.
    """
    run_step("generate", quiet, values, option)


@click.command()
@click.argument("trajectories")
@on_files(
    click.option("--store", "-o", required=True, help="File of the prior, which ends in .safetensors."),
    *training,
    seed,
    device,
    overwrite,
)
def train(quiet: bool, **values: Any) -> None:
    """Train a prior on trajectories.

    TRAJECTORIES is the file of a simulation or a reanalysis. The same command resumes a run that was interrupted.
    """
    values = with_options(values, "network")
    run_step("train", quiet, values)


@click.command()
@click.argument("truth")
@on_files(
    click.option("--operator", required=True, help='Operator as JSON, such as {"op": "coarsen", "factor": 8}.'),
    store,
    *simulating,
    seed,
    trajectory,
    overwrite,
)
def observe(quiet: bool, **values: Any) -> None:
    """Make synthetic observations of a truth.

    TRUTH is a file of trajectories or of one trajectory.
    """
    run_step("observe", quiet, values)


@click.command()
@click.argument("observations", nargs=-1, required=True)
@on_files(
    prior,
    domain,
    click.option(
        "--store",
        "-o",
        help="File to which the statuses are written, .nc or .zarr. Several networks get a file each, such as "
        "s-ships.nc where this is s.nc.",
    ),
    background,
    *observing,
    overwrite,
)
def report(quiet: bool, **values: Any) -> None:
    """Count which observations are used, and why others are not.

    OBSERVATIONS are files, one for each network, as of `sdaxr assimilate`. The table has the number of values of each
    status; the file has the status of every single value.
    """
    click.echo(texts.statuses(run_step("report", quiet, values)))
