"""Recipes: several steps in one YAML file, each of which runs once.

A recipe maps commands to their parameters, in the order in which they run::

    generate: {system: lorenz63, store: lorenz63.zarr, trajectories: 64, steps: 128}
    train: {trajectories: lorenz63.zarr, store: prior.safetensors, window: 9, minutes: 5}

A recipe that uses a command more than once is a list (``- observe: {...}``). Paths are relative to the recipe. Names
and types of parameters, files, operators, and the options of systems, networks, methods and samplers are checked for
all steps before anything runs; whether data fit each other is known when a step runs. ``<recipe>.state.json`` records
the steps that ran. A step is skipped if its output exists, and neither its parameters nor those of the earlier steps
whose files it reads have changed. A step is also recorded before it starts, so that a recipe that was killed continues
when it is run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sdaxr
from sdaxr.archives.configuration import difference
from sdaxr.archives.finished import partial_of, windows_of
from sdaxr.archives.paths import Location, local_path, located
from sdaxr.archives.stores import is_finished, written_whole
from sdaxr.commands import checks, steps
from sdaxr.commands.inputs import check_reading, read_operator
from sdaxr.commands.values import load, typed
from sdaxr.observations import masks
from sdaxr.schema import ArchiveError, OptionError, SdaxrError, nearest, shown

_log = logging.getLogger(__name__)

# The archives of these steps record their configuration: the function resumes, returns or refuses an existing one.
_RESUMABLE = ("generate", "assimilate", "cycle", "forecast", "calibrate")
# The parameters of these steps that are, or can be, the name of a system; the first that is given counts.
_SYSTEM_PARAMETERS = {
    "generate": ("system",), "assimilate": ("system",), "cycle": ("system", "carry"), "forecast": ("model",),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes
    ----------
    name
        Name of the command.
    given
        Parameters as in the recipe.
    values
        Parameters as the command gets them, with absolute paths.
    inputs, output
        Files that the step reads, and the file that it writes (None if it writes none).
    digest
        Hash of the parameters, and of the earlier steps whose output the step reads.
    """

    name: str
    given: dict[str, Any]
    values: dict[str, Any]
    inputs: tuple[Location, ...]
    output: Location | None
    digest: str


def run(recipe: str | Path, *, overwrite: bool = False, progress: bool = True) -> dict[str, Any]:
    """Run the steps of a recipe that are not done.

    Parameters
    ----------
    recipe
        Path of the YAML file.
    overwrite
        Run the steps again whose parameters have changed since they ran, and replace their output.
    progress
        Show progress bars.

    Returns
    -------
    dict
        The result of each step that ran, by its number and command (``"3 observe"``).

    Raises
    ------
    OptionError
        If the recipe is not valid. Nothing has run.
    ArchiveError
        If an output exists that this recipe, with its present parameters, did not make, and ``overwrite`` is false.
    """
    path = local_path(recipe)
    plan = read(path)
    state = _State(path)
    todo = [step for step in plan if not state.done(step)]
    if not overwrite:
        for step in todo:
            state.check_free(step)
    results = {}
    for number, step in enumerate(plan, start=1):
        title = f"{number} {step.name}"
        if step not in todo:
            _log.info("%s: done, skipped", title)
            continue
        _log.info("%s", title)
        replace = overwrite or state.may_replace(step)
        state.start(step, overwrite=replace)
        results[title] = _run_step(step, overwrite=replace and _has_output(step), progress=progress)
        state.finish(step)
    return results


def read(recipe: str | Path) -> list[Step]:
    """The steps of a recipe, in their order.

    Raises
    ------
    OptionError
        If the recipe is not valid; the message names the step.
    """
    path = local_path(recipe)
    plan: list[Step] = []
    for number, (name, given) in enumerate(_entries(path), start=1):
        try:
            plan.append(_step(name, given, path.parent, plan))
        except SdaxrError as error:
            raise OptionError(f"{path.name}, step {number} ({name}): {error}") from error
    return plan


def status(recipe: str | Path) -> dict[str, str]:
    """Description of a recipe for `sdaxr info`: its steps, and which of them are done."""
    path = local_path(recipe)
    plan, state = read(path), _State(path)
    done = {f"{n} {s.name}": "done" if state.done(s) else "to do" for n, s in enumerate(plan, start=1)}
    complete = "yes" if set(done.values()) <= {"done"} else "no; continue with: sdaxr run"
    outputs = {f"{n} {s.name}": f"  {s.output}" if s.output else "" for n, s in enumerate(plan, start=1)}
    return {"kind": "recipe", "complete": complete, **{title: done[title] + outputs[title] for title in done}}


