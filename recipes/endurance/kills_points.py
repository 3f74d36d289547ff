"""Places in the program that a process reports as it passes them, and at one of which it can be killed.

The log of a run has one line for each event: its time, its kind and what it is about. ``done`` and ``begun`` tell which
units, checkpoints and steps were complete, and which were computed again; ``at`` names a point of `POINTS`.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """A line of a log."""

    when: float
    kind: str
    about: str


@dataclass
class Log:
    """A file to which the processes of a run append.

    Attributes
    ----------
    path
        The file.
    fatal
        The point, and the number of the passage of it, at which the run is killed; None for no such point.
    passed
        How often the processes of the run have passed this point, shared by them all.
    """

    path: Path
    fatal: tuple[str, int] | None
    passed: Any

    def write(self, kind: str, about: str) -> None:
        """Append one line, at once and whole."""
        with open(self.path, "ab", buffering=0) as file:
            file.write(json.dumps([time.time(), kind, about]).encode() + b"\n")

    def point(self, name: str) -> None:
        """Report a point; at the fatal passage, all processes of the run die."""
        self.write("at", name)
        if self.fatal is not None and self.fatal[0] == name:
            with self.passed.get_lock():
                self.passed.value += 1
                if self.passed.value == self.fatal[1]:
                    self.write("killed", name)
                    os.killpg(0, signal.SIGKILL)


def events(path: Path) -> list[Event]:
    """The events of a log."""
    if not path.exists():
        return []
    return [Event(*json.loads(line)) for line in path.read_text().splitlines() if line.endswith("]")]


# Class or module, its function, and the name of the point. The arrays of Zarr and the renames are below.
_FUNCTIONS = (
    ("sdaxr.archives.archive", "write_template", "template"),
    ("sdaxr.archives.archive:Archive", "finalise", "finish"),
    ("sdaxr.archives.object_archive:ObjectArchive", "finalise", "finish"),
    ("sdaxr.archives.objects:Objects", "put_last", "last object"),
    ("sdaxr.archives.objects:Objects", "clear", "clearing"),
    ("sdaxr.archives.objects:Objects", "take", "taking"),
    ("sdaxr.archives.remote:Remote", "put", "file by URL"),
    ("sdaxr.prior.checkpoint", "save", "checkpoint"),
    ("sdaxr.prior.files:Prior", "save", "prior"),
    ("sdaxr.inference.windows", "save", "joined windows"),
    ("sdaxr.commands.recipe:_State", "start", "start of a step"),
    ("sdaxr.commands.recipe:_State", "finish", "end of a step"),
)
POINTS = tuple(
    f"{when} {name}"
    for name in (*dict.fromkeys(name for _, _, name in _FUNCTIONS), "chunk", "marker", "rename", "removal")
    for when in ("before", "after")
)


def watch(log: Log) -> None:
    """Report all points and events of this process, and of those that it forks."""
    for home, name, point in _FUNCTIONS:
        owner = _owner(home)
        setattr(owner, name, _around(log, getattr(owner, name), lambda *_, point=point: point))
    _watch_arrays(log)
    _watch_renames(log)
    for home in ("sdaxr.archives.archive:Archive", "sdaxr.archives.object_archive:ObjectArchive"):
        _events(log, home, "write", "done", lambda archive, index, *_: f"unit {archive.path} {index}", first="begun")
    _events(log, "sdaxr.prior.checkpoint", "save", "done", lambda _, run: f"step {run.step}")
    _events(log, "sdaxr.prior.checkpoint", "load", "loaded", lambda _, run: f"step {run.step}")
    _events(log, "sdaxr.commands.recipe:_State", "finish", "done", lambda _, step: step.name)
    _events(log, "sdaxr.commands.recipe:_State", "start", "begun", lambda _, step, **__: step.name)


def _around(log: Log, function: Callable[..., Any], name: Callable[..., str | None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        point = name(*args)
        if point is None:
            return function(*args, **kwargs)
        log.point(f"before {point}")
        result = function(*args, **kwargs)
        log.point(f"after {point}")
        return result

    return reporting


def _events(log: Log, home: str, name: str, kind: str, about: Callable[..., str], *, first: str | None = None) -> None:
    owner = _owner(home)
    function = getattr(owner, name)

    @functools.wraps(function)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        if first is not None:
            log.write(first, about(*args, **kwargs))
        result = function(*args, **kwargs)
        log.write(kind, about(*args, **kwargs))
        return result

    setattr(owner, name, reporting)


def _watch_arrays(log: Log) -> None:
    """The chunks of a unit, and the marker that says it is complete."""
    from zarr import Array

    def point(array: Any, *_: Any) -> str:
        return "marker" if array.basename == "status" else "chunk"

    Array.__setitem__ = _around(log, Array.__setitem__, point)  # type: ignore[method-assign]


def _watch_renames(log: Log) -> None:
    """The renames by which a finished file gets its name, and the removal of what was in the way."""
    from sdaxr.archives import finished

    class Watched:
        """The module ``os`` with renames that are reported."""

        rename = staticmethod(_around(log, os.rename, lambda *_: "rename"))
        replace = staticmethod(_around(log, os.replace, lambda *_: "rename"))

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    class Removing:
        """The module ``shutil`` with a removal that is reported."""

        def __init__(self, module: Any) -> None:
            self._module = module
            self.rmtree = _around(log, module.rmtree, lambda *_: "removal")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._module, name)

    finished.os = Watched()  # type: ignore[assignment]
    finished.shutil = Removing(finished.shutil)  # type: ignore[assignment]


def _owner(home: str) -> Any:
    module, _, attribute = home.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
