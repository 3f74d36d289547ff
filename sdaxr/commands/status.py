"""How far a file is that is being made, as a text, and the end of an archive whose units are all there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdaxr.archives.members import listed
from sdaxr.archives.paths import Location, located
from sdaxr.archives.progress import Progress, progress
from sdaxr.archives.progress import finish as finish_archive
from sdaxr.archives.writers import moment_text
from sdaxr.schema import ArchiveError

# Processes in a table, the last ones that began.
_LISTED = 40


def status(store: str | Location, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """How far the archive, or the training of the prior, at ``store`` is, as a text.

    Raises
    ------
    ArchiveError
        If nothing is there, or something that is not made in parts.
    """
    place = located(store, storage_options)
    if place.suffix == ".safetensors":
        return _training(place)
    return text_of(progress(place))


def finish(store: str | Location, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Finish the archive at ``store``; what is there, as a text. Raises as `sdaxr.archives.progress.finish`."""
    finish_archive(store, storage_options)
    return text_of(progress(store, storage_options))


def text_of(found: Progress) -> str:
    """A table of what is done and missing, and one of the processes."""
    state = "finished" if found.finished else "not finished"
    lines = [f"{found.name}: {state}, {len(found.complete)} of {found.size} units ({found.unit}) are complete"]
    for name, numbers in (("complete", found.complete), ("pending", found.pending)):
        if numbers:
            lines.append(f"{name:9} {len(numbers):6}  {listed(numbers)}")
    lines += [f"{'failed':9} {index:6}  {' '.join(reason.split())}" for index, reason in found.failed.items()]
    if found.written:
        newest = max(found.written, key=lambda index: found.written[index])
        first, last = min(found.written.values()), found.written[newest]
        lines.append(f"written from {moment_text(first)} to {moment_text(last)} ({found.unit} {newest})")
    if not found.finished and not found.pending and not found.failed:
        lines.append("all units are complete: run the same command again, or 'sdaxr finish'")
    return "\n".join(lines + _processes(found))


def _processes(found: Progress) -> list[str]:
    import pandas as pd

    done, rows = set(found.complete), []
    for writer in sorted(found.writers, key=lambda each: each.began)[-_LISTED:]:
        own = range(writer.first, writer.stop)
        row = {"process": f"{writer.host}:{writer.process}", "job": writer.job, "began": writer.began}
        rows.append(row | {"units": f"{writer.first}:{writer.stop}", "complete": f"{len(done & set(own))}/{len(own)}"})
    return ["", str(pd.DataFrame(rows).to_string(index=False))] if rows else []


def _training(place: Location) -> str:
    from sdaxr.prior.checkpoint import checkpoint_of, progress_of

    checkpoint = checkpoint_of(place)
    if checkpoint.exists():
        step, seconds = progress_of(checkpoint)
        return f"{place}: not finished, {step} steps in {seconds / 60:.1f} minutes are in '{checkpoint}'"
    if place.exists():
        return f"{place}: finished"
    raise ArchiveError(f"there is nothing at '{place}', nor a checkpoint beside it; expected a prior, or its training")
