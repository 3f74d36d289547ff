r"""States with gaps, such as clouds, filled with draws of a Gaussian process.

What is near in space or time tells much of what is missing. With the mean in their gaps, large scales would lose
variance to small ones; with draws, states have the variances of the process at all scales, as far as the process holds
(multiple imputation; Rubin 1987, doi:10.1002/9780470316696). The EOFs of the filled states, and the network that is
trained on them, are those of states without gaps. Gaps that follow the values, as clouds over the warmest sea, are
beyond this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdaxr.prior.eofs import Eofs

# States of a piece that is filled at once, the standard deviation of the errors that values are taken to have for it,
# and when its solution is good enough.
_PIECE, _NUGGET, _ITERATIONS, _TOLERANCE = 256, 0.02, 100, 1e-3


def missing(parts: Sequence[Tensor]) -> float:
    """Fraction of the values of the states that are missing."""
    return sum(int(part.isnan().sum()) for part in parts) / max(1, sum(part.numel() for part in parts))


@torch.no_grad()
def filled(states: Tensor, modes: Eofs) -> Tensor:
    r"""States (time, channel, *space) of consecutive times with a draw of what is missing, given all that is there.

    The draw is from the Gaussian process, by conditional simulation (Matheron's rule; Journel & Huijbregts 1978): with
    a sample s of the process and its covariance B, :math:`s + B M (M B M + \epsilon^2)^{-1} M (y - s)`. Long series
    are filled in pieces.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.cat([_drawn(piece, modes, generator) for piece in states.split(_PIECE)])


def _drawn(states: Tensor, modes: Eofs, generator: torch.Generator) -> Tensor:
    seen = states.isfinite() & (modes.present > 0)
    if bool((seen | (modes.present == 0)).all()):
        return states.nan_to_num(0.0)
    mask, variances = seen.float(), modes.spectrum(len(states))[None]
    y, nugget = states.nan_to_num(0.0) * mask, _NUGGET**2

    def noise() -> Tensor:
        return torch.randn(states.shape, generator=generator).to(states.device)

    def scaled(x: Tensor, factor: Tensor) -> Tensor:
        return modes.scale(x[None], factor)[0]

    sample = scaled(noise(), variances.sqrt())
    right = mask * (y - sample - _NUGGET * noise())
    weight = _solved(
        lambda x: mask * scaled(mask * x, variances) + nugget * x,
        lambda x: mask * scaled(mask * x, 1 / (variances + nugget)),
        right,
    )  # fmt: skip
    return torch.where(seen, states, (sample + scaled(weight, variances)) * modes.present)


def _solved(product: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """Preconditioned conjugate gradients (Saad 2003, algorithm 9.1)."""
    found, rest = torch.zeros_like(right), right.clone()
    step = z = precondition(rest)
    size = (rest * z).sum(dtype=torch.float64)
    for _ in range(_ITERATIONS):
        along = product(step)
        length = (size / (step * along).sum(dtype=torch.float64)).float()
        found, rest = found + length * step, rest - length * along
        if float(rest.norm()) < _TOLERANCE * float(right.norm()):
            break
        z = precondition(rest)
        size, before = (rest * z).sum(dtype=torch.float64), size
        step = z + (size / before).float() * step
    return found
