r"""The way from noise to a sample: a predictor from level to level, corrections on each of them.

With :math:`z = x_t / \mu` and :math:`r = \sigma / \mu`, all that a predictor or a corrector needs to know of the
process is :math:`\hat x = E[x | z]` and r.

Multistep predictors extrapolate :math:`\hat x` with its slope over the step before. Corrections move z to another path,
so :math:`\hat x` after them minus :math:`\hat x` before the step is no slope: most of the difference is what the
corrections did. The slope is therefore taken on arrival at a level, before its corrections, with the evaluation that
the first of them needs anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from torch import Tensor

from sdaxr.schema import DivergenceError

Denoiser = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]
Pin = Callable[[Tensor, float, Noise], Tensor]


class Predictor(Protocol):
    """A step from one noise level to the next."""

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """From z at level ``r`` to z at level ``after``, with the slope of xhat in -log r where it is known."""
        ...


class Corrector(Protocol):
    """A move within one noise level."""

    def corrections(self, r: float) -> int:
        """How many there are at level ``r``."""
        ...

    def __call__(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        """From z to another z at level ``r``."""
        ...


@dataclass(frozen=True)
class PredictorCorrector:
    """A sequence of noise levels and what is done on each.

    Attributes
    ----------
    levels
        Noise levels r, decreasing; a last level of zero returns the denoised state.
    predictor
        The step from each level to the next.
    corrector
        What is done on each level but the first.
    limit
        Largest noise that a component of z may be found to have, in standard deviations.
    """

    levels: tuple[float, ...]
    predictor: Predictor
    corrector: Corrector
    limit: float = 8.0

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a sample."""
        return len(self.levels) - 1 + sum(map(self.corrector.corrections, self.levels[1:]))

    def __call__(
        self, denoiser: Denoiser, noise: Noise, tick: Callable[[], object] = lambda: None, pin: Pin | None = None
    ) -> Tensor:
        """Draw samples.

        Parameters
        ----------
        denoiser
            (z, r) to E[x | z], or to E[x | z, y] for a posterior.
        noise
            Returns standard normal noise of the shape of the samples at every call.
        tick
            Called after every evaluation.
        pin
            (z, r, noise) to z: what is done on arrival at each level r > 0 before anything else, such as the
            forward-diffusion corrector of `sdaxr.methods.SOAD`.

        Raises
        ------
        DivergenceError
            If a value is not finite, or the samples run away from the scale of the noise.
        """

        z, last = self.levels[0] * noise(), len(self.levels) - 1
        departure: tuple[float, Tensor] | None = None
        for i, r in enumerate(self.levels):
            if r == 0:
                break
            arrived, slope = z, None
            z = z if pin is None else pin(z, r, noise)
            corrections = self.corrector.corrections(r) if i else 0
            for k in range(corrections + (i < last)):
                _check(z, r)
                xhat = self._plausible(z, denoiser(z, r), r)
                tick()
                # What was pinned is not on the path from the level before.
                if k == 0 and departure is not None and z is arrived:
                    slope = (xhat - departure[1]) / math.log(departure[0] / r)
                if k < corrections:
                    z = self.corrector(z, xhat, r, noise)
            if i < last:
                z = self.predictor(z, xhat, slope, r, self.levels[i + 1], noise)
                departure = r, xhat
        _check(z, self.levels[-1])
        return z

    def _plausible(self, z: Tensor, xhat: Tensor, r: float) -> Tensor:
        """xhat such that no component of the noise (z - xhat) / r is beyond the limit."""
        # Guidance is stiff where the system is chaotic: one sample in a thousand is thrown far off by a step that suits
        # all others. It comes back when its noise is held to what normal noise can be; where it has not come back at
        # the last level, and is still a standard deviation of the data away, sampling has diverged.
        # Values within the limit stay as they are to the last bit, so that members do not depend on each other.
        held = xhat.clamp(z - self.limit * r, z + self.limit * r)
        last = r == min(level for level in self.levels if level > 0)
        if not xhat.isfinite().all() or (last and float((z - xhat).abs().amax()) > max(1.0, self.limit * r)):
            _diverged(r, float(z.abs().amax()))
        return held


def _check(z: Tensor, r: float) -> None:
    largest = float(z.abs().amax())
    if not largest < 1e3 * (1 + r):
        _diverged(r, largest)


def _diverged(r: float, largest: float) -> NoReturn:
    raise DivergenceError(
        f"the sampler diverged at noise level r = {r:.3g} (largest normalised value {largest:.3g}): "
        "observations are denser or more exact than their independent errors allow, or the prior is not "
        "trained enough; give method a larger variance, sampler more steps or a smaller eta, or thin the observations"
    )
