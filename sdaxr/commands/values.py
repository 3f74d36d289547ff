"""The values of a recipe, read from YAML and checked against the types of the parameters."""

from __future__ import annotations

import re
from typing import Any

import yaml

from sdaxr.schema import OptionError

# Words for the types in annotations.
_EXPECTED = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "a text",
    "Mapping": "a mapping",
    "Sequence": "a list",
    "Iterable": "a list",
}
# Parameters of these types are checked where they are read.
_UNCHECKED = ("Any", "Operators")


class Loader(yaml.SafeLoader):
    """YAML without double keys, of which the plain loader silently keeps the last, and with the numbers of YAML 1.2."""


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = [key for number, key in enumerate(keys) if key in keys[:number]]
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


def typed(key: str, value: Any, annotation: str) -> Any:
    """The value of the parameter ``key``, in a type that its annotation has; 4.0 is a whole number.

    Raises
    ------
    OptionError
        If the value is of another type.
    """
    plain = annotation
    while "[" in plain:
        plain = re.sub(r"\[[^\[\]]*\]", "", plain)
    kinds = [kind.strip() for kind in plain.split("|")]
    if set(kinds) & set(_UNCHECKED) or _fits(value, kinds, annotation):
        return value
    if isinstance(value, float) and value.is_integer() and "int" in kinds:
        return int(value)
    expected = dict.fromkeys(_EXPECTED[kind] for kind in kinds if kind in _EXPECTED)
    raise OptionError(f"found {key}: {value!r}, expected {' or '.join(expected)}")


def _fits(value: Any, kinds: list[str], annotation: str) -> bool:
    match value:
        case None:
            return "None" in kinds
        case bool():
            return "bool" in kinds
        case int():
            return "int" in kinds or "float" in kinds
        case float():
            return "float" in kinds and abs(value) < float("inf")
        case str():
            return "str" in kinds
        case dict():
            return "Mapping" in kinds
        case list():
            texts = re.search(r"(Sequence|Iterable)\[str\]", annotation) is None or all(
                isinstance(each, str) for each in value
            )
            return ("Sequence" in kinds or "Iterable" in kinds) and texts
    return False
