r"""Removal of noise from fields.

A field with independent noise, :math:`y = x + N(0, e^2)`, is an observation through the identity. Let e be the same
multiple r of the standard deviation of every variable. In normalised units y is then a state of the diffusion at the
noise level r,

.. math:: z_r = x + r \epsilon, \qquad p(x | y) = p(x | z_r = y),

and the reverse diffusion from r with :math:`z_r = y` samples the posterior exactly, without guidance and without an
approximate likelihood (Kawar et al. 2021, arXiv:2101.09552). A step from the noise level r to r' < r is ancestral (Song
et al. 2021, arXiv:2010.02502),

.. math:: z' = \hat x + (r' / r)^2 (z - \hat x) + (r' / r) \sqrt{r^2 - r'^2}\, \epsilon, \qquad \hat x = E[x | z] .

There are no Langevin corrections, because they leave p(z) unchanged and would lose y. Each step is repeated with the
same noise and the mean of the estimates :math:`\hat x` at both ends (Heun's method, as in Karras et al. 2022,
arXiv:2206.00364). With :math:`\hat x` at the first end only, the spread of the ensemble would be too small, by a
fraction of several over the number of levels, because the uncertainty of x given z would be ignored.

Noise that is a different multiple of the standard deviation of each variable has no such noise level. Nor has that of a
parameter (`sdaxr.states.parameters`), which is the same in its whole channel. Guidance then samples p(x | y), as in
`sdaxr.assimilate`.

The Langevin iteration (Song & Ermon 2019, arXiv:1907.05600) starts at x = y, with the score s of the prior at one small
noise level l,

.. math:: x \leftarrow x + \eta\, s(x) + \sqrt{2 \eta}\, \xi, \qquad s(x) = (\hat x(x, l) - x) / l^2 .

The iteration does not use the size e of the noise. The step size and the number of steps determine how far x moves from
y towards the prior.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from sdaxr.archives.ensemble import COPIES, member_attrs
from sdaxr.archives.host import check_room, free_here
from sdaxr.archives.paths import Location
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.archives.seeds import unit_seed
from sdaxr.inference.lead_time import check_times
from sdaxr.posterior.covariance.variance import Measured
from sdaxr.posterior.execution import batch_size
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.samplers.base import refuse_together
from sdaxr.posterior.samplers.levels import karras_levels
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Algorithm, Denoiser, Noise
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.posterior.states import channel_variance, observe_states
from sdaxr.prior.files import Prior
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.opening import open_prior
from sdaxr.schema import MEMBER, TIME, DataError, DivergenceError, OptionError, check_least, check_positive, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.fields import StateLayout
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated
from sdaxr.states.names import named_time
from sdaxr.states.parameters import warn_of_residuals
from sdaxr.states.validation import options_checked

ROUTES = ("posterior", "langevin")
# Copies of a sample while it is drawn, beside what an evaluation of the denoiser takes.
_HELD = 8


@options_checked
@isolated()
def denoise(
    noisy: xr.Dataset,
    prior: str | Location | Prior,
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
    storage_options: Mapping[str, Any] | None = None,
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
        ``"posterior"``: samples of p(x | noisy), by exact reverse diffusion where the noise is the same multiple of the
        standard deviation of every variable; otherwise by guidance as in `sdaxr.assimilate`, with an ensemble that is
        somewhat too narrow. ``"langevin"``: Langevin steps of fixed size from the noisy fields.
    members
        Number of samples; more than one add the dimension ``member``. The mean of posterior samples has the smallest
        mean square error.
    step_size
        For ``"langevin"``: the step size eta, in variances of the prior; default a tenth of the variance of the noise,
        in the same unit. The step size has to be well below that variance.
    steps
        For ``"langevin"``: number of steps, default 100. For ``"posterior"``: number of noise levels; default: as the
        file of the prior records.
    level
        For ``"langevin"``: noise level l of the score, in standard deviations of the prior.
    seed
        Seed of the random numbers. A sample depends on ``seed``, the entry of the ensemble dimension and the member
        only.
    batch
        Number of samples that are drawn at once. Default: as many as fit in memory.
    device
        Device of the computation, such as ``"cpu"`` or ``"cuda"``; ``"auto"`` is a GPU where there is one.
    storage_options
        Options of the file system of the prior's URL (fsspec).
    progress
        Show a progress bar.

    Returns
    -------
    Dataset on (member?, ensemble?, time, ...) with the coordinates of ``noisy``.

    Raises
    ------
    DataError, GridError, UnitsError
        If variables, grid, units or step are not those of the prior, or values are not finite (`sdaxr.assimilate` fills
        gaps).
    OptionError
        If a number or the method is impossible, or the samples do not fit in memory.
    DivergenceError
        If a sample is not finite.
    """
    noisy = as_dataset(noisy, "the noisy fields")
    prior = open_prior(prior, storage_options=storage_options)
    layout, target = prior.layout, choose_device(device)
    if method not in ROUTES:
        raise OptionError(f"method={nearest(method, ROUTES)}")
    for key, value, least in (("members", members, 1), ("seed", seed, 0), ("batch", 1 if batch is None else batch, 1)):
        check_least(key, value, least)
    _check(step_size, steps, level, method)
    if prior.augmentation.operators:
        raise OptionError(
            f"the prior {prior.name!r} contains {list(prior.augmentation.variables)} in addition to the states, "
            "expected a prior of the states alone; train the prior without augment="
        )
    ensemble = ensemble_dimension(noisy)
    if members > 1 and ensemble == MEMBER:
        raise OptionError(f"members={members}, expected 1 for fields that have a dimension 'member'; rename it")
    noisy = named_time(noisy)
    if TIME not in noisy.dims or TIME not in noisy.coords:
        raise DataError(
            f"found the dimensions {tuple(map(str, noisy.dims))}, expected 'time' with its coordinate; for a single "
            "field, use ds.expand_dims('time')"
        )
    noisy = layout.conform(noisy)
    check_times(noisy, layout.time, f"the prior {prior.name!r}")
    y = torch.as_tensor(layout.to_array(noisy), device=target)
    y = y if ensemble is not None else y[None]
    ratio = _noise_ratio(layout, error, noisy[TIME])
    denoiser = prior.denoiser(noisy[TIME], target)
    route: Callable[[Denoiser, Tensor, Noise], Tensor]
    if method == "langevin":
        route = LangevinRoute(level, level**2 / 10 if step_size is None else step_size, 100 if steps is None else steps)
    elif np.ptp(ratio) <= 1e-3 * ratio.max() and not layout.parameters:
        route = ReverseRoute(float(ratio.mean()), steps or resolve_sampler(prior).steps)
    else:
        sampler = resolve_sampler(prior, {} if steps is None else {"steps": steps})
        refuse_together(sampler, "noisy fields, each with values of its own")
        still = layout.parameter_channels.values()
        variance = channel_variance(prior.held_out(target), parameters=still)
        errors = torch.as_tensor(ratio, dtype=torch.float32, device=target)
        guidance = SDA(variance=Measured().resolve(prior, noisy[TIME], target))
        route = GuidedRoute(
            sampler.build(**prior.noise_levels(noisy.sizes[TIME])), errors,
            lambda values, e: observe_states(values, e, variance, parameters=still), guidance,
        )  # fmt: skip
    check_room(
        COPIES * members * y.nbytes, free_here(), "the denoised fields, in memory, take",
        "take fewer members, or fewer times or entries at once",
    )  # fmt: skip
    samples = _sample(route, denoiser, y, members, seed, batch, progress)
    about = provenance_attrs(
        f"fields denoised with the prior {prior.name!r}", f"denoising, {method}", prior=prior.name,
        prior_sha256=prior.sha256, denoising=method, seed=seed, **_options(route),
    )  # fmt: skip
    return _labelled(samples, noisy, layout, ensemble, members).assign_attrs(noisy.attrs | about)


