"""Members in batches: each the same whatever the batch, and drawn again where the observations exclude it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from scenarios import CHAIN, LENGTH, matrix_observation, scenario, single_precision

from sdaxr.posterior.execution import batch_size, sample_batch
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import karras_levels
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Independent, Noise, PredictorCorrector
from sdaxr.schema import DivergenceError, OptionError

CPU = torch.device("cpu")


def test_a_member_is_the_same_in_any_batch() -> None:
    matrix, y, error, _ = scenario("full")
    guided = SDA(variance=0.1).guide(
        lambda z, r: CHAIN.denoise(z, r), [single_precision(matrix_observation(matrix, y, error))]
    )
    sampler = PredictorCorrector(karras_levels(16, 20.0, 0.02), DPMStep(eta=1.0), LangevinCorrector(count=1))

    one, many = (
        sample_batch(guided, sampler, members, (LENGTH, 2), seed=1, device=CPU)[0] for members in ([7], [3, 4, 5, 6, 7])
    )
    torch.testing.assert_close(one[0], many[4], rtol=1e-4, atol=1e-4)
    assert float((many[3] - many[4]).abs().max()) > 0.1


@dataclass(frozen=True)
class Locked:
    """Observations that the first attempt of some members misses, as far as its noise says."""

    members: torch.Tensor

    def select(self, members: torch.Tensor) -> Locked:
        return replace(self, members=members)

    def __call__(self, z: torch.Tensor, r: float) -> torch.Tensor:
        return z

    def pin(self, z: torch.Tensor, r: float, noise: object) -> torch.Tensor:
        return z

    def misfit(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs().amax(dim=(1, 2))


@dataclass(frozen=True)
class Given(Independent):
    """An algorithm that is a function of the noise."""

    function: Callable[[Noise], torch.Tensor]
    evaluations: int = 1

    def __call__(self, denoiser: object, noise: Noise, tick: object = None, pin: object = None) -> torch.Tensor:
        return self.function(noise)


@pytest.mark.parametrize("batch", [range(12), range(5, 12)])
def test_members_that_the_observations_exclude_are_drawn_again(batch: range, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def sample(attempts: int, members: Sequence[int] = batch, most: int | None = None) -> torch.Tensor:
        sampler, how = Given(lambda noise: noise() / 1.6), {"attempts": attempts, "most": most}
        return sample_batch(Locked(torch.zeros(0)), sampler, members, (4, 2), seed=0, device=CPU, **how)[0]

    first, second, third = (sample(attempts) for attempts in (1, 2, 3))
    misfit = [x.abs().amax(dim=(1, 2)) for x in (first, second, third)]
    far = misfit[0] > 1
    assert 0 < int(far.sum()) < len(batch)
    assert torch.equal(second[~far], first[~far])
    assert (misfit[1] <= misfit[0]).all() and (misfit[1] < misfit[0])[far].any()
    assert torch.equal(third[misfit[1] <= 1], second[misfit[1] <= 1])
    # Many members that are far are a sign of several modes, and left to who looks for them.
    assert torch.equal(sample(3, most=1), third if int(far.sum()) == 1 else first)
    # A member is the same whatever the others are.
    assert torch.equal(sample(2, [11])[0], second[-1])
    assert f"{int(far.sum())} of {len(batch)} members are far from the observations" in caplog.text


def test_a_second_attempt_that_diverges_leaves_the_first() -> None:
    calls = []

    def far(noise: Noise) -> torch.Tensor:
        calls.append(noise)
        if len(calls) > 1:
            raise DivergenceError("far away")
        return 10 * noise()

    drawn, _ = sample_batch(Locked(torch.zeros(0)), Given(far), [3], (4, 2), seed=0, device=CPU, attempts=3)
    assert torch.equal(drawn, 10 * member_noise(0, [3], (4, 2), CPU)())
    assert len(calls) == 2


def test_batches_fit_in_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, y, error, _ = scenario("full")
    guided = SDA(variance=0.1).guide(CHAIN.denoise, [single_precision(matrix_observation(matrix, y, error))])
    assert batch_size(guided, (LENGTH, 2), 1, CPU) == 1
    assert batch_size(guided, (LENGTH, 2), 10, CPU) == 10
    monkeypatch.setattr("sdaxr.posterior.execution.CPU_BUDGET", 1.0)
    assert batch_size(guided, (LENGTH, 2), 10, CPU) == 1
    with pytest.raises(OptionError, match=r"takes .* GB, found 1e-09 GB free on cpu, expected as much; take fewer"):
        batch_size(guided, (LENGTH, 2), 10, CPU, free=1.0)


def test_half_of_what_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, y, error, _ = scenario("full")
    guided = SDA(variance=0.1).guide(CHAIN.denoise, [single_precision(matrix_observation(matrix, y, error))])
    monkeypatch.setattr("sdaxr.posterior.execution.peak_bytes", lambda compute: 100)
    assert [batch_size(guided, (LENGTH, 2), 10, CPU, free=free) for free in (100.0, 900.0, 1200.0)] == [1, 3, 4]


def test_a_batch_that_was_asked_for_is_taken_where_it_fits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    matrix, y, error, _ = scenario("full")
    guided = SDA(variance=0.1).guide(CHAIN.denoise, [single_precision(matrix_observation(matrix, y, error))])
    monkeypatch.setattr("sdaxr.posterior.execution.peak_bytes", lambda compute: 100)
    assert batch_size(guided, (LENGTH, 2), 10, CPU, asked=8, free=1200.0) == 8 and not caplog.text
    # No more than there are members.
    assert batch_size(guided, (LENGTH, 2), 10, CPU, asked=80, free=1500.0) == 80 and not caplog.text
    assert batch_size(guided, (LENGTH, 2), 10, CPU, asked=8, free=900.0) == 8
    assert "8 members a batch" in caplog.text and caplog.records[-1].levelname == "WARNING"
    with pytest.raises(OptionError, match=r"a batch of 8 members takes 8e-07 GB, found 7e-07 GB .* a smaller batch"):
        batch_size(guided, (LENGTH, 2), 10, CPU, asked=8, free=700.0)
