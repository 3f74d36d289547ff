"""Archives that cannot lie: what is refused, what is resumed, what survives a kill."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr
from toy_archive import CONFIG, filled, template, tree, values

from sdaxr.archives import reading
from sdaxr.archives.creation import create_archive
from sdaxr.archives.format import COMPLETE, FAILED, PENDING, STATUS, open_group
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import save
from sdaxr.archives.units import failures
from sdaxr.schema import ArchiveError

# Life of an archive --------------------------------------------------------------------------------------------


def test_a_finished_archive_opens_as_it_was_written(tmp_path):
    path = tmp_path / "a.zarr"
    assert filled(path).finalise() == path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]
    data = open_archive(path)
    expected = template()
    for index in range(4):
        expected["u"][index], expected["total"][index] = values(index)["u"], values(index)["total"]
    xr.testing.assert_identical(data.drop_vars("status").drop_attrs(deep=False), expected.drop_attrs(deep=False))
    assert (data.status == COMPLETE).all() and data.status.dtype == np.int8
    assert data.attrs["source"] == "a test" and data.attrs["title"] == "toy"
    assert data.u.chunks == ((1, 1, 1, 1), (3,), (5,))
    assert data.kind.dtype == object and data.kind.values.tolist() == ["a", "b", "c", "d"]
    # Plain xarray reads it, and warnings are errors here.
    xr.testing.assert_equal(xr.open_zarr(path).load(), data.load())


def test_it_survives_a_round_trip_through_netcdf(tmp_path):
    filled(tmp_path / "a.zarr").finalise()
    data = open_archive(tmp_path / "a.zarr")
    data.to_netcdf(tmp_path / "a.nc")
    again = open_archive(tmp_path / "a.nc")
    xr.testing.assert_identical(again.load(), data.load())
    assert again.kind.dtype == object


def test_unfinished_archives_are_refused_unless_asked_for(tmp_path):
    path = tmp_path / "a.zarr"
    archive = filled(path, skip=(1, 3))
    assert archive.pending() == [1, 3] and not archive.complete
    assert archive.status().tolist() == [COMPLETE, PENDING, COMPLETE, PENDING]
    with pytest.raises(ArchiveError, match=r"2 of 4 units \(member\) are complete.*resume it, or pass allow_inc"):
        open_archive(path)
    with pytest.raises(ArchiveError, match="is not finished"):
        archive.finalise()
    part = open_archive(path, allow_incomplete=True)
    assert part.member.values.tolist() == [0, 2]
    np.testing.assert_array_equal(part.total, [0, 30])
    xr.testing.assert_identical(part, open_archive(f"{path}.partial", allow_incomplete=True))


def test_resuming_does_only_what_is_missing_and_gives_the_same_bytes(tmp_path):
    filled(tmp_path / "whole.zarr").finalise()
    filled(tmp_path / "resumed.zarr", skip=(0, 2))
    again = create_archive(tmp_path / "resumed.zarr", template(), "member", CONFIG)
    assert again.pending() == [0, 2]
    for index in (2, 0):
        again.write(index, values(index))
    again.finalise()
    assert tree(tmp_path / "whole.zarr") == tree(tmp_path / "resumed.zarr")


def test_units_are_those_of_their_numbers_while_others_are_written(tmp_path, monkeypatch):
    archive = filled(tmp_path / "a.zarr", skip=(0, 3))

    def opened(*args):
        data = reading_opened(*args)
        archive.write(0, values(0))
        return data

    reading_opened = reading.opened
    monkeypatch.setattr(reading, "opened", opened)
    found = archive.units([1, 2])
    assert found.member.values.tolist() == [1, 2]
    np.testing.assert_array_equal(found.total, [values(1)["total"], values(2)["total"]])
    with pytest.raises(ArchiveError, match="chunk"):
        archive.units([3])
    # One that was complete, and is not any more.
    monkeypatch.undo()
    again = archive.restart({})
    with pytest.raises(ArchiveError, match=r"units \[1\] were asked for"):
        again.units([1])


def test_a_complete_archive_of_the_same_configuration_is_kept(tmp_path):
    filled(tmp_path / "a.zarr").finalise()
    before = tree(tmp_path / "a.zarr")
    archive = create_archive(tmp_path / "a.zarr", template(), "member", CONFIG)
    assert archive.complete and archive.pending() == [] and archive.is_complete(2)
    archive.write(2, values(3))  # a straggler changes nothing
    archive.fail(2, "late")
    assert archive.finalise() == tmp_path / "a.zarr"
    assert tree(tmp_path / "a.zarr") == before
    assert not (tmp_path / "a.zarr.partial").exists()


@pytest.mark.parametrize("finish", [True, False])
def test_another_configuration_is_refused_with_the_difference(tmp_path, finish):
    archive = filled(tmp_path / "a.zarr")
    if finish:
        archive.finalise()
    other = {"system": "toy", "options": {"step": 0.2}, "seed": 0, "extra": [1]}
    message = r"extra: nothing -> \[1\]; options.step: 0.1 -> 0.2"
    with pytest.raises(ArchiveError, match=message):
        create_archive(tmp_path / "a.zarr", template(), "member", other)
    anew = create_archive(tmp_path / "a.zarr", template(), "member", other, overwrite=True)
    assert anew.pending() == [0, 1, 2, 3]


def test_failures_are_marked_listed_and_tried_again(tmp_path):
    archive = filled(tmp_path / "a.zarr", skip=(1,))
    archive.fail(1, "DivergenceError: blew up")
    archive.fail(0, "late")  # complete already
    assert archive.status().tolist() == [COMPLETE, FAILED, COMPLETE, COMPLETE]
    assert failures(tmp_path / "a.zarr.partial", archive.status()) == {1: "DivergenceError: blew up"}
    assert archive.pending() == [1]
    with pytest.raises(ArchiveError, match=r"1 failed \(1: DivergenceError: blew up\)"):
        archive.finalise()
    assert open_archive(tmp_path / "a.zarr", allow_incomplete=True).member.values.tolist() == [0, 2, 3]
    archive.write(1, values(1))
    assert failures(tmp_path / "a.zarr.partial", archive.status()) == {}
    archive.finalise()
    filled(tmp_path / "b.zarr").finalise()
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


# Lost units, and archives that are replaced ---------------------------------------------------------------------


def lose_a_chunk(path):
    (path / "u" / "c" / "1" / "0" / "0").unlink()


def mark_as_pending(path):
    open_group(path, mode="r+")[STATUS][1] = PENDING


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_a_chunk, r"3 of 4 units .* 1 chunks are missing, the first is \(1, 0, 0\) of 'u'"),
        (mark_as_pending, r"is not complete: 3 of 4 units \(member\) are complete"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_finished_archive_that_lost_a_unit_is_refused_and_mended(tmp_path, caplog, damage, message, overwrite):
    filled(tmp_path / "whole.zarr").finalise()
    filled(tmp_path / "a.zarr").finalise()
    damage(tmp_path / "a.zarr")
    with pytest.raises(ArchiveError, match=f"{message}.*Run the same job again to do the others anew, or overwrite"):
        open_archive(tmp_path / "a.zarr")
    assert open_archive(tmp_path / "a.zarr", allow_incomplete=True).member.values.tolist() == [0, 2, 3]
    again = create_archive(tmp_path / "a.zarr", template(), "member", CONFIG, {"source": "a test"}, overwrite=overwrite)
    assert again.pending() == ([0, 1, 2, 3] if overwrite else [1])
    assert ("has lost 1 units" in caplog.text) is not overwrite
    for index in again.pending():
        again.write(index, values(index))
    again.finalise()
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "whole.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "whole.zarr"]


def test_lost_labels_cannot_be_mended(tmp_path):
    filled(tmp_path / "a.zarr").finalise()
    (tmp_path / "a.zarr" / "x" / "c" / "0").unlink()
    for call in (open_archive, lambda path: create_archive(path, template(), "member", CONFIG)):
        with pytest.raises(ArchiveError, match=r"the chunk \(0\) of 'x' is missing.*overwrite"):
            call(tmp_path / "a.zarr")
    assert create_archive(tmp_path / "a.zarr", template(), "member", CONFIG, overwrite=True).pending() == [0, 1, 2, 3]


def test_a_chunk_that_was_lost_before_the_end_is_written_again(tmp_path):
    archive = filled(tmp_path / "a.zarr")
    lose_a_chunk(tmp_path / "a.zarr.partial")
    with pytest.raises(ArchiveError, match="3 of 4 units.*1 chunks are missing"):
        archive.finalise()
    assert create_archive(tmp_path / "a.zarr", template(), "member", CONFIG).pending() == [1]


def test_the_old_archive_stays_until_the_new_one_is_complete(tmp_path):
    filled(tmp_path / "a.zarr").finalise()
    other = CONFIG | {"seed": 1}
    anew = create_archive(tmp_path / "a.zarr", template(), "member", other, overwrite=True)
    for index in range(4):
        assert not anew.complete
        assert open_archive(tmp_path / "a.zarr").total.values.tolist() == [0, 15, 30, 45]
        anew.write(index, values(index + 1))
    # A run that was killed is resumed, whether it overwrites or not.
    for overwrite in (False, True):
        again = create_archive(tmp_path / "a.zarr", template(), "member", other, overwrite=overwrite)
        assert again.pending() == [] and not again.complete
    anew.finalise()
    assert open_archive(tmp_path / "a.zarr").total.values.tolist() == [15, 30, 45, 60]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_writers_of_another_configuration_do_not_write_into_each_others_archive(tmp_path):
    first = filled(tmp_path / "a.zarr", skip=(3,))
    second = create_archive(tmp_path / "a.zarr", template(), "member", CONFIG | {"seed": 1}, overwrite=True)
    for late in (
        lambda: first.write(3, values(3)),
        lambda: first.fail(3, "late"),
        lambda: first.is_complete(3),
        first.status,
        first.pending,
        first.finalise,
    ):
        with pytest.raises(ArchiveError, match="is gone or replaced; run the job again"):
            late()
    assert second.pending() == [0, 1, 2, 3]


def test_a_file_that_appeared_in_the_meantime_stays(tmp_path):
    archive = filled(tmp_path / "a.zarr")
    save(xr.Dataset({"mine": ((), 1)}), tmp_path / "a.zarr")
    with pytest.raises(ArchiveError, match="has been written by another process in the meantime"):
        archive.finalise()
    assert open_archive(tmp_path / "a.zarr").mine == 1


def test_a_part_of_an_archive_is_not_the_archive(tmp_path):
    filled(tmp_path / "a.zarr").finalise()
    part = xr.open_zarr(tmp_path / "a.zarr").isel(member=slice(2)).load()
    part.to_zarr(tmp_path / "part.zarr", consolidated=False)
    assert open_archive(tmp_path / "part.zarr").sizes["member"] == 2
    with pytest.raises(ArchiveError, match="is no archive of sdaxr"):
        create_archive(tmp_path / "part.zarr", template(), "member", CONFIG)


# What is refused -----------------------------------------------------------------------------------------------


def test_foreign_and_missing_paths_are_refused(tmp_path):
    with pytest.raises(ArchiveError, match="there is nothing at"):
        open_archive(tmp_path / "missing.zarr")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "precious.txt").write_text("mine")
    (tmp_path / "text.nc").write_text("no data")
    with pytest.raises(ArchiveError, match="a directory without Zarr metadata"):
        open_archive(tmp_path / "folder.zarr")
    with pytest.raises(
        ArchiveError, match="text.nc' cannot be read as a NetCDF file: its first bytes are those of no such file$"
    ):
        open_archive(tmp_path / "text.nc")
    for name in ("folder.zarr", "text.nc"):
        with pytest.raises(ArchiveError, match="is no archive of sdaxr; choose another path"):
            create_archive(tmp_path / name, template(), "member", CONFIG)
        with pytest.raises(ArchiveError, match="not overwritten"):
            create_archive(tmp_path / name, template(), "member", CONFIG, overwrite=True)
    assert (tmp_path / "folder.zarr" / "precious.txt").read_text() == "mine"


def test_other_peoples_zarr_opens_as_it_is(tmp_path):
    data = xr.Dataset({"t2m": ("time", [1.0, 2.0])})
    data.to_zarr(tmp_path / "foreign.zarr", consolidated=False)
    xr.testing.assert_identical(open_archive(tmp_path / "foreign.zarr").load(), data)


# Many processes, and kills -------------------------------------------------------------------------------------

# Four processes fill one archive and are killed, again and again. Forked from a process that has imported
# everything but started no thread, so that a generation of writers costs milliseconds.
DRIVER = """
import multiprocessing, random, signal, sys, time
import cf_xarray.units, dask.array, distributed, tqdm.auto, xarray, zarr
from pathlib import Path
from sdaxr.systems.generation import generate

