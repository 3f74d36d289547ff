"""Checkpoints of a training run: one ``.safetensors`` file that is replaced as a whole, so that no kill damages it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from sdaxr.archives.configuration import brief_difference
from sdaxr.archives.finished import PlaceT
from sdaxr.archives.paths import Location
from sdaxr.archives.remote import local_copy
from sdaxr.archives.stores import written_whole
from sdaxr.schema import ArchiveError

if TYPE_CHECKING:
    from sdaxr.prior.run import TrainingRun

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save(path: Location, run: TrainingRun) -> None:
    """Write weights, averaged weights, moments of the optimiser, step and history.

    Raises
    ------
    ArchiveError
        If the file cannot be written.
    """
    tensors = {f"model.{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"averaged.{k}": v for k, v in run.averaged.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in run.best.items()}
    tensors["weighting"] = run.weighting.state
    for index, moments in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": moments[k] for k in _MOMENTS}
    progress = {"step": run.step, "seconds": run.seconds, "running": float(run.running), "history": run.history}
    progress |= {"floor": run.floor, "memory": run.windows.memory}
    metadata = {"progress": json.dumps(progress), "settings": _identity(run)}
    with written_whole(path, overwrite=True) as unfinished:
        unfinished.write_bytes(to_bytes({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata))


def belongs(path: Location, run: TrainingRun) -> bool:
    """Whether there is a checkpoint at ``path`` that ``run`` can continue."""
    try:
        with local_copy(path) as copy, safe_open(copy, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return False
    return "settings" in metadata and not _differing(metadata, run)


def checkpoint_of(store: PlaceT) -> PlaceT:
    """Where the checkpoint of a training lies whose prior is to be at ``store``."""
    return store.with_name(f"{store.name}.checkpoint")


def progress_of(path: Location) -> tuple[int, float]:
    """Steps and seconds of the training whose checkpoint is at ``path``.

    Raises
    ------
    ArchiveError
        If it is none.
    """
    try:
        known = _header(path)["progress"]
        return int(known["step"]), float(known["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"'{path}' is no checkpoint of sdaxr; move it away, or choose another store") from error


def recorded(path: Location) -> dict[str, Any]:
    """What the run of the checkpoint at ``path`` chose by the memory of its machine: ``memory`` and ``batch``.

    Without such a checkpoint there is nothing in it.
    """
    if not path.exists():
        return {}
    try:
        about = _header(path)
        return {"memory": float(about["progress"]["memory"]), "batch": int(about["settings"]["optimisation"]["batch"])}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return {}


def _header(path: Location) -> dict[str, Any]:
    with local_copy(path) as copy, safe_open(copy, framework="pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


def load(path: Location, run: TrainingRun) -> bool:
    """Bring ``run`` to the step of the checkpoint; False if there is none.

    Raises
    ------
    ArchiveError
        If the checkpoint belongs to a run with other settings, or cannot be read.
    """
    if not path.exists():
        return False
    try:
        with local_copy(path) as copy, safe_open(copy, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a safetensors handle)
    except FileNotFoundError:  # Another process has ended the same training.
        return False
    except (OSError, SafetensorError) as error:
        raise ArchiveError(f"the checkpoint '{path}' cannot be read ({error}); remove it to start anew") from error
    if "settings" not in metadata:
        raise ArchiveError(f"'{path}' is no checkpoint of sdaxr; move it away, or choose another store")
    differing = _differing(metadata, run)
    if differing:
        raise ArchiveError(
            f"'{path}' was written by a run with other settings ({differing}); "
            "use the same settings to continue it, or remove it to start anew"
        )
    for part in ("model", "averaged"):
        weights = {k.removeprefix(f"{part}."): t for k, t in tensors.items() if k.startswith(f"{part}.")}
        getattr(run, part).load_state_dict(weights)
    best = {k.removeprefix("best."): t.to(run.device) for k, t in tensors.items() if k.startswith("best.")}
    run.best = best
    state = run.optimiser.state_dict()
    count = sum(len(group["params"]) for group in state["param_groups"])
    # Weights that the loss does not depend on have no moments.
    moved = [i for i in range(count) if f"optimiser.{i}.step" in tensors]
    state["state"] = {i: {k: tensors[f"optimiser.{i}.{k}"] for k in _MOMENTS} for i in moved}
    run.optimiser.load_state_dict(state)
    run.weighting.state = tensors["weighting"].to(run.device)
    progress = json.loads(metadata["progress"])
    run.step, run.seconds, run.history = progress["step"], progress["seconds"], progress["history"]
    run.floor = progress["floor"]
    run.running.fill_(progress["running"])
    return True


def _differing(metadata: Mapping[str, str], run: TrainingRun) -> str:
    return brief_difference(json.loads(metadata["settings"]), json.loads(_identity(run)))


def _identity(run: TrainingRun) -> str:
    return json.dumps(run.identity, sort_keys=True, default=str)
