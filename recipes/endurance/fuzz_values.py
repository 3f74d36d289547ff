"""The values that are mutated: operators as JSON and as text, and options of functions."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from fuzz_kinds import QUICK, Kind, Random
from fuzz_mutations import Mutation, is_free, leaves, replaced, tree_mutations

# Operators

_OPERATORS: list[dict[str, Any]] = [
    {"op": "compose", "steps": [{"op": "vorticity"}, {"op": "coarsen", "factor": 4}, {"op": "arctan", "scale": 3.0}]},
    {"op": "compose", "steps": [{"op": "select", "names": ["u"]}, {"op": "subsample", "stride": 2, "offset": 1}]},
    {"op": "points", "coords": {"x": [0.5, 1.0], "y": [0.5, 2.0]}},
    {"op": "compose", "steps": [{"op": "standardise", "std": {"u": 2.0, "v": 1.0}, "mean": 0.0}, {"op": "identity"}]},
    {"op": "region", "x": [0.0, 3.0]},
    {"op": "saturate"},
]


@functools.cache
def flow() -> xr.Dataset:
    """A velocity on a periodic grid of 16 x 16."""
    x = (np.arange(16) + 0.5) * 2 * np.pi / 16
    attrs = {"units": "1", "periodic": 1, "period": 2 * np.pi}
    u = np.sin(x)[None, :, None] * np.cos(x + np.arange(4.0)[:, None])[:, None, :]
    values = {n: (("time", "y", "x"), (u + i).astype(np.float32), {"units": "1"}) for i, n in enumerate("uv")}
    return xr.Dataset(
        values, {"time": ("time", np.arange(4.0), {"units": "1"}), "y": ("y", x, attrs), "x": ("x", x, attrs)}
    )


def use_operator(left: Any, _: Path) -> Any:
    """Apply it to fields, and write it."""
    from sdaxr import operators as op

    operator = op.from_json(left) if left.lstrip()[:1] in "{[" else op.parse(left)
    return [operator.apply(flow()).drop_attrs(), operator.to_json()]


def _operator_texts() -> Iterator[Mutation]:
    wrong = [
        "__import__('os').system('true')", "coarsen(__import__('os').system('true'))", "coarsen(4).__class__",
        "(lambda: 1)()", "coarsen", "coarsen()", "coarsen(4, 4, 4)", "coarsen(factor=-4)", "coarsen(4) >>",
        "coarsen(4) + coarsen(4)",
        "coarsen(" + "(" * 150 + "4" + ")" * 150 + ")", "coarsen(" + "-" * 3000 + "4)", "[" * 3000, "coarsen(10**9**9)",
        "coarsen(" + "9" * 5000 + ")", "coarsen(4)\x00", "coarsen(**{'factor': 4})", "coarsen(*[4])",
        "coarsen(float('nan'))",
        "arctan(1e400)", "arctan(2+3j)", "select(b'u')", "coarsen(4.5)", "coarsen(True)", "function(f)",
        " >> ".join(["zzz()"] * 3),
        "identity() >> " * 900 + "identity()", '{"op": "arctan", "scale": NaN}', '{"op": "arctan", "scale": Infinity}',
        '{"op": ' * 3000, '{"op": "coarsen", "factor": 4, "factor": 2}', "[]", "{}",
        '{"op": null}', '{"op": ["coarsen"]}',
        '{"op": "coarsen", "factor": ' + "9" * 5000 + "}", '{"op": "compose", "steps": []}', "coarsen(4);coarsen(2)",
    ]  # fmt: skip
    for text in wrong:
        yield Mutation(text[:40], text, not text.startswith(("identity", "coarsen(((")))


def _operator_mutations(number: int, random: Random) -> Iterator[Mutation]:
    for mutation in tree_mutations(_OPERATORS[number], random):
        # A coordinate or an offset can be any number.
        try:
            yield Mutation(mutation.what, json.dumps(mutation.left), mutation.breaking)
        except ValueError:
            continue


def operator_sources(_: Path, random: Random) -> list[tuple[int, Iterator[Mutation]]]:
    trees = [(number, _operator_mutations(number, random)) for number in range(len(_OPERATORS))]
    return [*trees, (0, _operator_texts()), (0, _operator_texts_mutated(random))]


def _operator_texts_mutated(random: Random) -> Iterator[Mutation]:
    """One character of a text replaced by another: free, as it can be another operator."""
    text = "vorticity() >> coarsen(4) >> arctan(3.0)"
    for _ in range(20):
        at, other = int(random.integers(len(text))), "()[]{}'\"\\,.:=>*-+0123456789e \n#@`"[random.integers(33)]
        yield Mutation(f"{other!r} at {at}", text[:at] + other + text[at + 1 :], False)


# Options


def option_bases(_: Path) -> list[Any]:
    return [
        ("generate", {"system": "lorenz63", "trajectories": 2, "steps": 4, "seed": 0, "batch": 2,
                      "split": [0.5, 0.5, 0.0],
                      "step": 0.025, "spin_up": 4, "noise": 1.0}),
        ("train", {"window": 3, "variables": ["a", "b"], "network": {"name": "mlp", "width": 8, "blocks": 1},
                   "steps": 1, "parameterisation": "edm", "seed": 0,
                   "statistics": {"normalise": "channel", "missing": "error"},
                   "optimisation": {"batch": 4, "ema": 0.9, "levels": [0.01, 50.0], "learning_rate": 0.001,
                                    "weight_decay": 0.001, "weighting": "uniform",
                                    "memory": 1e9, "validate_every": 5}}),
        ("observe", {"every": 4, "start": 0, "error": 1.0, "noise": "gaussian", "missing": 0.1, "seed": 1,
                     "correlation": {"time": 0.1}}),
        ("assimilate", {"members": 1, "seed": 2, "method": {"name": "sda", "variance": 0.01}, "batch": 1,
                        "sampler": {"name": "sde-dpm++", "steps": 2, "corrections": 0}, "outside": "error",
                        "units": "error", "device": "cpu", "precision": "float32", "screening": {"gross_error": 5.0}}),
    ]  # fmt: skip


def use_options(left: Any, folder: Path) -> Any:
    """Call the function."""
    import sdaxr
    from sdaxr import operators as op

    function, options, base = left[0], dict(left[1]), folder.parent
    quiet = {"progress": False}
    match function:
        case "generate":
            return sdaxr.generate(options.pop("system", "lorenz63"), folder / "g.zarr", **options, **quiet).load()
        case "train":
            prior = sdaxr.train(sdaxr.open_archive(base / "t.zarr"), folder / "q.safetensors", **options, **quiet)
            return [tensor.numpy() for tensor in prior.network.state_dict().values()]
        case "observe":
            truth = sdaxr.open_archive(base / "t.zarr").isel(trajectory=0)
            return sdaxr.observe(truth, op.select("a", "b"), **{"error": 1.0, **options})
    return sdaxr.assimilate(sdaxr.open_archive(base / "seen.nc"), "lorenz63", **(QUICK | options))


def _option_mutations(number: int, folder: Path, random: Random) -> Iterator[Mutation]:
    function, options = option_bases(folder)[number]
    nodes = [(path, old) for path, old in leaves(options) if path and not is_free(path)]
    python = [
        1 + 2j,
        np.complex128(1 + 1j),
        np.array([1, 2]),
        b"zzz",
        object(),
        Decimal("NaN"),
        np.datetime64("NaT"),
        {1},
        len,
    ]
    for mutation in tree_mutations(options, random):
        if random.random() < 0.25:
            path, _ = nodes[random.integers(len(nodes))]
            value = python[random.integers(len(python))]
            what = f"{'.'.join(map(str, path))}: {str(value)[:24]}"
            mutation = Mutation(what, replaced(options, path, value), True)
        if isinstance(mutation.left, dict) and set(mutation.left) <= set(options):
            yield Mutation(f"{function} {mutation.what}", (function, mutation.left), mutation.breaking)


def option_sources(folder: Path, random: Random) -> list[tuple[int, Iterator[Mutation]]]:
    return [(number, _option_mutations(number, folder, random)) for number in range(4)]


OPERATORS = Kind("operator", 110, True, lambda _: [json.dumps(o) for o in _OPERATORS], use_operator, operator_sources)
OPTIONS = Kind("options", 160, True, option_bases, use_options, option_sources)
