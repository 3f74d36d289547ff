"""The worst of the files and texts that `recipes/endurance/fuzz.py` makes: each is refused with one line, in bounds."""

from __future__ import annotations

import copy
import functools
import json
import os
import pickle
import resource
import struct
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import sdaxr
from sdaxr import operators as op
from sdaxr.commands import recipe
from sdaxr.schema import SdaxrError

# Modules that are imported late take some of it.
_MOST = 300e6
_SECONDS = 30
Tensors = dict[str, torch.Tensor]


@functools.cache
def shipped() -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the header of a shipped prior."""
    path = resources.files("sdaxr.prior") / "shipped" / "lorenz63.safetensors"
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    about = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["about"])
    about["training"] = {}
    return load_file(str(path)), about


def opened(path: Path, about: Any = None, change: Callable[[Tensors], object] = lambda tensors: None) -> sdaxr.Prior:
    """The prior of a file whose header, or whose tensors, were changed."""
    tensors, header = dict(shipped()[0]), shipped()[1] if about is None else about
    change(tensors)
    save_file(tensors, path, {"sdaxr": "sdaxr prior 2", "about": json.dumps(header)})
    return sdaxr.open_prior(path)


def with_entry(place: str, value: Any) -> dict[str, Any]:
    """The header with another value at a place such as ``layout.time.step``."""
    about = copy.deepcopy(shipped()[1])
    *parts, last = place.split(".")
    functools.reduce(lambda node, part: node[part], parts, about)[last] = value
    return about


def refused(call: Callable[[], Any]) -> str:
    """The message of the error of one short line, which comes soon and takes little memory."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SdaxrError) as caught:
        call()
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < _MOST
    assert time.monotonic() - began < _SECONDS
    message = str(caught.value)
    assert message and "\n" not in message.strip() and len(message) < 1500
    return message


HEADERS = [
    ("parameterisation", "zzz"), ("parameterisation", "eof"), ("window", 0), ("window", 10**400), ("window", "9"),
    ("window", None), ("network", None), ("network", {"width": 64}), ("network.name", "zzz"), ("network.width", 20_000),
    ("network.width", 10**9), ("network.width", -64), ("network.blocks", 10**9), ("network.blocks", 7),
    ("network.dilation", 1000), ("network.kernel", 4), ("network.zzz", 1), ("optimisation", {}),
    ("optimisation.levels", [0, 1]), ("optimisation.levels", [1, 0.1]), ("optimisation.levels", [0.1, 1e999]),
    ("optimisation.ema", 2), ("optimisation.batch", 10**15), ("statistics", None), ("statistics.normalise", None),
    ("statistics.homogeneous", ["zzz"]), ("layout", None), ("layout.variables", ["a", "b"]),
    ("layout.variables", ["a", "a", "c"]), ("layout.variables", ["a", "b", None]), ("layout.layered", ["zzz"]),
    ("layout.space", ["x"]), ("layout.sizes", {"x": 10**9}), ("layout.sizes", [{}]), ("layout.time.step", -0.025),
    ("layout.time.step", 0), ("layout.time.kind", "zzz"), ("layout.time.calendar", "standard"),
    ("layout.time.calendar", None), ("layout.parameters", ["zzz"]), ("layout.cycles", ["day_of_year"]),
    ("layout.coord_names", {"zzz": [1]}), ("sampling", {"zzz": 1}), ("sampling", {"sampler": None}),
    ("augment", {"a": {"operator": {"op": "sin"}}}), ("zzz", 1), ("seed", 1.5),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), HEADERS, ids=lambda each: str(each)[:30])
def test_a_header_that_no_prior_has(place: str, value: Any, tmp_path: Path) -> None:
    assert "header" in refused(lambda: opened(tmp_path / "p.safetensors", with_entry(place, value)))


def damaged(name: str, value: float, place: int = 0) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensor = tensors[name].clone()
        tensor.view(-1)[place] = value
        tensors[name] = tensor

    return change


