"""Training of a score-based prior by denoising (Rozet & Louppe 2023, section 2; Karras et al. 2022, section 5)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sdaxr import schema
from sdaxr.archives.configuration import brief_difference
from sdaxr.archives.finished import remove, workspace
from sdaxr.archives.format import storage_errors
from sdaxr.archives.paths import Location, store_path, with_storage
from sdaxr.archives.reading import open_archive
from sdaxr.operators.base import Operator
from sdaxr.prior.assembly import assemble
from sdaxr.prior.augmentation import Augmentation
from sdaxr.prior.blanket import beyond_window
from sdaxr.prior.blocks import needed_bytes, stretches
from sdaxr.prior.budget import TrainingMemory, check_memory, check_statistics, data_budget
from sdaxr.prior.checkpoint import belongs, checkpoint_of, recorded
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.files import Prior
from sdaxr.prior.gaps import filled
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.localisation import measured_eofs
from sdaxr.prior.modes import Modes
from sdaxr.prior.networks.base import Network
from sdaxr.prior.opening import open_prior
from sdaxr.prior.patches import Patches
from sdaxr.prior.preconditioning import WITH_MODES, DenoisingNetwork
from sdaxr.prior.run import TrainingRun
from sdaxr.prior.settings import Optimisation, Settings, Statistics
from sdaxr.prior.sizes import Sizes
from sdaxr.prior.windows import Windows, split
from sdaxr.schema import TIME, ArchiveError, DataError, OptionError, PriorError
from sdaxr.states.axes import ensemble_dimension, space_dimensions
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import context_moments, infer_layout, state_variables, statistics_bytes
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated
from sdaxr.states.names import named_time
from sdaxr.states.validation import options_checked

_log = logging.getLogger(__name__)


@options_checked
@isolated()
def train(
    trajectories: xr.Dataset | str | Location,
    store: str | Location,
    *,
    window: int | None = None,
    variables: Sequence[str] | None = None,
    context: Sequence[str] | str = (),
    statistics: Statistics | Mapping[str, Any] | None = None,
    augment: Mapping[str, Operator] | None = None,
    network: str | Mapping[str, Any] | Network = "auto",
    parameterisation: str = "auto",
    start: str | Location | Prior | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    optimisation: Optimisation | Mapping[str, Any] | None = None,
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Prior:
    """Train a score-based prior on short windows of trajectories.

    Parameters
    ----------
    trajectories
        Dataset, or path or URL of a Zarr or NetCDF archive, with a ``time`` dimension, zero to two horizontal
        dimensions, an optional layer dimension and an optional ensemble dimension. A coordinate ``split`` says which
        trajectories train and which validate (``train``, ``valid``); where none validates, those of the training do,
        and a warning is logged. Without the coordinate the last tenth of the times validates, or the last window where
        a tenth is shorter. Windows do not cross gaps in the times; variables that only describe others are no states.
    store
        Path or URL of the ``.safetensors`` file. A run that was killed continues from ``<store>.checkpoint`` beside it;
        the prior of one that has ended is returned, if all settings and the data are those of this call.
    window
        Number of states in a window. It is odd for priors of windows of one length: those of the networks ``"mlp"``
        and ``"unet"``, and of the parameterisation ``"space-time"``. Default: 33 for state vectors, 8 for fields on a
        grid, 5 for priors of windows of one length; more for a network that reaches further in time, fewer where the
        data have shorter trajectories.
    variables
        State variables. Default: every variable with a ``time`` dimension. A variable that is named here and has the
        dimension of the trajectories alone, such as the forcing of each, is a parameter: it is estimated together with
        the states (`sdaxr.states.parameters`).
    context
        Static fields that the network sees beside the states, such as topography or a land mask; ``"auto"`` for every
        variable that has the horizontal dimensions and no others.
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
        ``{"name": "space-time-unet", "widths": [32, 64]}``. A mapping without a name is of the default network, whose
        widths and patch fit the grid, the number of states and the device (`sdaxr.prior.sizes`) unless they are given.
    parameterisation
        ``"spectral"`` (default for fields on periodic domains), ``"eof"`` (default for other fields), ``"space-time"``,
        ``"edm"`` (default for state vectors, and beside parameters) or ``"epsilon"``; see
        `sdaxr.prior.preconditioning`. ``"space-time"`` is for states that change little from one to the next, and makes
        a prior of windows of one length.
    start
        Name or path of a prior whose weights the training begins with. Variables, context, statistics, observed
        quantities, normalisation, window, network and parameterisation are those of the prior, and are left out here.
    steps, minutes
        Length of the training: a number of steps (default 20 000), minutes of wall clock time, or what ends first. The
        minutes are those until the prior is in its file; a step and what comes before and after it is the least. With
        ``steps=0`` the prior is the Gaussian process of its modes, without a network (not ``"edm"`` and ``"epsilon"``).
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
    storage_options
        Options of the file systems of URLs (fsspec), such as ``{"endpoint_url": "https://s3.example.org"}``.
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
        If ``store`` cannot be written, or it or its checkpoint is that of a run with other settings.

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
    began, store = time.monotonic(), store_path(store, (".safetensors",), storage_options)
    trajectories, start = with_storage(trajectories, storage_options), with_storage(start, storage_options)
    opened = open_archive(trajectories) if isinstance(trajectories, str | Location) else trajectories
    design: dict[str, Any] = {
        "window": window, "variables": variables, "context": context, "statistics": statistics, "augment": augment,
        "network": network, "parameterisation": parameterisation, "optimisation": optimisation,
    }  # fmt: skip
    before = None if start is None else open_prior(start)
    design = design if before is None else _design_of(before, design)
    data = named_time(as_dataset(opened, "the trajectories"))
    names = state_variables(data, design["variables"])
    moving = [name for name in names if TIME in data[name].dims] or names
    augmentation = Augmentation.of(design["augment"], data[moving])
    data, target = augmentation.apply(data, names), choose_device(device)
    chosen = {k: v for k, v in design.items() if k not in ("variables", "context", "augment")}
    sizes = _sizes(data, data[moving[0]], Statistics.of(design["statistics"]).patches)
    settings = Settings.choose(sizes=sizes, device=target, **chosen, steps=steps, minutes=minutes, seed=seed)
    checkpoint = _checkpoint_of(store)
    parts = split(data, settings.window)
    known = settings.statistics
    # Statistics that are the same along a dimension or in a mirror have no climatology of each point; and a prior that
    # the training begins with has its own.
    alike = known.homogeneous or known.symmetries or known.patches
    plain = before is not None or (known.normalise == "auto" and alike)
    normalise, every = "channel" if plain else known.normalise, [*names, *augmentation.variables]
    most = check_statistics(statistics_bytes(parts[0], every, normalise))
    layout = infer_layout(
        parts[0], variables=every, context=design["context"], cycles=known.cycles, normalise=normalise,
        missing=known.missing,
    )  # fmt: skip
    layout = layout if before is None else _layout_of(before, layout)
    patches = Patches.of(layout, known.patches)
    seen = layout if patches is None else patches.tile
    before_kill = recorded(checkpoint)
    states = parts[0][moving[0]].size // max(1, int(np.prod(layout.shape)))
    settings = settings.for_layout(seen, states, target, before_kill.get("batch"))
    memory = settings.optimisation.memory
    if memory is None:
        memory = data_budget(needed_bytes(parts[0], layout), target, before_kill.get("memory"))
    windows, held_out = _windows(parts, layout, settings, target, patches, memory)
    check_memory(TrainingMemory.of(settings, seen, windows, held_out, target, most), target)
    about = settings.to_dict() | {"augment": augmentation.to_file(), "data": fingerprint(data, layout)}
    if layout.parameters and settings.parameterisation not in WITH_MODES and layout.mask is None:
        about["shared_noise"] = True if before is None else before.metadata.get("shared_noise", False)
    if before is not None:
        about["start"] = {"name": before.name, "sha256": before.sha256}
    if patches is not None and layout.context:
        # A domain that the prior is put on has the same fields in the same units.
        about["context"] = _context_of(before, parts[0], layout)
    if store.exists() and not overwrite and not checkpoint.exists():
        return _finished(store, {"name": name or store.stem} | about)
    both = [windows] if parts[0] is parts[1] else [windows, held_out]
    model = _initial(layout, about, both, settings, target, before)
    if layout.gappy and isinstance(model.modes, Eofs):
        # The process takes zeros in gaps for values.
        for part in (windows, held_out):
            part.fill(partial(filled, modes=model.modes))
    if unseen := beyond_window(model, settings.window):
        _log.warning("%s; train with a longer window, or with fewer blocks", unseen)
    run = TrainingRun(settings, about, seen, model, windows, held_out, target, began)
    if overwrite and not belongs(checkpoint, run):
        remove(checkpoint)
    run.go(checkpoint, progress)
    about = {"name": name or store.stem} | about | {"training": run.summary(), "sdaxr_version": schema.VERSION}
    if run.averaged.share is not None:
        about["share"] = run.averaged.share
    if settings.parameterisation == "eof" or run.averaged.silent:
        # Predictors alone sample a Gaussian process exactly; corrections cost evaluations.
        about["sampling"] = {"sampler": {"corrections": 0}}
    about = json.loads(json.dumps(about, default=np.generic.item))  # as the file holds it
    Prior(layout, run.averaged.cpu().eval().requires_grad_(False), held_out.reference(), about).save(store)
    remove(checkpoint)
    return open_prior(store)  # as it is rounded in the file


