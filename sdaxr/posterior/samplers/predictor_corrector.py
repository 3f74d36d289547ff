r"""Predictor-corrector sampling: a predictor from each noise level to the next, corrections on each level.

.. math:: z = x_t / \mu = x + r \epsilon, \qquad r = \sigma / \mu, \qquad \hat x = E[x | z]

Predictors and correctors need only z, :math:`\hat x` and r (Song et al. 2021, arXiv:2011.13456; Karras et al. 2022,
arXiv:2206.00364).

A multistep predictor extrapolates :math:`\hat x` with its slope in :math:`-\log r` over the previous step. Corrections
move z to another path, and change :math:`\hat x` more than the step does. The slope is therefore computed on arrival at
a level, before the corrections. This takes no further evaluation, because the first correction needs the same
:math:`\hat x`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from sdaxr.schema import DivergenceError

# Normalised states are of order 1, and z is of order 1 + r. A value a thousand times larger has diverged.
FAR = 1e3

Denoiser = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]
Pin = Callable[[Tensor, float, Noise], Tensor]
# Noise of random streams that are given by their numbers; and of other streams of these numbers, given by a key.
Streams = Callable[[Sequence[int], int], Noise]
Tick = Callable[[int], object]


class Predictor(Protocol):
    """A step from one noise level to the next."""

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """z at the noise level ``after``, from z at ``r``; ``slope`` is d xhat / d(-log r), None where unknown."""
        ...


class Corrector(Protocol):
    """A move within one noise level."""

    def corrections(self, r: float) -> int:
        """Number of corrections at the noise level ``r``."""
        ...

    def __call__(
        self, z: Tensor, xhat: Tensor, r: float, noise: Noise, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Another z at the noise level ``r``, after one correction; and the noise that it added last.

        ``added`` is this noise of the correction before, at the same level; None for the first one.
        """
        ...


class Algorithm(Protocol):
    """What turns noise into samples."""

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser for one sample."""
        ...

    def __call__(
        self, denoiser: Any, noise: Noise, tick: Callable[[], object] = lambda: None, pin: Pin | None = None
    ) -> Tensor:
        """Samples, of the shape of the noise; see `PredictorCorrector`."""
        ...

    def members(
        self, guided: Any, numbers: Sequence[int], streams: Streams, *, attempt: int, chunk: int, tick: Tick
    ) -> tuple[Tensor, dict[str, float]]:
        """Members of an ensemble, given by their numbers; and what the sampling found, as attributes of the result.

        Each member has a random stream of its own. Of members that depend on each other, which have one draw,
        ``chunk`` are evaluated at once. ``tick`` is called with the number of members after every evaluation.
        """
        ...


class Independent(ABC):
    """An algorithm whose members do not depend on each other."""

    @abstractmethod
    def __call__(
        self, denoiser: Any, noise: Noise, tick: Callable[[], object] = lambda: None, pin: Pin | None = None
    ) -> Tensor:
        """Samples, of the shape of the noise."""

    def members(
        self, guided: Any, numbers: Sequence[int], streams: Streams, *, attempt: int, chunk: int, tick: Tick
    ) -> tuple[Tensor, dict[str, float]]:
        """Members that do not depend on each other; ``guided`` is the denoiser of the posterior of all members."""
        del chunk
        posterior = guided.select(torch.tensor(list(numbers)))
        return self(posterior, streams(numbers, attempt), partial(tick, len(numbers)), posterior.pin), {}


@dataclass(frozen=True)
class PredictorCorrector(Independent):
    """A sequence of noise levels, with a predictor between the levels and corrections on them.

    Attributes
    ----------
    levels
        Noise levels r, decreasing; a last level of zero returns the denoised state.
    predictor
        The step from each level to the next.
    corrector
        The corrections on each level except the first.
    limit
        Bound of the estimated noise (z - xhat) / r of each component, in standard deviations; xhat is clipped to it.
    """

    levels: tuple[float, ...]
    predictor: Predictor
    corrector: Corrector
    limit: float = 8.0

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser for one sample."""
        return len(self.levels) - 1 + sum(map(self.corrector.corrections, self.levels[1:]))

    def __call__(
        self, denoiser: Denoiser, noise: Noise, tick: Callable[[], object] = lambda: None, pin: Pin | None = None
    ) -> Tensor:
        """Draw samples.

        Parameters
        ----------
        denoiser
            Function of (z, r): E[x | z], or E[x | z, y] for a posterior.
        noise
            Returns new standard normal noise of the shape of the samples at every call.
        tick
            Called after every evaluation.
        pin
            Function of (z, r, noise) that replaces z on arrival at each level r > 0, such as the forward-diffusion
            corrector of `sdaxr.methods.SOAD`.

        Returns
        -------
        Samples, of the shape of the noise.

        Raises
        ------
        DivergenceError
            If a value is not finite, or z is a thousand times larger than states and noise are.
        """

        return self.descend(self.levels[0] * noise(), 0, denoiser, noise, tick, pin)

    def descend(
        self,
        z: Tensor,
        start: int,
        denoiser: Denoiser,
        noise: Noise,
        tick: Callable[[], object] = lambda: None,
        pin: Pin | None = None,
    ) -> Tensor:
        """Samples from z at the noise level with the number ``start``; otherwise as a call."""
        last = len(self.levels) - 1
        departure: tuple[float, Tensor] | None = None
        for i, r in enumerate(self.levels[start:], start):
            if r == 0:
                break
            arrived, slope = z, None
            z = z if pin is None else pin(z, r, noise)
            corrections, added = self.corrector.corrections(r) if i else 0, None
            for k in range(corrections + (i < last)):
                check_size(z, r)
                xhat = self._plausible(z, denoiser(z, r), r)
                tick()
                # A pinned z is not on the path from the previous level.
                if k == 0 and departure is not None and z is arrived:
                    slope = (xhat - departure[1]) / math.log(departure[0] / r)
                if k < corrections:
                    z, added = self.corrector(z, xhat, r, noise, added)
            if i < last:
                z = self.predictor(z, xhat, slope, r, self.levels[i + 1], noise)
                departure = r, xhat
        check_size(z, self.levels[-1])
        return z

    def _plausible(self, z: Tensor, xhat: Tensor, r: float) -> Tensor:
        """xhat, clipped such that no component of the noise (z - xhat) / r exceeds the limit."""
        # Guidance is stiff for chaotic systems: a step that suits all other samples throws one sample in a thousand far
        # off. With clipped noise this sample returns. If it has not returned at the last level, and its noise is still
        # larger than one standard deviation of the data, sampling has diverged.
        # Values within the limit remain unchanged to the last bit, so that members do not depend on each other.
        clipped = xhat.clamp(z - self.limit * r, z + self.limit * r)
        last = r == min(level for level in self.levels if level > 0)
        if not xhat.isfinite().all() or (last and float((z - xhat).abs().amax()) > max(1.0, self.limit * r)):
            _diverged(r, float(z.abs().amax()))
        return clipped


def check_size(z: Tensor, r: float) -> None:
    """Raise `DivergenceError` if z is not finite, or a thousand times larger than states and noise are."""
    largest = float(z.abs().amax())
    if not largest < FAR * (1 + r):
        _diverged(r, largest)


def _diverged(r: float, largest: float) -> NoReturn:
    raise DivergenceError(
        f"the sampler diverged at noise level r = {r:.3g} (largest normalised value {largest:.3g}): "
        "the observations are too dense or too exact for independent errors, or the prior is not trained enough; "
        "give method a larger variance, give sampler more steps or a smaller eta, or thin the observations"
    )
