r"""Twisted sequential Monte Carlo: posteriors with several modes in their right proportions.

A guided sample is drawn into a mode at a high noise level, where :math:`\tilde p(y | z)` is least exact. Later levels
do not correct the proportions of the modes, because a sample does not leave its mode. Here, members are weighted
particles of

.. math:: \pi_r(z) \propto p_r(z)\, \psi_r(z), \qquad \psi_r(z) = \tilde p(y | z)^{\beta(r)}, \qquad \beta(0) = 1,

from the largest noise level to the smallest, where :math:`\psi` is the likelihood. Each step from r to r' < r is drawn
from the guided transition q and weighted with (Wu et al. 2023, equation 10; Dou & Song 2024)

.. math:: w = \frac{p(z' | z)\, \psi_{r'}(z')}{q(z' | z)\, \psi_r(z)}, \qquad
          p(z' | z) = N(z';\, \hat x + \rho^2 (z - \hat x),\, r'^2 (1 - \rho^2)), \qquad \rho = r' / r .

q has the mean of p with E[x | z, y] in the place of :math:`\hat x = E[x | z]`. Where the weights are uneven, particles
are resampled (Kitagawa 1996): paths into modes that the posterior excludes end, others branch. They are sorted along
their leading EOF first, so that resampling leaves the shares of the modes as they are.

Modes part where r is above the standard deviation of the prior. There, each member has several candidates: many
particles with few evaluations find the proportions of the modes with less sampling error than few particles with many.
At the noise level ``narrow``, where the mode of a particle is decided, members are chosen among the candidates by their
weights. From there on, each member goes on by itself, as with `SDEDPMSolver`: guided, of second order, and without
weights, which within a mode are worth less than these steps.

In the limit of many candidates, many levels and a small ``narrow`` the samples are draws of the posterior, for any
:math:`\psi` that ends at the likelihood. :math:`\psi` decides how many particles count. ``effective_members`` is the
effective number of founders where members are chosen,

.. math:: N = 1 \Big/ \sum_e W_e^2,

where :math:`W_e` is the weight of all particles that descend from the particle e of the first level (Lee & Whiteley
2018). Proportions of modes have the sampling error of N independent draws at least.

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
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sdaxr.posterior.samplers.base import Power, Sampler, always
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.particles import Particles, transition
from sdaxr.posterior.samplers.predictor_corrector import (
    Noise,
    Pin,
    Predictor,
    PredictorCorrector,
    Streams,
    Tick,
    check_size,
)
from sdaxr.states.validation import Few, Levels, Positive, Share

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
    mixing
        Not used.
    candidates
        Number of particles for each member at noise levels above ``narrow``, where the modes part.
    narrow
        Noise level, in standard deviations of the prior, at which members are chosen among the candidates. Corrections
        begin there.
    threshold
        Particles are resampled where their effective number is below this fraction of all, from 0 (never) to 1.
    """

    steps: Levels = 32
    corrections: Few = 5
    above: float = 0.3
    below: float = 10.0
    attempts: Few = 1
    candidates: Few = 24
    narrow: Positive = 0.5
    threshold: Share = 0.3

    name: ClassVar[str] = "twisted"
    together: ClassVar[bool] = True
    spared: ClassVar[Mapping[str, int]] = {"candidates": 1, **Sampler.spared}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("candidates", self.candidates >= 1, "at least 1")

    def build(
        self, levels: tuple[float, float], *, hidden: float = 0.0, power: Callable[[], Power] = lambda: always
    ) -> TwistedParticles:
        """The algorithm for a prior, see `Sampler.build`."""
        grid = self.noise_levels(levels, hidden)
        alone = PredictorCorrector(grid, self.predictor(), self.corrector(), self.limit)
        return TwistedParticles(alone, self.candidates, self.narrow, self.threshold, power())

    def predictor(self) -> Predictor:
        """The step of members from ``narrow`` on."""
        return DPMStep(1.0)


class Twisting(Protocol):
    """A posterior whose approximate likelihood of z can be evaluated."""

    def twist(self, z: Tensor, r: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x | z] of the prior, log p~(y | z) of shape (batch,), and its derivative in z."""
        ...

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y]."""
        ...


