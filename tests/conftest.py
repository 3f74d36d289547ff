"""Shared by all tests: no network, few threads, no display, and one small Dataset of each kind."""

from __future__ import annotations

import os

# Before numpy, torch or jax start their thread pools.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Functions of JAX are compiled for longer than the small flows of the tests take.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Workers that start beside other work are slow, not dead.
os.environ.setdefault("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "300s")
os.environ.setdefault("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", "300s")

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

if TYPE_CHECKING:
    from object_stores import S3Server


class _NetworkUsedError(RuntimeError):
    """A test reached for the network."""


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):  # a unix socket
        return True
    host = str(address[0])
    if host in ("", "localhost", "0.0.0.0", "::", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _guarded(original: Callable) -> Callable:
    def connect(self: socket.socket, address: object) -> object:
        if not _is_local(address):
            raise _NetworkUsedError(f"a test tried to connect to {address}; tests run offline")
        return original(self, address)

    return connect


@pytest.fixture(autouse=True, scope="session")
def offline():
    """Connections leave this machine for no test; loopback stays, for dask's local clusters."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def single_thread():
    """Small tensors are quickest on one thread, and sums are then the same on every machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def trajectories() -> xr.Dataset:
    """Ten smooth trajectories of (u, v) on a periodic 8 x 8 grid: (trajectory 10, time 12, y 8, x 8)."""
    return sine_waves(10, 12, 8)


def sine_waves(number: int, steps: int, size: int, seed: int = 0) -> xr.Dataset:
    """Travelling sine waves of random phase and speed, labelled as `sdaxr.generate` labels its archives."""
    generator = np.random.default_rng(seed)
    centres = (np.arange(size) + 0.5) * 2 * np.pi / size
    time = 0.2 * np.arange(steps)
    phase = generator.uniform(0, 2 * np.pi, (2, number, 1, 1, 1))
    speed = generator.uniform(0.5, 1.5, (2, number, 1, 1, 1))
    t, y, x = time[:, None, None], centres[:, None], centres[None, :]
    u = np.sin(y + phase[0] - speed[0] * t) + 0 * x
    v = np.sin(x + phase[1] - speed[1] * t) + 0 * y
    grid = {"units": "1", "periodic": 1, "period": 2 * np.pi}
    dims = ("trajectory", "time", "y", "x")
    split = np.array(["train"] * (number - 2) + ["valid", "test"], dtype=object)
    return xr.Dataset(
        {
            "u": (dims, u.astype("float32"), {"units": "1", "long_name": "velocity in x"}),
            "v": (dims, v.astype("float32"), {"units": "1", "long_name": "velocity in y"}),
        },
        coords={
            "time": ("time", time, {"units": "1", "long_name": "model time"}),
            "y": ("y", centres, {**grid, "long_name": "y", "axis": "Y"}),
            "x": ("x", centres, {**grid, "long_name": "x", "axis": "X"}),
            "split": ("trajectory", split, {"long_name": "part of the data set"}),
            "status": ("trajectory", np.ones(number, "int8"), {"long_name": "1: complete"}),
        },
        attrs={"title": "travelling sine waves"},
    )


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """An S3 server on this machine, with an empty bucket."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    from object_stores import S3Server

    with S3Server().running() as running:
        yield running
