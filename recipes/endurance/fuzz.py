"""What wrong and foreign files and values do: refused with one line, or one of five things that must not be.

Each of the mutations runs in a process of its own, forked from one that has imported everything, with a limit on time
and memory and an audit of what it executes. See README.md for the rules by which an outcome counts as wrong.

    python recipes/endurance/fuzz.py                    # 1000 mutations, a quarter of an hour on one core
    python recipes/endurance/fuzz.py --only prior --count 50 --show
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from fuzz_data import ARCHIVES, OBSERVATIONS
from fuzz_kinds import PRIORS, RECIPES, Kind, make_bases
from fuzz_mutations import Mutation
from fuzz_process import Outcome, imported_by, in_child
from fuzz_values import OPERATORS, OPTIONS

KINDS = (PRIORS, ARCHIVES, OBSERVATIONS, RECIPES, OPERATORS, OPTIONS)

OUTCOMES = ("refused", "accepted", "traceback", "wrong", "hang", "memory", "executed")


def judged(mutation: Mutation, outcome: Outcome, base: str, kind: Kind) -> tuple[str, str]:
    """The outcome that is counted, one of `OUTCOMES`, and why."""
    if outcome.executed:
        return "executed", ", ".join(outcome.executed)
    if outcome.kind != "accepted":
        return outcome.kind, outcome.detail
    if not outcome.finite:
        return "wrong", "the result is not finite"
    if mutation.breaking and (kind.declared or outcome.digest != base):
        return "wrong", "accepted" if kind.declared else "accepted, and the result is another"
    return "accepted", "the same result" if outcome.digest == base else "another valid file"


def tried(kind: Kind, folder: Path, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Each mutation of a kind with its outcome."""

    def outcome_of(left: Any, work: Path) -> Outcome:
        return in_child(lambda: kind.use(left, work), work)

    for number, (mutation, base) in enumerate(kind.mutations(folder, seed, count)):
        work = folder / f"{kind.name}-{number}"
        work.mkdir()
        word, why = judged(mutation, outcome_of(mutation.left, work), base, kind)
        yield {"kind": kind.name, "number": number, "mutation": mutation.what, "outcome": word, "why": why}


def write(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write a CSV, if there is a path for it."""
    if path is not None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _use_all(kinds: list[Kind], folder: Path) -> None:
    for kind in kinds:
        work = folder / f"{kind.name}-imports"
        work.mkdir()
        os.chdir(work)
        kind.use(kind.bases(folder)[0], work)


@click.command()
@click.option("--only", help="One kind of file or value.")
@click.option("--count", type=int, help="Number of mutations of each kind, in the place of the usual.")
@click.option("--seed", type=int, default=0)
@click.option("--show", is_flag=True, help="Print what is neither refused nor accepted.")
@click.option("--table", type=click.Path(path_type=Path), help="CSV of the counts, by kind.")
@click.option("--cases", type=click.Path(path_type=Path), help="CSV of all cases.")
def main(only: str | None, count: int | None, seed: int, show: bool, table: Path | None, cases: Path | None) -> None:
    rows: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_bases(folder)
        kinds = [kind for kind in KINDS if only in (None, kind.name)]
        # Imported in a child first, so that no thread runs in this process when it forks.
        for name in imported_by(lambda: _use_all(kinds, folder)):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        for kind in kinds:
            found = list(tried(kind, folder, seed, count or kind.count))
            counts = Counter(row["outcome"] for row in found)
            for row in found if show else []:
                if row["outcome"] not in ("refused", "accepted"):
                    print("{kind} {number} [{mutation}] {outcome}: {why}".format(**row), flush=True)
            listed += found
            rows.append({"kind": kind.name, "mutations": len(found), **{o: counts[o] for o in OUTCOMES}})
            print(rows[-1], flush=True)
    total = {"kind": "all"} | {key: sum(row[key] for row in rows) for key in rows[0] if key != "kind"}
    print(total)
    write(table, [*rows, total])
    write(cases, listed)


if __name__ == "__main__":
    main()
