"""Numbers among the options of filters, systems and methods: beyond their bounds is one line that names the option."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any

import pytest

from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.posterior.methods import METHODS
from sdaxr.posterior.samplers.registry import SAMPLERS
from sdaxr.prior.networks.base import NETWORKS
from sdaxr.schema import OptionError
from sdaxr.states.validation import fields_of
from sdaxr.systems.registry import SYSTEMS

REGISTRIES = {"method": METHODS, "system": SYSTEMS, "uncertainty": UNCERTAINTIES, "sampler": SAMPLERS,
              "network": NETWORKS}  # fmt: skip
# Without an end: how far back in time a smoother reaches, which the length of the trajectory ends.
ENDLESS = {("enks", "lag"), ("ienks", "lag")}


def numbers(kind: Any) -> Iterator[tuple[type, Any]]:
    """The types of numbers in a declared type, each with its bounds, None for none."""
    for each in typing.get_args(kind) if typing.get_origin(kind) not in (None, Annotated) else (kind,):
        base, *meta = typing.get_args(each) if typing.get_origin(each) is Annotated else (each,)
        if base in (int, float):
            yield base, next(iter(meta), None)


def options() -> Iterator[tuple[str, str, str, list[tuple[type, Any]]]]:
    for what, registry in REGISTRIES.items():
        for name in registry.names():
            declared = fields_of(registry.kind(name))
            for field in fields(registry.kind(name)):
                if found := list(numbers(declared.get(field.name))):
                    yield what, name, field.name, found


@pytest.mark.parametrize(
    ("what", "name", "option", "found"), list(options()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_number_beyond_its_bounds_is_refused_by_name(what: str, name: str, option: str, found: Any) -> None:
    build = REGISTRIES[what].build
    for base, bounds in found:
        impossible = [
            math.nan,
            "much",
            1j,
            True,
            *([0.5, *([] if (name, option) in ENDLESS else [10**15])] * (base is int)),
        ]
        assert bounds is not None or base is float, f"{name}.{option} has no bounds"
        if bounds is not None and bounds.ge is not None:
            impossible.append(bounds.ge - 1 if base is int else math.nextafter(bounds.ge, -math.inf))
        if bounds is not None and bounds.gt is not None:
            impossible.append(bounds.gt)
        for value in impossible:
            with pytest.raises(OptionError, match=option) as refused:
                build({"name": name, option: value})
                pytest.fail(f"{name}.{option}={value!r} is accepted")
            assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
