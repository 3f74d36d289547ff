"""Training data whose values are missing at some times only: covariances without bias, the loss of what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian_fields import covariance_of, process, sampled
from small_training import trained

from sdaxr.prior import gaps
from sdaxr.prior.files import Prior
from sdaxr.prior.localisation import measured_eofs
from sdaxr.prior.opening import open_prior
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.windows import Windows
from sdaxr.schema import DataError, OptionError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout

MASKED = {"missing": "masked"}
COVARIANCE = np.array([[1.0, 0.9], [0.9, 1.0]])


def pairs(count: int, missing: float) -> xr.Dataset:
    """Two correlated Gaussian numbers, each missing at random."""
    random = np.random.default_rng(0)
    values = random.multivariate_normal([0.0, 0.0], COVARIANCE, count)
    values[random.random(values.shape) < missing] = np.nan
    units = {"units": "m"}
    data = {"a": ("time", 10 + 3 * values[:, 0], units), "b": ("time", 5 * values[:, 1], units)}
    return xr.Dataset(data, {"time": np.arange(float(count))})


def denoised(prior: Prior, z: np.ndarray, r: float, seen: tuple[float, float]) -> np.ndarray:
    """E[x | z] of the network where the channels ``seen`` have values; z and the result have shape (n, 2)."""
    context = torch.as_tensor(prior.layout.context_array(xr.DataArray([0.0], dims="time", name="time")))[None].clone()
    context[..., -2:] = torch.tensor(seen)
    shown = torch.as_tensor(z * np.array(seen), dtype=torch.float32)[:, None]
    with torch.no_grad():
        return prior.network(shown, torch.full((len(z),), r), context)[:, 0].numpy()


def test_the_denoiser_is_unbiased(tmp_path: Path) -> None:
    """Of Gaussian numbers it is linear: C (C + r^2)^-1 z, of all of them, and of those that are there."""
    prior = trained(
        pairs(20_000, 0.4), tmp_path / "p.safetensors", window=1, network={"name": "mlp", "width": 64, "blocks": 1},
        statistics=MASKED, steps=700,
        optimisation={"batch": 256, "learning_rate": 1e-2, "levels": (0.3, 2.0), "validate_every": 700},
    )  # fmt: skip
    prior = open_prior(tmp_path / "p.safetensors")
    assert prior.layout.gappy and prior.layout.context_channels == 3
    np.testing.assert_allclose(prior.layout.std.ravel(), [3, 5], rtol=0.03)
    random = np.random.default_rng(1)
    for r in (0.5, 1.0):
        noisy = COVARIANCE + r**2 * np.eye(2)
        z = random.multivariate_normal([0.0, 0.0], noisy, 2000)
        expected = z @ np.linalg.solve(noisy, COVARIANCE)
        found = denoised(prior, z, r, (1.0, 1.0))
        assert np.sqrt(((found - expected) ** 2).mean()) < 0.06
        # As if missing values were zeros, the covariance would be 0.36 of what it is.
        shrunk = COVARIANCE * np.array([[0.6, 0.36], [0.36, 0.6]])
        wrong = z @ np.linalg.solve(shrunk + r**2 * np.eye(2), shrunk)
        assert np.sqrt(((wrong - expected) ** 2).mean()) > 0.12
        alone = denoised(prior, z, r, (1.0, 0.0))
        assert np.sqrt(((alone[:, 0] - z[:, 0] / (1 + r**2)) ** 2).mean()) < 0.06


def test_what_is_missing_neither_counts_nor_shows() -> None:
    """Neither the network's input nor the loss depends on what would be there."""
    seen = []

    class Spy(torch.nn.Module):
        window = None

        def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            seen.append((x, context))
            return torch.zeros_like(x)

    model = DenoisingNetwork(Spy(), "epsilon", (0.1, 10.0))
    valid = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]]).reshape(2, 1, 2)
    noise = torch.ones(2, 1, 2) * valid
    loss = model.loss(torch.zeros(2, 1, 2), torch.ones(2), noise, torch.ones(2, 1, 1), valid)
    # Squares of 1 of one and of two values, over 1.5 values a window.
    np.testing.assert_allclose(loss, [1 / 1.5, 2 / 1.5])
    assert seen[0][0][0, 0, 1] == 0


