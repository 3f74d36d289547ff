"""The files and values that are mutated, and what is done with each: all that a user would do with it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import yaml
from fuzz_mutations import (
    Mutation,
    byte_mutations,
    join_safetensors,
    split_safetensors,
    tensor_mutations,
    tree_mutations,
)
from fuzz_process import in_child

Random = np.random.Generator
QUICK: dict[str, Any] = {"members": 1, "sampler": {"steps": 2, "attempts": 1}, "progress": False}
_CANARY = "import os; os.system('true')"


@dataclass(frozen=True)
class Kind:
    """A kind of file or value.

    Attributes
    ----------
    declared
        Whether all that may stand in it is declared. Then a breaking mutation that is accepted is wrong. Data may hold
        what is not declared; there it is wrong if the result is another.
    bases
        The unchanged files, as ``use`` takes them.
    use
        What a user does with the file, given it and a folder to work in.
    sources
        Endless mutations of each of several sorts, with the number of the base that they are of.
    """

    name: str
    count: int
    declared: bool
    bases: Callable[[Path], list[Any]]
    use: Callable[[Any, Path], Any]
    sources: Callable[[Path, Random], list[tuple[int, Iterator[Mutation]]]]

    def mutations(self, folder: Path, seed: int, count: int) -> Iterator[tuple[Mutation, str]]:
        """``count`` mutations, of each sort in turn, each with the hash of what its base gives."""
        random = np.random.default_rng([seed, len(self.name), self.count])
        results = []
        for number, base in enumerate(self.bases(folder)):
            work = folder / f"{self.name}-base-{number}"
            work.mkdir()
            outcome = in_child(lambda b=base, w=work: self.use(b, w), work)  # type: ignore[misc]
            if outcome.kind != "accepted":
                raise SystemExit(f"the unchanged file {number} of '{self.name}' is not accepted: {outcome}")
            results.append(outcome.digest)
        waiting = self.sources(folder, random)
        while count > 0 and waiting:
            for source in list(waiting):
                mutation = next(source[1], None)
                if mutation is None:
                    waiting.remove(source)
                    continue
                yield mutation, results[source[0]]
                count -= 1
                if count == 0:
                    return


def make_bases(folder: Path) -> None:
    """Write the files that are mutated."""
    pid = os.fork()
    if pid == 0:
        # In a process of its own: JAX starts threads.
        import sdaxr
        from sdaxr import operators as op

        data = sdaxr.generate("lorenz63", folder / "t.zarr", trajectories=3, steps=16, progress=False)
        data.to_netcdf(folder / "t.nc")
        seen = sdaxr.observe(data.isel(trajectory=0), op.select("a"), every=4, error=1.0)
        seen.to_netcdf(folder / "seen.nc")
        rows = [f"{t},{y},{x},{(7 * x) % 3 - 1.5},0.1" for t in (0.0, 0.2, 0.4) for y in (1.0, 5.0) for x in (0.5, 4.0)]
        (folder / "seen.csv").write_text("\n".join(["time,y,x,u,u_error", *rows]) + "\n")
        sdaxr.assimilate(seen, "lorenz63", store=folder / "post.nc", **(QUICK | {"members": 2}))
        import torch

        for name in ("lorenz63", "lorenz96-forcing"):
            sdaxr.open_prior(name).save(folder / f"{name}.safetensors", dtype=torch.float16)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit("the files that are mutated cannot be made")


# Priors


def placed(left: Any, path: Path) -> Path:
    """Write a file of bytes, or let a function make it."""
    if callable(left):
        left(path)
    else:
        path.write_bytes(left)
    return path


def use_prior(left: Any, folder: Path) -> Any:
    """Open it, denoise states by it, and choose its method and sampler."""
    import torch

    import sdaxr
    from sdaxr.posterior.methods import resolve_method
    from sdaxr.posterior.samplers.registry import resolve_sampler

    prior = sdaxr.open_prior(placed(left, folder / "p.safetensors"))
    method, sampler = resolve_method(prior, None), resolve_sampler(prior, None)
    times = prior.layout.times(0.0, min(prior.window, 8))
    denoiser = prior.denoiser(times)
    z = torch.linspace(-1, 1, 8 * prior.layout.channels * int(np.prod(prior.layout.shape)))
    z = z.reshape(1, 8, prior.layout.channels, *prior.layout.shape)[:, : times.size]
    with torch.no_grad():
        states = [denoiser(z, r).numpy() for r in (0.1, 3.0)]
    mean, std = prior.layout.moments(times)
    return [*states, mean, std, times.values, *prior.reference, repr(prior), repr(method), repr(sampler)]


def foreign_files(random: Random) -> Iterator[Mutation]:
    """Files that are none of sdaxr's, in the place of one; each once."""

    class Payload:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    import torch

    yield Mutation("an empty file", b"", True)
    yield Mutation("a pickle that executes", pickle.dumps(Payload()), True)
    yield Mutation("a pickle of torch", lambda path: torch.save({"a": torch.zeros(1)}, path), True)
    yield Mutation("a header of 2^63 bytes", (1 << 63).to_bytes(8, "little") + b"{}", True)
    yield Mutation("a header that is an array", (2).to_bytes(8, "little") + b"[]", True)
    yield Mutation("a folder", lambda path: path.mkdir(), True)
    yield Mutation("a dangling link", lambda path: path.symlink_to("nowhere"), True)
    yield Mutation("a link to itself", lambda path: path.symlink_to(path.name), True)
    yield Mutation("a named pipe", lambda path: os.mkfifo(path), True)
    yield Mutation("a device", lambda path: path.symlink_to("/dev/zero"), True)
    yield Mutation("a page", b"<!DOCTYPE html><html><body>404</body></html>" * 20, True)
    yield Mutation("a zip file", b"PK\x03\x04" + random.bytes(200), True)
    yield Mutation("noise", random.bytes(4096), True)
    yield Mutation("a sparse file of 4 GB", _sparse, True)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


