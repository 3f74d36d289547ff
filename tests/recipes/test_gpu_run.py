"""The programme for a GPU: phases one by one, results line by line, priors that go on and are adopted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from recipe_modules import recipe_modules
from small_training import TINY, autoregressive, weights

import sdaxr
from sdaxr.states.infer import infer_layout


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimpleNamespace]:
    with recipe_modules(
        "gpu", ["run", "phase", "priors", "flow", "geostrophic", "rates", "adopt", "together"]
    ) as modules:
        yield modules


@pytest.fixture
def phase(gpu: SimpleNamespace, tmp_path: Path) -> Any:
    (tmp_path / "out").mkdir()
    return gpu.phase.Phase("flow", torch.device("cpu"), 60.0, True, tmp_path / "out", tmp_path)


def test_tasks_side_by_side_are_recorded_once(gpu, phase, monkeypatch):
    monkeypatch.setattr(gpu.together, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    phase.record("sum", number=1, total=-1)
    tasks = [{"number": n} for n in range(3)]
    gpu.together.together(phase, "sum", tasks, lambda *, number, device: {"total": 10 * number, "device": device})
    found = {line["number"]: (line["total"], line.get("device")) for line in phase.records("sum")}
    assert found == {0: (0, "cpu"), 1: (-1, None), 2: (20, "cpu")}
    with pytest.raises(ZeroDivisionError):
        gpu.together.together(phase, "ratio", tasks, lambda *, number, device: {"ratio": 1 / number, "device": device})


def test_a_phase_that_fails_takes_no_time_from_the_next(gpu, monkeypatch, tmp_path):
    started = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        started.append((command[command.index("--phases") + 1], float(command[command.index("--inside") + 1])))
        if started[-1][0] == "rates":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return SimpleNamespace(returncode=1 if started[-1][0] == "check" else 0)

    monkeypatch.setattr(gpu.run.subprocess, "run", run)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "check.jsonl").write_text("{}\n")
    outcome = CliRunner().invoke(
        gpu.run.main,
        [
            "--minutes",
            "9",
            "--out",
            str(tmp_path / "new"),
            "--resume",
            str(tmp_path / "old"),
            "--scratch",
            str(tmp_path),
        ],
    )
    assert [name for name, _ in started] == list(gpu.run.USUAL)
    assert dict(started)["check"] == 60 and dict(started)["long"] > 400  # the last may take what is left
    assert outcome.exit_code == 1 and "failed: check, rates" in outcome.output
    assert (tmp_path / "new" / "check.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (
            ["--phases", "check,speed"],
            "found speed, expected some of check, rates, flow",
            2,
        ),
        (["--minutes", "0.1"], "check: left out, no time is left", 0),
    ],
)
def test_what_cannot_run(gpu, options, said, code, tmp_path):
    outcome = CliRunner().invoke(gpu.run.main, [*options, "--out", str(tmp_path / "o"), "--scratch", str(tmp_path)])
    assert outcome.exit_code == code and said in " ".join(outcome.output.split())


def test_results_are_written_line_by_line_and_not_computed_again(gpu, monkeypatch, tmp_path):
    stand_in = ModuleType("check")

    def run(phase: Any) -> None:
        if phase.missing("measurement", size=1):
            phase.record("measurement", size=1, value=np.float32(2))

    stand_in.run = run
    monkeypatch.setitem(sys.modules, "check", stand_in)
    for _ in range(2):
        gpu.run._phase("check", "cpu", 30.0, True, tmp_path, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["machine", "measurement", "end", "machine", "end"]
    assert lines[0]["device"] == "cpu" and torch.__version__.startswith(lines[0]["torch"])
    assert lines[1]["value"] == 2.0


def test_a_phase_starts_nothing_when_its_time_is_over(gpu, tmp_path):
    late = gpu.phase.Phase("flow", torch.device("cpu"), 0.0, False, tmp_path, tmp_path)
    assert not late.missing("anything") and late.size(1000) == 1000
    early = gpu.phase.Phase("flow", torch.device("cpu"), 60.0, True, tmp_path, tmp_path)
    assert early.missing("anything") and early.size(1000) == 100 and early.size(3) == 1


@pytest.mark.parametrize(("module", "prior"), [("flow", "kolmogorov"), ("geostrophic", "quasigeostrophic")])
def test_trajectories_have_the_labels_of_the_shipped_prior(gpu, module, prior):
    """Priors of them replace the shipped one: grid, units, time step and splits are those of `sdaxr.generate`."""
    states = np.random.default_rng(0).normal(size=(20, 9, 2, 64, 64)).astype(np.float32)
    if module == "flow":
        data = gpu.flow.labelled(states, tests=4)
    else:
        data = gpu.geostrophic.labelled(gpu.geostrophic.QuasiGeostrophic(), states)
    layout, shipped = infer_layout(data), sdaxr.open_prior(prior).layout
    assert layout.time == shipped.time and layout.periodic == shipped.periodic
    assert shipped.to_array(data).shape == (20, 9, 2, 64, 64)
    assert set(data.split.values) == {"train", "valid", "test"} and (data.split.values[:14] == "train").all()


def test_a_prior_goes_on_from_the_weights_of_an_earlier_run(gpu, phase, monkeypatch):
    optimisation = sdaxr.Optimisation(compile=True)
    monkeypatch.setattr(gpu.priors, "_compiles", lambda phase: False)
    options = {"window": 5, "network": TINY}
    design = gpu.priors.Design("series", options, optimisation, {"name": "sde-dpm++", "steps": 4})
    first = gpu.priors.trained(phase, autoregressive(6, 20), design, seconds=1.0)
    second = gpu.priors.trained(phase, autoregressive(6, 20), design, seconds=1.0)
    one, two = phase.records("training")
    assert one["start"] is None and two["start"]["name"] == "series" and one["compiled"] is False
    assert not all(torch.equal(w, weights(second)[k]) for k, w in weights(first).items())
    kept = sdaxr.open_prior(phase.out / "series.safetensors")
    assert kept.metadata["sampling"]["sampler"] == design.sampler and kept.metadata["start"] == two["start"]
    assert sorted(p.name for p in phase.out.iterdir()) == ["flow.jsonl", "series.safetensors"]


def test_a_compiler_that_is_not_there_does_not_stop_a_training(gpu, phase, monkeypatch):
    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no C compiler\nand where it was looked for")

    monkeypatch.setattr(torch, "compile", fail)
    assert not gpu.priors._compiles(phase)
    assert phase.records("no compilation")[0]["reason"] == "RuntimeError: no C compiler"


def scores(**crps: list[float]) -> pd.DataFrame:
    rows = [{"prior": p, "truth": i, "crps": c} for p, values in crps.items() for i, c in enumerate(values)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (scores(shipped=[1.0, 2.0, 3.0], a=[0.9, 1.9, 2.9], b=[0.8, 1.8, 2.8]), "b"),
        (scores(shipped=[1.0, 2.0, 3.0], a=[1.1, 2.1, 3.1]), None),
        (scores(shipped=[1.0, 2.0, 3.0], a=[0.5, 2.3, 3.1]), None),  # lower by less than the standard error
        (scores(shipped=[1.0], a=[0.5]), None),  # one truth tells nothing
    ],
)
def test_a_prior_is_adopted_where_its_crps_is_surely_lower(gpu, table, expected):
    assert gpu.adopt.better(table) == expected


def test_an_adopted_prior_records_what_was_measured(gpu, phase, tmp_path):
    design = gpu.priors.Design("series-wide", {"window": 5, "network": TINY}, sdaxr.Optimisation(), {"steps": 4})
    prior = gpu.priors.trained(phase, autoregressive(6, 20), design, seconds=0.5)
    table = scores(**{"series-wide": [0.25, 0.75]}).assign(system="series", members=8)
    path = gpu.adopt.ship(phase.out / "series-wide.safetensors", "series", table, tmp_path)
    adopted = sdaxr.open_prior(path)
    assert path.name == "series.safetensors" and adopted.name == "series"
    assert (
        adopted.metadata["measurements"]["crps"] == 0.5 and adopted.metadata["measurements"]["test_trajectories"] == 2
    )
    for key, weight in weights(prior).items():
        torch.testing.assert_close(weights(adopted)[key], weight, atol=1e-3, rtol=1e-3)


def test_floating_point_operations_are_counted_and_timings_are_of_whole_calls(gpu, phase):
    assert gpu.rates.ceilings(phase) > 1e8
    calls = []
    seconds = gpu.rates.timed(phase, lambda: calls.append(len(calls)))
    assert 0 < seconds < 0.1 and len(calls) > 1
