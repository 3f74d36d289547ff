"""Checkpoints of a training run: one ``.safetensors`` file, replaced as a whole so that a kill cannot damage it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sdaxr.schema import ArchiveError

if TYPE_CHECKING:
    from sdaxr.prior.run import TrainingRun

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save(path: Path, run: TrainingRun) -> None:
    """Write weights, averaged weights, optimiser moments, step and history."""
    tensors = {f"model.{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"averaged.{k}": v for k, v in run.averaged.state_dict().items()}
    tensors["weighting"] = run.weighting.state
    for index, moments in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": moments[k] for k in _MOMENTS}
    progress = {"step": run.step, "seconds": run.seconds, "history": run.history}
    metadata = {"progress": json.dumps(progress), "settings": _fixed(run)}
    temporary = path.with_name(path.name + ".new")
    try:
        save_file({k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()}, temporary, metadata)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise ArchiveError(f"the checkpoint cannot be written to '{path}': {error}") from error


def load(path: Path, run: TrainingRun) -> bool:
    """Bring ``run`` to where the checkpoint is; False if there is none.

    Raises
    ------
    ArchiveError
        If the checkpoint belongs to a run with other settings, or cannot be read.
    """
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a safetensors handle)
    except (OSError, SafetensorError) as error:
        raise ArchiveError(f"the checkpoint '{path}' cannot be read ({error}); remove it to start anew") from error
    if "settings" not in metadata:
        raise ArchiveError(f"'{path}' is no checkpoint of sdaxr; move it away, or choose another store")
    found, expected = json.loads(metadata["settings"]), json.loads(_fixed(run))
    differing = [f"{k}: {found.get(k)!r} -> {expected[k]!r}" for k in expected if found.get(k) != expected[k]]
    if differing:
        raise ArchiveError(
            f"'{path}' was written by a run with other settings ({'; '.join(differing)[:300]}); "
            "use the same ones to go on, or remove it to start anew"
        )
    for part in ("model", "averaged"):
        weights = {k.removeprefix(f"{part}."): t for k, t in tensors.items() if k.startswith(f"{part}.")}
        getattr(run, part).load_state_dict(weights)
    state = run.optimiser.state_dict()
    count = sum(len(group["params"]) for group in state["param_groups"])
    state["state"] = {i: {k: tensors[f"optimiser.{i}.{k}"] for k in _MOMENTS} for i in range(count)}
    run.optimiser.load_state_dict(state)
    run.weighting.state = tensors["weighting"].to(run.device)
    progress = json.loads(metadata["progress"])
    run.step, run.seconds, run.history = progress["step"], progress["seconds"], progress["history"]
    return True


def _fixed(run: TrainingRun) -> str:
    # A run may be prolonged, so its length is not compared; the layout is, by its arrays' shapes and names.
    settings = {k: v for k, v in asdict(run.settings).items() if k not in ("steps", "minutes")}
    return json.dumps(settings, sort_keys=True, default=str)
