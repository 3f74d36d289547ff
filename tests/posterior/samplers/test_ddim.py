"""The first-order step against its formula, and the density that it keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampled import draws

from sdaxr.posterior.samplers.ddim import DDIMStep


def never() -> torch.Tensor:
    raise AssertionError("noise was drawn")


def test_without_noise_it_is_the_exponential_integrator() -> None:
    z, xhat = draws(0, 3)(), draws(1, 3)()
    torch.testing.assert_close(DDIMStep(0.0)(z, xhat, None, 2.0, 0.5, never), xhat + 0.25 * (z - xhat))
    torch.testing.assert_close(DDIMStep(0.0)(z, xhat, None, 2.0, 0.0, never), xhat)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_known_states_stay_at_the_next_level(eta: float) -> None:
    """z = x + r eps becomes x + r' eps', of which a share eta^2 (1 - r'^2 / r^2) of the variance is new."""
    r, after, members = 2.0, 0.7, 200_000
    x = torch.tensor(1.5, dtype=torch.float64)
    old, new = (torch.as_tensor(np.random.default_rng(s).normal(size=members)) for s in (0, 1))
    found = DDIMStep(eta)(x + r * old, x, None, r, after, lambda: new)
    share = eta**2 * (1 - after**2 / r**2)
    expected = x + after * (math.sqrt(1 - share) * old + math.sqrt(share) * new)
    torch.testing.assert_close(found, expected)
    assert float(found.std()) == pytest.approx(after, rel=0.01)