def _run_step(step: Step, *, overwrite: bool, progress: bool) -> Any:
    accepted = steps.parameters(step.name)
    values = dict(step.values)
    if "progress" in accepted:
        values.setdefault("progress", progress)
    if overwrite and "overwrite" in accepted:
        values["overwrite"] = True
    return steps.run(step.name, values)


def _has_output(step: Step) -> bool:
    """Whether there is an output, or an unfinished one, to replace; a checkpoint of `train` is kept."""
    if step.output is None:
        return False
    return any(file.exists() for file in (step.output, partial_of(step.output), windows_of(step.output)))


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = load(path)
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise OptionError(f"'{path}' holds {type(content).__name__}, expected a mapping of commands to parameters")
    for entry in entries:
        for name, given in entry.items():
            if name not in steps.STEPS:
                raise OptionError(f"{path.name}: found the step {nearest(name, steps.STEPS)}")
            if not isinstance(given, dict):
                raise OptionError(f"{path.name}: '{name}' holds {shown(given)}, expected its parameters as a mapping")
            yield name, given


def _step(name: str, given: dict[str, Any], base: Path, before: list[Step]) -> Step:
    accepted, kinds = steps.parameters(name), steps.types(name)
    values = {key: typed(key, value, kinds.get(key, Any)) if key in accepted else value for key, value in given.items()}
    _check_names(name, values, set(accepted))
    missing = [key for key, p in accepted.items() if p.default is p.empty and key not in values]
    if missing:
        raise OptionError(f"missing {', '.join(missing)}")
    if values.get("operator") is not None:
        read_operator(values["operator"])
    if isinstance(values.get("where"), Mapping):
        masks.maker_of(values["where"])
    if values.get("reading") is not None:
        check_reading(values["reading"], values.get("observations", values.get("truth", ())))
    if name == "train":
        checks.check_training(values)
    if "seed" in accepted:
        checks.check_numbers(values)
    if name == "report" and values.get("store") is not None and len(steps.stores_of(values)) > 1:
        raise OptionError(
            "found a store and several networks, expected one file for a step; report each in its own step"
        )
    files = _resolve(values, base)
    output = next((files[key] for key in steps.OUTPUTS if key in files), None)
    inputs = tuple(p for key, p in files.items() if key not in steps.OUTPUTS)
    outputs = {step.output: step for step in before if step.output}
    if output in outputs:
        raise OptionError(f"'{output}' is the output of an earlier step; give this step another output")
    for file in inputs:
        if file not in outputs and not file.exists():
            raise OptionError(f"there is no '{file}', and no earlier step makes it; check the path and the order")
    if name in ("assimilate", "cycle", "forecast", "calibrate"):
        checks.check_drawing(name, values, made={str(file) for file in outputs})
    if name == "calibrate":
        checks.open_systems(values["truth"], values.get("system"), values.get("system_options"))
    upstream = [outputs[file].digest for file in inputs if file in outputs]
    # How a file is reached does not change it, and may be secret.
    given = {key: value for key, value in given.items() if key != "storage_options"}
    digest = hashlib.sha256(json.dumps([name, given, upstream], sort_keys=True, default=str).encode()).hexdigest()
    return Step(name, given, values, inputs, output, digest)


def _check_names(name: str, values: Mapping[str, Any], accepted: set[str]) -> None:
    key = next((key for key in _SYSTEM_PARAMETERS.get(name, ()) if values.get(key) is not None), None)
    model: Any = None if key is None else values[key]
    is_system = model is not None and (key == "system" or model in sdaxr.systems.systems())
    known = set(accepted)
    if is_system:
        known |= set(sdaxr.open_system(model).options())
    for key in values:
        if key not in known:
            raise OptionError(f"found the parameter {nearest(key, known)}")
    if is_system:
        sdaxr.open_system(model, **{key: value for key, value in values.items() if key not in accepted})


