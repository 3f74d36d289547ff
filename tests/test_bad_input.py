"""150 kinds of bad input: each is a typed error of one line; nothing is written, nothing large is allocated."""

from __future__ import annotations

import functools
import json
import struct
import tracemalloc
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.commands import cli, recipe
from sdaxr.schema import SdaxrError

Call = Callable[[], Any]
_MOST = 100e6
QUIET: dict[str, Any] = {"progress": False}
DRAWN: dict[str, Any] = {"members": 2, "sampler": {"steps": 2, "attempts": 1, "mixing": False}, **QUIET}


@functools.cache
def states(times: int = 40) -> xr.Dataset:
    """Something like a trajectory of lorenz63."""
    time = 0.025 * np.arange(times)
    values = {n: ("time", np.sin(time + i).astype(np.float32), {"units": "1"}) for i, n in enumerate("abc")}
    return xr.Dataset(values, {"time": ("time", time, {"units": "1"})})


@functools.cache
def seen() -> xr.Dataset:
    return sdaxr.observe(states(), op.select("a"), every=8, error=1.0)


@functools.cache
def fields() -> xr.Dataset:
    """Temperatures on a globe."""
    coords = {"time": pd.date_range("2020-01-01", periods=12, freq="6h"), "lat": [-45.0, 0, 45], "lon": [0.0, 90, 180]}
    values = 280 + np.random.default_rng(0).normal(size=(12, 3, 3)).astype(np.float32)
    return xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, coords)


def ensemble() -> xr.Dataset:
    return xr.concat([states(), states() + 1.0], xr.Variable("member", [0, 1]))


def generate(system: Any = "lorenz63", store: Any = "t.zarr", **options: Any) -> Any:
    return sdaxr.generate(system, store, **{"trajectories": 1, "steps": 2, **QUIET, **options})


def train(data: Any, store: Any = "p.safetensors", **options: Any) -> Any:
    return sdaxr.train(data, store, **{"window": 3, "steps": 1, **QUIET, **options})


def observe(data: Any, operator: Any = None, **options: Any) -> Any:
    return sdaxr.observe(data, operator or op.identity(), **{"error": 1.0, **options})


def assimilate(data: Any, prior: Any = "lorenz63", **options: Any) -> Any:
    return sdaxr.assimilate(data, prior, **{**DRAWN, **options})


def cycle(data: Any, prior: Any = "lorenz63", **options: Any) -> Any:
    return sdaxr.cycle(data, prior, **{**DRAWN, **options})


def calibrate(truth: Any = "lorenz63", operator: Any = None, prior: Any = "lorenz63", **options: Any) -> Any:
    how = {"error": 1.0, "steps": 8, "truths": 2, **DRAWN, **options}
    return sdaxr.calibrate(truth, operator or op.select("a"), prior, **how)


def forecast(data: Any, model: Any = "lorenz63", **options: Any) -> Any:
    return sdaxr.forecast(data, model, **{"steps": 1, **QUIET, **options})


def denoise(data: Any, prior: Any = "lorenz63", **options: Any) -> Any:
    return sdaxr.denoise(data, prior, **{"error": 1.0, "steps": 2, **QUIET, **options})


