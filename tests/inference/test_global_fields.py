"""Fields on the whole sphere: no seam, no edge at the poles, and analyses near those with the true covariance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian_fields import covariance_of
from spheres import RHO, Sphere

import sdaxr
from sdaxr import operators as op
from sdaxr.prior.files import Prior

LENGTH, ERROR = 3, 0.2
ROWS, COLUMNS = 13, 24
SPHERE = Sphere.of(ROWS, COLUMNS, poles=True)


def trained(data: xr.Dataset, store: Path) -> Prior:
    sdaxr.train(
        data, store, window=4, steps=0, progress=False, network={"widths": [8], "patch": 1}, optimisation={"batch": 2}
    )
    return sdaxr.open_prior(store)


def covariance(prior: Prior) -> np.ndarray:
    """Covariance of one state, (point, point), in physical units."""
    return covariance_of(prior.network.modes, 1).numpy() * float(prior.layout.std.item()) ** 2


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    return trained(SPHERE.fields(600), tmp_path_factory.mktemp("prior") / "p.safetensors")


def test_a_globe_has_eofs_although_longitude_is_periodic(prior: Prior) -> None:
    assert prior.layout.periodic == (False, True)
    assert prior.metadata["parameterisation"] == "eof"
    assert prior.metadata["modes"]["taper_units"] == "km" and prior.metadata["modes"]["by_area"]


@pytest.mark.parametrize("r", [0.1, 2.0])
def test_the_denoiser_is_that_of_the_covariance_in_white_noise(prior: Prior, r: float) -> None:
    modes = prior.network.modes
    b = covariance_of(modes, 2)
    z = torch.randn(3, 2, *modes.present.shape, generator=torch.Generator().manual_seed(0))
    exact = z.flatten(1).double() @ torch.linalg.solve(b + r**2 * torch.eye(len(b)), b)
    torch.testing.assert_close(modes.filter(z, torch.full((3,), r)).flatten(1), exact.float(), rtol=1e-3, atol=1e-3)


def test_correlations_are_the_true_ones_across_the_seam_and_over_the_pole(prior: Prior) -> None:
    found = covariance(prior).reshape(ROWS, COLUMNS, ROWS, COLUMNS)
    true = SPHERE.covariance(SPHERE.places, SPHERE.places).reshape(found.shape)
    error = found - true
    assert np.sqrt((error**2).mean()) < 0.06
    here = np.arange(COLUMNS)
    # Places on both sides of the meridians at 0 and 180 degrees, 30 degrees of longitude apart.
    for column in (COLUMNS - 1, COLUMNS // 2 - 1):
        seam = error[3:-3, column, :, (column + 2) % COLUMNS].diagonal(3)
        assert np.sqrt((seam**2).mean()) < 0.15
    # Places on opposite meridians, 60 degrees apart over the pole.
    for row in (2, ROWS - 3):
        across = found[row, here, row, np.roll(here, -COLUMNS // 2)]
        assert across.mean() == pytest.approx(true[row, 0, row, COLUMNS // 2], abs=0.12)


def test_the_rows_at_the_poles_are_one_place_each(prior: Prior) -> None:
    found = covariance(prior).reshape(ROWS, COLUMNS, ROWS, COLUMNS)
    for row in (0, -1):
        pole = found[row][:, row]
        correlation = pole / np.sqrt(np.outer(pole.diagonal(), pole.diagonal()))
        assert correlation.min() > 0.99


@pytest.mark.parametrize("first", [-180.0, 90.0])
def test_it_does_not_matter_where_longitude_begins(first: float, tmp_path: Path) -> None:
    data = Sphere.of(8, 16).fields(200)
    plain = covariance(trained(data, tmp_path / "p.safetensors")).reshape(8, 16, 8, 16)
    moved = data.assign_coords(lon=("lon", (data.lon.values - first) % 360 + first, data.lon.attrs)).sortby("lon")
    found = covariance(trained(moved, tmp_path / "q.safetensors")).reshape(8, 16, 8, 16)
    shift = -round(first % 360 / 22.5)
    np.testing.assert_allclose(found, np.roll(plain, (shift, shift), (1, 3)), atol=2e-3)


def test_analyses_are_nearly_as_good_as_with_the_true_covariance(prior: Prior) -> None:
    random = np.random.default_rng(3)
    at = {"lat": np.rad2deg(np.arcsin(random.uniform(-1, 1, 40))), "lon": random.uniform(-180, 180, 40)}
    operator, weights = op.points(at), SPHERE.cells.reshape(ROWS, COLUMNS)
    series = SPHERE.fields(160, seed=7)
    units = xr.Dataset(
        {"h": (("time", "lat", "lon"), np.eye(ROWS * COLUMNS).reshape(-1, ROWS, COLUMNS), {"units": "m"})},
        {"time": np.arange(ROWS * COLUMNS), "lat": series.lat, "lon": series.lon},
    )
    h = operator.apply(units).h.values.T
    c = h @ SPHERE.covariance(SPHERE.places, SPHERE.places)
    lags = RHO ** np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)))
    gain = np.kron(lags, c.T) @ np.linalg.inv(np.kron(lags, c @ h.T) + ERROR**2 * np.eye(40 * LENGTH))
    errors = {"oi": [], "Kriging": []}
    for start in range(0, 160, 20):
        truth = series.isel(time=slice(start, start + LENGTH))
        observations = sdaxr.observe(truth, operator, error=ERROR, seed=start)
        posterior = sdaxr.assimilate(observations, prior, times=truth.time, members=128, method="oi", progress=False)
        exact = (gain @ observations.h.values.ravel()).reshape(LENGTH, ROWS, COLUMNS)
        estimates = {"oi": posterior.h.mean("member").values, "Kriging": exact}
        for name, estimate in estimates.items():
            errors[name].append((weights * (estimate - truth.h.values) ** 2).mean())
        scores = sdaxr.verify(posterior, truth, metrics=["rmse"])
        # Scores count by area, too; with the cosine, in which a row at a pole does not count.
        np.testing.assert_allclose((scores.rmse_h**2).mean(), errors["oi"][-1], rtol=0.03)
    rmse = {name: float(np.mean(found)) ** 0.5 for name, found in errors.items()}
    assert rmse["Kriging"] < rmse["oi"] < 1.05 * rmse["Kriging"]
