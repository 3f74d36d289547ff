"""The network that the metadata of a prior describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdaxr.prior.eofs import Eofs
from sdaxr.prior.modes import Modes
from sdaxr.prior.networks.base import Inputs, choose_network
from sdaxr.prior.patches import Patches
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.states.fields import StateLayout


def assemble(layout: StateLayout, about: Mapping[str, Any]) -> DenoisingNetwork:
    """The untrained network that the metadata of a prior describe."""
    patches = Patches.of(layout, about.get("statistics", {}).get("patches", {}))
    layout = layout if patches is None else patches.tile
    low, high = about["optimisation"]["levels"]
    kind, window = about["parameterisation"], about["window"]
    modes: Modes | Eofs | None = None
    if kind in ("spectral", "space-time"):
        modes = Modes(layout.channels, layout.shape, layout.periodic, window if kind == "space-time" else None)
    elif kind == "eof":
        modes = Eofs(layout.channels, layout.shape, about["modes"]["rank"], about["modes"]["length"])
    # The network may also see the filtered states, as more context.
    context = layout.context_channels + (layout.channels if modes is not None and modes.shown else 0)
    network = choose_network(about["network"], gridded=bool(layout.space))
    module = network.module(Inputs(layout.channels, context, window, layout.periodic))
    constants = tuple(layout.parameter_channels.values()) if about.get("shared_noise") else ()
    found = DenoisingNetwork(module, kind, (low, high), modes, constants)
    found.share = tuple(about["share"]) if "share" in about else None
    return found
