r"""Whether ranks are uniform: simultaneous bands, p values, and the power of the test.

The rank R of a truth among M members is the number of members below the truth. Where the truth and the members are
exchangeable, each of the ranks 0 to M has the same probability (Talts et al. 2018, arXiv:1804.06788). Of N independent
truths, the number with a rank below j + 1 is then binomial,

.. math:: N F(z_j) \sim \mathrm{Bin}(N, z_j), \qquad z_j = \frac{j + 1}{M + 1}, \qquad j = 0 \dots M - 1.

A band of the empirical distribution function F holds at all :math:`z_j` together if the tail probability of each point
is adjusted (Säilynoja et al. 2022, doi:10.1007/s11222-022-10090-6, arXiv:2103.10522). The statistic of the test is the
smallest two-sided tail probability over the points; its distribution under uniformity is simulated.

References
----------
.. [1] Talts, S., Betancourt, M., Simpson, D., Vehtari, A. & Gelman, A. (2018). Validating Bayesian inference algorithms
   with simulation-based calibration. arXiv:1804.06788
.. [2] Säilynoja, T., Bürkner, P.-C. & Vehtari, A. (2022). Graphical test for discrete uniformity and its applications
   in goodness-of-fit evaluation and multiple sample comparison. doi:10.1007/s11222-022-10090-6
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Uniformity:
    """Ranks of ``truths`` independent truths among ``members`` members, under the hypothesis that they are uniform.

    Parameters
    ----------
    truths
        Number N of truths, at least 1.
    members
        Number M of members, at least 1; ranks are 0 to M.
    simulations
        Number of simulated sets of N ranks. The smallest p value is 1 over this number plus 1.
    """

    truths: int
    members: int
    simulations: int = 9999

    def p_values(self, ranks: np.ndarray) -> np.ndarray:
        """Probability of ranks that are at least as uneven, shape (n,), from ranks (truth, n)."""
        counts = np.stack([np.bincount(column, minlength=self.members + 1) for column in ranks.T])
        return self._p(self._smallest_tail(counts))

    def ecdf_band(self, alpha: float) -> np.ndarray:
        """Lower and upper bound of F at the points z_j, shape (2, M); F is inside at all with 1 - alpha or more."""
        inside = self._tails > _critical(self._null, alpha)
        lower, upper = inside.argmax(1), self.truths - inside[:, ::-1].argmax(1)
        return np.stack([lower, upper]) / self.truths

    def coverage_band(self, levels: Sequence[float], alpha: float) -> np.ndarray:
        """Lower and upper bound of the coverage (`inside`) of central intervals, shape (2, level).

        The coverage is inside at all levels with a probability of 1 - alpha, or more where few truths give few values.
        The band is simulated as a whole.
        """
        found = self._simulated @ inside(np.arange(self.members + 1), self.members, levels) / self.truths
        tails, ordered = np.empty_like(found), np.sort(found, 0)
        for column, values in enumerate(found.T):
            below = np.searchsorted(ordered[:, column], values, "right")
            above = len(values) - np.searchsorted(ordered[:, column], values, "left")
            tails[:, column] = 2 * np.minimum(below, above) / len(values)
        kept = tails > _critical(tails.min(1), alpha)
        return np.stack([np.where(kept, found, np.inf).min(0), np.where(kept, found, -np.inf).max(0)])

    def power(self, ratio: float, alpha: float) -> float:
        """Probability that the test at the level alpha rejects members with a spread of ``ratio`` times the right one.

        The posterior is Gaussian, and the members have its mean.
        """
        drawn = np.random.default_rng(1).multinomial(self.truths, rank_frequencies(self.members, ratio), 999)
        return float((self._p(self._smallest_tail(drawn)) <= alpha).mean())

    @cached_property
    def _simulated(self) -> np.ndarray:
        """Numbers of truths with each rank, shape (simulation, M + 1)."""
        even = np.full(self.members + 1, 1 / (self.members + 1))
        return np.random.default_rng(0).multinomial(self.truths, even, self.simulations)

    @cached_property
    def _tails(self) -> np.ndarray:
        """Two-sided tail probability of each number 0 to N at each point z_j, shape (M, N + 1)."""
        from scipy.stats import binom

        points = np.arange(1, self.members + 1)[:, None] / (self.members + 1)
        numbers = np.arange(self.truths + 1)
        below = binom.cdf(numbers, self.truths, points)
        above = binom.sf(numbers - 1, self.truths, points)
        return np.asarray(np.minimum(2 * np.minimum(below, above), 1.0))

    @cached_property
    def _null(self) -> np.ndarray:
        """The smallest tail probabilities of the simulated ranks, in rising order."""
        return np.sort(self._smallest_tail(self._simulated))

    def _smallest_tail(self, counts: np.ndarray) -> np.ndarray:
        """Smallest tail probability over the points, from numbers (n, M + 1) to (n,)."""
        cumulative = counts.cumsum(1)[:, :-1]
        return np.asarray(self._tails[np.arange(self.members), cumulative].min(1))

    def _p(self, statistic: np.ndarray) -> np.ndarray:
        # Tail probabilities that are equal but for rounding count as equal.
        as_small = np.searchsorted(self._null, statistic * (1 + 1e-9), "right")
        return np.asarray((1 + as_small) / (1 + self.simulations))


def ranks_among(truth: np.ndarray, members: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Ranks 0 to M of ``truth`` (...) among ``members`` (M, ...); a tie has one of its ranks at random."""
    below, ties = (members < truth).sum(0), (members == truth).sum(0)
    return np.asarray(below + random.integers(0, ties + 1))


