"""Recipes as YAML: the text of a file, and its values as the parameters of a step take them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sdaxr.schema import OptionError
from sdaxr.states.validation import checked, plain

# Recipes have some hundred lines: what is larger, or becomes larger where aliases are written out, is none.
_LONGEST = 1_000_000
_MOST_NODES = 20_000
_DEEPEST = 50


class Loader(yaml.SafeLoader):
    """YAML of bounded size, without double keys (the plain loader keeps the last), with the numbers of YAML 1.2."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _expanded(node, {}) > _MOST_NODES:
            raise _refused(node, f"found more than {_MOST_NODES:,} values where aliases are written out")
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"found values within values, more than {_DEEPEST}", problem_mark=self.get_mark()
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of nodes below ``node`` where aliases are written out; `_MOST_NODES` or more for one within itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_NODES  # until it is known: a node within itself has no end
        inside = [each for pair in node.value for each in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded(each, known) for each in inside)
    return known[id(node)]


def _refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    strange = [key for key in keys if not isinstance(key, str)]
    if strange:
        raise _refused(node, f"found the key {strange[0]!r}, expected a text")
    twice = [key for number, key in enumerate(keys) if key in set(keys[:number])] if len(set(keys)) < len(keys) else []
    if twice:
        raise yaml.MarkedYAMLError(
            problem=f"found {', '.join(map(repr, twice))} twice; use the form with a list for a command used twice",
            problem_mark=node.start_mark,
        )
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# In YAML 1.1, 1e-3 is a text: a number with an exponent needs a point and a sign of the exponent.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load(path: Path) -> Any:
    """What a YAML file holds.

    Raises
    ------
    OptionError
        If the file cannot be read, is too large, or is not YAML.
    """
    try:
        if path.exists() and not path.is_file():
            raise OptionError(f"cannot read the recipe '{path}': it is a folder or a device, expected a file")
        with path.open("rb") as file:
            raw = file.read(_LONGEST + 1)
        if len(raw) > _LONGEST:
            raise OptionError(f"'{path}' has more than {_LONGEST:,} bytes, expected a recipe of some lines")
        return yaml.load(raw.decode(), Loader)
    except OSError as error:
        raise OptionError(f"cannot read the recipe '{path}': {error.strerror}") from error
    # An impossible date, a number of too many digits and bytes that are no text are ValueErrors.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"'{path}' is not valid YAML: {' '.join(str(error).split())[:300]}") from error


def typed(key: str, value: Any, kind: Any) -> Any:
    """The value of the parameter ``key`` of a step, in the declared type ``kind``; 4.0 is a whole number.

    Raises
    ------
    OptionError
        If the value is of another type.
    """
    return checked(key, value, plain(kind), strict=True, sign=": ")
