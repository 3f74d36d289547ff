r"""Covariances of EOFs from states with gaps, such as clouds.

The mask :math:`M_t` of the values :math:`y_t` that are there at a time couples EOFs: with zeros in the gaps, large
scales lose variance to small ones. Coefficients are estimated by optimal interpolation with weights
:math:`\lambda_k` for the EOFs and :math:`\sigma^2` for what the EOFs leave,

.. math:: \hat c_t = Q_t E^T M_t y_t = A_t c_t + \dots, \qquad Q_t = (E^T M_t E + \sigma^2 \Lambda^{-1})^{-1},
    \qquad A_t = Q_t E^T M_t E .

With the covariance of `sdaxr.prior.eofs`, the expected products at a lag l are linear in the autocovariances T of the
EOFs, and at lag 0 in :math:`T_0` of what they leave,

.. math:: \Big\langle \sum_t \hat c_{k,t+l} \hat c_{k,t} \Big\rangle = \sum_{t,j} A_{kj,t+l} A_{kj,t} T_j
    + T_0 \sum_t (Q_t E^T M_t E Q_t - A_t A_t^T)_{kk} ,

and so are those of the residuals. Solved for T these are estimates without bias, whatever the gaps and the weights, as
long as a gap does not depend on the value. Without gaps they are the sampled autocovariances. It is the method for the
power spectrum of the cosmic microwave background on a part of the sky (Hivon et al. 2002, doi:10.1086/338126), with
the weights of Tegmark (1997, doi:10.1103/PhysRevD.55.5895). At other lags than 0, what the EOFs leave adds to them
as to all directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdaxr.prior.eofs import Eofs

# Numbers of the couplings A that are held: half a gigabyte. Of longer parts the first states tell the couplings.
_HELD = 2**27
# Added to the couplings, over their mean: few pairs of states do not determine all EOFs.
_RIDGE = 1e-3
# Least variance of an EOF for its weight, over that of what the EOFs leave; and of this, over that of the values.
_LEAST = 0.01
# States of a piece that is filled at once, the standard deviation of the errors that values are taken to have for it,
# and when its solution is good enough.
_PIECE, _NUGGET, _ITERATIONS, _TOLERANCE = 256, 0.02, 100, 1e-3
# States of a block of which the likelihood is computed.
_STATES = 48


def gappy(parts: Sequence[Tensor]) -> bool:
    """Whether any value of the states is missing."""
    return not all(bool(part.isfinite().all()) for part in parts)


def autocovariances(parts: Sequence[Tensor], mean: Tensor, vectors: Tensor, values: Tensor, lags: int) -> Tensor:
    """Autocovariances of the coefficients of EOFs, (lags, rank + 1); the last column is of what the EOFs leave.

    As those of complete data they are sums over the pairs of states, over the number of states.

    Parameters
    ----------
    parts
        States of consecutive times, each (time, point), NaN where a value is missing.
    mean
        Shape (point,).
    vectors, values
        Orthonormal EOFs, (point, rank), and about their variances, (rank,), which decide the weights.
    lags
        Number of lags, 0 included.
    """
    count, rank = sum(map(len, parts)), vectors.shape[1]
    most = max(1, _HELD // (rank**2 * len(parts)))
    white = _white(parts, mean, values)
    weights = white / values.clamp_min(_LEAST * white)
    seen = [_Seen.of(part, mean, vectors, weights, most) for part in parts]
    found = torch.zeros(lags, rank + 1, dtype=torch.float64)
    # Of each equation, so that those of weakly weighted EOFs count alike.
    scale = torch.stack([part.couplings(0) for part in seen]).sum(0).diagonal() / sum(len(p.kernels) for p in seen)
    for lag in range(lags):
        pairs = sum(max(0, len(part.coefficients) - lag) for part in seen)
        known = sum(max(0, len(part.kernels) - lag) for part in seen)
        if not known:
            continue
        system = torch.stack([part.couplings(lag) for part in seen]).sum(0) / known / scale[:, None]
        # The fewer the pairs, the more is added: those of the last lags do not determine the EOFs.
        system.diagonal().add_(_RIDGE * count / pairs)
        products = torch.stack([part.products(lag) for part in seen]).sum(0) / scale
        found[lag] = torch.linalg.solve(system, products) / count
    # Estimates with an error: some variances are below zero.
    found[0].clamp_(min=1e-6 * float(found[0].clamp_min(0.0).mean()))
    return found


def log_likelihood(parts: Sequence[Tensor], mean: Tensor, vectors: Tensor, variances: Tensor, noise: float) -> float:
    """Mean log-likelihood of a value of some states, each by itself, expected over white noise that is added to them.

    Parameters
    ----------
    parts, mean, vectors
        As in `autocovariances`.
    variances
        Of the EOFs and of what they leave, (rank + 1,).
    noise
        Standard deviation of the noise.
    """
    states = torch.cat(list(parts)).double() - mean.double()
    some = np.unique(np.linspace(0, len(states) - 1, _STATES).round().astype(int))
    excess = (variances[:-1] - variances[-1]).double()
    white = float(variances[-1]) + noise**2
    total, count = 0.0, 0
    for state in states[torch.as_tensor(some)]:
        present = state.isfinite()
        if not bool(present.any()):
            continue
        y, own = state[present], vectors[present].double()
        root = torch.linalg.cholesky(own * excess @ own.T + white * torch.eye(len(y), dtype=torch.float64))
        inverse = torch.cholesky_inverse(root)
        total += float(y @ inverse @ y + noise**2 * inverse.trace() + 2 * root.diagonal().log().sum())
        count += len(y)
    return -0.5 * total / max(count, 1)


@dataclass(frozen=True)
class _Seen:
    """Estimated coefficients of consecutive states, what they leave of the values, and averaging kernels.

    Attributes
    ----------
    coefficients, rest
        Shapes (time, rank) and (time, point).
    kernels
        A_t of the first states, (time, rank, rank).
    white
        Sums over the first states of what T_0 adds to the squares of each coefficient, and of the rest, (rank + 1,).
    left
        Sums over the first states of what the EOFs add to the squares of the rest, (rank,).
    """

    coefficients: Tensor
    rest: Tensor
    kernels: Tensor
    white: Tensor
    left: Tensor

    @classmethod
    def of(cls, part: Tensor, mean: Tensor, vectors: Tensor, weights: Tensor, most: int) -> _Seen:
        states, rank = part - mean, vectors.shape[1]
        coefficients, rest, kernels = [], [], []
        white, left = torch.zeros(rank + 1, dtype=torch.float64), torch.zeros(rank, dtype=torch.float64)
        for number, state in enumerate(states):
            present = state.isfinite()
            overlap = _overlap(present, vectors)
            inverse = torch.linalg.inv(overlap + torch.diag(weights))
            own = vectors * present[:, None]
            c = inverse @ (own.T @ state.nan_to_num(0.0))
            coefficients.append(c)
            rest.append(state.nan_to_num(0.0) - own @ c)
            if number < most:
                kernel = inverse @ overlap
                noise = kernel @ inverse
                lost = torch.eye(rank) - kernel
                kernels.append(kernel)
                white[:-1] += noise.diagonal() - kernel.square().sum(1)
                left += (lost * (overlap @ lost)).sum(0)
                free = int(present.sum()) - 2 * float(kernel.trace()) + float((overlap * noise).sum())
                white[-1] += free - float((lost * (overlap @ lost)).sum())
        return cls(torch.stack(coefficients).double(), torch.stack(rest), torch.stack(kernels), white, left)

    def products(self, lag: int) -> Tensor:
        """Sums over pairs of states of the products of coefficients, and of the rest; (rank + 1,)."""
        last = max(0, len(self.rest) - lag)
        own = (self.coefficients[lag:] * self.coefficients[:last]).sum(0)
        return torch.cat([own, (self.rest[lag:] * self.rest[:last]).sum(dtype=torch.float64)[None]])

    def couplings(self, lag: int) -> Tensor:
        """What the autocovariances are multiplied by in the expected products, (rank + 1, rank + 1)."""
        last, rank = max(0, len(self.kernels) - lag), len(self.left)
        found = torch.zeros(rank + 1, rank + 1, dtype=torch.float64)
        found[:rank, :rank] = torch.einsum("tkj,tkj->kj", self.kernels[lag:], self.kernels[:last])
        found[rank, rank] = self.white[-1] * last / len(self.kernels)
        if lag == 0:
            found[:rank, rank], found[rank, :rank] = self.white[:-1], self.left
        return found


@torch.no_grad()
def filled(states: Tensor, modes: Eofs) -> Tensor:
    r"""States (time, channel, *space) of consecutive times with a draw of what is missing, given all that is there.

    The draw is from the Gaussian process, by conditional simulation (Matheron's rule; Journel & Huijbregts 1978): with
    a sample s of the process and its covariance B, :math:`s + B M (M B M + \epsilon^2)^{-1} M (y - s)`. What follows
    from filled states is without bias as far as the process holds (multiple imputation; Rubin 1987,
    doi:10.1002/9780470316696), and means in the gaps would vary too little. Long series are filled in pieces.
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


def _white(parts: Sequence[Tensor], mean: Tensor, values: Tensor) -> Tensor:
    """About the variance of what EOFs with these variances leave at a point."""
    variance = torch.cat(list(parts)).sub(mean).square().nanmean()
    return (variance - values.sum() / len(mean)).clamp_min(_LEAST * variance)


def _overlap(present: Tensor, vectors: Tensor) -> Tensor:
    """E^T M E, (rank, rank), from the points with a value or from those without one: the fewer."""
    if int(present.sum()) <= len(present) // 2:
        own = vectors[present]
        return own.T @ own
    own = vectors[~present]
    return torch.eye(vectors.shape[1]) - own.T @ own
