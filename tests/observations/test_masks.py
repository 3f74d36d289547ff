"""Masks: how many places, which ones, at what times; and observations under them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr import random_mask, strided_mask
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, GridError, OptionError


@pytest.fixture
def truth(trajectories) -> xr.Dataset:
    """Fields (time 12, y 8, x 8)."""
    return trajectories.isel(trajectory=0, drop=True)


@pytest.fixture
def line(truth) -> xr.Dataset:
    """Fields on one horizontal dimension, (time 12, site 8)."""
    return truth.isel(y=0, drop=True).rename(x="site")


def counts(mask: xr.DataArray) -> np.ndarray:
    return mask.sum([d for d in mask.dims if d != "time"]).values


def test_random_places_are_as_many_as_the_coverage_says(truth):
    mask = random_mask(truth, 0.25, seed=1)
    assert mask.dtype == bool and mask.sizes == {"time": 12, "y": 8, "x": 8}
    xr.testing.assert_identical(mask.x.variable, truth.x.variable)
    np.testing.assert_array_equal(counts(mask), 16)
    assert len({m.tobytes() for m in mask.values}) == 12, "drawn anew at each time"
    assert random_mask(truth, 1).all() and (counts(random_mask(truth, 0.01)) == 1).all()


def test_fixed_places_are_the_same_at_all_times(truth):
    mask = random_mask(truth, 0.25, fixed=True, seed=1)
    assert (mask == mask[0]).all() and (counts(mask) == 16).all()
    assert (mask <= random_mask(truth, 0.5, fixed=True, seed=1)).all(), "a larger coverage adds places"


def test_the_seed_decides_where(truth):
    first, again, other = (random_mask(truth, 0.25, seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert (first != other).any()


def test_random_places_are_everywhere_alike(truth):
    long = truth.isel(time=np.zeros(4000, int)).drop_vars("time")
    share = random_mask(long, 0.25).mean("time")
    np.testing.assert_allclose(share, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_a_fixed_stride_is_that_of_subsample(truth, line):
    mask = strided_mask(truth, 4)
    xr.testing.assert_equal(truth.where(mask, drop=True), op.subsample(4).apply(truth))
    np.testing.assert_array_equal(strided_mask(line, 3).values, np.tile(np.arange(8) % 3 == 0, (12, 1)))


@pytest.mark.parametrize("stride", [2, 3])
def test_a_shift_of_one_comes_by_each_place_once(truth, line, stride):
    """Row by row through the blocks: after stride (stride**2) times each place was observed once."""
    for data, period in ((line, stride), (truth, stride**2)):
        mask = strided_mask(data, stride, shift=1)
        assert (mask[:period].sum("time") == 1).all()
        assert (mask[period : 2 * period].values == mask[: 12 - period][:period].values).all()
    mask = strided_mask(truth, 4, shift=-1)
    assert mask[0, 0, 0] and mask[1, 3, 3] and mask[2, 3, 2]


def test_one_mask_for_all_layers_and_any_names(truth):
    layered = truth.rename(y="lat", x="lon").expand_dims(level=[500.0, 850.0]).transpose("lon", "level", ...)
    fixed = layered.assign(orography=("cell", np.zeros(3)))
    for mask in (random_mask(fixed, 0.25), strided_mask(fixed, 2)):
        assert mask.dims == ("time", "lon", "lat")
        found = observe(layered, op.identity(), error=0.1, where=mask)
        seen = found.u.notnull()
        assert (seen == mask).all() and seen.equals(found.v.notnull()) and "level" in seen.dims


def test_without_times_there_is_one_pattern(truth):
    mask = strided_mask(truth.isel(time=0, drop=True), 4, shift=1)
    assert mask.dims == ("y", "x") and mask.sum() == 4


def test_observations_are_where_the_mask_is_and_say_so(truth):
    mask = random_mask(truth, 0.25, seed=4)
    full = observe(truth, op.identity(), error=0.1, seed=3)
    found = truth.sda.observe(op.identity(), error=0.1, seed=3, where=mask)
    for name in ("u", "v"):
        xr.testing.assert_identical(found[name], full[name].where(mask).assign_attrs(full[name].attrs))
    assert found.attrs == full.attrs | {"coverage": 0.25}
    sparse = observe(truth, op.identity(), error=0.1, seed=3, where=mask, missing=0.5)
    assert 0 < sparse.u.count() < found.u.count() and not (sparse.u.notnull() & ~mask).any()


def test_parameters_are_those_of_the_mask_at_the_observed_times(truth):
    settings = {"error": 0.1, "every": 3, "start": 1, "seed": 5}
    seen = op.coarsen(2).apply(truth).isel(time=slice(1, None, 3))
    for where, mask in [
        ({"coverage": 0.25, "fixed": True}, random_mask(seen, 0.25, fixed=True, seed=5)),
        ({"coverage": 0.25, "seed": 9}, random_mask(seen, 0.25, seed=9)),
        ({"stride": 2, "shift": 1}, strided_mask(seen, 2, shift=1)),
    ]:
        found = observe(truth, op.coarsen(2), where=where, **settings)
        assert json.loads(found.attrs["where"]) == where and found.attrs["coverage"] == 0.25
        xr.testing.assert_equal(found, observe(truth, op.coarsen(2), where=mask, **settings))


def test_a_mask_may_have_fewer_dimensions_and_more_times(truth):
    half = truth.x < np.pi
    found = observe(truth, op.identity(), error=0.1, where=half)
    assert (found.u.notnull() == half).all() and found.attrs["coverage"] == 0.5
    early = truth.time < 1.0
    assert (observe(truth, op.identity(), error=0.1, where=early).u.notnull() == early).all()
    mask = random_mask(truth, 0.25)
    found = observe(truth, op.identity(), every=4, error=0.1, where=mask)
    assert (found.u.notnull() == mask.isel(time=slice(None, None, 4))).all()
    sites = op.points({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 4.0]})
    assert (observe(truth, sites, error=0.1, where={"coverage": 0.5}).u.notnull().sum("station") == 2).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ds: random_mask(ds, 0), "coverage is 0, expected a fraction above 0"),
        (lambda ds: random_mask(ds, 1.5), "coverage is 1.5"),
        (lambda ds: random_mask(ds, "1e-2"), "coverage is '1e-2'"),
        (lambda ds: random_mask(ds, 0.001), "0.001 of 64 places, which is none; expected 0.016"),
        (lambda ds: strided_mask(ds, 0), "stride is 0, expected a whole number from 1 to 8"),
        (lambda ds: strided_mask(ds, 9), "stride is 9"),
        (lambda ds: strided_mask(ds, 2.0), "stride is 2.0"),
        (lambda ds: strided_mask(ds, 2, shift=0.5), "shift is 0.5"),
    ],
)
def test_impossible_masks_are_refused(truth, make, message):
    with pytest.raises(OptionError, match=message):
        make(truth)


def test_grids_of_other_numbers_of_dimensions_are_refused(truth):
    with pytest.raises(DataError, match=r"found the horizontal dimensions \[\], expected one or two"):
        random_mask(truth.isel(y=0, x=0), 0.5)
    with pytest.raises(DataError, match=r"\[\['y', 'x', 'z'\]\], expected one or two"):
        strided_mask(truth.expand_dims(z=2).transpose("time", "y", "x", "z"), 2)
    with pytest.raises(DataError, match=r"\[\['y', 'x'\], \['site'\]\].*ds\[\['u', 'v'\]\]"):
        random_mask(truth.assign(gauge=(("time", "site"), np.zeros((12, 3)))), 0.5)


@pytest.mark.parametrize(
    ("where", "kind", "message"),
    [
        (lambda ds: 0.5, OptionError, "where= is 0.5, expected a boolean DataArray, or parameters"),
        (lambda ds: {"covrage": 0.5}, OptionError, r"parameters \['covrage'\], expected 'coverage'"),
        (lambda ds: {"coverage": 0.5, "shift": 1}, OptionError, "'shift'; expected one of coverage, fixed, seed"),
        (lambda ds: ds.u, DataError, "holds float32, expected bool.*mask > 0"),
        (
            lambda ds: random_mask(ds, 0.5).rename(x="lon"),
            DataError,
            r"\['lon'\], expected some of \['time', 'y', 'x'\]",
        ),
        (
            lambda ds: random_mask(ds.isel(x=slice(4)), 0.5),
            GridError,
            "'x' has 4 points in where= and 8 in the observations.*operator.apply",
        ),
        (lambda ds: random_mask(ds, 0.5).assign_coords(x=ds.x + 1), GridError, "is not among the former"),
        (
            lambda ds: random_mask(ds.isel(time=slice(1, None)), 0.5),
            GridError,
            "where= has 11 points .* in time, expected 0.0 among them",
        ),
        (lambda ds: ds.x > 100, DataError, "leaves nothing.*choose other places or times"),
        (lambda ds: ds.u.isnull(), DataError, "leaves nothing"),
    ],
)
def test_what_is_no_mask_of_the_observations_is_refused(truth, where, kind, message):
    land = truth.where(truth.x > 1)
    with pytest.raises(kind, match=message):
        observe(land, op.identity(), error=0.1, where=where(land))


def test_places_of_a_mask_are_found_by_their_labels(truth: xr.Dataset) -> None:
    mask = random_mask(truth, 0.25, seed=1)
    expected = observe(truth, op.identity(), error=0.1, where=mask)
    for other in (
        mask.isel(x=slice(None, None, -1), y=slice(None, None, -1)),
        mask.isel(time=slice(None, None, -1)),
        mask.assign_coords(x=mask.x.astype("float32"), time=mask.time.astype("float32")),
        mask.drop_vars("y"),
    ):
        xr.testing.assert_identical(observe(truth, op.identity(), error=0.1, where=other), expected)
