"""Settings of the samplers: the user's, then those that a prior records, then the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sdaxr.posterior.samplers import Sampler, build_sampler
from sdaxr.prior import Prior
from sdaxr.schema import OptionError, nearest

METHOD_OPTIONS = ("gamma", "zeta", "iterations")


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; what a prior's file does not say, and the user neither, is as here.

    ``gamma``, ``zeta`` and ``iterations`` are options of some methods of guidance; None is the method's own default.
    """

    sampler: str = "karras"
    steps: int = 32
    corrections: int = 1
    tau: float = 0.5
    gamma: float | str | None = None
    zeta: float | None = None
    iterations: int | None = None

    def build(self, levels: tuple[float, float]) -> Sampler:
        """The sampler with these settings, on the noise levels that a prior was trained for."""
        smallest, largest = max(0.01, levels[0]), min(80.0, levels[1])
        return build_sampler(self.sampler, self.steps, self.corrections, self.tau, largest, smallest)


PAPER = Sampling(sampler="exponential", steps=256, gamma=1e-2)


def resolve_sampling(prior: Prior, given: Mapping[str, Any]) -> Sampling:
    """Settings from the user, then from the prior's file, then the defaults of the sampler that was asked for."""
    asked = {k: v for k, v in given.items() if v is not None}
    if asked.get("sampler") == "exponential":
        return replace(PAPER, **asked)
    stored: dict[str, Any] = prior.metadata.get("sampling", {})
    known = list(asdict(Sampling()))
    for key in stored:
        if key not in known:
            raise OptionError(f"the prior {prior.name!r} records the sampling setting {nearest(key, known)}")
    return replace(Sampling(), **(stored | asked))


def choose_device(device: str) -> torch.device:
    """The device of that name; ``"auto"`` is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
