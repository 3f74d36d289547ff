"""Checkpoints: what they refuse, and what a run may change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from small_training import assert_same, autoregressive, killed_training, trained

from sdaxr.archives.paths import located
from sdaxr.archives.remote import Remote
from sdaxr.prior import checkpoint
from sdaxr.schema import ArchiveError


def test_a_checkpoint_of_other_settings_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    with pytest.raises(ArchiveError, match=r"other settings \(optimisation.batch: 4 -> 8\)"):
        trained(data, store, optimisation={"batch": 8})
    with pytest.raises(ArchiveError, match=r"other settings \(network.width: 8 -> 16\)"):
        trained(data, store, network={"width": 16, "blocks": 1, "kernel": 3})
    with pytest.raises(ArchiveError, match="other settings.*layout"):
        trained(data.rename(a="b"), store)
    with pytest.raises(ArchiveError, match="other settings.*data"):
        trained(data * 2, store)


def test_a_checkpoint_of_another_context_is_refused(
    monkeypatch: pytest.MonkeyPatch, trajectories: xr.Dataset, tmp_path: Path
) -> None:
    depth = trajectories.u.isel(trajectory=0, time=0, drop=True)
    data, store = trajectories.assign(depth=depth, height=depth), tmp_path / "p.safetensors"
    options = {"network": {"widths": (4, 8), "blocks": 1}, "variables": ["u", "v"]}
    killed_training(monkeypatch, data, store, after=1, context=["depth"], **options)
    for other, context in [(data, ["height"]), (data.assign(depth=depth**2), ["depth"])]:
        with pytest.raises(ArchiveError, match=r"other settings \(data.sha256"):
            trained(other, store, context=context, **options)
    trained(data, store, context=["depth"], **options)


def test_a_run_may_be_prolonged_and_cost_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    prior = trained(data, store, steps=8, optimisation={"validate_every": 4, "memory": 1e9})
    assert [one["step"] for one in prior.metadata["training"]["history"]] == [2, 4, 8]


def test_overwriting_starts_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    fresh = trained(data, store, overwrite=True, seed=5)
    assert_same(fresh, trained(data, tmp_path / "p2.safetensors", seed=5))
    with pytest.raises(ArchiveError, match="overwrite=True to train it anew"):
        trained(data, store)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_was_killed_while_overwriting_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, overwrite: bool
) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    trained(data, store, seed=5)
    killed_training(monkeypatch, data, store, after=1, overwrite=True)
    with caplog.at_level("INFO", "sdaxr"):
        assert trained(data, store, overwrite=overwrite).metadata["seed"] == 0
    assert "resumed from" in caplog.text


def test_a_broken_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    path = store.with_name(store.name + ".checkpoint")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match="cannot be read.*remove it to start anew"):
        trained(data, store)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ArchiveError, match="no checkpoint of sdaxr"):
        trained(data, store)


def test_a_checkpoint_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(ArchiveError, match=r"cannot write '.*checkpoint': No space left .*free some space"):
        trained(autoregressive(6, 20), tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_kill_while_the_checkpoint_is_written_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, store = autoregressive(6, 20), tmp_path / "p.safetensors"
    killed_training(monkeypatch, data, store, after=1)
    # Nobody holds the lock of a workspace whose writer was killed.
    for name in (store.name, f"{store.name}.checkpoint"):
        left = tmp_path / f".{name}.{'0' * 32}.partial"
        left.mkdir()
        (left / name).write_bytes(b"half")
    trained(data, store)
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


@pytest.mark.parametrize("scheme", ["", "memory:/"])
@pytest.mark.parametrize("at", ["save", "load"])
def test_of_two_runs_of_one_training_both_end_with_the_prior(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str, at: str
) -> None:
    """One ends, and removes the checkpoint, while the other has just written it, or is about to read it."""
    data, store, real, results = autoregressive(6, 20), f"{scheme}{tmp_path}/p.safetensors", getattr(checkpoint, at), []

    def and_the_other(path: object, run: object) -> object:
        monkeypatch.setattr(checkpoint, at, real)
        if at == "save":
            real(path, run)
        results.append(trained(data, store))
        return None if at == "save" else real(path, run)

    monkeypatch.setattr(checkpoint, at, and_the_other)
    results.append(trained(data, store))
    assert_same(*results)
    assert located(store).exists() and not located(f"{store}.checkpoint").exists()


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "exists", lambda _: True)
    gone = located("memory://nothing.checkpoint")
    assert not checkpoint.load(gone, object()) and checkpoint.recorded(gone) == {}  # type: ignore[arg-type]
