"""What is said of a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import xarray as xr

import sdaxr
from sdaxr.archives.creation import create_archive
from sdaxr.archives.stores import save
from sdaxr.commands.info import info
from sdaxr.schema import ArchiveError, PriorError


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_each_kind_says_what_can_be_done_with_it(trajectories: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    one = trajectories.isel(trajectory=0, drop=True)
    files = {
        "trajectories": (trajectories, "train, observe"),
        "observations": (sdaxr.observe(one, sdaxr.operators.coarsen(2), error=0.1), "assimilate"),
        "posterior": (trajectories.drop_vars(["split", "status"]).rename(trajectory="member"), "verify"),
    }
    for kind, (data, following) in files.items():
        save(data, tmp_path / f"{kind}{suffix}")
        facts = info(tmp_path / f"{kind}{suffix}")
        assert next(iter(facts)) == "kind" and facts["kind"] == kind and facts["complete"] == "yes"
        assert following in facts["next"] and facts["size"].endswith(" MB") and float(facts["size"][:-3]) > 0
    assert info(tmp_path / f"trajectories{suffix}")["trajectory"] == "10 (train 8, valid 1, test 1)"


def test_a_prior_is_known_by_name_or_file() -> None:
    facts = info("lorenz63")
    assert facts["kind"] == "prior" and "a, b, c on vector" in facts["summary"]
    assert info(Path(facts["path"])) == {key: value for key, value in facts.items() if key != "path"}
    assert facts["network.name"] == "convolutional" and facts["sampling"].startswith('{"sampler"')
    with pytest.raises(PriorError, match="Did you mean 'lorenz63'"):
        info("lorentz63")


def test_a_prior_with_modes_says_what_they_take() -> None:
    found = re.fullmatch(
        r"(\S+) s a window of 8 states, with (\S+) MB of work space beside (\S+) MB of modes",
        info("kolmogorov")["modes.application"],
    )
    assert found
    seconds, work, held = map(float, found.groups())
    modes, window = sdaxr.open_prior("kolmogorov").network.modes, 8 * 2 * 64 * 64 * 4 / 1e6
    assert modes is not None and held == pytest.approx(sum(b.nbytes for b in modes.buffers()) / 1e6, rel=1e-2)
    # The filter holds its input's modes and their products at least, and no dense matrix of the window.
    assert 2 * window <= work < 20 * window and 0 < seconds < 60


def test_an_unfinished_archive_says_how_far_it_is(trajectories: xr.Dataset, tmp_path: Path) -> None:
    template = trajectories.isel(trajectory=slice(3)).drop_vars("status")
    archive = create_archive(tmp_path / "t.zarr", template, "trajectory", {"seed": 0})
    archive.write(0, {name: variable[0].values for name, variable in template.data_vars.items()})
    for path in ("t.zarr", "t.zarr.partial"):
        facts = info(tmp_path / path)
        assert facts["kind"] == "trajectories" and facts["complete"].startswith("no: ")
        assert "1 of 3 units" in facts["complete"] and "Run the same job again" in facts["complete"]
    with pytest.raises(ArchiveError, match="there is nothing at"):
        info(tmp_path / "other.zarr")


def test_a_table_is_described_as_observations(tmp_path: Path) -> None:
    path = tmp_path / "stations.csv"
    path.write_text("time,lat,lon,t2m [K],t2m_error\n2019-03-01,51,0,280,1\n")
    facts = info(path)
    assert facts["kind"] == "observations" and "t2m [K]" in facts["variables"] and "assimilate" in facts["next"]
