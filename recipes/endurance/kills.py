"""Commands that are killed: what was complete and is lost, what opens as finished and is not, how a resumed run ends.

Each of the commands is killed at moments that are spread over its run, and at named points of it, such as between the
chunks of a unit and the marker that says it is complete; then the same command runs again. See README.md.

    python recipes/endurance/kills.py --table recipes/endurance/kills.csv    # half an hour on two cores
    python recipes/endurance/kills.py --only assimilate --kills 8
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from kills_jobs import JOBS, Job, Place, content, write_inputs
from kills_points import Event, Log, events
from kills_process import Run, ask, cluster, context, import_everything, s3_server, start

from sdaxr.archives.objects import UNFINISHED
from sdaxr.archives.paths import located
from sdaxr.archives.remote import Remote

WORKERS = 2
# The share of the kills that is at named points.
_AT_POINTS = 0.5
_INTERRUPTED = "sdaxr: interrupted by SIGTERM; run the same command again to resume\n"


@dataclass(frozen=True)
class Kill:
    """How a command is ended.

    Attributes
    ----------
    number
        The signal.
    overwrite
        Whether the command replaces the finished products of another seed.
    moment
        The fraction of its time; None at a point.
    point
        The point, and which passage of it; None at a moment.
    whole
        Whether the workers die with it, as at a point.
    """

    number: signal.Signals
    overwrite: bool
    moment: float | None
    point: tuple[str, int] | None
    whole: bool

    def __str__(self) -> str:
        return f"{self.moment:.3f}" if self.point is None else f"{self.point[0]}, passage {self.point[1]}"


@dataclass(frozen=True)
class Case:
    """A command, where it writes, and whether it has workers; with the results of runs that nothing has ended."""

    name: str
    store: str
    workers: int
    base: Place

    @property
    def job(self) -> Job:
        """The command."""
        return JOBS[self.name]

    def place(self, name: str) -> Place:
        """A new place to write to."""
        local = self.base.local / f"{self.name}-{self.store}-{self.workers}-{name}"
        local.mkdir()
        return Place(self.base.inputs, local, f"{self.base.out}{local.name}/" if self.store == "s3" else f"{local}/")

    def contents(self, place: Place) -> list[dict[str, str] | None]:
        """What the products hold."""
        return [ask(content, place.product(name)) for name in self.job.products]


@dataclass(frozen=True)
class Reference:
    """A run that nothing has ended."""

    place: Place
    contents: list[dict[str, str] | None]
    names: set[str]
    seconds: float
    passages: dict[str, int]


def reference(case: Case, seed: int) -> Reference:
    """Run a command from its beginning to its end."""
    place = case.place(f"seed-{seed}")
    log = Log(place.local.with_suffix(".log"), None, context.Value("i", 0))
    run = launch(case, place, seed, log, overwrite=False)
    code, seconds = run.wait(), time.time() - run.started
    run.end()
    if code != 0:
        raise click.ClickException(f"{case} has ended with {code}: {run.output.read_text()}")
    passages: dict[str, int] = {}
    for event in events(log.path):
        if event.kind == "at":
            passages[event.about] = passages.get(event.about, 0) + 1
    return Reference(place, case.contents(place), ask(names, place), seconds, passages)


def launch(case: Case, place: Place, seed: int, log: Log, *, overwrite: bool) -> Run:
    """Start a command."""
    words = case.job.words(place, seed) + ["--overwrite"] * overwrite
    return start(words, cluster(case.workers, log), case.workers, log, place.local.parent)


def kills(case: Case, passages: dict[str, int], count: int, random: np.random.Generator) -> Iterator[Kill]:
    """Moments that are spread over the run, and points; one SIGTERM comes last."""
    timed = [(k + random.random()) / count for k in random.permutation(count)]
    points = random.permutation(sorted(passages))
    for k in range(count):
        overwrite, whole = bool(k % 2), not case.workers or bool(random.integers(2))
        if random.random() < _AT_POINTS:
            point = str(points[k % len(points)])
            passage = int(random.integers(passages[point])) + 1
            yield Kill(signal.SIGKILL, overwrite, None, (point, passage), True)
        else:
            yield Kill(signal.SIGKILL, overwrite, timed[k], None, whole)
    yield Kill(signal.SIGTERM, False, 0.1 + 0.8 * random.random(), None, False)


def measure(case: Case, kill: Kill, old: Reference, new: Reference, number: int) -> dict[str, Any] | None:
    """End a command, and run it again; None if it was faster than the signal."""
    place = case.place(f"kill-{number}")
    if kill.overwrite:
        ask(copy, old.place, place)
    first = Log(place.local.with_suffix(".first"), kill.point, context.Value("i", 0))
    run = launch(case, place, 1, first, overwrite=kill.overwrite)
    if kill.moment is not None:
        time.sleep(max(0.0, run.started + kill.moment * new.seconds - time.time()))
        run.kill(kill.number, whole=kill.whole)
    ended, code = time.time(), run.wait()
    if code == 0:
        run.end()
        return None
    ended = next((event.when for event in events(first.path) if event.kind == "killed"), ended)
    found = case.contents(place)
    false = sum(
        each is not None and finished(each) != after and not (kill.overwrite and each == before)
        for each, before, after in zip(found, old.contents, new.contents, strict=True)
    )
    second = Log(place.local.with_suffix(".second"), None, context.Value("i", 0))
    again = resume(case, kill, place, run, second)
    final = again.wait()
    again.end()
    run.end()
    before = [event for event in events(first.path) if event.when <= ended]
    if kill.overwrite:
        # What was finished is made anew on request.
        pairs = zip(case.job.products, found, new.contents, strict=True)
        made = tuple(f"unit {place.product(name)}" for name, each, after in pairs if finished(each) == after)
        before = [event for event in before if not event.about.startswith(made)]
    said = run.output.read_text()
    row = {
        "command": case.name, "store": case.store, "workers": case.workers,
        "overwrite": "yes" if kill.overwrite else "no", "signal": kill.number.name, "when": str(kill),
        "processes": "all" if kill.whole else "the command's",
        "complete": len({event.about for event in before if event.kind == "done"}),
        "lost": lost(before, events(second.path)),
        "falsely_complete": false,
        "ended": int(final == 0),
        "identical": int(case.contents(place) == new.contents),
        "left_over": len(ask(names, place) - new.names),
        "code": code,
        "one_line": int(said == ("" if kill.number == signal.SIGKILL else _INTERRUPTED)),
    }  # fmt: skip
    if final != 0 or not row["one_line"]:
        print(said, again.output.read_text(), file=sys.stderr)
    if final == 0 and row["identical"]:
        clear(place)
    return row


def finished(found: dict[str, str] | None) -> dict[str, str] | None:
    """What a product holds, without what its writer has not yet removed of the unfinished archive (object stores)."""
    return None if found is None else {key: each for key, each in found.items() if f"/{UNFINISHED}/" not in key}


def resume(case: Case, kill: Kill, place: Place, run: Run, log: Log) -> Run:
    """Run the command again; on the same cluster, if that lives."""
    words = case.job.words(place, 1) + ["--overwrite"] * kill.overwrite
    if not kill.whole:
        return start(words, run.cluster, case.workers, log, place.local.parent)
    return launch(case, place, 1, log, overwrite=kill.overwrite)


def lost(before: Iterable[Event], after: Iterable[Event]) -> int:
    """Units, steps of a recipe and checkpoints that were complete, and that the resumed run has computed again."""
    complete = {event.about for event in before if event.kind == "done"}
    again = {event.about for event in after if event.kind == "begun"}
    saved = max((int(about.split()[1]) for about in complete if about.startswith("step ")), default=0)
    loaded = [int(event.about.split()[1]) for event in after if event.kind == "loaded"]
    return len(complete & again) + int(any(step < saved for step in loaded))


def names(place: Place) -> set[str]:
    """Everything that lies where a command writes."""
    found = {path.name for path in place.local.iterdir()}
    root = located(place.out)
    if isinstance(root, Remote):
        fs, path = root.fs()
        found |= {key.removeprefix(path).strip("/").partition("/")[0] for key in fs.find(path)}
    return found


def copy(source: Place, target: Place) -> None:
    """The products of a run, for one that replaces them."""
    shutil.copytree(source.local, target.local, dirs_exist_ok=True)
    there, here = located(source.out), located(target.out)
    if isinstance(there, Remote) and isinstance(here, Remote):
        (fs, path), (_, goal) = there.fs(), here.fs()
        for key in fs.find(path):
            fs.copy(key, goal + key.removeprefix(path))


def clear(place: Place) -> None:
    """Remove what a run has made."""
    shutil.rmtree(place.local)
    if isinstance(located(place.out), Remote):
        ask(located(place.out).remove)


@click.command()
@click.option("--kills", "count", default=100, show_default=True, help="Number of kills in all.")
@click.option("--only", multiple=True, type=click.Choice(list(JOBS)), help="Kill this command only; may be repeated.")
@click.option("--stores", multiple=True, default=("local", "s3"), show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments and the points.")
@click.option("--table", type=click.Path(path_type=Path), help="CSV file of all kills.")
def main(count: int, only: tuple[str, ...], stores: tuple[str, ...], seed: int, table: Path | None) -> None:
    """Kill commands, run them again, and count what is lost."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="sdaxr-kills-") as folder:
        inputs = Path(folder) / "inputs"
        ask(write_inputs, inputs)
        import_everything(lambda: rehearse(Path(folder), inputs))
        cells = [
            (name, store, workers)
            for name, store, workers in itertools.product(only or JOBS, stores, (0, WORKERS))
            if not workers or JOBS[name].cluster
        ]
        rows = []
        with s3_server() if "s3" in stores else contextlib.nullcontext("") as url:
            base = Place(inputs, Path(folder), url)
            for index, cell in enumerate(cells):
                each = len(range(index, count, len(cells)))
                for row in measured(Case(*cell, base), each, np.random.default_rng([seed, index])):
                    rows.append(row)
                    write(table, rows)
                    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    summary(rows)


