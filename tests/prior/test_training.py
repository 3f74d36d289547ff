"""Training: what is learned, and which data are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from score_networks import small
from small_training import TINY, assert_same, autoregressive, killed_training, trained, weights
from unknown_offset import OffsetSeries

from sdaxr.prior import training
from sdaxr.prior.networks.base import NETWORKS
from sdaxr.prior.opening import open_prior
from sdaxr.prior.training import train
from sdaxr.schema import ArchiveError, DataError, OptionError, UnitsError

UNET = {"widths": (4, 8), "blocks": 1}

# What is learned


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 0.08),
        ({"parameterisation": "epsilon"}, 0.25),
        ({"parameterisation": "spectral"}, 0.08),
        ({"parameterisation": "space-time"}, 0.08),
        ({"optimisation": {"precision": "bfloat16"}}, 0.1),
        ({"optimisation": {"weighting": "relative"}}, 0.08),
    ],
)
def test_denoiser_of_an_autoregressive_chain_is_learned(options: dict[str, Any], bound: float, tmp_path: Path) -> None:
    """After 300 steps the error is a few percent of what there is to learn, at every noise level."""
    data = autoregressive(130, 128)
    optimisation = {"batch": 48, "learning_rate": 4e-3, "ema": 0.98, "levels": (0.05, 20.0)}
    optimisation |= options.get("optimisation", {})
    prior = train(
        data, tmp_path / "ar.safetensors", window=9, steps=300, network={"width": 24, "blocks": 2, "kernel": 5},
        progress=False, **(options | {"optimisation": optimisation}),
    )  # fmt: skip
    length = 12  # not the window: any length will do
    covariance = 0.9 ** np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    random = np.random.default_rng(1)
    x = random.normal(size=(400, length)) @ np.linalg.cholesky(covariance).T
    denoiser = prior.denoiser(xr.DataArray(0.5 * np.arange(length), dims="time", name="time"))
    for r in (0.2, 0.5, 1.0, 3.0):
        z = x + r * random.normal(size=x.shape)
        exact = z @ np.linalg.solve(covariance + r**2 * np.eye(length), covariance)
        with torch.no_grad():
            found = denoiser(torch.as_tensor(z, dtype=torch.float32)[..., None], r)[..., 0].numpy()
        # The denoiser that takes the states for white noise is what the training starts from.
        white = z / (1 + r**2)
        assert ((found - exact) ** 2).mean() < bound * ((white - exact) ** 2).mean(), r


@pytest.mark.parametrize("name", [*NETWORKS.names(), "auto"])
@pytest.mark.parametrize("periodic", [True, False])
def test_every_network_is_trained_and_opened_by_name(
    name: str, periodic: bool, trajectories: xr.Dataset, tmp_path: Path
) -> None:
    gridded = name == "auto" or NETWORKS.kind(name).gridded
    data = trajectories if gridded else autoregressive(4, 12)
    data = data if periodic else data.assign_coords({d: data[d].drop_attrs() for d in data.dims if d in data.coords})
    network = "auto" if name == "auto" else NETWORKS.describe(small(name))
    prior = trained(data, tmp_path / "p.safetensors", network=network, steps=1)
    again = open_prior(tmp_path / "p.safetensors")
    assert_same(prior, again)
    assert again.metadata["network"]["name"] == ("space-time-unet" if name == "auto" else name)
    assert again.window == 5
    if gridded:
        assert again.layout.periodic == (periodic, periodic)
        assert again.layout.context_channels == (1 if periodic else 3)


@pytest.mark.parametrize("network", ["unet", "space-time-unet"])
def test_priors_of_windows_know_their_modes_in_time(network: str, trajectories: xr.Dataset, tmp_path: Path) -> None:
    options = {"network": {"name": network, **UNET}, "steps": 2, "parameterisation": "space-time"}
    prior = trained(trajectories, tmp_path / "p.safetensors", **options)
    again = open_prior(tmp_path / "p.safetensors")
    assert prior.network.window == again.network.window == 5
    # High frequencies have less variance than low ones.
    spectrum = again.network.modes.spectrum.flatten(1).sum(1)
    assert float(spectrum[0]) > 2 * float(spectrum[-1])
    z = torch.randn(2, 9, prior.layout.channels, *prior.layout.shape, generator=torch.Generator().manual_seed(0))
    times = trajectories.time[:9]
    with torch.no_grad():
        found = [p.denoiser(times, precision="float32")(z, 0.3) for p in (prior, again)]
        middle = again.network(
            z[:, 2:7], torch.full((2,), 0.3), torch.as_tensor(again.layout.context_array(times[2:7]))[None]
        )
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[1][:, 4], middle[:, 2])
    with pytest.raises(DataError, match="at least its window of 5"):
        prior.denoiser(times[:3])
    for wrong in ({"optimisation": {"shortest": 3}}, {"window": 4}):
        with pytest.raises(OptionError, match="shortest=3, expected the window itself|window=4, expected an odd"):
            trained(trajectories, tmp_path / "q.safetensors", **(options | wrong))


def test_gaps_and_other_names_of_the_times(tmp_path: Path) -> None:
    data = autoregressive(4, 60).drop_vars("split").isel(trajectory=0)
    times = xr.date_range("2000-01-01", periods=60, freq="MS", calendar="noleap", use_cftime=True)
    data = data.assign_coords(time=times).rename(time="valid_time").isel(valid_time=[*range(30), *range(33, 60)])
    prior = trained(data, tmp_path / "p.safetensors", steps=2)
    assert prior.metadata["data"]["stretches"] == [30, 27]
    assert (prior.layout.time.months, prior.layout.time.calendar) == (1, "noleap")
    assert "step 1 month, window 5" in repr(open_prior(tmp_path / "p.safetensors"))


def test_several_variables_layers_land_context_and_cycles(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    times = np.datetime64("2019-01-01", "ns") + np.arange(60) * np.timedelta64(1, "h")
    t = random.normal(size=(60, 2, 6, 7))
    t[:, :, 0, :3] = np.nan
    data = xr.Dataset(
        {
            "t": (("time", "level", "lat", "lon"), t, {"units": "K"}),
            "p": (("time", "lat", "lon"), random.normal(size=(60, 6, 7)), {"units": "Pa"}),
            "height": (("lat", "lon"), random.normal(size=(6, 7))),
        },
        {"time": times, "level": [500, 850], "lat": np.arange(6.0)[::-1], "lon": np.arange(7.0)},
    )
    prior = trained(data, tmp_path / "p.safetensors", context=["height"], network=UNET, steps=2)
    layout = prior.layout
    assert layout.channels == 3 and layout.cycles == ("hour_of_day",) and "height" in layout.context
    assert prior.metadata["statistics"]["cycles"] == ["hour_of_day"]
    assert layout.mask is not None and int((~layout.mask).sum()) == 6
    states, context = prior.reference
    assert (states[:, :, 0, 0, :3] == 0).all() and context.shape[1:] == (5, 6, 6, 7)
    with torch.no_grad():
        out = prior.denoiser(data.time[:8])(torch.randn(2, 8, 3, 6, 7), 1.0)
    assert bool((out[:, :, :2, 0, :3] == 0).all()) and bool(out.isfinite().all())


# Which data are seen


def test_statistics_come_from_the_training_split_only(tmp_path: Path) -> None:
    data = autoregressive(6, 40)
    data["a"] = data.a.where(data.split == "train", 1e4 * data.a)
    prior = trained(data, tmp_path / "p.safetensors")
    train_part = data.a.isel(trajectory=slice(4)).values
    assert prior.layout.mean.item() == pytest.approx(train_part.mean())
    assert prior.layout.std.item() == pytest.approx(train_part.std())
    assert np.abs(prior.reference[0]).max() > 1e3  # the held-out windows are the valid ones


def test_one_series_without_trajectories(tmp_path: Path) -> None:
    data = autoregressive(3, 100).isel(trajectory=0, drop=True).drop_vars("split", errors="ignore")
    prior = trained(data, tmp_path / "p.safetensors")
    assert prior.layout.mean.item() == pytest.approx(float(data.a[:90].mean()))


def test_short_series_hold_out_one_window(tmp_path: Path) -> None:
    """A tenth of 20 states is less than a window of 5: the last five validate, the first 15 train."""
    data = autoregressive(3, 20).isel(trajectory=0, drop=True).drop_vars("split", errors="ignore")
    prior = trained(data, tmp_path / "p.safetensors")
    assert prior.layout.mean.item() == pytest.approx(float(data.a[:15].mean()))
    with pytest.raises(DataError, match="found 8 times, expected at least 10: a window of 5"):
        trained(data.isel(time=slice(8)), tmp_path / "q.safetensors")


def test_paths_are_opened(tmp_path: Path) -> None:
    autoregressive(4, 12).drop_vars("split").to_netcdf(tmp_path / "t.nc")
    assert trained(tmp_path / "t.nc", tmp_path / "p.safetensors", window=1).layout.variables == ("a",)


@pytest.mark.parametrize("states", [100, 20])
def test_the_statistics_are_read_once(states: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also of a short series, whose validation is lengthened to one window."""
    calls = []

    def counted(*given: Any, **options: Any) -> Any:
        calls.append(given)
        return infer(*given, **options)

    infer = training.infer_layout
    monkeypatch.setattr(training, "infer_layout", counted)
    trained(
        autoregressive(3, states).isel(trajectory=0, drop=True).drop_vars("split", errors="ignore"),
        tmp_path / "p.safetensors",
    )
    assert len(calls) == 1


