r"""Cycled assimilation: one window after another, each with a background from the analysis of the window before.

The ensemble of the last analysed state is forecast by one step, with a physical model or with the prior. This forecast
is the background of the first state of the next window: it tells what the past says beyond the prior
(`sdaxr.posterior.background`). Its deviations from the mean may be inflated,

.. math:: x^b_i = \bar f + \alpha (f(x_i) - \bar f)

(Anderson & Anderson 1999, doi:10.1175/1520-0493(1999)127<2741:AMCIOT>2.0.CO;2).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.paths import Location, with_storage, with_storage_inside
from sdaxr.archives.seeds import unit_seed
from sdaxr.archives.workers import active_client
from sdaxr.inference.adaptive import ADAPTIVE, AdaptiveFactor
from sdaxr.inference.assimilate import assimilate, score_method
from sdaxr.inference.continuation import last_states
from sdaxr.inference.forecast import forecast, open_model, refuse_beside_a_system
from sdaxr.inference.place import Place, shared
from sdaxr.inference.system_cycle import cycle_system
from sdaxr.inference.windows import joined, named, settings_of, within
from sdaxr.observations.matching import observed_variables
from sdaxr.observations.provenance import describe_networks
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import (
    BACKGROUND,
    Observations,
    as_networks,
    background_ensemble,
    background_network,
    window_times,
)
from sdaxr.posterior.methods import describe_method
from sdaxr.posterior.samplers.registry import describe_sampler, resolve_sampler
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.schema import (
    MEMBER,
    TIME,
    DataError,
    OptionError,
    SdaxrError,
    check_least,
    check_positive,
    nearest,
)
from sdaxr.states.validation import options_checked
from sdaxr.systems.base import System

_log = logging.getLogger(__name__)

# Parameters of `assimilate` that `cycle` passes on, with their defaults.
_PASSED_ON = {
    key: inspect.signature(assimilate).parameters[key].default
    for key in ("method", "sampler", "operator", "outside", "units", "screening", "batch", "device", "precision")
}


@options_checked
@shared
def cycle(
    observations: Observations,
    prior: str | Location | Prior | None = None,
    *,
    system: str | System | None = None,
    window: int | None = None,
    lag: int = 0,
    carry: str | Location | System | Prior | None = None,
    members: int = 16,
    seed: int = 0,
    store: str | Location | None = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    inflation: float | str = 1.0,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Assimilate a long series of observations, one window after another.

    Between two windows the ensemble is forecast by one step. With a prior, the forecast is the background of the first
    state of the next window. With a system, its members are the first states of the next window
    (`sdaxr.inference.system_cycle`).

    Parameters
    ----------
    observations, prior, members, times
        As in `sdaxr.assimilate`. A window without observations is sampled given its background only.
    system
        In the place of the prior: a system, as in `sdaxr.assimilate`, for the ensemble methods. Default of ``method``
        is then ``"etkf"``.
    window
        Number of states in a window. Default: the window of the prior's training; 64 with a system. The states that
        remain at the end are a window of their own; they belong to the last full window where the network of the prior
        needs more states. With a window of one state a prior is a filter.
    lag
        For a prior: number of states after a window whose observations its estimate knows, too: a fixed-lag smoother
        (Moore 1973, doi:10.1016/0005-1098(73)90077-1). Each window is then sampled twice: with these observations for
        the result, and without them for the ensemble that is carried on, which meets them in the next window. 0: each
        state knows the observations up to the end of its window.
    carry
        For a prior: the model that forecasts the ensemble from the last state of a window to the first state of the
        next: a system or a prior, as in `sdaxr.forecast`. It is checked before the first window. Default: the prior. A
        prior forecasts on ``device``, ``batch`` members at once, by the default method of `sdaxr.forecast` and the
        sampler that its own file records, because it is given complete states; ``method`` and ``sampler`` are those of
        the analysis.
    seed
        Seed of the samples. Each window has a seed of its own, which follows from ``seed``.
    store
        Path or URL of the result, ``.zarr`` or ``.nc``. The windows are archives in ``<store>.windows`` until all are
        complete. A killed run resumes when it is run again.
    background
        An estimate of the first state of the first window: one state with its error, or an ensemble.
    inflation
        For a prior: factor on the deviations of the forecast from its mean (Anderson & Anderson 1999,
        doi:10.1175/1520-0493(1999)127<2741:AMCIOT>2.0.CO;2). A factor above 1 corrects for the small spread of small
        ensembles, and for a model that is not that of the truth. ``"adaptive"``: the factor follows from what the
        observations have said of the ensembles before (`sdaxr.inference.adaptive`); the attribute
        ``cycle_inflation_factors`` says what it was between the windows.
    overwrite
        Replace an existing archive when the new archive is complete. Windows that a killed run with the same settings
        has left are kept.
    storage_options
        Options of the file systems of URLs (fsspec), such as ``{"endpoint_url": "https://s3.example.org"}``.
    progress
        Show a progress bar for each window.
    **options
        Further parameters of `sdaxr.assimilate`: ``method``, ``sampler``, ``operator``, ``outside``, ``units``,
        ``screening``,
        ``batch``, ``device`` and ``precision``.

    Returns
    -------
    The analyses as one Dataset on (member, time, ...). Members of consecutive windows are joined by their numbers. A
    member is a trajectory within a window; from one window to the next it is continuous only within the error of the
    background. A parameter has a time, too: it is that of the window, estimated with all observations until its end.
    Members that a system carries are continuous, but for what the analyses change. ``windows_mixed`` is the number of
    windows whose members disagreed about the mode and were drawn again (`sdaxr.assimilate`), and
    ``evaluations_per_member`` the mean over the windows.

    Raises
    ------
    OptionError
        If a number is impossible, there is no such system or option, or a network of observations has no time.
    DataError, GridError, UnitsError, PriorError
        If the first window has neither observations nor a background, or ``carry`` does not fit the prior; otherwise as
        in `sdaxr.assimilate` and `sdaxr.forecast`.
    ArchiveError
        If ``store`` holds something else, such as a cycle with other settings or observations.
    """
    store, prior, carry = (with_storage(given, storage_options) for given in (store, prior, carry))
    options |= {"method": with_storage_inside(options.get("method"), storage_options)}
    if system is not None:
        given = {"prior": prior, "carry": carry, "inflation": inflation, "lag": lag}
        refuse_beside_a_system(cycle, given, "leave system= out for a cycle with a prior")
        options = _complete(options)
        of_a_prior = {key: options.pop(key) for key in ("sampler", "batch", "device", "precision")}
        refuse_beside_a_system(assimilate, of_a_prior, "leave system= out for a cycle with a prior")
        return cycle_system(
            observations, system, window=window, members=members, seed=seed, store=store, times=times,
            background=background, overwrite=overwrite, progress=progress, **options,
        )  # fmt: skip
    if prior is None:
        raise OptionError("found neither prior nor system=, expected one of them, such as system='lorenz96'")
    opened = open_prior(prior)
    window = opened.window if window is None else window
    needed = opened.network.window or 1
    options = _complete(options)
    numbers = {
        "window": (window, needed),
        "lag": (lag, 0),
        "members": (members, 2),
        "seed": (seed, 0),
        "batch": (options["batch"], 1),
    }
    for key, (value, least) in numbers.items():
        if key != "batch" or value is not None:
            check_least(key, value, least)
    adaptive = inflation == ADAPTIVE
    if isinstance(inflation, str) and not adaptive:
        raise OptionError(f"found inflation={inflation!r}, expected a positive number or {ADAPTIVE!r}")
    if not adaptive:
        check_positive("inflation", inflation)
    guidance, sampler = score_method(opened, options["method"]), resolve_sampler(opened, options["sampler"])
    how = Screening.asked(options["screening"], options["outside"])
    options |= {"method": guidance, "sampler": sampler, "screening": how, "outside": how.outside}
    networks = as_networks(observations, opened.layout)
    axis = window_times(networks, opened.layout, times, screening=how)
    model = opened if carry is None else _carrier(carry, opened, axis.values[0])
    of_carrier = {} if isinstance(model, System) else {key: options[key] for key in ("batch", "device")}
    about = settings_of(
        networks, axis, options["operator"], background, window=window, lag=lag, members=members, carry=_named(model),
        inflation=inflation if adaptive else float(inflation),
    )  # fmt: skip
    about |= opened.provenance | {"seed": seed, "screening": how.to_json()}
    about |= {key: options[key] for key in ("precision", "outside", "units")}
    about |= describe_method(guidance) | describe_sampler(sampler)
    place = Place.open(store, about, overwrite)
    if isinstance(place, xr.Dataset):
        return place
    starts = list(range(0, axis.size, window))
    if len(starts) > 1 and axis.size - starts[-1] < needed:
        starts.pop()
    parts = list(pairwise([*starts, axis.size]))
    # An opened prior keeps what is measured on its held-out states, for all windows. Workers open the prior themselves.
    source = opened if active_client() is None else prior
    parameters = opened.layout.parameters
    series = _Series(networks, axis, how, source, parameters, members, place, progress, options)
    factor, factors, carried, analyses = AdaptiveFactor(), [], None, []
    for number, (first, end) in enumerate(parts):
        _log.info("window %d of %d", number + 1, len(parts))
        with place.in_use():
            own = series.analyse((first, end), background, f"{number:05d}", unit_seed(seed, number))
            if adaptive and carried is not None:
                firsts = (last_states(opened, each.isel({TIME: [0]}), 1) for each in (carried, own))
                factor = factor.after(*(np.nan_to_num(first.reshape(members, -1)) for first in firsts))
            later, found = min(end + lag, axis.size), own
            if later > end:
                # The ensemble that is carried on has not seen what follows, which the next window sees.
                found = series.analyse((first, later), background, f"{number:05d}-smoothed", unit_seed(seed, number))
            # The observations of a window are counted once.
            analyses.append(timed(found.isel({TIME: slice(0, end - first)}), parameters).assign_attrs(own.attrs))
            if end < axis.size:
                last = own.isel({TIME: slice(0, end - first)})
                ahead = forecast(last, model, steps=1, seed=unit_seed(seed, number), progress=False, **of_carrier)
                carried = inflated(ahead, axis[end : end + 1], 1.0)
                factors.append(factor.value**0.5 if adaptive else float(inflation))
                background = inflated(ahead, axis[end : end + 1], factors[-1])
    attrs = describe_networks(networks, options["operator"]) | about
    attrs |= {"cycle_inflation_factors": factors} if adaptive else {}
    return joined(analyses, list(networks), attrs, place)


