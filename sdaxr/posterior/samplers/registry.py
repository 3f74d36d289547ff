"""Samplers: objects that hold their options.

``sampler=`` takes a name, an object, or a mapping of options; without a name these are options of the sampler that the
prior's file records::

    obs.sda.assimilate(prior, sampler="dpm++")
    obs.sda.assimilate(prior, sampler=sdaxr.samplers.SDEDPMSolver(steps=64, corrections=1))
    obs.sda.assimilate(prior, sampler={"steps": 64})

================  =================  ==========================================================================
name              object
================  =================  ==========================================================================
``sde-dpm++``     `SDEDPMSolver`     stochastic, of second order; the default
``dpm++``         `DPMSolver`        DPM-Solver++(2M), deterministic
``ancestral``     `Ancestral`        stochastic, of first order
``ddim``          `DDIM`             of first order, with any amount of noise
``exponential``   `Exponential`      the paper's; `PAPER` is this object
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
        "exponential": "sdaxr.posterior.samplers.exponential:Exponential",
    },
)
register = SAMPLERS.register

__all__ = [*SAMPLERS.class_names(), "PAPER", "register"]  # noqa: F822 (made by __getattr__)

DEFAULT, _PAPER = "sde-dpm++", "exponential"
# What was found best for one sampler says nothing of another one, except for these: they belong to the prior.
_OF_THE_PRIOR = ("above", "below", "largest", "smallest", "attempts", "stride")


def resolve_sampler(prior: Prior, given: str | Sampler | Mapping[str, Any] | None = None) -> Sampler:
    """The sampler that was asked for; what is not said of it is as the prior's file records, then the default.

    Raises
    ------
    OptionError
        If the name or an option is unknown, or an option is impossible.
    """
    if isinstance(given, Options):
        found: Sampler = SAMPLERS.build(given)
        return found
    recorded: dict[str, Any] = {"name": DEFAULT, **prior.metadata.get("sampling", {}).get("sampler", {})}
    if not isinstance(given, str | Mapping | None):
        raise OptionError(f"sampler={given!r}, expected one of {', '.join(SAMPLERS.names())}, an object, or a mapping")
    asked = {"name": given} if isinstance(given, str) else {"name": recorded["name"], **(given or {})}
    if asked["name"] != recorded["name"]:
        kept = () if asked["name"] == _PAPER else _OF_THE_PRIOR
        known = {field.name for field in fields(SAMPLERS.kind(asked["name"]))}
        recorded = {key: value for key, value in recorded.items() if key in kept and key in known}
    found = SAMPLERS.build({**recorded, **asked})
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
