"""Weights of the errors by noise level."""

from __future__ import annotations

import math

import pytest
import torch

from sdaxr.prior.weighting import WEIGHTINGS, Relative, Uniform


def test_relative_weights_are_the_inverse_of_the_errors_at_their_level() -> None:
    weighting = Relative((0.01, 100.0), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        r = torch.exp(torch.empty(64).uniform_(math.log(0.01), math.log(100), generator=generator))
        return r, 0.01 + (r.log() / 5) ** 2

    assert torch.equal(weighting(*batch()), torch.ones(64))  # nothing is known yet
    for _ in range(400):
        r, errors = batch()
        weights = weighting(r, errors)
    away = r.log().abs() > 1  # where the error changes little within a bin
    torch.testing.assert_close(weights[away] * errors[away], torch.ones(int(away.sum())), rtol=0.4, atol=0)
    assert torch.equal(Uniform((0.01, 100.0), torch.device("cpu"))(r, errors), torch.ones(64))


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_of_levels_at_and_beyond_the_ends_are_finite(name: str) -> None:
    weighting = WEIGHTINGS[name]((0.01, 100.0), torch.device("cpu"))
    r = torch.tensor([1e-3, 0.01, 1.0, 100.0, 1e3])
    for _ in range(3):
        weights = weighting(r, torch.full((5,), 0.5))
    assert weights.shape == (5,) and bool((weights > 0).all() and weights.isfinite().all())
