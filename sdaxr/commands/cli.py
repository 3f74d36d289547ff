"""The command line. Flags have the parameters' names, defaults are the functions'; no logic of its own.

Results go to standard output, messages and progress to standard error. Bad input ends with exit code 2 and one line.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from sdaxr.commands import steps
from sdaxr.commands.options import (
    as_json,
    as_json_or_name,
    as_names,
    as_settings,
    background,
    device,
    drawing,
    flags,
    members,
    method,
    observations,
    option,
    overwrite,
    sampler,
    seed,
    store,
    trajectory,
    truth,
    variable,
    with_options,
)
from sdaxr.schema import VERSION, SdaxrError, nearest


class _Commands(click.Group):
    """Commands in the order of the work, and errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"found the command {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        if not standalone_mode:
            return super().main(*args, **extra)
        try:
            result = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            _fail(error.format_message())
        except SdaxrError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
        except (click.Abort, KeyboardInterrupt):
            click.echo("sdaxr: interrupted; run the same command again to resume", err=True)
            sys.exit(130)
        # Without standalone mode --help and --version return their exit code.
        sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str) -> None:
    click.echo(f"sdaxr: {' '.join(message.split())}", err=True)
    sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sdaxr")
def main() -> None:
    """Score-based data assimilation: from a simulation or a reanalysis to a verified posterior ensemble.

    Inputs are Zarr or NetCDF. `sdaxr demo` runs the whole chain; `sdaxr info FILE` says what a file is.
    """


def _run(name: str, quiet: bool, values: dict[str, Any]) -> Any:
    """Run a step with the flags that were given; all others keep the function's default."""
    given = {key: value for key, value in values.items() if value is not None and value != ()}
    if "progress" in steps.parameters(name):
        given["progress"] = not quiet
    return steps.STEPS[name](**given)


