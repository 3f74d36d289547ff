"""Peaks of the memory of a computation, each in a process of its own, forked from one that has imported everything."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from processes import forked

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


def check_footprint(compute: Callable[..., Any], *args: Any) -> None:
    """Fail unless ``compute(*args)`` takes the memory that it says in its log, within a fifth.

    Beside other tests, peaks are up to a quarter smaller; never larger.
    """
    here, there = forked().Pipe(duplex=False)
    process = forked().Process(target=_measure, args=(there, compute, args))
    process.start()
    there.close()
    before, after, told = here.recv()
    process.join()
    found = re.search(r"about ([\d.]+) GB at most", told)
    assert found is not None, told
    assert 0.8 < float(found[1]) * 1e9 / after < 1.45, (before, after, told)
    assert after > 1.3 * before  # It is not the libraries that are measured.


def _measure(answer: Any, compute: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    told = io.StringIO()
    logging.basicConfig(level="INFO", stream=told, force=True)
    before = _peak()
    compute(*args)
    answer.send((before, _peak(), told.getvalue()))


def _peak() -> int:
    """The most bytes that this process has had; not `ru_maxrss`, which would begin with that of the parent."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