@dataclass(frozen=True)
class TwistedParticles:
    r"""Weighted particles down to a noise level, where members are chosen among them; then members by themselves.

    Attributes
    ----------
    alone
        All noise levels, and the steps of members by themselves.
    candidates
        Number of particles for each member.
    narrow
        Members are chosen at the first noise level that is not above this one.
    threshold
        Evenness of the weights below which particles are resampled.
    power
        :math:`\beta`, function of the noise level.
    """

    alone: PredictorCorrector
    candidates: Few = 1
    narrow: float = 0.5
    threshold: float = 0.3
    power: Power = always

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise levels r, decreasing."""
        return self.alone.levels

    @property
    def chosen_at(self) -> int:
        """Number of the noise level at which members are chosen."""
        positive = [r for r in self.levels if r > 0]
        return min(sum(r > self.narrow for r in positive), len(positive) - 1)

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser for one sample, with those for its candidates."""
        start = self.chosen_at
        corrections = sum(map(self.alone.corrector.corrections, self.levels[max(1, start) :]))
        return (start + 1) * self.candidates + len(self.levels) - 1 - start + corrections

    def __call__(
        self, denoiser: Twisting, noise: Noise, tick: Callable[[], object] = lambda: None, pin: Pin | None = None
    ) -> Tensor:
        """Samples, of the shape of the noise, without further candidates."""
        z, _ = self.choose(denoiser, noise, len(noise()), lambda: 0.5, tick=lambda _: tick())
        return self.alone.descend(z, self.chosen_at, denoiser, noise, tick, pin)

    def members(
        self, guided: Any, numbers: Sequence[int], streams: Streams, *, attempt: int, chunk: int, tick: Tick
    ) -> tuple[Tensor, dict[str, float]]:
        """Members that depend on each other, and their effective number."""
        del attempt
        crowd, uniform = streams(range(len(numbers) * self.candidates), 0), _uniform(streams(numbers[:1], 2))
        z, effective = self.choose(guided, crowd, len(numbers), uniform, tick=tick, chunk=chunk)
        states = []
        for first in range(0, len(numbers), chunk):
            part = numbers[first : first + chunk]
            posterior, noise = guided.select(torch.tensor(list(part))), streams(part, 1)
            count = partial(tick, len(part))
            own = z[first : first + chunk]
            states.append(self.alone.descend(own, self.chosen_at, posterior, noise, count, posterior.pin))
        return torch.cat(states), {"effective_members": round(effective, 1)}

    def choose(
        self,
        posterior: Twisting,
        crowd: Noise,
        members: int,
        uniform: Callable[[], float],
        *,
        tick: Tick = lambda _: None,
        chunk: int | None = None,
    ) -> tuple[Tensor, float]:
        """Choose members among weighted particles.

        Parameters
        ----------
        posterior
            The denoiser of the prior, and the approximate likelihood.
        crowd
            Returns new standard normal noise of all particles at every call.
        members
            Number of members.
        uniform
            Returns a new number from 0 to 1 at every call.
        tick
            Called after every evaluation, with the number of particles.
        chunk
            Number of particles that are evaluated at once; it changes rounding only. Default: all.

        Returns
        -------
        z of equal weight at the noise level with the number `chosen_at`, and the effective number of members.

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
            power, limit = self.power(r), self.alone.limit
            guided = (xhat + power * r**2 * slope).clamp(z - limit * r, z + limit * r)
            return Particles(z, xhat, guided - xhat, power * log, log_weight, founder)

        z = self.levels[0] * crowd()
        now = at(z, self.levels[0], z.new_zeros(len(z)), torch.arange(len(z), device=z.device))
        now = replace(now, log_weight=now.log_twist)
        for r, after in pairwise(self.levels[: self.chosen_at + 1]):
            if now.evenness < self.threshold:
                now = now.resampled(uniform())
            z, log_ratio = transition(now, r, after, crowd())
            arrived = at(z, after, now.log_weight, now.founder)
            now = replace(arrived, log_weight=now.log_weight + log_ratio + arrived.log_twist - now.log_twist)
        effective = min(now.effective, float(members))
        if effective < min(FEW, members / 2):
            _log.warning(
                "only %.1f of %d members are effective, so that the shares of the modes are uncertain; take more "
                "members, or a sampler with more steps",
                effective,
                members,
            )
        return now.resampled(uniform(), members).z, effective


def _uniform(noise: Noise) -> Callable[[], float]:
    """Numbers between 0 and 1 from a stream of normal noise."""
    return lambda: float(torch.special.ndtr(noise().flatten()[0].double()))
