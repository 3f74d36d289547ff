"""Posterior ensembles of trajectories, from observations and a prior, or a physical model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from sdaxr.archives.members import Part
from sdaxr.archives.paths import Location, with_storage, with_storage_inside
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.archives.workers import active_client
from sdaxr.filters.smoothing import smooth
from sdaxr.inference.drawing import draw
from sdaxr.inference.forecast import refuse_beside_a_system
from sdaxr.inference.problem import Problem
from sdaxr.observations.conversion import in_units, places_in_units
from sdaxr.observations.provenance import count_observations, describe_networks, fingerprint
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import (
    BACKGROUND,
    Observations,
    Operators,
    as_networks,
    background_ensemble,
    background_network,
    operator_of,
    window_times,
)
from sdaxr.operators import identity
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.methods import Method, build_method, describe_method, names, resolve_method
from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.registry import describe_sampler, resolve_sampler
from sdaxr.prior.catalogue import priors
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.schema import OptionError, check_least
from sdaxr.states.isolation import isolated
from sdaxr.states.validation import options_checked
from sdaxr.systems.base import System


@options_checked
@isolated()
def assimilate(
    observations: Observations,
    prior: str | Location | Prior | None = None,
    *,
    method: str | Method | Mapping[str, Any] | None = None,
    sampler: str | Sampler | Mapping[str, Any] | None = None,
    members: int | str = 16,
    seed: int = 0,
    store: str | Location | None = None,
    operator: Operators = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    system: str | System | None = None,
    outside: str = "error",
    units: str = "error",
    screening: Screening | Mapping[str, Any] | None = None,
    batch: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Sample whole trajectories x from the posterior given observations y.

    .. math:: x \sim p(x | y) \propto p(y | x)\, p(x)

    The prior p(x) is a diffusion model (Rozet & Louppe 2023, arXiv:2306.10574) or, with ``system``, a physical model.

    Batches of members run in this process. Where there is an active `distributed.Client`, they run on its workers
    instead; give each worker one thread, or one GPU (``dask worker --nthreads 1 --resources "GPU=1"``). Each worker
    opens the prior from its name or path, and writes its members into the archive.

    Parameters
    ----------
    observations
        Observations as `sdaxr.observe` returns them; several networks as a mapping or DataTree. Where errors are not
        Gaussian, the attribute ``distribution`` of ``<variable>_error`` names their family
        (`sdaxr.observations.noise`). All methods use the density of this family, with these exceptions: `DMPS` and
        `DPS` do not use it; `Kalman`, `FourDVar` and ensemble Kalman methods refuse such observations.
    prior
        Name of a shipped prior, path or URL of a prior file, or a `Prior`; for the methods that need a prior.
    method
        The method, which says how observations guide the samples: a name or an object of `sdaxr.methods`, such as
        ``"mmps"`` or ``MMPS(iterations=2)``; or a mapping of its options, ``{"variance": 0.01}``, with or without
        ``"name"``. Default: the method that the file of the prior records, else ``"sda"``; with ``system``, ``"ffbs"``.
        A mapping without a name holds options of the default. An option that is not given has the value that the file
        of the prior records for this method.
    sampler
        For a prior: the sampler, a name or an object of `sdaxr.samplers`, or a mapping of options, such as
        ``{"steps": 64}``. Default: the sampler that the file of the prior records. Where its members disagree about the
        mode, all members are drawn again by ``"twisted"`` (`sdaxr.posterior.modes`), which together takes at most three
        times the evaluations; ``{"mixing": False}`` does without.
    members
        Number of posterior samples; or, as a text, some of them, which are drawn without the others: ``"16:32/64"`` is
        16 to 31 of 64. Several processes, such as jobs, then fill one archive: each returns its own members, and the
        one that finds all of them complete finishes the archive. Members that are drawn together cannot be divided.
    seed
        Seed of the random numbers. The noise of a member depends on ``seed`` and its own number only. The member itself
        depends on the number of members, the size of the batches and the number of threads by rounding. Members that
        are drawn together depend on the number of members, too: those of `sdaxr.methods` that need a system, of the
        sampler ``"twisted"``, and of posteriors with several modes.
    store
        Path or URL of an archive (``.zarr`` or ``.nc``) to which the members are written. A killed run resumes when it
        is run again.
    operator
        Observation operator, or one for each network. It replaces the operator in the attributes of the observations.
    times
        Times of the trajectory, at the step of the prior. Default: the window in the coordinates of the observations,
        else the steps of the prior from the first to the last observed time. Measurements between two steps are
        observed by linear interpolation, or at the nearest step (``screening``).
    background
        An earlier estimate of the state at the first time: state variables and ``<variable>_error``, one standard
        deviation, which is a further network of observations (`sdaxr.observations.window.background_network`); or an
        ensemble of forecasts, all state variables with ``member``, which tells what the past says beyond the prior
        (`sdaxr.posterior.background`). For ensemble methods with a system, the members are the first ensemble.
    system
        Name of a system, or a `sdaxr.systems.System`; for the methods that need a system. Some of them need one with
        Gaussian noise (`sdaxr.systems.MarkovChain`).
    outside
        ``"error"``, or ``"drop"`` to leave out, and count, observations that are outside the window or the grid, off
        the steps, or on land.
    units
        ``"error"``, or ``"convert"`` to convert observations and their errors to the units of what the operator gives,
        and coordinates to those of the states; the attribute ``units_converted`` of the result says which.
    screening
        Further options that say which observations are used (`sdaxr.observations.screening.Screening`): an object, or a
        mapping such as ``{"good": (1, 2), "duplicates": "drop", "gross_error": 5}``. `sdaxr.observations.report` gives
        the status of each observation.
    batch
        For a prior: number of members that are sampled at once. Default: as many as fit in memory, divided among the
        workers. The sampler ``"twisted"`` draws all members in one process, and evaluates as many at once.
    device
        For a prior: device of the computation, such as ``"cpu"`` or ``"cuda"``; ``"auto"`` is a GPU where there is one.
    precision
        For a prior: precision of the layers of the network: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which is
        bfloat16 for fields on a GPU or on a processor with instructions for bfloat16.
    overwrite
        Replace an existing archive.
    storage_options
        Options of the file systems of URLs (fsspec), such as ``{"endpoint_url": "https://s3.example.org"}``.
    progress
        Show a progress bar.

    Returns
    -------
    Dataset with the variables of the prior on (member, time, ...), its parameters on (member), in the units of the
    prior; provenance in the attributes. ``observations_used`` is the number of values of each network that are used,
    and ``observations_dropped`` that of values that are not: sum of ``observations_outside``,
    ``observations_off_step``, ``observations_land``, ``observations_flagged``, ``observations_duplicate`` and
    ``observations_failed_background_check``. ``variance_factors`` are the factors by which the observations change the
    variances of a prior with EOFs: of the mean of the window, of 1, 2-3, 4-7, ... half cycles in time, and what they
    add to that of the constant level of each channel (`sdaxr.posterior.covariance.adaptation`). ``mode_test`` says how
    far the first members agree about the mode, and ``mixing_sampler`` by which sampler all members were drawn again;
    ``mixing_failed`` says that this left a single particle, so that the members are those of ``sampler`` after all.
    ``effective_members`` is, with the sampler ``"twisted"``, the number of independent draws to which the shares of
    modes correspond, at most (`sdaxr.posterior.samplers.twisted`). ``prior_symmetries`` are those of the prior, among
    whose images members are moved (`sdaxr.posterior.orbits`).

    Raises
    ------
    DataError, GridError, UnitsError, OptionError, OperatorError, PriorError, ArchiveError
        If observations and prior do not fit together; the message names the variable or option.
    DivergenceError
        If a sample is not finite, or far larger than the states of the prior.
    ClusterError
        If the scheduler of Dask is lost, or workers die again and again. The same call resumes.
    """
    store, prior = with_storage(store, storage_options), with_storage(prior, storage_options)
    method = with_storage_inside(method, storage_options)
    part = Part.read(members)
    if system is not None:
        given = {"prior": prior, "sampler": sampler, "batch": batch, "device": device, "precision": precision}
        refuse_beside_a_system(
            assimilate, given, f"leave system= out for a method that needs a prior ({', '.join(names('prior'))})"
        )
        together = f"the members of a method with a system ({build_method(method, 'ffbs').name}) are drawn together"
        return smooth(
            observations, system, method=method, members=_all_of(part, together), seed=seed, store=store,
            operator=operator, times=times, background=background, outside=outside, units=units, screening=screening,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if prior is None:
        raise OptionError(_nothing_to_draw_from(method))
    opened = open_prior(prior)
    guidance = score_method(opened, method)
    drawing = resolve_sampler(opened, sampler)
    if drawing.together:
        _all_of(part, f"the members of the sampler '{drawing.name}' are drawn together")
    for key, value, least in (("seed", seed, 0), ("batch", 1 if batch is None else batch, 1)):
        check_least(key, value, least)
    how = Screening.asked(screening, outside)
    alone = background is not None and isinstance(observations, Mapping) and not observations
    networks = {} if alone else as_networks(observations, opened.layout)
    networks, moved = places_in_units(networks, opened.layout.coordinate_attrs, units)
    axis = window_times(networks, opened.layout, times, screening=how)
    operators = {name: operator_of(name, data, operator, how) for name, data in networks.items()}
    networks, converted = in_units(networks, operators, opened.layout.template(axis), units, moved)
    parameters = opened.layout.parameters
    ensemble = None if background is None else background_ensemble(background, axis, parameters)
    if background is not None and BACKGROUND in networks:
        raise OptionError(f"found a network named '{BACKGROUND}' and background=; rename the network")
    if background is not None and ensemble is None:
        # The background comes first: the corrector of SOAD gives the last network in the list precedence.
        networks = {BACKGROUND: background_network(background, axis, parameters)} | networks
        operators = {BACKGROUND: identity()} | operators
    # Workers open the prior themselves, each once; the weights are not sent with the observations.
    source = opened if active_client() is None else prior
    problem = Problem(networks, operators, source, axis, guidance, drawing, precision, how, device, ensemble)
    attrs = _provenance(opened, guidance, seed) | describe_networks(networks, None if operator is None else operators)
    attrs |= count_observations([found.points.status for found in problem.evidence])
    if ensemble is not None:
        attrs |= {"background_sha256": fingerprint([ensemble]), "background_directions": _directions(problem)}
    attrs |= describe_sampler(drawing) | converted | {"precision": precision, "screening": how.to_json()}
    # The guided denoiser is built before the archive: observations that the method cannot use leave no archive behind.
    attrs |= {"evaluations_per_member": problem.cost}
    return draw(problem, attrs, part=part, seed=seed, store=store, batch=batch, overwrite=overwrite, progress=progress)


def score_method(prior: Prior, method: str | Method | Mapping[str, Any] | None) -> ScoreMethod:
    """The method as an object (`resolve_method`), which has to be one that needs a prior.

    Raises
    ------
    OptionError
        If the method needs a system; if its name or an option is unknown or impossible.
    """
    found = resolve_method(prior, method)
    if not isinstance(found, ScoreMethod):
        raise OptionError(
            f"found prior= and method={found.name!r}, which needs a physical model; pass system=, such as 'lorenz63', "
            f"instead of the prior, or choose one of {', '.join(names('prior'))}"
        )
    return found


def _all_of(part: Part, together: str) -> int:
    """The number of members, of which none may be left out."""
    if not part.whole:
        raise OptionError(f"found members={str(part)!r}, but {together}; draw all of them, members={part.of}")
    return part.of


def _nothing_to_draw_from(method: str | Method | Mapping[str, Any] | None) -> str:
    chosen = build_method(method, "sda")
    if chosen.needs == "system":
        return f"method={chosen.name!r} needs a physical model, found none; pass system=, such as 'lorenz63'"
    return f"method={chosen.name!r} needs a prior, found none; pass one of {priors()}, or a file of sdaxr.train"


def _directions(problem: Problem) -> int:
    """Number of directions of the first state of which the background ensemble knows more than the prior."""
    return 0 if problem.background is None else len(problem.background.values)


def _provenance(prior: Prior, method: ScoreMethod, seed: int) -> dict[str, Any]:
    return provenance_attrs(
        f"posterior ensemble, {method.name} with the prior {prior.name!r}",
        "score-based data assimilation",
        **prior.provenance,
        **describe_method(method),
        seed=seed,
    )
