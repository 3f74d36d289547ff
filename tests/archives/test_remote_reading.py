"""What opens by a URL: zip files, web servers, other software's Zarr, mappings, and stores of Zarr."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from toy_archive import filled
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

import sdaxr
from sdaxr.archives import stores
from sdaxr.archives.objects import Objects
from sdaxr.archives.paths import located
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import is_there, save
from sdaxr.commands import recipe
from sdaxr.schema import ArchiveError

DATA = xr.Dataset({"u": (("time", "x"), np.arange(6.0).reshape(2, 3), {"units": "1"})}, {"time": [0.0, 1.0]})


@pytest.fixture
def archive(tmp_path):
    return filled(tmp_path / "a.zarr").finalise()


@pytest.fixture
def web(tmp_path) -> Iterator[str]:
    """A server of the files in ``tmp_path``, which lists nothing that sdaxr would understand."""
    pytest.importorskip("aiohttp")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("way", ["path", "file", "chain", "memory"])
def test_a_zip_file_opens_with_or_without_its_folder(tmp_path, archive, folder, way):
    path = shutil.make_archive(str(archive), "zip", tmp_path, "a.zarr") if folder else None
    path = path or shutil.make_archive(str(archive), "zip", archive)
    if way == "memory":
        url = f"memory://{uuid.uuid4().hex}/a.zarr.zip"
        fsspec.filesystem("memory").put_file(path, located(url).fs()[1])
    else:
        url = {"path": path, "file": f"file://{path}", "chain": f"zip::file://{path}"}[way]
        url = url.replace("zip::", "zip://a.zarr::") if folder else url
    xr.testing.assert_identical(open_archive(url).load(), open_archive(archive).load())


def test_a_zip_file_is_not_written(tmp_path):
    with pytest.raises(ArchiveError, match="can be read, but not written"):
        save(DATA, f"zip::file://{tmp_path}/a.zarr")


def test_what_is_damaged_in_a_zip_file_is_found(tmp_path, archive):
    (archive / "u" / "c" / "1" / "0" / "0").unlink()
    path = shutil.make_archive(str(archive), "zip", archive)
    with pytest.raises(ArchiveError, match="3 of 4 units"):
        open_archive(path)
    assert open_archive(path, allow_incomplete=True).sizes["member"] == 3
    Path(path).write_bytes(Path(path).read_bytes().replace(b"PK\x03\x04", b"PK\x03\x00"))
    with pytest.raises(ArchiveError, match="the file is damaged, or its writer has not closed it"):
        open_archive(path)


def test_a_web_server_is_read(tmp_path, archive, web):
    xr.testing.assert_identical(open_archive(f"{web}/a.zarr").load(), open_archive(archive).load())
    DATA.to_netcdf(tmp_path / "b.nc")
    xr.testing.assert_equal(open_archive(f"{web}/b.nc").load(), DATA)
    table = pd.DataFrame({"time": ["2020-01-01"], "lat": [0.0], "lon": [1.0], "t": [280.0]})
    table.to_csv(tmp_path / "c.csv", index=False)
    seen = sdaxr.read_observations(f"{web}/c.csv", errors=1.0, units={"t": "K"})
    assert seen.t.values == 280 and "c.csv" in str(seen.attrs)
    sdaxr.open_prior("lorenz63").save(tmp_path / "p.safetensors")
    assert sdaxr.open_prior(f"{web}/p.safetensors").window == sdaxr.open_prior("lorenz63").window
    with pytest.raises(ArchiveError, match="there is nothing at"):
        open_archive(f"{web}/d.zarr")
    # Nothing can be listed, so a chunk that is not there is found when it is read.
    (archive / "u" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(ArchiveError, match=r"the chunk \(1, 0, 0\) of 'u' is missing"):
        open_archive(f"{web}/a.zarr").load()
    with pytest.raises(ArchiveError, match="can be read, but not written"):
        save(DATA, f"{web}/e.nc")


def test_mappings_and_stores_are_what_they_are_of(tmp_path, archive):
    expected = open_archive(archive).load()
    for same in (fsspec.get_mapper(str(archive)), LocalStore(archive), f"file://{archive}"):
        assert located(same) == archive
    url = f"memory://{uuid.uuid4().hex}/a.zarr"
    save(expected, url)
    for same in (fsspec.get_mapper(url), FsspecStore.from_url(url), url):
        assert located(same).url.replace("///", "//").replace("memory:///", "memory://") == url
        assert open_archive(same).sizes == expected.sizes
    shutil.make_archive(str(archive), "zip", archive)
    with ZipStore(f"{archive}.zip", read_only=True) as store:
        xr.testing.assert_identical(open_archive(store).load(), expected)
        with pytest.raises(ArchiveError, match="can be read, but not written"):
            save(DATA, store)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_zarr_of_other_software_opens(zarr_format, consolidated):
    url = f"memory://{uuid.uuid4().hex}/a.zarr"
    DATA.to_zarr(url, zarr_format=zarr_format, consolidated=consolidated)
    xr.testing.assert_equal(open_archive(url).load(), DATA)


def test_a_file_is_saved_whole_and_replaced_only_when_asked():
    url = f"memory://{uuid.uuid4().hex}/a.zarr"
    save(DATA, url)
    xr.testing.assert_identical(open_archive(url).load(), open_archive(located(url)).load())
    with pytest.raises(ArchiveError, match="exists; give another store"):
        save(DATA, url)
    save(DATA.isel(x=[0]), url, overwrite=True)
    assert open_archive(url).sizes["x"] == 1
    store = MemoryStore()
    save(DATA, store)
    xr.testing.assert_equal(open_archive(store).load(), DATA)


def test_what_a_killed_writer_has_left_is_no_file():
    place = located(f"memory://{uuid.uuid4().hex}/a.zarr")
    left = {"sdaxr.partial/writer": b"somebody", "sdaxr.partial/zarr.json": b"{}", "u/c/9": b"half"}
    Objects.of(place, read_only=False).put(left)
    assert place.exists() and not is_there(place)
    with pytest.raises(ArchiveError, match="is not finished: its writer is still at work, or was killed"):
        open_archive(place)
    save(DATA, place)
    assert is_there(place) and "u/c/9" not in Objects.of(place).keys("")


def test_two_writers_of_one_file_do_not_mix(monkeypatch):
    place = located(f"memory://{uuid.uuid4().hex}/a.zarr")
    monkeypatch.setattr(stores, "_consolidate", lambda _: Objects.of(place, read_only=False).take(b"another"))
    with pytest.raises(ArchiveError, match="is written by another process, too"):
        save(DATA, place)
    assert not is_there(place)


def test_a_recipe_of_urls_runs_once_and_keeps_no_secret(tmp_path):
    root = f"memory://{uuid.uuid4().hex}"
    secret = {"token": "secret"}
    steps = [
        {"generate": {"system": "lorenz63", "store": f"{root}/t.zarr", "trajectories": 1, "steps": 9}},
        {"plot": {"data": f"{root}/t.zarr", "path": f"{root}/a.png", "trajectory": 0}},
    ]
    for (options,) in map(dict.values, steps):
        options["storage_options"] = secret
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(steps))
    assert len(recipe.run(path, progress=False)) == 2 and recipe.run(path, progress=False) == {}
    assert located(f"{root}/a.png").read_bytes()[1:4] == b"PNG"
    assert "secret" not in (tmp_path / "r.state.json").read_text()


def test_a_url_that_cannot_be_opened_says_why():
    with pytest.raises(ArchiveError, match="Protocol not known: htp; expected a path, or a URL of a protocol"):
        open_archive("htp://bucket/a.zarr")
    if importlib.util.find_spec("gcsfs") is None:
        with pytest.raises(ArchiveError, match=r"gcsfs.*\(pip install gcsfs\)"):
            open_archive("gs://bucket/a.zarr")


def test_icechunk_is_read_and_not_written():
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    DATA.to_zarr(session.store, zarr_format=3, consolidated=False)
    session.commit("data")
    xr.testing.assert_equal(open_archive(repository.readonly_session("main").store).load(), DATA)
    with pytest.raises(ArchiveError, match="an Icechunk store can be read, but not written"):
        save(DATA, repository.writable_session("main").store)
