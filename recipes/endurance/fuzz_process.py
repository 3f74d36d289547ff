"""A mutation in a process of its own: forked, limited in time and memory, its executions audited."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

# A case may take as long, and as much more memory than the process it was forked from.
_SECONDS = 40
_BYTES = 1 << 30
# What a file of data never asks of Python.
_EXECUTING = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")
_LONGEST = 1500


def imported_by(use: Callable[[], Any]) -> list[str]:
    """The modules that are imported after ``use``, found in a process of its own; none if it fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        warnings.simplefilter("ignore")
        try:
            use()
        except Exception:
            traceback.print_exc()
        names = sorted(sys.modules)
        with os.fdopen(writing, "w") as pipe:
            json.dump(names, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found: list[str] = json.load(pipe)
    os.waitpid(child, 0)
    return found


@dataclass
class Outcome:
    """What came of one mutation."""

    kind: str
    detail: str = ""
    digest: str = ""
    finite: bool = True
    executed: list[str] = field(default_factory=list)


def in_child(use: Callable[[], Any], folder: Path) -> Outcome:
    """The outcome of ``use``, run in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(use, folder, writing)
    os.close(writing)
    text, ended = b"", time.monotonic() + _SECONDS
    while (left := ended - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                break
            text += part
    os.close(reading)
    if left <= 0:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    if left <= 0:
        return Outcome("hang", f"longer than {_SECONDS} s")
    if not text:
        died = -os.waitstatus_to_exitcode(status)
        return Outcome("memory" if died in (signal.SIGKILL, signal.SIGXCPU) else "traceback", f"died of signal {died}")
    found = Outcome(**json.loads(text))
    # Of a forked process the largest size begins at that of its parent.
    grown = 1024 * (usage.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return Outcome("memory", f"{grown / 1e9:.1f} GB, {found.detail}") if grown > _BYTES else found


def _run(use: Callable[[], Any], folder: Path, writing: int) -> None:
    """In the child: run, write the outcome, end."""
    from sdaxr.schema import SdaxrError

    executed: list[str] = []
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    os.chdir(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 6 * _BYTES, used + 6 * _BYTES))
    warnings.simplefilter("ignore")
    sys.addaudithook(lambda event, _: executed.append(event) if event in _EXECUTING else None)
    try:
        result = use()
        outcome = Outcome("accepted", digest=digest(result), finite=is_finite(result))
    except SdaxrError as error:
        text = str(error)
        one = "\n" not in text.strip() and len(text) <= _LONGEST
        outcome = Outcome(
            "refused" if one else "traceback", ("" if one else f"not one line ({len(text)}): ") + text[:300]
        )
    except MemoryError as error:
        outcome = Outcome("memory", f"MemoryError: {error}")
    except BaseException as error:  # the outcome that is counted
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = Outcome(
            "traceback",
            f"{type(error).__name__}: {' '.join(str(error).split())[:160]} at {last.filename[-40:]}:{last.lineno}",
        )
    outcome.executed = sorted(set(executed))
    os.write(writing, json.dumps(outcome.__dict__).encode())
    os._exit(0)


def arrays(result: Any) -> Iterator[np.ndarray]:
    """The arrays of a result: Datasets, arrays, lists and mappings of them."""
    if isinstance(result, xr.Dataset):
        for name in sorted(map(str, result.variables)):
            yield np.asarray(result[name].values)
    elif isinstance(result, dict):
        for value in result.values():
            yield from arrays(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from arrays(value)
    elif result is not None:
        yield np.asarray(result)


def digest(result: Any) -> str:
    """Hash of all values of a result."""
    found = hashlib.sha256()
    for each in arrays(result):
        found.update(str((each.dtype, each.shape)).encode())
        found.update(repr(each.tolist()).encode() if each.dtype.kind == "O" else np.ascontiguousarray(each).tobytes())
    return found.hexdigest()


def is_finite(result: Any) -> bool:
    """Whether no result is infinite, or not a number altogether; single values of observations may be missing."""
    numbers = [a for a in arrays(result) if a.dtype.kind in "fc" and a.size]
    return not any(np.isinf(a).any() or np.isnan(a).all() for a in numbers)
