"""Ensembles that a physical model carries from window to window."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chains import Ring, truth_of
from linear_ensembles import Turning, in_background

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.letkf import LETKF
from sdaxr.filters.smoothing import smooth
from sdaxr.inference.system_cycle import cycle_system
from sdaxr.schema import ArchiveError, DataError, OptionError
from sdaxr.systems.lorenz96 import Lorenz96

LENGTH = 14
QUIET = {"progress": False}
FIRST = in_background(Turning().initial(12, seed=0), Turning())


@pytest.fixture(scope="module")
def observations() -> xr.Dataset:
    return sdaxr.observe(truth_of(Turning(), LENGTH, 1), op.coarsen(2), error=0.4, missing=0.3, seed=2)


@pytest.mark.parametrize("adaptive", [None, 0.3])
@pytest.mark.parametrize("window", [1, 4, LENGTH, 100])
def test_a_filter_in_windows_is_the_filter_of_the_series(
    observations: xr.Dataset, window: int, adaptive: float | None
) -> None:
    options = {"method": ETKF(adaptive=adaptive), "members": 12, "background": FIRST, "operator": op.coarsen(2)} | QUIET
    whole = smooth(observations, Turning(), **options)
    found = sdaxr.cycle(observations, system=Turning(), window=window, **options)
    # Members are in single precision between two windows.
    xr.testing.assert_allclose(found, whole, atol=1e-4)
    assert found.x.dims == whole.x.dims and found.attrs["cycle_window"] == window
    names = ["first_guess_innovation", "first_guess_spread", "first_guess_consistency"]
    assert ("adaptive_inflation" in found.attrs) == (adaptive is not None)
    for name in [*names, "adaptive_inflation"] if adaptive else names:
        assert found.attrs[name] == pytest.approx(whole.attrs[name], rel=1e-4)
    assert found.attrs["observations_used"] == whole.attrs["observations_used"]
    assert found.attrs["members_distribution"] == "filtering" and found.attrs["method"] == "etkf"


def test_windows_without_observations_are_forecasts(observations: xr.Dataset) -> None:
    seen = observations.isel(time=[0, 1, 12])
    options = {"members": 12, "background": FIRST} | QUIET
    found = sdaxr.cycle(seen, system=Turning(), window=3, times=np.arange(float(LENGTH)), **options)
    whole = smooth(seen, Turning(), method="etkf", times=np.arange(float(LENGTH)), **options)
    xr.testing.assert_allclose(found, whole, atol=1e-4)
    later = seen.isel(time=[2])
    free = sdaxr.cycle(later, system=Turning(), window=3, times=np.arange(float(LENGTH)), **options)
    np.testing.assert_allclose(free.x.isel(time=0), FIRST.x, rtol=1e-6)


def test_noise_and_members_follow_from_the_seed(observations: xr.Dataset) -> None:
    options = {"system": Ring(sites=8), "window": 5, "members": 6, "method": LETKF(localisation=2.0)} | QUIET
    one, again, other = (observations.sda.cycle(seed=seed, **options) for seed in (1, 1, 2))
    xr.testing.assert_identical(one, again)
    assert float(np.abs(one.x - other.x).max()) > 0.1


def test_a_long_series_of_a_chaotic_model_stays_near_the_truth() -> None:
    system = Lorenz96(sites=20)
    truth = truth_of(system, 120, 1)
    seen = truth.sda.observe(op.subsample(2), error=1.0, seed=2)
    found = seen.sda.cycle(
        system=system, window=30, members=20, method={"name": "letkf", "localisation": 4, "inflation": 1.05}, **QUIET
    )
    error = np.sqrt(((found.x.mean("member") - truth.x) ** 2).mean("site"))
    assert float(error[:5].mean()) > 1.0 > 2 * float(error[60:].mean())


def test_a_killed_cycle_goes_on(observations: xr.Dataset, tmp_path: Path, monkeypatch) -> None:
    options = {"system": Turning(), "window": 5, "members": 3, "store": tmp_path / "c.zarr"} | QUIET
    whole = sdaxr.cycle(observations, **options | {"store": None})
    real, drawn = ETKF.draw, []

    def once(self, *arguments):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(1)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ETKF, "draw", once)
        with pytest.raises(KeyboardInterrupt):
            sdaxr.cycle(observations, **options)
    found = sdaxr.cycle(observations, **options)
    np.testing.assert_array_equal(found.x, whole.x)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]
    monkeypatch.setattr(ETKF, "draw", None)
    np.testing.assert_array_equal(sdaxr.cycle(observations, **options).x, whole.x)
    with pytest.raises(ArchiveError, match="method_options"):
        sdaxr.cycle(observations, method={"inflation": 1.1}, **options)


def test_options_without_a_name_are_those_of_the_default(observations: xr.Dataset) -> None:
    found = cycle_system(observations, Turning(), method={"inflation": 1.1}, members=3, **QUIET)
    assert found.attrs["method"] == "etkf" and json.loads(found.attrs["method_options"])["inflation"] == 1.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "ffbs"}, OptionError, "method='ffbs' carries no ensemble from window to window, expected an ensem"),
        ({"method": "sda"}, OptionError, "method='sda' carries no ensemble"),
        ({"members": 1}, OptionError, "members=1, expected a whole number of at least 2"),
        ({"window": 0}, OptionError, "window=0"),
        ({"prior": "lorenz63"}, OptionError, "found prior= beside a system"),
        ({"carry": "lorenz63"}, OptionError, "found carry= beside a system"),
        ({"inflation": 2.0}, OptionError, "found inflation= beside a system"),
        ({"sampler": "ddim"}, OptionError, "found sampler= beside a system"),
        ({"precison": "auto"}, OptionError, "Did you mean 'precision'"),
        ({"system": None}, OptionError, "found neither prior nor system="),
        ({"background": FIRST}, DataError, "the background has 12 members, expected members=4"),
    ],
)
def test_what_does_not_fit(observations: xr.Dataset, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        sdaxr.cycle(observations, **{"system": Turning(), "members": 4} | QUIET | options)
