r"""Twisted sequential Monte Carlo: posteriors with several modes in their right proportions.

A guided sample is drawn into a mode at a high noise level, where :math:`\tilde p(y | z)` is least exact. Later levels
do not correct the proportions of the modes, because a sample does not leave its mode. Here, members are weighted
particles of

.. math:: \pi_r(z) \propto p_r(z)\, \psi_r(z), \qquad \psi_r(z) = \tilde p(y | z)^{\beta(r)}, \qquad \beta(0) = 1,

from the largest noise level to the smallest, where :math:`\psi` is the likelihood. Each step from r to r' < r is drawn
from the guided transition q and weighted with (Wu et al. 2023, equation 10; Dou & Song 2024)

.. math:: w = \frac{p(z' | z)\, \psi_{r'}(z')}{q(z' | z)\, \psi_r(z)}, \qquad
          p(z' | z) = N(z';\, \hat x + \rho^2 (z - \hat x),\, r'^2 (1 - \rho^2)), \qquad \rho = r' / r .

q has the mean of p with E[x | z, y] in the place of :math:`\hat x = E[x | z]`. Langevin corrections leave
:math:`\pi_{r'}` unchanged, so that they do not change the weights. Where the weights are uneven, particles are
resampled (Kitagawa 1996): paths into modes that the posterior excludes end, others branch.

Modes part where r is above the standard deviation of the prior. There, each member has several candidates: many
particles with few evaluations find the proportions of the modes with less sampling error than few particles with many.

In the limit of many members and levels the samples are draws of the posterior, for any :math:`\psi` that ends at the
likelihood. :math:`\psi` decides how many members count. `Particles.effective` is the effective number of founders,

.. math:: N = 1 \Big/ \sum_e W_e^2,

where :math:`W_e` is the weight of all particles that descend from the particle e of the first level (Lee & Whiteley
2018). Proportions of modes have the sampling error of N independent draws, or less, because corrections also move
particles between modes.

References
----------
.. [1] Wu, L., Trippe, B., Naesseth, C., Blei, D. & Cunningham, J. (2023). Practical and asymptotically exact
   conditional sampling in diffusion models. arXiv:2306.17775
.. [2] Dou, Z. & Song, Y. (2024). Diffusion posterior sampling for linear inverse problem solving: a filtering
   perspective. ICLR.
.. [3] Cardoso, G., Janati el Idrissi, Y., Le Corff, S. & Moulines, E. (2024). Monte Carlo guided diffusion for Bayesian
   linear inverse problems. arXiv:2308.07983
.. [4] Kitagawa, G. (1996). Monte Carlo filter and smoother for non-Gaussian nonlinear state space models.
   doi:10.1080/10618600.1996.10474692
.. [5] Lee, A. & Whiteley, N. (2018). Variance estimation in the particle filter. doi:10.1093/biomet/asy028
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sdaxr.posterior.samplers.base import Power, Sampler, always
from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.particles import Particles, transition
from sdaxr.posterior.samplers.predictor_corrector import Corrector, Noise, Predictor, Streams, Tick, check_size

_log = logging.getLogger(__name__)

# Below this effective number, the share of a mode is uncertain by more than an eighth.
FEW = 16


@dataclass(frozen=True)
class Twisted(Sampler):
    r"""Sequential Monte Carlo over the noise levels (Wu et al. 2023, arXiv:2306.17775), for several modes.

    .. math:: w = \frac{p(z' | z)\, \psi_{r'}(z')}{q(z' | z)\, \psi_r(z)}, \qquad
              \psi_r(z) = \tilde p(y | z)^{\beta(r)}

    All members are drawn together. A member depends on the seed, its own number and the number of members. More
    members give more exact proportions of the modes. The attribute ``effective_members`` of the result says to how many
    independent draws the proportions correspond, at most.

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, stride
        As in `Sampler`.
    attempts
        Not used: paths that the observations exclude lose their weight.
    candidates
        Number of particles for each member at noise levels above ``narrow``, where the modes part.
    narrow
        Noise level, in standard deviations of the prior, at which members are chosen among the candidates. Corrections
        begin below it.
    threshold
        Particles are resampled where their effective number is below this fraction of all, from 0 (never) to 1.
    """

    steps: int = 64
    corrections: int = 3
    above: float = 0.3
    below: float = 10.0
    attempts: int = 1
    candidates: int = 12
    narrow: float = 1.0
    threshold: float = 0.5

    name: ClassVar[str] = "twisted"
    together: ClassVar[bool] = True
    spared: ClassVar[Mapping[str, int]] = {"candidates": 1, **Sampler.spared}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("threshold", 0 <= self.threshold <= 1, "a fraction from 0 to 1")
        self.expect("candidates", self.candidates >= 1, "at least 1")
        self.expect("narrow", self.narrow > 0, "a noise level above 0")

    def build(
        self, levels: tuple[float, float], *, hidden: float = 0.0, power: Callable[[], Power] = lambda: always
    ) -> TwistedParticles:
        """The algorithm for a prior, see `Sampler.build`."""
        corrector = LangevinCorrector(self.corrections, self.tau, self.above, min(self.below, self.narrow))
        grid = self.noise_levels(levels, hidden)
        return TwistedParticles(grid, corrector, self.candidates, self.narrow, self.threshold, self.limit, power())

    def predictor(self) -> Predictor:
        """The transition p, which is ancestral sampling."""
        return DDIMStep(1.0)


class Twisting(Protocol):
    """A posterior whose approximate likelihood of z can be evaluated."""

    def twist(self, z: Tensor, r: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x | z] of the prior, log p~(y | z) of shape (batch,), and its derivative in z."""
        ...