def prior_with(change: dict[str, Any] | None = None, *, cut: int | None = None, header: bytes | None = None) -> Any:
    """Open a shipped prior whose file has been altered."""
    raw = (resources.files("sdaxr.prior") / "shipped" / "lorenz63.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8 : 8 + size])
    if change is not None:
        head["__metadata__"]["about"] = json.dumps(json.loads(head["__metadata__"]["about"]) | change)
    text = json.dumps(head).encode() if header is None else header
    made = struct.pack("<Q", len(text)) + text + raw[8 + size :]
    Path("in/p.safetensors").write_bytes(made[:cut])
    return sdaxr.open_prior("in/p.safetensors")


def file(name: str, content: str | bytes) -> str:
    path = Path("in") / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def run(content: str) -> Any:
    return recipe.run(file("r.yaml", content), progress=False)


def stored(data: xr.Dataset, name: str = "a.nc") -> str:
    data.to_netcdf(Path("in") / name)
    return f"in/{name}"


GENERATE: dict[str, Call] = {
    "an unknown system": lambda: generate("lorenz64"),
    "a list as the system": lambda: generate(["lorenz63"]),
    "None as the system": lambda: generate(None),
    "an unknown option of the system": lambda: generate(sigmaa=1),
    "no trajectory": lambda: generate(trajectories=0),
    "a fraction of a trajectory": lambda: generate(trajectories=1.5),
    "a negative number of steps": lambda: generate(steps=-1),
    "a text as the number of steps": lambda: generate(steps="2"),
    "a negative seed": lambda: generate(seed=-1),
    "a truth value as the seed": lambda: generate(seed=True),
    "fractions that do not add up": lambda: generate(split=(0.5, 0.1, 0.1)),
    "two fractions": lambda: generate(split=(0.5, 0.5)),
    "texts as fractions": lambda: generate(split=("a", "b", "c")),
    "no batch": lambda: generate(batch=0),
    "a URL of an unknown protocol": lambda: generate(store="htp://bucket/t.zarr"),
    "a store without suffix": lambda: generate(store="t"),
    "a zip file as the store": lambda: generate(store="t.zarr.zip"),
    "a store in a file": lambda: generate(store=file("a", "") + "/t.zarr"),
    "a number as the store": lambda: generate(store=5),
    "a foreign file as the store": lambda: generate(store=file("a.nc", "mine")),
    "a foreign file to overwrite": lambda: generate(store=file("a.nc", "mine"), overwrite=True),
    "a step of the system that is negative": lambda: generate(step=-0.1),
    "a text as an option of the system": lambda: generate(step="a"),
}

TRAIN: dict[str, Call] = {
    "a DataFrame": lambda: train(states().to_dataframe()),
    "an array": lambda: train(np.zeros((4, 4))),
    "None": lambda: train(None),
    "an array without a name": lambda: train(states().a.rename(None)),
    "several labels along a dimension": lambda: train(fields().stack(cell=("lat", "lon"))),
    "no variable": lambda: train(states()[[]]),
    "no time": lambda: train(states().isel(time=0)),
    "a time without a coordinate": lambda: train(states().drop_vars("time")),
    "an empty time": lambda: train(states().isel(time=slice(0))),
    "times that are not regular": lambda: train(
        states().assign_coords(time=np.cumsum(np.linspace(1, 1.4, states().sizes["time"])))
    ),
    "too few times": lambda: train(states(2), window=5),
    "NaN at some times": lambda: train(states().where(states().time != 0.5)),
    "infinite values": lambda: train(states() + np.inf),
    "texts as values": lambda: train(states().assign(b=states().b.astype(str))),
    "dates as values": lambda: train(states().assign(b=("time", np.full(40, np.datetime64("2020", "ns"))))),
    "texts in the context": lambda: train(fields().assign(c=(("lat", "lon"), np.full((3, 3), "sea"))), context=["c"]),
    "no such variable": lambda: train(states(), variables=["d"]),
    "a file that is not there": lambda: train("missing.nc"),
    "a text file": lambda: train(file("a.nc", "no data")),
    "no step": lambda: train(states(), steps=0),
    "a negative time": lambda: train(states(), minutes=-1),
    "no window": lambda: train(states(), window=0),
    "an unknown network": lambda: train(states(), network="cnn"),
    "an unknown option of the network": lambda: train(states(), network={"name": "mlp", "size": 3}),
    "an unknown parameterisation": lambda: train(states(), parameterisation="v"),
    "an unknown option of the optimisation": lambda: train(states(), optimisation={"lr": 1}),
    "a negative learning rate": lambda: train(states(), optimisation={"learning_rate": -1}),
    "unknown statistics": lambda: train(states(), statistics={"a": 1}),
    "an unknown device": lambda: train(states(), device="tpu"),
    "a store of another format": lambda: train(states(), "p.zarr"),
    "a URL of an unknown protocol": lambda: train(states(), "htp://b/p.safetensors"),
    "a store that is there": lambda: train(states(), file("p.safetensors", "mine")),
    "a context that is not there": lambda: train(states(), context=["mask"]),
}

OBSERVE: dict[str, Call] = {
    "a DataFrame": lambda: observe(states().to_dataframe()),
    "a path": lambda: observe("truth.nc"),
    "several trajectories": lambda: observe(ensemble()),
    "no time": lambda: observe(states().isel(time=0, drop=True)),
    "an error of zero": lambda: observe(states(), error=0.0),
    "a negative error": lambda: observe(states(), error=-1.0),
    "an error that is NaN": lambda: observe(states(), error=np.nan),
    "an error for another variable": lambda: observe(states(), error={"d": 1.0}),
    "an unknown noise": lambda: observe(states(), noise="cauchy"),
    "every none": lambda: observe(states(), every=0),
    "a start beyond the end": lambda: observe(states(), start=1000),
    "all missing": lambda: observe(states(), missing=1.0),
    "a negative seed": lambda: observe(states(), seed=-1),
    "an unknown variable": lambda: observe(states(), op.select("d")),
    "cells larger than the grid": lambda: observe(fields(), op.coarsen(64)),
    "an unknown mask": lambda: observe(states(), where={"cover": 0.1}),
    "a correlation along nothing": lambda: observe(states(), correlation={"z": 1.0}),
    "points outside": lambda: observe(fields(), op.points({"lat": [1e3], "lon": [0.0]})),
}

ASSIMILATE: dict[str, Call] = {
    "a DataFrame": lambda: assimilate(seen().to_dataframe()),
    "a path": lambda: assimilate("obs.nc"),
    "None": lambda: assimilate(None),
    "no network": lambda: assimilate({}),
    "a network that is None": lambda: assimilate({"a": None}),
    "an array without a name": lambda: assimilate(seen().a.rename(None)),
    "an array without an error": lambda: assimilate(seen().a),
    "a mapping of arrays without errors": lambda: assimilate({"x": seen().a}),
    "observations without an error": lambda: assimilate(seen().drop_vars("a_error")),
    "a negative error": lambda: assimilate(seen().assign(a_error=-seen().a_error)),
    "a variable that the prior has not": lambda: assimilate(seen().rename(a="d", a_error="d_error")),
    "texts as values": lambda: assimilate(seen().assign(a=seen().a.astype(str))),
    "texts as errors": lambda: assimilate(seen().assign(a_error=seen().a.astype(str))),
    "complex numbers as values": lambda: assimilate(seen().assign(a=seen().a.astype(complex))),
    "other units": lambda: assimilate(seen().assign(a=seen().a.assign_attrs(units="m"))),
    "times beyond the window": lambda: assimilate(seen(), times=[0.0, 0.025]),
    "times at another step": lambda: assimilate(seen(), times=[0.0, 1.0, 2.0]),
    "a fill value": lambda: assimilate(seen().assign(a=seen().a.where(seen().time > 0.1, 1e20))),
    "a fill value beside a system": lambda: assimilate(
        seen().assign(a=seen().a.where(seen().time > 0.1, -9999.0)), None, system="lorenz63", sampler=None
    ),
    "one station in two networks": lambda: assimilate(
        dict.fromkeys("ab", seen().rename(time="obs").assign_coords(time=("obs", seen().time.values)).drop_vars("obs"))
    ),
    "no member": lambda: assimilate(seen(), members=0),
    "half a member": lambda: assimilate(seen(), members=0.5),
    "a negative seed": lambda: assimilate(seen(), seed=-1),
    "no batch": lambda: assimilate(seen(), batch=0),
    "an unknown prior": lambda: assimilate(seen(), "lorenz64"),
    "a URL as the prior": lambda: assimilate(seen(), "s3://b/p.safetensors"),
    "a text file as the prior": lambda: assimilate(seen(), file("p.safetensors", "no prior")),
    "an array as the prior": lambda: assimilate(seen(), np.zeros(3)),
    "no prior": lambda: assimilate(seen(), None),
    "an unknown method": lambda: assimilate(seen(), method="kriging"),
    "an unknown option of the method": lambda: assimilate(seen(), method={"gammma": 1}),
    "a method that needs a system": lambda: assimilate(seen(), method="kalman"),
    "an unknown sampler": lambda: assimilate(seen(), sampler="euler"),
    "an unknown option of the sampler": lambda: assimilate(seen(), sampler={"step": 1}),
    "no step of the sampler": lambda: assimilate(seen(), sampler={"steps": 0}),
    "an unknown device": lambda: assimilate(seen(), device="tpu"),
    "an unknown precision": lambda: assimilate(seen(), precision="float8"),
    "an unknown treatment of what is outside": lambda: assimilate(seen(), outside="ignore"),
    "an unknown system": lambda: assimilate(seen(), None, system="lorenz64", sampler=None),
    "a Zarr store object that is read only": lambda: assimilate(
        seen(), store=__import__("zarr").storage.MemoryStore(read_only=True)
    ),
    "a URL that is read only as the store": lambda: assimilate(seen(), store="https://localhost/p.zarr"),
    "storage options of another kind": lambda: assimilate(seen(), storage_options="anon"),
    "a store of another format": lambda: assimilate(seen(), store="p.csv"),
    "a background of several states": lambda: assimilate(seen(), background=ensemble()),
    "an array as the background": lambda: assimilate(seen(), background=np.zeros(3)),
    "an operator in the observations that is none": lambda: assimilate(seen().assign_attrs(operator="coarsen")),
    "an operator in the observations that is a list": lambda: assimilate(seen().assign_attrs(operator='{"op": ["x"]}')),
    "an operator for another network": lambda: assimilate(seen(), operator={"b": op.identity()}),
    "no window of a cycle": lambda: cycle(seen(), window=0),
    "a cycle by an unknown model": lambda: cycle(seen(), carry="lorenz64"),
    "a cycle with a negative inflation": lambda: cycle(seen(), inflation=-1.0),
    "a cycle with an unknown option": lambda: cycle(seen(), inflations=1.0),
    "a calibration with neither prior nor system": lambda: calibrate(prior=None),
    "a calibration of an unknown system": lambda: calibrate("lorenz64"),
    "a calibration of a path": lambda: calibrate("t.zarr"),
    "a calibration of too few states": lambda: calibrate(states(), steps=30),
    "a calibration of one truth": lambda: calibrate(truths=1),
    "a calibration of another variable": lambda: calibrate(operator=op.select("d")),
    "a calibration with an error of zero": lambda: calibrate(error=0.0),
    "a calibration with an unknown option": lambda: calibrate(evry=2),
    "a calibration with an unknown quantity": lambda: calibrate(quantities=["rank"]),
    "a cycle of a path": lambda: cycle("obs.nc"),
}

AFTERWARDS: dict[str, Call] = {
    "a forecast of a DataFrame": lambda: forecast(states().to_dataframe()),
    "a forecast by nothing": lambda: forecast(states(), "lorenz64"),
    "a forecast without steps": lambda: forecast(states(), steps=0),
    "a forecast without time": lambda: forecast(states().isel(time=0, drop=True)),
    "a forecast from NaN": lambda: forecast(states() * np.nan),
    "a forecast from texts": lambda: forecast(states().astype(str), sdaxr.open_prior("lorenz63")),
    "a forecast of other variables": lambda: forecast(fields()),
    "a forecast with an unknown option": lambda: forecast(states(), sigmaa=3.0),
    "a forecast by None": lambda: forecast(states(), None),
    "noisy fields that are an array": lambda: denoise(np.zeros(3)),
    "a noise of zero": lambda: denoise(states(), error=0.0),
    "a noise that is a text": lambda: denoise(states(), error="a"),
    "an unknown way to denoise": lambda: denoise(states(), method="median"),
    "noisy fields with gaps": lambda: denoise(states() * np.nan),
    "noisy fields that are texts": lambda: denoise(states().astype(str)),
    "noisy fields of other variables": lambda: denoise(fields()),
    "innovations of a DataFrame": lambda: sdaxr.innovations(states(), states().to_dataframe()),
    "innovations of other variables": lambda: sdaxr.innovations(fields(), seen()),
    "scores against a path": lambda: sdaxr.verify(states(), "truth.nc"),
    "scores against texts": lambda: sdaxr.verify(states(), states().astype(str)),
    "scores against another system": lambda: sdaxr.verify(states(), fields()),
    "scores at other times": lambda: sdaxr.verify(states(), states().assign_coords(time=states().time + 1e3)),
    "an unknown score": lambda: sdaxr.verify(states(), states(), metrics=["r2"]),
    "a spread of one state": lambda: sdaxr.verify(states(), states(), metrics=["spread"]),
    "a picture of an array": lambda: sdaxr.plot(np.zeros(3)),
    "a picture without variables": lambda: sdaxr.plot(states()[[]]),
    "a picture of an unknown variable": lambda: sdaxr.plot(states(), variable="d"),
    "a picture that is a film": lambda: sdaxr.plot(states(), path="a.mp4"),
    "a picture at a URL": lambda: sdaxr.plot(states(), path="s3://b/a.png"),
    "a picture in a folder that is not there": lambda: sdaxr.plot(states(), path="missing/a.png"),
    "a picture of no time": lambda: sdaxr.plot(fields(), times=0),
    "a picture at a time that is not there": lambda: sdaxr.plot(fields(), times=["1990-01-01"]),
    "a picture of no member": lambda: sdaxr.plot(ensemble(), members=-1),
    "a film that is a picture": lambda: sdaxr.animate(states(), "a.png"),
    "a film that stands still": lambda: sdaxr.animate(states(), "a.gif", fps=0),
    "a film in a folder that is not there": lambda: sdaxr.animate(states(), "missing/a.gif"),
}

FILES: dict[str, Call] = {
    "nothing to open": lambda: sdaxr.open_archive("missing.zarr"),
    "a text file to open": lambda: sdaxr.open_archive(file("a.nc", "text")),
    "an empty file to open": lambda: sdaxr.open_archive(file("a.nc", "")),
    "a folder to open": lambda: sdaxr.open_archive("in"),
    "a URL to open": lambda: sdaxr.open_archive("https://a.b/c.nc"),
    "a number to open": lambda: sdaxr.open_archive(5),
    "no name to open": lambda: sdaxr.open_archive(""),
    "metadata that are no JSON": lambda: sdaxr.open_archive(Path(file("zarr.json", "{")).parent),
    "metadata of nothing": lambda: sdaxr.open_archive(Path(file("zarr.json", "{}")).parent),
    "a prior that is cut": lambda: prior_with(cut=1000),
    "a prior of another program": lambda: prior_with(header=b'{"__metadata__": {}}'),
    "a prior with an unknown parameterisation": lambda: prior_with({"parameterisation": "zzz"}),
    "a prior with impossible noise levels": lambda: prior_with({"levels": [0, 1], "optimisation": {"levels": [0, 1]}}),
    "a prior without a network": lambda: prior_with({"network": []}),
    "a prior with another network": lambda: prior_with({"network": {"name": "mlp"}}),
    "a prior whose window is a text": lambda: prior_with({"window": "x"}),
    "a prior whose window is negative": lambda: prior_with({"window": -3}),
    "a prior without a layout": lambda: prior_with({"layout": None}),
    "a prior with a symmetry of another variable": lambda: prior_with({"symmetries": [{"negate": ["z"]}]}),
    "a symmetry that is a text": lambda: sdaxr.open_prior("lorenz63").with_symmetries("ab"),
    "a prior with an empty layout": lambda: prior_with({"layout": {}}),
    "a prior without an optimisation": lambda: prior_with({"optimisation": {}}),
    "a prior whose optimisation is a text": lambda: prior_with({"optimisation": "x"}),
    "a prior with unreadable operators": lambda: prior_with({"augment": {"a": "b"}}),
}

STEP = "generate: {system: lorenz63, store: t.zarr, trajectories: 1, steps: 2"
RECIPES: dict[str, Call] = {
    "a recipe that is not there": lambda: recipe.run("missing.yaml"),
    "a recipe that is no YAML": lambda: run("generate: {"),
    "an empty recipe": lambda: run(""),
    "a recipe that is a text": lambda: run("generate"),
    "a recipe with an unknown step": lambda: run("simulate: {system: lorenz63}"),
    "a step without parameters": lambda: run("generate:"),
    "a step with an unknown parameter": lambda: run(STEP + ", sigmaa: 1}"),
    "a step without its store": lambda: run("generate: {system: lorenz63, trajectories: 1, steps: 2}"),
    "a step whose system is a list": lambda: run(STEP.replace("lorenz63", "[a]") + "}"),
    "a step whose store is a number": lambda: run(STEP.replace("t.zarr", "5") + "}"),
    "a step whose store is a URL": lambda: run(STEP.replace("t.zarr", "'s3://b/t.zarr'") + "}"),
    "a step whose number is infinite": lambda: run(STEP.replace("trajectories: 1", "trajectories: .inf") + "}"),
    "a step whose number is a text": lambda: run(STEP.replace("steps: 2", "steps: two") + "}"),
    "a step whose input is not there": lambda: run("plot: {data: missing.nc, path: a.png}"),
    "two steps with one store": lambda: run(f"[{{{STEP}}}}}, {{{STEP}}}}}]"),
    "a parameter that is given twice": lambda: run(STEP + ", steps: 3}"),
    "a step with an operator that is none": lambda: run(
        f"- {STEP}}}\n- observe: {{truth: t.zarr, operator: coarsen, error: 1, store: o.nc}}"
    ),
    "a step with an unknown operator": lambda: run(
        f"- {STEP}}}\n- observe: {{truth: t.zarr, operator: {{op: [x]}}, error: 1, store: o.nc}}"
    ),
    "a step with several outputs": lambda: run("report: {observations: [a.nc, b.nc], prior: lorenz63, store: s.nc}"),
    "a step with an unknown prior": lambda: run(
        f"- {STEP}}}\n- assimilate: {{observations: t.zarr, prior: lorenz64, store: p.zarr}}"
    ),
}

SHELL: dict[str, Callable[[], list[str]]] = {
    "an unknown command": lambda: ["simulate"],
    "an unknown flag": lambda: ["info", "--verbose", "a.nc"],
    "a missing flag": lambda: ["generate", "lorenz63"],
    "a text for a number": lambda: ["generate", "lorenz63", "--store", "t.zarr", "--trajectories", "a", "--steps", "2"],
    "an option without a value": lambda: [
        *["generate", "lorenz63", "--store", "t.zarr", "--trajectories", "1", "--steps", "2", "--option", "step"]
    ],
    "a store that is a URL": lambda: [
        *["generate", "lorenz63", "--store", "s3://b/t.zarr", "--trajectories", "1", "--steps", "2"]
    ],
    "info of nothing": lambda: ["info", "missing.zarr"],
    "info of a text file": lambda: ["info", file("a.nc", "text")],
    "info of a URL": lambda: ["info", "s3://b/a.zarr"],
    "info of a damaged prior": lambda: ["info", file("p.safetensors", "text")],
    "info of a damaged recipe": lambda: ["info", file("r.yaml", "a: [")],
    "a recipe that is not there": lambda: ["run", "missing.yaml"],
    "a picture that is a film": lambda: ["plot", stored(states()), "--path", "a.mp4"],
    "a picture of nothing": lambda: ["plot", "missing.nc", "--path", "a.png"],
    "a film that is a picture": lambda: ["animate", stored(states()), "--path", "a.png"],
    "a trajectory that is not there": lambda: ["plot", stored(states()), "--path", "a.png", "--trajectory", "3"],
    "an operator that is no JSON": lambda: [
        *["observe", stored(states()), "--operator", "coarsen(8)", "--error", "1", "--store", "o.nc"]
    ],
    "an operator that is a list": lambda: [
        *["observe", stored(states()), "--operator", "[1]", "--error", "1", "--store", "o.nc"]
    ],
    "a correlation that is no JSON": lambda: [
        *["observe", stored(states()), "--operator", '{"op": "identity"}', "--error", "1", "--store", "o.nc"],
        *["--correlation", "time"],
    ],
    "observations in a text file": lambda: [
        *["assimilate", file("a.nc", "a,b"), "--prior", "lorenz63", "--store", "p.zarr"]
    ],
    "observations with an operator that is none": lambda: [
        *["assimilate", stored(seen().assign_attrs(operator='{"op": ["x"]}'))],
        *["--prior", "lorenz63", "--store", "p.zarr"],
    ],
    "observations with an infinite window": lambda: [
        *["assimilate", stored(seen().assign_coords(window=("bound", [0, np.inf])))],
        *["--prior", "lorenz63", "--store", "p.zarr"],
    ],
    "a posterior of another format": lambda: [
        *["assimilate", stored(seen()), "--prior", "lorenz63", "--store", "p.csv"]
    ],
    "neither prior nor system": lambda: ["assimilate", stored(seen()), "--store", "p.zarr"],
    "scores of nothing": lambda: ["verify", "missing.nc", stored(states())],
    "an unknown score": lambda: ["verify", stored(states()), stored(states(), "b.nc"), "--metrics", "r2"],
    "training on nothing": lambda: ["train", "missing.nc", "--store", "p.safetensors"],
    "an augmentation that is no operator": lambda: [
        *["train", stored(states()), "--store", "p.safetensors", "--augment", "v=import os"]
    ],
}

CALLS = {
    f"{group}: {name}": call
    for group, calls in {
        "generate": GENERATE, "train": TRAIN, "observe": OBSERVE, "assimilate": ASSIMILATE, "afterwards": AFTERWARDS,
        "files": FILES, "recipes": RECIPES,
    }.items()
    for name, call in calls.items()
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; bad files are in its folder ``in``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    seen()
    return tmp_path


def assert_untouched(folder: Path) -> None:
    """Nothing was written outside ``in``, and no file of sdaxr's own in it."""
    assert [path.name for path in folder.iterdir()] == ["in"]
    assert not [path.name for path in (folder / "in").iterdir() if "partial" in path.name or "state" in path.name]


def test_there_are_150_kinds() -> None:
    assert len(CALLS) + len(SHELL) >= 150


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bad_input_is_one_line(folder: Path, call: Call) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SdaxrError) as found:
            call()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = str(found.value)
    assert text and "\n" not in text and type(found.value) is not SdaxrError
    assert most < _MOST
    assert_untouched(folder)


@pytest.mark.parametrize("arguments", SHELL.values(), ids=SHELL)
def test_the_shell_has_exit_code_2_and_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: Callable[[], list[str]]
) -> None:
    given = arguments()
    capsys.readouterr()
    with pytest.raises(SystemExit) as found:
        cli.main([*given, *(["--quiet"] if given[0] in cli.main.commands else [])])
    output, errors = capsys.readouterr()
    assert found.value.code == 2 and not output
    assert errors.startswith("sdaxr: ") and errors.count("\n") == 1 and "Traceback" not in errors
    assert_untouched(folder)
