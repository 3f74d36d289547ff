"""The first command of the README, on a few states: what it says, what it writes, and that it is worth its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from PIL import Image

import sdaxr
from sdaxr.commands import cli
from sdaxr.systems.generation import generate

STATES, MEMBERS = 5, 2
POSTERIOR, INTERPOLATED, CLIMATOLOGY = "posterior (sdaxr)", "interpolated observations", "climatology"


@dataclass(frozen=True)
class Demo:
    folder: Path
    said: str

    @property
    def truth(self) -> xr.Dataset:
        return sdaxr.open_archive(self.folder / "truth.zarr").isel(trajectory=0)

    @property
    def posterior(self) -> xr.Dataset:
        return sdaxr.open_archive(self.folder / "posterior.zarr")

    @property
    def scores(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "scores.csv", index_col=0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "out"
    # The flow is solved on a coarser grid than that of the paper, which takes an eighth of the time.
    coarser = partial(generate, resolution=128, coarsen=2)
    flags = ["--states", str(STATES), "--members", str(MEMBERS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdaxr.commands.demo.generate", coarser)
        result = CliRunner().invoke(cli.main, ["demo", str(folder), *flags], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return Demo(folder, result.stdout)


def test_the_posterior_beats_the_interpolation_by_far(demo: Demo) -> None:
    scores = demo.scores
    assert list(scores.index) == [POSTERIOR, INTERPOLATED, CLIMATOLOGY]
    for metric in ("rmse", "crps"):
        errors = scores[metric]
        assert errors[POSTERIOR] < 0.5 * errors[INTERPOLATED] < 0.5 * errors[CLIMATOLOGY], metric
    assert 0.5 < scores.loc[POSTERIOR, "spread/skill"] < 1.6
    assert 0.7 < scores.loc[POSTERIOR, "residual/error"] < 1.3


def test_the_scores_are_those_of_the_files(demo: Demo) -> None:
    """Root mean square errors by hand, of each state, variable by variable."""
    estimates = {POSTERIOR: demo.posterior.mean("member"), CLIMATOLOGY: 0 * demo.truth}
    for name, estimate in estimates.items():
        errors = [np.sqrt(((estimate[v] - demo.truth[v]) ** 2).mean(["y", "x"])).mean() for v in ("u", "v")]
        # The climatology is the mean of the training data, which is nearly zero.
        assert demo.scores.loc[name, "rmse"] == pytest.approx(np.mean(errors), rel=0.02), name


def test_archives_hold_what_was_asked_for(demo: Demo) -> None:
    assert dict(demo.truth.sizes) == {"time": STATES, "y": 64, "x": 64}
    posterior = demo.posterior
    assert dict(posterior.sizes) == {"member": MEMBERS, "time": STATES, "y": 64, "x": 64}
    assert posterior.attrs["prior"] == "kolmogorov" and posterior.attrs["seed"] == 2023
    np.testing.assert_allclose(posterior.time, demo.truth.time)
    assert all(bool(np.isfinite(posterior[name]).all()) for name in "uv")
    with xr.open_dataset(demo.folder / "observations.nc") as observations:
        assert dict(observations.sizes) == {"time": 2, "y": 8, "x": 8, "bound": 2}
        means = demo.truth.coarsen(y=8, x=8).mean().sel(time=observations.time, method="nearest")
        for name in "uv":
            innovation = observations[name].values - means[name].values
            assert 0.8 < float(np.std(innovation)) / 0.1 < 1.2


def test_pictures_can_be_looked_at(demo: Demo) -> None:
    with Image.open(demo.folder / "posterior.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
        assert len(np.unique(np.asarray(picture))) > 50
    with Image.open(demo.folder / "posterior.gif") as animation:
        assert animation.format == "GIF" and animation.n_frames == STATES


def test_the_table_is_said_and_where_everything_is(demo: Demo) -> None:
    assert f"simulate {STATES} states" in demo.said and f"draw {MEMBERS} trajectories" in demo.said
    assert {path.name for path in demo.folder.iterdir()} == {
        "truth.zarr", "observations.nc", "posterior.zarr", "scores.csv", "posterior.png", "posterior.gif"
    }  # fmt: skip
    for path in demo.folder.iterdir():
        assert path.name in demo.said
    for name, row in demo.scores.iterrows():
        assert f"{row['rmse']:.3f}" in next(line for line in demo.said.splitlines() if line.startswith(str(name)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--states", "0"), "found steps=0, expected a whole number of at least 1"),
        (("--states", "few"), "'few' is not a valid integer"),
        (("--states", "9"), "steps: 5 -> 9"),
    ],
)
def test_impossible_settings_are_one_line(demo: Demo, flags: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(cli.main, ["demo", str(demo.folder), "--quiet", *flags])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
