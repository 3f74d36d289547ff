"""The command line, without logic of its own: flags have the names and the defaults of the functions' parameters.

Results go to standard output, messages and progress bars to standard error. Bad input ends with exit code 2 and one
line.
"""

from __future__ import annotations

from typing import Any

import click

from sdaxr.commands import steps, texts
from sdaxr.commands.group import Commands
from sdaxr.commands.options import (
    background,
    calibrating,
    device,
    drawing,
    drawn,
    factor,
    flags,
    members,
    method,
    observing,
    on_files,
    option,
    overwrite,
    prior,
    reading,
    sampler,
    seed,
    simulating,
    store,
    training,
    trajectory,
    with_options,
)
from sdaxr.schema import VERSION, OptionError


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sdaxr")
def main() -> None:
    """Score-based data assimilation: from a simulation or a reanalysis to a verified posterior ensemble.

    Files are Zarr or NetCDF. `sdaxr demo` runs all steps of an example. `sdaxr info FILE` describes a file.
    `sdaxr COMMAND --help` explains a command. Flags that are not marked as required have defaults.
    """


def _run(name: str, quiet: bool, values: dict[str, Any], of_system: dict[str, Any] | None = None) -> Any:
    """Run a step with the flags that were given; the other parameters have the defaults of the function.

    ``of_system`` holds the options of the system, whose names are none of the step's parameters.
    """
    for key in of_system or {}:
        if key in steps.parameters(name):
            raise OptionError(
                f"found --option {key}=, expected an option of the system; '{key}' is a parameter of {name}, which has "
                "a flag or an argument of its own"
            )
    # The value of a flag that may be repeated, and was not given, is empty.
    given = {key: value for key, value in values.items() if value is not None and value not in ((), {})}
    given |= of_system or {}
    if "progress" in steps.parameters(name):
        given["progress"] = not quiet
    return steps.run(name, given)


@main.command()
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
    _run("generate", quiet, values, option)


@main.command()
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
    _run("train", quiet, values)


@main.command()
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
    _run("observe", quiet, values)


@main.command()
@click.argument("observations", nargs=-1, required=True)
@on_files(
    prior,
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
    click.echo(texts.statuses(_run("report", quiet, values)))


@main.command()
@click.argument("observations", nargs=-1, required=True)
@on_files(
    click.option("--prior", help="File of a prior, or name of a shipped one; see `sdaxr priors`."),
    store,
    members,
    seed,
    background,
    click.option(
        "--system",
        help="System in the place of the prior: one with Gaussian noise (lorenz63 or linear) for --method ffbs (the "
        "default with a system), bpf, kalman or 4dvar; any system for enkf, etkf, ensrf, letkf, enks or ienks.",
    ),
    option,
    *drawing,
)
def assimilate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Draw a posterior ensemble given observations.

    OBSERVATIONS are files, one for each network: of sdaxr, or of other software, such as CSV (see --reading). The
    result is an archive of trajectories on (member, time, ...). The same command resumes an interrupted run.
    """
    _run("assimilate", quiet, with_options(values, "method", "sampler"), option)


@main.command()
@click.argument("observations", nargs=-1, required=True)
@on_files(
    click.option("--prior", help="File of a prior, or name of a shipped one; see `sdaxr priors`."),
    store,
    click.option(
        "--system",
        help="System, in the place of the prior, for --method etkf (the default with a system), enkf, ensrf, letkf, "
        "enks or ienks: the members go on from window to window.",
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
    _run("cycle", quiet, with_options(values, "method", "sampler"), option)


@main.command()
@click.argument("ensemble")
@on_files(
    click.option(
        "--model",
        required=True,
        help="Name of a system, name of a shipped prior, or file of a prior. A name of both is that of the system; the "
        "prior of this name is reached by the path of its file, which `sdaxr info NAME` shows.",
    ),
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
    _run("forecast", quiet, with_options(values, "method", "sampler"), option)


@main.command()
@click.argument("noisy")
@on_files(
    prior,
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
    _run("denoise", quiet, values)


@main.command()
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
    click.echo(texts.table(_run("verify", quiet, values)))


@main.command()
@click.argument("truth")
@on_files(
    click.option("--operator", required=True, help='Operator as JSON, such as {"op": "coarsen", "factor": 8}.'),
    store,
    click.option("--prior", help="File of a prior, or name of a shipped one; see `sdaxr priors`."),
    *calibrating,
)
def calibrate(quiet: bool, **values: Any) -> None:
    """Test by simulation whether ensembles have the right spread.

    TRUTH is a file of trajectories, the name of a system of which truths are drawn, or `prior`, for draws of the prior
    itself. Each truth is observed and assimilated. Where the ensembles are right, its ranks among their members are
    uniform. The same command resumes a run that was interrupted; `sdaxr plot` draws the result.
    """
    click.echo(texts.calibration(_run("calibrate", quiet, with_options(values, "method", "sampler"))))


@main.command()
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
    _run("plot", quiet, values)


@main.command()
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
    _run("animate", quiet, values)


@main.command()
@click.argument("path", metavar="FILE")
@on_files()
def info(quiet: bool, path: str, storage_options: dict[str, Any]) -> None:
    """Describe a file: kind, provenance, completeness.

    FILE is an archive, a NetCDF file, a prior (a file or the name of a shipped one) or a recipe.
    """
    from sdaxr.archives.description import format_facts
    from sdaxr.commands import info as module

    click.echo(format_facts(module.info(path, storage_options=storage_options or None)))


@main.command()
@flags()
def priors(quiet: bool) -> None:
    """List the shipped priors."""
    import sdaxr

    for name in sdaxr.priors():
        click.echo(f"{name}: {repr(sdaxr.open_prior(name)).strip('<>')}")


@main.command()
@click.argument("recipe")
@flags(click.option("--overwrite", is_flag=True, help="Run steps again that have changed, and replace their files."))
def run(quiet: bool, recipe: str, overwrite: bool) -> None:
    """Run the steps of a recipe that are not done.

    RECIPE is a YAML file that maps commands to their parameters. The same command resumes a run that was interrupted.
    """
    from sdaxr.commands import recipe as module

    for title, result in module.run(recipe, overwrite=overwrite, progress=not quiet).items():
        if title.endswith(" verify"):
            click.echo(texts.table(result))
        if title.endswith(" report"):
            click.echo(texts.statuses(result))
        if title.endswith(" calibrate"):
            click.echo(texts.calibration(result))


@main.command()
@click.argument("directory", default="sdaxr-demo")
@flags(
    members,
    click.option("--states", "length", type=int, help="Number of states. Default: 32 on a CPU, 65 on a GPU."),
    seed,
)
def demo(quiet: bool, directory: str, **values: Any) -> None:
    """Run an example with the shipped prior of a flow.

    A turbulent flow is simulated, observed, assimilated, compared with the truth and with two baselines, and drawn. The
    files are written to DIRECTORY (default: sdaxr-demo).
    """
    from sdaxr.commands import demo as module

    module.run(directory, quiet=quiet, **{key: value for key, value in values.items() if value is not None})
