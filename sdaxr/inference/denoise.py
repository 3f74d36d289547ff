r"""Clean fields from noisy ones.

A field with independent noise, :math:`y = x + N(0, s^2)`, is an observation of the identity, so its posterior can be
sampled like any other. Where s is the same share r of the standard deviation of every variable, there is more: in
normalised units y *is* a state of the diffusion at the noise level r,

.. math:: z_r = x + r \epsilon, \qquad p(x | y) = p(x | z_r = y),

so that the reverse diffusion that starts at r with :math:`z_r = y` samples the posterior exactly: no guidance, no
approximated likelihood. Going from level r to r' < r, each step is the ancestral one

.. math:: z' = \hat x + (r' / r)^2 (z - \hat x) + (r' / r) \sqrt{r^2 - r'^2}\, \epsilon, \qquad \hat x = E[x | z],

without Langevin corrections: they would move z within p(z) and forget y. A step is done twice with the same noise, the
second time with the mean of the estimates at both ends (Heun's method): :math:`\hat x` alone ignores that x given z
varies, and the ensemble would have too little spread by several over the number of levels.

The Langevin iteration is :math:`x \leftarrow x + \eta\, s(x) + \sqrt{2 \eta}\, \xi` from x = y, where s is the score of
the prior at one small noise level l, :math:`s(x) = (\hat x(x, l) - x) / l^2`. It knows y from where it starts and
nothing of the noise's size: the step size and the number of steps decide how far it goes towards the prior.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from sdaxr.archives.ensemble import member_attrs
from sdaxr.archives.seeds import unit_seed
from sdaxr.inference.lead_time import check_times
from sdaxr.posterior.covariance.variance import Measured
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.samplers.levels import karras_levels
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Denoiser, Noise, PredictorCorrector
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.posterior.states import channel_variance, observe_states
from sdaxr.prior.files import Prior, open_prior
from sdaxr.prior.hardware import choose_device
from sdaxr.schema import MEMBER, TIME, DataError, DivergenceError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.fields import StateLayout

ROUTES = ("posterior", "langevin")
# Numbers at once, where no batch is asked for: a few hundred megabytes in the network.
_ELEMENTS = 2**20


def denoise(
    noisy: xr.Dataset,
    prior: str | Path | Prior,
    *,
    error: float | Mapping[str, float],
    method: str = "posterior",
    members: int = 1,
    step_size: float | None = None,
    steps: int | None = None,
    level: float = 0.1,
    seed: int = 0,
    batch: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> xr.Dataset:
    """Remove independent Gaussian noise from fields.

    Parameters
    ----------
    noisy
        The prior's variables on (time, ...) at the prior's step, of any length (window networks: at least their
        window), with at most one ensemble dimension, whose entries are denoised independently.
    prior
        Name of a shipped prior, path of a prior file, or a `Prior`.
    error
        Standard deviation of the noise in the units of the data, one for all variables or one for each.
    method
        ``"posterior"``: samples of p(x | noisy); exact reverse diffusion where the noise is the same share of every
        variable's standard deviation; else guidance as in `sdaxr.assimilate`, whose ensemble
        is too wide. ``"langevin"``: the iteration with fixed steps that starts from the noisy fields.
    members
        Samples; more than one add the dimension ``member``. Their mean has the smallest mean square error.
    step_size
        For ``"langevin"``: eta, in normalised units (variances of the prior); default ``level**2 / 10``. It has to be
        well below ``level**2``.
    steps
        For ``"langevin"``: number of steps, default 100. For ``"posterior"``: number of noise levels, default the
        prior's.
    level
        For ``"langevin"``: noise level of the score, in standard deviations of the prior.
    seed
        Each sample's noise is drawn from (seed, entry, member).
    batch
        Samples at once.
    device
        ``"auto"`` takes a GPU where there is one.
    progress
        Show a progress bar.

    Returns
    -------
    Dataset on (member?, ensemble?, time, ...) with the coordinates of ``noisy``.

    Raises
    ------
    DataError, GridError, UnitsError
        If the fields are not those of the prior, or not finite (gaps are for `sdaxr.assimilate`).
    OptionError
        If a number or the method is impossible.
    DivergenceError
        If the samples do not stay finite.
    """
    prior = open_prior(prior)
    layout, target = prior.layout, choose_device(device)
    if method not in ROUTES:
        raise OptionError(f"method={nearest(method, ROUTES)}")
    _check(members, step_size, steps, level, method)
    if prior.augmentation.operators:
        raise OptionError(
            f"the prior {prior.name!r} knows {list(prior.augmentation.variables)} besides the states, expected one of "
            "the states alone; train it without augment="
        )
    ensemble = ensemble_dimension(noisy)
    if members > 1 and ensemble == MEMBER:
        raise OptionError(f"members={members}, expected 1 for fields that have a dimension 'member'; rename it")
    if TIME not in noisy.dims or TIME not in noisy.coords:
        raise DataError(
            f"found the dimensions {tuple(map(str, noisy.dims))}, expected 'time' with its coordinate; for a single "
            "field ds.expand_dims('time')"
        )
    noisy = layout.conform(noisy)
    check_times(noisy, layout.time.kind, layout.time.step, layout.time.units, f"the prior {prior.name!r}")
    y = torch.as_tensor(layout.to_array(noisy), device=target)
    y = y if ensemble is not None else y[None]
    ratio = _noise_ratio(layout, error)
    denoiser = prior.denoiser(noisy[TIME], target)
    route: Callable[[Denoiser, Tensor, Noise], Tensor]
    if method == "langevin":
        route = LangevinRoute(level, level**2 / 10 if step_size is None else step_size, 100 if steps is None else steps)
    elif np.ptp(ratio) <= 1e-3 * ratio.max():
        route = ReverseRoute(float(ratio.mean()), steps or resolve_sampler(prior).steps)
    else:
        sampler = resolve_sampler(prior, {} if steps is None else {"steps": steps})
        variance = channel_variance(prior.held_out(target))
        errors = torch.as_tensor(ratio, dtype=torch.float32, device=target)
        guidance = SDA(variance=Measured().resolve(prior, noisy[TIME], target))
        route = GuidedRoute(
            sampler.build(prior.network.levels), errors, lambda values, e: observe_states(values, e, variance),
            guidance,
        )  # fmt: skip
    samples = _sample(route, denoiser, y, members, seed, batch, progress)
    about = {"prior": prior.name, "prior_sha256": prior.sha256, "denoising": method, "seed": seed} | _options(route)
    return _labelled(samples, noisy, layout, ensemble, members).assign_attrs(noisy.attrs | about)


@dataclass(frozen=True)
class ReverseRoute:
    """Reverse diffusion from the noise level of the fields.

    Attributes
    ----------
    noise_level
        Standard deviation of the noise, in standard deviations of the prior.
    steps
        Number of noise levels.
    """

    noise_level: float
    steps: int

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser."""
        return 2 * self.steps - 1

    def __call__(self, denoiser: Denoiser, y: Tensor, noise: Noise) -> Tensor:
        """Sample p(x | y)."""
        # Dense at both ends: at the first levels most is decided, at the last ones the details are.
        levels = karras_levels(self.steps, self.noise_level, min(0.01, self.noise_level / 10), rho=3.0)
        z = y
        for r, after in itertools.pairwise(levels[:-1]):
            xhat, fresh, keep = denoiser(z, r), noise(), (after / r) ** 2
            moved = keep * z + after * (1 - keep) ** 0.5 * fresh
            ahead = denoiser(moved + (1 - keep) * xhat, after)
            z = moved + (1 - keep) * (xhat + ahead) / 2
        return denoiser(z, levels[-2])


