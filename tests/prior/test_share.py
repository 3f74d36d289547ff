"""How much of a network's output counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian_fields import covariance_of, process
from torch import Tensor, nn

from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.share import LEVELS, measured_share

LENGTH, BOUNDS = 4, (0.05, 20.0)


class Guess(nn.Module):
    """A network that adds a multiple of what the Gaussian process misses of known states, and noise."""

    window = None

    def __init__(self, factor: float, noise: float) -> None:
        super().__init__()
        self.factor, self.noise, self.missed = factor, noise, torch.zeros(())

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        random = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(1e3 * float(log_r[0].exp()))))
        return self.factor * self.missed + self.noise * random


class Known(DenoisingNetwork):
    """Its network adds to the estimate itself, without the scale of the modes."""

    truth: Tensor

    def parts(self, z: Tensor, r: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        filtered = self.modes.filter(z, r)
        self.network.missed = self.truth - filtered
        return filtered, self.network(z, r.log(), context) * self.modes.present


def drawn(count: int) -> Tensor:
    root = torch.linalg.cholesky(covariance_of(process(), LENGTH) + 1e-6 * torch.eye(LENGTH * 24))
    noise = torch.randn(count, len(root), generator=torch.Generator().manual_seed(1)).double()
    return (noise @ root.T).float().reshape(count, LENGTH, *process().present.shape) * process().present


@pytest.mark.parametrize(
    ("factor", "noise", "expected"), [(0.5, 0.0, 1.0), (2.0, 0.0, 0.5), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)]
)
def test_the_share_is_the_regression_of_what_is_missed(factor: float, noise: float, expected: float) -> None:
    model = Known(Guess(factor, noise), "eof", BOUNDS, process())
    model.truth = drawn(64)
    share = measured_share(model, [(model.truth, torch.zeros(1, LENGTH, 1, 3, 4), None, None)], independent=64)
    assert len(share) == LEVELS
    np.testing.assert_allclose(share, expected, atol=0.05)


def test_a_gain_within_its_standard_error_does_not_count() -> None:
    model = Known(Guess(0.1, 1.0), "eof", BOUNDS, process())
    model.truth = drawn(64)
    windows = [(model.truth, torch.zeros(1, LENGTH, 1, 3, 4), None, None)]
    few, many = (np.array(measured_share(model, windows, independent=n)) for n in (2, 64))
    assert (few > 0).sum() < (many > 0).sum()


def test_values_count_by_their_weights() -> None:
    """What the network adds helps in one half of the points, and harms in the other one."""
    model = Known(Guess(1.0, 0.0), "eof", BOUNDS, process())
    model.truth = drawn(64)
    side = torch.tensor([1.0, 1.0, -1.0, -1.0])
    model.network.factor = side
    weights = {
        "alike": torch.ones(2, 3, 4),
        "one half": (side + 2).expand(2, 3, 4),
        "half": (side > 0) * torch.ones(2, 3, 4),
    }
    context = torch.zeros(1, LENGTH, 1, 3, 4)
    found = {
        k: np.mean(measured_share(model, [(model.truth, context, w, (w > 0).float())], independent=64))
        for k, w in weights.items()
    }
    assert found["alike"] < 0.3 and found["one half"] == pytest.approx(0.5, abs=0.15)
    assert found["half"] == pytest.approx(1.0, abs=0.01)


def test_the_denoiser_takes_the_share_between_the_levels() -> None:
    model = DenoisingNetwork(Guess(0.0, 1.0), "eof", BOUNDS, process())
    z, context = drawn(2), torch.zeros(1, LENGTH, 1, 3, 4)
    middle = (BOUNDS[0] * BOUNDS[1]) ** 0.5
    for r, weight in ((BOUNDS[0], 0.2), (middle, 0.6), (BOUNDS[1], 1.0), (100 * BOUNDS[1], 1.0)):
        model.share = (0.2, 1.0)
        level = torch.full((2,), r)
        filtered, added = model.parts(z, level, context)
        torch.testing.assert_close(model(z, level, context), filtered + weight * added)
        model.share = (0.0, 0.0)
        assert model.silent
        torch.testing.assert_close(model(z, level, context), filtered)
