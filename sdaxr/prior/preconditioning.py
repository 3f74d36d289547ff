r"""From a network to a denoiser.

A noisy state :math:`x_t \sim N(\mu x, \sigma^2)` is held as :math:`z = x_t / \mu = x + r \epsilon` with the noise
level :math:`r = \sigma / \mu`: the same process in other units, in which the mathematics needs no schedule. A denoiser
returns :math:`\hat x = E[x | z]`; the score is :math:`\nabla_z \log p(z) = (\hat x - z) / r^2` (Tweedie). With unit
variance of the data,

.. math:: \hat x = c_{skip} z + c_{out} F(c_{in} z, \log r), \qquad c_{in} = 1 / \sqrt{1 + r^2}

============  ========================  ====================
.             :math:`c_{skip}`          :math:`c_{out}`
============  ========================  ====================
``edm``       :math:`1 / (1 + r^2)`     :math:`r c_{in}`
``spectral``  :math:`S / (S + r^2)`     :math:`r \sqrt{S / (S + r^2)}`
``epsilon``   :math:`1`                 :math:`-r`
============  ========================  ====================

- ``edm`` is Karras et al. (2022), table 1, arXiv:2206.00364.
- ``spectral`` is the same for each mode of the state, with the variance S of the mode (`sdaxr.prior.modes`).
- ``space-time`` is ``spectral`` with the modes of whole windows. The network also sees the filtered z. Where states
  change little from one to the next, their neighbours in time tell most of what can be known. Such a denoiser takes
  windows of one length.
- ``epsilon`` predicts the noise, as in Rozet & Louppe (2023), arXiv:2306.10574.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sdaxr.prior.modes import Modes

PARAMETERISATIONS = ("spectral", "space-time", "edm", "epsilon")


def expand(r: Tensor, like: Tensor) -> Tensor:
    """Reshape (batch,) to (batch, 1, ...) with as many dimensions as ``like``."""
    return r.reshape(-1, *[1] * (like.ndim - 1))


class DenoisingNetwork(nn.Module):
    """A network with its preconditioning.

    Parameters
    ----------
    network
        Maps (x, log_r, context) to a tensor like x; see `sdaxr.prior.networks`.
    parameterisation
        ``"edm"``, ``"epsilon"``, or ``"spectral"`` and ``"space-time"``, which need ``modes``.
    levels
        Smallest and largest noise level r of the training. Levels beyond them are clipped for the network.
    modes
        Modes of the states and their variances; None for the other parameterisations.
    """

    def __init__(
        self, network: nn.Module, parameterisation: str, levels: tuple[float, float], modes: Modes | None = None
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.parameterisation = parameterisation
        self.levels = levels
        self.modes = modes

    @property
    def window(self) -> int | None:
        """Number of states that the denoiser takes at once; None for any number."""
        fixed = None if self.modes is None else self.modes.window
        found: int | None = self.network.window if fixed is None else fixed
        return found

    def forward(self, z: Tensor, r: Tensor, context: Tensor) -> Tensor:
        """E[x | z].

        Parameters
        ----------
        z
            Shape (batch, time, channel, *space).
        r
            Noise levels, (batch,).
        context
            Shape (1 or batch, time, context channel, *space).

        Returns
        -------
        Tensor
            The shape of z.
        """
        level = expand(r, z)
        scale = (1 + level.square()).rsqrt()
        if self.modes is not None:
            filtered = self.modes.filter(z, r)
            if self.modes.window is not None:
                seen = filtered / expand(self.modes.estimated(r), z)
                context = torch.cat([context.expand(len(z), *context.shape[1:]), seen], dim=2)
            rest: Tensor = self.network(scale * z, self._log(r), context)
            return filtered + self.modes.unfiltered(rest, r)
        output: Tensor = self.network(scale * z, self._log(r), context)
        if self.parameterisation == "edm":
            return scale.square() * z + level * scale * output
        return z - level * output

    def loss(self, x: Tensor, r: Tensor, noise: Tensor, context: Tensor, valid: Tensor | None) -> Tensor:
        """Mean square error of E[x | z], in units of the error of a network that knows nothing.

        Parameters
        ----------
        x, noise
            Normalised states and standard normal noise, (batch, time, channel, *space).
        r
            Noise levels, (batch,).
        context
            Shape (1 or batch, time, context channel, *space).
        valid
            Shape (channel, *space), or that of x, 1 where there are data; None where there are data everywhere. The
            errors of these data alone count.

        Returns
        -------
        Tensor
            Shape (batch,).
        """
        level = expand(r, x)
        expected = level if self.parameterisation == "epsilon" else level * (1 + level.square()).rsqrt()
        xhat: Tensor = self(x + level * noise, r, context)
        square = ((xhat - x) / expected).square()
        if valid is None:
            return square.flatten(1).mean(1)
        # Of all windows: each value counts alike, whatever else is missing beside it.
        count = valid.expand_as(square if valid.ndim == square.ndim else square[:1]).flatten(1).sum(1).mean()
        return (square * valid).flatten(1).sum(1) / count.clamp_min(1.0)

    def _log(self, r: Tensor) -> Tensor:
        return r.log().clamp(math.log(self.levels[0]), math.log(self.levels[1]))
