"""The steps of a training run, its validation and its checkpoints."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sdaxr.archives.paths import Location
from sdaxr.archives.seeds import unit_seed
from sdaxr.prior import checkpoint
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.settings import Settings
from sdaxr.prior.share import LEVELS, measured_share
from sdaxr.prior.weighting import WEIGHTINGS
from sdaxr.prior.windows import Windows, cut
from sdaxr.schema import DivergenceError
from sdaxr.states.fields import StateLayout
from sdaxr.states.geometry import areas

_log = logging.getLogger(__name__)

# States, noise levels, noise, context.
_Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {postfix}"
# Adam's second moment is an average over some 1000 steps; its first tenth is too noisy for the full learning rate.
_WARM_UP = 100
# Largest norm of a gradient; a typical one is below, so that only outliers are shortened.
_LARGEST_GRADIENT = 1.0
# The training loss that is shown is a running mean over some 50 steps.
_FORGOTTEN = 0.02
_HISTORY = 50
# Batches of a validation; they are the same each time, so that losses compare.
_VALIDATED = 4
# Validations without a lower loss after which the training ends, where the weights with the lowest loss count.
_PATIENCE = 20
# Seconds after which a run without a progress bar says first, and then again, how far it is.
_FIRST_WORD, _PAUSE = 5.0, 60.0
# Steps after which it is said how long a run takes; the first ones are slower.
_TIMED = 3
# Of the minutes, for all but the file.
_MOST = 0.98
# Of the time that the end of a run takes by the longest validation: on a machine that others use it varies.
_SPARE = 1.2
# Steps after which the loss is read on a GPU, where a read waits until the device has caught up.
_READ = 20


class TrainingRun:
    """The state of one training run.

    Parameters
    ----------
    settings
        What the run does.
    about
        Settings, operators and fingerprint of the data, as the prior's file holds them. Together with the layout they
        tell whether a checkpoint is one of this run.
    layout
        How states are laid out.
    model
        The network that is trained. ``averaged`` has the moving average of its weights.
    windows, held_out
        Windows of the training and of the validation.
    device
        Where the network is.
    began
        When the training began (`time.monotonic`): what is measured before the first step takes of the minutes, too.
        None for the present.
    """

    def __init__(
        self,
        settings: Settings,
        about: Mapping[str, Any],
        layout: StateLayout,
        model: DenoisingNetwork,
        windows: Windows,
        held_out: Windows,
        device: torch.device,
        began: float | None = None,
    ) -> None:
        self.began = time.monotonic() if began is None else began
        # A run may be prolonged, so its length is no part of its identity.
        self.identity = {k: v for k, v in about.items() if k not in ("steps", "minutes")}
        self.identity |= {"layout": layout.to_file()[1]}
        self.settings, self.model, self.averaged = settings, model, copy.deepcopy(model)
        self.windows, self.held_out, self.device = windows, held_out, device
        options = settings.optimisation
        self.optimiser = torch.optim.AdamW(
            model.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=device.type == "cuda"
        )
        loss: Callable[..., torch.Tensor] = model.loss
        self.loss = torch.compile(loss, dynamic=False) if options.compile else loss
        self.weighting = WEIGHTINGS[options.weighting](options.levels, device)
        # Areas of the points, 0 on land; None where all points count alike.
        self.valid = _weights(layout, device)
        self.gappy, self.channels = layout.gappy, layout.channels
        self.step, self.seconds = 0, 0.0
        # Seconds of a step, and of the longest validation.
        self.pace, self.validation = 0.0, 0.0
        # The running mean of the training loss; NaN before the first step.
        self.running = torch.tensor(math.nan, device=device)
        self.history: list[dict[str, float]] = []
        # Averaged weights with the lowest validation loss: what a network learns beyond the Gaussian process of few
        # data soon holds for these data only.
        self.best: dict[str, torch.Tensor] = {}
        # Validation loss of the Gaussian process, where the network has modes.
        self.floor: float | None = None

    def go(self, path: Location, progress: bool) -> None:
        """Train from the checkpoint at ``path``, where there is one, to the end.

        Raises
        ------
        DivergenceError
            If the loss is not finite.
        ArchiveError
            If the checkpoint is that of another run, or cannot be read or written.
        """
        if checkpoint.load(path, self):
            _log.info("resumed from %s at step %d", path, self.step)
        start = self.began - self.seconds
        if self.averaged.modes is not None and not self.step:
            self.averaged.share = (0.0,) * LEVELS
            self.floor, self.averaged.share = self._validate(), None
            self.validation = 0.0  # It is no measure of validations with the network.
            _log.info("validation loss of the Gaussian process alone %.4f", self.floor)
        self.seconds = time.monotonic() - start
        bar = tqdm(total=1.0, initial=self.done, disable=not progress, desc="training", bar_format=_BAR)
        entered = saved = spoken = time.monotonic()
        before, first, last, pause = self.done, self.step, self.step, _FIRST_WORD
        begun = before
        every = 1 if self.device.type == "cpu" else _READ
        while self.done < 1 or (self.step == 0 and self.settings.steps != 0):
            loss = self.update()
            self.running = torch.where(self.running.isnan(), loss, torch.lerp(self.running, loss, _FORGOTTEN))
            now = time.monotonic()
            self.step, self.seconds = self.step + 1, now - start
            self.pace = (now - entered) / (self.step - first)
            if self.settings.minutes and not self.validation:
                self._validate()  # for the time that it takes
            validating = self.step % self.settings.optimisation.validate_every == 0 or self.done >= 1
            due = now - saved > 60 * self.settings.optimisation.checkpoint_minutes
            # Before a checkpoint, too: one of weights that are not finite could not go on.
            if validating or due or self.step % every == 0:
                self._show(bar, float(loss))
            if validating:
                self.history.append({"step": self.step, "train": float(self.running), "valid": self._validate()})
                _log.info("step %d: training loss %.4f, validation loss %.4f", *self.history[-1].values())
                if self.early and self.history[-1] is self._lowest():
                    self.best = {k: v.detach().clone() for k, v in self.averaged.state_dict().items()}
            if self.step == first + max(_TIMED, every):
                _log.info("a step takes %.2g s: about %.0f s to go", self.pace, self._to_go(now - entered, begun))
            if not progress and now - spoken > pause:
                rate, left = (self.step - last) / (now - spoken), self._to_go(now - spoken, before)
                _log.info("step %d: loss %.4f, %.3g steps/s, about %.0f s left", self.step, self.running, rate, left)
                spoken, before, last, pause = now, self.done, self.step, _PAUSE
            if validating or due:
                checkpoint.save(path, self)
                saved = time.monotonic()
        bar.close()
        if not self.history:
            self.history.append({"step": self.step, "valid": self._validate() if self.floor is None else self.floor})
        if self.best:
            self.averaged.load_state_dict(self.best)
        if self.averaged.modes is not None:
            self.averaged.share = self._share()
        self.seconds = time.monotonic() - start

    def update(self) -> torch.Tensor:
        """One step; returns the mean of the losses of its windows, a scalar on the device."""
        options = self.settings.optimisation
        generator = _generator(self.settings.seed, self.step)
        states, r, noise, context = self._batch(generator)
        for group in self.optimiser.param_groups:
            decay = (1 + math.cos(math.pi * self.done)) / 2
            group["lr"] = options.learning_rate * min(1.0, (self.step + 1) / _WARM_UP) * decay
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            errors = self.loss(states, r, noise, context, self._valid(context))
        self.optimiser.zero_grad(set_to_none=True)
        (errors * self.weighting(r, errors.detach())).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        self.optimiser.step()
        self._average()
        return errors.detach().mean()

    @property
    def early(self) -> bool:
        """Whether the weights with the lowest validation loss count, and not the last ones."""
        return self.settings.parameterisation == "eof"

    @property
    def done(self) -> float:
        """Fraction of the length of the training that is done; 1 where validation does not improve any more."""
        patience = _PATIENCE * self.settings.optimisation.validate_every
        if self.early and self.history and self.step - self._lowest()["step"] >= patience:
            return 1.0
        steps, minutes = self.settings.steps, self.settings.minutes
        parts = [self.step / steps if steps else 1.0] if steps is not None else []
        if minutes:
            # The minutes are those until the prior is finished: the last validation has to fit in, too.
            parts.append(self.seconds / max(_MOST * 60 * minutes - self._closing(), 1e-9))
        return min(1.0, max(parts))

    def summary(self) -> dict[str, Any]:
        """What the prior's file says about the training."""
        last = self._lowest() if self.early else self.history[-1]
        return {
            "steps": self.step,
            "minutes": round(self.seconds / 60, 2),
            "device": str(self.device),
            **({"training_loss": last["train"]} if "train" in last else {}),
            "validation_loss": last["valid"],
            **({} if self.floor is None else {"gaussian_loss": self.floor}),
            "history": self.history[:: max(1, len(self.history) // _HISTORY)],
        }

    def _batch(self, generator: torch.Generator) -> _Batch:
        """States, noise levels, noise and context of the present step; whole windows, or pieces of them."""
        options, window = self.settings.optimisation, self.settings.window
        x, context = self.windows.batch(self.step, self.settings.batch)
        halvings = int(math.log2(window / (options.shortest or window)))
        if halvings:
            x, context = cut(x, context, 2 ** int(torch.randint(halvings + 1, (), generator=generator)))
        return self._noisy(x, context, generator)

    def _noisy(self, x: torch.Tensor, context: torch.Tensor, generator: torch.Generator) -> _Batch:
        low, high = map(math.log, self.settings.optimisation.levels)
        # Stratified over the batch: the loss varies less than with independent levels.
        place = (torch.randperm(len(x), generator=generator) + torch.rand(len(x), generator=generator)) / len(x)
        r = torch.exp(low + (high - low) * place)
        if x.device.type != "cpu":  # Numbers by the million are drawn where they are needed.
            generator = torch.Generator(x.device).manual_seed(generator.initial_seed())
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        if self.gappy and not self.windows.filled:
            seen = context[:, :, -x.shape[2] :]
            # Neither value nor noise: what is not known is not seen either.
            return x.nan_to_num(0.0), r.to(x.device), noise * seen, context
        return x, r.to(x.device), noise if self.valid is None else noise * (self.valid > 0), context

    def _valid(self, context: torch.Tensor) -> torch.Tensor | None:
        """What the error of each value counts for, 0 where there is no value; None where all count alike."""
        if not self.gappy:
            return self.valid
        seen = context[:, :, -self.channels :]
        return seen if self.valid is None else seen * self.valid

    def _show(self, bar: tqdm[Any], loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss is {loss} at step {self.step}; lower the learning rate")
        bar.n = min(1.0, self.done)
        bar.set_postfix_str(f"step {self.step}, loss {float(self.running):.4f}", refresh=False)
        bar.update(0)

    @torch.no_grad()
    def _average(self) -> None:
        # The decay is small at first: the initial weights are soon forgotten.
        decay = min(self.settings.optimisation.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)

    def _to_go(self, seconds: float, before: float) -> float:
        """Seconds to the end of a run that has come from ``before`` to where it is in so many ``seconds``."""
        return (1 - self.done) / max(self.done - before, 1e-9) * seconds + self._closing()

    def _closing(self) -> float:
        """Seconds from the last step to the end: one more step, the last validation and the share of the network."""
        return self.pace + _SPARE * self.validation * (1 + (0 if self.averaged.modes is None else LEVELS))

    @torch.no_grad()
    def _validate(self) -> float:
        start, losses = time.monotonic(), []
        for number in range(_VALIDATED):
            drawn = self.held_out.batch(number, self.settings.batch)
            batch = self._noisy(*drawn, _generator(self.settings.seed + 1, number))
            losses.append(self.averaged.loss(*batch, self._valid(batch[-1])).mean())
        found = float(torch.stack(losses).mean())
        self.validation = max(self.validation, time.monotonic() - start)
        return found

    def _lowest(self) -> dict[str, float]:
        """The validation with the lowest loss; the first one of several."""
        return min(self.history, key=lambda entry: entry["valid"])

    def _share(self) -> tuple[float, ...]:
        """How much of the network's output counts (`sdaxr.prior.share`)."""
        if not self.step and "start" not in self.identity:
            return (0.0,) * LEVELS
        windows = []
        for number in range(_VALIDATED):
            x, context = self.held_out.batch(number, self.settings.batch)
            counts = self._valid(context)
            noisy = counts if self.gappy and not self.windows.filled else self.valid
            windows.append((x.nan_to_num(0.0), context, counts, None if noisy is None else (noisy > 0).float()))
        return measured_share(self.averaged.eval(), windows, self.held_out.states / self.settings.window)


def _weights(layout: StateLayout, device: torch.device) -> torch.Tensor | None:
    """Areas of the grid points, 0 on land, (channel, *space); None where all points count alike."""
    cells = areas(layout)
    if cells is None and layout.mask is None:
        return None
    present = np.ones((layout.channels, *layout.shape)) if layout.mask is None else layout.mask
    return torch.as_tensor(present * (1.0 if cells is None else cells), dtype=torch.float32, device=device)


def _generator(seed: int, number: int) -> torch.Generator:
    # Each step has a stream of its own, so that a resumed run sees the same noise.
    return torch.Generator().manual_seed(unit_seed(seed, number) & 0xFFFFFFFF)
