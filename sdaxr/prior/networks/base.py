"""What all score networks share: their inputs, their options and their registry.

A network maps a noisy normalised trajectory ``x`` (batch, time, channel, *space), a noise level ``log_r`` (batch,)
and a context (1 or batch, time, context channel, *space) to a tensor like ``x``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from sdaxr.schema import OptionError
from sdaxr.states.registry import Options, Registry


@dataclass(frozen=True)
class Inputs:
    """What a network is built for; it follows from the layout of the states.

    Attributes
    ----------
    channels, context
        Numbers of state and context channels.
    window
        Number of states in a window of the training.
    periodic
        For each horizontal dimension, whether it is periodic; empty for state vectors.
    """

    channels: int
    context: int
    window: int
    periodic: tuple[bool, ...] = ()


class NetworkModule(nn.Module, ABC):
    """A network with its weights.

    Attributes
    ----------
    window
        Number of states that the network takes; None where it takes any number.
    reach
        With ``window = None``: the number of states on each side that the output at one state depends on.
    """

    window: int | None = None
    reach: int | None = None

    @abstractmethod
    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        """Output like x, (batch, time, channel, *space)."""


@dataclass(frozen=True)
class Network(Options, ABC):
    """Options of a score network.

    To add one, write a subclass in a file of its own, which builds the module, and name it in `NETWORKS`.

    Attributes
    ----------
    gridded
        Whether the network is for fields on a grid; else it is for state vectors.
    windowed
        Whether the network takes exactly one window; else it takes any number of states.
    """

    gridded: ClassVar[bool]
    windowed: ClassVar[bool] = False

    @abstractmethod
    def module(self, inputs: Inputs) -> NetworkModule:
        """The network for these inputs, with random weights from torch's generator."""


NETWORKS: Registry[Network] = Registry(
    "network",
    Network,  # type: ignore[type-abstract]
    {
        "convolutional": "sdaxr.prior.networks.convolutional:TemporalConvolution",
        "mlp": "sdaxr.prior.networks.mlp:ResidualMLP",
        "space-time-unet": "sdaxr.prior.networks.unet:SpaceTimeUNet",
        "unet": "sdaxr.prior.networks.unet:WindowUNet",
    },
)


def choose_network(network: str | Mapping[str, Any] | Network, *, gridded: bool) -> Network:
    """The network for fields on a grid, or for state vectors.

    Parameters
    ----------
    network
        A `Network`, a name, or a mapping of ``"name"`` and options. ``"auto"``, or a mapping without a name, is the
        network that is convolutional in time: ``"space-time-unet"`` for grids, ``"convolutional"`` for vectors.
    gridded
        Whether the states are fields on a grid.

    Raises
    ------
    OptionError
        If the name or an option is unknown or impossible, or the network is for other states.
    """
    default = "space-time-unet" if gridded else "convolutional"
    if network == "auto":
        network = default
    elif isinstance(network, Mapping) and network.get("name", "auto") == "auto":
        network = {**network, "name": default}
    found = NETWORKS.build(network)
    if found.gridded != gridded:
        fitting = [name for name in NETWORKS.names() if NETWORKS.kind(name).gridded == gridded]
        kinds = ("fields on a grid", "state vectors")
        states, others = kinds if gridded else kinds[::-1]
        raise OptionError(
            f"found {states} and the network {type(found).__name__}, which is for {others}; choose one of "
            f"{', '.join(fitting)}"
        )
    return found
