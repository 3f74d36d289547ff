"""Mutations of trees (JSON, YAML), of bytes and of safetensors, each with a verdict on what it leaves.

A tree is mutated at its leaves and at its nodes. `Mutation.breaking` says whether what is left can mean anything: it
follows from the kind of the change and from the name of what is changed, by the rules of `breaks`, never from a case.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Path = tuple[str | int, ...]

# Under these names a file says things in free words: any value is as good as another.
FREE = {"attrs", "coord_attrs", "long_name", "title", "source", "units", "store", "sdaxr_version", "modified"}
# So it is at the top of a prior's header: what the training was, which nothing follows from.
FREE_AT_TOP = {"data", "training", "measurements", "start", "name", "minutes", "steps", "seed"}
# Quantities that are above zero wherever they stand.
POSITIVE = {
    "window", "width", "widths", "kernel", "dilation", "batch", "shortest", "learning_rate", "levels", "step",
    "std", "error", "every", "members", "trajectories", "factor", "rd", "delta", "sizes", "checkpoint_minutes",
    "memory", "validate_every", "period", "sigma", "patch", "scale", "truths",
    "stride",
}  # fmt: skip
# Quantities that are zero or more.
NOT_NEGATIVE = {"seed", "blocks", "start", "corrections", "steps", "ema", "weight_decay", "missing", "spin_up", "noise"}
# Whole numbers: a fraction is no value of theirs, and none of them is 10^15.
WHOLE = {
    "stride",
    "window", "width", "widths", "blocks", "kernel", "dilation", "batch", "shortest", "every", "members",
    "trajectories", "factor", "sizes", "seed", "corrections", "steps", "validate_every", "patch", "truths", "lag",
    "spin_up",
}  # fmt: skip
# Numbers of any size: of a seed, and of a pause that is never over.
ANY_SIZE = {"seed", "validate_every", "start"}
# Null stands for a default here.
NULLABLE = {
    "layer", "steps", "minutes", "batch", "shortest", "cycles", "taper", "seed", "where", "operator", "store", "stop",
    "background", "reading", "start", "name", "sampling",
}  # fmt: skip
# So it does for these parameters of functions, not in a header.
NULLABLE_OPTIONS = {
    "correlation", "gross_error", "sampler", "method", "screening", "variables", "statistics", "optimisation",
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """What is left of a file or a value, a word for the change, and whether it can mean anything."""

    what: str
    left: Any
    breaking: bool


def names_of(path: Path) -> list[str]:
    return [part for part in path if isinstance(part, str)]


def is_free(path: Path) -> bool:
    """Whether what stands at this place is said in free words."""
    names = names_of(path)
    return bool(set(names) & FREE) or (names[:1] == ["about"] and bool(FREE_AT_TOP & set(names[1:2])))


def breaks(kind: str, path: Path, old: Any) -> bool:
    """Whether a change of this kind at this place leaves nothing that can be meant.

    Not a number, infinity, another type, an unknown word in the place of a word, and an unknown key never mean
    anything outside of `FREE`; nor does a sign, a zero, a fraction or an enormous number where the name of the
    quantity excludes it. A key that is missing may have a default, and a text "64" is the number 64: these are free.
    """
    names = names_of(path)
    last = names[-1] if names else ""
    if is_free(path):
        return False
    match kind:
        case "nan" | "infinite" | "another type" | "unknown key" | "overflow":
            return True
        case "null":
            return last not in (NULLABLE if names[:1] == ["about"] else NULLABLE | NULLABLE_OPTIONS)
        case "negative":
            return last in POSITIVE | NOT_NEGATIVE
        case "zero":
            return last in POSITIVE
        case "fraction":
            return last in WHOLE
        case "enormous":
            return last in WHOLE - ANY_SIZE
        case "unknown word":
            return isinstance(old, str)
    return False


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every node of a tree with its path, the root first; of a list of more than three, the first three."""
    yield path, tree
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    if isinstance(tree, list):
        for index, value in enumerate(tree[:3]):
            yield from leaves(value, (*path, index))


def replaced(tree: Any, path: Path, value: Any) -> Any:
    """A copy of the tree with ``value`` at ``path``."""
    if not path:
        return value
    tree = copy.deepcopy(tree)
    node = tree
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return tree


def without(tree: Any, path: Path) -> Any:
    """A copy of the tree without what is at ``path``."""
    tree = copy.deepcopy(tree)
    node = tree
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return tree


def changes(old: Any) -> dict[str, list[Any]]:
    """New values for an old one, by the kind of the change."""
    kinds: dict[str, list[Any]] = {"null": [None]}
    match old:
        case bool():
            kinds |= {"another type": ["zzz", [old], {"a": 1}, 7]}
        case int() | float():
            kinds |= {
                "nan": [float("nan")], "infinite": [float("inf"), float("-inf")], "zero": [0],
                "negative": [-abs(old) - 1], "another type": ["zzz", [], {"a": old}, True], "fraction": [old + 0.5],
                "enormous": [10**15],
                "overflow": [10**400], "text of it": [str(old)], "another number": [old + 1],
            }  # fmt: skip
        case str():
            kinds |= {
                "unknown word": ["zzz", "", "\x00", "../" * 40 + "etc"],
                "another type": [7, [old, 7], {"a": old}, 1.5],
            }
        case list():
            kinds |= {"another type": ["zzz", 7.5, {"a": old}, nested(60)], "empty": [[]], "twice": [old * 2]}
        case dict():
            kinds |= {"another type": ["zzz", 7, [old]], "empty": [{}], "unknown key": [old | {"zzz": 1}]}
        case None:
            kinds = {"another type": [{"a": 1}, [[]]]}
    return kinds


