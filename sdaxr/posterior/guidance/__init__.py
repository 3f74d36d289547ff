"""Guidance: a denoiser of the prior and observations make a denoiser of the posterior, one method a file.

A guided denoiser returns :math:`E[x | z, y] = \\hat x + r^2 \\nabla_z \\log p(y | z)`, so that every sampler takes it
like any other denoiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdaxr.posterior.guidance.dps import DPS
from sdaxr.posterior.guidance.sda import SDA

METHODS: dict[str, Callable[..., Any]] = {"sda": SDA, "dps": DPS}

__all__ = ["DPS", "METHODS", "SDA"]
