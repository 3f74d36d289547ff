"""Channels of one number: what the denoiser sees, what it gives, and its derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unknown_offset import OffsetSeries

import sdaxr
from sdaxr.prior.blanket import TrajectoryDenoiser
from sdaxr.prior.constants import as_means, as_numbers, shared, unlearnt
from sdaxr.prior.preconditioning import DenoisingNetwork


class Mixing(torch.nn.Module):
    """Takes the mean of all channels, and a number of its own for each time, so that nothing is constant by itself."""

    window = None

    def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return x.mean(2, keepdim=True).expand_as(x) + torch.arange(x.shape[1])[:, None, None]


def test_values_are_replaced_in_the_channels_alone() -> None:
    x = torch.randn(2, 3, 4, 5)
    for function, expected in ((as_numbers, x[:, 0, :, 0]), (shared, x[:, 0, :, 0]), (as_means, x.mean((1, 3)))):
        found = function(x, (1, 3))
        assert torch.equal(found[:, :, [0, 2]], x[:, :, [0, 2]])
        for channel in (1, 3):
            number = expected[:, None, channel, None].expand(2, 3, 5)
            torch.testing.assert_close(found[:, :, channel], number)


def test_the_denoiser_sees_one_number_and_gives_one() -> None:
    network = DenoisingNetwork(Mixing(), "edm", (0.01, 10.0), constants=(1,))
    z, context = torch.randn(2, 6, 2, 3), torch.ones(1, 6, 1, 3)
    found = network(z, torch.tensor([0.5, 2.0]), context)
    assert float(found[:, :, 1].flatten(1).std(1).max()) < 1e-6
    other = z.clone()
    other[:, 1:, 1] = 7.0  # copies have no meaning
    torch.testing.assert_close(network(other, torch.tensor([0.5, 2.0]), context), found)
    other[:, 0, 1, 0] += 1.0
    assert float((network(other, torch.tensor([0.5, 2.0]), context) - found).abs().min(0).values.max()) > 0.01


def test_the_derivative_is_that_by_the_number() -> None:
    """Of a Gaussian the products with the Jacobian are those with the covariance given z, as for any other value."""
    series, r = OffsetSeries(4, 3), 0.7
    denoiser = TrajectoryDenoiser(series.prior(shared=True).network, torch.ones(4, 2, 3))
    z = torch.as_tensor(series.draw(1, 0)).requires_grad_()
    values, vectors = np.linalg.eigh(series.joint)
    jacobian = (vectors * (values / (values + r**2))) @ vectors.T
    weights = np.random.default_rng(0).normal(size=len(jacobian))
    cotangent = torch.zeros(1, 4, 2, 3, dtype=torch.float64)
    cotangent[0, :, 0] = torch.as_tensor(weights[:-1]).reshape(4, 3)
    cotangent[0, :, 1] = weights[-1] / 12  # that of the mean of the channel
    (found,) = torch.autograd.grad(denoiser(z, r), z, cotangent)
    np.testing.assert_allclose(found[0, :, 0].ravel(), (jacobian @ weights)[:-1], rtol=1e-6)
    np.testing.assert_allclose(found[0, :, 1], np.full((4, 3), (jacobian @ weights)[-1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("shortest", "length", "words"),
    [(96, 96, None), (96, 97, None), (24, 24, None), (96, 64, "learnt on 96 states"), (24, 16, "on 24 to 96 states")],
)
def test_lengths_that_the_mean_was_not_learnt_on_are_said(shortest: int, length: int, words: str | None) -> None:
    found = unlearnt(shortest, 96, length)
    assert found is None if words is None else found is not None and words in found


def test_a_parameter_on_another_length_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    prior = sdaxr.open_prior("lorenz96-forcing")
    for states, warned in ((64, False), (12, True)):
        caplog.clear()
        prior.denoiser(prior.layout.times(0.0, states))
        assert ("may be biased" in caplog.text) == warned
