"""Score networks.

Every network maps a noisy normalised trajectory ``x`` (batch, time, channel, *space), a noise level
``log_r`` (batch,) and a context (1 or batch, time, context channel, *space) to a tensor like ``x``. A network either
has a fixed ``window`` (it sees exactly that many states at once) or takes any number of states (``window = None``), and
then knows its ``reach``: the states on each side that the output at one state depends on.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.mlp import ResidualMLP
from sdaxr.prior.networks.unet import SpaceTimeUNet, WindowUNet
from sdaxr.schema import OptionError, nearest
from sdaxr.states.fields import StateLayout

NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": ResidualMLP,
    "convolutional": TemporalConvolution,
    "unet": WindowUNet,
    "space-time-unet": SpaceTimeUNet,
}


def build_network(
    name: str, layout: StateLayout, window: int, options: dict[str, Any], more_context: int = 0
) -> nn.Module:
    """The network ``name`` for states of ``layout``, with so many context channels beside those of the layout.

    Raises
    ------
    OptionError
        If the name or an option is unknown, or the network does not fit the number of horizontal dimensions.
    """
    if name not in NETWORKS:
        raise OptionError(f"network {nearest(name, NETWORKS)}")
    kind = NETWORKS[name]
    gridded = bool(layout.space)
    if gridded != (name in ("unet", "space-time-unet")):
        fitting = "'unet' or 'space-time-unet'" if gridded else "'mlp' or 'convolutional'"
        raise OptionError(f"network {name!r} does not fit states of shape {layout.shape}; choose {fitting}")
    allowed = kind.options  # type: ignore[attr-defined]
    for key in options:
        if key not in allowed:
            raise OptionError(f"option of the network {name!r}: {nearest(key, allowed)}")
    context = layout.context_channels + more_context
    size: dict[str, Any] = {"channels": layout.channels, "context": context, "window": window}
    if gridded:
        size["periodic"] = layout.periodic
    return kind(**size, **options)


def default_network(layout: StateLayout) -> str:
    """The network that is convolutional in time: in one dimension for vectors, in space-time for grids."""
    return "space-time-unet" if layout.space else "convolutional"
