"""The command line. Flags have the parameters' names, defaults are the functions'; no logic of its own.

Results go to standard output, messages and progress to standard error. Bad input ends with exit code 2 and one line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from sdaxr.commands import steps
from sdaxr.schema import VERSION, OptionError, SdaxrError, nearest

_Command = Callable[..., Any]


class _Commands(click.Group):
    """Commands in the order of the work, and errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"found the command {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
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


class _Messages(logging.Handler):
    """Messages of the library on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def _set_quiet(ctx: click.Context, parameter: click.Parameter, quiet: bool) -> bool:
    logger = logging.getLogger("sdaxr")
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    return quiet


_quiet = click.option("--quiet", is_flag=True, callback=_set_quiet, help="No progress bars; only errors.")


def _flags(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed((*options, _quiet)):
            command = option(command)
        return command

    return decorate


def _with_options(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """``--method mmps --method-option iterations=2`` as the one parameter ``method``, and others of this kind."""
    for name in names:
        options = values.pop(f"{name}_option")
        if options:
            values[name] = options | ({"name": values[name]} if values[name] is not None else {})
    return values


def _run(name: str, quiet: bool, values: dict[str, Any]) -> Any:
    """Run a step with the flags that were given; all others keep the function's default."""
    given = {key: value for key, value in values.items() if value is not None and value != ()}
    if "progress" in steps.parameters(name):
        given["progress"] = not quiet
    return steps.STEPS[name](**given)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _json_or_name(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    return None if text is None else _value(text)


def _json(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}") from error


def _named(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str] | None:
    """``name=text`` as a dictionary; None where nothing is given."""
    for pair in pairs:
        if not pair.partition("=")[2]:
            raise click.BadParameter(f"found {pair!r}, expected name=operator")
    return {name: text for name, _, text in (pair.partition("=") for pair in pairs)} or None


def _settings(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` texts as a dictionary; values that are JSON are read as such."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise OptionError(f"found {parameter.opts[0]} {pair!r}, expected key=value, for example resolution=64")
        settings[key.strip().replace("-", "_")] = _value(text)
    return settings


_store = click.option("--store", required=True, help="File to write.")
_seed = click.option("--seed", type=int, help="Seed of all random numbers.")
_option = click.option("--option", multiple=True, callback=_settings, help="Option of the system, key=value.")
_overwrite = click.option("--overwrite", is_flag=True, default=None, help="Replace what is there.")
_trajectory = click.option("--trajectory", type=int, help="Which one, where the file holds many; -1 is the last.")
_device = click.option("--device", help="cpu, cuda, or auto.")
_truth = click.option("--truth", help="File of the truth.")
_observations = click.option("--observations", help="File of the observations.")
_variable = click.option("--variable", help="Which variable.")
_members = click.option("--members", type=int, help="Size of the ensemble.")
_background = click.option("--background", help="File with an earlier estimate of the first state, and its error.")
_method = (
    click.option("--method", help="How observations act: sda, mmps, ...; with --system: ffbs, ..."),
    click.option("--method-option", multiple=True, callback=_settings, help="Such as variance=0.01; repeat."),
)
_sampler = (
    click.option("--sampler", help="sde-dpm++, dpm++, ancestral, ddim or exponential (the paper's)."),
    click.option("--sampler-option", multiple=True, callback=_settings, help="Such as steps=64; repeat."),
)
# How a posterior is drawn, at once or window after window.
_drawing = (
    *_method,
    *_sampler,
    click.option("--operator", help="JSON, where the observations do not say it themselves."),
    click.option("--precision", help="float32 or bfloat16; by default bfloat16 for fields where it is quick."),
    click.option("--outside", help="error, or drop what lies outside the window or off its steps."),
    click.option("--batch", type=int, help="Members computed at once."),
    _device,
    _overwrite,
)


@main.command()
@click.argument("system")
@_flags(
    _store,
    click.option("--trajectories", type=int, required=True, help="How many."),
    click.option("--steps", type=int, required=True, help="States in each."),
    click.option("--batch", type=int, help="Trajectories that are computed side by side."),
    _seed,
    click.option("--split", type=float, nargs=3, help="Fractions for training, validation and test."),
    _option,
    _overwrite,
)
def generate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """Trajectories of SYSTEM (lorenz63, lorenz96, kolmogorov, ...)."""
    _run("generate", quiet, values | option)


@main.command()
@click.argument("trajectories")
@_flags(
    click.option("--store", required=True, help="File to write, .safetensors."),
    click.option("--window", type=int, help="States in a window of the training."),
    click.option("--variables", multiple=True, help="State variable; repeat for several, else all."),
    click.option("--context", multiple=True, help="Static field that the network sees; repeat for several."),
    click.option(
        "--statistics",
        multiple=True,
        callback=_settings,
        help="What is known of the data, key=value: normalise, cycles, homogeneous, symmetries; repeat.",
    ),
    click.option(
        "--augment", multiple=True, callback=_named, help="name=operator, such as 'velocity=pv_inversion()'; repeat."
    ),
    click.option("--network", help="convolutional, space-time-unet, mlp, unet, or auto."),
    click.option("--network-option", multiple=True, callback=_settings, help="Such as widths=[32,64]; repeat."),
    click.option("--parameterisation", help="spectral, space-time, edm, epsilon, or auto."),
    click.option("--steps", type=int, help="Training steps."),
    click.option("--minutes", type=float, help="Training time instead of steps."),
    click.option(
        "--optimisation",
        multiple=True,
        callback=_settings,
        help="How the weights are found, key=value: batch, learning_rate, levels, precision, ...; repeat.",
    ),
    click.option("--name", help="Name recorded in the file."),
    _seed,
    _device,
    _overwrite,
)
def train(quiet: bool, network: str | None, network_option: dict[str, Any], **values: Any) -> None:
    """A prior from TRAJECTORIES, a simulation or a reanalysis."""
    named = {} if network is None else {"name": network}
    options = {"network": named | network_option, **{key: values[key] for key in ("statistics", "optimisation")}}
    _run("train", quiet, values | {key: given or None for key, given in options.items()})


@main.command()
@click.argument("truth")
@_flags(
    click.option("--operator", required=True, help='JSON, e.g. \'{"op": "coarsen", "factor": 8}\'.'),
    _store,
    click.option("--error", type=float, required=True, help="Standard deviation of the noise, in the units observed."),
    click.option("--every", type=int, help="Observe every so many states."),
    click.option("--start", type=int, help="First state that is observed."),
    click.option("--noise", help="gaussian, laplace, uniform or lognormal; all with the deviation --error."),
    click.option(
        "--correlation", callback=_json, help="Distances of correlated errors as JSON, e.g. '{\"time\": 0.1}'."
    ),
    click.option("--missing", type=float, help="Fraction of the values that is missing at random."),
    click.option(
        "--where",
        callback=_json_or_name,
        help='Mask: its file, or JSON, {"coverage": 0.01, "fixed": true} or {"stride": 4, "shift": 1}.',
    ),
    _seed,
    _trajectory,
    _overwrite,
)
def observe(quiet: bool, **values: Any) -> None:
    """Synthetic observations of TRUTH."""
    _run("observe", quiet, values)


@main.command()
@click.argument("observations", nargs=-1, required=True)
@_flags(
    click.option("--prior", help="Name of a shipped prior (sdaxr priors) or file."),
    _store,
    _members,
    _seed,
    _background,
    click.option("--system", help="System with Gaussian noise (lorenz63, linear), in the place of the prior."),
    _option,
    *_drawing,
)
def assimilate(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """The posterior ensemble given OBSERVATIONS, one file for each network."""
    _run("assimilate", quiet, _with_options(values, "method", "sampler") | option)


@main.command()
@click.argument("observations", nargs=-1, required=True)
@_flags(
    click.option("--prior", required=True, help="Name of a shipped prior (sdaxr priors) or file."),
    _store,
    click.option("--window", type=int, help="States in a window."),
    click.option(
        "--carry", help="System or prior that goes on from one window to the next, in the place of the prior."
    ),
    _option,
    click.option("--inflation", type=float, help="Factor on the spread of the ensemble that goes on."),
    _members,
    _seed,
    _background,
    *_drawing,
)
def cycle(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """The posterior window after window given OBSERVATIONS of a long time, one file for each network."""
    _run("cycle", quiet, _with_options(values, "method", "sampler") | option)


@main.command()
@click.argument("ensemble")
@_flags(
    click.option("--model", required=True, help="Name of a system, or of a prior, or file of a prior."),
    _store,
    click.option("--steps", type=int, required=True, help="States to forecast."),
    _seed,
    click.option("--context", type=int, help="Prior: states that a block is conditioned on."),
    click.option("--block", type=int, help="Prior: new states in a block."),
    click.option("--error", type=float, help="Prior: how closely those are held, in units of the variable's sd."),
    *_method,
    *_sampler,
    click.option("--batch", type=int, help="Prior: members computed at once."),
    _device,
    _option,
    _trajectory,
    _overwrite,
)
def forecast(quiet: bool, option: dict[str, Any], **values: Any) -> None:
    """A forecast from the last states of ENSEMBLE, by a system or by a prior."""
    _run("forecast", quiet, _with_options(values, "method", "sampler") | option)


@main.command()
@click.argument("noisy")
@_flags(
    click.option("--prior", required=True, help="Name of a shipped prior or file."),
    _store,
    click.option("--error", type=float, required=True, help="Standard deviation of the noise, data's units."),
    click.option("--method", help="posterior or langevin."),
    _members,
    click.option("--step-size", type=float, help="Step of the Langevin iteration."),
    click.option("--steps", type=int, help="Number of its steps, or of noise levels."),
    click.option("--level", type=float, help="Noise level of the Langevin iteration."),
    click.option("--batch", type=int, help="Samples computed at once."),
    _seed,
    _trajectory,
    _device,
    _overwrite,
)
def denoise(quiet: bool, **values: Any) -> None:
    """Clean fields from NOISY ones."""
    _run("denoise", quiet, values)


@main.command()
@click.argument("posterior")
@click.argument("truth")
@_flags(
    _trajectory,
    click.option("--metrics", multiple=True, help="Which one; repeat for several, else all that apply."),
    click.option("--store", help="File for the scores."),
    _overwrite,
)
def verify(quiet: bool, **values: Any) -> None:
    """Scores of POSTERIOR, or of a forecast, against TRUTH."""
    click.echo(steps.table(_run("verify", quiet, values)))


@main.command()
@click.argument("data")
@_flags(
    click.option("--path", required=True, help="Picture to write, e.g. .png."),
    _truth,
    _observations,
    _variable,
    click.option("--times", type=int, help="How many times are drawn."),
    click.option("--members", type=int, help="How many members are drawn."),
    _trajectory,
)
def plot(quiet: bool, **values: Any) -> None:
    """A picture of DATA: truth, observations, members, mean and spread."""
    _run("plot", quiet, values)


@main.command()
@click.argument("data")
@_flags(
    click.option("--path", required=True, help="GIF to write."),
    _truth,
    _observations,
    _variable,
    click.option("--fps", type=float, help="Frames in a second."),
    _trajectory,
)
def animate(quiet: bool, **values: Any) -> None:
    """An animation of DATA."""
    _run("animate", quiet, values)


@main.command()
@click.argument("path", metavar="FILE")
@_flags()
def info(quiet: bool, path: str) -> None:
    """What FILE is, its provenance, and whether it is complete."""
    from sdaxr.archives.description import format_facts
    from sdaxr.commands import info as module

    click.echo(format_facts(module.info(path)))


@main.command()
@_flags()
def priors(quiet: bool) -> None:
    """The shipped priors."""
    import sdaxr

    for name in sdaxr.priors():
        click.echo(f"{name}: {repr(sdaxr.open_prior(name)).strip('<>')}")


@main.command()
@click.argument("recipe")
@_flags(click.option("--overwrite", is_flag=True, help="Redo steps that have changed, and replace their files."))
def run(quiet: bool, recipe: str, overwrite: bool) -> None:
    """All steps of RECIPE (YAML) that are not done."""
    from sdaxr.commands import recipe as module

    for title, result in module.run(recipe, overwrite=overwrite, progress=not quiet).items():
        if title.endswith(" verify"):
            click.echo(steps.table(result))


@main.command()
@click.argument("directory", default="sdaxr-demo")
@_flags(
    _members,
    click.option("--states", "length", type=int, help="Number of states of the truth; 32 on a CPU, 65 on a GPU."),
    _seed,
)
def demo(quiet: bool, directory: str, **values: Any) -> None:
    """The whole chain on the shipped prior; writes a posterior, a picture and an animation into DIRECTORY."""
    from sdaxr.commands import demo as module

    module.run(directory, quiet=quiet, **{key: value for key, value in values.items() if value is not None})
