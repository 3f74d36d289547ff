"""Training of a score-based prior by denoising (Rozet & Louppe 2023, section 2; Karras et al. 2022, section 5)."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from sdaxr import schema
from sdaxr.fields import StateLayout
from sdaxr.hardware import choose_device, choose_precision
from sdaxr.infer import infer_layout
from sdaxr.prior import checkpoint
from sdaxr.prior.files import Prior, assemble
from sdaxr.prior.networks import default_network
from sdaxr.prior.preconditioning import PARAMETERISATIONS, DenoisingNetwork
from sdaxr.prior.weighting import WEIGHTINGS
from sdaxr.prior.windows import Windows, cut
from sdaxr.schema import ArchiveError, DataError, OptionError, nearest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run does; two runs with equal settings can be resumed as one."""

    window: int
    shortest: int
    network: str
    network_options: dict[str, Any]
    parameterisation: str
    steps: int | None
    minutes: float | None
    batch: int
    learning_rate: float
    weight_decay: float
    ema: float
    levels: tuple[float, float]
    weighting: str
    precision: str
    homogeneous: tuple[str, ...]
    symmetries: tuple[Mapping[str, Any], ...]
    seed: int
    data: dict[str, Any] = field(default_factory=dict)
    layout: dict[str, Any] = field(default_factory=dict)


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
        Number of states a window; odd for the window networks ``mlp`` and ``unet``. Default: 33 states for vectors, 8
        for grids, 5 for window networks.
    shortest
        Windows are cut into halves, quarters, ... for some of the batches, down to this length: a network with a long
        reach so learns trajectories whose two ends it sees, as well as those where it sees neither. Default: no cuts.
    network, network_options
        ``"convolutional"`` (default for vectors), ``"space-time-unet"`` (default for grids), ``"mlp"``, ``"unet"``, and
        their options.
    parameterisation
        ``"spectral"`` (default for grids), ``"edm"`` (default for vectors) or ``"epsilon"``; see
        `sdaxr.prior.preconditioning`.
    variables, context, cycles, normalise
        State variables, static fields, cyclic time context and normalisation; see `sdaxr.infer.infer_layout`.
    homogeneous
        Periodic dimensions along which the statistics do not change; windows are rolled along them at random, which is
        as good as having more data.
    symmetries
        Transformations that leave the statistics as they are, each a mapping such as
        ``{"flip": ["x"], "shift": {"y": 8}, "negate": ["u"]}``; see `sdaxr.prior.symmetries`.
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
    training, validation = _splits(data)
    layout = infer_layout(training, **options)
    if steps is None and minutes is None:
        steps = 20_000
    network = default_network(layout) if network == "auto" else network
    if parameterisation == "auto":
        parameterisation = "spectral" if layout.space else "edm"
    windowed = network in ("mlp", "unet")
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
    _check(settings, windowed)
    torch.manual_seed(seed)
    windows = Windows(
        training, layout, window, seed=seed, homogeneous=homogeneous, symmetries=symmetries, memory=memory
    )
    model = assemble(layout, asdict(settings)).to(target)
    if model.modes is not None:
        model.modes.measure(_states(windows))
    averaged = copy.deepcopy(model)
    held_out = Windows(validation, layout, window, seed=seed + 1, memory=memory / 4)
    run = _Run(settings, layout, model, averaged, windows, held_out, target, compile)
    checkpoint_path = store.with_name(store.name + ".checkpoint")
    if store.exists() and not overwrite and not checkpoint_path.exists():
        raise ArchiveError(f"'{store}' exists; pass overwrite=True to train it anew, or choose another store")
    _writable(store)
    if overwrite:
        checkpoint_path.unlink(missing_ok=True)
    run.go(checkpoint_path, validate_every, progress)
    about = asdict(settings) | {
        "name": name or store.stem,
        "training": run.summary(),
        "sdaxr_version": schema.version(),
    }
    del about["layout"]
    about = json.loads(json.dumps(about, default=np.generic.item))  # as the file holds it
    reference = _reference(held_out)
    prior = Prior(layout, averaged.cpu().eval().requires_grad_(False), reference, about)
    prior.save(store)
    checkpoint_path.unlink(missing_ok=True)
    return prior


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        settings: Settings,
        layout: StateLayout,
        model: DenoisingNetwork,
        averaged: DenoisingNetwork,
        windows: Windows,
        held_out: Windows,
        device: torch.device,
        compile: bool,
    ) -> None:
        self.settings, self.model, self.averaged = settings, model, averaged
        self.windows, self.held_out, self.device = windows, held_out, device
        self.optimiser = torch.optim.AdamW(
            model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.loss: Callable[..., torch.Tensor] = torch.compile(model.loss, dynamic=False) if compile else model.loss
        self.weighting = WEIGHTINGS[settings.weighting](settings.levels, device)
        self.valid = None if layout.mask is None else torch.as_tensor(layout.mask, device=device).float()
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    def go(self, path: Path, validate_every: int, progress: bool) -> None:
        """Train from the last checkpoint to the end."""
        if checkpoint.load(path, self):
            log.info("resumed from %s at step %d", path, self.step)
        bar = tqdm(total=1.0, initial=self.done, disable=not progress, desc="training", bar_format=_BAR)
        start, running = time.monotonic() - self.seconds, self.history[-1]["train"] if self.history else math.nan
        while self.done < 1:
            loss = self._update()
            running = loss if math.isnan(running) else 0.98 * running + 0.02 * loss
            self.step, self.seconds = self.step + 1, time.monotonic() - start
            if not math.isfinite(loss):
                raise schema.DivergenceError(f"the loss is {loss} at step {self.step}; lower learning_rate=")
            if self.step % validate_every == 0 or self.done >= 1:
                self.history.append({"step": self.step, "train": running, "valid": self._validate()})
                checkpoint.save(path, self)
                log.info("step %d: training loss %.4f, validation loss %.4f", *self.history[-1].values())
            bar.n = min(1.0, self.done)
            bar.set_postfix_str(f"step {self.step}, loss {running:.4f}", refresh=False)
            bar.update(0)
        bar.close()

    @property
    def done(self) -> float:
        """Share of the budget that is spent."""
        settings = self.settings
        parts = [self.step / settings.steps] if settings.steps else []
        return max([*parts, *([self.seconds / 60 / settings.minutes] if settings.minutes else [])])

    def _update(self) -> float:
        settings = self.settings
        generator = _generator(settings.seed, self.step)
        x, context = self.windows.batch(self.step, settings.batch)
        halvings = int(math.log2(settings.window / settings.shortest))
        if halvings:
            x, context = cut(x, context, 2 ** int(torch.randint(halvings + 1, (), generator=generator)))
        for group in self.optimiser.param_groups:
            decay = (1 + math.cos(math.pi * self.done)) / 2
            group["lr"] = settings.learning_rate * min(1.0, (self.step + 1) / 100) * decay
        states, r, noise, told = self._noisy(x, context, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            errors = self.loss(states, r, noise, told, self.valid)
        self.optimiser.zero_grad(set_to_none=True)
        (errors * self.weighting(r, errors.detach())).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        # The average forgets the first steps, when it would mostly be the initial weights.
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, weight in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                average.lerp_(weight, 1 - decay)
        return float(errors.detach().mean())

    def _noisy(self, x: np.ndarray, context: np.ndarray, generator: torch.Generator) -> list[torch.Tensor]:
        low, high = map(math.log, self.settings.levels)
        states = torch.as_tensor(x)
        # Stratified over the batch: less noise in the loss than independent levels.
        place = (torch.randperm(len(x), generator=generator) + torch.rand(len(x), generator=generator)) / len(x)
        r = torch.exp(low + (high - low) * place)
        noise = torch.randn(states.shape, generator=generator)
        noise = noise if self.valid is None else noise * self.valid.cpu()
        return [t.to(self.device) for t in (states, r, noise, torch.as_tensor(context))]

    @torch.no_grad()
    def _validate(self, batches: int = 4) -> float:
        losses = []
        for number in range(batches):
            x, context = self.held_out.batch(number, self.settings.batch)
            generator = _generator(self.settings.seed + 1, number)
            states, r, noise, told = self._noisy(x, context, generator)
            losses.append(self.averaged.loss(states, r, noise, told, self.valid).mean())
        return float(torch.stack(losses).mean())

    def summary(self) -> dict[str, Any]:
        """What the prior file says about its training."""
        last = self.history[-1]
        return {
            "steps": self.step,
            "minutes": round(self.seconds / 60, 2),
            "device": str(self.device),
            "training_loss": last["train"],
            "validation_loss": last["valid"],
            "history": self.history[:: max(1, len(self.history) // 50)],
        }


def _generator(seed: int, number: int) -> torch.Generator:
    # Each step has a stream of its own, so that a resumed run sees the same noise.
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {postfix}"


def fingerprint(data: xr.Dataset, layout: StateLayout) -> dict[str, Any]:
    """Where the training data came from: provenance attributes, sizes, and a hash of statistics and axes."""
    digest = hashlib.sha256()
    for array in (layout.mean, layout.std, *(c.values for c in layout.coords.values())):
        digest.update(np.ascontiguousarray(array).tobytes())
    sizes = {str(k): int(v) for k, v in data.sizes.items()}
    known = {k: v for k, v in data.attrs.items() if str(k).startswith("sdaxr_") or k in ("title", "source")}
    return json.loads(json.dumps({"sizes": sizes, "sha256": digest.hexdigest(), **known}, default=str))


def _open(trajectories: xr.Dataset | str | Path) -> xr.Dataset:
    from sdaxr.archive import open_archive

    return trajectories if isinstance(trajectories, xr.Dataset) else open_archive(trajectories)


def _splits(data: xr.Dataset, least: int = 1) -> tuple[xr.Dataset, xr.Dataset]:
    if "split" in data.coords:
        dim = data["split"].dims[0]
        parts = [data.isel({dim: np.flatnonzero(data["split"].values == part)}) for part in ("train", "valid")]
        if parts[0].sizes[dim] == 0:
            raise DataError(f"'split' has the values {sorted(set(data['split'].values))}, expected some 'train'")
        return parts[0], parts[1] if parts[1].sizes[dim] else parts[0]
    schema.time_axis(data)
    cut = max(1, min(round(0.9 * data.sizes[schema.TIME]), data.sizes[schema.TIME] - least))
    return data.isel(time=slice(None, cut)), data.isel(time=slice(cut, None))


def _check(settings: Settings, windowed: bool) -> None:
    if settings.parameterisation not in PARAMETERISATIONS:
        raise OptionError(f"parameterisation={nearest(settings.parameterisation, PARAMETERISATIONS)}")
    if settings.weighting not in WEIGHTINGS:
        raise OptionError(f"weighting={nearest(settings.weighting, WEIGHTINGS)}")
    if not 1 <= settings.shortest <= settings.window or (windowed and settings.shortest < settings.window):
        what = "the window itself for networks that have a fixed one" if windowed else "1 to the window"
        raise OptionError(f"shortest={settings.shortest}, expected {what} ({settings.window})")
    if settings.window < 1 or (windowed and settings.window % 2 == 0):
        raise OptionError(f"window={settings.window}, expected an odd number 2k + 1 for {settings.network!r}")
    for key in ("steps", "minutes", "batch", "learning_rate"):
        value = getattr(settings, key)
        if value is not None and value <= 0:
            raise OptionError(f"{key}={value}, expected a positive number")


def _writable(store: Path) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        probe = store.with_name(store.name + ".checkpoint.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArchiveError(f"'{store}' cannot be written: {error}; choose another store") from error


def _states(windows: Windows, elements: int = 2**25) -> Iterator[torch.Tensor]:
    """States of the training, batch by batch, some thousands of them or so many numbers."""
    batch = torch.as_tensor(windows.batch(0, 16)[0])
    batches = int(np.clip(elements // batch.numel(), 4, 64))
    yield from (torch.as_tensor(windows.batch(number, 16)[0]) for number in range(batches))


def _reference(windows: Windows, elements: int = 2**16) -> tuple[np.ndarray, np.ndarray]:
    size = int(np.prod(windows.batch(0, 1)[0].shape[1:]))
    states, context = windows.batch(0, int(np.clip(elements // size, 4, 256)))
    # Rounded as in the file, so that a prior that has just been trained is the one that is opened later.
    return states.astype(np.float16).astype(np.float32), context.astype(np.float16).astype(np.float32)
