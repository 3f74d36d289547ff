"""Dynamical systems by name."""

from __future__ import annotations

import importlib
from dataclasses import MISSING, fields
from typing import Any

from sdaxr.schema import OptionError, nearest
from sdaxr.systems.base import System

_REGISTRY: dict[str, str] = {
    "kolmogorov": "sdaxr.systems.kolmogorov:Kolmogorov",
    "linear": "sdaxr.systems.linear:Linear",
    "lorenz63": "sdaxr.systems.lorenz63:Lorenz63",
    "lorenz96": "sdaxr.systems.lorenz96:Lorenz96",
    "quasigeostrophic": "sdaxr.systems.quasigeostrophic:QuasiGeostrophic",
}


def systems() -> list[str]:
    """Names that `open_system` knows, in alphabetical order."""
    return sorted(_REGISTRY)


def register(name: str, target: str) -> None:
    """Give a system a name.

    Parameters
    ----------
    name
        The name for `open_system`, `sdaxr.generate` and the command line.
    target
        ``"module:Class"``; the module is imported when the system is first opened.

    Raises
    ------
    OptionError
        If ``target`` has another form, or the name is taken by another class.
    """
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise OptionError(f"found the target {target!r}, expected 'module:Class'")
    if _REGISTRY.get(name, target) != target:
        raise OptionError(f"the system {name!r} is already {_REGISTRY[name]!r}; choose another name")
    _REGISTRY[name] = target


def open_system(name: str | System, **options: Any) -> System:
    """A dynamical system by name.

    Parameters
    ----------
    name
        One of `systems()`; a `System` is returned as it is (and takes no options).
    **options
        Fields of the system's class; texts are converted to the type of the field's default.

    Raises
    ------
    OptionError
        If the name or an option is unknown, or an option has an impossible value.
    """
    if isinstance(name, System):
        if options:
            raise OptionError(
                f"found the options {sorted(options)} beside a {type(name).__name__} object; set them on the "
                "object, or pass the system's name"
            )
        return name
    if name not in _REGISTRY:
        raise OptionError(f"unknown system {nearest(name, _REGISTRY)}")
    module, _, attribute = _REGISTRY[name].partition(":")
    kind: type[System] = getattr(importlib.import_module(module), attribute)
    defaults = {field.name: field.default for field in fields(kind)}
    return kind(**{key: _converted(name, key, value, defaults) for key, value in options.items()})


def _converted(name: str, key: str, value: Any, defaults: dict[str, Any]) -> Any:
    if key not in defaults:
        raise OptionError(f"unknown option of {name}: {nearest(key, defaults)}")
    kind = type(defaults[key])
    if defaults[key] is MISSING or kind not in (int, float) or type(value) is kind:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number or (kind is int and number != int(number)):
        expected = "a whole number" if kind is int else "a number"
        raise OptionError(f"found {key}={value!r} for {name}, expected {expected} such as {defaults[key]}")
    # One canonical type, so that resolution=64, 64.0 and "64" are one configuration and one archive.
    return kind(number)