def measured(case: Case, count: int, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """A row for each kill of a case."""
    old, new = (reference(case, seed) for seed in (0, 1))
    number = itertools.count()
    for kill in kills(case, new.passages, count, random):
        row = measure(case, kill, old, new, next(number))
        while row is None:
            # The command was faster than the signal, or has not passed the point as often.
            sooner = Kill(kill.number, kill.overwrite, 0.9 * random.random(), None, kill.whole)
            row = measure(case, sooner, old, new, next(number))
        yield row


def rehearse(folder: Path, inputs: Path) -> None:
    """Run every command once."""
    import distributed  # noqa: F401
    import s3fs  # noqa: F401

    from sdaxr.commands.cli import main

    for name, job in JOBS.items():
        local = folder / f"rehearsal-{name}"
        local.mkdir()
        main(job.words(Place(inputs, local, f"{local}/"), 0), standalone_mode=False)


def write(table: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write a CSV, if there is a path for it."""
    if table is not None:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def summary(rows: list[dict[str, Any]]) -> None:
    """Print a table of Markdown: one line for each command, store and number of workers."""
    counted = ("complete", "lost", "falsely_complete", "ended", "identical", "left_over")
    print("| command | store | workers | ended by a signal | complete then | lost | falsely complete |", end="")
    print(" resumed | bit-identical | left over |\n|" + "---|" * 10)
    keys = list(dict.fromkeys((row["command"], row["store"], row["workers"]) for row in rows))
    for key in [*keys, None]:
        part = [r for r in rows if key in (None, (r["command"], r["store"], r["workers"]))]
        cells = ("all", "", "") if key is None else key
        print(f"| {' | '.join(map(str, (*cells, len(part), *(sum(r[c] for r in part) for c in counted))))} |")


if __name__ == "__main__":
    main()