def fingerprint(data: xr.Dataset, layout: StateLayout) -> dict[str, Any]:
    """Where the training data came from: provenance attributes, sizes, and a hash of all arrays of the layout.

    ``stretches`` are the numbers of times between gaps, where there are gaps.
    """
    digest = hashlib.sha256()
    for name, array in sorted(layout.to_file()[0].items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    sizes = {str(k): int(v) for k, v in data.sizes.items()}
    parts = [part.stop - part.start for part in stretches(data)]
    about = {"sizes": sizes} | ({"stretches": parts} if len(parts) > 1 else {})
    known = {str(k): v for k, v in data.attrs.items() if str(k).startswith("sdaxr_") or k in ("title", "source")}
    found: dict[str, Any] = json.loads(json.dumps({**about, "sha256": digest.hexdigest(), **known}, default=str))
    return found


def _sizes(data: xr.Dataset, variable: xr.DataArray, patches: Mapping[str, int]) -> Sizes:
    """Sizes of the data, one variable of which is ``variable``; a window has to leave as many states to validate."""
    shape = tuple(patches.get(str(d), variable.sizes[d]) for d in space_dimensions(variable))
    ensemble = ensemble_dimension(data)
    states = data.sizes[TIME] * (1 if ensemble is None else data.sizes[ensemble])
    longest = max(part.stop - part.start for part in stretches(data))
    return Sizes(shape, states, longest if "split" in data.coords else longest // 2)


def _windows(
    parts: tuple[xr.Dataset, xr.Dataset], layout: StateLayout, settings: Settings, device: torch.device,
    patches: Patches | None, memory: float,
) -> tuple[Windows, Windows]:  # fmt: skip
    """Windows of the training and of the validation; the latter as the data have them, neither shifted nor flipped."""
    statistics, seed = settings.statistics, settings.seed
    windows = Windows(
        parts[0], layout, settings.window, seed=seed, homogeneous=statistics.homogeneous,
        symmetries=statistics.symmetries, patches=patches, memory=memory, batch=settings.batch, device=device,
    )  # fmt: skip
    held_out = Windows(
        parts[1], layout, settings.window, seed=seed + 1, patches=patches, memory=memory / 4, device=device
    )
    return windows, held_out


def _context_of(before: Prior | None, data: xr.Dataset, layout: StateLayout) -> dict[str, list[float]]:
    """Mean and standard deviation by which each static field is normalised."""
    if before is not None:
        return dict(before.metadata["context"])
    return {name: list(context_moments(data, name, layout.space)) for name in layout.context}


def _initial(
    layout: StateLayout, about: dict[str, Any], windows: Sequence[Windows], settings: Settings, device: torch.device,
    before: Prior | None,
) -> DenoisingNetwork:  # fmt: skip
    """The network with the weights and modes of a prior, or untrained with modes measured on the training data.

    EOFs are measured on the validation data, too: blocks of time that are left out in turn validate them. What was
    chosen for them is added to ``about``.
    """
    # Not torch.manual_seed, which seeds the generators of all devices. Those of the CPU are put back (`isolated`).
    torch.default_generator.manual_seed(settings.seed)
    if before is not None:
        about |= {key: before.metadata[key] for key in ("modes",) if key in before.metadata}
        model = assemble(layout, about).to(device)
        model.load_state_dict(before.network.state_dict())
        return model
    eofs = None
    if settings.parameterisation == "eof":
        series = (part for each in windows for part in each.series())
        patches = windows[0].patches
        seen = layout if patches is None else patches.tile
        eofs = measured_eofs(series, seen, window=settings.window, taper=settings.statistics.taper)
        about["modes"] = eofs.about
    model = assemble(layout, about).to(device)
    if eofs is not None:
        eofs.into(model.modes)
    elif isinstance(model.modes, Modes):
        model.modes.measure(windows[0].sample(model.modes.variances.shape[-1]))
    return model


def _design_of(before: Prior, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a prior fixes of a training that begins with it; raises `OptionError` where the call gives any of it."""
    taken = [k for k, value in given.items() if k != "optimisation" and value not in (None, (), [], "auto")]
    if taken:
        raise OptionError(
            f"found {taken[0]}= beside start={before.name!r}, expected only one of them; leave out {taken[0]}=, which "
            "is that of the prior, or train from the beginning"
        )
    about = before.metadata
    design = {key: about[key] for key in ("window", "network", "parameterisation", "statistics")}
    design |= {"variables": before.states, "context": list(before.layout.context)}
    design["augment"] = before.augmentation.operators or None
    return design | {"optimisation": given["optimisation"] or about["optimisation"]}


def _layout_of(before: Prior, found: StateLayout) -> StateLayout:
    """The layout of a prior, whose normalisation its weights have learnt; its time step has to be that of the data."""
    layout = before.layout
    if layout.time.kind != found.time.kind or not layout.time.same_step(found.time):
        raise DataError(
            f"the trajectories have the time step {found.time}, expected that of the prior {before.name!r}, "
            f"{layout.time}; train from the beginning"
        )
    return layout


def _checkpoint_of(store: Location) -> Location:
    """The checkpoint's path; raises `ArchiveError` where the store cannot be written."""
    if isinstance(store, Path):
        with storage_errors("write", str(store)), workspace(store):
            pass
    return checkpoint_of(store)


def _finished(store: Location, about: Mapping[str, Any]) -> Prior:
    """The prior of a run that has ended; raises `ArchiveError` where the store holds anything else."""
    remedy = "pass overwrite=True to train it anew, or choose another store"
    try:
        prior = open_prior(store)
    except PriorError as error:
        raise ArchiveError(f"'{store}' exists, and is no prior; {remedy}") from error
    asked = json.loads(json.dumps(about, default=np.generic.item))  # as the file holds it
    changes = brief_difference({key: prior.metadata.get(key) for key in asked}, asked)
    if changes:
        raise ArchiveError(f"'{store}' exists, of a run with other settings ({changes}); {remedy}")
    _log.info("'%s' is there already", store)
    return prior
