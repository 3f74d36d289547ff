r"""Langevin corrections: moves at one noise level r, which leave p(z) unchanged in the limit of small steps.

.. math:: dz = (\hat x - z)\, dt + \sqrt{2} r\, dw, \qquad \nabla \log p(z) = s = (\hat x - z) / r^2

`LangevinCorrector` takes the steps of Leimkuhler & Matthews (2013), which add each noise twice, half of it in one step
and half of it in the next,

.. math:: z_{k+1} = z_k + c\, (\hat x_k - z_k) + r \sqrt{c / 2}\, (\xi_k + \xi_{k+1}), \qquad c = 1 - e^{-\tau} .

For a Gaussian p(z) their stationary variance is exact in every direction and for every :math:`\tau` (Leimkuhler et al.
2014; Vilmart 2015): the point :math:`z_k - r \sqrt{c / 2}\, \xi_k` has less noise, and the step reflects this point in
its conditional mean given :math:`z_k`, then adds noise again. Independent noise in each step, in the place of the sum,
has a variance that is too large by the fraction :math:`c / 2` where observations and prior determine :math:`\hat x`
(Euler's step), or too small by the same fraction where little is known (the step that solves the equation with a fixed
:math:`\hat x`): in intervals of 90 % there are then 86 % of the truths.

On arrival at a level, z holds no noise of an earlier correction. The noise that the first correction needs is drawn
given z: :math:`r \sqrt{c / 2}\, \xi_0` has the mean :math:`c\, (z - \hat x) / 2`, and at most the variance
:math:`r^2 c / 2`, which is its variance where little is known. Elsewhere the first correction leaves too large a
variance by at most :math:`r^2 c^2 / 4`, and the next ones remove it.

`ScoreLangevinCorrector` is the corrector of Rozet & Louppe (2023, arXiv:2306.10574),

.. math:: z \leftarrow z + d\,s + \sqrt{2 d}\,\epsilon, \qquad d = \tau \frac{\dim(z)}{|s|^2} .

The step d follows from the mean of the squared score over all directions. At small r it is much larger than
:math:`\tau r^2`, and too large for the directions in which the data vary least (the noise of a nearly deterministic
chain). Because d depends on z, the covariance is also inflated by a fraction of about 2 / dim(z), which matters for
very short state vectors only.

References
----------
.. [1] Leimkuhler, B. & Matthews, C. (2013). Rational construction of stochastic numerical methods for molecular
   sampling. doi:10.1093/amrx/abs010
.. [2] Vilmart, G. (2015). Postprocessed integrators for the high order integration of ergodic SDEs.
   doi:10.1137/140974328
.. [3] Leimkuhler, B., Matthews, C. & Tretyakov, M. V. (2014). On the long-time integration of stochastic gradient
   systems. doi:10.1098/rspa.2014.0120
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdaxr.posterior.samplers.predictor_corrector import Noise


@dataclass(frozen=True)
class LangevinCorrector:
    r"""Langevin steps of the time :math:`\tau`; each keeps the fraction :math:`e^{-\tau}` of the noise.

    The first one on a level is half as long.

    Attributes
    ----------
    count
        Number of corrections on a noise level.
    tau
        Time of a correction, without unit.
    above, below
        Smallest and largest noise level with corrections. Corrections help around the standard deviation of the prior:
        there, guidance is least exact and z still moves freely. At lower noise levels the steps are too long for the
        directions in which the data vary least.
    """

    count: int = 0
    tau: float = 0.5
    above: float = 0.1
    below: float = 3.0

    def corrections(self, r: float) -> int:
        """Number of corrections at the noise level ``r``."""
        return self.count if r > 0 and self.above <= r <= self.below else 0

    def __call__(
        self, z: Tensor, xhat: Tensor, r: float, noise: Noise, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One correction at the noise level ``r``, see `Corrector`; all states have the shape of z."""
        part = (1 - math.exp(-self.tau)) / 2
        if added is None:
            added = part * (z - xhat) + math.sqrt(part) * r * noise()
        fresh = math.sqrt(part) * r * noise()
        return z + 2 * part * (xhat - z) + added + fresh, fresh


@dataclass(frozen=True)
class ScoreLangevinCorrector(LangevinCorrector):
    r"""Langevin steps of the size :math:`d = \tau \dim(z) / |s|^2` (Rozet & Louppe 2023, arXiv:2306.10574).

    Attributes
    ----------
    count, above, below
        As in `LangevinCorrector`.
    tau
        Size of a step, without unit.
    """

    def __call__(
        self, z: Tensor, xhat: Tensor, r: float, noise: Noise, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One correction at the noise level ``r``, see `Corrector`; all states have the shape of z."""
        del added
        score = (xhat - z) / r**2
        power = score.square().flatten(1).mean(dim=1).clamp_min(1e-20)
        step = (self.tau / power).reshape(-1, *[1] * (z.ndim - 1))
        fresh = (2 * step).sqrt() * noise()
        return z + step * score + fresh, fresh
