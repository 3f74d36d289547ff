r"""Ensemble flow filter: draws of the analysis by a guided flow, whose velocity the members of the forecast give.

Flow matching takes draws of a known distribution at the pseudo-time t = 0 to draws of the forecast at t = 1, along an
ordinary differential equation. For each member j there is a path of Gaussian distributions with the means
:math:`\mu_j(t)` and the standard deviation :math:`\sigma(t)`; their mixture moves with the velocity

.. math:: u(z, t) = \sum_j w_j(z) \left[\dot \mu_j + \frac{\dot \sigma}{\sigma} (z - \mu_j)\right]

and the weights of `sdaxr.filters.flows`. It needs no network. There are two flows:

``"f2p"`` (filtering to predictive)
    from the members :math:`a_j` after the analysis before to the same members :math:`x_j` of the forecast,
    :math:`\mu_j = (1 - t) a_j + t x_j`, :math:`\sigma = \sigma_1` for all t;
``"ot"`` (conditional optimal transport)
    from noise N(0, 1) to the members, :math:`\mu_j = t x_j`, :math:`\sigma = 1 - (1 - \sigma_1) t`.

Observations guide the flow by the gradient at the state at t = 1 to which the present velocity leads, with a constant
strength :math:`\lambda`,

.. math:: \dot z = u(z, t) + \lambda \nabla \log p(y | \hat x), \qquad \hat x = z + (1 - t) u(z, t),

in steps of Euler's method. Where each draw goes to one member, which is so where states have many more elements than
there are members, and H is the identity, this is nudging: a member moves by the fraction
:math:`1 - \exp(-\lambda / r)` of its own innovation, with r the variance of the errors. The Kalman filter has
:math:`s / (s + r)` for a variance s of the forecast, which :math:`\lambda = r \log(1 + s / r)` gives; but the spread
is then multiplied by :math:`r / (s + r)`, and not by its root. :math:`\lambda` is to be tuned, as the authors do.
Elements that no observation sees are not corrected, but for the choice of members.

References
----------
.. [1] Transue, T., Chen, B., Takao, S. & Wang, B. (2025). Flow matching for efficient and scalable data assimilation.
   arXiv:2508.13313
.. [2] Feng, R. et al. (2025). On the guidance of flow matching. arXiv:2502.02150
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import EnsembleFilter, Forecast, Update
from sdaxr.filters.flows import Units, member_weights, replaced
from sdaxr.states.validation import NotNegative, Positive, PositiveShare, Steps

FLOWS = ("f2p", "ot")


@dataclass(frozen=True)
class EnFF(EnsembleFilter):
    r"""Ensemble flow filter (Transue, Chen, Takao & Wang 2025, arXiv:2508.13313).

    Any system, operators of any kind, errors of any family. The draws are approximate for any number of members
    (`sdaxr.filters.enff`).

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    flow
        ``"f2p"``, from the members after the analysis before to those of the forecast, or ``"ot"``, from noise.
    steps
        Steps of the flow.
    sigma
        Standard deviation about each member at t = 1, in units of ``scale``.
    guidance
        Strength of the guidance, in units of ``scale`` squared: about the variance of the errors of the forecast.
    scale
        Unit of the flow, in the units of the state; of ``"ot"``, the standard deviation of the noise at t = 0. None:
        that of each field over members and points; of scalars, the root mean square.
    """

    name: ClassVar[str] = "enff"
    gaussian: ClassVar[bool] = False
    transfers: ClassVar[bool] = False

    flow: str = "f2p"
    steps: Steps = 10
    sigma: PositiveShare = 0.001
    guidance: NotNegative = 0.01
    scale: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("flow", self.flow in FLOWS, " or ".join(map(repr, FLOWS)))

    def analyse(self, forecast: Forecast) -> Update:
        """The ensemble is replaced by draws of the guided flow."""
        units, noise = Units.of(forecast, self.scale), forecast.random.standard_normal(forecast.states.shape)
        members = units.scaled(forecast.states)
        before = members if forecast.previous is None else units.scaled(forecast.previous)
        start = before if self.flow == "f2p" else np.zeros_like(members)
        z = start + (self.sigma if self.flow == "f2p" else 1.0) * noise
        for number in range(self.steps):
            time, step = number / self.steps, 1 / self.steps
            velocity = self.velocity(z, time, start, members)
            ahead = z + (1 - time) * velocity
            z = z + step * velocity + units.pulled(forecast.observation, ahead, step * self.guidance)
        return replaced(units.states(z))

    def velocity(self, z: np.ndarray, time: float, start: np.ndarray, members: np.ndarray) -> np.ndarray:
        """The velocity u(z, t) without observations, (count, n).

        Parameters
        ----------
        z, time
            Where and when, shape (count, n).
        start, members
            :math:`\\mu_j` at t = 0 and 1, shape (members, n).
        """
        std, growth = (self.sigma, 0.0) if self.flow == "f2p" else (1 - (1 - self.sigma) * time, self.sigma - 1)
        means = (1 - time) * start + time * members
        weights = member_weights(z, means, std)
        velocity: np.ndarray = weights @ (members - start) + growth / std * (z - weights @ means)
        return velocity
