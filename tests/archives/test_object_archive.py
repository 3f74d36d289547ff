"""Archives in object stores: a unit is complete or absent, whatever fails, without renames and without locks."""

from __future__ import annotations

import json
import pickle
import uuid

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from object_stores import BUCKET, FORBIDDEN, LOST, REPORTED, SLOW, UNAVAILABLE, failing
from processes import forked
from toy_archive import CONFIG, filled, template, tree, values
from zarr.storage import MemoryStore

import sdaxr
from sdaxr.archives.creation import create_archive
from sdaxr.archives.format import COMPLETE, FAILED, PENDING
from sdaxr.archives.objects import Objects
from sdaxr.archives.paths import located
from sdaxr.archives.reading import open_archive
from sdaxr.archives.remote import Remote
from sdaxr.commands.cli import main
from sdaxr.schema import ArchiveError

OTHER = CONFIG | {"seed": 1}


@pytest.fixture(params=["memory", "s3", "store"])
def folder(request) -> Remote:
    """Where an archive may be: in the memory of this process, on an S3 server, or in a store of Zarr."""
    name = uuid.uuid4().hex
    if request.param == "s3":
        server = request.getfixturevalue("server")
        server.fault = lambda method, path: None
        return located(f"s3://{BUCKET}/{name}", server.options)
    return located(MemoryStore()) if request.param == "store" else located(f"memory://{name}")


@pytest.fixture
def place(folder) -> Remote:
    return folder if folder.held is not None else folder / "a.zarr"


def objects_of(place):
    """Every object; metadata as parsed JSON."""
    objects = Objects.of(place)
    found = {key: objects.get(key) for key in sorted(objects.keys(""))}
    return {key: json.loads(data) if key.endswith(".json") else data for key, data in found.items()}


def test_it_has_the_same_objects_as_the_files_of_a_directory(place, tmp_path):
    filled(tmp_path / "a.zarr").finalise()
    assert filled(place).finalise() == place
    assert objects_of(place) == tree(tmp_path / "a.zarr")
    assert create_archive(place, template(), "member", CONFIG).complete
    xr.testing.assert_identical(open_archive(place).load(), open_archive(tmp_path / "a.zarr").load())
    # Plain xarray reads it, and warnings are errors here.
    data = xr.open_zarr(place.store(read_only=True))
    xr.testing.assert_equal(data.load(), open_archive(place).load())


def test_nobody_finds_a_group_until_all_units_are_complete(place):
    archive = filled(place, skip=(1, 3))
    assert archive.pending() == [1, 3] and not archive.complete and archive.is_complete(0)
    assert archive.status().tolist() == [COMPLETE, PENDING, COMPLETE, PENDING]
    with pytest.raises(ArchiveError, match=r"2 of 4 units \(member\) are complete.*resume it, or pass allow_inc"):
        open_archive(place)
    with pytest.raises(ArchiveError, match="is not finished: 2 of 4"):
        archive.finalise()
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(place.store(read_only=True), consolidated=False)
    part = open_archive(place, allow_incomplete=True)
    assert part.member.values.tolist() == [0, 2] and part.total.values.tolist() == [0, 30]
    np.testing.assert_array_equal(archive.units([2]).total, [30])


def test_resuming_does_only_what_is_missing_and_gives_the_same_bytes(place, tmp_path):
    filled(place, skip=(0, 2))
    again = create_archive(place, template(), "member", CONFIG)
    assert again.pending() == [0, 2]
    for index in (2, 0):
        again.write(index, values(index))
    again.finalise()
    assert again.pending() == [] and again.status().tolist() == [COMPLETE] * 4
    again.write(2, values(3))  # a straggler changes nothing
    filled(tmp_path / "a.zarr").finalise()
    xr.testing.assert_identical(
        open_archive(place).load().drop_attrs(), open_archive(tmp_path / "a.zarr").load().drop_attrs()
    )


