r"""How much of a network's output counts: at each noise level, as much as lowers the error of held-out windows.

With the Gaussian process's estimate f and what the network adds to it, n, the weight w that minimises
:math:`\|x - f - w n\|^2` over held-out windows is a regression coefficient. It is taken between 0 and 1, and as 0 where
the error falls by less than two standard errors: a network that has not learnt anything of use stays silent. EOFs are
measured on these windows, too: the network has to be better than a process that knows them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sdaxr.prior.preconditioning import DenoisingNetwork

# Noise levels: three in each decade of the default range of the training.
LEVELS = 14
# Standard errors by which the network has to be better: with one, two of fourteen levels would count by chance.
_ERRORS = 2.0


@torch.no_grad()
def measured_share(
    model: DenoisingNetwork, windows: Iterable[tuple[Tensor, Tensor, Tensor | None, Tensor | None]], independent: float
) -> tuple[float, ...]:
    """The weight at noise levels that are evenly spaced in their logarithm, (level,).

    Parameters
    ----------
    model
        A network with modes.
    windows
        States (batch, time, channel, *space) without gaps, their context, what the error of each value counts for, and
        1 where there is no land; None for everywhere alike.
    independent
        Number of windows that do not overlap: windows that do are not independent.
    """
    batches = list(windows)
    found = []
    for number, r in enumerate(np.geomspace(*model.levels, LEVELS).tolist()):
        products, squares = [], []
        for place, (x, context, valid, sea) in enumerate(batches):
            generator = torch.Generator().manual_seed(1000 * number + place)
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            counts = 1.0 if valid is None else valid
            noise = noise if sea is None else noise * sea
            filtered, added = model.parts(x + r * noise, x.new_full((len(x),), r), context)
            products.append(((x - filtered) * added * counts).flatten(1).sum(1))
            squares.append((added.square() * counts).flatten(1).sum(1))
        product, square = torch.cat(products).double(), torch.cat(squares).double()
        weight = float((product.sum() / square.sum().clamp_min(1e-30)).clamp(0.0, 1.0))
        gain = weight * (2 * product - weight * square)
        error = float(gain.std()) / min(len(gain), max(independent, 1.0)) ** 0.5 if len(gain) > 1 else 0.0
        found.append(round(weight, 4) if float(gain.mean()) > _ERRORS * error else 0.0)
    return tuple(found)
