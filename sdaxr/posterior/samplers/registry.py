"""Samplers: objects that hold their options.

``sampler=`` takes a name, an object, or a mapping of options. Without a ``"name"``, the options belong to the sampler
that the file of the prior records::

    obs.sda.assimilate(prior, sampler="dpm++")
    obs.sda.assimilate(prior, sampler=sdaxr.samplers.SDEDPMSolver(steps=64, corrections=1))
    obs.sda.assimilate(prior, sampler={"steps": 64})

================  =================  ==========================================================================
name              object
================  =================  ==========================================================================
``sde-dpm++``     `SDEDPMSolver`     second order, stochastic: SDE-DPM-Solver++(2M); the default
``dpm++``         `DPMSolver`        second order, deterministic: DPM-Solver++(2M)
``ancestral``     `Ancestral`        first order, stochastic
``ddim``          `DDIM`             first order, with any amount of noise
``twisted``       `Twisted`          sequential Monte Carlo: several modes in their right proportions
``exponential``   `Exponential`      the sampler of Rozet & Louppe (2023); `PAPER` is this object
================  =================  ==========================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sdaxr.schema import OptionError, nearest
from sdaxr.states.registry import Options, Registry

if TYPE_CHECKING:
    from sdaxr.posterior.samplers.base import Sampler
    from sdaxr.prior.files import Prior

SAMPLERS: Registry[Any] = Registry(
    "sampler",
    Options,
    {
        "sde-dpm++": "sdaxr.posterior.samplers.dpm:SDEDPMSolver",
        "dpm++": "sdaxr.posterior.samplers.dpm:DPMSolver",
        "ancestral": "sdaxr.posterior.samplers.ddim:Ancestral",
        "ddim": "sdaxr.posterior.samplers.ddim:DDIM",
        "twisted": "sdaxr.posterior.samplers.twisted:Twisted",
        "exponential": "sdaxr.posterior.samplers.exponential:Exponential",
    },
)
register = SAMPLERS.register

__all__ = [*SAMPLERS.class_names(), "PAPER", "register"]  # noqa: F822 (made by __getattr__)

DEFAULT, _PAPER = "sde-dpm++", "exponential"
# A file records the best options for one sampler. Only these options also hold for another sampler, because they belong
# to the prior.
_OF_THE_PRIOR = ("above", "below", "largest", "smallest", "attempts", "stride")


def resolve_sampler(prior: Prior, given: str | Sampler | Mapping[str, Any] | None = None) -> Sampler:
    """The sampler as an object.

    An option that is not given has the value that the file of the prior records, else its default. An object is
    returned as it is.

    Raises
    ------
    OptionError
        If the name or an option is unknown, or the value of an option is impossible.
    """
    from sdaxr.posterior.samplers.base import Sampler

    if isinstance(given, Sampler):
        return given
    recorded: dict[str, Any] = {"name": DEFAULT, **prior.metadata.get("sampling", {}).get("sampler", {})}
    if not isinstance(given, str | Mapping | None):
        raise OptionError(f"sampler={given!r}, expected one of {', '.join(SAMPLERS.names())}, an object, or a mapping")
    asked = {"name": given} if isinstance(given, str) else {"name": recorded["name"], **(given or {})}
    if asked["name"] != recorded["name"]:
        kept = () if asked["name"] == _PAPER else _OF_THE_PRIOR
        known = {field.name for field in fields(SAMPLERS.kind(asked["name"]))}
        recorded = {key: value for key, value in recorded.items() if key in kept and key in known}
    found: Sampler = SAMPLERS.build({**recorded, **asked})
    return found


def describe_sampler(sampler: Sampler) -> dict[str, str]:
    """Attributes that record a sampler: its name, and its options as JSON."""
    return {"sampler": sampler.name, "sampler_options": json.dumps(sampler.to_dict(), sort_keys=True)}


def __getattr__(name: str) -> Any:
    if name == "PAPER":
        return SAMPLERS.build(_PAPER)
    if found := SAMPLERS.class_named(name):
        return found
    raise AttributeError(f"sdaxr.samplers has no {nearest(name, __all__)}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
