"""Commands that draw ensembles."""

from __future__ import annotations

from typing import Any

import click

from sdaxr.commands.options import (
    background,
    device,
    domain,
    drawing,
    factor,
    members,
    method,
    on_files,
    option,
    overwrite,
    prior,
    sampler,
    seed,
    some_members,
    store,
    trajectory,
    with_options,
)
from sdaxr.commands.running import run_step


@click.command()
@click.argument("observations", nargs=-1, required=True)
@on_files(
    click.option("--prior", help="File of a prior, or name of a shipped one; see `sdaxr priors`."),
    domain,
    store,
    some_members,
    seed,
    background,
    click.option(
        "--system",
        help="System in the place of the prior: one with Gaussian noise (lorenz63 or linear) for --method ffbs (the "
        "default with a system), bpf, kalman or 4dvar; any system for enkf, etkf, ensrf, letkf, "
        "enks, ienks, pff, ensf, enff or latent.",
    ),
    option,
    *drawing,
)
def assimilate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Draw a posterior ensemble given observations.

    OBSERVATIONS are files, one for each network: of sdaxr, or of other software, such as CSV (see --reading). The
    result is an archive of trajectories on (member, time, ...). The same command resumes an interrupted run.
    """
    run_step("assimilate", quiet, with_options(values, "method", "sampler"), option)


@click.command()
@click.argument("observations", nargs=-1, required=True)
@on_files(
    click.option("--prior", help="File of a prior, or name of a shipped one; see `sdaxr priors`."),
    domain,
    store,
    click.option(
        "--system",
        help="System, in the place of the prior, for --method etkf (the default with a system), enkf, ensrf, letkf, "
        "enks, ienks, pff, ensf, enff or latent: the members go on from window to window.",
    ),
    click.option(
        "--window", type=int, help="Number of states in a window. Default: that of the prior's training, or 64."
    ),
    click.option("--lag", type=int, help="States after a window whose observations its estimate knows, too."),
    click.option(
        "--carry",
        help="System or prior that forecasts the ensemble from one window to the next, as --model of `sdaxr forecast`. "
        "Default: that of --prior.",
    ),
    option,
    click.option("--inflation", type=factor, help="Factor on the deviations of the forecast; `adaptive`: by itself."),
    members,
    seed,
    background,
    *drawing,
)
def cycle(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Assimilate long observations window after window.

    OBSERVATIONS are files, as of `sdaxr assimilate`. The background of each window is the forecast of the ensemble from
    the window before. The same command resumes a run that was interrupted.
    """
    run_step("cycle", quiet, with_options(values, "method", "sampler"), option)


@click.command()
@click.argument("ensemble")
@on_files(
    click.option(
        "--model",
        required=True,
        help="Name of a system, name of a shipped prior, or file of a prior. A name of both is that of the system; the "
        "prior of this name is reached by the path of its file, which `sdaxr info NAME` shows.",
    ),
    domain,
    store,
    click.option("--steps", type=int, required=True, help="Number of states to forecast."),
    seed,
    click.option("--context", type=int, help="Prior: number of states on which a block of new states is conditioned."),
    click.option("--block", type=int, help="Prior: number of new states in a block."),
    click.option("--error", type=float, help="Prior: error of the context, in standard deviations of each variable."),
    *method,
    *sampler,
    click.option("--batch", type=int, help="Prior: number of members that are computed at once."),
    device,
    option,
    trajectory,
    overwrite,
)
def forecast(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Forecast from the last states of an ensemble.

    ENSEMBLE is a file such as a posterior. The forecast is by a system or by a prior.
    """
    run_step("forecast", quiet, with_options(values, "method", "sampler"), option)


@click.command()
@click.argument("noisy")
@on_files(
    prior,
    domain,
    store,
    click.option("--error", type=float, required=True, help="Standard deviation of the noise, in units of the data."),
    click.option("--method", help="posterior (samples of the posterior) or langevin (a Langevin iteration)."),
    members,
    click.option("--step-size", type=float, help="Langevin: size of a step, well below the square of --level."),
    click.option("--steps", type=int, help="Langevin: number of steps. Posterior: number of noise levels."),
    click.option("--level", type=float, help="Langevin: noise level, in standard deviations of the prior."),
    click.option("--batch", type=int, help="Number of samples that are computed at once."),
    seed,
    trajectory,
    device,
    overwrite,
)
def denoise(quiet: bool, **values: Any) -> None:
    """Remove Gaussian noise from fields.

    NOISY is a file with the variables of the prior.
    """
    run_step("denoise", quiet, values)
