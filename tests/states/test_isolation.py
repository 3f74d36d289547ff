"""Global settings of torch: neither changed nor trusted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.states.isolation import isolated


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def rounded_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


SETTINGS: dict[str, Any] = {
    "dtype": lambda: default_dtype(torch.float64),
    "device": lambda: torch.device("meta"),
    "gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "products": rounded_products,
}


def workflow(folder: Path) -> list[np.ndarray]:
    """Values of everything that torch computes."""
    time = 0.5 * np.arange(60.0)
    truth = xr.Dataset({"a": ("time", np.sin(time), {"units": "m"})}, {"time": time})
    network = {"name": "convolutional", "width": 8, "blocks": 1, "kernel": 3}
    prior = sdaxr.train(
        truth, folder / "p.safetensors", window=5, steps=2, network=network, optimisation={"batch": 4}, progress=False
    )
    observations = sdaxr.observe(truth.isel(time=slice(6)), op.identity(), every=2, error=0.1)
    drawn: dict[str, Any] = {"sampler": {"steps": 4, "attempts": 1}, "progress": False}
    posterior = sdaxr.assimilate(observations, folder / "p.safetensors", members=2, **drawn)
    ahead = sdaxr.forecast(posterior, prior, steps=2, **drawn)
    clean = sdaxr.denoise(truth.isel(time=slice(6)), prior, error=0.1, steps=4, progress=False)
    fit = sdaxr.innovations(posterior, observations)
    weights = [weight.numpy() for weight in prior.network.state_dict().values()]
    return [*weights, *(data.a.values for data in (observations, posterior, ahead, clean)), fit.a_innovation.values]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    return workflow(tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("setting", SETTINGS)
def test_results_do_not_depend_on_what_the_user_has_set(
    tmp_path: Path, expected: list[np.ndarray], setting: str
) -> None:
    with SETTINGS[setting]():
        found = workflow(tmp_path)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with default_dtype(torch.float64):
        workflow(tmp_path)
        assert torch.get_default_dtype() == torch.float64
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()


def test_settings_are_put_back_after_an_error() -> None:
    with default_dtype(torch.float64):
        with pytest.raises(KeyError), isolated():
            assert torch.get_default_dtype() == torch.float32
            raise KeyError
        assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("by_place", [False, True])
def test_products_of_matrices_are_full_inside_and_as_set_outside(by_place: bool) -> None:
    places = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    with rounded_products() if not by_place else contextlib.nullcontext():
        if by_place:
            places[0].fp32_precision = "tf32"
        outside = [place.fp32_precision for place in places]
        assert outside != before
        with isolated():
            assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
            assert torch.get_float32_matmul_precision() == "highest"
        assert [place.fp32_precision for place in places] == outside
        if not by_place:
            assert torch.get_float32_matmul_precision() == "medium"
        places[0].fp32_precision = before[0]
