"""Weighted members at one noise level, and their step to the next one, see `sdaxr.posterior.samplers.twisted`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ITERATIONS = 20


@dataclass(frozen=True)
class Particles:
    """Weighted members at one noise level.

    Attributes
    ----------
    z
        Diffused states, (members, time, channel, *space).
    xhat
        E[x | z] of the prior, of this shape.
    pull
        r^2 times the derivative of log psi: E[x | z, y] - E[x | z], of this shape.
    log_twist
        log psi, (members,).
    log_weight
        Logarithm of the weights, up to a constant, (members,).
    founder
        The particle of the first level from which each descends, (members,).
    """

    z: Tensor
    xhat: Tensor
    pull: Tensor
    log_twist: Tensor
    log_weight: Tensor
    founder: Tensor

    @property
    def weights(self) -> Tensor:
        """Weights of sum one, in double precision, (members,)."""
        return torch.softmax(self.log_weight.double(), 0)

    @property
    def evenness(self) -> float:
        """Effective number of the weights, over the number of members (Kong, Liu & Wong 1994)."""
        return float(1 / self.weights.square().sum()) / len(self.z)

    @property
    def effective(self) -> float:
        """Effective number of founders."""
        families = torch.bincount(self.founder, self.weights)
        return float(1 / families.square().sum())

    def resampled(self, uniform: float, count: int | None = None) -> Particles:
        """``count`` particles of equal weight (Kitagawa 1996), sorted by `order`; ``uniform`` is from 0 to 1.

        Every run of particles that are neighbours in the order gets its share to one particle.
        """
        count = len(self.z) if count is None else count
        points = (uniform + torch.arange(count, device=self.z.device, dtype=torch.float64)) / count
        order = self.order
        chosen = order[torch.searchsorted(self.weights[order].cumsum(0), points).clamp_max(len(self.z) - 1)]
        z, xhat, pull, log_twist = (a[chosen] for a in (self.z, self.xhat, self.pull, self.log_twist))
        return Particles(z, xhat, pull, log_twist, torch.zeros_like(log_twist), self.founder[chosen])

    @property
    def order(self) -> Tensor:
        """Numbers of the particles, sorted by their part along the leading EOF of E[x | z].

        Particles on their way into different modes are apart in it.
        """
        x = self.xhat.flatten(1).double()
        deviations = x - self.weights @ x
        # Power iterations find the EOF without a matrix of the size of the states.
        direction = deviations[int(deviations.square().sum(1).argmax())]
        for _ in range(_ITERATIONS):
            direction = (self.weights * (deviations @ direction)) @ deviations
            direction = direction / direction.norm().clamp_min(1e-30)
        return torch.argsort(deviations @ direction, stable=True)


def transition(now: Particles, r: float, after: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A draw z' of the guided transition q from the noise level ``r`` to ``after``, and log p(z' | z) / q(z' | z).

    Returns
    -------
    z' of the shape of the noise, and the logarithm, (members,).
    """
    kept = (after / r) ** 2
    scale = after * math.sqrt(1 - kept)
    shift = (1 - kept) / scale * now.pull
    z = now.xhat + kept * (now.z - now.xhat) + scale * (shift + noise)
    return z, -(shift * (noise + shift / 2)).flatten(1).sum(1)
