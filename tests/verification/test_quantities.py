"""Test quantities against what is computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, OptionError
from sdaxr.verification.densities import log_likelihood
from sdaxr.verification.quantities import KINDS, Quantities

RANDOM = np.random.default_rng(0)
HOW = {"every": 2, "start": 1, "error": 0.5, "seed": 1}


def fields(members: int | None = None) -> xr.Dataset:
    """u and v on (time 6, y 3, x 4), with land at one point."""
    shape, dims = (6, 3, 4), ("time", "y", "x")
    if members:
        shape, dims = (members, *shape), ("member", *dims)
    data = {n: (dims, RANDOM.standard_normal(shape), {"units": "m"}) for n in "uv"}
    coords = {"time": ("time", 0.5 * np.arange(6), {"units": "1"}), "y": np.arange(3.0), "x": np.arange(4.0)}
    found = xr.Dataset(data, coords)
    return found.where((found.y > 0) | (found.x > 0)).assign_attrs()


def chosen(kinds: object = None, points: object = 3) -> tuple[Quantities, xr.Dataset]:
    seen = observe(fields(), op.select("u"), **HOW)
    return Quantities.choose(kinds, points, fields(), seen, op.select("u"), 0), seen


def test_labels_say_what_is_computed() -> None:
    found, _ = chosen(points={"time": [0, 5], "y": [1, 2], "x": [3, 0]})
    labels = found.labels
    assert labels["quantity"].values[:4].tolist() == [
        "u[0, y 1, x 3]",
        "u[5, y 2, x 0]",
        "v[0, y 1, x 3]",
        "v[5, y 2, x 0]",
    ]
    assert labels["quantity"].values[4:8].tolist() == ["mean of u", "mean of v", "energy of u", "energy of v"]
    assert labels["quantity"].values[-1] == "log-likelihood"
    assert list(dict.fromkeys(labels["quantity_kind"].values)) == list(KINDS)
    assert labels["quantity_variable"].values.tolist()[8:] == ["u", "u", ""]


def test_values_of_members_and_of_a_truth_are_the_same_functions() -> None:
    found, seen = chosen(points={"time": [0, 5], "y": [1, 2], "x": [3, 0]})
    many = fields(4)
    values, one = found.of(many, seen), found.of(many.isel(member=2), seen)
    assert values.shape == (4, found.labels.sizes["quantity"])
    np.testing.assert_allclose(values[2], one, rtol=1e-12)
    u, v = many.u.values[2], many.v.values[2]
    expected = [u[0, 1, 3], u[5, 2, 0], v[0, 1, 3], v[5, 2, 0], np.nanmean(u), np.nanmean(v)]
    np.testing.assert_allclose(one[:8], [*expected, np.nanvar(u) / 2, np.nanvar(v) / 2])
    where = found.observed["u"]
    np.testing.assert_allclose(one[8:10], u[1::2][where["time"], where["y"], where["x"]])
    assert one[-1] == pytest.approx(float(log_likelihood(many.isel(member=2), seen)))


def test_random_positions_have_values_and_follow_from_the_seed() -> None:
    found, seen = chosen(["state"], 8)
    again = Quantities.choose(["state"], 8, fields(), seen, op.select("u"), 0)
    other = Quantities.choose(["state"], 8, fields(), seen, op.select("u"), 1)
    names = found.labels["quantity"].values.tolist()
    assert len(set(names)) == 16 and names == again.labels["quantity"].values.tolist()
    assert names != other.labels["quantity"].values.tolist()
    assert np.isfinite(found.of(fields(3), seen)).all()
    # Of fewer values than points, each is taken once.
    whole = Quantities.choose(["state"], 1000, fields(), seen, op.select("u"), 0)
    assert whole.labels.sizes["quantity"] == 2 * 6 * 11


@pytest.mark.parametrize(
    ("kinds", "points", "message"),
    [
        (["states"], 3, "unknown quantity 'states'.*Did you mean 'state'"),
        ([], 3, "found no quantities"),
        (None, 0, "points=0, expected a whole number of at least 1"),
        (None, {"time": [0]}, "expected lists of indices along time, y, x"),
        (None, {"time": [0], "y": [1, 2], "x": [1]}, "as many for each"),
        (None, {"time": 0, "y": 1, "x": 1}, "expected lists of indices"),
        (None, {"time": [9], "y": [1], "x": [1]}, "the index 9 along 'time'.*expected 0 to 5"),
        (None, {"time": [0.5], "y": [1], "x": [1]}, "the index 0.5 along 'time'"),
        (None, {"time": [0], "y": [0], "x": [0]}, "where 'u' of the truth is NaN"),
    ],
)
def test_what_cannot_be_chosen_is_refused(kinds: object, points: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        chosen(kinds, points)


def test_a_variable_without_values_is_refused() -> None:
    with pytest.raises(DataError, match="'v' of the truth has no value"):
        Quantities.choose(None, 3, fields().assign(v=fields().v * np.nan), chosen()[1], op.select("u"), 0)
