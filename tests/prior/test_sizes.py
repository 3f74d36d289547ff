"""Sizes of networks, windows and batches that fit the data and the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import sdaxr
from sdaxr.commands.info import info
from sdaxr.prior.memory import peak_bytes
from sdaxr.prior.networks.base import Inputs, Network, NetworkModule
from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.mlp import ResidualMLP
from sdaxr.prior.networks.unet import SpaceTimeUNet, WindowUNet
from sdaxr.prior.sizes import Sizes, batch_of, operations, step_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("shape", "states", "device", "expected"),
    [
        ((30, 84), 400, CPU, {"widths": (32, 64), "patch": 2}),
        ((30, 84), 400, GPU, {"widths": (32, 64), "patch": 2}),
        ((64, 64), 50_000, CPU, {"widths": (32, 64, 128), "patch": 2}),
        ((181, 360), 400, CPU, {"widths": (32, 64), "patch": 4}),
        ((181, 360), 400, GPU, {"widths": (32, 64), "patch": 2}),
        ((8, 200), 50_000, CPU, {"widths": (32, 64), "patch": 1}),
        ((5, 5), 400, CPU, {"widths": (32,), "patch": 1}),
        ((40,), 400, CPU, {"widths": (32, 64), "patch": 2}),
        ((), 400, CPU, {}),
    ],
)
def test_the_network_fits_the_grid(
    shape: tuple[int, ...], states: int, device: torch.device, expected: dict[str, Any]
) -> None:
    assert Sizes(shape, states, 100).network(device) == expected


@pytest.mark.parametrize(
    ("network", "longest", "fixed", "expected"),
    [
        (SpaceTimeUNet(widths=(32, 64)), 100, False, 8),
        (SpaceTimeUNet(), 100, False, 12),  # reaches 10 states
        (SpaceTimeUNet(), 6, False, 6),
        (WindowUNet(), 100, True, 5),
        (WindowUNet(), 4, True, 3),
        (WindowUNet(), 1, True, 1),
        (TemporalConvolution(), 100, False, 33),
        (TemporalConvolution(dilation=2), 100, False, 64),  # reaches 62 states
        (ResidualMLP(), 100, True, 5),
    ],
)
def test_the_window_is_longer_than_the_reach(network: Network, longest: int, fixed: bool, expected: int) -> None:
    assert Sizes((16, 16) if network.gridded else (), 100, longest).window(network, fixed=fixed) == expected


def test_the_batch_falls_with_the_work_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdaxr.prior.sizes.free_bytes", lambda _: 1e12)

    def of(shape: tuple[int, ...], device: torch.device = CPU, window: int = 8) -> int:
        return batch_of(SpaceTimeUNet(widths=(32, 64)), Inputs(1, 2, window, (False, False)), shape, device)

    assert [of((30, 84)), of((15, 42)), of((8, 8)), of((500, 500)), of((30, 84), window=2)] == [4, 16, 32, 2, 16]
    assert (of((30, 84), GPU), of((721, 1440), GPU)) == (32, 4)
    assert batch_of(TemporalConvolution(), Inputs(3, 3, 33), (), CPU) == 32


def test_the_batch_is_one_that_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a quarter of what is free, and less in half precision."""
    network, inputs, shape = SpaceTimeUNet(widths=(8, 16)), Inputs(1, 2, 4, (True, True)), (16, 16)
    whole, half = (step_bytes(network, inputs, shape, 16, precision) for precision in ("float32", "bfloat16"))
    assert half < 0.8 * whole
    for free, expected in ((4.01 * whole, 16), (3.99 * whole, 8), (2.2 * whole, 8), (1.0, 2)):
        monkeypatch.setattr("sdaxr.prior.sizes.free_bytes", lambda _, free=free: free)
        monkeypatch.setattr("sdaxr.prior.sizes._BATCHES", (2, 16))
        assert batch_of(network, inputs, shape, CPU) == expected


def test_the_memory_of_a_step_is_that_of_its_tensors() -> None:
    network, inputs = SpaceTimeUNet(widths=(8, 16)), Inputs(2, 3, 4, (True, True))
    module = network.module(inputs)
    x, context = torch.zeros(8, 4, 2, 32, 32), torch.zeros(8, 4, 3, 32, 32)
    taken = peak_bytes(lambda: (module(x, torch.zeros(8), context) - x).square().mean().backward())
    beside = 3 * (x.nbytes + context.nbytes)
    assert step_bytes(network, inputs, (32, 32), 8, "float32") == pytest.approx(1.25 * (taken + beside), rel=0.03)


def test_operations_are_those_of_the_layers() -> None:
    """A network of one block of width 4 on 2 x 2 points of 3 states: two per multiplication."""
    network = SpaceTimeUNet(widths=(4,), blocks=1, patch=1)
    blocks = 2 * 9 * 16 + 3 * 16
    points = 4 * (3 * 4 + blocks + 4)
    embedding, modulation = 32 * 8 + 8 * 8, 8 * 8
    assert operations(network, Inputs(1, 2, 3, (True, True)), (2, 2)) == 2 * (3 * points + embedding + modulation)


def test_what_was_chosen_is_recorded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    coords = {"time": np.arange(40.0), "y": np.arange(16.0), "x": np.arange(16.0)}
    data = xr.Dataset({"t": (("time", "y", "x"), random.normal(size=(40, 16, 16)), {"units": "K"})}, coords)
    store = tmp_path / "p.safetensors"
    prior = sdaxr.train(data, store, steps=1, optimisation={"batch": None}, progress=False, device="cpu")
    network = prior.metadata["network"]
    assert (prior.window, network["widths"], network["patch"]) == (8, [32, 64], 2)
    found = info(store)
    assert (found["window"], found["network.widths"], found["optimisation.batch"]) == ("8", "[32, 64]", "32")
    assert isinstance(prior.network.network, NetworkModule)
