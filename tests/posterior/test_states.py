"""States that are observed themselves, and trajectories continued from them, against closed forms."""

from __future__ import annotations

import numpy as np
import torch
from gaussian import GaussianChain
from unknown_offset import OffsetSeries

from sdaxr.posterior.covariance.variance import Matrix
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector
from sdaxr.posterior.states import blocks, channel_variance, extend, observe_states

CHAIN = GaussianChain(6)


def closed_form(y: np.ndarray, error: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (steps, 2) and covariance (steps, 2, 2) of the states after the k states that were observed as y (k, 2)."""
    k = len(y)
    c = GaussianChain(k + steps).covariance
    gain = c[2 * k :, : 2 * k] @ np.linalg.inv(c[: 2 * k, : 2 * k] + error**2 * np.eye(2 * k))
    covariance = c[2 * k :, 2 * k :] - gain @ c[: 2 * k, 2 * k :]
    blocks = covariance.reshape(steps, 2, steps, 2)
    return (gain @ y.ravel()).reshape(steps, 2), np.stack([blocks[i, :, i] for i in range(steps)])


def test_blocks_reach_the_steps():
    assert blocks(1, 10, 3, 4) == [1, 3]
    assert blocks(5, 9, 3, 4) == [3, 3, 3]


def test_a_continued_chain_has_the_moments_of_its_transition():
    members, steps, error = 500, 8, 0.05
    known = torch.tensor([[[1.5, -0.5]]]).expand(members, -1, -1)
    sampler = PredictorCorrector(log_snr_levels(48, 20.0, 0.01), DPMStep(eta=1.0), LangevinCorrector())
    one = GaussianChain(5)

    def gamma(r: float) -> torch.Tensor:
        return torch.as_tensor(one.unresolved(r)[:2, :2], dtype=torch.float32)

    drawn = extend(
        lambda first, count: one.denoise,
        # Exact for a Gaussian prior (appendix B of the paper), so that the blocks alone are tested.
        known, steps, context=1, block=4, sampler=sampler, method=SDA(variance=Matrix(gamma)), error=error,
    ).numpy()  # fmt: skip
    mean, cov = closed_form(known[0].numpy(), error, steps)
    powers = [np.linalg.matrix_power(CHAIN.transition, n) for n in range(1, steps + 1)]
    np.testing.assert_allclose(mean, [p @ [1.5, -0.5] for p in powers], atol=0.01)
    np.testing.assert_allclose(cov, [np.eye(2) - p @ p.T for p in powers], atol=0.01)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((drawn.mean(0) - mean) / deviation).max() < 0.05 + 4.5 / np.sqrt(members)
    assert np.abs(drawn.var(0) / deviation**2 - 1).max() < 0.1 + 4.5 * np.sqrt(2 / members)


def test_a_parameter_is_observed_once_with_the_variance_of_its_mean() -> None:
    series = OffsetSeries(6, sites=3)
    held_out = series.prior(4000).held_out(torch.device("cpu"))
    variance = channel_variance(held_out, parameters=[1])
    states = torch.as_tensor(series.draw(2, 1), dtype=torch.float32)
    seen = observe_states(states[:, :4], 0.1, variance, parameters=[1])
    assert seen.values.shape == (2, 4 * 3 + 1) and torch.allclose(seen.values[:, -1], states[:, 0, 1, 0])
    np.testing.assert_allclose(seen.errors, 0.1, rtol=1e-6)
    mean = np.zeros(2 * series.size)
    theta = np.arange(2 * series.size).reshape(series.shape)[:, 1].ravel()
    mean[theta] = 1 / theta.size
    for level, row in zip(variance.levels[5:10], variance.table[5:10].numpy(), strict=True):
        given = level**2 * (series.vectors * (series.values / (series.values + level**2))) @ series.vectors.T
        np.testing.assert_allclose(row[1], mean @ given @ mean, rtol=0.1)
