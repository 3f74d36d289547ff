"""Forecasts from the last states of an ensemble, by a physical model or by a prior alone.

The result has the dimensions (member, lead_time, ...). ``lead_time`` starts one step after the initial state; the
initial state is not repeated. The scalar ``init_time`` is the time of the initial state, and ``valid_time`` (lead_time)
is the time that is forecast. climpred recognises these coordinates by their CF standard names: forecast_period,
forecast_reference_time, time, and realization for the members. Lead times are timedeltas where times are dates or
timedeltas.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.archives.ensemble import COPIES, Ensemble
from sdaxr.archives.host import check_room, free_here, taken_here
from sdaxr.archives.paths import Location, located, with_storage
from sdaxr.archives.seeds import unit_seed
from sdaxr.archives.workers import active_client, free_on_workers, map_units, send
from sdaxr.inference.lead_time import check_times, labels, provenance, with_time
from sdaxr.inference.remaining import telling
from sdaxr.schema import (
    MEMBER,
    TIME,
    DataError,
    DivergenceError,
    GridError,
    OptionError,
    PriorError,
    check_least,
    nearest,
)
from sdaxr.states.coordinates import coordinate_of, onto_grid
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated
from sdaxr.states.time import TimeAxis, time_kind
from sdaxr.states.validation import options_checked
from sdaxr.systems.augmented import Augmented
from sdaxr.systems.base import System
from sdaxr.systems.registry import open_system, systems

if TYPE_CHECKING:
    from sdaxr.inference.continuation import PriorForecast
    from sdaxr.posterior.methods import Method
    from sdaxr.posterior.samplers.base import Sampler
    from sdaxr.prior.files import Prior

_log = logging.getLogger(__name__)

# Copies of a member while it is integrated: its states in double precision, and what becomes of them and is written.
_WORK = 4

_SECONDS = {
    "s": 1, "second": 1, "seconds": 1, "min": 60, "minutes": 60, "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
}  # fmt: skip


@options_checked
@isolated()
def forecast(
    ensemble: xr.Dataset,
    model: str | Location | System | Prior,
    *,
    steps: int,
    seed: int = 0,
    store: str | Location | None = None,
    context: int | None = None,
    block: int | None = None,
    error: float = 0.03,
    method: str | Method | Mapping[str, Any] | None = None,
    sampler: str | Sampler | Mapping[str, Any] | None = None,
    batch: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    r"""Forecast from the last state of each member.

    With a system, each member is integrated from its last state; on an active `distributed.Client`, members run in
    parallel. With a prior, blocks of b new states are sampled given the k states before the block,

    .. math:: x_{k+1}, \ldots, x_{k+b} \sim p(x_{k+1..k+b} | x_{1..k}),

    by guidance with identity observations of these k states (Rozet & Louppe 2023, arXiv:2306.10574).

    Parameters
    ----------
    ensemble
        States on (member?, time, ...), such as a posterior; one time is enough. Without a member dimension, the states
        are one member.
    model
        A system: its name, or a `System`. A variable of the ensemble that is a parameter of the system, such as
        ``forcing`` of `lorenz96`, is that of each member, unless it is given in ``options``. Or a prior: the path of
        its file, the name of a shipped prior, or a `Prior`. A name that is both, such as ``"kolmogorov"``, is the
        system; pass ``sdaxr.open_prior("kolmogorov")`` for the prior.
    steps
        Number of states to forecast. The first state is one step after the last time of ``ensemble``.
    seed
        Seed of the random numbers. Member m depends on ``seed`` and m only.
    store
        Path of an archive (``.zarr`` or ``.nc``) to which the members are written. A killed run resumes when it is
        run again.
    context, block
        For a prior: the largest number k of states that condition a block (default: half the window of the prior), and
        the number b of new states in a block (default: the rest of the window).
    error
        For a prior: standard deviation of the observations of the k states, in standard deviations of the prior.
    method, sampler
        For a prior: the method by which the k states guide (default: ``"sda"`` with its default options, because what
        the file of the prior records is for sparse observations), and the sampler, as in `sdaxr.assimilate`.
    batch
        For a prior: number of members that are sampled at once. Default: as many as fit in memory.
    device
        For a prior: device of the computation, such as ``"cpu"`` or ``"cuda"``; ``"auto"`` is a GPU where there is one.
    overwrite
        Replace an existing archive when the new archive is complete.
    storage_options
        Options of the file systems of URLs (fsspec), such as ``{"endpoint_url": "https://s3.example.org"}``.
    progress
        Show a progress bar.
    **options
        Options of the system, such as ``resolution=64, coarsen=1``. Default: the options in the attributes of
        ``ensemble`` where the ensemble was generated by the same system.

    Returns
    -------
    Dataset on (member, lead_time, ...) with ``init_time`` and ``valid_time``; provenance in the attributes.

    Raises
    ------
    DataError, GridError, UnitsError
        If variables, grid, units or step of the ensemble are not those of the model.
    OptionError, PriorError
        If there is no such model or option.
    ArchiveError, DivergenceError
        If the store cannot be written, or a forecast is not finite.
    """
    for key, value, least in (("steps", steps, 1), ("seed", seed, 0), ("batch", 1 if batch is None else batch, 1)):
        check_least(key, value, least)
    store, model = with_storage(store, storage_options), with_storage(model, storage_options)
    data = with_time(as_dataset(ensemble, "the ensemble"))
    found = _resolve(model, options, data)
    if isinstance(found, System):
        found = Augmented.known(found, data.drop_vars(options, errors="ignore"), (MEMBER, TIME))
        given = {"context": context, "block": block, "error": error, "method": method, "sampler": sampler}
        refuse_beside_a_system(forecast, given | {"batch": batch, "device": device}, "pass a prior as the model")
        run: _SystemForecast | PriorForecast = _SystemForecast.of(found, data, steps, seed, stored=store is not None)
    else:
        from sdaxr.inference.continuation import PriorForecast

        if options:
            raise OptionError(
                f"found the options {sorted(options)}, which a system may have, beside the prior {found.name!r}; leave "
                "them out; options of the sampler are sampler={'steps': 16}"
            )
        run = PriorForecast.of(
            found,
            data,
            steps,
            seed,
            context=context,
            block=block,
            error=error,
            batch=batch,
            device=device,
            method=method,
            sampler=sampler,
        )
    members = Ensemble.create(
        run.template, run.attrs, store=store, overwrite=overwrite, finite=run.finite, member="ensemble member"
    )
    for member, fields in run.members(sorted(members.waiting), progress):
        if isinstance(fields, Exception):
            members.fail(member, fields)
        else:
            members.write(member, fields)
    return members.dataset()


def refuse_beside_a_system(function: Callable[..., Any], given: Mapping[str, Any], otherwise: str) -> None:
    """Raise an error for a parameter that only a prior uses, and that differs from its default in ``function``.

    Parameters
    ----------
    function
        The function whose parameters are ``given``.
    given
        Values of the parameters that only a prior uses.
    otherwise
        What to do in order to use the parameter, for the message.

    Raises
    ------
    OptionError
        If a value is not the default.
    """
    parameters = inspect.signature(function).parameters
    for key, value in given.items():
        default = parameters[key].default
        if value is not default and (default is None or value != default):
            raise OptionError(f"found {key}= beside a system, which does not use it; leave {key}= out, or {otherwise}")


def open_model(model: str | Location | System | Prior, ensemble: xr.Dataset) -> System | Prior:
    """The system or the prior ``model``, as in `forecast`, after checks that it can forecast this ensemble.

    Nothing is integrated or sampled.

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, PriorError
        As `forecast`.
    """
    data = with_time(ensemble)
    found = _resolve(model, {}, data)
    if isinstance(found, System):
        found = Augmented.known(found, data, (MEMBER, TIME))
        _system_time(found, data)
        _check_grid(found, data)
    else:
        from sdaxr.inference.continuation import last_states

        last_states(found, data, 1)
    return found


@dataclass(frozen=True)
class _SystemForecast:
    """Members that a system integrates, each from its own state."""

    system: System
    states: dict[str, np.ndarray]
    steps: int
    seed: int
    template: xr.Dataset
    attrs: dict[str, Any]
    stored: bool
    finite: bool = True

    @classmethod
    def of(cls, system: System, data: xr.Dataset, steps: int, seed: int, *, stored: bool) -> _SystemForecast:
        """The forecast of an ensemble, after checks that the ensemble fits the system, and a member into memory."""
        time = _system_time(system, data)
        initial = _check_grid(system, data.isel({TIME: [-1]})).isel({TIME: 0}, drop=True)
        states, dims = {}, (MEMBER,)
        for name, variable in system.template().data_vars.items():
            states[str(name)] = initial[name].transpose(*dims, *variable.dims).values.astype(variable.dtype)
            if not np.isfinite(states[str(name)]).all():
                raise DataError(f"'{name}' has values that are not finite at the last time, expected a complete state")
        template = labels(system.template(), data, time, steps, constants=system.constants)
        about = {"model": system.name, "model_options": json.dumps(system.options(), sort_keys=True)}
        attrs = provenance(about, f"integration of {system.name}", states, seed)
        client, run = active_client(), cls(system, states, steps, seed, template, attrs, stored)
        free = free_here() if client is None else free_on_workers(client)
        remedy = "take fewer steps at once: a second forecast goes on from the last state of the first"
        check_room(_WORK * run._each, free, "the forecast of one member takes", remedy)
        return run

    @property
    def _each(self) -> float:
        """Bytes of a member."""
        return self.template.nbytes / self.template.sizes[MEMBER]

    def members(self, waiting: list[int], progress: bool) -> Iterator[tuple[int, Any]]:
        """The pending members, each with its fields {variable: (steps, *space)}, or with the error of its forecast."""
        client = active_client()
        # The states are sent once; as a plain argument, the states of all members would be sent with each member.
        states = self.states if client is None else send(client, self.states)
        self._tell(waiting, here=client is None)
        tick = telling(lambda _: None, len(waiting), what="forecast", unit="members")
        for member, fields in map_units(
            advance_member, waiting, self.system, states, self.steps, self.seed,
            progress=progress, description=f"forecast {self.system.name}",
        ):  # fmt: skip
            tick(1)
            yield member, fields

    def _tell(self, waiting: list[int], *, here: bool) -> None:
        """Log how much memory this process takes at most."""
        if here and waiting and self.steps > 1:
            # What is imported and compiled once is not counted.
            with contextlib.suppress(ArithmeticError):
                advance_member(waiting[0], self.system, self.states, 1, self.seed)
        each, count, work = self._each, 0 if self.stored else len(waiting), _WORK if here else 1
        more = max(COPIES * count, (count - 1) * (count > 0) + work) * each
        _log.info("about %.3g GB at most; %.3g GB are free", (taken_here() + more) / 1e9, free_here() / 1e9)


def advance_member(
    member: int, system: System, states: Mapping[str, np.ndarray], steps: int, seed: int
) -> dict[str, np.ndarray]:
    """The next states of one member, {variable: (steps, *space)}."""
    fields = system.advance({name: a[member] for name, a in states.items()}, steps, unit_seed(seed, member))
    for name, values in fields.items():
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values).reshape(steps, -1).all(1)))
            raise DivergenceError(
                f"'{name}' of member {member} is not finite from step {first + 1} on; use a finer resolution or a "
                "smaller step of the system, and check the initial states"
            )
    return {name: values[0] if name in system.constants else values for name, values in fields.items()}


def _resolve(model: Any, options: Mapping[str, Any], data: xr.Dataset) -> System | Prior:
    if isinstance(model, System):
        return open_system(model, **options)
    if isinstance(model, str) and model in systems():
        recorded: dict[str, Any] = {}
        if data.attrs.get("sdaxr_system") == model:
            recorded = json.loads(data.attrs.get("sdaxr_options", "{}"))
        return open_system(model, **(recorded | dict(options)))
    from sdaxr.prior.catalogue import priors
    from sdaxr.prior.opening import open_prior

    if isinstance(model, str) and not located(model).exists() and model not in priors() and not Path(model).suffix:
        raise OptionError(f"model={nearest(model, {*systems(), *priors()})} (or the path of a prior)")
    try:
        return open_prior(model)
    except PriorError as error:
        raise PriorError(
            f"model={str(model)!r} is neither a system ({', '.join(systems())}) nor a prior: {error}"
        ) from error


def _system_time(system: System, data: xr.Dataset) -> TimeAxis:
    """Time axis of the system in units of the ensemble's time: model time for float times, seconds for others."""
    kind = time_kind(data[TIME])
    units = str(system.time_attrs.get("units", "1"))
    if kind != "float" and units not in _SECONDS:
        raise DataError(
            f"'time' of the ensemble is {kind}, the time of {system.name} is model time in units of {units!r}; set a "
            "time in these units: ds.assign_coords(time=...)"
        )
    step = system.step if kind == "float" else system.step * _SECONDS[units]
    time = TimeAxis(kind, step, units if kind == "float" else "s")
    check_times(data, time, system.name)
    return time


def _check_grid(system: System, data: xr.Dataset) -> xr.Dataset:
    template = system.template()
    given = ", ".join(f"{k}={v}" for k, v in system.options().items() if isinstance(v, int))
    remedy = (
        f"pass the options that generated the data to forecast (found {given or 'the defaults'}), or regrid the data"
    )
    for name, variable in template.data_vars.items():
        if name not in data.data_vars:
            raise DataError(f"variable {nearest(str(name), map(str, data.data_vars))}; {system.name} needs it")
        units = data[name].attrs.get("units")
        schema.check_units(str(name), units, variable.attrs.get("units"), "the ensemble")
        found = {d: data.sizes[d] for d in data[name].dims if d not in (MEMBER, TIME)}
        if found != dict(variable.sizes):
            raise GridError(f"'{name}' has the grid {found}, {system.name} has {dict(variable.sizes)}; {remedy}")
    grid = {d: coordinate_of(template[d]) for d in template.indexes}
    data = onto_grid(data, grid, of="the ensemble", like=system.name, remedy=remedy)
    return data[list(template.data_vars)]
