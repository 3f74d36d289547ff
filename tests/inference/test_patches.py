"""Assimilation with a prior of patches, on domains larger than those of the training, against Kriging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from short_fields import ShortFields

import sdaxr
from sdaxr import operators as op
from sdaxr.prior.training import train
from sdaxr.schema import OptionError

LARGE = ShortFields(40)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Gaussian process of patches of 16 x 16 points, of a domain of 24 x 24 points."""
    store, small = tmp_path_factory.mktemp("patches") / "p.safetensors", ShortFields(24)
    data = small.dataset(small.draw(600))
    small_network = {"widths": (4,), "temporal": 0}
    statistics = {"patches": {"y": 16, "x": 16}}
    return train(data, store, window=2, steps=0, statistics=statistics, network=small_network, progress=False)


def truth_and_observations() -> tuple[xr.Dataset, xr.Dataset]:
    truth = LARGE.dataset(LARGE.draw(1, seed=7))
    return truth, sdaxr.observe(truth, op.subsample(2), error=0.8, seed=1)


@pytest.mark.parametrize("method", ["sda", "mmps", "dps"])
def test_a_larger_domain_is_analysed_as_well_as_by_kriging(prior: Any, method: str) -> None:
    """Means are those of Kriging; and so where patches of the last noise levels meet as elsewhere."""
    truth, observations = truth_and_observations()
    posterior = sdaxr.assimilate(
        observations, prior.on(truth), method=method, members=16, seed=2, sampler={"steps": 16}, progress=False
    )
    assert posterior.a.sizes == {"member": 16, "time": 1, "y": 40, "x": 40}
    seen = np.zeros((40, 40), bool)
    y = observations.a.isel(time=0)
    rows, columns = (np.searchsorted(truth[d].values, y[d].values) for d in ("y", "x"))
    seen[np.ix_(rows, columns)] = True
    covariance = 4 * LARGE.covariance
    gain = covariance[:, seen.ravel()] @ np.linalg.inv(
        covariance[np.ix_(seen.ravel(), seen.ravel())] + 0.64 * np.eye(seen.sum())
    )
    kriging = 5 + (gain @ (y.values.ravel() - 5)).reshape(40, 40)
    spread = np.sqrt((np.diag(covariance) - np.einsum("ij,ji->i", gain, covariance[seen.ravel()])).mean())
    mean = posterior.a.mean("member").values[0]
    error, best = (float(np.sqrt(((a - truth.a.values[0]) ** 2).mean())) for a in (mean, kriging))
    if method == "dps":  # The size of its steps is a guess.
        assert error < 2.0
        return
    # Sixteen members have a mean with an error of their own, a quarter of the spread.
    assert error < 1.08 * np.sqrt(best**2 + spread**2 / 16)
    found = float(posterior.a.std("member", ddof=1).mean())
    assert found == pytest.approx(spread, rel=0.15)
    assert np.sqrt(((mean - kriging) ** 2).mean()) < 0.5 * spread


def test_an_observation_changes_the_analysis_on_both_sides_of_an_edge(prior: Any) -> None:
    """A single observation: the increments along a row are those of Kriging, wherever the tiles lie."""
    truth, observations = truth_and_observations()
    one = observations.where((observations.y == observations.y[8]) & (observations.x == observations.x[8]))
    domain = prior.on(truth)
    posterior = sdaxr.assimilate(one, domain, members=64, seed=2, sampler={"steps": 16}, progress=False)
    row = int(np.searchsorted(truth.y.values, float(observations.y[8])))
    value = float(one.a.max()) - 5
    exact = 5 + value * LARGE.covariance.reshape(40, 40, 40, 40)[row, row, row] * 4 / (4 + 0.64)
    increments = posterior.a.mean("member").values[0, row]
    assert np.abs(increments - exact).max() < 4 * 2 / 8  # four standard errors
    near = slice(row - 2, row + 3)
    assert np.corrcoef(increments[near], exact[near])[0, 1] > 0.8 or abs(value) < 1


def test_forecasts_and_denoised_fields_are_on_the_domain(prior: Any) -> None:
    truth, _ = truth_and_observations()
    noisy = truth + 0.5 * np.random.default_rng(0).normal(size=truth.a.shape).astype(np.float32)
    noisy["a"].attrs = truth.a.attrs
    found = sdaxr.denoise(noisy, prior.on(truth), error=0.5, members=4, steps=8, progress=False).mean("member")
    assert found.a.sizes["y"] == 40
    after, before = (float(((a - truth.a) ** 2).mean()) for a in (found.a, noisy.a))
    assert after < before
    ahead = sdaxr.forecast(truth, prior.on(truth), steps=1, seed=0, sampler={"steps": 4}, progress=False)
    assert ahead.a.sizes["x"] == 40 and bool(np.isfinite(ahead.a).all())


def test_optimal_interpolation_has_no_covariance_of_the_whole_domain(prior: Any) -> None:
    truth, observations = truth_and_observations()
    with pytest.raises(OptionError):
        sdaxr.assimilate(observations, prior.on(truth), method="oi", members=1, progress=False)


def test_noise_of_members_does_not_depend_on_the_patches(prior: Any, tmp_path: Path) -> None:
    """The archive of a larger domain is one like any other, and resumes."""
    truth, observations = truth_and_observations()
    store = tmp_path / "posterior.zarr"
    options: dict[str, Any] = {"members": 2, "seed": 1, "sampler": {"steps": 4}, "progress": False}
    whole = sdaxr.assimilate(observations, prior.on(truth), store=store, **options)
    again = sdaxr.assimilate(observations, prior.on(truth), batch=1, **options)
    torch.testing.assert_close(torch.as_tensor(again.a.values), torch.as_tensor(whole.a.values), rtol=1e-4, atol=1e-3)