@dataclass(frozen=True)
class ReverseRoute:
    """Reverse diffusion from the noise level of the fields, by Heun's method.

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
        """Number of evaluations of the denoiser for one sample."""
        return 2 * self.steps - 1

    def __call__(self, denoiser: Denoiser, y: Tensor, noise: Noise) -> Tensor:
        """Sample p(x | y)."""
        # rho = 3 lies between steps that are uniform in r (rho = 1) and in log r (rho = infinity): steps of log r are
        # short at the start, where most of the sample is determined, and steps of r at the end, for the details.
        levels = karras_levels(self.steps, self.noise_level, min(0.01, self.noise_level / 10), rho=3.0)
        z = y
        for r, after in itertools.pairwise(levels[:-1]):
            xhat, fresh, kept = denoiser(z, r), noise(), (after / r) ** 2
            moved = kept * z + after * (1 - kept) ** 0.5 * fresh
            ahead = denoiser(moved + (1 - kept) * xhat, after)
            z = moved + (1 - kept) * (xhat + ahead) / 2
        return denoiser(z, levels[-2])


@dataclass(frozen=True)
class GuidedRoute:
    """Guided sampling, for noise that is a different multiple of the standard deviation of each variable.

    Attributes
    ----------
    sampler
        Sampler from the largest noise level of the prior.
    errors
        Standard deviation of the noise in normalised units, ([time], channel, *space or ones).
    observe
        Function of values and errors: the likelihood.
    method
        The method by which the noisy fields guide.
    """

    sampler: Algorithm
    errors: Tensor
    observe: Callable[[Tensor, Tensor], Any]
    method: SDA

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser for one sample."""
        return self.sampler.evaluations

    def guided(self, denoiser: Denoiser, y: Tensor) -> Denoiser:
        """E[x | z, y]."""
        return self.method.guide(denoiser, [self.observe(y, self.errors)])

    def __call__(self, denoiser: Denoiser, y: Tensor, noise: Noise) -> Tensor:
        """Sample p(x | y)."""
        return self.sampler(self.guided(denoiser, y), noise)


