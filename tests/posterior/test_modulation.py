"""The hybrid covariance of large states, against matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from unknown_offset import OffsetSeries

from sdaxr.posterior import modulation
from sdaxr.posterior.hybrid import KNOWN, tapers
from sdaxr.posterior.modulation import Downdate, columns_of, likelihoods, taper_columns
from sdaxr.states.coordinates import Coordinate


def told(diagonal: torch.Tensor, columns: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of coordinates N(0, I) given what is told of them."""
    low = Downdate.of(diagonal, columns)
    rows = low(torch.eye(len(diagonal), dtype=torch.float64)).T
    torch.testing.assert_close(low.lengths(), rows.norm(dim=1))
    error = (1 / diagonal - 1).rsqrt()[:, None]
    white = rows / error
    covariance = torch.linalg.inv(torch.eye(len(diagonal)).double() + white.T @ white)
    return covariance @ white.T @ (low.values(mean) / error[:, 0]), covariance


@pytest.mark.parametrize("columns", [0, 5, 40])
def test_the_climate_and_what_is_told_are_the_ensemble(columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    diagonal = torch.rand(20, generator=generator, dtype=torch.float64) * 0.3 + 0.01
    own = 0.05 * torch.randn(columns, 20, generator=generator, dtype=torch.float64)
    mean = torch.randn(20, generator=generator, dtype=torch.float64)
    found, covariance = told(diagonal, own, mean)
    torch.testing.assert_close(covariance, torch.diag(diagonal) + own.T @ own)
    torch.testing.assert_close(found, mean)


def test_in_no_direction_the_ensemble_is_larger_than_the_climate() -> None:
    """Members along two unit vectors, one of which has more than the climate: there the climate is left."""
    diagonal, own, mean = torch.full((3,), 0.2).double(), torch.zeros(2, 3).double(), torch.arange(3.0).double()
    own[0, 0], own[1, 1] = 2.0, 0.5
    found, covariance = told(diagonal, own, mean)
    torch.testing.assert_close(covariance, torch.diag(torch.tensor([KNOWN, 0.45, 0.2]).double()))
    torch.testing.assert_close(found, mean)


def test_columns_are_those_of_the_taper() -> None:
    places = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    taper = torch.exp(-0.5 * (torch.cdist(places, places) / 0.3).square())
    columns = columns_of(places, 0.3, 60)
    assert columns.shape[1] < 40
    torch.testing.assert_close(columns.square().sum(1), torch.ones(60))
    assert (columns @ columns.T - taper).abs().mean() < 0.03
    assert columns_of(places, 0.3, 10) is None
    torch.testing.assert_close(columns_of(places, np.inf, 10), torch.ones(60, 1))


def test_small_and_large_states_have_the_same_tapers() -> None:
    """On a ring of three sites the largest distance is less than the width."""
    ring = {"site": Coordinate(np.arange(3.0), {"units": "1", "periodic": 1, "period": 3.0})}
    layout = replace(OffsetSeries(6, sites=3).layout(), coords=ring)
    for taper, columns in zip(tapers(layout), taper_columns(layout, 2), strict=True):
        torch.testing.assert_close(columns @ columns.T, taper.float(), rtol=1e-4, atol=1e-4)
    assert float(tapers(layout)[3][0, 1]) == pytest.approx(np.exp(-0.5 * (np.sqrt(3) / 2 / 0.3) ** 2))


def test_likelihoods_are_those_of_the_matrices() -> None:
    """Of members that are left out, under (1 - s) D + s (L L^T) o S, of the others."""
    generator = torch.Generator().manual_seed(1)
    plain, factors = (torch.randn(*shape, generator=generator) for shape in ((9, 6), (3, 6)))
    bands = torch.tensor([0, 0, 1, 1, 2, 2])
    expected = [0.0] * len(modulation.SHARES)
    for group in torch.arange(9).chunk(4):
        kept = plain[~torch.isin(torch.arange(9), group)].double()
        mean, away = kept.mean(0), kept - kept.mean(0)
        sample = away.T @ away / (len(kept) - 1)
        rest = sample.diagonal().unflatten(0, (3, 2)).mean(1).repeat_interleave(2)
        own = (factors.T @ factors).double() * sample
        for number, share in enumerate(modulation.SHARES):
            covariance = (1 + 1 / len(kept)) * ((1 - share) * torch.diag(rest) + share * own)
            normal = torch.distributions.MultivariateNormal(mean, covariance)
            expected[number] += float((normal.log_prob(plain[group].double()) + 3 * np.log(2 * np.pi)).sum())
    found = likelihoods(plain, plain[:, None] * factors, bands)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
