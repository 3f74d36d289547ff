"""Statistical linearisation against expectations and posteriors in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ring import POINTS, SPACE, TIMES, dense, prior

from sdaxr.posterior.covariance.statistical import linearise
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.likelihood import GaussianObservation, Pointwise
from sdaxr.posterior.linear import residual
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector


def observation(function, y: torch.Tensor, error: float) -> GaussianObservation:
    ones = torch.ones(y.shape[-1])
    return GaussianObservation(lambda x: function(x.flatten(1)), y, error * ones, ones)


def test_expectations_of_a_sine_are_in_closed_form() -> None:
    """Of 1.5 sin(3 x) with x ~ N(m, V): E H = 1.5 sin(3 m) e^(-9 V / 2), and E H' = 4.5 cos(3 m) e^(-9 V / 2)."""
    m, sd, error = torch.tensor([0.2, -0.7, 1.4]), torch.tensor([0.05, 0.3, 1.0]), 0.1
    draws = torch.randn(20_000, 1, 1, 3, generator=torch.Generator().manual_seed(0)) * sd
    network = observation(lambda x: 1.5 * torch.sin(3 * x), torch.tensor([0.3, 0.0, -1.0]), error)
    around, missed = linearise([network], [False], m.reshape(1, 1, 1, 3), draws[:2000])
    fade = torch.exp(-4.5 * sd**2)
    mean = (1.5 * torch.sin(3 * m) * fade - network.values) / error
    slope = 4.5 * torch.cos(3 * m) * fade / error
    square = 1.125 * (1 - torch.cos(6 * m) * fade**4) / error**2
    torch.testing.assert_close(around.value[0], mean, atol=0.3, rtol=0.02)
    torch.testing.assert_close(around.adjoint(torch.ones(1, 3)).flatten(), slope, atol=1.0, rtol=0.03)
    expected = square - (mean + network.values / error) ** 2 - slope**2 * sd**2
    torch.testing.assert_close(missed[0], expected, atol=0.5, rtol=0.05)


def test_quadrature_of_what_is_pointwise_is_exact() -> None:
    m, sd, error = torch.tensor([[0.2, -0.7, 1.4, 0.9]]), torch.tensor([0.05, 0.3, 0.6, 0.6]), 0.1
    network = replace(
        observation(lambda x: 1.5 * torch.sin(3 * x), torch.tensor([0.3, 0.0, -1.0, 0.5]), error),
        pointwise=Pointwise(lambda x: x.flatten(1), lambda a: 1.5 * torch.sin(3 * a), torch.tensor([0, 1, 2, 2])),
    )
    around, missed = linearise([network], [False], m.reshape(1, 1, 1, 4), sd.reshape(1, 1, 1, 4))
    fade = torch.exp(-4.5 * sd**2)
    mean, slope = 1.5 * torch.sin(3 * m) * fade, 4.5 * torch.cos(3 * m) * fade
    torch.testing.assert_close(around.value, (mean - network.values) / error, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(around.forward(torch.ones(1, 1, 1, 4)), slope / error, atol=2e-2, rtol=1e-3)
    square = 1.125 * (1 - torch.cos(6 * m) * fade**4)
    torch.testing.assert_close(missed, (square - mean**2 - slope**2 * sd**2) / error**2, atol=0.1, rtol=1e-2)


def test_quadrature_and_draws_see_the_same() -> None:
    x, y = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 12)
    drawn = observation(torch.atan, y, 0.1)
    whole = replace(drawn, pointwise=Pointwise(lambda s: s.flatten(1), torch.atan, torch.zeros(12, dtype=torch.long)))
    direct = observation(lambda s: 2 * s[:, :5] - 1, torch.arange(5.0), 0.5)
    draws = 0.6 * torch.randn(4000, 3, 1, 4, generator=torch.Generator().manual_seed(2))
    (one, missed), (other, lacks) = (linearise([direct, o], [True, False], x, draws) for o in (drawn, whole))
    torch.testing.assert_close(one.value, other.value, atol=0.1, rtol=0.01)
    direction = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(one.forward(direction), other.forward(direction), atol=0.2, rtol=0.02)
    torch.testing.assert_close(missed, lacks, atol=0.05, rtol=0.1)


def test_linear_networks_stay_as_they_are() -> None:
    x = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(1))
    direct = observation(lambda s: 2 * s[:, :5] - 1, torch.arange(5.0), 0.5)
    bent = observation(torch.atan, torch.zeros(2, 12), 0.1)
    draws = torch.zeros(3, 3, 1, 4)
    around, missed = linearise([direct, bent], [True, False], x, draws)
    torch.testing.assert_close(around.value, residual([direct, bent], x).value)
    assert missed.shape == (2, 17) and float(missed.abs().max()) < 1e-8


def test_deviations_have_the_covariance() -> None:
    _, covariance = prior(0.8)
    drawn = covariance.draw((TIMES, 1, POINTS), 1.3, 20_000).flatten(1).numpy()
    expected = dense(covariance, 1.3)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), expected, atol=0.04 * expected.max())
    torch.testing.assert_close(
        covariance.draw((TIMES, 1, POINTS), 0.7, 2), covariance.draw((TIMES, 1, POINTS), 0.7, 2), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("function", "nearer"),
    [(lambda x: torch.atan(3 * x), "mean"), (lambda x: 1.5 * torch.sin(1.5 * x), "spread")],
)
def test_posteriors_of_bent_observations_are_nearer_to_the_exact_ones(function, nearer: str) -> None:
    """One point of each independent state is observed; its posterior is one number, by quadrature."""
    network, covariance = prior(0.0)
    y, error = torch.linspace(-1.2, 1.2, TIMES), 0.2
    grid = np.linspace(-8, 8, 4001) * math.sqrt(SPACE[0, 0])
    bent = function(torch.as_tensor(grid)).numpy()
    density = np.exp(-(grid**2) / 2 / SPACE[0, 0] - (y.numpy()[:, None] - bent) ** 2 / 2 / error**2)
    density /= density.sum(1, keepdims=True)
    mean = density @ grid
    sd = np.sqrt(density @ grid**2 - mean**2)
    ones = torch.ones(TIMES)
    observed = GaussianObservation(lambda x: function(x[:, :, 0, 0]), y, error * ones, ones)
    context = torch.ones(1, TIMES, 1, POINTS)
    sampler = PredictorCorrector(log_snr_levels(24, 50.0, 0.02), DPMStep(eta=1.0), LangevinCorrector(2, 0.5))

    def distance(forced: bool) -> float:
        guided = SDA(variance=covariance).guide(lambda z, r: network(z, torch.full((len(z),), r), context), [observed])
        if forced:
            guided.likelihood.once("linear", lambda: (True,))
        random = torch.Generator().manual_seed(0)
        drawn = sampler(guided, lambda: torch.randn(600, TIMES, 1, POINTS, generator=random))[:, :, 0, 0].numpy()
        error = (drawn.mean(0) - mean) / sd if nearer == "mean" else np.log(drawn.std(0) / sd)
        return float(np.sqrt(np.mean(error**2)))

    ours, linearised = distance(False), distance(True)
    assert ours < 0.75 * linearised, (ours, linearised)
