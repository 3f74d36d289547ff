"""Dynamical systems by name."""

from __future__ import annotations

from typing import Any

from sdaxr.schema import OptionError
from sdaxr.states.registry import Registry
from sdaxr.systems.augmented import Augmented
from sdaxr.systems.base import System

SYSTEMS: Registry[System] = Registry(
    "system",
    System,  # type: ignore[type-abstract]
    {
        "kolmogorov": "sdaxr.systems.kolmogorov:Kolmogorov",
        "linear": "sdaxr.systems.linear:Linear",
        "lorenz63": "sdaxr.systems.lorenz63:Lorenz63",
        "lorenz96": "sdaxr.systems.lorenz96:Lorenz96",
        "quasigeostrophic": "sdaxr.systems.quasigeostrophic:QuasiGeostrophic",
    },
)


def systems() -> list[str]:
    """Names that `open_system` knows, in alphabetical order."""
    return SYSTEMS.names()


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
    SYSTEMS.register(name, target)


def open_system(name: str | System, /, **options: Any) -> System:
    """A dynamical system by name.

    Parameters
    ----------
    name
        One of `systems()`, or a `System`, which is returned as it is and takes no options.
    **options
        Options of the system: fields of its class. A value is converted to the type of its field. A pair in the place
        of a parameter, ``forcing=(6, 10)``, is a range: the value is unknown, and part of the state
        (`sdaxr.systems.augmented`).

    Raises
    ------
    OptionError
        If the name or an option is unknown, or an option has an impossible value.
    """
    if isinstance(name, System) and options:
        raise OptionError(
            f"found the options {sorted(options)} beside a {type(name).__name__} object; set them on the "
            "object, or pass the system's name"
        )
    if "name" in options:
        raise OptionError(f"found the option name={options['name']!r} of the system {name!r}, which no system has")
    if isinstance(name, System) or not isinstance(name, str):
        return SYSTEMS.build(name)
    parameters = SYSTEMS.kind(name).parameters
    ranges = {k: v for k, v in options.items() if k in parameters and isinstance(v, tuple | list)}
    system = SYSTEMS.build({"name": name} | {k: v for k, v in options.items() if k not in ranges})
    return Augmented.of(system, ranges) if ranges else system
