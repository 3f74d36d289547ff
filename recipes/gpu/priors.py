"""Training of one prior within its seconds, and its scores; what the phases of the two flows share."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import xarray as xr
from phase import Phase

import sdaxr

RECIPES = Path(__file__).parents[1]
# Windows of a step on a GPU. An H200 makes as many steps in a second with 16 as with 256: it waits for the launches.
BATCH = 256
# Seconds from which on a compilation, which takes up to a minute on a GPU, pays.
COMPILED = 150
# With weights that have been trained already, the largest learning rate is a third of that of a first training.
AGAIN = 3e-4


@dataclass(frozen=True)
class Design:
    """A prior to train: its name, the options of `sdaxr.train`, and the sampler that its file asks for.

    ``batch`` is the number of windows of a step on a GPU.
    """

    name: str
    options: Mapping[str, Any]
    optimisation: sdaxr.Optimisation
    sampler: Mapping[str, Any]
    batch: int = BATCH


def neighbour(recipe: str, script: str) -> ModuleType:
    """A script of another recipe, whose own neighbours are found as if it were run."""
    folder = RECIPES / recipe
    path = folder / f"{script}.py"
    spec = importlib.util.spec_from_file_location(f"{recipe}_{script}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def trained(phase: Phase, data: xr.Dataset, design: Design, seconds: float) -> sdaxr.Prior:
    """Train for so many seconds, and leave the prior in the folder of results in half precision.

    A training that was interrupted goes on from its checkpoint. Where an earlier run has left the prior, its weights
    are where the training begins.
    """
    final, store = phase.out / f"{design.name}.safetensors", phase.scratch / f"{design.name}.safetensors"
    options, optimisation = dict(design.options), _for_device(phase, design, seconds)
    if final.exists():
        earlier = phase.scratch / f"{design.name}-{sdaxr.open_prior(final).sha256[:8]}.safetensors"
        shutil.copy2(final, earlier)
        options, optimisation = {"start": earlier}, replace(optimisation, learning_rate=AGAIN)
    begin = time.monotonic()
    prior = sdaxr.train(
        data, store, **options, optimisation=optimisation, minutes=seconds / 60, name=design.name, seed=0,
        device=str(phase.device), overwrite=True, progress=False,
    )  # fmt: skip
    prior = prior.with_sampling(sampler=design.sampler)
    prior.save(final, dtype=torch.float16)
    done = prior.metadata["training"]
    phase.record(
        "training", prior=design.name, parameters=sum(p.numel() for p in prior.network.parameters()),
        megabytes=round(final.stat().st_size / 1e6, 2), batch=optimisation.batch, compiled=optimisation.compile,
        start=prior.metadata.get("start"), steps=done["steps"], seconds=round(time.monotonic() - begin, 1),
        windows_per_second=round(done["steps"] * optimisation.batch / (60 * done["minutes"]), 1),
        validation=done["validation_loss"], curve=[[h["step"], round(h["valid"], 4)] for h in done["history"]],
    )  # fmt: skip
    return prior


def scored(
    phase: Phase,
    name: str,
    prior: str | sdaxr.Prior,
    truths: list[xr.Dataset],
    observe: Callable[[xr.Dataset, int], xr.Dataset],
    merits: Callable[[xr.Dataset, xr.Dataset, xr.Dataset], dict[str, float]],
    members: int,
) -> None:
    """Assimilate observations of each truth, and record the merits of the posterior."""
    for number, truth in enumerate(truths):
        observations = observe(truth, number)
        begin = time.monotonic()
        posterior = sdaxr.assimilate(
            observations, prior, times=truth.time, members=members, seed=number, device=str(phase.device),
            progress=False,
        )  # fmt: skip
        seconds = time.monotonic() - begin
        found = {key: round(value, 4) for key, value in merits(posterior, truth, observations).items()}
        phase.record("scores", prior=name, truth=number, members=members, seconds=round(seconds, 2), **found)


def _for_device(phase: Phase, design: Design, seconds: float) -> sdaxr.Optimisation:
    gpu, optimisation = phase.device.type == "cuda", design.optimisation
    compiled = optimisation.compile and (not gpu or seconds > COMPILED)
    return replace(
        optimisation, batch=design.batch if gpu else 4, validate_every=200 if gpu else 10, checkpoint_minutes=0.5,
        memory=64e9 if gpu else optimisation.memory, compile=compiled and _compiles(phase),
    )  # fmt: skip


def _compiles(phase: Phase) -> bool:
    """Whether torch.compile works here; without a compiler for its code the training goes on without it."""
    try:
        one = torch.ones(8, device=phase.device)
        torch.compile(lambda x: x.sin() + 1)(one)
    except Exception as error:
        phase.record("no compilation", reason=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        return False
    return True