store, kills, units = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
partial = store.with_name(store.name + ".partial")
context = multiprocessing.get_context("fork")
random.seed(int(sys.argv[4]))

def work():
    generate("lorenz96", store, trajectories=units, steps=20, seed=3, progress=False, spin_up=100)

def start():
    processes = [context.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    return processes

def done():
    return sum(1 for f in (partial / "status" / "c").glob("*") if f.suffix != ".partial")

for kill in range(kills):
    before, processes = done(), start()
    enough = before + random.randrange(0, 4)
    while done() < enough and any(p.is_alive() for p in processes):
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    assert all(p.exitcode == -signal.SIGKILL for p in processes), "finished before it was killed"
    assert not store.exists()
processes = start()
for process in processes:
    process.join()
sys.exit(max(abs(p.exitcode) for p in processes))
"""


def run_driver(store, kills, units, seed=0):
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        textwrap.dedent(DRIVER),
        str(store),
        str(kills),
        str(units),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [*command, str(seed)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    from sdaxr.systems.generation import generate

    path = tmp_path_factory.mktemp("reference") / "a.zarr"
    generate("lorenz96", path, trajectories=64, steps=20, seed=3, progress=False, spin_up=100)
    return tree(path)


def test_ten_kills_with_four_processes_leave_the_same_bytes(tmp_path, uninterrupted):
    run_driver(tmp_path / "a.zarr", kills=10, units=64)
    assert tree(tmp_path / "a.zarr") == uninterrupted
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_four_processes_at_once_lose_nothing(tmp_path, uninterrupted):
    run_driver(tmp_path / "a.zarr", kills=0, units=64)
    assert tree(tmp_path / "a.zarr") == uninterrupted
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_an_archive_is_held_alone_on_a_network_file_system(tmp_path, monkeypatch):
    """Such a file system locks what is open for writing for one holder, and nothing else."""
    archive = filled(tmp_path / "a.zarr")
    flock = fcntl.flock

    def of_network(descriptor, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", of_network)
    with archive._locked(fcntl.LOCK_EX) as there, open(archive._partial / "status" / "zarr.json") as other:
        assert there
        with pytest.raises(BlockingIOError):
            flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert archive.finalise() == tmp_path / "a.zarr"
    with archive._locked(fcntl.LOCK_EX) as there:
        assert not there


def test_what_a_writer_has_left_that_was_killed_last_is_removed(tmp_path):
    """Killed between the rename and the removal of its workspace: the archive is finished, and opened only."""
    filled(tmp_path / "a.zarr").finalise()
    (tmp_path / f".a.zarr.{'0' * 32}.partial").mkdir()
    (tmp_path / f".b.zarr.{'0' * 32}.partial").mkdir()
    assert filled(tmp_path / "a.zarr").complete
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".b.zarr.{'0' * 32}.partial", "a.zarr"]
