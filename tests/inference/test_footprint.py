"""The memory that an assimilation, a denoising and a forecast take, against what they said before they took it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from footprints import check_footprint, on_linux

import sdaxr
from sdaxr.schema import OptionError
from sdaxr.states.fields import StateLayout


def _states(layout: StateLayout, length: int, members: int | None = None) -> xr.Dataset:
    spread, random = float(np.mean(layout.std)), np.random.default_rng(0)
    states = layout.template(layout.times(0.0, length), {} if members is None else {"member": np.arange(members)})
    return states.map(lambda v: v.copy(data=(spread * random.standard_normal(v.shape)).astype("f4")), keep_attrs=True)


def _assimilate(name: str, length: int, members: int, steps: int) -> None:
    # What is drawn again takes no more memory than what was drawn first.
    prior, sampler = sdaxr.open_prior(name), sdaxr.samplers.Ancestral(steps=steps, attempts=1, mixing=False)
    layout, states = prior.layout, _states(prior.layout, length)
    operator = sdaxr.operators.subsample(4, dims=layout.space) if layout.space else sdaxr.operators.identity()
    observations = sdaxr.observe(states, operator, error=3 * float(np.mean(layout.std)))
    sdaxr.assimilate(observations, prior, times=states.time, members=members, progress=False, sampler=sampler)


def _forecast(name: str, length: int, members: int, steps: int) -> None:
    prior, sampler = sdaxr.open_prior(name), sdaxr.samplers.Ancestral(steps=steps)
    sdaxr.forecast(_states(prior.layout, 4, members), prior, steps=length, progress=False, sampler=sampler)


def _denoise(name: str, length: int, members: int, steps: int) -> None:
    prior = sdaxr.open_prior(name)
    error = {v: 0.5 * float(np.mean(s)) for v, s in zip(prior.layout.variables, prior.layout.std, strict=True)}
    sdaxr.denoise(_states(prior.layout, length), prior, error=error, members=members, steps=steps, progress=False)


def _first(members: int, sites: int) -> xr.Dataset:
    values = 3.0 + np.random.default_rng(0).standard_normal((members, 1, sites))
    return xr.Dataset({"x": (("member", "time", "site"), values, {"units": "1"})}, {"time": [0.0]})


def _integrate(steps: int, members: int, sites: int, store: str | None) -> None:
    sdaxr.forecast(_first(members, sites), "lorenz96", steps=steps, sites=sites, store=store, progress=False)


@on_linux
@pytest.mark.parametrize("case", [("lorenz63", 256, 32, 1), ("kolmogorov", 9, 6, 1)], ids=str)
def test_the_peak_of_an_assimilation_is_known_within_a_fifth(case: tuple[str, int, int, int]) -> None:
    check_footprint(_assimilate, *case)


@on_linux
def test_the_peak_of_a_forecast_by_a_prior_is_known_within_a_fifth() -> None:
    check_footprint(_forecast, "lorenz63", 20, 200, 2)


@on_linux
def test_the_peak_of_a_denoising_is_known_within_a_fifth() -> None:
    check_footprint(_denoise, "kolmogorov", 9, 6, 2)


@on_linux
@pytest.mark.parametrize(("steps", "members", "stored"), [(50, 40, False), (800, 2, True)])
def test_the_peak_of_a_forecast_by_a_system_is_known_within_a_fifth(
    steps: int, members: int, stored: bool, tmp_path: Path
) -> None:
    check_footprint(_integrate, steps, members, 20_000, str(tmp_path / "f.zarr") if stored else None)


def test_what_cannot_fit_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = {"steps": 50, "sites": 8, "progress": False}
    monkeypatch.setattr("sdaxr.archives.ensemble.free_here", lambda: 1e4)
    with pytest.raises(
        OptionError, match=r"the ensemble, in memory, takes 1.[0-9]e-05 GB, found 1e-05 .* give a store="
    ):
        sdaxr.forecast(_first(4, 8), "lorenz96", **run)
    assert sdaxr.forecast(_first(4, 8), "lorenz96", store=tmp_path / "f.zarr", **run).sizes["member"] == 4
    monkeypatch.setattr("sdaxr.inference.forecast.free_here", lambda: 1e3)
    with pytest.raises(OptionError, match=r"the forecast of one member takes .* found 1e-06 GB .* take fewer steps"):
        sdaxr.forecast(_first(4, 8), "lorenz96", store=tmp_path / "g.zarr", **run)
    assert [path.name for path in tmp_path.iterdir()] == ["f.zarr"]
