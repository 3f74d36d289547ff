"""The commands that are killed: what each reads, what it writes, and what a finished product is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

import sdaxr
from sdaxr.archives.paths import Location, located
from sdaxr.archives.remote import Remote, local_copy
from sdaxr.archives.stores import save
from sdaxr.schema import SdaxrError

# Times and lengths of a training differ between runs.
_OF_THE_CLOCK = ("minutes", "seconds")

RECIPE = """
generate: {{system: lorenz63, store: {out}l.zarr, trajectories: 6, steps: 200, seed: {seed}}}
observe: {{truth: {out}l.zarr, trajectory: 0, operator: {{op: identity}}, every: 20, error: 1, store: {out}o.zarr}}
assimilate:
  observations: {out}o.zarr
  prior: lorenz63
  store: {out}p.zarr
  members: 6
  batch: 2
  sampler: {{steps: 3, corrections: 0, mixing: false}}
  device: cpu
verify: {{posterior: {out}p.zarr, truth: {out}l.zarr, trajectory: 0, store: {out}scores.nc}}
"""


@dataclass(frozen=True)
class Place:
    """Where one run reads and writes.

    Attributes
    ----------
    inputs
        Folder of the files that `write_inputs` has made.
    local
        Folder on this machine.
    out
        Where the products go: this folder, or a URL; with a slash at its end.
    """

    inputs: Path
    local: Path
    out: str

    def product(self, name: str) -> Location:
        """Where a product lies."""
        return located(self.out + name)


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes
    ----------
    words
        The words of the command line, given the place and the seed.
    products
        Names of the files that it writes.
    cluster
        Whether it gives work to the workers of a cluster.
    """

    words: Callable[[Place, int], list[str]]
    products: tuple[str, ...]
    cluster: bool = True


def _generate(place: Place, seed: int) -> list[str]:
    return _line(f"generate lorenz96 -o {place.out}a.zarr --trajectories 24 --steps 600 --batch 2 --seed {seed}")


def _train(place: Place, seed: int) -> list[str]:
    options = "--optimisation batch=8 --optimisation validate_every=5 --network mlp --network-option width=32"
    return _line(
        f"train {place.inputs}/truths.zarr -o {place.out}p.safetensors --window 9 --steps 60 {options} --seed {seed} "
        "--device cpu"
    )


def _assimilate(place: Place, seed: int) -> list[str]:
    return _line(f"assimilate {place.inputs}/o.nc --prior lorenz63 -o {place.out}p.zarr {_DRAWS} --seed {seed}")


def _cycle(place: Place, seed: int) -> list[str]:
    return _line(f"cycle {place.inputs}/o.nc --prior lorenz63 -o {place.out}c.nc --window 20 {_DRAWS} --seed {seed}")


def _forecast(place: Place, seed: int) -> list[str]:
    return _line(f"forecast {place.inputs}/e.nc --model lorenz63 -o {place.out}f.nc --steps 4000 --seed {seed}")


def _run(place: Place, seed: int) -> list[str]:
    (place.local / "r.yaml").write_text(RECIPE.format(out=place.out, seed=seed))
    return _line(f"run {place.local}/r.yaml")


_DRAWS = (
    "--members 8 --batch 2 --device cpu --sampler-option steps=3 --sampler-option corrections=0 "
    "--sampler-option mixing=false"
)

JOBS: dict[str, Job] = {
    "generate": Job(_generate, ("a.zarr",)),
    "train": Job(_train, ("p.safetensors",), cluster=False),
    "assimilate": Job(_assimilate, ("p.zarr",)),
    "cycle": Job(_cycle, ("c.nc",)),
    "forecast": Job(_forecast, ("f.nc",)),
    "run": Job(_run, ("l.zarr", "o.zarr", "p.zarr", "scores.nc")),
}


def _line(text: str) -> list[str]:
    return [*text.split(), "--quiet"]


def write_inputs(folder: Path) -> None:
    """Truths, observations of one of them, and an ensemble."""
    folder.mkdir(parents=True)
    truths = sdaxr.generate("lorenz63", folder / "truths.zarr", trajectories=8, steps=60, progress=False)
    truth = truths.isel(trajectory=0, drop=True).drop_vars(["split", "status"], errors="ignore")
    save(sdaxr.observe(truth, sdaxr.operators.identity(), every=8, error=1.0, seed=0), folder / "o.nc")
    ensemble = truths.isel(time=[-1]).drop_vars(["split", "status"]).rename(trajectory="member")
    save(ensemble, folder / "e.nc")


def content(place: Location) -> dict[str, str] | None:
    """The hashes of all that a finished product holds; None if nothing opens there as finished.

    A Zarr archive has those of its objects, bit for bit; the other files those of their values, because NetCDF lays
    out the same values in several ways, and a prior holds the minutes of its training.
    """
    try:
        if place.suffix == ".safetensors":
            return _of_prior(place)
        with sdaxr.open_archive(place) as opened:
            opened.load()
    except SdaxrError:
        # What sdaxr refuses, other software must not find either.
        return _found_by_others(place)
    return _of_dataset(opened) if place.suffix == ".nc" else _of_objects(place)


def _of_prior(place: Location) -> dict[str, str]:
    from safetensors.torch import load

    sdaxr.open_prior(place)
    with local_copy(place) as file:
        raw = file.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    about = json.loads(json.loads(raw[8:end])["__metadata__"]["about"])
    tensors = {key: _hash(tensor.numpy().tobytes()) for key, tensor in load(raw).items()}
    return tensors | {"about": _hash(json.dumps(_timeless(about), sort_keys=True).encode())}


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _timeless(each) for key, each in value.items() if key not in _OF_THE_CLOCK}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _of_dataset(data: xr.Dataset) -> dict[str, str]:
    found = {"": _hash(repr(sorted(data.attrs.items())).encode())}
    for name, variable in data.variables.items():
        values = variable.values
        raw = repr(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes()
        found[str(name)] = _hash(repr((variable.dims, values.dtype, sorted(variable.attrs.items()))).encode() + raw)
    return found


def _of_objects(place: Location) -> dict[str, str]:
    if isinstance(place, Remote):
        fs, root = place.fs()
        return {key.removeprefix(root): _hash(fs.cat_file(key)) for key in fs.find(root)}
    files = (file for file in place.rglob("*") if file.is_file())
    return {f"/{file.relative_to(place)}": _hash(file.read_bytes()) for file in files}


def _found_by_others(place: Location) -> dict[str, str] | None:
    """The content of what plain xarray opens; None if it opens nothing."""
    if place.suffix == ".nc" or not (place / "zarr.json").exists():
        return {"": "a file that sdaxr refuses"} if place.suffix == ".nc" and place.exists() else None
    return {"": "a group of Zarr that sdaxr refuses"}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
