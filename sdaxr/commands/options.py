"""Flags that several commands share, and how their texts are read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import click

from sdaxr.schema import OptionError

Command = Callable[..., Any]


class _Messages(logging.Handler):
    """Messages of the library on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def set_quiet(ctx: click.Context, parameter: click.Parameter, quiet: bool) -> bool:
    """Messages on standard error, or errors only."""
    logger = logging.getLogger("sdaxr")
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    return quiet


quiet = click.option("--quiet", is_flag=True, callback=set_quiet, help="No progress bars; only errors.")


def flags(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """A command with these options, in this order, and ``--quiet``."""

    def decorate(command: Command) -> Command:
        for option in reversed((*options, quiet)):
            command = option(command)
        return command

    return decorate


def with_options(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """``--method mmps --method-option iterations=2`` as the one parameter ``method``, and others of this kind."""
    for name in names:
        options = values.pop(f"{name}_option")
        if options:
            values[name] = options | ({"name": values[name]} if values[name] is not None else {})
    return values


def value_of(text: str) -> Any:
    """What JSON says, or the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def as_json_or_name(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """JSON, or a name."""
    return None if text is None else value_of(text)


def as_json(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """JSON."""
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}") from error


def as_names(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str] | None:
    """``name=text`` as a dictionary; None where nothing is given."""
    for pair in pairs:
        if not pair.partition("=")[2]:
            raise click.BadParameter(f"found {pair!r}, expected name=operator")
    return {name: text for name, _, text in (pair.partition("=") for pair in pairs)} or None


def as_settings(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` texts as a dictionary; values that are JSON are read as such."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise OptionError(f"found {parameter.opts[0]} {pair!r}, expected key=value, for example resolution=64")
        settings[key.strip().replace("-", "_")] = value_of(text)
    return settings


store = click.option("--store", required=True, help="File to write.")
seed = click.option("--seed", type=int, help="Seed of all random numbers.")
option = click.option("--option", multiple=True, callback=as_settings, help="Option of the system, key=value.")
overwrite = click.option("--overwrite", is_flag=True, default=None, help="Replace what is there.")
trajectory = click.option("--trajectory", type=int, help="Which one, where the file holds many; -1 is the last.")
device = click.option("--device", help="cpu, cuda, or auto.")
truth = click.option("--truth", help="File of the truth.")
observations = click.option("--observations", help="File of the observations.")
variable = click.option("--variable", help="Which variable.")
members = click.option("--members", type=int, help="Size of the ensemble.")
background = click.option("--background", help="File with an earlier estimate of the first state, and its error.")
method = (
    click.option("--method", help="How observations act: sda, mmps, ...; with --system: ffbs, ..."),
    click.option("--method-option", multiple=True, callback=as_settings, help="Such as variance=0.01; repeat."),
)
sampler = (
    click.option("--sampler", help="sde-dpm++, dpm++, ancestral, ddim or exponential (the paper's)."),
    click.option("--sampler-option", multiple=True, callback=as_settings, help="Such as steps=64; repeat."),
)
# How a posterior is drawn, at once or window after window.
drawing = (
    *method,
    *sampler,
    click.option("--operator", help="JSON, where the observations do not say it themselves."),
    click.option("--precision", help="float32 or bfloat16; by default bfloat16 for fields where it is quick."),
    click.option("--outside", help="error, or drop what lies outside the window or off its steps."),
    click.option("--batch", type=int, help="Members computed at once."),
    device,
    overwrite,
)
