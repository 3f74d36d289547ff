"""Factors of the variances of a Gaussian process against the density of the observations in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from gaussian_fields import covariance_of, process
from torch import Tensor

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.posterior.covariance import adaptation
from sdaxr.posterior.covariance.adaptation import adapted, variance_factors
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood

LENGTH, ERROR = 12, 0.3
MODES = process()
LIKE = torch.zeros(1, LENGTH, *MODES.present.shape)
# One level for each channel, none on land.
LEVELS = torch.nn.functional.normalize(torch.eye(2)[:, :, None, None] * MODES.present, dim=(1, 2, 3)).flatten(1)
SEA = torch.nonzero(MODES.present.expand(LENGTH, *MODES.present.shape).flatten())[:, 0]


def observed(
    values: Tensor, at: Tensor, error: float = ERROR, *, operator: Callable[[Tensor], Tensor] | None = None,
    shared: SharedCovariance | None = None,
) -> GaussianObservation:  # fmt: skip
    """Observations of the values ``at`` of a flattened trajectory."""
    return GaussianObservation(
        operator or (lambda x: x.flatten(1)[:, at]), values, torch.full((len(at),), error), torch.ones(len(at)),
        shared=shared,
    )  # fmt: skip


def factors_of(networks: Sequence[GaussianObservation]) -> Tensor:
    found = variance_factors(MODES, LEVELS, Likelihood(networks), LIKE)
    assert found is not None
    return found


def drawn(factors: Tensor, seed: int = 0) -> Tensor:
    """A trajectory of the process with other variances, flattened."""
    covariance = covariance_of(MODES.scaled(factors, torch.zeros(1, MODES.rank)), LENGTH)
    values, vectors = torch.linalg.eigh(covariance)
    noise = torch.randn(len(values), generator=torch.Generator().manual_seed(seed)).double()
    return (vectors @ (values.clamp_min(0).sqrt() * noise)).float()


def noisy(x: Tensor, at: Tensor) -> Tensor:
    return x[at] + ERROR * torch.randn(len(at), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_factors_have_the_largest_density(bias: float) -> None:
    usual = torch.ones(len(MODES.variances), 1)
    at = SEA[torch.randperm(len(SEA), generator=torch.Generator().manual_seed(2))[:60]]
    values, r = noisy(drawn(2 * usual), at), ERROR**2 * torch.eye(60).double()
    shared = None
    if bias:
        group = torch.arange(60) % 3
        shared = SharedCovariance(r.diagonal(), group, torch.full((60, 1), bias).double())
        r = r + bias**2 * (group[:, None] == group).double()
    found = factors_of([observed(values, at, shared=shared)])

    means, deviations = torch.tensor([*[0.0] * 4, *[math.log(0.1)] * 2]), torch.tensor([*[0.5] * 4, *[2.0] * 2])

    def density(logarithms: Tensor) -> float:
        covariance = covariance_of(adapted(MODES, LEVELS, logarithms.exp(), LENGTH), LENGTH)[at][:, at] + r
        normal = torch.distributions.MultivariateNormal(torch.zeros(60).double(), covariance)
        away = (logarithms - means) / deviations
        return float(normal.log_prob(values.double()) - 0.5 * away.square().sum())

    best = found.log()
    for step in 0.2 * torch.cat([torch.eye(6), -torch.eye(6)]):
        assert density(best) > density(best + step) - 1e-4


def test_observations_everywhere_find_the_variance_of_the_window() -> None:
    factors = torch.tensor([1.0, 1.0, 6.0, 6.0, 1.0, 1.0])[:, None]
    found = torch.stack([factors_of([observed(noisy(drawn(factors, seed), SEA), SEA)]) for seed in range(4)]).mean(0)
    assert float(found[2]) > 2.5 and float(found[[0, 1, 3]].max()) < 2


def test_a_level_beyond_the_training_is_found() -> None:
    raised = (drawn(torch.ones(len(MODES.variances), 1)).reshape(LENGTH, -1) + 40 * LEVELS[1]).flatten()
    found = factors_of([observed(noisy(raised, SEA), SEA)])
    # Octaves 0, 1, 2-3 and 4-5, and the levels of two channels.
    assert len(found) == 6 and float(found[5]) > 10 > 3 > float(found[[1, 2, 3, 4]].max())
    modes = adapted(MODES, LEVELS, found, LENGTH)
    usual, shown = (covariance_of(m, LENGTH) for m in (MODES, modes))
    level = LEVELS[1].repeat(LENGTH).double() / LENGTH**0.5
    assert float(level @ shown @ level) > 5 * float(level @ usual @ level)


def test_levels_are_added_to_the_covariance_of_the_process() -> None:
    modes = adapted(MODES, LEVELS, torch.ones(6), LENGTH)
    added = covariance_of(modes, LENGTH) - covariance_of(MODES, LENGTH)
    exact = torch.zeros_like(added)
    for level in LEVELS.double():
        everywhere = level.repeat(LENGTH)
        along = level @ MODES.vectors.double()
        variance = float(along.square() @ MODES.spectrum(LENGTH)[0, :-1].double()) / LENGTH
        rest = 1 - float(along.square().sum())
        variance += rest * float(MODES.spectrum(LENGTH)[0, -1]) / LENGTH
        exact += variance * torch.outer(everywhere, everywhere)
    torch.testing.assert_close(added, exact, rtol=1e-3, atol=1e-4)


def test_modes_that_span_the_levels_are_those_of_the_same_process() -> None:
    modes = MODES.spanning(LEVELS)
    assert modes.rank == MODES.rank + 2
    torch.testing.assert_close(covariance_of(modes, LENGTH), covariance_of(MODES, LENGTH), rtol=0, atol=1e-4)
    torch.testing.assert_close((LEVELS @ modes.vectors).square().sum(1), torch.ones(2))


def test_factors_stay_where_observations_say_nothing() -> None:
    found = factors_of([observed(torch.zeros(3), SEA[:3], error=1e4)])
    np.testing.assert_allclose(found, [1, 1, 1, 1, 0.1, 0.1], rtol=1e-3)


def test_some_of_many_observations_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = torch.ones(len(MODES.variances), 1)
    values = noisy(drawn(4 * usual), SEA)
    all_of_them, some = [], []
    for kept, most in ((all_of_them, 10_000), (some, 120)):
        monkeypatch.setattr(adaptation, "_OBSERVATIONS", most)
        halves = [observed(v, a) for v, a in zip(values.split(100), SEA.split(100), strict=True)]
        kept.append(factors_of(halves))
    assert float((all_of_them[0] / some[0])[:4].log().abs().max()) < 0.5


def test_operators_that_are_not_linear_tell_nothing() -> None:
    at = SEA[:5]
    square = observed(torch.ones(5), at, operator=lambda x: x.flatten(1)[:, at] ** 2)
    assert variance_factors(MODES, LEVELS, Likelihood([square]), LIKE) is None