@dataclass(frozen=True)
class TwistedParticles:
    r"""A sequence of noise levels with weighted transitions between the levels, and corrections on them.

    Attributes
    ----------
    levels
        Noise levels r, decreasing; a last level of zero returns the denoised state.
    corrector
        The corrections on each level except the first.
    candidates
        Number of particles for each member at levels above ``narrow``.
    narrow
        Noise level at which members are chosen among the candidates.
    threshold
        Evenness of the weights below which particles are resampled.
    limit
        Bound of the estimated noise of each component, see `PredictorCorrector`.
    power
        :math:`\beta`, function of the noise level.
    """

    levels: tuple[float, ...]
    corrector: Corrector
    candidates: int = 1
    narrow: float = 1.0
    threshold: float = 0.5
    limit: float = 8.0
    power: Power = always

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser for one sample, with those for its candidates."""
        once = [r for r in self.levels if r > 0]
        # The candidates arrive at the first level from ``narrow`` on before members are chosen among them.
        wide = min(len(once), 1 + sum(r > self.narrow for r in once))
        return wide * self.candidates + len(once) - wide + sum(map(self.corrector.corrections, once[1:]))

    def __call__(
        self, denoiser: Twisting, noise: Noise, tick: Callable[[], object] = lambda: None, pin: object = None
    ) -> Tensor:
        """Samples, of the shape of the noise, without further candidates; see `draw`."""
        del pin
        return self.draw(denoiser, noise, noise, tick=lambda _: tick())[0]

    def members(
        self, guided: Twisting, numbers: Sequence[int], streams: Streams, *, attempt: int, chunk: int, tick: Tick
    ) -> tuple[Tensor, dict[str, float]]:
        """Members, drawn together, and their effective number; see `draw`."""
        del attempt
        crowd, noise = streams(range(len(numbers) * self.candidates), 0), streams(numbers, 1)
        states, effective = self.draw(guided, crowd, noise, tick=tick, chunk=chunk)
        return states, {"effective_members": round(effective, 1)}

    def draw(
        self,
        posterior: Twisting,
        crowd: Noise,
        noise: Noise,
        *,
        tick: Callable[[int], object] = lambda _: None,
        chunk: int | None = None,
    ) -> tuple[Tensor, float]:
        """Draw samples together.

        Parameters
        ----------
        posterior
            The denoiser of the prior, and the approximate likelihood.
        crowd, noise
            Return new standard normal noise at every call: for all candidates, and of the shape of the samples.
        tick
            Called after every evaluation, with the number of particles.
        chunk
            Number of members that are evaluated at once; it changes rounding only. Default: all.

        Returns
        -------
        Samples of equal weight, of the shape of the noise, and their effective number.

        Raises
        ------
        DivergenceError
            If a value is not finite, or z is a thousand times larger than states and noise are.
        """

        def at(z: Tensor, r: float, log_weight: Tensor, founder: Tensor) -> Particles:
            check_size(z, r)
            parts = [posterior.twist(part, r) for part in z.split(chunk or len(z))]
            tick(len(z))
            xhat, log, slope = (torch.cat(found) for found in zip(*parts, strict=True))
            power = self.power(r)
            guided = (xhat + power * r**2 * slope).clamp(z - self.limit * r, z + self.limit * r)
            return Particles(z, xhat, guided - xhat, power * log, log_weight, founder)

        z, members = self.levels[0] * crowd(), len(noise())
        fresh = crowd
        now = at(z, self.levels[0], z.new_zeros(len(z)), torch.arange(len(z), device=z.device))
        now = replace(now, log_weight=now.log_twist)
        for r, after in pairwise(self.levels):
            if after == 0:
                now = replace(now, z=now.xhat + now.pull)
                break
            z, log_ratio = transition(now, r, after, fresh())
            arrived = at(z, after, now.log_weight, now.founder)
            weight = now.log_weight + log_ratio + arrived.log_twist - now.log_twist
            now = replace(arrived, log_weight=weight)
            if fresh is crowd and after <= self.narrow:
                fresh, now = noise, now.resampled(_uniform(noise), members)
            elif now.evenness < self.threshold:
                now = now.resampled(_uniform(noise))
            for _ in range(self.corrector.corrections(after)):
                z = self.corrector(now.z, now.xhat + now.pull, after, noise)
                now = at(z, after, now.log_weight, now.founder)
        effective = now.effective
        if effective < FEW:
            _log.warning(
                "only %.1f of %d members are effective, so that the shares of the modes are uncertain; take more "
                "members, or a sampler with more steps",
                effective,
                members,
            )
        return now.resampled(_uniform(noise), members).z, min(effective, float(members))


def _uniform(noise: Noise) -> float:
    """A number between 0 and 1 from the stream of the first member, so that the draw needs no other random numbers."""
    return float(torch.special.ndtr(noise().flatten()[0].double()))
