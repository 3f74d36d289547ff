"""The header of a prior's file: what may stand in it, and what the tensors of the file must then be.

The header is JSON. `Header` declares its entries, with their types and bounds; an entry that is not declared is
refused. The tensors are compared with it before anything is built that is as large as the header says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from sdaxr.prior.networks.base import NETWORKS
from sdaxr.prior.preconditioning import PARAMETERISATIONS
from sdaxr.prior.settings import Optimisation, Statistics
from sdaxr.schema import PriorError, nearest
from sdaxr.states.fields import StateLayout
from sdaxr.states.storage import LayoutHeader
from sdaxr.states.validation import Count, Natural, Number, Share

REFERENCE = ("reference.states", "reference.context")
NETWORK = "network."


class Modes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of EOFs, and what was found when they were measured."""

    rank: Count
    length: Count
    taper: Any = None
    taper_units: Any = None
    explained: Any = None
    log_likelihood: Any = None
    by_area: Any = None


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator of the prior, and the variable that each of its outputs is."""

    operator: dict[str, Any]
    stored: dict[str, str]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to sample with the prior."""

    method: dict[str, Any] = {}
    sampler: dict[str, Any] = {}


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entries of a header. What nothing follows from is in free words: the data, the training, measurements."""

    window: Count
    network: dict[str, Any]
    parameterisation: str
    optimisation: dict[str, Any]
    layout: LayoutHeader
    statistics: dict[str, Any] = {}
    augment: dict[str, Augment] = {}
    modes: Modes | None = None
    share: list[Share] | None = None
    symmetries: list[dict[str, Any]] | None = None
    shared_noise: bool = False
    context: dict[str, Any] = {}
    overlap: Share | None = None
    sampling: Sampling = Sampling()
    name: str = "unnamed"
    steps: Natural | None = None
    minutes: Number | None = None
    seed: int = 0
    data: dict[str, Any] = {}
    start: dict[str, Any] = {}
    training: dict[str, Any] = {}
    measurements: Any = None
    sdaxr_version: str = ""


def check_header(about: Mapping[str, Any]) -> None:
    """Raise an error if the metadata of a file are not those of a prior.

    Raises
    ------
    PriorError, OptionError, OperatorError
        If an entry is missing, not declared, of another type or out of bounds; the message names it.
    """
    try:
        found = msgspec.convert(about, Header)
    except msgspec.ValidationError as error:
        raise PriorError(f"found {_readable(str(error))}") from error
    found.layout.check()
    if found.parameterisation not in PARAMETERISATIONS:
        raise PriorError(f"found the parameterisation {nearest(found.parameterisation, PARAMETERISATIONS)}")
    if (found.parameterisation == "eof") != (found.modes is not None):
        raise PriorError(f"found modes={found.modes} for the parameterisation {found.parameterisation!r}")
    if set(Statistics.of(found.statistics).homogeneous) - set(found.layout.space):
        raise PriorError(f"found the homogeneous dimensions {found.statistics['homogeneous']}, expected those of space")
    if "levels" not in found.optimisation:
        raise PriorError("found no noise levels, expected the entry optimisation.levels")
    Optimisation.of(found.optimisation)
    NETWORKS.build(found.network)
    unknown = {v for one in found.augment.values() for v in one.stored.values()} - set(found.layout.variables)
    if unknown:
        raise PriorError(f"found the observed quantities {sorted(unknown)}, expected variables of the layout")


def check_reference(layout: StateLayout, tensors: Mapping[str, Tensor]) -> None:
    """Raise `PriorError` unless the held-out windows of a file are states of the layout."""
    states, context = (_found(tensors, key) for key in REFERENCE)
    expected = (*states.shape[:2], layout.channels, *layout.shape)
    if states.ndim != 3 + len(layout.space) or tuple(states.shape) != expected or not states.numel():
        raise PriorError(f"found held-out states of shape {tuple(states.shape)}, expected (n, time, *{expected[2:]})")
    expected = (states.shape[1], layout.context_channels, *layout.shape)
    if tuple(context.shape[1:]) != expected or context.shape[0] not in (1, states.shape[0]):
        raise PriorError(f"found a held-out context of shape {tuple(context.shape)}, expected (1 or n, *{expected})")


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], packed: str | None = None) -> None:
    """Raise `PriorError` unless the weights have the names and shapes of ``expected``.

    Parameters
    ----------
    found, expected
        Tensors by name; those of ``expected`` may hold no values (the device ``"meta"``).
    packed
        Name of a tensor whose file has only some of its rows.
    """
    for name in [*expected, *found]:
        if name not in expected or name not in found:
            raise PriorError(f"found {'no' if name in expected else 'the'} tensor '{name}', expected another")
        there, here = tuple(found[name].shape), tuple(expected[name].shape)
        if name == packed:
            there, here = there[1:], here[1:]
        if there != here or found[name].is_floating_point() != expected[name].is_floating_point():
            raise PriorError(
                f"found the tensor '{name}' of {found[name].dtype} and shape {there}, expected {expected[name].dtype} "
                f"and {here}, as the header says"
            )


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise `PriorError` if a weight or a held-out state is not finite, or a variance is negative."""
    for name, tensor in tensors.items():
        learned = name.startswith(NETWORK) or name in REFERENCE
        if learned and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PriorError(f"found values that are not finite in the tensor '{name}', expected none")
        if name in (f"{NETWORK}modes.variances", f"{NETWORK}modes.shares") and bool((tensor < 0).any()):
            raise PriorError(f"found negative numbers in the tensor '{name}', expected variances")


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _found(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise PriorError(f"found no tensor '{name}', expected one")
    return tensors[name]


def _readable(message: str) -> str:
    """The message of msgspec without its marks: "window: Expected `int` >= 1" is "window: expected int >= 1"."""
    text, _, place = message.partition(" - at `$")
    return f"the entry '{place.strip('.`') or 'about'}': {text.replace('`', '')}"
