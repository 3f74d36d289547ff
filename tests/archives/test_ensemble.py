"""Ensembles: the same in memory and in an archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.ensemble import Ensemble
from sdaxr.schema import ArchiveError, DivergenceError

ATTRS = {"seed": 1, "sdaxr_version": "0"}


def template(start: float = 0.0, dim: str = "time") -> xr.Dataset:
    times = {"time": ("time", start + np.arange(3.0))}
    if dim == "lead_time":
        times = {"lead_time": ("lead_time", np.arange(3.0)), "valid_time": ("lead_time", start + np.arange(3.0))}
    return xr.Dataset({"u": (("member", dim), np.zeros((2, 3), np.float32))}, {"member": [0, 1], **times})


def ensemble(store: Path | None, labels: xr.Dataset | None = None, **options: bool) -> Ensemble:
    labels = template() if labels is None else labels
    return Ensemble.create(labels, ATTRS, store=store, overwrite=False, finite=True, **options)


def fill(members: Ensemble) -> Ensemble:
    for member in sorted(members.waiting):
        members.write(member, {"u": np.full(3, member, np.float32)})
    return members


def test_memory_and_archive_hold_the_same(tmp_path: Path) -> None:
    here = fill(ensemble(None)).dataset({"cost": 2.0})
    there = fill(ensemble(tmp_path / "a.zarr")).dataset({"cost": 2.0})
    kept = {"seed", "sdaxr_version", "cost"}
    there.attrs = {key: value for key, value in there.attrs.items() if key in kept}
    xr.testing.assert_identical(here, there.drop_vars("status").load())
    assert here.member.attrs == {"standard_name": "realization", "long_name": "posterior sample", "units": "1"}
    assert here.u.values[:, 0].tolist() == [0, 1] and here.attrs["cost"] == 2.0


def test_a_template_is_not_changed() -> None:
    labels = template()
    ensemble(None, labels)
    assert not labels.attrs and not labels.member.attrs


@pytest.mark.parametrize("dim", ["time", "lead_time"])
def test_an_ensemble_of_other_times_is_another_one(tmp_path: Path, dim: str) -> None:
    assert not ensemble(tmp_path / "a.zarr", template(dim=dim)).complete
    fill(ensemble(tmp_path / "a.zarr", template(dim=dim))).dataset()
    assert ensemble(tmp_path / "a.zarr", template(dim=dim)).complete
    with pytest.raises(ArchiveError, match=r"start: '0.0' -> '1.0'"):
        ensemble(tmp_path / "a.zarr", template(1.0, dim))


def test_members_that_diverge_are_listed_and_errors_of_another_kind_are_raised(tmp_path: Path) -> None:
    members = ensemble(tmp_path / "a.zarr")
    members.write(0, {"u": np.zeros(3, np.float32)})
    members.fail(1, DivergenceError("blew up"))
    with pytest.raises(ArchiveError, match=r"1 failed \(1: DivergenceError: blew up\)"):
        members.dataset()
    for broken, error in [(members, KeyError("u")), (ensemble(None), DivergenceError("blew up"))]:
        with pytest.raises(type(error)):
            broken.fail(1, error)


@pytest.mark.parametrize("ending", [None, "zarr", "nc"])
def test_members_that_are_to_be_drawn_in_another_way_are_forgotten(tmp_path: Path, ending: str | None) -> None:
    store = None if ending is None else tmp_path / f"a.{ending}"
    members = fill(ensemble(store))
    assert members.members([1]).u.values.tolist() == [[1, 1, 1]] and "why" not in members.notes
    members.restart({"why": "modes"})
    assert members.waiting == {0, 1}
    if store is not None:
        # A run that resumes knows it, and has nothing of what was there.
        members = ensemble(store)
        assert members.notes["why"] == "modes" and members.waiting == {0, 1}
    members.write(1, {"u": np.full(3, 7, np.float32)})
    assert members.members([1]).u.values.tolist() == [[7, 7, 7]]
    members.write(0, {"u": np.full(3, 8, np.float32)})
    assert members.dataset().u.values[:, 0].tolist() == [8, 7]
