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
- ``eof`` is ``spectral`` with empirical orthogonal functions and cosines in time (`sdaxr.prior.eofs`), for trajectories
  of any length. The network also sees the filtered z.
- ``space-time`` is ``spectral`` with the modes of whole windows. The network also sees the filtered z. Where states
  change little from one to the next, their neighbours in time tell most of what can be known. Such a denoiser takes
  windows of one length.
- ``epsilon`` predicts the noise, as in Rozet & Louppe (2023), arXiv:2306.10574.

The output of a network with modes counts as much as validation says (``share``).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from sdaxr.prior.constants import as_means, as_numbers
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.modes import Modes

# Those with modes: without a network they are Gaussian processes.
WITH_MODES = ("spectral", "space-time", "eof")
PARAMETERISATIONS = (*WITH_MODES, "edm", "epsilon")


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
        ``"edm"``, ``"epsilon"``, or ``"spectral"``, ``"space-time"`` and ``"eof"``, which need ``modes``.
    levels
        Smallest and largest noise level r of the training. Levels beyond them are clipped for the network.
    modes
        Modes of the states and their variances; None for the other parameterisations.
    constants
        Numbers of the channels that are one number each (`sdaxr.prior.constants`).

    Attributes
    ----------
    share
        Weight of the network's output at noise levels that are evenly spaced in their logarithm, from the smallest to
        the largest; without modes, and until it is measured, it is 1. Where it is 0 everywhere, the denoiser is that of
        the Gaussian process.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterisation: str,
        levels: tuple[float, float],
        modes: Modes | Eofs | None = None,
        constants: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.parameterisation = parameterisation
        self.levels = levels
        self.modes = modes
        self.constants = constants
        self.share: tuple[float, ...] | None = None

    def with_modes(self, modes: Eofs) -> DenoisingNetwork:
        """The same network with other modes."""
        found = copy.copy(self)
        found._modules = {**self._modules, "modes": modes}
        return found

    @property
    def window(self) -> int | None:
        """Number of states that the denoiser takes at once; None for any number."""
        fixed = None if self.modes is None else self.modes.window
        found: int | None = self.network.window if fixed is None else fixed
        return found

    @property
    def reach(self) -> int | None:
        """States on each side that the estimate of a state depends on; None for a network that does not say so.

        Beyond the length of the series that were measured, EOFs hardly see other states but through their neighbours.
        """
        found: int | None = getattr(self.network, "reach", None)
        length = len(self.modes.variances) if isinstance(self.modes, Eofs) else 0
        return None if found is None else max(found, length)

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
        if not self.constants:
            return self._estimate(z, r, context)
        return as_means(self._estimate(as_numbers(z, self.constants), r, context), self.constants)

    def _estimate(self, z: Tensor, r: Tensor, context: Tensor) -> Tensor:
        if self.modes is not None:
            share = None if self.share is None else self._share(r, self.share)
            # What does not count is not computed. In the training all counts, and nothing waits for the device.
            if share is not None and not bool(share.any()):
                return self.modes.filter(z, r)
            filtered, correction = self.parts(z, r, context)
            return filtered + (correction if share is None else expand(share, z) * correction)
        level = expand(r, z)
        scale = (1 + level.square()).rsqrt()
        output: Tensor = self.network(scale * z, self._log(r), context)
        if self.parameterisation == "edm":
            return scale.square() * z + level * scale * output
        return z - level * output

    @property
    def silent(self) -> bool:
        """Whether the network adds nothing to the Gaussian process at any noise level."""
        return self.share is not None and not any(self.share)

    def parts(self, z: Tensor, r: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The Gaussian process's E[x | z], and what the network adds to it with a share of 1; with modes only."""
        assert self.modes is not None
        filtered = self.modes.filter(z, r)
        if self.modes.shown:
            seen = filtered / expand(self.modes.estimated(r, z.shape[1]), z)
            context = torch.cat([context.expand(len(z), *context.shape[1:]), seen], dim=2)
        rest = self.network(expand((1 + r.square()).rsqrt(), z) * z, self._log(r), context)
        return filtered, self.modes.unfiltered(rest, r)

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
            Shape (channel, *space), or that of x: what the error of each value counts for, such as the area of its
            cell, and 0 where there are no data. None: all count alike.

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
        # Of all windows: a value counts as much, whatever else is missing beside it.
        count = valid.expand_as(square if valid.ndim == square.ndim else square[:1]).flatten(1).sum(1).mean()
        return (square * valid).flatten(1).sum(1) / count.clamp_min(1.0)

    def _log(self, r: Tensor) -> Tensor:
        return r.log().clamp(math.log(self.levels[0]), math.log(self.levels[1]))

    def _share(self, r: Tensor, known: tuple[float, ...]) -> Tensor:
        """The share at noise levels r (batch,), interpolated in log r."""
        low, high = map(math.log, self.levels)
        place = (self._log(r) - low) / (high - low) * (len(known) - 1)
        lower = place.long().clamp(max=len(known) - 2)
        shares = torch.tensor(known, dtype=r.dtype, device=r.device)
        return torch.lerp(shares[lower], shares[lower + 1], place - lower)