def _header_mutations(raw: bytes, random: Random) -> Iterator[Mutation]:
    head, metadata, parts = split_safetensors(raw)
    for mutation in tree_mutations({"about": metadata["about"]}, random):
        about = mutation.left.get("about") if isinstance(mutation.left, dict) else mutation.left
        try:
            yield Mutation(mutation.what, join_safetensors(head, metadata | {"about": about}, parts), mutation.breaking)
        except ValueError:  # numbers that JSON has no text for
            continue


def prior_bases(folder: Path) -> list[Any]:
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("lorenz63", "lorenz96-forcing")]


def prior_sources(folder: Path, random: Random) -> list[tuple[int, Iterator[Mutation]]]:
    raws = prior_bases(folder)
    # Bytes of a file that declares no checksum can be those of another prior.
    checked = [b"sha256" in raw[:20000].split(b'"about"')[0] for raw in raws]
    return [
        (0, _header_mutations(raws[0], random)), (1, _header_mutations(raws[1], random)),
        (0, tensor_mutations(raws[0], random)), (0, _header_mutations(raws[0], random)),
        (1, _header_mutations(raws[1], random)), (1, tensor_mutations(raws[1], random)),
        (0, byte_mutations(raws[0], random, checked=checked[0])), (0, foreign_files(random)),
    ]  # fmt: skip


# Recipes


def base_recipe(folder: Path) -> list[Any]:
    t, seen = str(folder / "t.zarr"), str(folder / "seen.nc")
    quick = {"name": "sde-dpm++", "steps": 2}
    network = {"name": "mlp", "width": 8, "blocks": 1}
    return [
        {"observe": {"truth": t, "trajectory": 0, "operator": {"op": "select", "names": ["a"]}, "store": "o.nc",
                     "every": 4, "start": 0, "error": 1.0, "noise": "gaussian", "missing": 0.1, "seed": 1}},
        {"train": {"trajectories": t, "store": "q.safetensors", "window": 3, "network": network, "steps": 1, "seed": 0,
                   "optimisation": {"batch": 4, "ema": 0.9, "levels": [0.01, 50.0], "learning_rate": 0.001}}},
        {"assimilate": {"observations": seen, "prior": "lorenz63", "store": "p.zarr", "members": 1, "seed": 2,
                        "method": {"name": "sda", "variance": 0.01}, "sampler": quick, "batch": 1}},
        {"forecast": {"ensemble": "p.zarr", "model": "lorenz63", "store": "f.zarr", "steps": 2, "seed": 3}},
    ]  # fmt: skip


def use_recipe(left: Any, folder: Path) -> Any:
    """Run it."""
    import sdaxr
    from sdaxr.commands import recipe

    recipe.run(placed(left, folder / "r.yaml"), progress=False)
    made = [folder / name for name in ("o.nc", "p.zarr", "f.zarr")]
    return [sdaxr.open_archive(path).load() for path in made if path.exists()]


