"""What can be checked of a step before its files are there: options, and which of them go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import sdaxr
from sdaxr.archives.members import Part
from sdaxr.posterior.methods import METHODS, Method, build_method, resolve_method
from sdaxr.schema import OptionError, check_least

# Parameters of these functions that only a prior uses; beside a system the functions refuse them.
_OF_A_PRIOR = {
    "assimilate": ("prior", "sampler", "batch", "device", "precision"),
    "cycle": ("prior", "carry", "inflation"),
    "forecast": ("context", "block", "error", "method", "sampler", "batch", "device"),
    "calibrate": ("prior", "sampler"),
}


# What stands for a truth of `calibrate` beside files and systems.
SOURCES = ("prior",)


def check_training(options: Mapping[str, Any]) -> None:
    """Raise `OptionError` if options of `train` are unknown, or impossible for any data."""
    from sdaxr.prior.networks.base import NETWORKS
    from sdaxr.prior.settings import Optimisation, Statistics

    Statistics.of(options.get("statistics"))
    Optimisation.of(options.get("optimisation"))
    network = options.get("network", "auto")
    name = network.get("name", "auto") if isinstance(network, Mapping) else network
    if name != "auto":
        NETWORKS.build(network)


def check_numbers(options: Mapping[str, Any]) -> None:
    """Raise `OptionError` if the seed, the number of members or the size of the batches is impossible."""
    if options.get("members") is not None:
        Part.read(options["members"])
    for key, least in (("seed", 0), ("batch", 1)):
        if options.get(key) is not None:
            check_least(key, options[key], least)


def check_drawing(name: str, options: Mapping[str, Any], made: Collection[str] = ()) -> None:
    """Raise `OptionError` if a step that draws samples has an impossible model, method or sampler.

    Parameters
    ----------
    name
        ``"assimilate"``, ``"cycle"``, ``"forecast"`` or ``"calibrate"``.
    options
        Parameters of the step, with absolute paths.
    made
        Files that earlier steps make. What such a prior records is not known; a trained prior records nothing.
    """
    from sdaxr.inference.forecast import refuse_beside_a_system
    from sdaxr.inference.system_cycle import ensemble_method

    system, prior = _models(name, options)
    if system is None and prior is None:
        raise OptionError("found neither prior nor system, expected one of them")
    if system is not None:
        for function in ("assimilate", "cycle") if name == "cycle" else (name,):
            given = {key: options[key] for key in _OF_A_PRIOR[function] if key in options}
            refuse_beside_a_system(getattr(sdaxr, function), given, "give a prior in the place of the system")
        method, needs = options.get("method"), "system"
        found = ensemble_method(method) if name == "cycle" else build_method(method, "ffbs")
    else:
        unnamed = any(isinstance(options.get(k), Mapping) and "name" not in options[k] for k in ("method", "sampler"))
        how = options.get("storage_options")
        opened = sdaxr.open_prior(prior, storage_options=how) if unnamed and prior and prior not in made else None
        found, needs = _method_with(opened if name != "forecast" else None, options.get("method")), "prior"
        _check_sampler(opened, options.get("sampler"))
    if found.needs != needs:
        raise OptionError(f"method={found.name!r} needs a {found.needs}, found a {needs}")


def open_systems(truth: str, system: str | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The systems that `calibrate` names, by name; ``options`` are those of each.

    Raises
    ------
    OptionError
        If ``system`` is no system, an option is impossible, or there are options and no system.
    """
    named = ({truth} & set(sdaxr.systems.systems())) | ({system} - {None})
    if options and not named:
        raise OptionError(f"found system_options={dict(options)} and no system, expected one; leave them out")
    return {str(name): sdaxr.open_system(str(name), **(options or {})) for name in named}


def files_of_method(options: Mapping[str, Any]) -> list[str]:
    """The options of the method that are paths of files."""
    name = options["method"].get("name", "ffbs" if options.get("system") else "sda")
    kind = METHODS.kind(name) if isinstance(name, str) else None
    return [] if kind is None else [field.name for field in fields(kind) if field.metadata.get("file")]


def _models(name: str, options: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The system and the prior by which a step draws samples."""
    if name != "forecast":
        return options.get("system"), options.get("prior")
    model = options["model"]
    return (model, None) if model in sdaxr.systems.systems() else (None, model)


def _method_with(prior: sdaxr.Prior | None, given: Any) -> Method:
    return build_method(given, "sda") if prior is None else resolve_method(prior, given)


def _check_sampler(prior: sdaxr.Prior | None, given: Any) -> None:
    from sdaxr.posterior.samplers.registry import DEFAULT, SAMPLERS, resolve_sampler

    if prior is not None:
        resolve_sampler(prior, given)
    elif given is not None:
        SAMPLERS.build({"name": DEFAULT, **given} if isinstance(given, Mapping) else given)
