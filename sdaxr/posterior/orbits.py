r"""Samples of a posterior, moved among their images under the symmetries of the prior.

Lorenz's equations of 1963 do not change where two of the three components change their signs. A trajectory and its
image are equally probable, p(g x) = p(x). A neural network learns this nearly, and an error of 0.3 in the logarithm of
the density of a trajectory moves the shares of two modes from 0.50 to 0.57. Among the images of one sample,
however, the prior cancels:

.. math:: p(g^k x \mid y, \mathrm{images\ of\ } x) = \frac{p(y | g^k x)}{\sum_j p(y | g^j x)} .

A draw from these probabilities is a Gibbs step. It leaves the posterior under the symmetric density as it is, brings
samples of any other distribution nearer to it, and makes the shares of images exact. It evaluates the observation
operator only. All observations count, and with them what a background tells of the first state. Several symmetries
follow one another, each a step of its own.

The images of a sample are ordered by their part along a direction, which is the same for all members: members that are
drawn together take the first of them for it, others a fixed one. Most samples of one mode are on the same side. The
member m chooses with the fractional part of :math:`u + m \alpha`, where u is uniform, and
:math:`\alpha_s = 2^{s / (S + 1)}` for the symmetry s of S (Niederreiter 1978). These numbers fill the interval evenly,
so that shares vary less than those of independent choices, and the choice of a member that is drawn by itself depends
on the seed and its own number only.

References
----------
.. [1] Liu, J. S. & Sabatti, C. (2000). Generalised Gibbs sampler and multigrid Monte Carlo for Bayesian computation.
   doi:10.1093/biomet/87.2.353
.. [2] Niederreiter, H. (1978). Quasi-Monte Carlo methods and pseudo-random numbers.
   doi:10.1090/S0002-9904-1978-14532-7
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdaxr.archives.seeds import unit_seed
from sdaxr.posterior.linear import Likelihood
from sdaxr.prior.symmetries import Symmetry, transform

# Tells the random numbers of the moves from the noise of the members.
_STREAM = 11


@dataclass(frozen=True)
class Orbits:
    """The images of states under symmetries.

    Attributes
    ----------
    symmetries
        Transformations under which the density of the prior is the same; none leaves all states as they are.
    """

    symmetries: Sequence[Symmetry] = ()

    def moved(
        self, likelihood: Likelihood, x: Tensor, members: Sequence[int], seed: int, *, together: bool = False
    ) -> Tensor:
        """An image of each sample, drawn with the likelihood of the images.

        Parameters
        ----------
        likelihood
            The observations of these members.
        x
            Normalised samples, (batch, time, channel, *space).
        members
            Their numbers.
        seed
            Seed of the random numbers.
        together
            Whether these are all members. Otherwise, a member does not depend on the others.
        """
        direction = x[0] if together else torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
        random, count = np.random.default_rng([unit_seed(seed, _STREAM)]), len(self.symmetries)
        for number, symmetry in enumerate(self.symmetries, start=1):
            even = (random.random() + np.asarray(members) * 2 ** (number / (count + 1))) % 1
            places = torch.as_tensor(even, device=x.device)
            scores = [(likelihood.log_density(i).double(), _along(i, direction)) for i in _images(x, symmetry)]
            logs, parts = (torch.stack(each) for each in zip(*scores, strict=True))
            x = transform(x, [(symmetry, _choice(logs, parts, places).cpu().numpy())])
        return x

    def folded(self, x: Tensor, near: Tensor) -> Tensor:
        """The image of each state that is nearest to ``near``, (time, channel, *space)."""
        for symmetry in self.symmetries:
            distances = torch.stack([(i - near).flatten(1).norm(dim=1) for i in _images(x, symmetry)])
            x = transform(x, [(symmetry, distances.argmin(0).cpu().numpy())])
        return x


def _images(x: Tensor, symmetry: Symmetry) -> Iterator[Tensor]:
    """Each state after 0, 1, ... applications of a symmetry."""
    return (transform(x, [(symmetry, np.full(len(x), k))]) for k in range(symmetry.order))


def _choice(logs: Tensor, parts: Tensor, places: Tensor) -> Tensor:
    """Number of an image of each member, with probabilities of the logarithms ``logs`` (image, member).

    Images are ordered by ``parts``, of this shape; ``places`` (member,) are from 0 to 1.
    """
    order = parts.argsort(0)
    reached = torch.softmax(logs.gather(0, order), 0).cumsum(0)
    position = (reached < places).sum(0).clamp_max(len(logs) - 1)
    return order.gather(0, position[None])[0]


def _along(x: Tensor, direction: Tensor) -> Tensor:
    """Part of states along a direction, (batch,)."""
    return x.flatten(1).double() @ direction.flatten().to(x.device).double()