@main.command()
@click.argument("system")
@flags(
    store,
    click.option("--trajectories", type=int, required=True, help="How many."),
    click.option("--steps", type=int, required=True, help="States in each."),
    click.option("--batch", type=int, help="Trajectories that are computed side by side."),
    seed,
    click.option("--split", type=float, nargs=3, help="Fractions for training, validation and test."),
    option,
    overwrite,
)
def generate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Trajectories of SYSTEM (lorenz63, lorenz96, kolmogorov, ...)."""
    _run("generate", quiet, values | option)


@main.command()
@click.argument("trajectories")
@flags(
    click.option("--store", required=True, help="File to write, .safetensors."),
    click.option("--window", type=int, help="States in a window of the training."),
    click.option("--variables", multiple=True, help="State variable; repeat for several, else all."),
    click.option("--context", multiple=True, help="Static field that the network sees; repeat for several."),
    click.option(
        "--statistics",
        multiple=True,
        callback=as_settings,
        help="What is known of the data, key=value: normalise, cycles, homogeneous, symmetries; repeat.",
    ),
    click.option(
        "--augment", multiple=True, callback=as_names, help="name=operator, such as 'velocity=pv_inversion()'; repeat."
    ),
    click.option("--network", help="convolutional, space-time-unet, mlp, unet, or auto."),
    click.option("--network-option", multiple=True, callback=as_settings, help="Such as widths=[32,64]; repeat."),
    click.option("--parameterisation", help="spectral, space-time, edm, epsilon, or auto."),
    click.option("--steps", type=int, help="Training steps."),
    click.option("--minutes", type=float, help="Training time instead of steps."),
    click.option(
        "--optimisation",
        multiple=True,
        callback=as_settings,
        help="How the weights are found, key=value: batch, learning_rate, levels, precision, ...; repeat.",
    ),
    click.option("--name", help="Name recorded in the file."),
    seed,
    device,
    overwrite,
)
def train(quiet: bool, **values: Any) -> None:
    """A prior from TRAJECTORIES, a simulation or a reanalysis."""
    values = with_options(values, "network")
    _run("train", quiet, values | {key: values[key] or None for key in ("statistics", "optimisation")})


@main.command()
@click.argument("truth")
@flags(
    click.option("--operator", required=True, help='JSON, e.g. \'{"op": "coarsen", "factor": 8}\'.'),
    store,
    click.option("--error", type=float, required=True, help="Standard deviation of the noise, in the units observed."),
    click.option("--every", type=int, help="Observe every so many states."),
    click.option("--start", type=int, help="First state that is observed."),
    click.option("--noise", help="gaussian, laplace, uniform or lognormal; all with the deviation --error."),
    click.option(
        "--correlation", callback=as_json, help="Distances of correlated errors as JSON, e.g. '{\"time\": 0.1}'."
    ),
    click.option("--missing", type=float, help="Fraction of the values that is missing at random."),
    click.option(
        "--where",
        callback=as_json_or_name,
        help='Mask: its file, or JSON, {"coverage": 0.01, "fixed": true} or {"stride": 4, "shift": 1}.',
    ),
    seed,
    trajectory,
    overwrite,
)
def observe(quiet: bool, **values: Any) -> None:
    """Synthetic observations of TRUTH."""
    _run("observe", quiet, values)


@main.command()
@click.argument("observations", nargs=-1, required=True)
@flags(
    click.option("--prior", help="Name of a shipped prior (sdaxr priors) or file."),
    store,
    members,
    seed,
    background,
    click.option("--system", help="System with Gaussian noise (lorenz63, linear), in the place of the prior."),
    option,
    *drawing,
)
def assimilate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """The posterior ensemble given OBSERVATIONS, one file for each network."""
    _run("assimilate", quiet, with_options(values, "method", "sampler") | option)


@main.command()
@click.argument("observations", nargs=-1, required=True)
@flags(
    click.option("--prior", required=True, help="Name of a shipped prior (sdaxr priors) or file."),
    store,
    click.option("--window", type=int, help="States in a window."),
    click.option(
        "--carry", help="System or prior that goes on from one window to the next, in the place of the prior."
    ),
    option,
    click.option("--inflation", type=float, help="Factor on the spread of the ensemble that goes on."),
    members,
    seed,
    background,
    *drawing,
)
def cycle(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """The posterior window after window given OBSERVATIONS of a long time, one file for each network."""
    _run("cycle", quiet, with_options(values, "method", "sampler") | option)


@main.command()
@click.argument("ensemble")
@flags(
    click.option("--model", required=True, help="Name of a system, or of a prior, or file of a prior."),
    store,
    click.option("--steps", type=int, required=True, help="States to forecast."),
    seed,
    click.option("--context", type=int, help="Prior: states that a block is conditioned on."),
    click.option("--block", type=int, help="Prior: new states in a block."),
    click.option("--error", type=float, help="Prior: how closely those are held, in units of the variable's sd."),
    *method,
    *sampler,
    click.option("--batch", type=int, help="Prior: members computed at once."),
    device,
    option,
    trajectory,
    overwrite,
)
def forecast(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """A forecast from the last states of ENSEMBLE, by a system or by a prior."""
    _run("forecast", quiet, with_options(values, "method", "sampler") | option)


@main.command()
@click.argument("noisy")
@flags(
    click.option("--prior", required=True, help="Name of a shipped prior or file."),
    store,
    click.option("--error", type=float, required=True, help="Standard deviation of the noise, data's units."),
    click.option("--method", help="posterior or langevin."),
    members,
    click.option("--step-size", type=float, help="Step of the Langevin iteration."),
    click.option("--steps", type=int, help="Number of its steps, or of noise levels."),
    click.option("--level", type=float, help="Noise level of the Langevin iteration."),
    click.option("--batch", type=int, help="Samples computed at once."),
    seed,
    trajectory,
    device,
    overwrite,
)
def denoise(quiet: bool, **values: Any) -> None:
    """Clean fields from NOISY ones."""
    _run("denoise", quiet, values)


@main.command()
@click.argument("posterior")
@click.argument("truth")
@flags(
    trajectory,
    click.option("--metrics", multiple=True, help="Which one; repeat for several, else all that apply."),
    click.option("--store", help="File for the scores."),
    overwrite,
)
def verify(quiet: bool, **values: Any) -> None:
    """Scores of POSTERIOR, or of a forecast, against TRUTH."""
    click.echo(steps.table(_run("verify", quiet, values)))


@main.command()
@click.argument("data")
@flags(
    click.option("--path", required=True, help="Picture to write, e.g. .png."),
    truth,
    observations,
    variable,
    click.option("--times", type=int, help="How many times are drawn."),
    click.option("--members", type=int, help="How many members are drawn."),
    trajectory,
)
def plot(quiet: bool, **values: Any) -> None:
    """A picture of DATA: truth, observations, members, mean and spread."""
    _run("plot", quiet, values)


@main.command()
@click.argument("data")
@flags(
    click.option("--path", required=True, help="GIF to write."),
    truth,
    observations,
    variable,
    click.option("--fps", type=float, help="Frames in a second."),
    trajectory,
)
def animate(quiet: bool, **values: Any) -> None:
    """An animation of DATA."""
    _run("animate", quiet, values)


@main.command()
@click.argument("path", metavar="FILE")
@flags()
def info(quiet: bool, path: str) -> None:
    """What FILE is, its provenance, and whether it is complete."""
    from sdaxr.archives.description import format_facts
    from sdaxr.commands import info as module

    click.echo(format_facts(module.info(path)))


@main.command()
@flags()
def priors(quiet: bool) -> None:
    """The shipped priors."""
    import sdaxr

    for name in sdaxr.priors():
        click.echo(f"{name}: {repr(sdaxr.open_prior(name)).strip('<>')}")


@main.command()
@click.argument("recipe")
@flags(click.option("--overwrite", is_flag=True, help="Redo steps that have changed, and replace their files."))
def run(quiet: bool, recipe: str, overwrite: bool) -> None:
    """All steps of RECIPE (YAML) that are not done."""
    from sdaxr.commands import recipe as module

    for title, result in module.run(recipe, overwrite=overwrite, progress=not quiet).items():
        if title.endswith(" verify"):
            click.echo(steps.table(result))


@main.command()
@click.argument("directory", default="sdaxr-demo")
@flags(
    members,
    click.option("--states", "length", type=int, help="Number of states of the truth; 32 on a CPU, 65 on a GPU."),
    seed,
)
def demo(quiet: bool, directory: str, **values: Any) -> None:
    """The whole chain on the shipped prior; writes a posterior, a picture and an animation into DIRECTORY."""
    from sdaxr.commands import demo as module

    module.run(directory, quiet=quiet, **{key: value for key, value in values.items() if value is not None})
