r"""Ensemble score filter: draws of the analysis by a reverse diffusion, whose score the members of the forecast give.

A diffusion takes states x at the pseudo-time t = 0 to noise at t = 1,

.. math:: z_t = \alpha_t x + \beta_t \epsilon, \qquad \alpha_t = 1 - t (1 - \epsilon_\alpha), \qquad
          \beta_t^2 = \epsilon_\beta + t (1 - \epsilon_\beta).

For a forecast that is known by its members :math:`x_j`, the score of :math:`z_t` needs no network. With the weights of
`sdaxr.filters.flows` for the means :math:`\alpha_t x_j` and the standard deviation :math:`\beta_t`,

.. math:: s(z, t) = \sum_j w_j(z) \frac{\alpha_t x_j - z}{\beta_t^2} .

The reverse stochastic differential equation is solved from t = 1 to 0 by the Euler-Maruyama method, with
:math:`f = \dot \alpha / \alpha` and :math:`g^2 = d \beta^2 / dt - 2 f \beta^2`,

.. math:: dz = \left[f z - g^2 \left(s(z, t) + h(t) \nabla_z \log p(y | z)\right)\right] dt + g\, dw, \qquad
          h(t) = 1 - t.

The damping h stands for what the likelihood of x is for the noisy z. It makes the method approximate even with the
exact score: for a Gaussian forecast N(0, 1), an observation of x with the variance :math:`1 / \kappa` of its errors,
:math:`\epsilon_\alpha = 0.05`, :math:`\epsilon_\beta = 0` and many steps, the mean moves by 0.075, 0.517 and 0.977 of
the innovation for :math:`\kappa` of 0.1, 1 and 10, where the Kalman filter has 0.091, 0.5 and 0.909; the variances are
0.907, 0.443 and 0.052 for 0.909, 0.5 and 0.091.

Differences from the paper: z starts from a member with noise, the distribution of :math:`z_1`, instead of N(0, I); and
steps of the likelihood are linearly implicit. Elements that no observation sees are not corrected beyond the choice of
a member; `sdaxr.filters.latent` shares what observations say among the elements.

References
----------
.. [1] Bao, F., Zhang, Z. & Zhang, G. (2024). An ensemble score filter for tracking high-dimensional nonlinear dynamical
   systems. doi:10.1016/j.cma.2024.117447
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import EnsembleFilter, Forecast, Update
from sdaxr.filters.flows import Units, member_weights, replaced
from sdaxr.states.validation import Count, Positive, PositiveShare, ShareBelowOne, Steps

Score = Callable[[np.ndarray, float, float], np.ndarray]
"""Score of z, (count, n), at a pseudo-time with :math:`\\alpha` and :math:`\\beta`; (count, n)."""


@dataclass(frozen=True)
class EnSF(EnsembleFilter):
    r"""Ensemble score filter (Bao, Zhang & Zhang 2024, doi:10.1016/j.cma.2024.117447).

    Any system, operators of any kind, errors of any family. The draws are approximate for any number of members
    (`sdaxr.filters.ensf`).

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    steps
        Steps of the reverse diffusion.
    epsilon_alpha
        What is left of a state at t = 1, above 0, at most 1.
    epsilon_beta
        Variance of the noise at t = 0, in units of ``scale`` squared, from 0 on, below 1: how far draws are from
        the members even where nothing is observed.
    batch
        Number of members that the score of a draw knows: one that it starts from, and others at random. None: all.
    scale
        Standard deviation of the noise at t = 1, in the units of the state. None: that of each field over members and
        points; of scalars, the root mean square.
    """

    name: ClassVar[str] = "ensf"
    gaussian: ClassVar[bool] = False
    transfers: ClassVar[bool] = False

    steps: Steps = 100
    epsilon_alpha: PositiveShare = 0.5
    epsilon_beta: ShareBelowOne = 0.025
    batch: Count | None = None
    scale: Positive | None = None

    def analyse(self, forecast: Forecast) -> Update:
        """The ensemble is replaced by draws of the reverse diffusion."""
        units, random = Units.of(forecast, self.scale), forecast.random
        members = units.scaled(forecast.states)
        batches = None if self.batch is None else _batches(len(members), self.batch, random)

        def score(z: np.ndarray, alpha: float, beta: float) -> np.ndarray:
            means = alpha * members
            found: np.ndarray = (member_weights(z, means, beta, batches) @ means - z) / beta**2
            return found

        def pulled(z: np.ndarray, step: float) -> np.ndarray:
            return units.pulled(forecast.observation, z, step)

        return replaced(units.states(self.reverse(members, score, pulled, random)))

    def reverse(
        self,
        members: np.ndarray,
        score: Score,
        pulled: Callable[[np.ndarray, float], np.ndarray],
        random: np.random.Generator,
    ) -> np.ndarray:
        """Draws at t = 0, (members, n).

        Parameters
        ----------
        members
            The members at t = 0, from which draws start, with the noise of t = 1, shape (members, n).
        score
            Score of z without observations.
        pulled
            How far a step of a given length along the gradient of log p(y | z) goes from z.
        random
            Source of random numbers.
        """
        z = self.epsilon_alpha * members + random.standard_normal(members.shape)
        for number in range(self.steps):
            time, step = 1 - number / self.steps, 1 / self.steps
            alpha = 1 - time * (1 - self.epsilon_alpha)
            variance = self.epsilon_beta + time * (1 - self.epsilon_beta)
            rate = -(1 - self.epsilon_alpha) / alpha
            diffusion = 1 - self.epsilon_beta - 2 * rate * variance
            drift = step * (diffusion * score(z, alpha, variance**0.5) - rate * z)
            noise = (step * diffusion) ** 0.5 * random.standard_normal(z.shape)
            z = z + drift + pulled(z, step * diffusion * (1 - time)) + noise
        return z


def _batches(members: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Which members the score of each draw knows, (members, members): its own, and others at random."""
    ranks = random.random((members, members))
    np.fill_diagonal(ranks, -1.0)
    chosen: np.ndarray = ranks.argsort(1).argsort(1) < size
    return chosen
