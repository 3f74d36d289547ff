"""Paths that users give: the home folder, URLs, and what is no path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from zarr.storage import MemoryStore

import sdaxr
from sdaxr.archives.paths import local_path, located, store_path
from sdaxr.archives.stores import check_free, save
from sdaxr.commands import recipe
from sdaxr.commands.info import info
from sdaxr.schema import ArchiveError, OptionError, SdaxrError

URLS = ("s3://bucket/a.zarr", "memory://a.nc", "file:///tmp/a.zarr", "gs://b/a.nc", "zip::file:///a.zarr", "a::b.nc")


@pytest.mark.parametrize("path", [*URLS, Path("https://a.b/c.nc")])
def test_a_url_is_no_path(path: str | Path) -> None:
    with pytest.raises(ArchiveError, match="found the URL .*, expected a path; copy the file to this machine"):
        local_path(path)


@pytest.mark.parametrize("path", ["a.zarr", "/a/b:c.nc", "a b/ü.zarr", "C", "10:00/a.nc", "a:b"])
def test_other_names_are_paths_as_they_are(path: str) -> None:
    assert local_path(path) == Path(path)


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert local_path("~/a.zarr") == local_path(Path("~/a.zarr")) == Path("/somewhere/a.zarr")
    with pytest.raises(ArchiveError, match="cannot expand the path '~nobody-of-this-name/a'"):
        local_path("~nobody-of-this-name/a")


@pytest.mark.parametrize("path", [MemoryStore(), 5, b"a.zarr", None, "", " ", "a\0b", ["a.zarr"]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(OptionError, match="as the path of a file, expected"):
        local_path(path)


@pytest.mark.parametrize("store", ["a", "a.zarr.zip", "a.csv", "a.safetensors"])
def test_a_result_has_the_suffix_of_its_format(store: str) -> None:
    with pytest.raises(OptionError, match=r"expected a name that ends in \.zarr or \.nc"):
        store_path(store)


WINDS = xr.Dataset({"a": ("time", np.arange(40.0), {"units": "1"})}, {"time": 0.025 * np.arange(40.0)})
OBSERVED = sdaxr.observe(
    WINDS.assign(b=WINDS.a, c=WINDS.a), sdaxr.operators.identity(), every=8, error=1.0
).assign_attrs(sdaxr_kind="observations")
TINY: dict[str, Any] = {
    "members": 2, "sampler": {"steps": 2, "mixing": False}, "method": {"variance": 0.1}, "progress": False,
}  # fmt: skip
WRITERS: dict[str, Callable[[str], Any]] = {
    "generate": lambda p: sdaxr.generate("lorenz63", p, trajectories=1, steps=2, progress=False),
    "train": lambda p: sdaxr.train(WINDS, p, window=3, steps=1, progress=False),
    "assimilate": lambda p: sdaxr.assimilate(OBSERVED, "lorenz63", store=p, **TINY),
    "cycle": lambda p: sdaxr.cycle(OBSERVED, "lorenz63", store=p, **TINY),
    "forecast": lambda p: sdaxr.forecast(WINDS.assign(b=WINDS.a, c=WINDS.a), "lorenz63", steps=1, store=p),
    "plot": lambda p: sdaxr.plot(WINDS, path=p),
    "animate": lambda p: sdaxr.animate(WINDS, p),
    "save": lambda p: save(WINDS, p),
    "check_free": lambda p: check_free(p, overwrite=False),
    "prior": lambda p: sdaxr.open_prior("lorenz63").save(p, dtype=torch.float16),
}
READERS: dict[str, Callable[[str], Any]] = {
    "open_archive": sdaxr.open_archive,
    "open_prior": sdaxr.open_prior,
    "train": lambda p: sdaxr.train(p, "a.safetensors", steps=1, progress=False),
    "forecast": lambda p: sdaxr.forecast(WINDS, p, steps=1),
    "assimilate": lambda p: sdaxr.assimilate(OBSERVED, p, **TINY),
    "info": info,
    "recipe": recipe.read,
}


NAMES = {"train": "p.safetensors", "prior": "p.safetensors", "plot": "a.png", "animate": "a.gif"}


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "check_free"])
def test_every_writer_takes_a_url_and_none_makes_a_folder_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"memory://{tmp_path.name}/{NAMES.get(name, 'a.zarr')}"
    WRITERS[name](url)
    assert located(url).exists() and not list(tmp_path.iterdir())
    if not name.startswith(("train", "plot", "animate", "prior")):
        with pytest.raises(ArchiveError, match="overwrite|another configuration"):
            check_free(url, overwrite=False)
        assert sdaxr.open_archive(url).sizes["time" if name != "forecast" else "lead_time"] > 0


@pytest.mark.parametrize("call", READERS.values(), ids=READERS)
def test_no_reader_takes_a_url_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[str], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SdaxrError, match="there is nothing at 'memory://|found the URL"):
        call("memory://nothing/a.zarr")
    assert not list(tmp_path.iterdir())


def test_results_are_written_beneath_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    WRITERS["generate"]("~/t.zarr")
    WRITERS["prior"]("~/p.safetensors")
    sdaxr.plot(WINDS, path="~/a.png")
    save(WINDS, "~/w.nc")
    (tmp_path / "home" / "r.yaml").write_text("plot: {data: ~/w.nc, path: ~/b.png}")
    recipe.run("~/r.yaml", progress=False)
    found = {path.name for path in (tmp_path / "home").iterdir() if path.name[0] != "."}
    assert found == {"t.zarr", "p.safetensors", "a.png", "b.png", "w.nc", "r.yaml", "r.state.json"}
    assert sdaxr.open_archive("~/t.zarr").sizes["time"] == 2 and sdaxr.open_prior("~/p.safetensors").window
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("name", ["generate", "assimilate", "cycle", "forecast"])
def test_nc_is_netcdf_in_every_command(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.nc"
    made = WRITERS[name](str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"] and path.read_bytes()[1:4] == b"HDF"
    with xr.open_dataset(path) as found:
        xr.testing.assert_identical(found.drop_attrs(), made.drop_attrs().compute())
    before = path.stat().st_mtime_ns
    assert WRITERS[name](str(path)).identical(made) and path.stat().st_mtime_ns == before
