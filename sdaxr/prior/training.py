"""Training of a score-based prior by denoising (Rozet & Louppe 2023, section 2; Karras et al. 2022, section 5)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sdaxr import schema
from sdaxr.archives.finished import remove, workspace
from sdaxr.archives.format import storage_errors
from sdaxr.archives.paths import store_path
from sdaxr.archives.reading import open_archive
from sdaxr.operators.base import Operator
from sdaxr.prior.augmentation import Augmentation
from sdaxr.prior.checkpoint import belongs
from sdaxr.prior.files import Prior, assemble
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.networks.base import Network
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.run import TrainingRun
from sdaxr.prior.settings import Optimisation, Settings, Statistics
from sdaxr.prior.windows import Windows, split
from sdaxr.schema import ArchiveError
from sdaxr.states.axes import space_dimensions
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout, state_variables
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated


@isolated()
def train(
    trajectories: xr.Dataset | str | Path,
    store: str | Path,
    *,
    window: int | None = None,
    variables: Sequence[str] | None = None,
    context: Sequence[str] = (),
    statistics: Statistics | Mapping[str, Any] | None = None,
    augment: Mapping[str, Operator] | None = None,
    network: str | Mapping[str, Any] | Network = "auto",
    parameterisation: str = "auto",
    steps: int | None = None,
    minutes: float | None = None,
    optimisation: Optimisation | Mapping[str, Any] | None = None,
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Prior:
    """Train a score-based prior on short windows of trajectories.

    Parameters
    ----------
    trajectories
        Dataset, or path of a Zarr or NetCDF archive, with a ``time`` dimension, zero to two horizontal dimensions, an
        optional layer dimension and an optional ensemble dimension. A coordinate ``split`` says which trajectories
        train and which validate (``train``, ``valid``); where none validates, those of the training do, and a warning
        is logged. Without the coordinate the last tenth of the times validates, or the last window where a tenth is
        shorter.
    store
        Path of the ``.safetensors`` file. A run that was killed continues from ``<store>.checkpoint`` beside it.
    window
        Number of states in a window. It is odd for priors of windows of one length: those of the networks ``"mlp"``
        and ``"unet"``, and of the parameterisation ``"space-time"``. Default: 33 for state vectors, 8 for fields on a
        grid, 5 for priors of windows of one length.
    variables
        State variables. Default: every variable with a ``time`` dimension.
    context
        Static fields that the network sees beside the states, such as topography or a land mask.
    statistics
        What is known of the statistics of the states: normalisation, cycles in time, homogeneous dimensions,
        symmetries. A `sdaxr.Statistics`, or a mapping of its options.
    augment
        Observation operators H by name, such as ``{"velocity": operators.pv_inversion()}``: the prior becomes one of
        [x, H(x)], for ``method="soad"``; see `sdaxr.prior.augmentation`. The observed quantities are variables of the
        prior (``velocity_u``), which symmetries have to negate like the others.
    network
        ``"convolutional"`` (default for state vectors), ``"space-time-unet"`` (default for fields on a grid),
        ``"mlp"`` or ``"unet"``; or with its options, ``sdaxr.networks.SpaceTimeUNet(widths=(32, 64))`` or
        ``{"name": "space-time-unet", "widths": [32, 64]}``. A mapping without a name is of the default network.
    parameterisation
        ``"spectral"`` (default for fields on a grid), ``"space-time"``, ``"edm"`` (default for state vectors) or
        ``"epsilon"``; see `sdaxr.prior.preconditioning`. ``"space-time"`` is for states that change little from one
        to the next, and makes a prior of windows of one length.
    steps, minutes
        Length of the training: a number of steps (default 20 000), minutes of wall clock time, or what ends first.
    optimisation
        How the weights are found: batch, learning rate, noise levels, precision. A `sdaxr.Optimisation`, or a mapping
        of its options.
    name
        Name that is recorded in the file. Default: the stem of ``store``.
    seed
        Seed of the initial weights, the windows and the noise.
    device
        ``"auto"`` is a GPU where there is one, else the CPU.
    overwrite
        Replace a file, or the checkpoint of a run with other settings. Without it both are errors. A checkpoint of the
        same settings is continued in either case.
    progress
        Show a progress bar.

    Returns
    -------
    Prior
        The trained prior, with the averaged weights. It has been saved to ``store``.

    Raises
    ------
    DataError
        If the data do not have the variables, dimensions, values or times that a prior needs.
    OptionError
        If an option is unknown or impossible.
    ArchiveError
        If ``store`` exists or cannot be written, or its checkpoint is that of a run with other settings.

    References
    ----------
    Rozet & Louppe (2023), Score-based data assimilation, arXiv:2306.10574; Karras et al. (2022), Elucidating the design
    space of diffusion-based generative models, arXiv:2206.00364.

    Examples
    --------
    >>> sdaxr.train(trajectories, "flow.safetensors", window=5, minutes=30)  # doctest: +SKIP
    >>> sdaxr.train(
    ...     trajectories,
    ...     "flow.safetensors",
    ...     network=sdaxr.networks.SpaceTimeUNet(widths=(64, 96, 128), patch=4),
    ...     statistics=sdaxr.Statistics(homogeneous=("x",)),
    ...     optimisation=sdaxr.Optimisation(batch=4, weighting="relative"),
    ... )  # doctest: +SKIP
    """
    store = store_path(store, (".safetensors",))
    opened = open_archive(trajectories) if isinstance(trajectories, str | Path) else trajectories
    data = as_dataset(opened, "the trajectories")
    names = state_variables(data, variables)
    augmentation = Augmentation.of(augment, data[names])
    data, target = augmentation.apply(data, names), choose_device(device)
    settings = Settings.choose(
        gridded=bool(space_dimensions(data[names[0]])), device=target, window=window, network=network,
        parameterisation=parameterisation, statistics=statistics, optimisation=optimisation, steps=steps,
        minutes=minutes, seed=seed,
    )  # fmt: skip
    checkpoint = _checkpoint_of(store, overwrite)
    parts = split(data, settings.window)
    layout = infer_layout(
        parts[0], variables=[*names, *augmentation.variables], context=context,
        cycles=settings.statistics.cycles, normalise=settings.statistics.normalise,
    )  # fmt: skip
    settings = replace(settings, statistics=replace(settings.statistics, cycles=layout.cycles))
    windows, held_out = _windows(parts, layout, settings)
    about = settings.to_dict() | {"augment": augmentation.to_file(), "data": fingerprint(data, layout)}
    model = _initial(layout, about, windows, seed, target)
    run = TrainingRun(settings, about, layout, model, windows, held_out, target)
    if overwrite and not belongs(checkpoint, run):
        remove(checkpoint)
    run.go(checkpoint, progress)
    about = {"name": name or store.stem} | about | {"training": run.summary(), "sdaxr_version": schema.VERSION}
    about = json.loads(json.dumps(about, default=np.generic.item))  # as the file holds it
    prior = Prior(layout, run.averaged.cpu().eval().requires_grad_(False), held_out.reference(), about)
    prior.save(store)
    remove(checkpoint)
    return prior


def fingerprint(data: xr.Dataset, layout: StateLayout) -> dict[str, Any]:
    """Where the training data came from: provenance attributes, sizes, and a hash of all arrays of the layout."""
    digest = hashlib.sha256()
    for name, array in sorted(layout.to_file()[0].items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    sizes = {str(k): int(v) for k, v in data.sizes.items()}
    known = {str(k): v for k, v in data.attrs.items() if str(k).startswith("sdaxr_") or k in ("title", "source")}
    found: dict[str, Any] = json.loads(json.dumps({"sizes": sizes, "sha256": digest.hexdigest(), **known}, default=str))
    return found


def _windows(parts: tuple[xr.Dataset, xr.Dataset], layout: StateLayout, settings: Settings) -> tuple[Windows, Windows]:
    """Windows of the training and of the validation; the latter as the data have them, neither shifted nor flipped."""
    memory, statistics = settings.optimisation.memory, settings.statistics
    windows = Windows(
        parts[0], layout, settings.window, seed=settings.seed, homogeneous=statistics.homogeneous,
        symmetries=statistics.symmetries, memory=memory,
    )  # fmt: skip
    return windows, Windows(parts[1], layout, settings.window, seed=settings.seed + 1, memory=memory / 4)


def _initial(
    layout: StateLayout, about: Mapping[str, Any], windows: Windows, seed: int, device: torch.device
) -> DenoisingNetwork:
    """The untrained network, whose modes are those of the training data."""
    # Not torch.manual_seed, which seeds the generators of all devices. Those of the CPU are put back (`isolated`).
    torch.default_generator.manual_seed(seed)
    model = assemble(layout, about).to(device)
    if model.modes is not None:
        together = model.modes.variances.shape[-1]
        model.modes.measure(map(torch.as_tensor, windows.sample(together)))
    return model


def _checkpoint_of(store: Path, overwrite: bool) -> Path:
    """The checkpoint's path; raises `ArchiveError` where the store is taken or cannot be written."""
    checkpoint = store.with_name(store.name + ".checkpoint")
    if store.exists() and not overwrite and not checkpoint.exists():
        raise ArchiveError(f"'{store}' exists; pass overwrite=True to train it anew, or choose another store")
    with storage_errors("write", str(store)), workspace(store):
        return checkpoint