TENSORS: dict[str, Callable[[Tensors], object]] = {
    "a weight that is NaN": damaged("network.network.first.weight", np.nan),
    "a weight that is infinite": damaged("network.network.last.bias", np.inf),
    "a negative deviation": damaged("layout.std", -1.0),
    "a deviation of zero": damaged("layout.std", 0.0),
    "a mean that is NaN": damaged("layout.mean", np.nan),
    "held-out states that are NaN": damaged("reference.states", np.nan),
    "held-out context that is infinite": damaged("reference.context", np.inf),
    "no weight": lambda tensors: tensors.pop("network.network.first.weight"),
    "another weight": lambda tensors: tensors.update({"network.zzz": torch.zeros(3)}),
    "a tensor of nothing": lambda tensors: tensors.update({"zzz": torch.zeros(3)}),
    "another array of the layout": lambda tensors: tensors.update({"layout.zzz": torch.zeros(3)}),
    "no deviation": lambda tensors: tensors.pop("layout.std"),
    "two deviations": lambda tensors: tensors.update({"layout.std": tensors["layout.std"][:2].clone()}),
    "no held-out states": lambda tensors: tensors.pop("reference.states"),
    "held-out states of two variables": lambda tensors: tensors.update({"reference.states": torch.zeros(2, 8, 2)}),
    "whole numbers as weights": lambda t: t.update({"network.network.last.bias": torch.zeros(3, dtype=torch.int32)}),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_no_prior_has(what: str, tmp_path: Path) -> None:
    refused(lambda: opened(tmp_path / "p.safetensors", change=TENSORS[what]))


def test_a_prior_whose_tensors_are_not_those_that_were_saved_is_refused(tmp_path: Path) -> None:
    path = sdaxr.open_prior("lorenz63").save(tmp_path / "p.safetensors")
    assert sdaxr.open_prior(path).sha256 == sdaxr.open_prior("lorenz63").sha256
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    assert "by their checksum" in refused(lambda: sdaxr.open_prior(path))


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    place=st.sampled_from(sorted({place for place, _ in HEADERS if place != "zzz"})),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.lists(st.integers(), max_size=3) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
def test_any_header_is_that_of_a_prior_or_refused(place: str, value: Any, tmp_path: Path) -> None:
    try:
        prior = opened(tmp_path / "p.safetensors", with_entry(place, value))
    except SdaxrError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
    else:
        with torch.no_grad():
            xhat = prior.denoiser(prior.layout.times(0.0, 4))(torch.ones(1, 4, 3), 1.0)
        assert bool(torch.isfinite(xhat).all())


class Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "an empty file": lambda path: path.touch(),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Payload())),
    "a header of 2^63 bytes": lambda path: path.write_bytes((1 << 63).to_bytes(8, "little") + b"{}"),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(4096)),
    "a sparse file of 4 GB": _sparse,
    "a folder": lambda path: path.mkdir(),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a named pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "prior": ("f.safetensors", sdaxr.open_prior),
    "archive": ("f.zarr", sdaxr.open_archive),
    "NetCDF": ("f.nc", sdaxr.open_archive),
    "table": ("f.csv", sdaxr.read_observations),
    "recipe": ("f.yaml", lambda path: recipe.run(path, progress=False)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_file_of_sdaxr(what: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, read = READERS[reader]
    FOREIGN[what](tmp_path / name)
    refused(lambda: read(tmp_path / name))
    assert not Path("executed").exists()


def _bomb(indent: str = "") -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(indent + line for line in lines) + "\n"


RECIPES: dict[str, str | bytes] = {
    "aliases of aliases": _bomb(),
    "aliases of aliases as a value": "train:\n  trajectories: t\n  optimisation:\n" + _bomb("    "),
    "a merge of many aliases": "a: &a {x: 1}\n" + f"b: {{<<: [{', '.join(['*a'] * 30_000)}]}}\n",
    "a value of itself": "observe: &a {truth: *a}\n",
    "a list of itself": "&a [*a]\n",
    "code": "observe: !!python/object/apply:pathlib.Path.touch [executed]\n",
    "deep lists": "[" * 5000 + "]" * 5000,
    "deep mappings": "{a: " * 3000 + "1" + "}" * 3000,
    "deep indents": "\n".join(" " * i + "a:" for i in range(1000)),
    "no text": b"\xff\xfe\x00\xd8" * 20,
    "an impossible date": "observe: {truth: 2020-13-45}\n",
    "a number of many digits": f"observe: {{error: {'9' * 6000}}}\n",
    "bad binary": "observe: {truth: !!binary '%%%'}\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a key that is a number": "1: {a: 1}\n",
    "a long line": "observe: {truth: " + "a" * 3_000_000 + "}\n",
    "a network without end": "train: {trajectories: t.zarr, store: q.safetensors, network: {name: mlp, blocks: 1e15}}",
    "a seed of many bits": f"generate: {{system: lorenz63, store: t.zarr, trajectories: 3, steps: 4, seed: {10**30}}}",
    "an infinite number": "generate: {system: lorenz63, store: t.zarr, trajectories: .inf, steps: 4}\n",
}


@pytest.mark.parametrize("what", RECIPES)
def test_recipes_that_are_none(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = RECIPES[what]
    Path("r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: recipe.run("r.yaml", progress=False))
    assert sorted(os.listdir()) == ["r.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()", "coarsen(__import__('os').getcwd())", "coarsen(" + "-" * 3000 + "4)", "[" * 3000,
        "coarsen(10**9**9)", "coarsen(" + "9" * 5000 + ")", "arctan(1e400)", "arctan(2+3j)", "coarsen(True)",
        '{"op": "arctan", "scale": NaN}', '{"op": "arctan", "scale": true}', '{"op": ' * 3000, '{"op": ["coarsen"]}',
        '{"op": "coarsen", "factor": 4, "factor": 2}', '{"op": "coarsen", "factor": ' + "9" * 5000 + "}",
        '{"op": "select", "names": null}', '{"op": "subsample", "stride": ' + "9" * 400 + "}",
        '{"op": "points", "coords": {"x": [1, ' + "9" * 400 + "]}}",
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_operators_that_are_none(text: str) -> None:
    refused(lambda: op.parse(text) if text[:1] not in "{[" else op.from_json(text))


@pytest.mark.parametrize("ends", [[0, np.inf], [np.nan, 1], [1, 0], [-1e300, 1e300], [0, 1e12]])
def test_windows_that_no_observations_have(ends: list[float]) -> None:
    values = {"a": ("time", [1.0], {"units": "1"}), "a_error": ("time", [1.0], {"units": "1"})}
    data = xr.Dataset(
        values, {"time": ("time", [0.0], {"units": "1"})}, {"operator": '{"op": "select", "names": ["a"]}'}
    )
    data = data.assign_coords(window=("bound", np.array(ends, float), {"units": "1"}))
    how: dict[str, Any] = {"members": 1, "sampler": {"steps": 2, "mixing": False}, "progress": False}
    refused(lambda: sdaxr.assimilate(data, "lorenz63", **how))


@pytest.mark.parametrize("name", ["status/c/0", "a/c/0/0", "time/c/0", "zarr.json"])
def test_an_archive_that_is_damaged(name: str, tmp_path: Path) -> None:
    store = tmp_path / "t.zarr"
    sdaxr.generate("lorenz63", store, trajectories=1, steps=4, progress=False)
    file = store / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 8
    file.write_bytes(raw)
    if name.endswith("json"):
        file.write_text('{"zarr_format": 3, "node_type": "group", "attributes": [1]}')
    refused(lambda: sdaxr.open_archive(store).load())
