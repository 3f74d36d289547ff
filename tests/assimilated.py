"""The case of the tests of assimilation: a Gaussian chain of nine states, with options that take seconds."""

from __future__ import annotations

from typing import Any

import torch
from gaussian import GaussianChain

from sdaxr import operators as op

CHAIN = GaussianChain(9)
WARM = op.function(lambda fields: {name: torch.tanh((x - 280) / 4) for name, x in fields.items()})
QUICK: dict[str, Any] = {"sampler": {"steps": 12, "corrections": 0}, "progress": False}
