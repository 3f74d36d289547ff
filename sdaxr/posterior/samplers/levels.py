r"""Grids of noise levels :math:`r = \sigma / \mu`, from the largest to the smallest."""

from __future__ import annotations

import math
from collections.abc import Callable


def karras_levels(steps: int, largest: float, smallest: float, rho: float = 7.0) -> tuple[float, ...]:
    r"""``steps`` levels from ``largest`` to ``smallest``, then zero (Karras et al. 2022, equation 5, arXiv:2206.00364).

    .. math:: r_i = \left( r_0^{1/\rho} + \tfrac{i}{n - 1} (r_{n-1}^{1/\rho} - r_0^{1/\rho}) \right)^\rho

    Steps of log r become longer towards the end: with the default ``rho``, which is that of the paper, by several
    times.
    """
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    ramp = [i / max(1, steps - 1) for i in range(steps)]
    return (*((ends[0] + a * (ends[1] - ends[0])) ** rho for a in ramp), 0.0)


def log_snr_levels(steps: int, largest: float, smallest: float) -> tuple[float, ...]:
    """``steps`` levels from ``largest`` to ``smallest``, uniform in the logarithm of 1 / r^2, then zero.

    1 / r^2 is the signal-to-noise ratio (Lu et al. 2022, arXiv:2211.01095).
    """
    ramp = [i / max(1, steps - 1) for i in range(steps)]
    return (*(largest * (smallest / largest) ** a for a in ramp), 0.0)


def uniform_levels(steps: int) -> tuple[float, ...]:
    r"""``steps`` + 1 levels at uniform times t of the diffusion of Rozet & Louppe (2023, section 4, arXiv:2306.10574).

    .. math:: \mu = \cos^2(\omega t), \qquad \omega = \arccos \sqrt{10^{-3}}, \qquad \sigma^2 = 1 - \mu^2 + 10^{-6},
              \qquad r = \sigma / \mu

    from t = 1 (r = 1000) to t = 0 (r = 0.001). The last level is not zero.
    """
    omega = math.acos(math.sqrt(1e-3))
    mu = [math.cos(omega * (1 - i / steps)) ** 2 for i in range(steps + 1)]
    return tuple(math.sqrt(1 - m**2 + 1e-6) / m for m in mu)


# By name, as functions of steps, largest, smallest. The uniform grid has bounds of its own.
GRIDS: dict[str, Callable[[int, float, float], tuple[float, ...]]] = {
    "karras": karras_levels,
    "log-snr": log_snr_levels,
    "uniform": lambda steps, *_: uniform_levels(steps),
}
