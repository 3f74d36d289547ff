"""Trajectories of a dynamical system, as a Zarr archive with training, validation and test splits."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.creation import UnitArchive, create_archive
from sdaxr.archives.paths import Location, with_storage
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.archives.reading import open_archive
from sdaxr.archives.seeds import unit_seed
from sdaxr.archives.workers import map_units
from sdaxr.schema import SPLITS, TIME, TRAJECTORY, VERSION, ArchiveError, DivergenceError, OptionError, check_least
from sdaxr.states.validation import options_checked
from sdaxr.systems.base import System
from sdaxr.systems.registry import open_system

__all__ = ["generate"]

_log = logging.getLogger(__name__)


@options_checked
def generate(
    system: str | System,
    store: str | Location,
    *,
    trajectories: int,
    steps: int,
    seed: int = 0,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    batch: int = 1,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Simulate trajectories into a Zarr archive.

    The trajectories run on the active `distributed.Client`; without one, they run one after the other in this process.
    Trajectory i depends on ``seed`` and i only, not on the number of workers or their order. The same call resumes an
    interrupted run, and returns a complete archive of the same configuration as it is. Results are identical to the bit
    with the same versions of the libraries, the same kind of processor and the same ``batch``.

    Parameters
    ----------
    system
        Name of a system (`sdaxr.systems.systems()`) or a `System`.
    store
        Path or URL of the archive, ``.zarr`` or ``.nc``. A path ends in ``.partial`` until the archive is complete.
    trajectories
        Number of trajectories.
    steps
        Number of states in a trajectory, after the spin-up of the system.
    seed
        Seed of all random numbers, 0 or more.
    split
        Fractions of the trajectories for training, validation and test. The three splits are contiguous, in this order.
        Of three or more trajectories, at least one is in each split whose fraction is positive. None is in a split of
        fraction 0.
    batch
        Number of trajectories that are computed at once. On a GPU, some tens make the Kolmogorov flow much faster. The
        rounding depends on it.
    overwrite
        Replace an existing archive. The old archive stays until the new one is complete. An unfinished archive of the
        same configuration is resumed.
    storage_options
        Options of the file systems of URLs (fsspec), such as ``{"endpoint_url": "https://s3.example.org"}``.
    progress
        Show a progress bar.
    **options
        Options of the system, such as ``resolution=128``. A range in the place of a parameter, such as
        ``forcing=(6, 10)`` of `lorenz96` or ``reynolds=(500, 2000)`` of `kolmogorov`, from which each trajectory has a
        value of its own, drawn uniformly by its seed; see ``parameters`` of the system.

    Returns
    -------
    xarray.Dataset
        The archive, opened lazily: variables ``(trajectory, time, ...)``, parameters ``(trajectory)``, coordinates
        ``split`` and ``status``.

    Raises
    ------
    OptionError
        If the system, an option, a number or the split is impossible.
    ArchiveError
        If the store cannot be written or has another configuration, or if trajectories failed. The error lists them
        after all the others are done.
    """
    check_least("batch", batch, 1)
    store = with_storage(store, storage_options)
    model = open_system(system, **options)
    config = _config(model, trajectories, steps, seed, split)
    template = _template(model, trajectories, steps, split)
    archive = create_archive(store, template, TRAJECTORY, config, _provenance(model, config), overwrite=overwrite)
    batches = [range(first, min(first + batch, trajectories)) for first in range(0, trajectories, batch)]
    pending_units = set(archive.pending())
    if pending_units:
        archive.sign(range(trajectories))
    pending_batches = [number for number, units in enumerate(batches) if pending_units.intersection(units)]
    # In random order: two runs on one archive then seldom compute the same trajectory, and the trajectories that are
    # complete at any moment cover all three splits.
    np.random.default_rng().shuffle(pending_batches)
    outcomes = map_units(
        simulate,
        pending_batches,
        batches,
        archive,
        model,
        steps,
        seed,
        progress=progress,
        description=f"generate {model.name}",
    )
    for number, outcome in outcomes:
        if isinstance(outcome, ArchiveError):
            raise outcome
        missing = [index for index in batches[number] if not archive.is_complete(index)]
        failed = dict.fromkeys(missing, outcome) if isinstance(outcome, Exception) else outcome
        for index, error in failed.items():
            _log.warning("trajectory %d failed: %s", index, error)
            archive.fail(index, f"{type(error).__name__}: {error}")
    return open_archive(archive.finalise())


