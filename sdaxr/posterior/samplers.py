r"""Predictor-corrector sampling.

With :math:`z = x_t / \mu` and :math:`r = \sigma / \mu`, going from level r to r' < r,

- the predictor of Rozet & Louppe (2023, equation 5: the exponential integrator) is
  :math:`z' = \hat x + (r' / r) (z - \hat x)`. With ``eta`` > 0, a part of the noise is drawn anew, as in DDIM (Song et
  al. 2021): :math:`z' = \hat x + \sqrt{r'^2 - s^2} / r\,(z - \hat x) + s \epsilon` with
  :math:`s = \eta (r' / r) \sqrt{r^2 - r'^2}`;
- each correction is a Langevin step :math:`z \leftarrow z + d\,\nabla \log p(z) + \sqrt{2 d}\,\epsilon` with
  :math:`d = \tau \dim(z) / |\nabla \log p(z)|^2`. As this step depends on z, the covariance is inflated by
  about 2 / dim(z), which matters for very short state vectors only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.schema import DivergenceError, OptionError, nearest

Denoiser = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]


@dataclass(frozen=True)
class Sampler:
    """A sequence of noise levels and what is done on each.

    Attributes
    ----------
    levels
        Noise levels r, decreasing; a last level of zero returns the denoised state.
    eta
        Share of the noise that the predictor draws anew: 0 is deterministic, 1 ancestral.
    corrections
        Langevin corrections a level.
    tau
        Their step.
    """

    levels: tuple[float, ...]
    eta: float
    corrections: int
    tau: float

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a sample."""
        return len(self.levels) - 1 + self.corrections * sum(r > 0 for r in self.levels[1:])

    def __call__(self, denoiser: Denoiser, noise: Noise, tick: Callable[[], object] = lambda: None) -> Tensor:
        """Draw samples.

        Parameters
        ----------
        denoiser
            (z, r) to E[x | z], or to E[x | z, y] for a posterior. If it has a method ``pin`` (z, r, noise), the states
            are passed through it after every step.
        noise
            Returns standard normal noise of the shape of the samples at every call.
        tick
            Called after every evaluation.

        Raises
        ------
        DivergenceError
            If a value is not finite, or the samples run away from the scale of the noise.
        """
        z = self.levels[0] * noise()
        for r, after in zip(self.levels, self.levels[1:], strict=False):
            z = self._predict(z, denoiser(z, r), r, after, noise)
            z = self._pin(denoiser, z, after, noise)
            self._check(z, after)
            tick()
            for _ in range(self.corrections if after > 0 else 0):
                z = self._correct(z, denoiser(z, after), after, noise)
                z = self._pin(denoiser, z, after, noise)
                self._check(z, after)
                tick()
        return z

    def _pin(self, denoiser: Denoiser, z: Tensor, r: float, noise: Noise) -> Tensor:
        pin = getattr(denoiser, "pin", None)
        return z if pin is None else pin(z, r, noise)

    def _predict(self, z: Tensor, xhat: Tensor, r: float, after: float, noise: Noise) -> Tensor:
        fresh = self.eta * after / r * math.sqrt(r**2 - after**2)
        moved = xhat + math.sqrt(after**2 - fresh**2) / r * (z - xhat)
        return moved + fresh * noise() if fresh else moved

    def _correct(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        score = (xhat - z) / r**2
        power = score.square().flatten(1).mean(dim=1).clamp_min(1e-20)
        step = (self.tau / power).reshape(-1, *[1] * (z.ndim - 1))
        return z + step * score + (2 * step).sqrt() * noise()

    def _check(self, z: Tensor, r: float) -> None:
        largest = float(z.abs().amax())
        if not largest < 1e3 * (1 + r):
            raise DivergenceError(
                f"the sampler diverged at noise level r = {r:.3g} (largest normalised value {largest:.3g}): "
                "observations are denser or more exact than their independent errors allow, or the prior is not "
                "trained enough; pass a larger gamma=, more steps= or corrections=, or thin the observations"
            )


def karras_levels(steps: int, largest: float, smallest: float, rho: float = 7.0) -> tuple[float, ...]:
    """``steps`` levels from ``largest`` to ``smallest``, dense at the end, then zero (Karras et al. 2022, eq. 5)."""
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    ramp = [i / max(1, steps - 1) for i in range(steps)]
    return (*((ends[0] + a * (ends[1] - ends[0])) ** rho for a in ramp), 0.0)


def uniform_levels(steps: int) -> tuple[float, ...]:
    """r on uniform times of mu = cos^2(arccos(sqrt(1e-3)) t), sigma^2 = 1 - mu^2 + 1e-6 (Rozet & Louppe 2023, 4)."""
    omega = math.acos(math.sqrt(1e-3))
    mu = [math.cos(omega * (1 - i / steps)) ** 2 for i in range(steps + 1)]
    return tuple(math.sqrt(1 - m**2 + 1e-6) / m for m in mu)


SAMPLERS = ("karras", "exponential")


def build_sampler(name: str, steps: int, corrections: int, tau: float, largest: float, smallest: float) -> Sampler:
    """The sampler ``name``: ``"karras"`` (ours) or ``"exponential"`` (the paper's).

    Raises
    ------
    OptionError
        If the name is unknown or a number impossible.
    """
    for key, value, least in (("steps", steps, 1), ("corrections", corrections, 0), ("tau", tau, 0)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    if name == "karras":
        return Sampler(karras_levels(steps, largest, smallest), 1.0, corrections, tau)
    if name == "exponential":
        return Sampler(uniform_levels(steps), 0.0, corrections, tau)
    raise OptionError(f"sampler={nearest(name, SAMPLERS)}")


def member_noise(seed: int, members: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Noise:
    """Standard normal noise of shape (members, *shape), each member's from a stream of its own.

    The streams run on the CPU in a fixed order, so that a member is the same in any batch and on any device.
    """
    import numpy as np

    seeds = [int(np.random.SeedSequence((seed, m)).generate_state(1, np.uint64)[0] >> 1) for m in members]
    streams = [torch.Generator().manual_seed(s) for s in seeds]
    return lambda: torch.stack([torch.randn(*shape, generator=g) for g in streams]).to(device)