def nested(depth: int) -> Any:
    tree: Any = 1
    for _ in range(depth):
        tree = [tree]
    return tree


def tree_mutations(tree: Any, random: np.random.Generator) -> Iterator[Mutation]:
    """Endless mutations of a tree, drawn at random."""
    nodes = list(leaves(tree))
    outside = [n for n in nodes if not is_free(n[0])]
    while True:
        # What is said in free words has many nodes, and is rarely of interest.
        path, old = _pick(nodes, outside, random)
        where = ".".join(map(str, path)) or "root"
        if path and random.random() < 0.12:
            yield Mutation(f"{where}: missing", without(tree, path), False)
            continue
        kinds = changes(old)
        kind = list(kinds)[random.integers(len(kinds))]
        value = kinds[kind][random.integers(len(kinds[kind]))]
        if value == old and type(value) is type(old):
            continue
        yield Mutation(f"{where}: {kind} ({str(value)[:24]!r})", replaced(tree, path, value), breaks(kind, path, old))


def _pick(nodes: list[Any], outside: list[Any], random: np.random.Generator) -> tuple[Path, Any]:
    chosen = nodes if random.random() < 0.15 else outside
    found: tuple[Path, Any] = chosen[random.integers(len(chosen))]
    return found


def byte_mutations(
    raw: bytes, random: np.random.Generator, *, checked: bool, framed: bool = True
) -> Iterator[Mutation]:
    """Endless mutations of bytes; ``checked``: the file has checksums of them, ``framed``: it says how long it is."""
    while True:
        at = int(random.integers(len(raw)))
        match random.integers(6):
            case 0:
                yield Mutation(f"cut at {at}", raw[:at], framed)
            case 1:
                bits = bytes([raw[at] ^ (1 << int(random.integers(8)))])
                yield Mutation(f"a bit flipped at {at}", raw[:at] + bits + raw[at + 1 :], checked)
            case 2:
                junk = random.bytes(64)
                yield Mutation(f"64 bytes of noise at {at}", raw[:at] + junk + raw[at + 64 :], checked)
            case 3:
                yield Mutation(f"512 zeros at {at}", raw[:at] + bytes(512) + raw[at + 512 :], checked)
            case 4:
                at = int(random.integers(min(len(raw), 512)))
                bits = bytes([raw[at] ^ (1 << int(random.integers(8)))])
                yield Mutation(f"a bit flipped at {at}", raw[:at] + bits + raw[at + 1 :], False)
            case 5:
                yield Mutation(f"{at} bytes removed from the start", raw[at:], framed and at > 0)


# safetensors


def split_safetensors(raw: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """The tensors' descriptions, the metadata of sdaxr (``about`` parsed) and the bytes of each tensor."""
    (size,) = struct.unpack("<Q", raw[:8])
    head, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    metadata = head.pop("__metadata__")
    metadata["about"] = json.loads(metadata["about"])
    parts = {name: np.frombuffer(body, np.uint8)[slice(*info["data_offsets"])].copy() for name, info in head.items()}
    return head, metadata, parts


def join_safetensors(head: dict[str, Any], metadata: dict[str, Any], parts: dict[str, np.ndarray]) -> bytes:
    """The file of descriptions, metadata and tensors; the inverse of `split_safetensors`."""
    described, body = {}, b""
    for name, values in parts.items():
        described[name] = head[name] | {"data_offsets": [len(body), len(body) + values.nbytes]}
        body += values.tobytes()
    about = {"about": json.dumps(metadata["about"])}
    text = json.dumps({"__metadata__": metadata | about, **described}).encode()
    return struct.pack("<Q", len(text)) + text + body


_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def tensor_mutations(raw: bytes, random: np.random.Generator) -> Iterator[Mutation]:
    """Endless mutations of the tensors of a prior, all of which leave a file that can be read, and no prior."""
    head, metadata, parts = split_safetensors(raw)
    while True:
        name = list(parts)[random.integers(len(parts))]
        if random.random() < 0.4:
            name = [n for n in parts if not n.startswith("network.")][random.integers(4) % 4]
        new_head, new_parts = copy.deepcopy(head), dict(parts)
        kind = ["nan", "infinite", "negative", "zero", "missing", "renamed", "twice", "shape", "type", "extra"][
            random.integers(10)
        ]
        values = parts[name].view(_TYPES.get(head[name]["dtype"], np.uint8)).copy()
        match kind:
            case "nan" | "infinite" if values.dtype.kind == "f":
                values[random.integers(values.size)] = np.nan if kind == "nan" else np.inf
            case "negative" | "zero" if name == "layout.std":
                values[0] = -1.0 if kind == "negative" else 0.0
            case "missing":
                del new_parts[name]
            case "renamed" | "extra":
                new_parts[f"{name}.zzz"] = new_parts[name] if kind == "extra" else new_parts.pop(name)
                new_head[f"{name}.zzz"] = head[name]
            case "twice":
                values = np.tile(values, 2)
                shape = head[name]["shape"] or [1]
                new_head[name] = head[name] | {"shape": [2 * shape[0], *shape[1:]]}
            case "shape" if len(head[name]["shape"]) > 0:
                new_head[name] = head[name] | {"shape": [int(np.prod(head[name]["shape"])), *[1] * 5]}
            case "type" if head[name]["dtype"] == "F32":
                new_head[name] = head[name] | {"dtype": "I32"}
            case _:
                continue
        if name in new_parts:
            new_parts[name] = values.view(np.uint8)
        yield Mutation(f"{name}: {kind}", join_safetensors(new_head, metadata, new_parts), True)
