"""Observations as tensors: what one network of instruments saw of a normalised trajectory, and how well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianObservation:
    r"""Observations :math:`y = H(x) + N(0, R)` with independent errors.

    Attributes
    ----------
    operator
        H: normalised trajectories (batch, time, channel, *space) to all observed quantities (batch, n), differentiable.
    values
        y, shape (n,), or (members, n) where every member has observations of its own.
    errors
        Standard deviations, the root of R's diagonal; shape (n,).
    scale
        How much each observed quantity varies under the prior, its standard deviation; shape (n,). Variances that are
        set in units of the normalised state are multiplied by its square.
    unresolved
        Variance of each observed quantity given z, a function of r; shape (n,).
    """

    operator: Callable[[Tensor], Tensor]
    values: Tensor
    errors: Tensor
    scale: Tensor
    unresolved: Callable[[float], Tensor] | None = None

    def of(self, members: Tensor) -> GaussianObservation:
        """The observations of some members."""
        return self if self.values.ndim == 1 else replace(self, values=self.values[members.to(self.values.device)])

    def innovation(self, x: Tensor) -> Tensor:
        """y - H(x), shape (batch, n)."""
        return self.values - self.operator(x)


def gradient(loss: Tensor, z: Tensor) -> Tensor:
    """d loss / d z; the members of a batch do not depend on each other, so the sum over them can be differentiated."""
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return grad