def _texts(base: str) -> Iterator[Mutation]:
    """Recipes that are no mutation of a tree; each once."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    many = ", ".join(["*a"] * 500)
    texts: dict[str, str | bytes] = {
        "aliases of aliases": bomb,
        "aliases of aliases as a value": "train:\n  trajectories: t\n  optimisation:\n" + indent(bomb, "    "),
        "aliases in a merge key": "a: &a {x: 1}\n" + "".join(f"b{i}: {{<<: [{many}]}}\n" for i in range(50)),
        "a value of itself": "observe: &a {truth: *a}\n",
        "a list of itself": "&a [*a]\n",
        "code": "observe: !!python/object/apply:os.system ['true']\n",
        "code of a module": f"observe: !!python/object/new:eval [{_CANARY!r}]\n",
        "a module": "observe: !!python/name:os.system\n",
        "an unknown tag": "observe: !zzz {a: 1}\n",
        "deep lists": "[" * 5000 + "]" * 5000,
        "deep mappings": "{a: " * 3000 + "1" + "}" * 3000,
        "deep indents": "\n".join(" " * i + "a:" for i in range(1500)),
        "tabs": base.replace("  ", "\t"),
        "a zero byte": base + "\x00",
        "no text": b"\xff\xfe\x00\xd8" * 20,
        "two documents": f"{base}\n---\n{base}",
        "double keys": "observe: {error: 1, error: 2}\n",
        "a key that is a list": "? [a, b]\n: 1\n",
        "a key that is a mapping": "? {a: b}\n: 1\n",
        "a key that is a number": "1: {a: 1}\n",
        "a key that is null": "~: {a: 1}\n",
        "an impossible date": "observe: {truth: 2020-13-45}\n",
        "a date": "observe: {truth: 2020-01-01, operator: {op: identity}, store: o.nc, error: 1}\n",
        "binary": "observe: {truth: !!binary aGVsbG8=}\n",
        "bad binary": "observe: {truth: !!binary '%%%'}\n",
        "a set": "observe: !!set {a, b}\n",
        "an enormous number": f"observe: {{error: {'9' * 6000}}}\n",
        "sexagesimal": "observe: {error: 1:99:99}\n",
        "an octal": "observe: {error: 0o9}\n",
        "empty": "", "null": "~", "a text": "hello", "a number": "7", "true": "yes", "comment": "# nothing\n",
        "long line": "observe: {truth: " + "a" * 3_000_000 + "}\n",
        "many keys": "observe: {" + ", ".join(f"k{i}: {i}" for i in range(20_000)) + "}\n",
        "an integer without digits": "observe: {error: 0x}\n",
        "a float of words": "observe: {error: .nan}\n",
        "an infinite count": "assimilate: {observations: a.nc, prior: lorenz63, store: p.zarr, members: .inf}\n",
    }  # fmt: skip
    for what, text in texts.items():
        yield Mutation(
            what, text if isinstance(text, bytes) else text.encode(errors="surrogatepass"), what != "two documents"
        )


def _recipe_mutations(folder: Path, random: Random) -> Iterator[Mutation]:
    for mutation in tree_mutations(base_recipe(folder), random):
        try:
            yield Mutation(mutation.what, yaml.safe_dump(mutation.left, sort_keys=False).encode(), mutation.breaking)
        except (yaml.YAMLError, ValueError):
            continue


def recipe_bases(folder: Path) -> list[Any]:
    return [yaml.safe_dump(base_recipe(folder), sort_keys=False).encode()]


def recipe_sources(folder: Path, random: Random) -> list[tuple[int, Iterator[Mutation]]]:
    base = recipe_bases(folder)[0]
    return [
        (0, _recipe_mutations(folder, random)), (0, _recipe_mutations(folder, random)), (0, _texts(base.decode())),
        (0, _recipe_mutations(folder, random)), (0, byte_mutations(base, random, checked=False, framed=False)),
        (0, foreign_files(random)),
    ]  # fmt: skip


PRIORS = Kind(
    "prior", 200, True, prior_bases, use_prior, prior_sources,
)  # fmt: skip
RECIPES = Kind("recipe", 200, True, recipe_bases, use_recipe, recipe_sources)
