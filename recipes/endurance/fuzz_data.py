"""The files of data that are mutated: archives and observations."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from fuzz_kinds import QUICK, Kind, Random, foreign_files, placed
from fuzz_mutations import Mutation, byte_mutations, tree_mutations

# Archives


def use_archive(left: Any, folder: Path) -> Any:
    """Observe it, and train on it."""
    import sdaxr
    from sdaxr import operators as op
    from sdaxr.commands.inputs import open_file

    path = folder / "a.zarr"
    left(path)
    data = sdaxr.open_archive(path)
    seen = sdaxr.observe(open_file(path, 0), op.select("a"), every=4, error=1.0)
    how = {"window": 3, "network": {"name": "mlp", "width": 8, "blocks": 1}, "steps": 1, "progress": False}
    prior = sdaxr.train(data, folder / "q.safetensors", **how)
    # Not the labels of the trajectories, and what else describes the states.
    return [
        *(data[name].values for name in "abc"),
        data.time.values,
        seen.a.values,
        seen.time.values,
        prior.layout.mean,
        prior.layout.std,
    ]


def _zarr_mutations(folder: Path, random: Random) -> Iterator[Mutation]:
    source = folder / "t.zarr"
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    trees = [f for f in files if f.name == "zarr.json"]
    mutated = {f: tree_mutations(json.loads((source / f).read_text()), random) for f in trees}
    bytes_of = {f: byte_mutations((source / f).read_bytes(), random, checked=True) for f in files if f not in mutated}
    while True:
        if random.random() < 0.5:
            name = trees[random.integers(len(trees))]
            mutation = next(mutated[name])
            left = json.dumps(mutation.left).encode()
        else:
            name = list(bytes_of)[random.integers(len(bytes_of))]
            mutation = next(bytes_of[name])
            left = mutation.left if random.random() < 0.8 else None
        yield Mutation(
            f"{name}: {mutation.what if left is not None else 'missing'}",
            _copied(source, name, left),
            mutation.breaking or left is None,
        )


def _copied(source: Path, name: Path, left: bytes | None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        shutil.copytree(source, path)
        if left is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(left)

    return make


def _written(data: xr.Dataset) -> Callable[[Path], None]:
    return lambda path: data.to_netcdf(path, engine="netcdf4")


# What does not apply to a variable is drawn again.
_CHANGES = (
    "nan", "infinite", "huge", "none", "text", "missing", "renamed", "no units", "other units", "packed", "reversed",
    "twice", "dimension", "negative", "zero", "attribute", "integers",
)  # fmt: skip


def dataset_mutations(data: xr.Dataset, random: Random) -> Iterator[Mutation]:
    """Endless mutations of the values, names and attributes of a Dataset, which can be written as NetCDF."""
    names = list(data.variables)
    while True:
        name = str(names[random.integers(len(names))])
        variable = data[name]
        numeric = variable.dtype.kind == "f"
        kind = _CHANGES[random.integers(len(_CHANGES))]
        values = variable.values.copy()
        place = tuple(int(random.integers(s)) for s in values.shape)
        breaking, error = False, name.endswith("_error")
        try:
            match kind:
                case "nan" | "infinite" | "huge" if numeric:
                    values[place] = {"nan": np.nan, "infinite": -np.inf, "huge": 1e300}[kind]
                    # Observations may be missing where their error may be anything.
                    breaking = kind == "infinite" or (kind == "nan" and name in ("time", "window"))
                    left = data.assign({name: variable.copy(data=values)})
                case "negative" | "zero" if error:
                    values[...] = -np.abs(values) if kind == "negative" else 0.0
                    breaking, left = True, data.assign({name: variable.copy(data=values)})
                case "text":
                    breaking, left = True, _with(data, name, np.full(values.shape, "zzz", object))
                case "integers" if numeric and name != "time":
                    left = _with(data, name, np.nan_to_num(values).astype(np.int32))
                case "missing":
                    left = data.drop_vars(name)
                case "renamed":
                    left = data.rename({name: f"{name}zzz"})
                case "no units" | "other units":
                    left = data.copy()
                    left[name].attrs["units"] = "" if kind == "no units" else "furlong"
                    breaking = kind == "other units" and name in ("a", "a_error")
                case "packed" if numeric:
                    left = data.copy()
                    left[name].attrs["scale_factor"] = ["zzz", float("nan"), 0.0][random.integers(3)]
                    breaking = True
                case "reversed" if variable.ndim == 1:
                    left = data.isel({variable.dims[0]: slice(None, None, -1)})
                case "twice" if "time" in data.dims:
                    left = xr.concat([data, data.isel(time=[-1])], "time", data_vars="minimal")
                case "dimension" if variable.ndim:
                    left = data.rename({variable.dims[0]: "zzz"})
                case "attribute":
                    keys = [k for k in (*data.attrs, *variable.attrs) if k not in ("units", "_FillValue")]
                    if not keys:
                        continue
                    key = keys[random.integers(len(keys))]
                    left = data.copy()
                    holder = left.attrs if key in left.attrs else left[name].attrs
                    holder[key] = ["zzz", "[1, ", np.nan, -1, "{}"][random.integers(5)]
                    kind = f"attribute {key} = {holder[key]}"
                case _:
                    continue
        except (ValueError, TypeError, KeyError):
            continue
        yield Mutation(f"{name}: {kind}", left, breaking)


def _with(data: xr.Dataset, name: str, values: np.ndarray) -> xr.Dataset:
    return data.assign({name: (data[name].dims, values, data[name].attrs)})


def _netcdf_mutations(path: Path, random: Random) -> Iterator[Mutation]:
    with xr.open_dataset(path, decode_cf=False) as data:
        loaded = data.load()
    for mutation in dataset_mutations(loaded, random):
        yield Mutation(mutation.what, _written(mutation.left), mutation.breaking)


def _byte_files(path: Path, random: Random) -> Iterator[Mutation]:
    for mutation in byte_mutations(path.read_bytes(), random, checked=False):
        yield Mutation(mutation.what, functools.partial(_placed_at, mutation.left), mutation.breaking)


def _placed_at(left: Any, path: Path) -> None:
    placed(left, path)


def _foreign(random: Random) -> Iterator[Mutation]:
    for mutation in foreign_files(random):
        yield Mutation(mutation.what, functools.partial(_placed_at, mutation.left), mutation.breaking)


def archive_bases(folder: Path) -> list[Any]:
    return [lambda path: shutil.copytree(folder / "t.zarr", path), lambda path: shutil.copy(folder / "t.nc", path)]


def archive_sources(folder: Path, random: Random) -> list[tuple[int, Iterator[Mutation]]]:
    return [
        (0, _zarr_mutations(folder, random)), (1, _netcdf_mutations(folder / "t.nc", random)),
        (0, _zarr_mutations(folder, random)), (1, _netcdf_mutations(folder / "t.nc", random)),
        (1, _byte_files(folder / "t.nc", random)), (0, _foreign(random)),
    ]  # fmt: skip


# Observations


def use_observations(left: Any, folder: Path) -> Any:
    """Assimilate it."""
    import sdaxr

    make, suffix = left
    path = folder / f"o{suffix}"
    make(path)
    points = suffix == ".csv"
    reading = {"units": dict.fromkeys(("u", "time", "x", "y"), "1")} if points else {}
    observations = sdaxr.read_observations(path, **reading)
    return sdaxr.assimilate(observations, "kolmogorov" if points else "lorenz63", **QUICK)


def observation_bases(folder: Path) -> list[Any]:
    return [(lambda p, f=f: shutil.copy(f, p), f.suffix) for f in (folder / "seen.nc", folder / "seen.csv")]


def _csv_mutations(path: Path, random: Random) -> Iterator[Mutation]:
    lines = [line.split(",") for line in path.read_text().splitlines()]
    cells = {"abc": True, "": False, "nan": False, "inf": True, "-inf": True, "1e400": True, "1+2j": True, "\x00": True,
             '"': True, "1,2": True, "0x10": True, "--5": True, "=1+1": True, "9" * 5000: True}  # fmt: skip
    while True:
        row, column = int(random.integers(len(lines))), int(random.integers(len(lines[0])))
        text = list(cells)[random.integers(len(cells))]
        left = [list(line) for line in lines]
        if random.random() < 0.15 and row:
            text = "-1" if random.random() < 0.5 else "0"
            breaking, column = True, 4
        else:
            breaking = cells[text] and row > 0
        left[row][column] = text
        body = "\n".join(",".join(line) for line in left).encode()
        make = functools.partial(_placed_at, body)
        yield Mutation(f"row {row}, column {column}: {text[:12]!r}", (make, ".csv"), breaking)


def observation_sources(folder: Path, random: Random) -> list[tuple[int, Iterator[Mutation]]]:
    def suffixed(mutations: Iterator[Mutation], suffix: str) -> Iterator[Mutation]:
        for m in mutations:
            yield Mutation(f"{suffix}: {m.what}", (m.left, suffix), m.breaking)

    seen = folder / "seen.nc"
    return [
        (0, suffixed(_netcdf_mutations(seen, random), ".nc")), (0, suffixed(_operator_in(seen, random), ".nc")),
        (0, suffixed(_netcdf_mutations(seen, random), ".nc")), (1, _csv_mutations(folder / "seen.csv", random)),
        (0, suffixed(_byte_files(seen, random), ".nc")), (1, suffixed(_foreign(random), ".csv")),
    ]  # fmt: skip


def _operator_in(path: Path, random: Random) -> Iterator[Mutation]:
    """Mutations of the operator, the window and the correlation in the attributes and coordinates."""
    with xr.open_dataset(path, decode_cf=False) as data:
        loaded = data.load()
    trees = tree_mutations(json.loads(loaded.attrs["operator"]), random)
    windows = [[0, np.inf], [np.nan, 1], [1, 0], [-1e300, 1e300], [0, 1e12], [0, 0]]
    while True:
        left = loaded.copy()
        match random.integers(3):
            case 0:
                mutation = next(trees)
                left.attrs["operator"] = json.dumps(mutation.left)
                yield Mutation(f"operator {mutation.what}", _written(left), mutation.breaking)
            case 1:
                ends = windows[random.integers(len(windows))]
                left = left.assign_coords(window=("bound", np.array(ends, float), loaded["window"].attrs))
                yield Mutation(
                    f"window {ends}",
                    _written(left),
                    not np.isfinite(ends).all() or ends[1] < ends[0] or ends[1] >= 1e12,
                )
            case 2:
                text = ['{"time": -1}', '{"time": NaN}', '{"zzz": 1}', "[1]", '{"time": "a"}', "{", "7", '{"time": 0}'][
                    random.integers(8)
                ]
                left["a_error"].attrs["correlation_scales"] = text
                yield Mutation(f"correlation {text}", _written(left), True)


ARCHIVES = Kind("archive", 150, False, archive_bases, use_archive, archive_sources)
OBSERVATIONS = Kind("observations", 200, False, observation_bases, use_observations, observation_sources)
