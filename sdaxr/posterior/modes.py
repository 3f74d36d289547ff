r"""Whether members agree about the mode of the posterior: a test of samples that were drawn independently.

Guidance draws a sample into a mode at a high noise level, where it is least exact, so that samples may be in modes that
the observations exclude, or in several modes in wrong proportions. Two signs of it:

- **Likelihood weights.** The deviance :math:`D = \sum (y - H(x))^2 / \sigma^2` of n observations varies within one
  posterior with a standard deviation of at most about :math:`\sqrt{2 n + 4 D}`: squares of n errors, and their product
  with what no state fits, which real data have. A member whose D is further above the smallest one than seven of these
  standard deviations has no weight beside the best member; nor has one that the errors do not explain, where they
  explain the best member (`sdaxr.posterior.linear.Likelihood.misfit`).
- **Clusters.** Along one of the three leading EOFs of the members, two groups of at least three members are further
  apart than :math:`6 / \sqrt{m}` times the standard deviation within them, for m members in the smaller group. Two sets
  in a hundred of draws of a normal distribution are, of 16 members, and fewer of more. This sign is looked for with at
  least 16 members. Modes that differ in many places, each independently of the others, give no such groups. Modes that
  are images of each other under a symmetry of the prior count as one: their shares are exact
  (`sdaxr.posterior.orbits`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.orbits import Orbits

# Members that are enough for the test.
ENOUGH = 64
# Above this share of members without weight, drawing them again one by one is no remedy.
_STRAY = 1 / 8
_DEVIATIONS = 7.0
_GAP, _FEWEST, _GROUP = 6.0, 16, 3
# A prior without symmetries.
NOWHERE = Orbits()
# Leading EOFs, each with at least this share of the variance.
_EOFS, _LEAST = 3, 0.05


@dataclass(frozen=True)
class Agreement:
    """What the test found.

    Attributes
    ----------
    members
        Number of members.
    weightless
        Number of members whose likelihood has no weight beside that of the best member.
    gap
        Distance of the two groups of the other members that are furthest apart, over the standard deviation within
        them, times the root of the number of members in the smaller group.
    """

    members: int
    weightless: int
    gap: float

    @property
    def holds(self) -> bool:
        """Whether the members agree about the mode."""
        return self.agree_with_observations and self.gap <= _GAP

    @property
    def agree_with_observations(self) -> bool:
        """Whether nearly all members have weight."""
        return self.weightless <= stray(self.members)

    def __str__(self) -> str:
        return f"{self.weightless} of {self.members} members without weight, gap of {self.gap:.1f} (at most {_GAP:g})"


def stray(members: int) -> int:
    """Number of members that may be without weight."""
    return max(1, int(_STRAY * members))


def agreement(likelihood: Likelihood, x: Tensor, orbits: Orbits = NOWHERE) -> Agreement:
    """Test normalised members x, (member, time, channel, *space); their images under symmetries count as one."""
    count = sum(o.values.shape[-1] for o in likelihood.networks)
    deviance = likelihood.deviance(x).double()
    best = float(deviance.min())
    folded = orbits.folded(x, x[deviance.argmin()])
    misfit = likelihood.misfit(x)
    explained = (misfit <= 1) | (misfit.min() > 1)
    kept = explained & (deviance - best <= _DEVIATIONS * (2 * count + 4 * best) ** 0.5)
    return Agreement(len(x), int((~kept).sum()), widest_gap(folded[kept].flatten(1).double()))


def widest_gap(x: Tensor) -> float:
    """The gap of `Agreement` for rows of x."""
    if len(x) < _FEWEST:
        return 0.0
    centred = x - x.mean(0)
    variances, vectors = torch.linalg.eigh(centred @ centred.T)
    leading = list(zip(variances, vectors.T, strict=True))[-_EOFS:]
    kept = [vector * variance.sqrt() for variance, vector in leading if variance > _LEAST * variances.sum()]
    return max((_gap(scores.sort().values) for scores in kept), default=0.0)


def _gap(scores: Tensor) -> float:
    """The gap of increasing scores."""
    count = len(scores)
    gaps = [
        (scores[j] - scores[j - 1])
        / ((_scatter(scores[:j]) + _scatter(scores[j:])) / count).sqrt()
        * min(j, count - j) ** 0.5
        for j in range(_GROUP, count - _GROUP + 1)
    ]
    return float(torch.stack(gaps).max())


def _scatter(scores: Tensor) -> Tensor:
    """Sum of the squared deviations from the mean."""
    return (scores - scores.mean()).square().sum()
