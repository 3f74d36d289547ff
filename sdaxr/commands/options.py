"""Flags that several commands share, and the readers of their texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import click

from sdaxr.schema import OptionError

Command = Callable[..., Any]


class _Messages(logging.Handler):
    """Writes messages of the library to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def set_quiet(ctx: click.Context, parameter: click.Parameter, quiet: bool) -> bool:
    """Write messages to standard error, all or errors only, until the command ends."""
    logger, handler = logging.getLogger("sdaxr"), _Messages()
    before = logger.level

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.addHandler(handler)
    # That of a command is not closed where a flag is missing.
    ctx.find_root().call_on_close(end)
    return quiet


quiet = click.option("--quiet", is_flag=True, callback=set_quiet, help="Write errors only, and show no progress bars.")


def flags(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Decorator that gives a command these options, in this order, and ``--quiet``."""

    def decorate(command: Command) -> Command:
        for option in reversed((*options, quiet)):
            command = option(command)
        return command

    return decorate


def with_options(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Join flags such as ``--method mmps`` and ``--method-option iterations=2`` to one parameter, for each name.

    Raises
    ------
    OptionError
        If an option stands in the place of a name.
    """
    for name in names:
        if "=" in (values[name] or ""):
            raise OptionError(
                f"found --{name} {values[name]!r}, expected a name; give an option as --{name}-option {values[name]}"
            )
        options = values.pop(f"{name}_option")
        if options:
            values[name] = options | ({"name": values[name]} if values[name] is not None else {})
    return values


def value_of(text: str) -> Any:
    """The value of JSON, or the text itself where it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def as_json_or_name(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """Read JSON, or a name."""
    return None if text is None else value_of(text)


def as_json(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """Read JSON."""
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}") from error


def as_names(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str] | None:
    """Read texts ``name=operator`` to a dictionary; None where there are none."""
    for pair in pairs:
        if not pair.partition("=")[2]:
            raise click.BadParameter(f"found {pair!r}, expected name=operator")
    return {name: text for name, _, text in (pair.partition("=") for pair in pairs)} or None


def as_settings(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read texts ``key=value`` to a dictionary; a value is JSON or a text."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise OptionError(f"found {parameter.opts[0]} {pair!r}, expected key=value, for example resolution=64")
        settings[key.strip().replace("-", "_")] = value_of(text)
    return settings


def settings(flag: str, text: str, *name: str) -> Callable[[Any], Any]:
    """A flag for options of an object, KEY=VALUE, which may be repeated; ``name`` is its parameter's."""
    return click.option(
        flag, *name, multiple=True, callback=as_settings, metavar="KEY=VALUE", help=f"{text}; repeat for several."
    )


storage = settings(
    "--storage-option",
    "Option of the file system of URLs such as s3://bucket/a.zarr (fsspec), such as endpoint_url=https://example.org "
    "or anon=true; or set them in the environment",
    "storage_options",
)


def on_files(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """`flags` of a command whose files may have URLs."""
    return flags(*options, storage)


store = click.option("--store", "-o", required=True, help="File to which the result is written, .zarr or .nc.")
seed = click.option("--seed", type=int, help="Seed of all random numbers, 0 or more.")
option = settings("--option", "Option of the system, such as noise=0.5 or resolution=64")
overwrite = click.option("--overwrite", is_flag=True, default=None, help="Replace an existing result.")
trajectory = click.option(
    "--trajectory", type=int, help="Index of the trajectory in a file of several; -1 is the last one."
)
domain = click.option("--domain", help="File with the grid, and the static fields, that a prior of patches is put on.")
device = click.option("--device", help="cpu, cuda, or auto: a GPU where there is one.")
reading = settings(
    "--reading",
    "How observations in a file of other software (CSV, Parquet, points in NetCDF, IODA, obs_seq) are read: option of "
    'read_observations, such as errors=1.0, units={"t2m":"K"} or columns={"t2m":"temperature"}',
)
# Flags of the commands that draw.
drawn = (
    click.option("--truth", help="File of a truth, which is drawn at the same times."),
    click.option("--observations", help="File of observations, which are drawn at the same times."),
    reading,
    click.option("--variable", help="Variable that is drawn, or vorticity, where there is a velocity."),
)
members = click.option("--members", type=int, help="Number of members of the ensemble.")
some_members = click.option(
    "--members",
    metavar="N|FIRST:STOP/N",
    help="Number of members of the ensemble; or some of them, such as 0:16/64, the first 16 of 64, which a job of many "
    "adds to the same archive.",
)
prior = click.option("--prior", required=True, help="File of a prior, or name of a shipped one; see `sdaxr priors`.")
background = click.option(
    "--background",
    help="File with an earlier estimate of the first state: one state and its error <variable>_error, or members.",
)
method = (
    click.option(
        "--method",
        help="How observations guide a prior: sda, mmps, jacobian_free, oi, dmps, dps or soad; those of a system "
        "are under --system. Default: the method that the file of the prior records, else sda; for a forecast sda.",
    ),
    settings(
        "--method-option",
        "Option of the method, such as variance=0.01 (sda), iterations=2 (mmps), particles=4096 (ffbs), "
        "localisation=4 or inflation=1.02 (letkf)",
    ),
)
sampler = (
    click.option(
        "--sampler",
        help="How samples are drawn: sde-dpm++, dpm++, ancestral, ddim, exponential (that of the SDA paper), or "
        "twisted (members drawn together). "
        "Default: the sampler that the file of the prior records.",
    ),
    settings(
        "--sampler-option",
        "Option of the sampler, such as steps=64 (noise levels) or corrections=1 (Langevin steps at a noise level)",
    ),
)
# Flags of the commands that make synthetic observations.
simulating = (
    click.option("--error", type=float, required=True, help="Standard deviation of the errors, in the observed units."),
    click.option("--every", type=int, help="Observe every n-th state."),
    click.option("--start", type=int, help="Index of the first observed state, from 0."),
    click.option("--noise", help="Family of the errors: gaussian, laplace, uniform or lognormal."),
    click.option(
        "--correlation",
        callback=as_json,
        help='Distances over which errors are correlated, as JSON by coordinate, such as {"time": 0.1}.',
    ),
    click.option("--missing", type=float, help="Fraction of the values that are missing at random."),
    click.option(
        "--where",
        callback=as_json_or_name,
        help='Observed places: file of a mask, or JSON, such as {"coverage": 0.01, "fixed": true} (at random) or '
        '{"stride": 4, "shift": 1} (every fourth point, moved by one at each time).',
    ),
)
# Flags of the commands that need observations: how they are read, and which of them are used.
units = click.option("--units", help="error or convert: what happens to observations in other units than the prior's.")
screening = settings(
    "--screening",
    "Which observations are used: good=[1,2] (quality flags), duplicates=drop, gross_error=5 (background check), "
    "time=nearest with tolerance=30min",
)
observing = (
    reading,
    click.option("--operator", help="Observation operator as JSON, in the place of that in the observations."),
    units,
    screening,
)
precision = click.option(
    "--precision", help="Precision of the network: float32, bfloat16, or auto (bfloat16 where it is fast)."
)
outside = click.option(
    "--outside", help="error or drop: what happens to observations outside the window, off its steps or on land."
)
batch = click.option("--batch", type=int, help="Number of members computed at once. Default: as many as fit in memory.")
# Flags of the commands that draw a posterior.
drawing = (*observing, *method, *sampler, precision, outside, batch, device, overwrite)
# Flags of the calibration: its trials, what is ranked, and how posteriors are drawn.
calibrating = (
    click.option("--system", help="System in the place of the prior, as of `sdaxr assimilate`."),
    settings("--system-option", "Option of the systems that are named, such as noise=0.5", "system_options"),
    click.option("--truths", type=int, help="Number of truths."),
    click.option("--steps", type=int, help="Number of states of a truth. Default: the window of the prior's training."),
    members,
    *simulating,
    click.option(
        "--quantities",
        multiple=True,
        help="state, mean, energy, observed or log_likelihood; repeat for several. Default: all.",
    ),
    click.option(
        "--points",
        callback=as_json,
        help='Number of random times and places of each variable, or indices as JSON, such as {"time": [0, 16]}.',
    ),
    click.option("--levels", type=float, multiple=True, help="Nominal level of an interval; repeat for several."),
    seed,
    *method,
    *sampler,
    units,
    screening,
    precision,
    outside,
    batch,
    device,
    overwrite,
)
# Flags of the training: the data, the network, and how the weights are found.
training = (
    click.option("--window", type=int, help="Number of states in a training window."),
    click.option("--variables", multiple=True, help="State variable; repeat for several. Default: all variables."),
    click.option(
        "--context", multiple=True, help="Static input of the network, such as a land mask; repeat for several."
    ),
    settings(
        "--statistics",
        "Known statistics of the states, such as normalise=point (at each grid point) or climatology, "
        "cycles=hour_of_day or homogeneous=x (a dimension along which they do not change)",
    ),
    click.option(
        "--augment",
        multiple=True,
        callback=as_names,
        metavar="NAME=OPERATOR",
        help="Observed quantity that the prior learns, for the method soad, such as 'velocity=pv_inversion()'; repeat "
        "for several.",
    ),
    click.option(
        "--network", help="For state vectors convolutional or mlp, for fields space-time-unet or unet; or auto."
    ),
    settings("--network-option", "Option of the network, such as widths=[32,64] or blocks=2"),
    click.option(
        "--parameterisation",
        help="Preconditioning of the network: spectral (auto for fields on periodic domains), eof (auto for other "
        "fields), edm (auto for state vectors), space-time or epsilon.",
    ),
    click.option(
        "--start", help="Prior whose weights the training begins with; network and data are as for that prior."
    ),
    click.option("--steps", type=int, help="Number of training steps."),
    click.option("--minutes", type=float, help="Limit of the training time, with --steps or in its place."),
    settings(
        "--optimisation",
        "Option of the optimisation, such as batch=32 (windows in a step), learning_rate=0.001, levels=[0.005,100] "
        "(noise levels), weighting=relative or precision=float32",
    ),
    click.option("--name", help="Name of the prior, which its file records."),
)


def factor(value: str) -> float | str:
    """A number, or the word for a factor that follows from the observations."""
    return value if value == "adaptive" else float(value)