def simulate(
    number: int, batches: Sequence[Sequence[int]], archive: UnitArchive, system: System, steps: int, seed: int
) -> dict[int, Exception]:
    """Simulate batch ``number``, and write the trajectories that are not complete; return the errors, by trajectory."""
    pending = [index for index in batches[number] if not archive.is_complete(index)]
    if not pending:
        return {}
    failed: dict[int, Exception] = {}
    # The whole batch, complete trajectories included: the rounding depends on its size.
    states = system.trajectories(steps, [unit_seed(seed, index) for index in batches[number]])
    for index, state in zip(batches[number], states, strict=True):
        try:
            if index in pending:
                archive.write(index, {n: a[0] if n in system.constants else a for n, a in state.items()})
        except DivergenceError as error:
            failed[index] = error
    return failed


def split_labels(trajectories: int, split: Sequence[float]) -> np.ndarray:
    """Label of each trajectory, ``train``, ``valid`` or ``test``, in contiguous blocks; shape ``(trajectories,)``.

    Raises
    ------
    OptionError
        If the fractions are not three numbers between 0 and 1 that add up to 1.
    """
    try:
        fractions = np.asarray(split, float)
    except (TypeError, ValueError):
        fractions = np.empty(0)
    if fractions.shape != (3,) or (fractions < 0).any() or abs(fractions.sum() - 1) > 1e-6:
        raise OptionError(f"found split={tuple(split)}, expected three fractions (train, valid, test) that add up to 1")
    least = np.where((fractions > 0) & (trajectories >= 3), 1, 0)
    counts = np.maximum(np.rint(fractions * trajectories), least).astype(int)
    counts[0] = trajectories - counts[1:].sum()
    while counts[0] < least[0]:
        counts += (1, 0, -1) if counts[2] >= counts[1] else (1, -1, 0)
    while fractions[0] == 0 and counts[0] > 0:
        shortfall = fractions[1:] * trajectories - counts[1:]
        counts += (-1, 0, 1) if shortfall[1] > shortfall[0] else (-1, 1, 0)
    return np.repeat(np.array(SPLITS, object), counts)


def _config(model: System, trajectories: int, steps: int, seed: int, split: Sequence[float]) -> dict[str, Any]:
    for name, value, least in (("trajectories", trajectories, 1), ("steps", steps, 1), ("seed", seed, 0)):
        check_least(name, value, least)
    split_labels(trajectories, split)  # says what is wrong with the fractions
    return {
        "system": model.name,
        "options": model.options(),
        "trajectories": int(trajectories),
        "steps": int(steps),
        "seed": int(seed),
        "split": [float(fraction) for fraction in split],
    }


def _template(model: System, trajectories: int, steps: int, split: Sequence[float]) -> xr.Dataset:
    import dask.array

    state = model.template()
    labels = split_labels(trajectories, split)
    coordinates = {
        TRAJECTORY: (TRAJECTORY, np.arange(trajectories), {"long_name": "trajectory"}),
        TIME: (TIME, np.arange(steps) * model.step, model.time_attrs),
        "split": (TRAJECTORY, labels, {"long_name": "use of the trajectory in training"}),
    }
    variables = {}
    for name, variable in state.data_vars.items():
        sizes = {TRAJECTORY: trajectories} | ({} if name in model.constants else {TIME: steps}) | dict(variable.sizes)
        zeros = dask.array.zeros(tuple(sizes.values()), dtype=variable.dtype)
        variables[name] = (tuple(sizes), zeros, variable.attrs)
    return xr.Dataset(variables, dict(state.coords) | coordinates, state.attrs)


def _provenance(model: System, config: dict[str, Any]) -> dict[str, Any]:
    return provenance_attrs(
        f"Trajectories of {model.name}",
        f"sdaxr {VERSION}, system {model.name}",
        sdaxr_system=model.name,
        sdaxr_options=json.dumps(config["options"], sort_keys=True),
        sdaxr_seed=config["seed"],
        references=model.references or None,
    )