@dataclass(frozen=True)
class GuidedRoute:
    """Guided sampling, for noise that is a different share of each variable.

    Attributes
    ----------
    sampler
        From the largest noise level of the prior down.
    errors
        Standard deviation of the noise, normalised, (channel, *space or ones).
    observe
        Values and errors to a likelihood.
    method
        How the noisy fields guide.
    """

    sampler: PredictorCorrector
    errors: Tensor
    observe: Callable[[Tensor, Tensor], Any]
    method: SDA

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser."""
        return self.sampler.evaluations

    def __call__(self, denoiser: Denoiser, y: Tensor, noise: Noise) -> Tensor:
        """Sample p(x | y)."""
        return self.sampler(self.method.guide(denoiser, [self.observe(y, self.errors)]), noise)


@dataclass(frozen=True)
class LangevinRoute:
    """Unadjusted Langevin steps from the noisy fields, with the score at one noise level.

    Attributes
    ----------
    level
        Noise level of the score.
    step_size, steps
        Size eta of the steps, and their number.
    """

    level: float
    step_size: float
    steps: int

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser."""
        return self.steps

    def __call__(self, denoiser: Denoiser, y: Tensor, noise: Noise) -> Tensor:
        """Iterate from y."""
        x = y
        for _ in range(self.steps):
            score = (denoiser(x, self.level) - x) / self.level**2
            x = x + self.step_size * score + (2 * self.step_size) ** 0.5 * noise()
        return x


