"""Factors of the variances of a Gaussian process against the density of the observations in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gaussian_fields import covariance_of, process
from torch import Tensor

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.posterior.covariance import adaptation
from sdaxr.posterior.covariance.adaptation import variance_factors
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood

LENGTH, ERROR = 12, 0.3
MODES = process()
LIKE = torch.zeros(1, LENGTH, *MODES.present.shape)
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


def drawn(factors: Tensor, seed: int = 0) -> Tensor:
    """A trajectory of the process with other variances, flattened."""
    covariance = covariance_of(MODES.scaled(factors), LENGTH)
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
    found = variance_factors(MODES, Likelihood([observed(values, at, shared=shared)]), LIKE)
    assert found is not None

    def density(logarithms: Tensor) -> float:
        factors = logarithms[torch.tensor([0, 1, 2, 2, 3, 3])].exp()[:, None]
        covariance = covariance_of(MODES.scaled(factors), LENGTH)[at][:, at] + r
        normal = torch.distributions.MultivariateNormal(torch.zeros(60).double(), covariance)
        return float(normal.log_prob(values.double()) - logarithms.square().sum() / (2 * 0.5**2))

    best = found[[0, 1, 2, 4], 0].log()
    for step in 0.1 * torch.cat([torch.eye(4), -torch.eye(4)]):
        assert density(best) > density(best + step) - 1e-4


def test_observations_everywhere_find_the_variance_of_the_window() -> None:
    factors = torch.tensor([1.0, 1.0, 6.0, 6.0, 1.0, 1.0])[:, None]
    found = torch.stack([
        factor for seed in range(4)
        if (factor := variance_factors(MODES, Likelihood([observed(noisy(drawn(factors, seed), SEA), SEA)]), LIKE))
        is not None
    ]).mean(0)  # fmt: skip
    assert float(found[2]) > 2.5 and float(found[[0, 1, 4]].max()) < 2


def test_factors_stay_where_observations_say_nothing() -> None:
    found = variance_factors(MODES, Likelihood([observed(torch.zeros(3), SEA[:3], error=1e4)]), LIKE)
    assert found is not None
    np.testing.assert_allclose(found, 1, atol=1e-3)


def test_some_of_many_observations_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = torch.ones(len(MODES.variances), 1)
    values = noisy(drawn(4 * usual), SEA)
    all_of_them, some = [], []
    for kept, most in ((all_of_them, 10_000), (some, 120)):
        monkeypatch.setattr(adaptation, "_OBSERVATIONS", most)
        halves = [observed(v, a) for v, a in zip(values.split(100), SEA.split(100), strict=True)]
        kept.append(variance_factors(MODES, Likelihood(halves), LIKE))
    assert float((all_of_them[0] / some[0]).log().abs().max()) < 0.5


def test_operators_that_are_not_linear_tell_nothing() -> None:
    at = SEA[:5]
    square = observed(torch.ones(5), at, operator=lambda x: x.flatten(1)[:, at] ** 2)
    assert variance_factors(MODES, Likelihood([square]), LIKE) is None
