r"""Grids of noise levels :math:`r = \sigma / \mu`, from the largest to the smallest."""

from __future__ import annotations

import math

from sdaxr.schema import OptionError, nearest

GRIDS = ("karras", "log-snr", "uniform")


def levels_of(grid: str, steps: int, largest: float, smallest: float) -> tuple[float, ...]:
    """The levels of the grid of that name.

    Raises
    ------
    OptionError
        If there is no such grid.
    """
    if grid == "karras":
        return karras_levels(steps, largest, smallest)
    if grid == "log-snr":
        return log_snr_levels(steps, largest, smallest)
    if grid == "uniform":
        return uniform_levels(steps)
    raise OptionError(f"grid={nearest(grid, GRIDS)}")


def karras_levels(steps: int, largest: float, smallest: float, rho: float = 7.0) -> tuple[float, ...]:
    """``steps`` levels from ``largest`` to ``smallest``, then zero (Karras et al. 2022, eq. 5).

    Steps of log r grow towards the end: with the default ``rho`` they are several times longer there.
    """
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    ramp = [i / max(1, steps - 1) for i in range(steps)]
    return (*((ends[0] + a * (ends[1] - ends[0])) ** rho for a in ramp), 0.0)


def log_snr_levels(steps: int, largest: float, smallest: float) -> tuple[float, ...]:
    """``steps`` levels from ``largest`` to ``smallest``, uniform in the logarithm of 1 / r^2, then zero."""
    ramp = [i / max(1, steps - 1) for i in range(steps)]
    return (*(largest * (smallest / largest) ** a for a in ramp), 0.0)


def uniform_levels(steps: int) -> tuple[float, ...]:
    """r on uniform times of mu = cos^2(arccos(sqrt(1e-3)) t), sigma^2 = 1 - mu^2 + 1e-6 (Rozet & Louppe 2023, 4).

    The ends are those of this process, r = 1000 and 0.001; the last level is not zero.
    """
    omega = math.acos(math.sqrt(1e-3))
    mu = [math.cos(omega * (1 - i / steps)) ** 2 for i in range(steps + 1)]
    return tuple(math.sqrt(1 - m**2 + 1e-6) / m for m in mu)
