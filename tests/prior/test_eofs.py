"""EOFs with variances by frequency: the denoiser of a Gaussian process, and what is measured of it on samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian_fields import cosine_variances, covariance_of, process, sampled
from spheres import Sphere

from sdaxr.prior.eofs import Eofs, spectrum
from sdaxr.prior.localisation import Localised, localised
from sdaxr.prior.modes import cosines
from sdaxr.schema import DataError


@pytest.mark.parametrize("length", [4, 16])
def test_the_spectrum_of_a_part_is_its_mean_over_all_parts(length: int) -> None:
    variances = torch.rand(16, 2, generator=torch.Generator().manual_seed(0))
    whole, basis = cosines(16).numpy(), cosines(length).numpy()
    for number in range(2):
        covariance = whole.T * variances[:, number].numpy() @ whole
        parts = [slice(first, first + length) for first in range(17 - length)]
        exact = np.mean([np.diag(basis @ covariance[part, part] @ basis.T) for part in parts], axis=0)
        np.testing.assert_allclose(spectrum(variances, length)[:, number], exact, rtol=1e-4)


def test_cosines_have_no_part_in_one_another_by_rounding() -> None:
    only = torch.zeros(24, 2)
    only[5] = 3.0
    assert spectrum(only, 24).nonzero()[:, 0].tolist() == [5, 5]


def test_the_spectrum_of_a_longer_series_has_the_same_power_at_the_same_frequency() -> None:
    decay = torch.tensor([0.6, 0.3])
    found, exact = spectrum(3 * cosine_variances(decay, 16), 64), 3 * cosine_variances(decay, 64)
    torch.testing.assert_close(found.mean(0), exact.mean(0))
    assert float((found / exact).log().abs().max()) < 0.25


def test_smooth_series_have_no_high_frequencies() -> None:
    # Sums of products over the number of states, as in a periodogram, would say a hundred times as much.
    random = np.random.default_rng(0)
    times = np.arange(600)[:, None] - np.arange(-30, 630)
    smooth = np.exp(-((times / 4) ** 2)) @ random.normal(size=(660, 3)) / (4 * (np.pi / 2) ** 0.5) ** 0.5
    patterns = np.linalg.qr(random.normal(size=(30, 3)))[0]
    states = (smooth * [3.0, 2.0, 1.0]) @ patterns.T + 1e-3 * random.normal(size=(600, 30))
    found = localised([torch.as_tensor(states, dtype=torch.float32)], np.arange(30.0)[:, None], window=20, taper=1e6)
    basis, lags = cosines(50).numpy(), np.subtract.outer(np.arange(50), np.arange(50))
    exact = np.diag(basis @ np.exp(-0.5 * (lags / 4) ** 2) @ basis.T) + 1e-6
    seen = found.variances[:, 0].numpy() / 9
    assert exact[40] < 1e-4 * exact[0] and np.abs(np.log(seen / exact))[:40].max() < 1


@pytest.mark.parametrize("r", [0.03, 0.7, 20.0])
def test_the_filter_is_the_conditional_mean_of_the_process(r: float) -> None:
    modes = process()
    covariance = covariance_of(modes, 6)
    z = torch.randn(2, 6, *modes.present.shape, generator=torch.Generator().manual_seed(0))
    exact = z.flatten(1).double() @ torch.linalg.solve(covariance + r**2 * torch.eye(len(covariance)), covariance)
    found = modes.filter(z, torch.full((2,), r))
    torch.testing.assert_close(found.flatten(1), exact.float(), rtol=1e-3, atol=1e-4)
    land = modes.present == 0
    assert bool(land.any()) and float(found[:, :, land].abs().max()) < 1e-6
    estimate = torch.linalg.solve(covariance + r**2 * torch.eye(len(covariance)), covariance @ covariance)
    variance = float(estimate.diagonal().sum()) / (6 * float(modes.present.sum()))
    assert float(modes.estimated(torch.tensor([r]), 6)) == pytest.approx(variance**0.5, rel=1e-3)


def test_half_precision_leaves_the_eofs_orthonormal() -> None:
    modes = process()
    before = modes.vectors.clone()
    modes.vectors.copy_(before.half())
    modes.orthonormalise()
    torch.testing.assert_close(modes.vectors.T @ modes.vectors, torch.eye(modes.rank), rtol=0, atol=1e-6)
    torch.testing.assert_close(modes.vectors, before, rtol=0, atol=2e-3)


def test_the_covariance_of_a_process_is_found_in_samples_of_it() -> None:
    states, places, covariance, correlation = sampled(times=3000, points=40, scale=0.15)
    found = localised([torch.as_tensor(states)], places, window=8)
    rebuilt = found.vectors.double() * found.variances.mean(0)[:-1].double() @ found.vectors.T.double()
    rest = torch.eye(40) - found.vectors.double() @ found.vectors.T.double()
    whole = (rebuilt + float(found.variances.mean(0)[-1]) * rest).numpy()
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    assert np.abs((whole - covariance) / scale).max() < 0.15
    length = len(found.variances)
    exact = cosine_variances(torch.tensor([correlation]), length)
    seen = found.variances[:, :5].mean(1, keepdim=True) / found.variances[:, :5].mean()
    assert float((seen / exact).log().abs().max()) < 0.4
    assert found.about["rank"] < 40 and 0.99 < found.about["explained"] <= 1


def test_variances_of_few_samples_are_those_of_data_that_did_not_give_them() -> None:
    states, places, covariance, _ = sampled(times=60, points=40, scale=0.15)
    found = localised([torch.as_tensor(states)], places, window=5)
    later = sampled(times=4000, points=40, scale=0.15, seed=1)[0]
    seen = (later @ found.vectors.numpy()).var(0)
    naive = (states @ found.vectors.numpy()).var(0)
    leading = slice(0, 8)
    wrong, right = (np.abs(np.log(v[leading] / seen[leading])).mean() for v in (naive, found.variances.mean(0).numpy()))
    assert right < wrong
    total = float(found.variances.mean(0)[:-1].sum() + found.variances.mean(0)[-1] * (40 - found.about["rank"]))
    assert total == pytest.approx(np.trace(covariance), rel=0.35)


@pytest.mark.parametrize("taper", [0.15, 10.0])
def test_fewer_states_than_eofs_keep_the_variance(taper: float) -> None:
    states, places, covariance, _ = sampled(times=30, points=150, scale=0.15)
    found = localised([torch.as_tensor(states)], places, window=5, taper=taper)
    rank = found.about["rank"]
    total = float(found.variances.mean(0)[:-1].sum() + found.variances.mean(0)[-1] * (150 - rank))
    assert total == pytest.approx(np.trace(covariance), rel=0.5)


def test_distant_points_are_uncorrelated_and_a_given_taper_is_taken() -> None:
    states, places, _, _ = sampled(times=40, points=40, scale=0.05)
    found = localised([torch.as_tensor(states)], places, window=5, taper=0.05)
    assert found.about["taper"] == 0.05 and found.about["log_likelihood"] == {}
    covariance = (found.vectors * found.variances.mean(0)[:-1] @ found.vectors.T).numpy()
    far = np.abs(np.subtract.outer(places[:, 0], places[:, 0])) > 0.5
    assert np.abs(covariance[far]).max() < 0.1 * covariance.diagonal().mean()


def test_many_points_have_the_same_eofs_by_subspace_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    states, places, _, _ = sampled(times=400, points=150, scale=0.2)
    series = [torch.as_tensor(states)]
    exact = localised(series, places, window=5, taper=0.3)
    for direct, matrix in ((0, 10**6), (0, 100)):
        monkeypatch.setattr("sdaxr.prior.decomposition._DIRECT", direct)
        monkeypatch.setattr("sdaxr.prior.decomposition._MATRIX", matrix)
        monkeypatch.setattr("sdaxr.prior.localisation._RANK", 20)
        found = localised(series, places, window=5, taper=0.3)
        overlap = (found.vectors[:, :5].T @ exact.vectors[:, :5]).abs()
        torch.testing.assert_close(overlap, torch.eye(5), rtol=0, atol=0.05)


def test_blocks_of_a_large_covariance_may_have_different_numbers_of_eofs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a taper there are as many EOFs as states, and fewer without one of the blocks.
    states, places, covariance, _ = sampled(times=40, points=150, scale=0.2)
    monkeypatch.setattr("sdaxr.prior.decomposition._MATRIX", 100)
    found = localised([torch.as_tensor(states)], places, window=5, taper=100.0)
    rank = found.about["rank"]
    assert found.vectors.shape == (150, rank) and found.variances.shape[1] == rank + 1
    total = float(found.variances.mean(0)[:-1].sum() + found.variances.mean(0)[-1] * (150 - rank))
    assert total == pytest.approx(np.trace(covariance), rel=0.4)


def test_gaps_are_left_out_of_pairs() -> None:
    states, places, covariance, _ = sampled(times=2000, points=20, scale=0.2)
    states[np.random.default_rng(0).random(states.shape) < 0.1] = np.nan
    found = localised([torch.as_tensor(states)], places, window=5, taper=10.0)
    rest = torch.eye(20) - found.vectors @ found.vectors.T
    whole = found.vectors * found.variances.mean(0)[:-1] @ found.vectors.T + found.variances.mean(0)[-1] * rest
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    assert np.abs((whole.numpy() - covariance) / scale).max() < 0.2


def whole(found: Localised) -> np.ndarray:
    """Covariance of the states."""
    rest = torch.eye(len(found.vectors)) - found.vectors @ found.vectors.T
    return (found.vectors * found.variances.mean(0)[:-1] @ found.vectors.T + found.variances.mean(0)[-1] * rest).numpy()


def test_a_point_with_twice_the_area_is_as_good_as_two_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdaxr.prior.localisation._RANK", 6)
    states, places, _, _ = sampled(times=400, points=30, scale=0.1)
    areas = np.repeat([1, 2, 1, 3], [10, 5, 5, 10])
    every = np.repeat(np.arange(30), areas)
    weighted = localised([torch.as_tensor(states)], places, window=5, taper=0.5, weights=areas)
    repeated = localised([torch.as_tensor(states[:, every])], places[every], window=5, taper=0.5)
    once = np.unique(every, return_index=True)[1]
    patterns = torch.linalg.qr(repeated.vectors[once])[0]
    angles = torch.linalg.svdvals(patterns.T @ weighted.vectors)
    torch.testing.assert_close(angles, torch.ones(6), rtol=0, atol=1e-3)
    plain = localised([torch.as_tensor(states)], places, window=5, taper=0.5)
    assert float(torch.linalg.svdvals(patterns.T @ plain.vectors).min()) < 0.99
    torch.testing.assert_close(weighted.vectors.T @ weighted.vectors, torch.eye(6), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("direct", "matrix"), [(2500, 16_000), (0, 16_000), (0, 35)])
def test_areas_leave_the_covariance_of_the_states_as_it_is(
    direct: int, matrix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdaxr.prior.decomposition._DIRECT", direct)
    monkeypatch.setattr("sdaxr.prior.decomposition._MATRIX", matrix)
    states, places, covariance, _ = sampled(times=3000, points=40, scale=0.15)
    areas = np.linspace(0.05, 2.0, 40)
    found = localised([torch.as_tensor(states)], places, window=8, taper=10.0, weights=areas)
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    assert np.abs((whole(found) - covariance) / scale).max() < 0.2


def test_few_eofs_explain_as_much_of_a_globe_as_the_best_patterns_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdaxr.prior.localisation._RANK", 12)
    sphere = Sphere.of(13, 24, poles=True)
    states = torch.as_tensor(sphere.fields(1500).h.values).flatten(1)
    covariance = sphere.covariance(sphere.places, sphere.places)
    root = np.sqrt(sphere.cells)
    by_area = root[:, None] * covariance * root
    best = np.linalg.eigvalsh(by_area)[-12:].sum() / by_area.trace()
    explained, uneven = {}, {}
    for name, weights in {"areas": sphere.cells, "none": None}.items():
        found = localised([states], sphere.places, window=4, taper=2.0, weights=weights)
        patterns = np.linalg.qr(root[:, None] * found.vectors.numpy())[0]
        explained[name] = np.trace(patterns.T @ by_area @ patterns) / by_area.trace()
        variances = whole(found).diagonal().reshape(13, 24).mean(1)
        uneven[name] = variances[[0, -1]].mean() / variances[4:9].mean()
    assert explained["none"] + 0.02 < explained["areas"] < best < explained["areas"] + 0.04
    # The variance of a homogeneous field is the same at all latitudes.
    assert abs(np.log(uneven["areas"])) < 0.5 * abs(np.log(uneven["none"]))


def test_equal_areas_are_no_areas() -> None:
    states, places, _, _ = sampled(times=400, points=40, scale=0.15)
    series = [torch.as_tensor(states)]
    found, plain = (localised(series, places, window=8, weights=w) for w in (np.full(40, 7.0), None))
    np.testing.assert_allclose(whole(found), whole(plain), atol=1e-4)
    assert found.about["rank"] == plain.about["rank"] and found.about["taper"] == plain.about["taper"]


def test_too_few_states_are_refused() -> None:
    with pytest.raises(DataError, match="found 5 states, expected at least 12 to measure covariances"):
        localised([torch.zeros(5, 4)], np.arange(4.0)[:, None], window=3)


def test_eofs_have_modes_of_any_length() -> None:
    assert Eofs(1, (2, 2), 3, 2).window is None
