"""The functions with files in the place of Datasets: one step for each command, which recipes share.

A step opens its inputs, calls the function of the same name, and writes the result to a file. Parameters have the
names and the defaults of the function. Steps of functions that write no file also have ``store`` and ``overwrite``.
Steps that take one trajectory of a file have ``trajectory``, its index.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import xarray as xr

import sdaxr
from sdaxr.archives.paths import Location, located, with_storage, with_storage_inside
from sdaxr.archives.stores import check_free, save, written_whole
from sdaxr.commands import checks
from sdaxr.commands.inputs import (
    is_read,
    open_file,
    open_for_figure,
    open_mask,
    open_networks,
    open_options,
    paths_of,
    read_file,
    read_operator,
)
from sdaxr.schema import OptionError, nearest
from sdaxr.states.validation import parameters_of

_log = logging.getLogger(__name__)


def generate(system: str, store: str, **options: Any) -> xr.Dataset:
    """Simulate trajectories of ``system``; the result is the archive ``store``."""
    return sdaxr.generate(system, store, **options)


def train(trajectories: str, store: str, **options: Any) -> Any:
    """Train a prior on the file ``trajectories``; the result is the file ``store``.

    The operators of ``augment`` are texts, or mappings as in JSON. ``network``, ``statistics`` and ``optimisation`` are
    mappings of options.
    """
    from sdaxr import operators

    if options.get("augment"):
        texts = {n: o if isinstance(o, str) else json.dumps(o) for n, o in options["augment"].items()}
        options["augment"] = {name: operators.parse(text) for name, text in texts.items()}
    return sdaxr.train(sdaxr.open_archive(trajectories), store, **options)


def observe(
    truth: str,
    operator: str | Mapping[str, Any],
    store: str,
    *,
    where: str | Mapping[str, Any] | None = None,
    trajectory: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Make synthetic observations of the file ``truth`` with ``operator`` (JSON); the result is the file ``store``.

    ``where`` holds the parameters of a mask, or is the file of a mask.
    """
    check_free(store, overwrite)
    mask = open_mask(where) if isinstance(where, str) else where
    observations = sdaxr.observe(open_file(truth, trajectory), read_operator(operator), where=mask, **options)
    return save(observations, store, overwrite=overwrite)