def test_failures_are_marked_listed_and_tried_again(place):
    archive = filled(place, skip=(1,))
    archive.fail(1, "DivergenceError: blew up")
    archive.fail(0, "late")  # complete already
    assert archive.status().tolist() == [COMPLETE, FAILED, COMPLETE, COMPLETE] and archive.pending() == [1]
    with pytest.raises(ArchiveError, match=r"1 failed \(1: DivergenceError: blew up\)"):
        archive.finalise()
    archive.write(1, values(1))
    archive.finalise()
    assert not any("partial" in key for key in objects_of(place))


def test_another_configuration_is_refused_and_replaced_when_asked(place):
    old = filled(place, skip=(1,))
    with pytest.raises(ArchiveError, match=r"another configuration \(there -> in this run\): seed: 0 -> 1"):
        create_archive(place, template(), "member", OTHER)
    new = filled(place, config=OTHER, overwrite=True)
    for call in (lambda: old.write(1, values(1)), old.finalise, old.status, lambda: old.fail(1, "no")):
        with pytest.raises(ArchiveError, match="is gone or replaced"):
            call()
    new.finalise()
    assert filled(place, config=OTHER).complete
    assert not create_archive(place, template(), "member", CONFIG, overwrite=True).complete


def test_an_archive_is_no_finished_one_if_its_successor_is_unfinished(place):
    filled(place).finalise()
    root = Objects.of(place).get("zarr.json")
    filled(place, config=OTHER, skip=(0,), overwrite=True)
    # The last request of a process of the old archive that was held up.
    Objects.of(place, read_only=False).put({"zarr.json": root})
    with pytest.raises(ArchiveError, match="3 of 4 units"):
        open_archive(place)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("moment", range(6))
def test_another_process_may_create_the_archive_at_any_moment(monkeypatch, moment, whole):
    place = located(f"memory://{uuid.uuid4().hex}/a.zarr")
    asked = []

    def between(function):
        def ask(*args):
            found = function(*args)
            asked.append(args)
            if len(asked) == moment + 1:
                other = filled(place, skip=() if whole else (1, 2))
                if whole:
                    other.finalise()
            return found

        return ask

    for name in ("get", "keys"):
        monkeypatch.setattr(Objects, name, between(getattr(Objects, name)))
    filled(place).finalise()
    assert len(asked) > moment
    np.testing.assert_array_equal(open_archive(place).u[:, 0, 0], range(4))


def test_restart_forgets_units_and_keeps_notes(place):
    archive = filled(place)
    archive.restart({"why": "modes"})
    assert archive.pending() == [0, 1, 2, 3] and archive.notes()["why"] == "modes"
    filled(place).finalise({"at": "the end"})
    assert open_archive(place).attrs["why"] == "modes" and open_archive(place).attrs["at"] == "the end"


