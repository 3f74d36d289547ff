"""What docs/determinism.md says of repeated calls, batches, members, threads and units, sentence by sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_training import autoregressive, trained

import sdaxr
from sdaxr.posterior.execution import member_noise

QUICK: dict[str, Any] = {
    "members": 6, "seed": 3, "batch": 2, "device": "cpu", "progress": False,
    "sampler": {"steps": 3, "corrections": 0, "mixing": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def observations() -> xr.Dataset:
    truth = sdaxr.open_system("lorenz63").trajectory(9, 5)
    axis = ("time", 0.025 * np.arange(9), {"units": "1"})
    data = xr.Dataset({k: ("time", v, {"units": "1"}) for k, v in truth.items()}, {"time": axis})
    return sdaxr.observe(data, sdaxr.operators.identity(), every=4, error=1.0, seed=0)


@pytest.fixture(scope="module")
def members(observations: xr.Dataset) -> np.ndarray:
    torch.set_num_threads(1)
    return drawn(observations)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def opened() -> sdaxr.Prior:
    """The prior, which measures what the method needs of it once."""
    return sdaxr.open_prior("lorenz63")


def drawn(observations: xr.Dataset, prior: str | sdaxr.Prior = "lorenz63", **changes: Any) -> np.ndarray:
    """Members, shape (member, variable, time)."""
    found = sdaxr.assimilate(observations, prior, **QUICK | changes)
    return found[list("abc")].to_dataarray().transpose("member", "variable", "time").values


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in standard deviations of the states."""
    return float(np.abs(one - other).max() / one.std())


def test_the_same_call_gives_the_same_bits(observations: xr.Dataset, members: np.ndarray, opened: sdaxr.Prior) -> None:
    np.testing.assert_array_equal(drawn(observations), members)
    assert apart(drawn(observations, opened, seed=4), members) > 0.01


def test_more_members_leave_whole_batches_as_they_are(
    observations: xr.Dataset, members: np.ndarray, opened: sdaxr.Prior
) -> None:
    np.testing.assert_array_equal(drawn(observations, opened, members=4), members[:4])


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_members_depend_on_the_batch_by_rounding_only(
    observations: xr.Dataset, members: np.ndarray, opened: sdaxr.Prior, batch: int
) -> None:
    assert apart(drawn(observations, opened, batch=batch), members) < 1e-3


@pytest.mark.usefixtures("two_threads")
def test_members_depend_on_the_threads_by_rounding_only(
    observations: xr.Dataset, members: np.ndarray, opened: sdaxr.Prior
) -> None:
    assert torch.get_num_threads() == 2
    assert apart(drawn(observations, opened), members) < 1e-3


def test_the_random_numbers_of_a_member_depend_on_seed_and_number_alone() -> None:
    shape, device = (5, 3), torch.device("cpu")
    together, alone = member_noise(7, range(6), shape, device, 0), member_noise(7, [4], shape, device, 0)
    for _ in range(3):
        assert torch.equal(together()[4:5], alone())
    assert not torch.equal(member_noise(8, [4], shape, device, 0)(), member_noise(7, [4], shape, device, 0)())


@pytest.mark.parametrize("name", ["kolmogorov", "lorenz96", "lorenz63"])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_evaluation_depends_on_batch_and_threads_by_rounding_only(name: str, threads: int) -> None:
    prior = sdaxr.open_prior(name)
    denoiser = prior.denoiser(prior.layout.times(0.0, 8), torch.device("cpu"))
    z = torch.randn(3, 8, prior.layout.channels, *prior.layout.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = torch.cat([denoiser(each[None], 0.7) for each in z])
        torch.set_num_threads(threads)
        together = denoiser(z, 0.7)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
        assert torch.equal(denoiser(z, 0.7), together)


@pytest.mark.parametrize("system", ["lorenz63", "lorenz96", "linear"])
def test_trajectories_depend_on_seed_and_number_alone(system: str, tmp_path) -> None:
    def made(count: int, batch: int, steps: int = 8) -> xr.Dataset:
        options = {} if system == "linear" else {"spin_up": 4}
        store = tmp_path / f"{count}-{batch}.zarr"
        data = sdaxr.generate(system, store, trajectories=count, steps=steps, batch=batch, progress=False, **options)
        return data.load().drop_vars(["split", "status"])

    whole = made(5, 1)
    for count, batch in ((3, 1), (5, 2), (5, 5)):
        xr.testing.assert_equal(made(count, batch), whole.isel(trajectory=slice(count)))


def test_a_training_gives_the_same_bits_and_with_other_threads_another_prior_of_the_same_quality(tmp_path) -> None:
    data, priors = autoregressive(8, 40), {}
    for name, threads in (("one", 1), ("again", 1), ("two", 2)):
        torch.set_num_threads(threads)
        priors[name] = trained(data, tmp_path / f"{name}.safetensors", name="p")
    torch.set_num_threads(1)
    weights = {name: prior.network.state_dict() for name, prior in priors.items()}
    assert all(torch.equal(weights["one"][k], weights["again"][k]) for k in weights["one"])
    losses = {name: prior.metadata["training"]["validation_loss"] for name, prior in priors.items()}
    assert losses["one"] == losses["again"] and losses["two"] == pytest.approx(losses["one"], rel=0.05)