def assimilate(
    observations: str | Iterable[str],
    store: str,
    *,
    prior: str | None = None,
    domain: str | None = None,
    system: str | None = None,
    background: str | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Draw the posterior given ``observations``, one file for each network; the result is the archive ``store``.

    ``domain`` is a file with the grid, and the static fields, that a prior of patches is put on (`Prior.on`).
    ``reading`` holds options of `sdaxr.read_observations`, or such options for each network, by the name of its file.
    Options that are not parameters of the function are options of the system, such as ``noise=0.5``.
    """
    open_options(options, background)
    of_system = _take_system_options("assimilate", options, system)
    options |= {
        "prior": _given_prior(prior, domain),
        "system": None if system is None else sdaxr.open_system(system, **of_system),
    }
    return sdaxr.assimilate(open_networks(observations, reading), store=store, **options)


def report(
    observations: str | Iterable[str],
    prior: str,
    *,
    domain: str | None = None,
    store: str | None = None,
    background: str | None = None,
    reading: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> xr.Dataset | xr.DataTree:
    """The status of each of the ``observations``, one file for each network; ``store`` is a file for them.

    Several networks get a file each: ``s-a.nc`` and ``s-b.nc`` for the networks a and b where ``store`` is ``s.nc``.
    ``domain`` and ``reading`` are as in `assimilate`.
    """
    stores = {} if store is None else stores_of({"store": store, "observations": observations})
    for each in stores.values():
        check_free(each, overwrite)
    networks = open_networks(observations, reading)
    open_options(options, background)
    found = sdaxr.report(networks, _prior_on(prior, domain), **options)
    for network, each in stores.items():
        save(found if isinstance(found, xr.Dataset) else found[network].to_dataset(), each, overwrite=overwrite)
    return found


def cycle(
    observations: str | Iterable[str],
    store: str,
    *,
    prior: str | None = None,
    domain: str | None = None,
    system: str | None = None,
    carry: str | None = None,
    background: str | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Assimilate ``observations``, one file for each network, window after window; the result is the file ``store``.

    ``domain`` and ``reading`` are as in `assimilate`.
    Options that are parameters neither of the function nor of `assimilate` are options of ``system``, or of the system
    ``carry``.
    """
    open_options(options, background)
    carrier = carry if system is None and carry in sdaxr.systems.systems() else None
    of_system = _take_system_options("cycle", options, system or carrier)
    options |= {
        "system": None if system is None else sdaxr.open_system(system, **of_system),
        "carry": carry if carrier is None else sdaxr.open_system(carrier, **of_system),
    }
    given = prior if domain is None else _given_prior(prior, domain)
    return sdaxr.cycle(open_networks(observations, reading), given, store=store, **options)


def forecast(
    ensemble: str,
    model: str,
    store: str,
    *,
    domain: str | None = None,
    trajectory: int | None = None,
    **options: Any,
) -> xr.Dataset:
    """Forecast from the last states of the file ``ensemble``; the result is the archive ``store``.

    ``domain`` is as in `assimilate`; the model is a prior then.
    """
    given = model if domain is None else _prior_on(model, domain)
    return sdaxr.forecast(open_file(ensemble, trajectory), given, store=store, **options)


def denoise(
    noisy: str,
    prior: str,
    store: str,
    *,
    domain: str | None = None,
    trajectory: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Remove noise from the fields in the file ``noisy``; the result is the file ``store``.

    ``domain`` is as in `assimilate`.
    """
    check_free(store, overwrite)
    fields = sdaxr.denoise(open_file(noisy, trajectory), _prior_on(prior, domain), **options)
    return save(fields, store, overwrite=overwrite)


def verify(
    posterior: str,
    truth: str,
    *,
    store: str | None = None,
    trajectory: int | None = None,
    reading: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Score the file ``posterior`` (or a forecast) against the file ``truth``; ``store`` is a file for the scores.

    ``truth`` may be observations; ``reading`` holds options of `sdaxr.read_observations` for them.
    """
    check_free(store, overwrite)
    observed = reading is not None or is_read(truth)
    opened = read_file(truth, reading) if observed else open_file(truth, trajectory)
    scores = sdaxr.verify(sdaxr.open_archive(posterior), opened, **options)
    return scores if store is None else save(scores, store, overwrite=overwrite)


def calibrate(
    truth: str,
    operator: str | Mapping[str, Any],
    store: str,
    *,
    prior: str | None = None,
    domain: str | None = None,
    system: str | None = None,
    system_options: Mapping[str, Any] | None = None,
    where: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Test by simulation whether ensembles have the right spread; the result is the file ``store``.

    ``truth`` is a file, the name of a system, or ``prior``; ``system_options`` are of the systems that are named.
    ``domain`` is as in `assimilate`.
    """
    opened = checks.open_systems(truth, system, system_options)
    options |= {} if where is None else {"where": open_mask(where) if isinstance(where, str) else where}
    source = opened.get(truth, truth) if truth in (*opened, *checks.SOURCES) else sdaxr.open_archive(truth)
    tested = None if system is None else opened[system]
    given = prior if domain is None else _given_prior(prior, domain)
    return sdaxr.calibrate(source, read_operator(operator), given, system=tested, store=store, **options)


def plot(
    data: str,
    path: str,
    *,
    truth: str | None = None,
    observations: str | None = None,
    trajectory: int | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> Location:
    """Draw the file ``data``; the result is the figure ``path``."""
    opened = open_for_figure(data, truth, observations, trajectory, reading, options)
    with written_whole(path, overwrite=True) as unfinished:
        figure = sdaxr.plot(opened, path=unfinished, **options)
    import matplotlib.pyplot

    matplotlib.pyplot.close(figure)
    _log.info("wrote %s", path)
    return located(path)


def animate(
    data: str,
    path: str,
    *,
    truth: str | None = None,
    observations: str | None = None,
    trajectory: int | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> Location:
    """Animate the file ``data``; the result is the GIF ``path``."""
    opened = open_for_figure(data, truth, observations, trajectory, reading, options)
    with written_whole(path, overwrite=True) as unfinished:
        sdaxr.animate(opened, unfinished, **options)
    _log.info("wrote %s", path)
    return located(path)


STEPS: dict[str, Callable[..., Any]] = {
    step.__name__: step
    for step in (
        generate,
        train,
        observe,
        report,
        assimilate,
        cycle,
        forecast,
        denoise,
        verify,
        calibrate,
        plot,
        animate,
    )
}
# Parameters that are files which a step reads, and those that are the file which it writes.
INPUTS = (
    "trajectories", "truth", "observations", "where", "domain", "background", "ensemble", "noisy", "posterior", "data",
)  # fmt: skip
OUTPUTS = ("store", "path")
# Parameters that are names or files.
_NAMES = ("prior", "model", "carry", "start")


def run(name: str, values: Mapping[str, Any]) -> Any:
    """Run step ``name`` with its parameters; those that are URLs get the ``storage_options`` among them."""
    given = dict(values)
    options = given.pop("storage_options", None)
    for key in (*INPUTS, *OUTPUTS, *_NAMES):
        if key in given:
            given[key] = _with_storage(given[key], options)
    if "method" in given:
        given["method"] = with_storage_inside(given["method"], options)
    return STEPS[name](**given)


def _given_prior(prior: str | None, domain: str | None) -> sdaxr.Prior | None:
    if prior is None and domain is not None:
        raise OptionError(f"found the domain '{domain}' without a prior, expected a prior of patches")
    return None if prior is None else _prior_on(prior, domain)


def _prior_on(prior: str, domain: str | None) -> sdaxr.Prior:
    """The prior in the file ``prior``, on the grid in the file ``domain`` where there is one."""
    opened = sdaxr.open_prior(prior)
    return opened if domain is None else opened.on(sdaxr.open_archive(domain))


def _with_storage(value: Any, options: Mapping[str, Any] | None) -> Any:
    if isinstance(value, list | tuple):
        return [with_storage(each, options) for each in value]
    return with_storage(value, options)


_STORAGE = inspect.Parameter(
    "storage_options", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Mapping[str, Any] | None"
)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """The parameters of step ``name``: its own, and the keyword-only parameters of the function of the same name.

    `cycle` also has the parameters that it passes on to `assimilate`: all except ``system``; so has `calibrate`. All
    have ``storage_options``.
    """
    own = dict(inspect.signature(STEPS[name]).parameters)
    own.pop("options", None)
    behind = _keywords(name)
    if name == "cycle":
        behind |= {n: p for n, p in _keywords("assimilate").items() if n != "system"}
    if name == "calibrate":
        from sdaxr.verification.calibrate import PASSED_ON

        behind |= {n: p for step, passed in PASSED_ON.items() for n, p in _keywords(step).items() if n in passed}
    behind.setdefault("storage_options", _STORAGE)
    return own | {n: p for n, p in behind.items() if n not in own}


def types(name: str) -> dict[str, Any]:
    """The declared types of `parameters`."""
    from sdaxr.verification.calibrate import PASSED_ON

    behind = {"cycle": ("assimilate",), "calibrate": tuple(PASSED_ON)}.get(name, ())
    functions = [*(getattr(sdaxr, each) for each in behind), getattr(sdaxr, name), STEPS[name]]
    return {key: kind for function in functions for key, kind in parameters_of(function).items()}


def _keywords(name: str) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(getattr(sdaxr, name)).parameters.items() if p.kind is p.KEYWORD_ONLY}


def stores_of(values: Mapping[str, Any]) -> dict[str, Location]:
    """The file that `report` writes for each network; the names of several networks are added to that of ``store``."""
    path, names = located(values["store"]), [located(each).stem for each in paths_of(values["observations"])]
    return {name: path if len(names) == 1 else path.with_stem(f"{path.stem}-{name}") for name in names}


def _take_system_options(name: str, options: dict[str, Any], system: str | None) -> dict[str, Any]:
    """Take out of ``options`` those of the system: all that are not parameters of step ``name``."""
    known = parameters(name)
    taken = {key: options.pop(key) for key in list(options) if key not in known}
    if taken and system is None:
        raise OptionError(f"found the parameter {nearest(next(iter(taken)), known)}")
    return taken
