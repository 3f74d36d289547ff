"""Objects by name, or by a mapping of a name and options.

Methods, samplers, networks and systems are frozen dataclasses, whose fields are their options. A `Registry` gives each
class a name. Python, the command line, recipes and files then build the same object::

    SpaceTimeUNet(widths=(32, 64))                        # an object
    "space-time-unet"                                     # a name: every option has its default
    {"name": "space-time-unet", "widths": [32, 64]}       # a mapping: YAML, JSON, the shell

A value is converted to the type of its field: ``64``, ``64.0`` and ``"64"`` are the same option.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Generic, TypeVar

from sdaxr.schema import OptionError, nearest, shown
from sdaxr.states.validation import checked, fields_of

T = TypeVar("T")
O = TypeVar("O", bound="Options")  # noqa: E741 (options of one class)


@dataclass(frozen=True)
class Options:
    """Base of frozen dataclasses that hold options. A value is converted to the type of its field.

    Fields are annotated with ``int``, ``float``, ``bool``, ``str``, the numbers with bounds of
    `sdaxr.states.validation`, tuples of these, and ``| None``. A value of another type is not converted. A field with
    ``metadata={"registry": REGISTRY}`` holds an object of this registry; a name or a mapping is replaced by the object
    that it describes.
    """

    def __post_init__(self) -> None:
        convert_fields(self)

    @classmethod
    def of(cls: type[O], value: O | Mapping[str, Any] | None) -> O:
        """The options as an object. ``value`` is such an object, a mapping of some options, or None for the defaults.

        Raises
        ------
        OptionError
            If ``value`` is something else, or an option is unknown or impossible.
        """
        if isinstance(value, cls):
            return value
        if value is None or isinstance(value, Mapping):
            return cls(**_checked(cls, value or {}, cls.__name__))
        raise OptionError(f"found {shown(value)}, expected {cls.__name__}(...) or a mapping of its options")

    def expect(self, name: str, holds: bool, expected: str) -> None:
        """Raise `OptionError` for the option ``name`` unless ``holds``; ``expected`` describes its values."""
        if not holds:
            raise OptionError(
                f"found {name}={shown(getattr(self, name))} for {type(self).__name__}, expected {expected}"
            )

    def to_dict(self) -> dict[str, Any]:
        """All options in the types of JSON; the inverse of `of`."""
        return {field.name: _plain(field, getattr(self, field.name)) for field in fields(self)}


def convert_fields(options: Any, *, but: Collection[str] = ()) -> None:
    """Convert the fields of a frozen dataclass to their types, in place, except those of the names ``but``.

    Raises
    ------
    OptionError
        If a value is of another type, or out of the bounds of its field.
    """
    for field in fields(options):
        if field.name not in but:
            value = _converted(type(options), field, getattr(options, field.name), type(options).__name__)
            object.__setattr__(options, field.name, value)


class Registry(Generic[T]):
    """Classes by name.

    Parameters
    ----------
    what
        Word for an object of the registry in messages, such as ``"network"``.
    base
        Class of which every object is an instance.
    homes
        ``"module:Class"`` of a dataclass, by its name. The module is imported when the name is first used.
    """

    def __init__(self, what: str, base: type[T], homes: Mapping[str, str]) -> None:
        self.what, self.base, self.homes = what, base, dict(homes)

    def names(self) -> list[str]:
        """All names, in alphabetical order."""
        return sorted(self.homes)

    def register(self, name: str, target: str) -> None:
        """Give a class a name.

        Parameters
        ----------
        name
            Name in Python, on the command line and in recipes.
        target
            ``"module:Class"``; the module is imported when the name is first used.

        Raises
        ------
        OptionError
            If ``target`` has another form, or the name is taken by another class.
        """
        module, _, attribute = target.partition(":")
        if not module or not attribute:
            raise OptionError(f"found the target {target!r}, expected 'module:Class'")
        if self.homes.get(name, target) != target:
            raise OptionError(f"the {self.what} {name!r} is already {self.homes[name]!r}; choose another name")
        self.homes[name] = target

    def class_names(self) -> list[str]:
        """Names of the classes in Python, in the order of the registry."""
        return list(dict.fromkeys(target.partition(":")[2] for target in self.homes.values()))

    def class_named(self, name: str) -> type[T] | None:
        """The class whose name in Python is ``name``, or None."""
        found = [key for key, target in self.homes.items() if target.partition(":")[2] == name]
        return self.kind(found[0]) if found else None

    def kind(self, name: str) -> type[T]:
        """The class that is registered as ``name``.

        Raises
        ------
        OptionError
            If no class has this name.
        """
        if name not in self.homes:
            raise OptionError(f"unknown {self.what} {nearest(name, self.homes)}")
        module, _, attribute = self.homes[name].partition(":")
        found: type[T] = getattr(importlib.import_module(module), attribute)
        return found

    def build(self, value: T | str | Mapping[str, Any]) -> T:
        """The object that ``value`` describes: an object, its name, or a mapping of its ``"name"`` and options.

        Raises
        ------
        OptionError
            If ``value`` is something else, or the name or an option is unknown or impossible.
        """
        if isinstance(value, self.base):
            return value
        given = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise OptionError(
                f"found {shown(value)} for the {self.what}, expected one of {', '.join(self.names())}, a mapping "
                f"with a 'name' and options, or a {self.what} object"
            )
        name = given["name"]
        kind = self.kind(name)
        return kind(**_checked(kind, {key: each for key, each in given.items() if key != "name"}, name))

    def name_of(self, value: T) -> str:
        """The name of the class of an object.

        Raises
        ------
        OptionError
            If the class has no name.
        """
        home = f"{type(value).__module__}:{type(value).__qualname__}"
        for name, target in self.homes.items():
            if target == home:
                return name
        raise OptionError(f"the {self.what} {type(value).__name__} has no name; register it as {home!r} first")

    def describe(self, value: T) -> dict[str, Any]:
        """Name and all options in the types of JSON; the inverse of `build`."""
        described = {field.name: _plain(field, getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]
        return {"name": self.name_of(value), **described}


def _checked(kind: type[Any], options: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """``options`` of the dataclass ``kind``, each converted to the type of its field."""
    known = {field.name: field for field in fields(kind) if field.init}
    for key in options:
        if key not in known:
            raise OptionError(f"unknown option of {owner}: {nearest(key, known)}")
    missing = [name for name, field in known.items() if name not in options and _is_required(field)]
    if missing:
        raise OptionError(f"{owner} needs the option {', '.join(missing)}")
    return {key: _converted(kind, known[key], value, owner) for key, value in options.items()}


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(field: Field[Any], value: Any) -> Any:
    if "registry" in field.metadata and isinstance(value, field.metadata["registry"].base):
        return field.metadata["registry"].describe(value)
    return _listed(value)


def _listed(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_listed(each) for each in value]
    return {key: _listed(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _converted(cls: type[Any], field: Field[Any], value: Any, owner: str) -> Any:
    """``value`` in the type of the field, within its bounds."""
    registry = field.metadata.get("registry")
    if registry is not None:
        return registry.build(value) if isinstance(value, str | Mapping) else value
    default = None if field.default is MISSING else field.default
    kind = fields_of(cls).get(field.name, Any)
    example = None if default is None else _listed(default)
    # Only what is infinite where nothing is given can be.
    return checked(field.name, value, kind, owner=owner, infinite=default == math.inf, example=example)
