"""How far an archive is, on a disk and in a store, and its end."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from object_stores import BUCKET
from toy_archive import CONFIG, template, values

from sdaxr.archives.creation import UnitArchive, create_archive
from sdaxr.archives.paths import Location, located
from sdaxr.archives.progress import finish, progress
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import save
from sdaxr.schema import ArchiveError


@pytest.fixture(params=["disk", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "disk":
        return tmp_path / "a.zarr"
    if request.param == "memory":
        return located(f"memory://{uuid.uuid4().hex}/a.zarr")
    server = request.getfixturevalue("server")
    return located(f"s3://{BUCKET}/{uuid.uuid4().hex}/a.zarr", server.options)


@pytest.fixture(params=["zarr", "nc"])
def store(request: pytest.FixtureRequest, place: Location) -> Location:
    return place.with_name(f"a.{request.param}")


def create(store: Location) -> UnitArchive:
    return create_archive(store, template(), "member", CONFIG)


def test_an_archive_that_is_filled_by_two_tells_how_far_it_is(store: Location) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    first, second = create(store), create(store)
    first.sign(range(2))
    second.sign(range(2, 4))
    first.write(1, values(1))
    second.fail(3, "DivergenceError: too large")
    found = progress(store)
    assert (found.unit, found.finished, found.size) == ("member", False, 4)
    assert (found.complete, found.pending, found.failed) == ([1], [0, 2], {3: "DivergenceError: too large"})
    assert set(found.written) == {1} and before <= found.written[1] <= datetime.now(UTC) + timedelta(seconds=2)
    assert [(w.first, w.stop, w.process) for w in found.writers] == [(0, 2, os.getpid()), (2, 4, os.getpid())]


def test_finish_names_what_is_missing_and_ends_what_is_complete(store: Location) -> None:
    archive = create(store)
    archive.sign(range(4))
    for unit in (0, 3):
        archive.write(unit, values(unit))
    with pytest.raises(ArchiveError, match=r"2 of 4 units \(member\) are complete\. 1-2 are pending\."):
        finish(store)
    with pytest.raises(ArchiveError):
        open_archive(store)
    for unit in (1, 2):
        archive.write(unit, values(unit))
    assert not progress(store).finished
    # What a run that resumes knows is kept.
    archive.note({"mode_test": "not made"})
    archive.note({"mode_test": "made"})
    for _ in range(2):
        assert str(finish(store)) == str(store)
        found = progress(store)
        assert found.finished and found.complete == [0, 1, 2, 3] and found.writers == []
    with open_archive(store) as data:
        assert data.u.isel(time=0, x=0).values.tolist() == [0, 1, 2, 3]
        assert data.attrs["mode_test"] == "not made"


def test_a_finished_archive_that_has_lost_chunks_is_not_finished_again(tmp_path: Path) -> None:
    archive = create(tmp_path / "a.zarr")
    for unit in range(4):
        archive.write(unit, values(unit))
    finish(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "u" / "c" / "2" / "0" / "0").unlink()
    assert progress(tmp_path / "a.zarr").pending == [2]
    with pytest.raises(ArchiveError, match="is not complete: 3 of 4 units"):
        finish(tmp_path / "a.zarr")


@pytest.mark.parametrize("act", [progress, finish])
def test_what_is_no_archive_in_units_is_told(place: Location, act: object) -> None:
    with pytest.raises(ArchiveError, match="there is nothing at"):
        act(place)
    save(template(), place)
    with pytest.raises(ArchiveError, match="was not written in units of work; 'sdaxr info' describes it"):
        act(place)


def test_who_does_not_know_that_all_was_begun_anew_writes_nothing(store: Location) -> None:
    """Otherwise an ensemble would have members that were drawn in two ways."""
    archive, other = create(store), create(store)
    other.write(1, values(1))
    anew = archive.restart({"why": "modes"})
    anew.write(0, values(0))
    for late in (lambda: other.write(2, values(2)), lambda: other.restart({}), lambda: archive.write(3, values(3))):
        with pytest.raises(ArchiveError, match="begun anew by another process.* run the job again"):
            late()
    assert progress(store).complete == [0]
    for unit in create(store).pending():
        create(store).write(unit, values(unit))
    with open_archive(finish(store)) as data:
        assert data.attrs["why"] == "modes"
