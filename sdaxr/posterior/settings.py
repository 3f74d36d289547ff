"""Settings of the samplers: the user's, then those that a prior records, then the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sdaxr.posterior.samplers import SAMPLERS, Sampler, build_sampler
from sdaxr.prior.files import Prior
from sdaxr.schema import OptionError, nearest

METHOD_OPTIONS = ("gamma", "zeta", "iterations", "corrector")


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; what a prior's file does not say, and the user neither, is as here.

    ``largest`` and ``smallest`` bound the noise levels, within those that the prior was trained for; corrections are
    made on those from ``above`` to ``below``.
    ``stride`` is for networks on windows (`sdaxr.prior.blanket`), ``precision`` is that of the network's inner layers.
    ``gamma``, ``zeta``, ``iterations`` and ``corrector`` are options of some methods; None is the method's own default.
    The choice of the default sampler is measured in ``recipes/samplers`` and ``recipes/lorenz63``.
    """

    sampler: str = "sde-dpm++"
    grid: str = "log-snr"
    steps: int = 32
    eta: float = 1.0
    corrections: int = 3
    tau: float = 0.5
    attempts: int = 3
    gamma: float | str | None = None
    zeta: float | None = None
    iterations: int | None = None
    corrector: bool | None = None
    largest: float = 80.0
    smallest: float = 0.0
    above: float = 0.1
    below: float = 3.0
    stride: int = 1
    precision: str = "auto"

    def build(self, levels: tuple[float, float]) -> Sampler:
        """The sampler with these settings, on the noise levels that a prior was trained for."""
        return build_sampler(
            self.sampler, self.steps, self.corrections, self.tau,
            min(self.largest, levels[1]), max(self.smallest, levels[0]), grid=self.grid, eta=self.eta,
            above=self.above, below=self.below,
        )  # fmt: skip


PAPER = Sampling("exponential", "uniform", steps=256, eta=0.0, corrections=1, tau=0.5, attempts=1, gamma=1e-2)
DEFAULTS = {
    "sde-dpm++": Sampling(),
    "dpm++": Sampling("dpm++", eta=0.0),
    "ancestral": Sampling("ancestral", "karras", corrections=1),
    "ddim": Sampling("ddim", eta=0.0),
    "exponential": PAPER,
}


def resolve_sampling(prior: Prior, given: Mapping[str, Any]) -> Sampling:
    """Settings from the user, then from the prior's file, then the defaults of the sampler that was asked for.

    Where the user asks for ``"exponential"``, the paper's settings stand in the place of the prior's.

    Raises
    ------
    OptionError
        If the file records an unknown setting, or there is no such sampler.
    """
    asked = {k: v for k, v in given.items() if v is not None}
    stored: dict[str, Any] = prior.metadata.get("sampling", {})
    known = list(asdict(Sampling()))
    for key in stored:
        if key not in known:
            raise OptionError(f"the prior {prior.name!r} records the sampling setting {nearest(key, known)}")
    recorded = stored.get("sampler", Sampling.sampler)
    name = asked.get("sampler", recorded)
    if name not in DEFAULTS:
        raise OptionError(f"sampler={nearest(name, SAMPLERS)}")
    if name == PAPER.sampler != recorded:
        stored = {}
    elif name != recorded:
        # What was found best for one sampler says nothing about another one.
        stored = {k: v for k, v in stored.items() if k not in ("grid", "steps", "eta", "corrections", "tau")}
    return replace(DEFAULTS[name], **(stored | asked))
