"""The steps of a training: kills lose nothing, batches are whole or cut, time is respected."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_training import assert_same, autoregressive, killed_training, trained, weights
from spheres import Sphere

import sdaxr
from sdaxr.prior import training
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.run import TrainingRun
from sdaxr.schema import DivergenceError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimisation": {"shortest": 2}},
        {"optimisation": {"weighting": "relative"}},
        {"parameterisation": "eof", "optimisation": {"validate_every": 2}},
        {"optimisation": {"memory": 200.0}},  # streamed
        {"network": {"width": 8, "blocks": 0}},  # nothing depends on the embedding of the noise level
    ],
)
def test_resumed_training_is_bit_identical(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = autoregressive(6, 20)
    whole = trained(data, tmp_path / "whole.safetensors", name="p", **options)
    store = tmp_path / "killed.safetensors"
    killed_training(monkeypatch, data, store, after=1, **options)
    killed_training(monkeypatch, data, store, after=1, **options)
    assert not store.exists() and store.with_name(store.name + ".checkpoint").exists()
    resumed = trained(data, store, name="p", **options)
    assert_same(whole, resumed)
    assert resumed.metadata["training"]["history"] == whole.metadata["training"]["history"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.safetensors", "whole.safetensors"]


def test_a_run_goes_on_with_the_memory_that_it_began_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is free decides which windows are drawn together, and is another amount each time."""
    data, store = autoregressive(6, 20), tmp_path / "killed.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("sdaxr.prior.budget.free_bytes", lambda _: 400.0)
        patch.setattr("sdaxr.prior.budget._USUAL", 200.0)
        patch.setattr("sdaxr.prior.training.check_memory", lambda *_: None)
        patch.setattr("sdaxr.prior.training.check_statistics", lambda needed: needed)
        whole = trained(data, tmp_path / "whole.safetensors", name="p")
        killed_training(monkeypatch, data, store, after=1)
    assert_same(whole, trained(data, store, name="p"))
    held = trained(data, tmp_path / "held.safetensors")
    # Held as a whole, the data are drawn in another order.
    assert any(not torch.equal(weight, weights(held)[key]) for key, weight in weights(whole).items())


def test_minutes_are_respected(tmp_path: Path) -> None:
    start = time.monotonic()
    prior = trained(autoregressive(6, 20), tmp_path / "p.safetensors", steps=None, minutes=0.02)
    about = prior.metadata["training"]
    assert 0.02 <= about["minutes"] + 0.005 < 0.2 and about["steps"] > 1
    assert time.monotonic() - start < 60
    both = trained(autoregressive(6, 20), tmp_path / "q.safetensors", steps=3, minutes=5)
    assert both.metadata["training"]["steps"] == 3


def test_some_batches_are_of_short_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    loss = DenoisingNetwork.loss

    def spy(self: DenoisingNetwork, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[:2]))
        return loss(self, x, *rest)

    monkeypatch.setattr(DenoisingNetwork, "loss", spy)
    optimisation = {"shortest": 3, "batch": 4, "validate_every": 100}
    trained(autoregressive(6, 20), tmp_path / "p.safetensors", window=13, steps=30, optimisation=optimisation)
    # Whole windows, halves and quarters; the last four are the validation's.
    assert set(seen[:-4]) == {(4, 13), (8, 6), (16, 3)}
    assert set(seen[-4:]) == {(4, 13)}