@dataclass(frozen=True)
class _Series:
    """What the assimilations of all windows have in common."""

    networks: Mapping[str, xr.Dataset]
    axis: xr.DataArray
    screening: Screening
    prior: str | Location | Prior
    parameters: tuple[str, ...]
    members: int
    place: Place
    progress: bool
    options: Mapping[str, Any]

    def analyse(self, part: tuple[int, int], background: xr.Dataset | None, name: str, seed: int) -> xr.Dataset:
        """The ensemble of the states ``part[0]`` to ``part[1] - 1`` at least, given their observations."""
        seen: dict[str, xr.Dataset] = {}
        last, options = part[1], dict(self.options)
        for network, data in self.networks.items():
            timeless = set(observed_variables(data)) <= set(self.parameters)
            chosen, reach = within(network, data, self.axis, part, self.screening, timeless=timeless)
            seen |= {} if chosen is None else {network: chosen}
            last = max(last, reach)
        times = self.axis.isel({TIME: slice(part[0], last)})
        if not seen:
            if background is None:
                raise DataError(
                    "found no observation in the first window, expected at least one, or background=; pass times= to "
                    "begin at the first observation"
                )
            if background_ensemble(background, times, self.parameters) is None:
                seen, background = {BACKGROUND: background_network(background, times, self.parameters)}, None
                # The background is observed through the identity, and not through the operator of the observations.
                options["operator"] = None
        return assimilate(
            seen, self.prior, times=times, members=self.members, seed=seed, background=background,
            store=self.place.part(name), progress=self.progress, **options,
        )  # fmt: skip