def swaths() -> xr.Dataset:
    random = np.random.default_rng(0)
    values = random.normal(size=(24, 4, 6))
    values[:, 0, :2] = np.nan
    for time in range(24):
        values[time, :, time % 6] = np.nan
    values[20:] = np.where(np.isnan(values[:4]), np.nan, random.normal(size=(4, 4, 6)))
    values[21:, 1:, :] = random.normal(size=(3, 3, 6))
    coords = {"time": np.arange(24.0), "y": np.arange(4.0), "x": np.arange(6.0)}
    return xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, coords)


def test_windows_say_where_values_are() -> None:
    layout = infer_layout(swaths(), missing="masked")
    assert layout.gappy and layout.mask is not None and not layout.mask[0, 0, 0] and layout.mask[0, 1].all()
    again = StateLayout.from_file(*layout.to_file())
    assert again.gappy and again.context_array(swaths().time).shape == (24, layout.context_channels, 4, 6)
    np.testing.assert_array_equal(again.context_array(swaths().time)[3, -1], layout.mask[0])
    windows = Windows(swaths(), layout, 3, seed=0)
    states, context = windows.batch(0, 8)
    np.testing.assert_array_equal(context[:, :, -1] == 1, states[:, :, 0].isfinite() & torch.as_tensor(layout.mask[0]))
    assert states.isnan().any() and not next(windows.sample(1)).isnan().any()
    states, context = (torch.as_tensor(a) for a in windows.reference())
    assert states.isfinite().all()
    assert context[:, :, -1].mean() > windows.batch(0, 256)[1][:, :, -1].mean()
    with pytest.raises(DataError, match="values that are not finite outside the mask"):
        layout.to_array(swaths())


def test_gaps_are_refused_unless_they_are_masked() -> None:
    with pytest.raises(DataError, match="is NaN at some times only.*or train with statistics=.*masked"):
        infer_layout(swaths())
    with pytest.raises(OptionError, match="missing='mask'.*Did you mean 'masked'"):
        infer_layout(swaths(), missing="mask")
    land = swaths().fillna(0.1).where(swaths().y > 0)
    assert not infer_layout(land, missing="masked").gappy


@pytest.mark.parametrize("parameterisation", ["spectral", "edm"])
def test_swaths_are_trained_and_sampled(parameterisation: str, tmp_path: Path) -> None:
    prior = trained(
        swaths(), tmp_path / "p.safetensors", window=3, parameterisation=parameterisation, statistics=MASKED, steps=3,
        network={"name": "space-time-unet", "widths": [8, 8], "patch": 1},
    )  # fmt: skip
    assert np.isfinite(prior.metadata["training"]["validation_loss"])
    assert prior.held_out(torch.device("cpu")).denoised.isfinite().all()
    denoiser = prior.denoiser(swaths().time[:5])
    assert denoiser(torch.zeros(1, 5, 1, 4, 6), 1.0).isfinite().all()