@pytest.mark.parametrize("finish", [True, False])
def test_a_lost_chunk_is_found_and_its_unit_is_done_anew(place, tmp_path, finish):
    archive = filled(place)
    if finish:
        archive.finalise()
    Objects.of(place, read_only=False).delete("u/c/1/0/0")
    if finish:
        with pytest.raises(
            ArchiveError, match=r"3 of 4 units .* 1 chunks are missing, the first is \(1, 0, 0\) of 'u'"
        ):
            open_archive(place)
    else:
        with pytest.raises(ArchiveError, match="1 chunks are missing"):
            archive.finalise()
    again = create_archive(place, template(), "member", CONFIG)
    assert again.pending() == [1]
    again.write(1, values(1))
    again.finalise()
    filled(tmp_path / "a.zarr").finalise()
    assert objects_of(place) == tree(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_an_error_and_no_number(place):
    filled(place).finalise()
    objects = Objects.of(place, read_only=False)
    objects.put({"u/c/1/0/0": objects.get("u/c/2/0/0")[:-1] + b"x"})
    with pytest.raises(ArchiveError, match=r"the chunk \(1, 0, 0\) of 'u' is damaged"):
        open_archive(place).load()


def test_something_else_is_not_overwritten(place):
    Objects.of(place, read_only=False).put({"notes.txt": b"mine"})
    for overwrite in (False, True):
        with pytest.raises(ArchiveError, match="exists and is no archive of sdaxr"):
            create_archive(place, template(), "member", CONFIG, overwrite=overwrite)


def test_what_a_killed_creation_has_left_is_replaced(place):
    objects = Objects.of(place, read_only=False)
    objects.put({"sdaxr.partial/writer": b"another configuration", "u/c/0/0/0": b"half"})
    filled(place, skip=(0,))
    assert "u/c/0/0/0" not in objects_of(place) and open_archive(place, allow_incomplete=True).sizes["member"] == 3


def test_an_archive_travels_without_its_store(folder):
    if folder.held is not None:
        pytest.skip("a store in the memory of a process does not travel")
    archive = filled(folder / "a.zarr", skip=(1,))
    again = pickle.loads(pickle.dumps(archive))
    assert again == archive and again.__dict__.keys() == {"place", "unit", "digest", "finite", "round"}
    again.write(1, values(1))
    assert archive.pending() == []


def test_netcdf_is_written_when_all_units_are_there(folder):
    if folder.held is not None:
        pytest.skip("a store of Zarr holds no NetCDF file")
    place = folder / "a.nc"
    archive = filled(place, skip=(1,))
    assert not archive.complete and not place.exists()
    with pytest.raises(ArchiveError, match="3 of 4 units"):
        open_archive(place)
    assert open_archive(place, allow_incomplete=True).sizes["member"] == 3
    archive = filled(place)
    archive.finalise({"at": "the end"})
    assert archive.complete and place.is_file() and not (folder / "a.nc.partial").exists()
    assert open_archive(place).attrs["at"] == "the end"
    assert filled(place).finalise() == place


# A server that fails -------------------------------------------------------------------------------------------


def run_once(place):
    """A run as of `generate`: what is pending is done, then the archive is finished."""
    filled(place).finalise()


@pytest.mark.parametrize(
    ("share", "kinds"),
    [
        (0.15, [UNAVAILABLE]),
        (0.05, [SLOW]),
        (0.2, [LOST]),
        (0.2, [REPORTED]),
        (0.15, [UNAVAILABLE, LOST, REPORTED]),
    ],
    ids=["unavailable", "timeouts", "lost", "reported", "all"],
)
def test_whatever_fails_no_unit_is_lost_and_none_is_complete_that_is_not(server, tmp_path, share, kinds):
    filled(tmp_path / "a.zarr").finalise()
    expected = open_archive(tmp_path / "a.zarr").load().drop_attrs()
    place = located(f"s3://{BUCKET}/{uuid.uuid4().hex}.zarr", server.options)
    for attempt in range(40):
        server.fault = failing(share, kinds, seed=attempt)
        try:
            run_once(place)
        except ArchiveError as error:
            assert "\n" not in str(error)
        server.fault = lambda method, path: None
        try:
            data = open_archive(place, allow_incomplete=True).load()
        except ArchiveError as error:
            assert "there is nothing" in str(error)
            continue
        # Only units that are complete, and right.
        xr.testing.assert_equal(data.drop_attrs(), expected.isel(member=data.member.values))
        if create_archive(place, template(), "member", CONFIG).complete:
            break
    assert objects_of(place) == tree(tmp_path / "a.zarr")


def test_a_server_without_permission_or_bucket_or_name(server):
    server.fault = lambda method, path: FORBIDDEN
    with pytest.raises(ArchiveError, match=r"cannot read 's3://bucket/a.zarr': Forbidden; check the permissions"):
        create_archive(located("s3://bucket/a.zarr", server.options), template(), "member", CONFIG)
    server.fault = lambda method, path: None
    with pytest.raises(ArchiveError, match=r"cannot \w+ 's3://nobody/a.zarr': .*bucket.*; create the bucket"):
        create_archive(located("s3://nobody/a.zarr", server.options), template(), "member", CONFIG)
    with pytest.raises(ArchiveError, match="there is no bucket 'nobody' for 's3://nobody/a.zarr'"):
        open_archive("s3://nobody/a.zarr", storage_options=server.options)
    absent = server.options | {"endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(ArchiveError, match="Could not connect to the endpoint.*check the endpoint and the network"):
        open_archive("s3://bucket/a.zarr", storage_options=absent)


def write_some(url, options, indices):
    archive = create_archive(located(url, options), template(), "member", CONFIG)
    for index in indices:
        archive.write(index, values(index))


def test_processes_fill_one_archive_together(server, tmp_path):
    server.fault = lambda method, path: None
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}.zarr"
    workers = [forked().Process(target=write_some, args=(url, server.options, part)) for part in ([0, 1], [2, 3])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    place = located(url, server.options)
    create_archive(place, template(), "member", CONFIG).finalise()
    filled(tmp_path / "a.zarr").finalise()
    assert objects_of(place)["u/c/3/0/0"] == tree(tmp_path / "a.zarr")["u/c/3/0/0"]
    assert set(objects_of(place)) == set(tree(tmp_path / "a.zarr"))


def test_requests_are_as_many_as_units(server):
    """Of twice as many units, not four times as many requests."""
    server.fault = lambda method, path: None
    counts = []
    for units in (2, 4):
        place = located(f"s3://{BUCKET}/{uuid.uuid4().hex}.zarr", server.options)
        server.requests.clear()
        archive = create_archive(place, template(units), "member", CONFIG)
        for index in range(units):
            archive.write(index, values(index))
        archive.finalise()
        open_archive(place)
        counts.append(server.requests.total())
    # A unit: a look at the archive, two variables and its status.
    assert counts[1] - counts[0] == 2 * 4


def test_the_functions_and_the_command_take_urls(server, tmp_path):
    server.fault = lambda method, path: None
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    how = {"storage_options": server.options}
    quiet = {"progress": False}
    made = sdaxr.generate("lorenz63", f"{root}/t.zarr", trajectories=4, steps=32, **how, **quiet)
    here = sdaxr.generate("lorenz63", tmp_path / "t.zarr", trajectories=4, steps=32, **quiet)
    xr.testing.assert_identical(made.load(), here.load())
    prior = sdaxr.train(f"{root}/t.zarr", f"{root}/p.safetensors", window=5, steps=2, **how, **quiet)
    assert sdaxr.open_prior(f"{root}/p.safetensors", **how).sha256 == prior.sha256
    seen = sdaxr.observe(made.isel(trajectory=0), sdaxr.operators.identity(), every=8, error=1.0)
    drawn = {"members": 2, "sampler": {"steps": 2, "mixing": False}, "store": f"{root}/x.zarr"}
    posterior = sdaxr.assimilate(seen, f"{root}/p.safetensors", **drawn, **how, **quiet)
    assert posterior.sizes["member"] == 2
    assert sdaxr.report(seen, f"{root}/p.safetensors", **how).attrs["observations_used"] == 12
    fields = sdaxr.denoise(made.isel(trajectory=0), f"{root}/p.safetensors", error=0.5, steps=2, **how, **quiet)
    assert fields.sizes["time"] == 32
    method = {"name": "latent", "trajectories": f"{root}/t.zarr"}
    latent = sdaxr.assimilate(seen, system="lorenz63", method=method, members=4, **how, **quiet)
    assert latent.sizes["member"] == 4
    sdaxr.plot(posterior, path=f"{root}/a.png", **how)
    sdaxr.animate(posterior.isel(time=slice(2)), f"{root}/a.gif", **how)
    assert all(located(f"{root}/{name}", server.options).exists() for name in ("a.png", "a.gif"))
    config = json.dumps(server.options["config_kwargs"])
    options = [f"endpoint_url={server.url}", "key=any", "secret=any", f"config_kwargs={config}"]
    flags = [part for option in options for part in ("--storage-option", option)]
    found = CliRunner().invoke(main, ["info", f"{root}/x.zarr", *flags])
    assert found.exit_code == 0 and "posterior" in found.output, found.output
    missing = CliRunner().invoke(main, ["info", f"{root}/y.zarr", *flags])
    assert missing.exit_code == 2 and missing.stderr.count("\n") == 1 and "there is nothing at" in missing.stderr
