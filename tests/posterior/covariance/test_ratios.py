"""The variance ratio: of two measurements the one that fits the gain, as far as it is certain."""

from __future__ import annotations

import pytest
import torch
from ring import POINTS, TIMES, windows

from sdaxr.posterior.covariance.ratios import Errors, settled
from sdaxr.prior.held_out import HeldOut
from sdaxr.prior.modes import Modes


@pytest.mark.parametrize(
    ("measured", "claimed", "error", "expected"),
    [
        (1.2, 1.0, 0.0, 1.2),
        (1.2, 1.0, 0.11, 1.2),
        (0.2, 1.0, 0.04, 0.992),
        (1.0, 1.2, 0.05, 1.15),
        (1.0, 1.0, 0.0, 1.0),
    ],
)
def test_the_second_measurement_counts_as_far_as_it_is_certain(
    measured: float, claimed: float, error: float, expected: float
) -> None:
    found = settled(*(torch.tensor([value]) for value in (measured, claimed, error)))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def errors_of(factor: float, scale: float, level: int) -> Errors:
    """Of a denoiser that is a multiple of the Wiener filter, at a noise level of some held-out windows."""
    modes = Modes(1, (POINTS,), (True,))
    modes.measure([torch.as_tensor(windows(4000, 0.0, 0))])
    states = torch.as_tensor(scale * windows(2000, 0.0, 1))
    held_out = HeldOut.of(lambda z, r: factor * modes.filter(z, torch.full((len(z),), r)), states, (0.3, 30.0))
    bands = torch.arange(POINTS // 2 + 1)
    return Errors.of(held_out, level, modes, modes.variances, bands)


@pytest.mark.parametrize("scale", [1.0, 0.2**0.5])
@pytest.mark.parametrize("level", [0, 4, 8])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_ratio_is_not_below_that_of_the_jacobian(factor: float, level: int, scale: float) -> None:
    errors = errors_of(factor, scale, level)
    of_errors = (errors.error.square().sum((0, 1, -1)) / errors.variances.sum((0, 1, -1))).clamp(1e-3, 10.0)
    torch.testing.assert_close(errors.ratio(), of_errors.clamp_min(factor), atol=0.1, rtol=0.05)


def test_a_network_that_adds_nothing_has_a_ratio_of_one_without_sampling_error() -> None:
    errors = errors_of(1.0, 0.2**0.5, 8)
    torch.testing.assert_close(errors.ratio(), torch.ones(POINTS // 2 + 1), atol=1e-3, rtol=0.0)
    assert float(errors.error.square().sum() / errors.variances.sum()) < 0.5


def test_errors_of_each_time_are_those_of_all_times_together() -> None:
    errors = errors_of(0.5, 1.0, 4)
    each = errors.by_time()
    assert len(each) == TIMES
    torch.testing.assert_close(torch.stack([e.ratio() for e in each]).mean(0), errors.ratio(), atol=0.05, rtol=0.0)
