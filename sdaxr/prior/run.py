"""The steps of a training run, its validation and its checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sdaxr import schema
from sdaxr.prior import checkpoint
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.settings import Settings
from sdaxr.prior.weighting import WEIGHTINGS
from sdaxr.prior.windows import Windows, cut
from sdaxr.states.fields import StateLayout

log = logging.getLogger(__name__)

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {postfix}"


class TrainingRun:
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
