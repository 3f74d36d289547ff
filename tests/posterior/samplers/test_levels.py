"""Noise levels against the formulae of the papers."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr.posterior.samplers.levels import GRIDS, karras_levels, log_snr_levels, uniform_levels


def test_levels_are_those_of_the_papers() -> None:
    karras = karras_levels(32, 80.0, 0.01)
    assert len(karras) == 33 and karras[-1] == 0
    assert karras[0] == pytest.approx(80) and karras[31] == pytest.approx(0.01)
    assert karras[16] == pytest.approx((80 ** (1 / 7) + 16 / 31 * (0.01 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    logarithmic = log_snr_levels(5, 100.0, 0.01)
    np.testing.assert_allclose(logarithmic, [100, 10, 1, 0.1, 0.01, 0])
    uniform = uniform_levels(256)
    assert len(uniform) == 257 and np.all(np.diff(uniform) < 0)
    assert uniform[0] == pytest.approx(1e3) and uniform[-1] == pytest.approx(1e-3)
    mu = np.cos(np.arccos(np.sqrt(1e-3)) * 0.5) ** 2
    assert uniform[128] == pytest.approx(np.sqrt(1 - mu**2 + 1e-6) / mu)
    assert GRIDS["karras"](32, 80.0, 0.01) == karras
    assert GRIDS["log-snr"](5, 100.0, 0.01) == logarithmic
    assert GRIDS["uniform"](256, 80.0, 0.01) == uniform


@pytest.mark.parametrize("grid", ["karras", "log-snr"])
def test_one_level_is_the_largest(grid: str) -> None:
    assert GRIDS[grid](1, 80.0, 0.01) == pytest.approx((80.0, 0.0))