def clouds(times: int, points: int, share: float, seed: int = 1) -> np.ndarray:
    """Blobs of some ten points and a few times, True where there is no value.

    The first points also miss every other time.
    """
    noise = np.random.default_rng(seed).normal(size=(times, points))
    along, across = (
        np.exp(-0.5 * (np.subtract.outer(range(n), range(n)) / w) ** 2) for n, w in ((times, 1), (points, 5))
    )
    smooth = along @ noise @ across
    found: np.ndarray = smooth < np.quantile(smooth, share)
    found[::2, : points // 8] = True
    return found


@pytest.mark.parametrize("filled", [True, False])
def test_a_process_is_found_behind_clouds(monkeypatch: pytest.MonkeyPatch, filled: bool) -> None:
    """The variances of the leading EOFs are those from complete data; with the mean in the gaps they are not."""
    states, _, covariance, _ = sampled(times=900, points=60, scale=0.15)
    cloudy = np.where(clouds(900, 60, 0.45), np.nan, states)
    coords = {"time": np.arange(900.0), "x": np.linspace(0, 1, 60)}
    data = xr.Dataset({"t": (("time", "x"), cloudy, {"units": "K"})}, coords)
    layout = infer_layout(data, missing="masked", cycles=())
    series = torch.as_tensor(layout.to_array(data, gaps=True))
    if not filled:
        monkeypatch.setattr("sdaxr.prior.localisation._GAPS", 1.0)
    found = measured_eofs([series], layout, window=8, taper=0.4).found
    vectors, variances = found.vectors.double().numpy(), found.variances.mean(0).double().numpy()
    exact = np.einsum("pk,pq,qk->k", vectors, covariance, vectors) / float(layout.std.item()) ** 2
    worst = np.abs(np.log(variances[:7] / exact[:7])).max()
    assert worst < 0.25 if filled else worst > 0.5


def test_gaps_are_filled_with_draws_of_the_conditional_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and covariance of 600 draws are those of the Gaussian given what is there."""
    monkeypatch.setattr("sdaxr.prior.gaps._TOLERANCE", 1e-5)
    modes, length = process(), 3
    covariance = covariance_of(modes, length)
    states = (torch.linalg.cholesky(covariance + 1e-9 * torch.eye(72)) @ torch.randn(72, 1, dtype=torch.float64))[:, 0]
    sea = (modes.present > 0).expand(length, -1, -1, -1)
    missing = torch.rand(sea.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    gappy = states.float().reshape(sea.shape).where(sea & ~missing, torch.nan)
    generator = torch.Generator().manual_seed(2)
    draws = torch.stack([gaps._drawn(gappy, modes, generator) for _ in range(600)])
    assert torch.equal(draws[0][sea & ~missing], gappy[sea & ~missing]) and bool((draws[:, ~sea] == 0).all())
    there, gone = ((sea & m).flatten().nonzero()[:, 0] for m in (~missing, missing))
    gain = torch.linalg.solve(
        covariance[there][:, there] + 0.02**2 * torch.eye(len(there)), covariance[there][:, gone]
    ).T
    spread = covariance[gone][:, gone] - gain @ covariance[there][:, gone]
    found = draws.flatten(1)[:, gone].double()
    error = spread.diagonal().sqrt()
    assert float(((found.mean(0) - gain @ gappy.flatten()[there].double()) / error).abs().max()) < 0.17
    assert float(((torch.cov(found.T) - spread) / torch.outer(error, error)).abs().max()) < 0.25


def test_a_prior_with_eofs_is_trained_on_filled_states(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The loss of its Gaussian process, and the states that the network is shown, are those without clouds."""
    random, count = np.random.default_rng(0), 160
    place = np.stack(np.meshgrid(np.arange(8.0), np.arange(10.0), indexing="ij"), -1).reshape(-1, 2)
    squares = ((place[:, None] - place) ** 2).sum(-1)
    root = np.linalg.cholesky(np.exp(-squares / 2 / 2.5**2) + 0.02 * np.eye(80))
    states = np.zeros((count, 80))
    for time in range(1, count):
        states[time] = 0.8 * states[time - 1] + root @ random.normal(size=80)
    cloudy = np.where(clouds(count, 80, 0.4), np.nan, states)
    coords = {"time": np.arange(float(count)), "y": np.arange(8.0), "x": np.arange(10.0)}
    options: dict[str, Any] = {"parameterisation": "eof", "statistics": MASKED, "network": {"widths": [4]}}
    loss = {}
    for name, values in (("clear", states), ("cloudy", cloudy)):
        data = xr.Dataset({"t": (("time", "y", "x"), values.reshape(count, 8, 10), {"units": "K"})}, coords)
        prior = trained(
            data, tmp_path / f"{name}.safetensors", window=4, steps=2, optimisation={"batch": 32}, **options
        )
        loss[name] = prior.metadata["training"]["gaussian_loss"]
    assert loss["cloudy"] == pytest.approx(loss["clear"], rel=0.15)
    shown, context = prior.reference
    assert bool((context[:, :, -1] == 1).all()) and 0.8 < shown.std() < 1.2
    monkeypatch.setattr(Windows, "fill", lambda *_: None)
    zeros = trained(data, tmp_path / "zeros.safetensors", window=4, steps=2, optimisation={"batch": 32}, **options)
    assert zeros.metadata["training"]["gaussian_loss"] > 1.05 * loss["cloudy"]
