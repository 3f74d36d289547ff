"""Training of a score-based prior by denoising (Rozet & Louppe 2023, section 2; Karras et al. 2022, section 5)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sdaxr import schema
from sdaxr.operators import Operator
from sdaxr.prior.augmentation import Augmentation
from sdaxr.prior.files import Prior, assemble
from sdaxr.prior.hardware import choose_device, choose_precision
from sdaxr.prior.networks import default_network
from sdaxr.prior.run import TrainingRun
from sdaxr.prior.settings import Settings
from sdaxr.prior.windows import Windows
from sdaxr.schema import ArchiveError, DataError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout
from sdaxr.states.time import time_axis


def train(
    trajectories: xr.Dataset | str | Path,
    store: str | Path,
    *,
    window: int | None = None,
    shortest: int | None = None,
    network: str = "auto",
    network_options: dict[str, Any] | None = None,
    parameterisation: str = "auto",
    variables: Sequence[str] | None = None,
    context: Sequence[str] = (),
    cycles: Sequence[str] | None = None,
    normalise: str = "channel",
    homogeneous: Sequence[str] = (),
    symmetries: Sequence[Mapping[str, Any]] = (),
    augment: Mapping[str, Operator] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    ema: float = 0.999,
    levels: tuple[float, float] = (5e-3, 100.0),
    weighting: str = "uniform",
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    memory: float = 4e9,
    validate_every: int = 500,
    overwrite: bool = False,
    progress: bool = True,
) -> Prior:
    """Train a score-based prior on short windows of trajectories.

    Parameters
    ----------
    trajectories
        Dataset, or path of a Zarr or NetCDF archive, with a ``time`` dimension, zero to two horizontal dimensions, an
        optional layer dimension and an optional ensemble dimension. Where there is a coordinate ``split``, its
        ``train`` and ``valid`` parts are used; else the last tenth of the times validates.
    store
        Path of the ``.safetensors`` file; ``<store>.checkpoint`` beside it allows a killed run to go on.
    window
        Number of states a window; odd for priors of windows: the networks ``mlp`` and ``unet``, and the
        parameterisation ``"space-time"``. Default: 33 states for vectors, 8 for grids, 5 for priors of windows.
    shortest
        Windows are cut into halves, quarters, ... for some of the batches, down to this length: a network with a long
        reach so learns trajectories whose two ends it sees, as well as those where it sees neither. Default: no cuts.
    network, network_options
        ``"convolutional"`` (default for vectors), ``"space-time-unet"`` (default for grids), ``"mlp"``, ``"unet"``, and
        their options.
    parameterisation
        ``"spectral"`` (default for grids), ``"space-time"``, ``"edm"`` (default for vectors) or ``"epsilon"``; see
        `sdaxr.prior.preconditioning`. ``"space-time"`` is for states that change little from one to the next; it makes
        a prior of windows of one length.
    variables, context, cycles, normalise
        State variables, static fields, cyclic time context and normalisation; see `sdaxr.states.infer.infer_layout`.
    homogeneous
        Periodic dimensions along which the statistics do not change; windows are rolled along them at random, which is
        as good as having more data.
    symmetries
        Transformations that leave the statistics as they are, each a mapping such as
        ``{"flip": ["x"], "shift": {"y": 8}, "negate": ["u"]}``; see `sdaxr.prior.symmetries`.
    augment
        Observation operators by name, such as ``{"velocity": operators.pv_inversion()}``: the prior is one of the
        states and of what these make of them, for ``method="soad"``; see `sdaxr.prior.augmentation`. Observed
        quantities are variables of it (``velocity_u``), which ``symmetries`` have to negate like the others.
    steps, minutes
        Length of the training: a number of steps (default 20 000), or minutes of wall clock.
    batch, learning_rate, weight_decay, ema
        Windows a step; AdamW with a linear warm-up and a cosine decay to zero; decay of the averaged weights.
    levels
        Smallest and largest noise level r = sigma / mu; it is drawn log-uniformly.
    weighting
        ``"uniform"``: errors of the network's output count alike at every level. ``"relative"``: they count in units of
        what they are at their level by now, so that levels at which little is left to be learned do not drown those
        at which the state is nearly known; see `sdaxr.prior.weighting`.
    name
        Name recorded in the file; default: the stem of ``store``.
    device, compile
        ``"auto"`` takes a GPU where there is one; ``torch.compile`` pays on long runs.
    precision
        ``"float32"``, or ``"bfloat16"`` for autocast (the weights stay float32), which ``"auto"`` takes for fields on
        a GPU and on processors that have instructions for it.
    memory
        Bytes of data that are held at once; larger archives are streamed.
    validate_every
        Steps between two validations (and checkpoints).
    overwrite
        Train anew where there is a file or a checkpoint; without it a checkpoint is gone on from.

    Returns
    -------
    The trained prior, with the averaged weights; it has been saved to ``store``.

    Raises
    ------
    DataError, OptionError, ArchiveError
        If the data do not fit, an option is unknown, or ``store`` cannot be written.
    """
    data = _open(trajectories)
    store = Path(store)
    options: dict[str, Any] = {"variables": variables, "context": context, "cycles": cycles, "normalise": normalise}
    names = [str(v) for v in (variables or data.data_vars) if v in data and schema.TIME in data[v].dims]
    augmentation = Augmentation.of(augment, data[names])
    data = augmentation.apply(data, names)
    if variables is not None:
        options["variables"] = [*variables, *augmentation.variables]
    training, validation = _splits(data)
    layout = infer_layout(training, **options)
    if steps is None and minutes is None:
        steps = 20_000
    network = default_network(layout) if network == "auto" else network
    if parameterisation == "auto":
        parameterisation = "spectral" if layout.space else "edm"
    windowed = network in ("mlp", "unet") or parameterisation == "space-time"
    window = window or (5 if windowed else 8 if layout.space else 33)
    if validation.sizes[schema.TIME] < window:
        # A tenth of a short series is less than one window.
        training, validation = _splits(data, window)
        layout = infer_layout(training, **options)
    target = choose_device(device)
    precision = choose_precision(precision, target, fields=bool(layout.space))
    shortest = window if shortest is None else shortest
    settings = Settings(
        window, shortest, network, dict(network_options or {}), parameterisation, steps, minutes, batch, learning_rate,
        weight_decay, ema, (levels[0], levels[1]), weighting, precision, tuple(homogeneous), tuple(symmetries), seed,
        fingerprint(data, layout), layout.to_file()[1],
    )  # fmt: skip
    settings.check(windowed)
    torch.manual_seed(seed)
    windows = Windows(
        training, layout, window, seed=seed, homogeneous=homogeneous, symmetries=symmetries, memory=memory
    )
    model = assemble(layout, asdict(settings)).to(target)
    if model.modes is not None:
        model.modes.measure(_states(windows, layout))
    averaged = copy.deepcopy(model)
    held_out = Windows(validation, layout, window, seed=seed + 1, memory=memory / 4)
    run = TrainingRun(settings, layout, model, averaged, windows, held_out, target, compile)
    checkpoint_path = store.with_name(store.name + ".checkpoint")
    if store.exists() and not overwrite and not checkpoint_path.exists():
        raise ArchiveError(f"'{store}' exists; pass overwrite=True to train it anew, or choose another store")
    _writable(store)
    if overwrite:
        checkpoint_path.unlink(missing_ok=True)
    run.go(checkpoint_path, validate_every, progress)
    about = asdict(settings) | {
        "name": name or store.stem,
        "augment": augmentation.to_file(),
        "training": run.summary(),
        "sdaxr_version": schema.VERSION,
    }
    del about["layout"]
    about = json.loads(json.dumps(about, default=np.generic.item))  # as the file holds it
    reference = _reference(held_out)
    prior = Prior(layout, averaged.cpu().eval().requires_grad_(False), reference, about)
    prior.save(store)
    checkpoint_path.unlink(missing_ok=True)
    return prior


def fingerprint(data: xr.Dataset, layout: StateLayout) -> dict[str, Any]:
    """Where the training data came from: provenance attributes, sizes, and a hash of statistics and axes."""
    digest = hashlib.sha256()
    for array in (layout.mean, layout.std, *(c.values for c in layout.coords.values())):
        digest.update(np.ascontiguousarray(array).tobytes())
    sizes = {str(k): int(v) for k, v in data.sizes.items()}
    known = {k: v for k, v in data.attrs.items() if str(k).startswith("sdaxr_") or k in ("title", "source")}
    return json.loads(json.dumps({"sizes": sizes, "sha256": digest.hexdigest(), **known}, default=str))


def _open(trajectories: xr.Dataset | str | Path) -> xr.Dataset:
    from sdaxr.archives.reading import open_archive

    return trajectories if isinstance(trajectories, xr.Dataset) else open_archive(trajectories)


def _splits(data: xr.Dataset, least: int = 1) -> tuple[xr.Dataset, xr.Dataset]:
    if "split" in data.coords:
        dim = data["split"].dims[0]
        parts = [data.isel({dim: np.flatnonzero(data["split"].values == part)}) for part in ("train", "valid")]
        if parts[0].sizes[dim] == 0:
            raise DataError(f"'split' has the values {sorted(set(data['split'].values))}, expected some 'train'")
        return parts[0], parts[1] if parts[1].sizes[dim] else parts[0]
    time_axis(data)
    cut = max(1, min(round(0.9 * data.sizes[schema.TIME]), data.sizes[schema.TIME] - least))
    return data.isel(time=slice(None, cut)), data.isel(time=slice(cut, None))


def _writable(store: Path) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        probe = store.with_name(store.name + ".checkpoint.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArchiveError(f"'{store}' cannot be written: {error}; choose another store") from error


def _states(windows: Windows, layout: StateLayout, elements: int = 2**27) -> Iterator[torch.Tensor]:
    """States of the training, batch by batch: so many numbers, and enough for the correlations of all channels."""
    batch = torch.as_tensor(windows.batch(0, 16)[0])
    together = layout.channels * 2 ** sum(layout.periodic)
    batches = int(np.clip(elements // batch.numel(), max(4, 40 * together // (16 * batch.shape[1])), 64))
    yield from (torch.as_tensor(windows.batch(number, 16)[0]) for number in range(batches))


def _reference(windows: Windows, elements: int = 2**16) -> tuple[np.ndarray, np.ndarray]:
    size = int(np.prod(windows.batch(0, 1)[0].shape[1:]))
    states, context = windows.batch(0, int(np.clip(elements // size, 4, 256)))
    # Rounded as in the file, so that a prior that has just been trained is the one that is opened later.
    return states.astype(np.float16).astype(np.float32), context.astype(np.float16).astype(np.float32)
