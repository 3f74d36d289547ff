"""A prior with sines and cosines and no network samples the posterior of its Gaussian process, by every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.prior.files import Prior
from sdaxr.prior.modes import Modes
from sdaxr.schema import OptionError

LENGTH, ERROR, SHAPE = 5, 0.5, (6, 8)
METHODS: dict[str, Any] = {
    "sda": {"method": "sda"},
    "mmps": {"method": "mmps"},
    "jacobian_free": {"method": "jacobian_free"},
    "soad": {"method": sdaxr.methods.SOAD(corrector=False)},
    "oi": {"method": "oi"},
}
KINDS = ["spectral", "space-time"]


def waves(count: int, seed: int) -> xr.Dataset:
    """Two correlated variables on a periodic plane, with a steep spectrum, correlated in time."""
    random = np.random.default_rng(seed)
    ky, kx = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in SHAPE), indexing="ij")
    size = 3 / (0.2 + ky**2 + kx**2)

    def drawn() -> np.ndarray:
        return np.fft.ifft2(size * np.fft.fft2(random.normal(size=(2, *SHAPE)))).real

    states = [drawn()]
    for _ in range(count - 1):
        states.append(0.7 * states[-1] + 0.51**0.5 * drawn())
    a, b = np.stack(states, 1)
    axes = {d: (d, np.arange(float(n)), {"period": float(n), "units": "m"}) for d, n in zip("yx", SHAPE, strict=True)}
    time = ("time", np.arange(float(count)), {"units": "s"})
    kelvin = (("time", "y", "x"), 280 + 2 * a, {"units": "K"})
    wind = (("time", "y", "x"), a + b, {"units": "m s-1"})
    return xr.Dataset({"t": kelvin, "w": wind}, {"time": time, **axes})


@pytest.fixture(scope="module", params=KINDS)
def prior(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prior:
    store = tmp_path_factory.mktemp("prior") / "p.safetensors"
    return sdaxr.train(
        waves(2000, 0), store, window=LENGTH, steps=0, parameterisation=request.param, progress=False,
        network={"widths": [8], "patch": 1}, optimisation={"batch": 2},
    )  # fmt: skip


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return waves(LENGTH, 7)


@pytest.fixture(scope="module")
def observations(truth: xr.Dataset) -> xr.Dataset:
    return sdaxr.observe(truth[["t"]], op.subsample(2), error=ERROR, missing=0.2, seed=1)


def closed_form(prior: Prior, observations: xr.Dataset, truth: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the posterior of t in kelvin, flattened, in double precision."""
    modes = prior.network.modes
    assert isinstance(modes, Modes)
    spectrum = modes.spectrum if modes.window else modes.spectrum.expand(LENGTH, *modes.spectrum.shape)
    units = torch.eye(spectrum.numel()).reshape(-1, *spectrum.shape)
    columns = modes.states(modes.inverse(spectrum.sqrt() * units))
    fields = prior.layout.to_physical(columns.numpy(), truth.time)["t"]
    offset = prior.layout.to_physical(0 * columns[:1].numpy(), truth.time)["t"][0].astype(float)
    root = (fields.astype(float) - offset).reshape(len(columns), -1)
    b = root.T @ root
    dense = truth.t.copy(data=np.arange(b.shape[0], dtype=float).reshape(truth.t.shape))
    places = dense.sel(x=observations.x, y=observations.y).values
    seen = np.isfinite(observations.t.values)
    h = np.eye(len(b))[places[seen].astype(int)]
    innovation = observations.t.values[seen] - h @ offset.ravel()
    gain = b @ h.T @ np.linalg.inv(h @ b @ h.T + ERROR**2 * np.eye(len(h)))
    return offset.ravel() + gain @ innovation, b - gain @ h @ b


@pytest.mark.parametrize("method", METHODS)
def test_every_method_samples_the_posterior(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset, method: str
) -> None:
    assert prior.network.silent and prior.metadata["sampling"]["sampler"] == {"corrections": 0}
    posterior = sdaxr.assimilate(
        observations, prior, times=truth.time, members=300, sampler={"steps": 64}, progress=False, **METHODS[method]
    )
    mean, covariance = closed_form(prior, observations, truth)
    states = posterior.t.values.reshape(300, -1)
    deviation = np.sqrt(covariance.diagonal())
    # The mean square of 240 correlated values; few directions carry the variance.
    assert np.sqrt((((states.mean(0) - mean) / deviation) ** 2).mean()) < 2.5 / 300**0.5
    found = np.cov(states.T) / np.outer(deviation, deviation)
    assert np.abs(found - covariance / np.outer(deviation, deviation)).max() < 5 * (2 / 300) ** 0.5
    assert abs(np.log(found.diagonal()).mean()) < 2.5 / 300**0.5


def test_a_training_of_few_steps_is_not_worse_than_the_process(tmp_path: Path) -> None:
    """What a network adds counts as far as it lowers the error of held-out windows, here not at all."""
    prior = sdaxr.train(
        waves(200, 0), tmp_path / "p.safetensors", window=LENGTH, steps=2, parameterisation="spectral", progress=False,
        network={"widths": [8], "patch": 1}, optimisation={"batch": 2, "learning_rate": 0.3},
    )  # fmt: skip
    assert prior.network.silent
    assert sdaxr.open_prior(tmp_path / "p.safetensors").metadata["share"] == [0.0] * 14


def test_oi_takes_windows_of_the_length_that_modes_in_time_have(tmp_path: Path) -> None:
    prior = sdaxr.train(
        waves(200, 0), tmp_path / "p.safetensors", window=LENGTH, steps=0, parameterisation="space-time",
        progress=False, network={"widths": [8], "patch": 1}, optimisation={"batch": 2},
    )  # fmt: skip
    longer = sdaxr.observe(waves(LENGTH + 1, 7)[["t"]], op.subsample(2), error=ERROR)
    with pytest.raises(OptionError, match="is for windows of 5 states, found 6"):
        sdaxr.assimilate(longer, prior, method="oi", progress=False)