def inside(ranks: np.ndarray, members: int, levels: Sequence[float]) -> np.ndarray:
    r"""Share of the truths in central intervals of the members, shape (..., level), from ranks (...).

    A rank stands for the cell from R / (M + 1) to (R + 1) / (M + 1) of the distribution function; the share is the part
    of the cell in :math:`[(1 - p) / 2, (1 + p) / 2]`. For uniform ranks its expectation is the level p, also where no
    two members bound an interval of this level.
    """
    cells, half = np.asarray(ranks)[..., None], np.asarray(levels) / 2
    lower = np.maximum(cells / (members + 1), 0.5 - half)
    upper = np.minimum((cells + 1) / (members + 1), 0.5 + half)
    return np.asarray(np.clip(upper - lower, 0, None) * (members + 1))


def rank_frequencies(members: int, ratio: float, points: int = 2000) -> np.ndarray:
    """Probabilities of the ranks, (M + 1,): truth N(0, 1), members N(0, ratio^2)."""
    from scipy.special import ndtr, ndtri
    from scipy.stats import binom

    truths = ndtri((np.arange(points) + 0.5) / points)
    found = binom.pmf(np.arange(members + 1)[:, None], members, ndtr(truths / ratio)).mean(1)
    return np.asarray(found / found.sum())


def normal_scores(ranks: np.ndarray, members: int) -> np.ndarray:
    r"""Ranks as quantiles of the normal distribution, with mean 0 and variance 1 under uniformity; shape of ``ranks``.

    Of a Gaussian truth among Gaussian members, the mean of the scores is the bias, and their variance is that of the
    truth over that of the members.
    """
    from scipy.special import ndtri

    scores = ndtri((np.arange(members + 1) + 0.5) / (members + 1))
    return np.asarray((scores / scores.std())[ranks])


def bias_and_dispersion(ranks: np.ndarray, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the normal scores, and excess of their variance, in standard errors, (n,), from ranks (truth, n).

    The bias is above 0 where truths have high ranks. The dispersion is above 0 where they have the outermost ranks,
    among members that are too narrow.
    """
    scores, root = normal_scores(ranks, members), np.sqrt(len(ranks))
    # Scores among narrow members vary more than those of uniform ranks, and so does their mean.
    bias = root * scores.mean(0) / np.maximum(1, scores.std(0, ddof=1))
    error = (normal_scores(np.arange(members + 1), members) ** 2).std() or 1.0  # of one member, with two ranks
    return bias, root * (scores.var(0, ddof=1) - 1) / error


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p values of several tests, shape (n,) (Holm 1979, https://www.jstor.org/stable/4615733)."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def _critical(statistics: np.ndarray, alpha: float) -> float:
    """The largest of the statistics that at most the fraction alpha does not exceed; -1 where there is none."""
    values, counts = np.unique(statistics, return_counts=True)
    allowed = values[counts.cumsum() <= alpha * len(statistics)]
    return float(allowed[-1]) if len(allowed) else -1.0
