"""The variance of an observed quantity given z against the closed form."""

from __future__ import annotations

import numpy as np
import torch
from scenarios import CHAIN, scenario

from sdaxr.posterior.covariance.unresolved import measure
from sdaxr.prior.held_out import HeldOut


def test_measured_variance_of_a_gaussian_is_the_closed_form() -> None:
    matrix, _, _, _ = scenario("noisy")
    windows = torch.as_tensor(CHAIN.draw(3000, 14))
    h = torch.as_tensor(matrix)

    def error(denoised: torch.Tensor) -> torch.Tensor:
        return ((windows - denoised).flatten(1) @ h.T).square().mean(dim=0)

    measured = measure(HeldOut.of(CHAIN.denoise, windows, (0.02, 50.0)), error)
    for r in (0.02, 0.1, 1.0, 7.0, 50.0):
        expected = r**2 * np.diag(matrix @ CHAIN.unresolved(r) @ matrix.T)
        np.testing.assert_allclose(measured(r), expected, rtol=0.12)
    np.testing.assert_allclose(measured(0.002), measured(0.02) / 100)
    np.testing.assert_allclose(measured(500.0), measured(50.0))