def test_statistics_of_each_point(trajectories: xr.Dataset, tmp_path: Path) -> None:
    options = {"statistics": {"normalise": "point"}, "network": UNET, "steps": 1}
    prior = trained(trajectories, tmp_path / "p.safetensors", **options)
    part = trajectories.u.isel(trajectory=trajectories.split == "train")
    np.testing.assert_allclose(prior.layout.std[0], part.std(("trajectory", "time")), rtol=1e-5)
    assert prior.metadata["statistics"]["normalise"] == "point"


# What is in the way


def test_an_existing_prior_is_not_overwritten_unasked(tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    trained(data, store)
    with pytest.raises(ArchiveError, match=r"of a run with other settings \(seed: 0 -> 1\); pass overwrite=True"):
        trained(data, store, seed=1)
    assert trained(data, store, overwrite=True, seed=1).metadata["seed"] == 1
    with pytest.raises(ArchiveError, match=r"other settings \(data.sha256"):
        trained(autoregressive(6, 20, seed=5), store, seed=1)
    store.write_bytes(b"something else")
    with pytest.raises(ArchiveError, match="exists, and is no prior; pass overwrite=True"):
        trained(data, store, seed=1)


def test_a_training_that_has_ended_is_not_done_again(tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    first = trained(data, store)
    before = store.stat()
    again = trained(data, store)
    assert again.sha256 == first.sha256 and store.stat() == before


def test_the_same_seed_gives_the_same_prior(tmp_path: Path) -> None:
    data = autoregressive(6, 20)
    one, two = (trained(data, tmp_path / f"{i}.safetensors", name="p") for i in range(2))
    assert_same(one, two)
    other = trained(data, tmp_path / "3.safetensors", seed=7)
    assert any(not torch.equal(w, weights(other)[k]) for k, w in weights(one).items())


@pytest.mark.parametrize(
    "options",
    [
        {"network": "convolutionl"},
        {"optimisation": {"batch": 0}},
        {"statistics": {"homogeneous": ["x"]}},
        {"device": "gpu"},
        {"steps": -1},
    ],
)
def test_nothing_is_written_where_an_option_is_impossible(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        trained(autoregressive(4, 12), tmp_path / "p.safetensors", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda data: data.isel(time=slice(4)), {}, "found 4 states a trajectory, expected at least the window of 5"),
        (lambda data: data.assign_coords(split=("trajectory", ["test"] * 4)), {}, "expected some 'train'"),
        (lambda data: data, {"variables": ["b"]}, "variable 'b'; expected one of a"),
        (lambda data: data.isel(time=0, drop=True), {}, "found no variable with a 'time' dimension"),
    ],
)
def test_data_that_cannot_be_trained_on(change: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        trained(change(autoregressive(4, 12)), tmp_path / "p.safetensors", **options)


def test_a_place_that_cannot_be_written_is_told_before_the_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="cannot write .*a folder of this path is a file"):
        trained(autoregressive(4, 4), tmp_path / "file" / "p.safetensors")


def test_a_trained_prior_is_the_one_that_is_opened(tmp_path: Path) -> None:
    prior = trained(autoregressive(6, 20), tmp_path / "p.safetensors")
    opened = open_prior(tmp_path / "p.safetensors")
    assert_same(prior, opened)
    assert opened.metadata == prior.metadata and opened.sha256 == prior.sha256
    assert opened.metadata["network"] == {"name": "convolutional", "dilation": 1, **TINY}
    for a, b in zip(opened.reference, prior.reference, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_begins_with_the_weights_of_a_prior(tmp_path: Path) -> None:
    """With next to no learning rate the prior stays what it is, normalisation included, on other data."""
    before = trained(autoregressive(6, 20), tmp_path / "p.safetensors", steps=30)
    options = {"window": None, "network": "auto", "optimisation": {"learning_rate": 1e-12, "weight_decay": 0.0}}
    other = autoregressive(6, 20, seed=1)
    after = trained(other, tmp_path / "q.safetensors", start=tmp_path / "p.safetensors", **options)
    for key, weight in weights(before).items():
        torch.testing.assert_close(weights(after)[key], weight, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(after.layout.mean, before.layout.mean)
    assert after.metadata["start"] == {"name": "p", "sha256": before.sha256}
    assert after.metadata["network"] == before.metadata["network"] and after.window == before.window
    assert after.metadata["data"]["sizes"] == before.metadata["data"]["sizes"]


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (
            {},
            {"window": 5},
            OptionError,
            r"found window= beside start='p', expected only one of them; leave out window=",
        ),
        ({}, {"network": {"width": 8}}, OptionError, "found network= beside"),
        ({"units": "K"}, {}, UnitsError, r"'a' has units 'K' in the data, expected 'm'"),
        ({"step": 1.0}, {}, DataError, r"the time step 1, expected that of the prior 'p', 0.5"),
    ],
)
def test_what_a_prior_cannot_begin(
    data: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    trained(autoregressive(6, 20), tmp_path / "p.safetensors", steps=2)
    other = autoregressive(6, 20)
    other["a"].attrs["units"] = data.get("units", "m")
    other = other.assign_coords(time=other.time * data.get("step", 0.5) / 0.5)
    with pytest.raises(error, match=message):
        trained(
            other,
            tmp_path / "q.safetensors",
            start=tmp_path / "p.safetensors",
            **{"window": None, "network": "auto", **options},
        )


def test_attributes_that_no_file_holds_neither_end_the_training_nor_its_continuation(monkeypatch, tmp_path):
    data = autoregressive(3, 60)
    odd = {"created": np.datetime64("2020-01-01"), "checked": True, "by": None, "how": {"a": float}, "raw": b"m"}
    for part in (data, data.a, data.time):
        part.attrs |= odd
    store = tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    prior = trained(data, store)
    attrs = open_prior(store).layout.attrs["a"]
    assert attrs == prior.layout.attrs["a"] and attrs["created"] == "2020-01-01" and attrs["how"] == '{"a": "float"}'
    assert (attrs["checked"], attrs["raw"], "by" in attrs) == (1, "m", False)


def test_a_reach_beyond_the_window_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for window, said in ((5, 0), (3, 1)):
        caplog.clear()
        trained(autoregressive(6, 20), tmp_path / f"{window}.safetensors", window=window, steps=1)
        told = [r.getMessage() for r in caplog.records if "the network reaches 3 states on each side" in r.getMessage()]
        assert len(told) == said


def test_a_variable_without_time_is_a_parameter(tmp_path: Path) -> None:
    data = OffsetSeries(8, 4).trajectories(12, seed=0)
    data = data.assign_coords(split=("trajectory", np.array(["train"] * 10 + ["valid"] * 2, object)))
    store, options = tmp_path / "p.safetensors", {"parameterisation": "edm", "network": "auto", "window": 5}
    # The parameterisation that has shared noise is the default beside parameters.
    prior = trained(data, store, variables=["x", "forcing"], **(options | {"parameterisation": "auto"}))
    assert prior.layout.parameters == ("forcing",) and prior.states == ["x", "forcing"]
    # In the windows of the training, too, the channel is the same at all times and points.
    states = prior.reference[0]
    assert states.shape[1:] == (5, 2, 4) and float(np.ptp(states[:, :, 1], axis=(1, 2)).max()) == 0
    np.testing.assert_allclose(prior.layout.std[1].item(), data.forcing[:10].std(), rtol=1e-5)
    assert prior.network.constants == (1,) and prior.metadata["parameterisation"] == "edm"
    again = trained(data, tmp_path / "q.safetensors", start=prior, window=None, network="auto")
    assert again.layout.parameters == ("forcing",) and again.network.constants == (1,)
    # Without its name it is left out.
    assert trained(data, tmp_path / "r.safetensors", **options).layout.variables == ("x",)