def _complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are passed on to `assimilate`, with its defaults for those that are not given."""
    own = [name for name, p in inspect.signature(cycle).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in options:
        if key not in _PASSED_ON:
            raise OptionError(f"unknown option of cycle: {nearest(key, [*own, *_PASSED_ON])}")
    return _PASSED_ON | dict(options)


def _carrier(carry: str | Location | System | Prior, prior: Prior, start: Any) -> System | Prior:
    """The model that forecasts the ensemble, checked on the labels of two states of the prior before any sampling."""
    layout = prior.layout
    try:
        return open_model(carry, layout.template(layout.times(start, 2))[prior.states])
    except SdaxrError as error:
        raise type(error)(f"carry= cannot forecast states of the prior {prior.name!r}: {error}") from error


def _named(model: System | Prior) -> str:
    if isinstance(model, System):
        return named(model)
    return f"{model.name} {model.sha256}"


def inflated(ahead: xr.Dataset, time: xr.DataArray, inflation: float) -> xr.Dataset:
    """The ensemble of a forecast by one step, at ``time`` (1,), with inflated deviations from its mean."""
    first = ahead.isel(lead_time=0, drop=True).drop_vars(["init_time", "valid_time"], errors="ignore")
    with xr.set_options(keep_attrs=True):
        mean = first.mean(MEMBER)
        return (mean + inflation * (first - mean)).expand_dims({TIME: time})


def timed(analysis: xr.Dataset, parameters: Collection[str]) -> xr.Dataset:
    """The ensemble of a window, on (member, time, ...), with the same value of a parameter at all times."""
    times = analysis.sizes[TIME]
    series = {v: analysis[v].expand_dims({TIME: times}).transpose(MEMBER, TIME) for v in parameters}
    return analysis.assign(series)
