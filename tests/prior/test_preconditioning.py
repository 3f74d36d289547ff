"""From a network to a denoiser: units, the best denoiser, the loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdaxr.prior.eofs import Eofs
from sdaxr.prior.preconditioning import DenoisingNetwork, expand


class Scaled(nn.Module):
    """A network with one weight: F = weight * input."""

    window = None

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def gaussian_batch(r: float, variance: float = 1.0, number: int = 200_000) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    x = variance**0.5 * torch.randn(number, 1, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(number, 1, 1, generator=generator, dtype=torch.float64)
    return x, torch.full((number,), r, dtype=torch.float64), noise, torch.ones(1, 1, 1, dtype=torch.float64)


@pytest.mark.parametrize("r", [0.01, 0.3, 1.0, 5.0, 80.0])
def test_targets_of_the_edm_network_have_unit_variance(r: float) -> None:
    """A network that returns zero has a loss equal to the variance of its target, at every level."""
    model = DenoisingNetwork(Scaled(), "edm", (5e-3, 100.0))
    given = []
    model.network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    assert model.loss(*gaussian_batch(r), None).mean().item() == pytest.approx(1, rel=0.02)
    assert float(given[0].var()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("r", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_both_parameterisations_have_the_same_best_denoiser(r: float, variance: float) -> None:
    """The linear F of least loss gives E[x | z] = v / (v + r^2) z, whichever way it is written."""
    x, level, noise, context = gaussian_batch(r, variance)
    for parameterisation in ("edm", "epsilon"):
        model = DenoisingNetwork(Scaled(), parameterisation, (5e-3, 100.0))
        at = [self_loss(model, weight, (x, level, noise, context)).item() for weight in (-1.0, 0.0, 1.0)]
        best = (at[0] - at[2]) / (2 * (at[0] - 2 * at[1] + at[2]))  # a parabola's minimum
        with torch.no_grad():
            model.network.weight.fill_(best)
            xhat = model(torch.ones(1, 1, 1, dtype=torch.float64), level[:1], context)
        assert float(xhat) == pytest.approx(variance / (variance + r**2), rel=0.02, abs=5e-4)


def self_loss(model: DenoisingNetwork, weight: float, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad():
        model.network.weight.fill_(weight)
        return model.loss(*batch, None).mean()


def test_edm_without_a_network_denoises_white_noise() -> None:
    model = DenoisingNetwork(Scaled(), "edm", (5e-3, 100.0))
    z = torch.randn(3, 4, 2, dtype=torch.float64)
    r = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(model(z, r, torch.ones(1, 4, 1)), z / (1 + expand(r, z) ** 2))


def test_network_is_never_asked_beyond_the_levels_of_its_training() -> None:
    asked = []

    class Spy(Scaled):
        def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            asked.append(log_r.exp())
            return x

    model = DenoisingNetwork(Spy(), "edm", (0.01, 100.0))
    model(torch.zeros(3, 1, 1), torch.tensor([0.0, 1.0, 1e3]), torch.ones(1, 1, 1))
    torch.testing.assert_close(asked[0], torch.tensor([0.01, 1.0, 100.0]))


def test_loss_counts_the_points_with_data_only() -> None:
    model = DenoisingNetwork(Scaled(0.3), "edm", (0.01, 100.0))
    x, noise = torch.randn(2, 4, 3, 5, 1, 6).double().unbind(0)
    valid = torch.zeros(5, 1, 6)
    valid[:, :, :4] = 1
    r, context = torch.tensor([0.1, 0.5, 1.0, 2.0]).double(), torch.ones(1, 3, 1, 1, 6)
    torch.testing.assert_close(
        model.loss(x, r, noise, context, valid), model.loss(x[..., :4], r, noise[..., :4], context, None)
    )


def test_network_is_evaluated_where_its_output_counts_only() -> None:
    modes = Eofs(1, (2, 3), rank=4, length=3)
    modes.variances.copy_(torch.tensor([[1.0], [0.5], [0.2]]).expand(3, 5))
    model = DenoisingNetwork(Scaled(1.0), "eof", (0.01, 100.0), modes)
    model.share = (0.0, 0.0, 1.0, 0.0, 0.0)  # at 0.01, 0.1, 1, 10, 100
    calls = []
    model.network.register_forward_hook(lambda module, inputs, output: calls.append(float(inputs[1].exp()[0])))
    z = torch.randn(1, 5, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    for r in (0.05, 1.0, 3.0, 20.0):
        level = torch.tensor([r])
        found = model(z, level, torch.ones(1, 5, 1, 2, 3))
        assert torch.equal(found, modes.filter(z, level)) == (r in (0.05, 20.0))
    assert calls == pytest.approx([1.0, 3.0])
