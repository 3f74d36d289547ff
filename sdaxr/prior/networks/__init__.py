"""Score networks: frozen dataclasses that hold the options of a network and build it.

======================  ======================  ==========================================================
name                    class                   for
======================  ======================  ==========================================================
``"convolutional"``     `TemporalConvolution`   state vectors; any number of states (default)
``"mlp"``               `ResidualMLP`           state vectors; windows of one length
``"space-time-unet"``   `SpaceTimeUNet`         fields on a grid; any number of states (default)
``"unet"``              `WindowUNet`            fields on a grid; windows of one length
======================  ======================  ==========================================================

    sdaxr.train(trajectories, "prior.safetensors", network=sdaxr.networks.SpaceTimeUNet(widths=(32, 64)))

A network of your own is a `Network` in a file of yours, named by `register`.
"""

from __future__ import annotations

from sdaxr.prior.networks.base import NETWORKS, Inputs, Network, NetworkModule
from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.mlp import ResidualMLP
from sdaxr.prior.networks.unet import SpaceTimeUNet, WindowUNet

__all__ = [
    "SpaceTimeUNet",
    "WindowUNet",
    "TemporalConvolution",
    "ResidualMLP",
    "Network",
    "NetworkModule",
    "Inputs",
    "register",
]

register = NETWORKS.register
