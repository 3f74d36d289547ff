"""Commands that score and draw results."""

from __future__ import annotations

from typing import Any

import click

from sdaxr.commands import texts
from sdaxr.commands.options import (
    calibrating,
    domain,
    drawn,
    on_files,
    overwrite,
    reading,
    store,
    trajectory,
    with_options,
)
from sdaxr.commands.running import run_step


@click.command()
@click.argument("posterior")
@click.argument("truth")
@on_files(
    trajectory,
    click.option(
        "--metrics",
        multiple=True,
        help="count, rmse, bias, crps, spread, spread_skill, rank_histogram or spectrum; repeat for several. Default: "
        "all that apply.",
    ),
    reading,
    click.option("--store", "-o", help="File to which the scores are written, .nc or .zarr."),
    overwrite,
)
def verify(quiet: bool, **values: Any) -> None:
    """Score a posterior or a forecast against a truth or against observations.

    POSTERIOR and TRUTH are files. The table has the mean of each score over time.
    """
    click.echo(texts.table(run_step("verify", quiet, values)))


@click.command()
@click.argument("truth")
@on_files(
    click.option("--operator", required=True, help='Operator as JSON, such as {"op": "coarsen", "factor": 8}.'),
    store,
    click.option("--prior", help="File of a prior, or name of a shipped one; see `sdaxr priors`."),
    domain,
    *calibrating,
)
def calibrate(quiet: bool, **values: Any) -> None:
    """Test by simulation whether ensembles have the right spread.

    TRUTH is a file of trajectories, the name of a system of which truths are drawn, or `prior`, for draws of the prior
    itself. Each truth is observed and assimilated. Where the ensembles are right, its ranks among their members are
    uniform. The same command resumes a run that was interrupted; `sdaxr plot` draws the result.
    """
    click.echo(texts.calibration(run_step("calibrate", quiet, with_options(values, "method", "sampler"))))


@click.command()
@click.argument("data")
@on_files(
    click.option("--path", required=True, help="File of the figure; its ending, such as .png or .pdf, is the format."),
    *drawn,
    click.option("--times", type=int, help="Number of times that are drawn."),
    click.option("--members", type=int, help="Number of members that are drawn."),
    trajectory,
)
def plot(quiet: bool, **values: Any) -> None:
    """Draw truth, observations, members, mean and spread.

    DATA is the file of a posterior, a forecast, trajectories, observations or a calibration.
    """
    run_step("plot", quiet, values)


@click.command()
@click.argument("data")
@on_files(
    click.option("--path", required=True, help="File of the animation, .gif."),
    *drawn,
    click.option("--fps", type=float, help="Frames per second."),
    trajectory,
)
def animate(quiet: bool, **values: Any) -> None:
    """Animate truth, observations, a member, mean and spread.

    DATA is the file of a posterior, a forecast, trajectories or observations.
    """
    run_step("animate", quiet, values)