def _resolve(values: dict[str, Any], base: Path) -> dict[str, Location]:
    """Make the paths in ``values`` absolute, in place; return them by the names of their parameters."""
    files: dict[str, Location] = {}

    def placed(path: Any) -> Location:
        # What has a URL lies beneath no folder.
        place = located(path, values.get("storage_options"))
        return base / place if isinstance(place, Path) else place

    for key, value in values.items():
        is_name = key == "truth" and value in (*sdaxr.systems.systems(), *checks.SOURCES)
        is_file = key in (*steps.INPUTS, *steps.OUTPUTS) and not is_name
        if is_file and isinstance(value, list):
            places = [placed(item) for item in value]
            values[key] = list(map(str, places))
            files |= {f"{key}[{i}]": place for i, place in enumerate(places)}
        elif isinstance(value, str) and (is_file or value.endswith(".safetensors")):
            files[key] = placed(value)
            values[key] = str(files[key])
        elif key == "method" and isinstance(value, dict):
            given = {k: value[k] for k in checks.files_of_method(values) if value.get(k) is not None}
            named = {k: placed(typed(f"{key}.{k}", text, str)) for k, text in given.items()}
            files |= {f"{key}.{k}": file for k, file in named.items()}
            values[key] = value | {k: str(file) for k, file in named.items()}
    models = {*sdaxr.systems.systems(), *sdaxr.priors()}
    for key, names in {"prior": sdaxr.priors(), "model": models, "carry": models}.items():
        if values.get(key) is not None and key not in files and values[key] not in names:
            raise OptionError(f"found the {key} {nearest(values[key], names)} Or give a .safetensors file")
    return files


class _State:
    """The steps that have run, in a JSON file beside the recipe.

    The record of a step, by the name of its output, holds ``given`` and ``digest`` of the last run that finished. For a
    run that has not finished, ``started`` holds the same, ``found`` (whether there was an output when the run started)
    and ``overwrite`` (whether the run was allowed to replace this output).
    """

    def __init__(self, recipe: Path) -> None:
        self.path = recipe.with_suffix(".state.json")
        try:
            self.ran: dict[str, dict[str, Any]] = json.loads(self.path.read_text())
        except FileNotFoundError:
            self.ran = {}
        except (OSError, ValueError) as error:
            raise ArchiveError(
                f"cannot read '{self.path}': {error}; remove it, and all steps count as to do"
            ) from error

    def done(self, step: Step) -> bool:
        """Whether ``step`` ran with its present parameters, and its output exists."""
        if step.output is None:
            return self._record(step).get("digest") == step.digest
        made = self._made(step)
        return made is not None and made["digest"] == step.digest

    def check_free(self, step: Step) -> None:
        """Raise `ArchiveError` if ``step`` would replace a file which no earlier run was allowed to replace."""
        if step.output is None or not is_finished(step.output) or self.done(step) or self.may_replace(step):
            return
        record, made = self._record(step), self._made(step)
        if "digest" not in record and step.name in _RESUMABLE:
            return
        reason = "exists, but was not made by this recipe"
        if made is not None:
            changes = difference(made["given"], json.loads(_json(step.given))) or "a step before it changed"
            reason = f"was made before this step changed ({changes})"
        elif record:
            reason = "exists, and may be older than the run of this step that was killed"
        raise ArchiveError(
            f"'{step.output}' {reason}; run with --overwrite to redo '{step.name}' and what depends on it, "
            "or give another name"
        )

    def may_replace(self, step: Step) -> bool:
        """Whether a killed run of ``step``, with its present parameters, was allowed to replace the output."""
        started = self._record(step).get("started", {})
        return started.get("digest") == step.digest and bool(started["overwrite"])

    def start(self, step: Step, *, overwrite: bool) -> None:
        """Record that ``step`` starts."""
        found = step.output is not None and is_finished(step.output)
        started = {"given": step.given, "digest": step.digest, "found": found, "overwrite": overwrite}
        self._write(step, {**self._record(step), "step": step.name, "started": started})

    def finish(self, step: Step) -> None:
        """Record that ``step`` has finished."""
        self._write(step, {"step": step.name, "given": step.given, "digest": step.digest})

    def _made(self, step: Step) -> dict[str, Any] | None:
        """The record of the run that made the existing output; None if there is none, or the run is not certain."""
        record = self._record(step)
        if step.output is None or not is_finished(step.output):
            return None
        if "started" not in record:
            return record or None
        # An output gets its name when it is complete. If there was none before, the killed run made it. If there was
        # one, the killed run or the run before made it, which cannot be told.
        return None if record["started"]["found"] else record["started"]

    def _record(self, step: Step) -> dict[str, Any]:
        return self.ran.get(self._key(step), {})

    def _key(self, step: Step) -> str:
        if step.output is None:
            return f"{step.name} {step.digest}"
        base = self.path.parent
        if not isinstance(step.output, Path):
            return str(step.output)
        return str(step.output.relative_to(base) if step.output.is_relative_to(base) else step.output)

    def _write(self, step: Step, record: dict[str, Any]) -> None:
        self.ran[self._key(step)] = record
        with written_whole(self.path, overwrite=True) as unfinished:
            unfinished.write_text(_json(self.ran))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str)
