"""Training data whose values are missing at some times only: the loss of what is there gives the right denoiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from small_training import trained

from sdaxr.prior.files import Prior, open_prior
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
        statistics=MASKED, steps=1500,
        optimisation={"batch": 256, "learning_rate": 5e-3, "levels": (0.3, 2.0), "validate_every": 1500},
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
