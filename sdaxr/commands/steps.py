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
from pathlib import Path
from typing import Any

import xarray as xr

import sdaxr
from sdaxr.archives.paths import local_path
from sdaxr.archives.stores import check_free, save, written_whole
from sdaxr.commands import checks
from sdaxr.schema import TRAJECTORY, DataError, OperatorError, OptionError, nearest

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
    mask = _only_variable(where) if isinstance(where, str) else where
    observations = sdaxr.observe(_open(truth, trajectory), read_operator(operator), where=mask, **options)
    return save(observations, store, overwrite=overwrite)


def assimilate(
    observations: str | Iterable[str],
    store: str,
    *,
    prior: str | None = None,
    system: str | None = None,
    background: str | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Draw the posterior given ``observations``, one file for each network; the result is the archive ``store``.

    ``reading`` holds options of `sdaxr.read_observations`, or such options for each network, by the name of its file.
    Options that are not parameters of the function are options of the system, such as ``noise=0.5``.
    """
    if options.get("operator") is not None:
        options["operator"] = read_operator(options["operator"])
    of_system = _take_system_options("assimilate", options, system)
    options |= {
        "prior": None if prior is None else sdaxr.open_prior(prior),
        "system": None if system is None else sdaxr.open_system(system, **of_system),
        "background": None if background is None else sdaxr.open_archive(background),
    }
    return sdaxr.assimilate(_networks(observations, reading), store=store, **options)


def report(
    observations: str | Iterable[str],
    prior: str,
    *,
    store: str | None = None,
    background: str | None = None,
    reading: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> xr.Dataset | xr.DataTree:
    """The status of each of the ``observations``, one file for each network; ``store`` is a file for them.

    Several networks get a file each: ``s-a.nc`` and ``s-b.nc`` for the networks a and b where ``store`` is ``s.nc``.
    ``reading`` is as in `assimilate`.
    """
    stores = {} if store is None else stores_of({"store": store, "observations": observations})
    for each in stores.values():
        check_free(each, overwrite)
    networks = _networks(observations, reading)
    if options.get("operator") is not None:
        options["operator"] = read_operator(options["operator"])
    if background is not None:
        options["background"] = sdaxr.open_archive(background)
    found = sdaxr.report(networks, sdaxr.open_prior(prior), **options)
    for network, each in stores.items():
        save(found if isinstance(found, xr.Dataset) else found[network].to_dataset(), each, overwrite=overwrite)
    return found


def cycle(
    observations: str | Iterable[str],
    store: str,
    *,
    prior: str | None = None,
    system: str | None = None,
    carry: str | None = None,
    background: str | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Assimilate ``observations``, one file for each network, window after window; the result is the file ``store``.

    ``reading`` is as in `assimilate`.
    Options that are parameters neither of the function nor of `assimilate` are options of ``system``, or of the system
    ``carry``.
    """
    if options.get("operator") is not None:
        options["operator"] = read_operator(options["operator"])
    carrier = carry if system is None and carry in sdaxr.systems.systems() else None
    of_system = _take_system_options("cycle", options, system or carrier)
    options |= {
        "system": None if system is None else sdaxr.open_system(system, **of_system),
        "carry": carry if carrier is None else sdaxr.open_system(carrier, **of_system),
        "background": None if background is None else sdaxr.open_archive(background),
    }
    return sdaxr.cycle(_networks(observations, reading), prior, store=store, **options)


def forecast(ensemble: str, model: str, store: str, *, trajectory: int | None = None, **options: Any) -> xr.Dataset:
    """Forecast from the last states of the file ``ensemble``; the result is the archive ``store``."""
    return sdaxr.forecast(_open(ensemble, trajectory), model, store=store, **options)


def denoise(
    noisy: str, prior: str, store: str, *, trajectory: int | None = None, overwrite: bool = False, **options: Any
) -> xr.Dataset:
    """Remove noise from the fields in the file ``noisy``; the result is the file ``store``."""
    check_free(store, overwrite)
    return save(sdaxr.denoise(_open(noisy, trajectory), sdaxr.open_prior(prior), **options), store, overwrite=overwrite)


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
    opened = _read(truth, reading) if observed else _open(truth, trajectory)
    scores = sdaxr.verify(sdaxr.open_archive(posterior), opened, **options)
    return scores if store is None else save(scores, store, overwrite=overwrite)


def calibrate(
    truth: str,
    operator: str | Mapping[str, Any],
    store: str,
    *,
    prior: str | None = None,
    system: str | None = None,
    system_options: Mapping[str, Any] | None = None,
    where: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Test by simulation whether ensembles have the right spread; the result is the file ``store``.

    ``truth`` is a file, the name of a system, or ``prior``; ``system_options`` are of the systems that are named.
    """
    opened = checks.open_systems(truth, system, system_options)
    options |= {} if where is None else {"where": _only_variable(where) if isinstance(where, str) else where}
    source = opened.get(truth, truth) if truth in (*opened, *checks.SOURCES) else sdaxr.open_archive(truth)
    tested = None if system is None else opened[system]
    return sdaxr.calibrate(source, read_operator(operator), prior, system=tested, store=store, **options)


def plot(
    data: str,
    path: str,
    *,
    truth: str | None = None,
    observations: str | None = None,
    trajectory: int | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Draw the file ``data``; the result is the figure ``path``."""
    opened = _open_for_figure(data, truth, observations, trajectory, reading, options)
    with written_whole(path, overwrite=True) as unfinished:
        figure = sdaxr.plot(opened, path=unfinished, **options)
    import matplotlib.pyplot

    matplotlib.pyplot.close(figure)
    _log.info("wrote %s", path)
    return local_path(path)


def animate(
    data: str,
    path: str,
    *,
    truth: str | None = None,
    observations: str | None = None,
    trajectory: int | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Animate the file ``data``; the result is the GIF ``path``."""
    opened = _open_for_figure(data, truth, observations, trajectory, reading, options)
    with written_whole(path, overwrite=True) as unfinished:
        sdaxr.animate(opened, unfinished, **options)
    _log.info("wrote %s", path)
    return local_path(path)


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
    "trajectories", "truth", "observations", "where", "background", "ensemble", "noisy", "posterior", "data",
)  # fmt: skip
OUTPUTS = ("store", "path")


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """The parameters of step ``name``: its own, and the keyword-only parameters of the function of the same name.

    `cycle` also has the parameters that it passes on to `assimilate`: all except ``system``; so has `calibrate`.
    """
    own = dict(inspect.signature(STEPS[name]).parameters)
    own.pop("options", None)
    behind = _keywords(name)
    if name == "cycle":
        behind |= {n: p for n, p in _keywords("assimilate").items() if n != "system"}
    if name == "calibrate":
        from sdaxr.verification.calibrate import PASSED_ON

        behind |= {n: p for step, passed in PASSED_ON.items() for n, p in _keywords(step).items() if n in passed}
    return own | {n: p for n, p in behind.items() if n not in own}


def _keywords(name: str) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(getattr(sdaxr, name)).parameters.items() if p.kind is p.KEYWORD_ONLY}


def read_operator(operator: str | Mapping[str, Any]) -> Any:
    """The operator that a JSON text, or a mapping as in JSON, describes."""
    from sdaxr import operators

    text = operator if isinstance(operator, str) else json.dumps(operator)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise OperatorError(
            f'the operator is not JSON ({error}); expected for example \'{{"op": "coarsen", "factor": 8}}\''
        ) from error
    return operators.from_json(text)


def is_read(path: str) -> bool:
    """Whether a file is opened by a reader of observations, by its name or its first line."""
    from sdaxr.observations.readers.registry import reader_of

    return reader_of(local_path(path)) is not None


def stores_of(values: Mapping[str, Any]) -> dict[str, Path]:
    """The file that `report` writes for each network; the names of several networks are added to that of ``store``."""
    path, names = local_path(values["store"]), [Path(each).stem for each in _paths(values["observations"])]
    return {name: path if len(names) == 1 else path.with_stem(f"{path.stem}-{name}") for name in names}


def check_reading(reading: Mapping[str, Any] | None, observations: str | Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The options of `sdaxr.read_observations` for each file, by the name of the network.

    Raises
    ------
    OptionError
        If an option is unknown.
    """
    names = [Path(path).stem for path in _paths(observations)]
    given = reading or {}
    each = {n: given.get(n, {}) for n in names} if given and set(given) <= set(names) else dict.fromkeys(names, given)
    known = {n for n, p in inspect.signature(sdaxr.read_observations).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for options in each.values():
        for key in options:
            if key not in known:
                raise OptionError(f"reading has the option {nearest(key, known)}")
    return each


def _paths(observations: str | Iterable[str]) -> list[str]:
    return [observations] if isinstance(observations, str | Path) else list(observations)


def _networks(
    observations: str | Iterable[str], reading: Mapping[str, Any] | None = None
) -> xr.Dataset | dict[str, xr.Dataset]:
    """The Dataset of one file, or the Datasets of several by the names of their files."""
    paths, options = _paths(observations), check_reading(reading, observations)
    networks = {Path(path).stem: _read(path, options[Path(path).stem]) for path in paths}
    if len(networks) < len(paths):
        raise DataError(f"found several networks of the same file name in {paths}; rename the files")
    return next(iter(networks.values())) if len(paths) == 1 else networks


def _read(path: str, reading: Mapping[str, Any] | None) -> xr.Dataset:
    return sdaxr.read_observations(path, **check_reading(reading, path)[Path(path).stem])


def _take_system_options(name: str, options: dict[str, Any], system: str | None) -> dict[str, Any]:
    """Take out of ``options`` those of the system: all that are not parameters of step ``name``."""
    known = parameters(name)
    taken = {key: options.pop(key) for key in list(options) if key not in known}
    if taken and system is None:
        raise OptionError(f"found the parameter {nearest(next(iter(taken)), known)}")
    return taken


def _open(path: str, trajectory: int | None) -> xr.Dataset:
    data = sdaxr.open_archive(path)
    if trajectory is None:
        return data
    if TRAJECTORY not in data.dims:
        raise DataError(
            f"'{path}' has the dimensions {tuple(map(str, data.dims))}, expected 'trajectory'; leave the parameter out"
        )
    if not -data.sizes[TRAJECTORY] <= trajectory < data.sizes[TRAJECTORY]:
        raise DataError(f"found trajectory={trajectory}, expected an index of the {data.sizes[TRAJECTORY]} in '{path}'")
    return data.isel({TRAJECTORY: trajectory})


def _only_variable(path: str) -> xr.DataArray:
    data = sdaxr.open_archive(path)
    if len(data.data_vars) != 1:
        raise DataError(
            f"'{path}' has the variables {list(data.data_vars)}, expected one mask; write it to a file of its own"
        )
    return next(iter(data.data_vars.values()))


def _open_for_figure(
    data: str,
    truth: str | None,
    observations: str | None,
    trajectory: int | None,
    reading: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> xr.Dataset:
    """The Dataset that is drawn; truth and observations are put into ``options``."""
    # With a truth, the index is that of a trajectory in it: a posterior has no trajectories.
    if truth is not None:
        options["truth"] = _open(truth, trajectory)
    if observations is not None:
        options["observations"] = _read(observations, reading)
    if is_read(data):
        return _read(data, reading)
    return _open(data, None if truth is not None else trajectory)
