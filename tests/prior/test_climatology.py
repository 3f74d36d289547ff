"""Training on anomalies from a climatology: when it is the default, and what contradicts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from seasons import autoregressive, gridded, hours
from small_training import trained

import sdaxr
from sdaxr import operators as op
from sdaxr.commands.info import info
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.schema import OptionError

SMALL: dict[str, Any] = {"network": {"widths": (4,), "blocks": 1, "patch": 1}, "steps": 2}
TIMES = hours(24 * 20)
DAY = 2 * np.pi * TIMES.dt.hour.values / 24
DRAWN: dict[str, Any] = {"members": 2, "progress": False, "sampler": {"steps": 8, "attempts": 1}}


def record() -> xr.Dataset:
    """Twenty days of fields on a plane that is periodic along x."""
    data = gridded(280 + 6 * np.cos(DAY)[:, None] + autoregressive(TIMES.size, 16, 0.8), TIMES)
    return data.assign_coords(x=("x", np.arange(4.0), {"period": 4.0}))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    folder = tmp_path_factory.mktemp("priors")
    trained(record(), folder / "p.safetensors", **SMALL)
    return open_prior(folder / "p.safetensors")


def test_it_is_the_default_where_days_are_covered(prior: Prior, tmp_path: Path) -> None:
    assert prior.metadata["statistics"]["normalise"] == "climatology" and prior.layout.climatology is not None
    assert abs(prior.reference[0].mean()) < 0.3 and 0.7 < prior.reference[0].std() < 1.3
    facts = info(prior.save(tmp_path / "p.safetensors"))
    assert facts["climatology"] == "harmonics: 6 of the day; of the standard deviation: 2 of the day"
    assert facts["statistics.normalise"] == "climatology"


def test_analyses_and_forecasts_have_physical_units(prior: Prior) -> None:
    data = record()
    truth = data.isel(time=slice(-30, -6))
    seen = sdaxr.observe(truth, op.subsample(2), every=6, error=0.5, seed=0)
    posterior = sdaxr.assimilate(seen, prior, **DRAWN)
    daily = 280 + 6 * np.cos(DAY[-30:-6])
    np.testing.assert_allclose(posterior.t2m.mean(("member", "y", "x")), daily[: posterior.time.size], atol=1.5)
    ahead = sdaxr.forecast(posterior, prior, steps=6, progress=False)
    hour = 2 * np.pi * ahead.valid_time.dt.hour / 24
    np.testing.assert_allclose(ahead.t2m.mean(("member", "y", "x")), 280 + 6 * np.cos(hour), atol=1.5)


@pytest.mark.parametrize(
    "known", [{"homogeneous": ("x",)}, {"symmetries": ({"flip": ("x",)},)}, {"normalise": "channel"}], ids=str
)
def test_stated_statistics_are_instead_of_it(known: dict[str, Any], tmp_path: Path) -> None:
    found = trained(record(), tmp_path / "p.safetensors", statistics=known, **SMALL)
    assert found.layout.climatology is None and found.metadata["statistics"]["normalise"] == "channel"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"homogeneous": ("x",)}, "varies along 'x', so 'x' is not homogeneous"),
        ({"symmetries": ({"flip": ("x",)},)}, "found symmetries of states with land, a climatology or"),
    ],
)
def test_what_contradicts_it(known: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        trained(record(), tmp_path / "p.safetensors", statistics=known | {"normalise": "climatology"}, **SMALL)


def test_a_training_that_goes_on_has_the_climatology_of_the_prior(prior: Prior, tmp_path: Path) -> None:
    """Also on data that have none, because they are too short."""
    later = record().isel(time=slice(0, 40)) + 3
    later = later.assign(t2m=later.t2m.assign_attrs(units="K"))
    found = trained(later, tmp_path / "q.safetensors", start=prior, steps=1, window=None, network="auto")
    np.testing.assert_array_equal(found.layout.moments(TIMES)[0], prior.layout.moments(TIMES)[0])
    assert found.metadata["statistics"]["normalise"] == "climatology"
    assert found.reference[0].mean() > 2


def test_observed_quantities_have_a_climatology_of_their_own(tmp_path: Path) -> None:
    """Of [x, H(x)], the anomalies of H(x) are those from its mean at the hour."""
    double = op.scale(2.0)
    found = trained(record(), tmp_path / "p.safetensors", augment={"double": double}, **SMALL)
    (extra,) = found.augmentation.variables
    assert found.layout.variables == ("t2m", extra) and found.layout.channels == 2
    mean, std = found.layout.moments(TIMES[:24])
    np.testing.assert_allclose(mean[:, 1], 2 * mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(std[:, 1], 2 * std[:, 0], rtol=1e-4)
    seen = sdaxr.observe(record().isel(time=slice(0, 5)), double, error=1.0, seed=0)
    posterior = sdaxr.assimilate(seen, found, method="soad", **DRAWN)
    np.testing.assert_allclose(posterior.t2m.mean(("member", "y", "x")), 280 + 6 * np.cos(DAY[:5]), atol=2)