@pytest.mark.parametrize("gaps", [False, True])
def test_errors_count_by_area_on_a_globe_and_noise_does_not(
    gaps: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    loss = DenoisingNetwork.loss

    def spy(self: DenoisingNetwork, *batch: torch.Tensor) -> torch.Tensor:
        seen.append((batch[2], batch[4]))
        return loss(self, *batch)

    monkeypatch.setattr(DenoisingNetwork, "loss", spy)
    data = Sphere.of(8, 8).fields(40)
    data["h"][:, 0, 0] = np.nan  # land
    data["h"][:, 3, 4] = data.h[:, 3, 4].where(np.arange(40) % 3 > 0) if gaps else data.h[:, 3, 4]
    trained(
        data, tmp_path / "p.safetensors", steps=1, network={"widths": [8], "patch": 1}, parameterisation="edm",
        statistics={"missing": "masked" if gaps else "error"},
    )  # fmt: skip
    noise, weights = seen[0]
    weights = weights.expand(noise.shape)
    cells = torch.as_tensor(Sphere.of(8, 8).cells, dtype=torch.float32).reshape(8, 8)
    there = weights > 0
    torch.testing.assert_close(weights, there * cells)
    assert not bool(there[..., 0, 0].any()) and bool(there[..., 3, 4].all()) == (not gaps)
    assert 0.9 < float(noise[there].std()) < 1.1 and not bool(noise[~there].any())


def test_a_loss_that_is_not_finite_ends_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loss = DenoisingNetwork.loss
    monkeypatch.setattr(DenoisingNetwork, "loss", lambda self, *batch: torch.nan * loss(self, *batch))
    with pytest.raises(DivergenceError, match="the loss is nan at step 1; lower the learning rate"):
        trained(autoregressive(6, 20), tmp_path / "p.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_written_in_time_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Between validations, too, and the training loss that is shown goes on from where it was."""
    data, often = autoregressive(6, 20), {"checkpoint_minutes": 1e-9, "validate_every": 100}
    whole = trained(data, tmp_path / "whole.safetensors", name="p", optimisation=often)
    store = tmp_path / "killed.safetensors"
    killed_training(monkeypatch, data, store, after=3, optimisation=often)
    resumed = trained(data, store, name="p", optimisation=often)
    assert_same(whole, resumed)
    assert resumed.metadata["training"]["history"] == whole.metadata["training"]["history"]


def test_a_run_without_a_bar_says_when_it_will_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdaxr.prior.run._FIRST_WORD", 0.0)
    data = xr.Dataset({"a": ("time", np.sin(np.arange(60.0)), {"units": "m"})}, {"time": np.arange(60.0)})
    with caplog.at_level(logging.INFO, logger="sdaxr"):
        sdaxr.train(
            data, tmp_path / "p.safetensors", window=3, steps=3, optimisation={"batch": 2}, progress=False,
            network={"name": "convolutional", "width": 8, "blocks": 1, "kernel": 3},
        )  # fmt: skip
    said = [record.getMessage() for record in caplog.records if "s left" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith("step 1: loss ") and "steps/s, about" in said[0]


def test_minutes_leave_time_for_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a clock on which a step takes ten seconds, and what is computed without a gradient one second."""
    clock = [100.0]
    monkeypatch.setattr("sdaxr.prior.run.time.monotonic", lambda: clock[0])
    parts = DenoisingNetwork.parts

    def slow(self: DenoisingNetwork, *batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clock[0] += 10 if torch.is_grad_enabled() else 1
        return parts(self, *batch)

    monkeypatch.setattr(DenoisingNetwork, "parts", slow)
    prior = trained(
        autoregressive(6, 20), tmp_path / "p.safetensors", steps=None, minutes=10, parameterisation="eof",
        optimisation={"validate_every": 5},
    )  # fmt: skip
    about = prior.metadata["training"]
    assert 8 < about["minutes"] <= 10 and clock[0] - 100 <= 600
    assert about["steps"] >= 40


def test_what_comes_before_the_steps_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = training.measured_eofs

    def slow(*arguments: Any, **options: Any) -> Any:
        clock[0] += 3600
        return measured(*arguments, **options)

    clock = [0.0]
    monkeypatch.setattr("sdaxr.prior.run.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(training, "measured_eofs", slow)
    prior = trained(
        autoregressive(6, 20), tmp_path / "p.safetensors", steps=None, minutes=1, parameterisation="eof"
    )  # fmt: skip
    # One step at least.
    assert prior.metadata["training"]["steps"] == 1 and prior.metadata["training"]["minutes"] == 60


def test_slow_steps_have_a_checkpoint_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, saved = [0.0], []
    monkeypatch.setattr("sdaxr.prior.run.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("sdaxr.prior.checkpoint.save", lambda path, run: saved.append(run.step))
    update = TrainingRun.update

    def slow(self: TrainingRun) -> torch.Tensor:
        clock[0] += 61.0
        return update(self)

    monkeypatch.setattr(TrainingRun, "update", slow)
    trained(autoregressive(6, 20), tmp_path / "p.safetensors", steps=4, optimisation={"validate_every": 1000})
    assert saved == [1, 2, 3, 4]
