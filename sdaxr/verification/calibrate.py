"""Simulation-based calibration of an assimilation: ranks of truths among the members of their posteriors.

A truth is drawn, observed and assimilated, and this is repeated. Where truths are draws of the prior, and members are
draws of the posterior, the truth has every rank among the members with the same probability, for every quantity (Talts
et al. 2018, arXiv:1804.06788). Truths from elsewhere, such as simulations that the prior has not seen, test prior and
posterior together.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from sdaxr.archives.configuration import CONFIG, config_attrs
from sdaxr.archives.creation import create_archive
from sdaxr.archives.finished import remove
from sdaxr.archives.format import STATUS
from sdaxr.archives.paths import Location, store_path, with_storage, with_storage_inside
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import is_there, save
from sdaxr.archives.workers import active_client
from sdaxr.inference.assimilate import score_method
from sdaxr.inference.forecast import refuse_beside_a_system
from sdaxr.inference.place import Place, check_same, recorded_in, shared
from sdaxr.observations.provenance import fingerprint
from sdaxr.operators import Operator
from sdaxr.posterior.methods import Method, build_method, describe_method
from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.registry import describe_sampler, resolve_sampler
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.schema import OptionError, check_least, nearest
from sdaxr.states.fields import StateLayout
from sdaxr.states.validation import options_checked
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.registry import open_system
from sdaxr.verification.quantities import KINDS, OF_ONE_TIME, Quantities
from sdaxr.verification.trials import TRUTH, Trials
from sdaxr.verification.truths import Drawn, truths_of
from sdaxr.verification.verdict import evaluated

PASSED_ON = {
    "observe": ("every", "start", "noise", "correlation", "missing", "where"),
    "assimilate": ("outside", "units", "screening", "batch", "device", "precision"),
}
"""Parameters of these functions that `calibrate` passes on."""


@options_checked
def calibrate(
    truth: xr.Dataset | str | System,
    operator: Operator,
    prior: str | Location | Prior | None = None,
    *,
    error: float | Mapping[str, float | xr.DataArray] | xr.DataArray,
    system: str | System | None = None,
    method: str | Method | Mapping[str, Any] | None = None,
    sampler: str | Sampler | Mapping[str, Any] | None = None,
    truths: int = 64,
    steps: int | None = None,
    members: int = 19,
    quantities: Sequence[str] | None = None,
    points: int | Mapping[str, Sequence[int]] = 3,
    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    seed: int = 0,
    store: str | Location | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    r"""Test by simulation whether ensembles have the spread that they should have.

    For each truth x:

    .. math:: x \sim p(x), \qquad y \sim p(y | x), \qquad x_1 \dots x_M \sim p(x | y), \qquad
              R_q = \#\{i : q(x_i) < q(x)\}

    The rank R of a quantity q is uniform on 0 to M where the members are draws of the posterior of the same prior
    (Talts et al. 2018, arXiv:1804.06788). Only truths are independent: bands, p values and intervals count truths, and
    not the many values of one truth.

    Truths are assimilated one after the other. The members of each run on the workers of an active
    `distributed.Client`, as in `sdaxr.assimilate`.

    Parameters
    ----------
    truth
        Where the truths come from: trajectories, ([trajectory], time, ...), of which windows of the test split are
        taken that do not overlap; a system, or its name, of which trajectories are drawn; or ``"prior"``, for samples
        of the prior itself without observations, the strict form of the test.
    operator
        Observation operator, from `sdaxr.operators`.
    prior, system, method, sampler
        What is tested, as in `sdaxr.assimilate`.
    error
        Standard deviation of the observation errors, as in `sdaxr.observe`.
    truths
        Number of truths.
    steps
        Number of states of a truth. Default: the window of the prior's training; with a system, whole trajectories.
    members
        Number M of members. With 19, 39, 59, ... two members bound the central interval of 90 %.
    quantities
        Some of ``state, mean, energy, observed, log_likelihood`` (`sdaxr.verification.quantities`). Default: all; of a
        filter, whose members are trajectories of no distribution, ``state`` and ``observed``.
    points
        Number of random times and places of each state variable and of each observed variable; or the positions of the
        states, indices along each dimension, such as ``{"time": [0, 16, 32]}``.
    levels
        Nominal levels of central intervals, between 0 and 1.
    seed
        Seed of all random numbers. A truth depends on ``seed`` and its own number only.
    store
        Path or URL of the result, ``.zarr`` or ``.nc``. The truths are units of an archive in ``<store>.windows`` until
        all are there. A killed run resumes when it is run again, and several runs share the truths. A result of fewer
        truths is extended: only the others are computed. (Windows of trajectories lie elsewhere where there are more of
        them, and cannot be extended.)
    overwrite
        Replace an existing result when the new one is complete.
    storage_options
        Options of the file systems of URLs (fsspec), such as ``{"endpoint_url": "https://s3.example.org"}``.
    progress
        Show a progress bar.
    **options
        Further parameters of `sdaxr.observe`: ``every``, ``start``, ``noise``, ``correlation``, ``missing``, ``where``;
        and of `sdaxr.assimilate`: ``outside``, ``units``, ``screening``, ``batch``, ``device``, ``precision``.

    Returns
    -------
    xarray.Dataset
        Of each truth ``rank``, ``value`` (of the truth), ``mean`` and ``spread`` (of the members) on (truth, quantity);
        ``covered`` (truth, variable, level), the share of all values of a state variable that are in the central
        intervals of the members; ``squared_error`` and ``squared_spread`` (truth, variable), means over all values; and
        ``diverged`` (truth), where a posterior could not be drawn.

        Of all truths ``coverage`` and ``p_value`` of each quantity, with ``coverage_band``, ``ecdf`` and ``ecdf_band``;
        ``state_coverage`` (variable, level), the mean of ``covered``, with ``state_coverage_interval``; and
        ``spread_error`` (variable). The coordinate ``verdict`` has words for each quantity, the attribute ``verdict``
        for all. `sdaxr.plot` draws the result, and `sdaxr.verification.verdict.describe` makes a text of it.

    Raises
    ------
    OptionError
        If a number, a level, a quantity or an option is impossible.
    DataError, GridError, UnitsError, OperatorError, PriorError
        As in `sdaxr.observe` and `sdaxr.assimilate`; or if there are fewer windows than truths.
    ArchiveError
        If ``store`` cannot be written, or holds the result of another configuration.
    """
    for key, value, least in (("truths", truths, 2), ("members", members, 2), ("seed", seed, 0)):
        check_least(key, value, least)
    levels = _levels(levels)
    observing, drawing = _sorted_options(options)
    target = None if store is None else store_path(store, storage_options=storage_options)
    prior, method = with_storage(prior, storage_options), with_storage_inside(method, storage_options)
    layout, names, opened, about = _model(prior, system, method, sampler)
    quantities = _kinds(quantities, method) if opened is None else quantities

    def drawn(length: int) -> Drawn:
        assert opened is not None
        how = {key: drawing.get(key, "auto") for key in ("device", "precision")}
        return Drawn(opened, length, resolve_sampler(opened, sampler), **how)

    source = truths_of(truth, truths, steps, prior=opened, drawn=drawn)
    # An opened prior keeps what is measured on its held-out states. Workers open the prior themselves.
    given = {"prior": opened if active_client() is None else prior, "sampler": sampler} if opened is not None else {}
    drawing |= given | {"system": system, "method": method, "members": members, "operator": operator}
    trials = Trials(source, operator, {"error": error, **observing}, drawing, layout, names, tuple(levels), seed)
    first, seen = trials.observed(0)
    chosen = Quantities.choose(quantities, points, first, seen, operator, seed)
    # Error, mask and what else determines the observations is in the fingerprint of the first ones.
    config = about | {
        "truths": truths, "members": members, "seed": seed, "levels": levels, "source": source.describe(),
        "observations_sha256": fingerprint([seen]), "quantities": chosen.labels["quantity"].values.tolist(),
        "operator": operator.to_json() if operator.saveable else repr(operator),
        "options": {key: str(options[key]) for key in PASSED_ON["assimilate"] if key in options},
    }  # fmt: skip
    tested = f"prior {about['prior']!r}" if opened is not None else f"system {about['sdaxr_system']!r}"
    title = f"Calibration of {about['method']} with the {tested}"
    attrs = provenance_attrs(title, "simulation-based calibration", sdaxr_kind="calibration", **about)
    template = trials.template(truths, chosen).assign_attrs(attrs)
    bar = partial(tqdm, disable=not progress, desc="calibrating", unit="truth")
    run = partial(trials.run, quantities=chosen)
    if target is not None:
        return _stored(target, template.assign_attrs(config_attrs(config)), run, bar, overwrite=overwrite).load()
    ran = [run(number) for number in bar(range(truths))]
    stacked = {n: (v.dims, np.stack([each[str(n)] for each in ran]), v.attrs) for n, v in template.items()}
    return evaluated(template.assign(stacked), members)


@shared
def _stored(
    target: Location,
    template: xr.Dataset,
    run: Callable[[int], dict[str, np.ndarray]],
    bar: Callable[[Iterable[int]], Iterable[int]],
    *,
    overwrite: bool,
) -> xr.Dataset:
    """The result in the file ``target``, whose truths are units of an archive until all are there.

    The attributes of the template hold the configuration, by which a run is resumed and a result is known.
    """
    config = json.loads(template.attrs[CONFIG])
    earlier = None if overwrite or not is_there(target) else _fewer(target, config)
    place = Place.open(target, config, overwrite, extend=earlier is not None)
    if isinstance(place, xr.Dataset):
        return place
    assert place.folder is not None
    with place.in_use():
        archive = create_archive(place.part("truths"), template, TRUTH, config, finite=False)
        if earlier is not None:
            for number in set(range(earlier.sizes[TRUTH])).intersection(archive.pending()):
                archive.write(number, {str(name): earlier[name].values[number] for name in template.data_vars})
        pending = archive.pending()
        if pending:
            archive.sign(range(config["truths"]))
    # In random order, so that two runs on one archive seldom compute the same truth.
    np.random.default_rng().shuffle(pending)
    for number in bar(pending):
        with place.in_use():
            if not archive.is_complete(number):
                archive.write(number, run(number))
    with place.in_use(alone=True):
        complete = open_archive(archive.finalise()).load().drop_vars(STATUS)
        complete = complete.drop_attrs(deep=False).assign_attrs(template.attrs)
        save(evaluated(complete, config["members"]), target, overwrite=place.overwrite)
        remove(place.folder)
    return open_archive(target)


def _kinds(quantities: Sequence[str] | None, method: str | Method | Mapping[str, Any] | None) -> Sequence[str] | None:
    """The kinds of quantities that may be asked of a method with a system."""
    built = build_method(method, "ffbs")
    if getattr(built, "distribution", None) != "filtering":
        return quantities
    joint = [kind for kind in quantities or () if kind in KINDS and kind not in OF_ONE_TIME]
    if joint:
        raise OptionError(
            f"found quantities={joint} of the filter {built.name!r}, expected {', '.join(OF_ONE_TIME)}: its members "
            "know the observations until each time, and are no trajectories; or take a smoother, such as method='enks'"
        )
    return quantities or OF_ONE_TIME


def _levels(levels: Sequence[float]) -> list[float]:
    """The levels in rising order, each once."""
    found = sorted({float(level) for level in levels})
    if not found or not 0 < found[0] <= found[-1] < 1:
        raise OptionError(f"found levels={list(levels)}, expected numbers between 0 and 1, such as 0.5 and 0.9")
    return found


def _sorted_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `observe`, and those of `assimilate`."""
    own = [name for name, p in inspect.signature(calibrate).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in options:
        if not any(key in keys for keys in PASSED_ON.values()):
            raise OptionError(f"unknown option of calibrate: {nearest(key, [*own, *sum(PASSED_ON.values(), ())])}")
    observing, drawing = ({k: v for k, v in options.items() if k in keys} for keys in PASSED_ON.values())
    return observing, drawing


def _model(
    prior: str | Location | Prior | None,
    system: str | System | None,
    method: str | Method | Mapping[str, Any] | None,
    sampler: str | Sampler | Mapping[str, Any] | None,
) -> tuple[StateLayout, tuple[str, ...], Prior | None, dict[str, Any]]:
    """What is tested: the layout and the variables of the states, the opened prior, and the attributes."""
    if (prior is None) == (system is None):
        raise OptionError(
            f"found {'neither prior nor' if prior is None else 'both prior and'} system=, expected one of them"
        )
    if system is not None:
        refuse_beside_a_system(calibrate, {"sampler": sampler}, "pass a prior in the place of the system")
        chain = open_system(system)
        layout = system_layout(chain)
        options = json.dumps(chain.options(), sort_keys=True)
        about = {"sdaxr_system": chain.name, "sdaxr_options": options} | describe_method(build_method(method, "ffbs"))
        return layout, layout.variables, None, about
    assert prior is not None
    opened = open_prior(prior)
    about = opened.provenance | describe_method(score_method(opened, method))
    return opened.layout, tuple(opened.states), opened, about | describe_sampler(resolve_sampler(opened, sampler))


def _fewer(target: Location, config: Mapping[str, Any]) -> xr.Dataset | None:
    """The result of an earlier call that differs in nothing but fewer truths; None where there are as many."""
    found = open_archive(target)
    there = recorded_in(found)
    if not there.get("truths", config["truths"]) < config["truths"]:
        return None
    check_same(target, there | {"truths": config["truths"]}, config)
    return found.load()