def _options(route: Any) -> dict[str, Any]:
    """The numbers of a route, for provenance."""
    return {f"denoising_{k}": v for k, v in vars(route).items() if isinstance(v, int | float)}


@torch.no_grad()
def _sample(
    route: Any, denoiser: Denoiser, y: Tensor, members: int, seed: int, batch: int | None, progress: bool
) -> np.ndarray:
    """Samples of every entry, (members, entry, time, channel, *space)."""
    units = [(m, i) for m in range(members) for i in range(len(y))]
    size = batch or max(1, _ELEMENTS // y[0].numel())
    drawn = []
    with tqdm(total=len(units) * route.evaluations, disable=not progress, desc="denoising", unit="evaluation") as bar:
        for first in range(0, len(units), size):
            part = units[first : first + size]
            streams = [member_noise(unit_seed(seed, i), [m], y.shape[1:], y.device) for m, i in part]

            def counted(z: Tensor, r: float) -> Tensor:
                bar.update(len(z))
                return denoiser(z, r)

            x = route(counted, y[[i for _, i in part]], lambda streams=streams: torch.cat([s() for s in streams]))
            if not torch.isfinite(x).all():
                raise DivergenceError("the denoised fields are not finite; use a smaller step_size (or a larger level)")
            drawn.append(x.cpu())
    return torch.cat(drawn).numpy().reshape(members, *y.shape)


def _labelled(samples: np.ndarray, noisy: xr.Dataset, layout: StateLayout, ensemble: Any, members: int) -> xr.Dataset:
    head = ((MEMBER,) if members > 1 else ()) + ((str(ensemble),) if ensemble is not None else ())
    keep = (slice(None) if members > 1 else 0, slice(None) if ensemble is not None else 0)
    fields = layout.to_physical(samples[keep])
    coords = {k: c for k, c in noisy.coords.items() if set(c.dims) <= {ensemble, TIME, *layout.sizes}}
    variables = {v: ((*head, TIME, *layout.dims(v)), a, layout.attrs[v] | noisy[v].attrs) for v, a in fields.items()}
    result = xr.Dataset(variables, coords)
    if members > 1:
        labels = (MEMBER, np.arange(members), member_attrs("posterior sample"))
        result = result.assign_coords({MEMBER: labels})
    return result


def _noise_ratio(layout: StateLayout, error: float | Mapping[str, float]) -> np.ndarray:
    """Noise over the prior's standard deviation, shape (channel, *space or ones)."""
    given = error if isinstance(error, Mapping) else dict.fromkeys(layout.variables, error)
    for name in given:
        if name not in layout.variables:
            raise OptionError(f"error for the variable {nearest(str(name), layout.variables)}")
    missing = [v for v in layout.variables if v not in given]
    if missing:
        raise OptionError(f"error has no value for {missing}, expected one for each of {list(layout.variables)}")
    for name, value in given.items():
        if not 0 < value < np.inf:
            raise OptionError(f"error of '{name}' is {value}, expected a positive number in the units of the data")
    depth = [layout.sizes[layout.layer] if layout.layer and v in layout.layered else 1 for v in layout.variables]
    stds = np.repeat([float(given[v]) for v in layout.variables], depth)
    ratio: np.ndarray = stds.reshape(-1, *[1] * len(layout.space)) / layout.std
    return ratio


def _check(members: int, step_size: float | None, steps: int | None, level: float, method: str) -> None:
    if members < 1:
        raise OptionError(f"members={members}, expected at least 1")
    if steps is not None and steps < (0 if method == "langevin" else 2):
        raise OptionError(f"steps={steps}, expected 0 or more for langevin, 2 or more for posterior")
    if method == "posterior" and step_size is not None:
        raise OptionError("step_size is for method='langevin'; the posterior has none")
    for key, value in (("step_size", step_size), ("level", level)):
        if value is not None and value <= 0:
            raise OptionError(f"{key}={value}, expected a positive number")
