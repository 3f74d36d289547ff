"""The recipe of large domains: how it measures seams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from recipe_modules import recipe_modules
from short_fields import ShortFields

import sdaxr

FIELDS = ShortFields(64, scale=3.0)


@pytest.fixture
def run() -> Iterator[SimpleNamespace]:
    with recipe_modules("large_domains", ["run"]) as found:
        yield found.run


def velocities(count: int, seed: int) -> xr.Dataset:
    one, other = (FIELDS.dataset(FIELDS.draw(count, seed=seed + i)).a for i in (0, 1))
    return xr.Dataset({"u": one, "v": other})


def test_seams_are_where_tiles_overlap(run: SimpleNamespace, tmp_path: Path) -> None:
    """Homogeneous fields have none; fields that are smooth where tiles of the last level overlap have some."""
    prior = sdaxr.train(
        velocities(40, 0), tmp_path / "p.safetensors", window=1, steps=0, progress=False,
        statistics={"patches": {"y": 16, "x": 16}}, network={"widths": (4,), "temporal": 0},
    )  # fmt: skip
    states, sampler = velocities(30, 5), run.SAMPLER | {"steps": 4}
    assert run.seams(prior, states, sampler) == pytest.approx(1.0, abs=0.06)
    levels = run.resolve_sampler(prior, sampler).build(**prior.noise_levels(run.STATES)).levels
    seams = states.copy(deep=True)
    for start in prior.denoiser(states.time).starts(levels[-2])[-1]:
        overlap = (start + np.arange(4)) % 64
        for name in ("u", "v"):
            seams[name][..., overlap] = 5 + 0.5 * (states[name].values[..., overlap] - 5)
    assert run.seams(prior, seams, sampler) < 0.85
