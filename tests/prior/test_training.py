"""Training: what is learned, what a kill loses (nothing), and which data are seen."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr.prior import checkpoint
from sdaxr.prior.files import Prior, open_prior
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.training import train
from sdaxr.prior.weighting import Relative, Uniform
from sdaxr.prior.windows import Windows, cut
from sdaxr.schema import ArchiveError, DataError, OptionError
from sdaxr.states.infer import infer_layout

TINY = {"width": 8, "blocks": 1, "kernel": 3}
QUICK = {"window": 5, "steps": 6, "batch": 4, "validate_every": 2, "network_options": TINY, "progress": False}


def autoregressive(number: int, steps: int, phi: float = 0.9, seed: int = 0) -> xr.Dataset:
    """Stationary AR(1) series of mean 3 and standard deviation 2, in physical units."""
    random = np.random.default_rng(seed)
    x = np.empty((number, steps))
    x[:, 0] = random.normal(size=number)
    for i in range(1, steps):
        x[:, i] = phi * x[:, i - 1] + np.sqrt(1 - phi**2) * random.normal(size=number)
    split = np.array(["train"] * (number - 2) + ["valid", "test"], dtype=object)
    coords = {"time": 0.5 * np.arange(steps), "split": ("trajectory", split)}
    return xr.Dataset({"a": (("trajectory", "time"), 3 + 2 * x, {"units": "m"})}, coords)


def weights(prior: Prior) -> dict[str, torch.Tensor]:
    return prior.network.state_dict()


def assert_same(one: Prior, other: Prior) -> None:
    assert all(torch.equal(w, weights(other)[k]) for k, w in weights(one).items())


# What is learned


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 0.08),
        ({"parameterisation": "epsilon"}, 0.25),
        ({"parameterisation": "spectral"}, 0.08),
        ({"parameterisation": "space-time"}, 0.08),
        ({"precision": "bfloat16"}, 0.1),
        ({"weighting": "relative"}, 0.08),
    ],
)
def test_denoiser_of_an_autoregressive_chain_is_learned(options: dict, bound: float, tmp_path: Path) -> None:
    """After 300 steps the error is a few percent of what there is to learn, at every noise level."""
    data = autoregressive(130, 128)
    prior = train(
        data, tmp_path / "ar.safetensors", window=9, steps=300, batch=48, learning_rate=4e-3, ema=0.98,
        levels=(0.05, 20.0), network_options={"width": 24, "blocks": 2, "kernel": 5},
        progress=False, **options,
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


@pytest.mark.parametrize(
    ("network", "options"), [("mlp", {"width": 16, "blocks": 1}), ("convolutional", TINY), ("auto", TINY)]
)
def test_networks_for_vectors_by_name(network: str, options: dict, tmp_path: Path) -> None:
    prior = train(
        autoregressive(4, 12), tmp_path / "p.safetensors", **(QUICK | {"network": network, "network_options": options})
    )
    assert prior.metadata["network"] == ("convolutional" if network == "auto" else network)
    assert prior.window == 5 and prior.network.network.window == (5 if network == "mlp" else None)


@pytest.mark.parametrize("network", ["unet", "space-time-unet", "auto"])
@pytest.mark.parametrize("periodic", [True, False])
def test_networks_for_grids_by_name(network: str, periodic: bool, trajectories: xr.Dataset, tmp_path: Path) -> None:
    if not periodic:
        trajectories = trajectories.drop_attrs()
    options = QUICK | {"network": network, "network_options": {"widths": (4, 8), "blocks": 1}, "steps": 2}
    prior = train(trajectories, tmp_path / "p.safetensors", **options)
    assert prior.layout.periodic == (periodic, periodic)
    assert prior.layout.context_channels == (1 if periodic else 3)
    assert prior.metadata["network"] == ("space-time-unet" if network == "auto" else network)


@pytest.mark.parametrize("network", ["unet", "space-time-unet"])
def test_priors_of_windows_know_their_modes_in_time(network: str, trajectories: xr.Dataset, tmp_path: Path) -> None:
    options = QUICK | {"network": network, "network_options": {"widths": (4, 8), "blocks": 1}, "steps": 2}
    prior = train(trajectories, tmp_path / "p.safetensors", parameterisation="space-time", **options)
    again = open_prior(tmp_path / "p.safetensors")
    assert prior.network.window == again.network.window == 5
    # What is quick has less variance than what is slow.
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
    for wrong in ({"shortest": 3}, {"window": 4}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            train(
                trajectories,
                tmp_path / "q.safetensors",
                **(options | wrong),
                parameterisation="space-time",
            )


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
    options = QUICK | {"network_options": {"widths": (4, 8), "blocks": 1}, "steps": 2}
    prior = train(data, tmp_path / "p.safetensors", context=["height"], **options)
    layout = prior.layout
    assert layout.channels == 3 and layout.cycles == ("hour_of_day",) and "height" in layout.context
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
    prior = train(data, tmp_path / "p.safetensors", **QUICK)
    train_part = data.a.isel(trajectory=slice(4)).values
    assert prior.layout.mean.item() == pytest.approx(train_part.mean())
    assert prior.layout.std.item() == pytest.approx(train_part.std())
    assert np.abs(prior.reference[0]).max() > 1e3  # the held-out windows are the valid ones


def test_one_series_without_trajectories(tmp_path: Path) -> None:
    data = autoregressive(3, 100).isel(trajectory=0, drop=True).drop_vars("split", errors="ignore")
    prior = train(data, tmp_path / "p.safetensors", **QUICK)
    assert prior.layout.mean.item() == pytest.approx(float(data.a[:90].mean()))


def test_short_series_hold_out_one_window(tmp_path: Path) -> None:
    """A tenth of 20 states is less than a window of 5: the last five validate, the first 15 train."""
    data = autoregressive(3, 20).isel(trajectory=0, drop=True).drop_vars("split", errors="ignore")
    prior = train(data, tmp_path / "p.safetensors", **QUICK)
    assert prior.layout.mean.item() == pytest.approx(float(data.a[:15].mean()))
    with pytest.raises(DataError, match="expected at least the window of 5"):
        train(data.isel(time=slice(8)), tmp_path / "q.safetensors", **QUICK)


def test_paths_are_opened(tmp_path: Path) -> None:
    autoregressive(4, 12).drop_vars("split").to_netcdf(tmp_path / "t.nc")
    assert train(tmp_path / "t.nc", tmp_path / "p.safetensors", **(QUICK | {"window": 1})).layout.variables == ("a",)


# Windows


def test_windows_are_stretches_of_one_trajectory() -> None:
    """Values say where they come from: trajectory * 1000 + time."""
    data, layout = numbered(5, 30)
    windows = Windows(data, layout, 7, seed=0)
    assert not windows.streams
    states, context = windows.batch(3, 50)
    assert states.shape == (50, 7, 1) and context.shape == (1, 7, 1)
    assert_stretches(layout, states)
    again, _ = Windows(data, layout, 7, seed=0).batch(3, 50)
    np.testing.assert_array_equal(states, again)
    assert not np.array_equal(states, windows.batch(4, 50)[0])


def test_streamed_windows_are_valid_and_cover_everything() -> None:
    data, layout = numbered(6, 40)
    windows = Windows(data, layout, 7, seed=0, memory=4 * 16 * 8, renew=2)
    assert windows.streams
    seen = [windows.batch(n, 32)[0] for n in range(140)]
    assert_stretches(layout, np.concatenate(seen))
    firsts = {round(float(s)) for batch in seen for s in physical(layout, batch)[:, 0]}
    assert firsts == {1000 * i + t for i in range(6) for t in range(34)}  # every window of every trajectory
    lazy = Windows(data.chunk(time=10), layout, 7, seed=0, memory=4 * 16 * 8, renew=2)
    np.testing.assert_array_equal(lazy.batch(9, 32)[0], seen[9])


def test_streaming_holds_no_more_than_it_may() -> None:
    data, layout = numbered(20, 64)
    memory = 4 * 64 * 6
    windows = Windows(data, layout, 7, seed=0, memory=memory)
    windows.batch(0, 4)
    assert sum(states.nbytes for states, _ in windows._held) <= memory / 2


def numbered(number: int, steps: int) -> tuple[xr.Dataset, object]:
    values = 1000.0 * np.arange(number)[:, None] + np.arange(steps)
    data = xr.Dataset({"a": (("trajectory", "time"), values)}, {"time": np.arange(float(steps))})
    return data, infer_layout(data)


def physical(layout: object, states: np.ndarray) -> np.ndarray:
    return states[..., 0] * layout.std.item() + layout.mean.item()


def assert_stretches(layout: object, states: np.ndarray) -> None:
    np.testing.assert_allclose(np.diff(physical(layout, states), axis=1), 1, atol=1e-2)


# Kills


class KilledError(Exception):
    """In the place of SIGKILL, right after a checkpoint."""


def killed_training(
    monkeypatch: pytest.MonkeyPatch, data: xr.Dataset, store: Path, after: int, **options: object
) -> None:
    calls = []

    def save_and_die(path: Path, run: object) -> None:
        original(path, run)
        calls.append(path)
        if len(calls) == after:
            raise KilledError

    original = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KilledError):
            train(data, store, **(QUICK | options))


@pytest.mark.parametrize("options", [{}, {"shortest": 2}, {"weighting": "relative"}])
def test_resumed_training_is_bit_identical(options: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = autoregressive(6, 20)
    whole = train(data, tmp_path / "whole.safetensors", name="p", **QUICK, **options)
    store = tmp_path / "killed.safetensors"
    killed_training(monkeypatch, data, store, after=1, **options)
    killed_training(monkeypatch, data, store, after=1, **options)
    assert not store.exists() and store.with_name(store.name + ".checkpoint").exists()
    resumed = train(data, store, name="p", **QUICK, **options)
    assert_same(whole, resumed)
    assert resumed.metadata["training"]["history"] == whole.metadata["training"]["history"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.safetensors", "whole.safetensors"]


def test_a_checkpoint_of_other_settings_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    with pytest.raises(ArchiveError, match=r"other settings \(batch: 4 -> 8\)"):
        train(data, store, **(QUICK | {"batch": 8}))
    with pytest.raises(ArchiveError, match="other settings.*layout"):
        train(data.rename(a="b"), store, **QUICK)
    with pytest.raises(ArchiveError, match="other settings.*data"):
        train(data * 2, store, **QUICK)
    assert train(data, store, **(QUICK | {"steps": 8})).metadata["training"]["steps"] == 8  # may be prolonged


def test_overwriting_starts_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    fresh = train(data, store, overwrite=True, **(QUICK | {"seed": 5}))
    assert_same(fresh, train(data, tmp_path / "p2.safetensors", **(QUICK | {"seed": 5})))
    with pytest.raises(ArchiveError, match="overwrite=True to train it anew"):
        train(data, store, **QUICK)
    killed_training(monkeypatch, data, store, after=1, overwrite=True)
    assert train(data, store, **QUICK).metadata["seed"] == QUICK.get("seed", 0)


def test_a_broken_checkpoint_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    path = store.with_name(store.name + ".checkpoint")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match="cannot be read.*remove it to start anew"):
        train(data, store, **QUICK)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ArchiveError, match="no checkpoint of sdaxr"):
        train(data, store, **QUICK)


# Options


def test_minutes_are_respected(tmp_path: Path) -> None:
    start = time.monotonic()
    prior = train(autoregressive(6, 20), tmp_path / "p.safetensors", **(QUICK | {"steps": None, "minutes": 0.02}))
    about = prior.metadata["training"]
    assert 0.02 <= about["minutes"] + 0.005 < 0.2 and about["steps"] > 1
    assert time.monotonic() - start < 60
    both = train(autoregressive(6, 20), tmp_path / "q.safetensors", **(QUICK | {"steps": 3, "minutes": 5}))
    assert both.metadata["training"]["steps"] == 3


def test_an_existing_prior_is_not_overwritten_unasked(tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    train(data, store, **QUICK)
    with pytest.raises(ArchiveError, match="exists; pass overwrite=True"):
        train(data, store, **QUICK)
    assert train(data, store, overwrite=True, seed=1, **QUICK).metadata["seed"] == 1


def test_relative_weights_are_the_inverse_of_the_errors_at_their_level() -> None:
    weighting = Relative((0.01, 100.0), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        r = torch.exp(torch.empty(64).uniform_(math.log(0.01), math.log(100), generator=generator))
        return r, 0.01 + (r.log() / 5) ** 2

    assert torch.equal(weighting(*batch()), torch.ones(64))  # nothing is known yet
    for _ in range(400):
        r, errors = batch()
        weights = weighting(r, errors)
    away = r.log().abs() > 1  # where the error changes little within a bin
    torch.testing.assert_close(weights[away] * errors[away], torch.ones(int(away.sum())), rtol=0.4, atol=0)
    assert torch.equal(Uniform((0.01, 100.0), torch.device("cpu"))(r, errors), torch.ones(64))


@pytest.mark.parametrize("shared", [True, False])
def test_windows_in_pieces(shared: bool) -> None:
    """Pieces follow each other in their window and keep their context; a rest is left out."""
    states = np.arange(2 * 11 * 3).reshape(2, 11, 3)
    context = np.ones((1, 11, 1)) if shared else np.arange(22).reshape(2, 11, 1)
    parts, told = cut(states, context, 2)
    assert parts.shape == (4, 5, 3) and told.shape == (1 if shared else 4, 5, 1)
    for piece, (window, first) in enumerate([(0, 0), (0, 5), (1, 0), (1, 5)]):
        np.testing.assert_array_equal(parts[piece], states[window, first : first + 5])
        np.testing.assert_array_equal(told[0 if shared else piece], context[0 if shared else window, first : first + 5])


def test_some_batches_are_of_short_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    loss = DenoisingNetwork.loss

    def spy(self: DenoisingNetwork, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[:2]))
        return loss(self, x, *rest)

    monkeypatch.setattr(DenoisingNetwork, "loss", spy)
    options = QUICK | {"window": 13, "shortest": 3, "batch": 4, "steps": 30, "validate_every": 100}
    train(autoregressive(6, 20), tmp_path / "p.safetensors", **options)
    # Whole windows, halves and quarters; the last four are the validation's.
    assert set(seen[:-4]) == {(4, 13), (8, 6), (16, 3)}
    assert set(seen[-4:]) == {(4, 13)}


def test_the_same_seed_gives_the_same_prior(tmp_path: Path) -> None:
    data = autoregressive(6, 20)
    one, two = (train(data, tmp_path / f"{i}.safetensors", name="p", **QUICK) for i in range(2))
    assert_same(one, two)
    other = train(data, tmp_path / "3.safetensors", seed=7, **QUICK)
    assert any(not torch.equal(w, weights(other)[k]) for k, w in weights(one).items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "convolutionl"}, "Did you mean 'convolutional'"),
        ({"network_options": {"widht": 8}}, "Did you mean 'width'"),
        ({"parameterisation": "edn"}, "Did you mean 'edm'"),
        ({"precision": "float23"}, "Did you mean 'float32'"),
        ({"weighting": "relativ"}, "Did you mean 'relative'"),
        ({"network": "mlp", "window": 4, "network_options": {}}, "odd number"),
        ({"shortest": 0}, r"shortest=0, expected 1 to the window \(5\)"),
        ({"shortest": 6}, r"shortest=6, expected 1 to the window \(5\)"),
        ({"network": "mlp", "shortest": 3, "network_options": {}}, "expected the window itself for priors of windows"),
        ({"batch": 0}, "batch=0, expected a positive number"),
        ({"steps": -1}, "steps=-1, expected a positive number"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        train(autoregressive(4, 12), tmp_path / "p.safetensors", **(QUICK | options))
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 4 states a trajectory, expected at least the window of 5"):
        train(autoregressive(4, 4), tmp_path / "p.safetensors", **QUICK)
    with pytest.raises(DataError, match="expected some 'train'"):
        data = autoregressive(4, 12)
        train(data.assign_coords(split=("trajectory", ["test"] * 4)), tmp_path / "p.safetensors", **QUICK)
    with pytest.raises(ArchiveError, match="cannot be written"):
        (tmp_path / "file").touch()
        train(autoregressive(4, 12), tmp_path / "file" / "p.safetensors", **QUICK)


def test_a_trained_prior_is_the_one_that_is_opened(tmp_path: Path) -> None:
    trained = train(autoregressive(6, 20), tmp_path / "p.safetensors", **QUICK)
    opened = open_prior(tmp_path / "p.safetensors")
    assert_same(trained, opened)
    assert opened.metadata == trained.metadata and opened.sha256 == trained.sha256
    for a, b in zip(opened.reference, trained.reference, strict=True):
        np.testing.assert_array_equal(a, b)
