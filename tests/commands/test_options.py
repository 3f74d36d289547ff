"""Texts of flags as values."""

from __future__ import annotations

import logging

import click
import pytest
from click.testing import CliRunner

from sdaxr.commands.cli import main
from sdaxr.commands.options import as_json, as_json_or_name, as_names, as_settings, value_of, with_options
from sdaxr.schema import OptionError

OPTION = click.Option(["--network-option"])
CONTEXT = click.Context(click.Command("train"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("[32, 64]", [32, 64]),
        ("karras", "karras"),
        ('{"name": "x"}', {"name": "x"}),
    ],
)
def test_what_is_json_is_read_and_the_rest_is_text(text: str, value: object) -> None:
    assert value_of(text) == as_json_or_name(CONTEXT, OPTION, text) == value
    assert as_settings(CONTEXT, OPTION, (f"learning-rate={text}",)) == {"learning_rate": value}


def test_a_text_may_hold_equals_signs() -> None:
    assert as_settings(CONTEXT, OPTION, ("path=a=b", "n=1")) == {"path": "a=b", "n": 1}
    assert as_names(CONTEXT, OPTION, ("v=scale(factor=2)",)) == {"v": "scale(factor=2)"}
    assert as_names(CONTEXT, OPTION, ()) is None and as_json(CONTEXT, OPTION, None) is None


def test_what_cannot_be_read_is_an_error() -> None:
    with pytest.raises(OptionError, match="found --network-option 'width', expected key=value"):
        as_settings(CONTEXT, OPTION, ("width",))
    with pytest.raises(click.BadParameter, match="'{' is not JSON"):
        as_json(CONTEXT, OPTION, "{")
    with pytest.raises(click.BadParameter, match="found 'speed', expected name=operator"):
        as_names(CONTEXT, OPTION, ("speed",))


def test_options_join_the_name_of_what_they_belong_to() -> None:
    values = {"method": "mmps", "method_option": {"iterations": 2}, "sampler": None, "sampler_option": {"steps": 4}}
    assert with_options(values, "method", "sampler") == {
        "method": {"name": "mmps", "iterations": 2},
        "sampler": {"steps": 4},
    }
    assert with_options({"method": "mmps", "method_option": {}}, "method") == {"method": "mmps"}


@pytest.mark.parametrize(("name", "text"), [("sampler", "steps=8"), ("method", "variance=0.1"), ("network", "width=8")])
def test_an_option_in_the_place_of_a_name_is_told_from_it(name: str, text: str) -> None:
    message = f"found --{name} '{text}', expected a name; give an option as --{name}-option {text}"
    with pytest.raises(OptionError, match=message):
        with_options({name: text, f"{name}_option": {}}, name)


@pytest.mark.parametrize("arguments", [["info", "nothing.zarr", "--quiet"], ["train", "--quiet"]])
def test_the_logger_is_as_before_when_a_command_has_ended(arguments: list[str]) -> None:
    logger = logging.getLogger("sdaxr")
    before = logger.level, list(logger.handlers)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code != 0
    assert (logger.level, logger.handlers) == before