@dataclass(frozen=True)
class LangevinRoute:
    """Unadjusted Langevin steps from the noisy fields, with the score at one noise level.

    Attributes
    ----------
    level
        Noise level l of the score.
    step_size, steps
        Step size eta, and number of steps.
    """

    level: float
    step_size: float
    steps: int

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser for one sample."""
        return self.steps

    def __call__(self, denoiser: Denoiser, y: Tensor, noise: Noise) -> Tensor:
        """Iterate from y."""
        x = y
        for _ in range(self.steps):
            score = (denoiser(x, self.level) - x) / self.level**2
            x = x + self.step_size * score + (2 * self.step_size) ** 0.5 * noise()
        return x


def _options(route: Any) -> dict[str, Any]:
    """Options of a route that are numbers, for provenance."""
    return {f"denoising_{k}": v for k, v in vars(route).items() if isinstance(v, int | float)}


@torch.no_grad()
def _sample(
    route: Any, denoiser: Denoiser, y: Tensor, members: int, seed: int, batch: int | None, progress: bool
) -> np.ndarray:
    """Samples of every entry of the ensemble dimension, (members, entry, time, channel, *space)."""
    units = [(m, i) for m in range(members) for i in range(len(y))]
    one = route.guided(denoiser, y[:1]) if isinstance(route, GuidedRoute) else denoiser
    size = batch_size(one, y.shape[1:], len(units), y.device, asked=batch, held=_HELD * y[0].nbytes)
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
                raise DivergenceError("the denoised fields are not finite; use a smaller step_size")
            drawn.append(x.cpu())
    return torch.cat(drawn).numpy().reshape(members, *y.shape)


def _labelled(samples: np.ndarray, noisy: xr.Dataset, layout: StateLayout, ensemble: Any, members: int) -> xr.Dataset:
    head = ((MEMBER,) if members > 1 else ()) + ((str(ensemble),) if ensemble is not None else ())
    keep = (slice(None) if members > 1 else 0, slice(None) if ensemble is not None else 0)
    warn_of_residuals(layout, samples)
    fields = layout.to_physical(samples[keep], noisy[TIME])
    coords = {k: c for k, c in noisy.coords.items() if set(c.dims) <= {ensemble, TIME, *layout.sizes}}
    dims = {v: (*head, *layout.template(noisy[TIME][:1])[v].dims) for v in fields}
    variables = {v: (dims[v], a, layout.attrs[v] | noisy[v].attrs) for v, a in fields.items()}
    result = xr.Dataset(variables, coords)
    if members > 1:
        labels = (MEMBER, np.arange(members), member_attrs("posterior sample"))
        result = result.assign_coords({MEMBER: labels})
    return result


def _noise_ratio(layout: StateLayout, error: float | Mapping[str, float], times: xr.DataArray) -> np.ndarray:
    """Standard deviation of the noise over that of the prior at ``times``, shape ([time], channel, *space or ones)."""
    given = error if isinstance(error, Mapping) else dict.fromkeys(layout.variables, error)
    for name in given:
        if name not in layout.variables:
            raise OptionError(f"error for the variable {nearest(str(name), layout.variables)}")
    missing = [v for v in layout.variables if v not in given]
    if missing:
        raise OptionError(f"error has no value for {missing}, expected one for each of {list(layout.variables)}")
    for name, value in given.items():
        check_positive(f"error of '{name}'", value, " in the units of the data")
    depth = [layout.sizes[layout.layer] if layout.layer and v in layout.layered else 1 for v in layout.variables]
    stds = np.repeat([float(given[v]) for v in layout.variables], depth)
    ratio: np.ndarray = stds.reshape(-1, *[1] * len(layout.space)) / layout.moments(times)[1]
    return ratio


def _check(step_size: float | None, steps: int | None, level: float, method: str) -> None:
    if steps is not None and steps < (0 if method == "langevin" else 2):
        raise OptionError(f"steps={steps}, expected 0 or more for langevin, 2 or more for posterior")
    if method == "posterior" and step_size is not None:
        raise OptionError("step_size is for method='langevin', found method='posterior'; leave step_size out")
    for key, value in (("step_size", step_size), ("level", level)):
        if value is not None and value <= 0:
            raise OptionError(f"{key}={value}, expected a positive number")
