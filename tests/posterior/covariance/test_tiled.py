"""Covariance of a large domain from that of patches, against the dense sum and the covariance of the domain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from short_fields import ShortFields

from sdaxr.posterior.covariance.tiled import TiledCovariance
from sdaxr.posterior.covariance.variance import Measured
from sdaxr.prior.training import train

SIZE, PATCH = 20, 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["spectral", "eof"])
def prior(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    fields = ShortFields(SIZE, scale=1.0)
    return train(
        fields.dataset(fields.draw(400)), tmp_path_factory.mktemp("tiled") / "p.safetensors", window=2, steps=0,
        statistics={"patches": {"y": PATCH, "x": PATCH}}, parameterisation=request.param, progress=False,
        network={"widths": (4,), "temporal": 0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def covariance(prior: Any) -> TiledCovariance:
    found = Measured().resolve(prior, ShortFields(SIZE).dataset(torch.zeros(1, SIZE, SIZE)).time, CPU)
    assert isinstance(found, TiledCovariance)
    return found


def dense(covariance: TiledCovariance, r: float) -> torch.Tensor:
    eye = torch.eye(SIZE**2).reshape(-1, 1, 1, SIZE, SIZE)
    return covariance.product(eye, r).reshape(SIZE**2, SIZE**2).double()


@pytest.mark.parametrize("r", [0.3, 2.0])
def test_the_covariance_is_that_of_the_domain(covariance: TiledCovariance, r: float) -> None:
    """Covariances are those of x given z of the whole domain; cosines take a patch of eight points for a mirror."""
    found = dense(covariance, r)
    torch.testing.assert_close(found, found.T, rtol=1e-4, atol=1e-5)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-5
    prior = ShortFields(SIZE, scale=1.0).covariance
    exact = torch.as_tensor(prior @ np.linalg.inv(prior + r**2 * np.eye(SIZE**2)) * r**2)
    assert float(found.diagonal().mean() / exact.diagonal().mean()) == pytest.approx(1.0, abs=0.1)
    assert float((found - exact).square().mean() / exact.square().mean()) < 0.02


def test_products_are_those_of_single_states(covariance: TiledCovariance) -> None:
    """States of a batch and times that are zero change nothing."""
    u = torch.zeros(3, 4, 1, SIZE, SIZE)
    u[:, 1] = torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    together = covariance.product(u, 0.5)
    alone = torch.cat([covariance.product(each[None], 0.5) for each in u])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    u[:, :, :, :15] = 0.0  # no tile of some bands
    assert bool(covariance.product(u, 0.5).isfinite().all())
    together = covariance.product(u, 0.5)
    everywhere = covariance.product_everywhere(u, 0.5)
    torch.testing.assert_close(everywhere[:, 1], together[:, 1], rtol=1e-4, atol=1e-5)


def test_draws_have_the_covariance(covariance: TiledCovariance) -> None:
    drawn = covariance.draw((1, 1, SIZE, SIZE), 1.0, 4000).flatten(1).double()
    expected = dense(covariance, 1.0)
    found = drawn.T @ drawn / len(drawn)
    # The variance of a sample covariance is (C_ii C_jj + C_ij^2) / n.
    error = ((expected.diagonal()[:, None] * expected.diagonal() + expected.square()) / len(drawn)).mean().sqrt()
    assert float((found - expected).square().mean().sqrt()) < 1.15 * float(error)
