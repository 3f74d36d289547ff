"""Who fills an archive: each process leaves a note in it, with its machine, its job, its units and when it began."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

WRITERS = "writers"

# Variables of the environment that number a job: those of an array of jobs first.
_JOBS = (
    ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
    ("SLURM_JOB_ID",),
    ("PBS_JOBID",),
    ("LSB_JOBID", "LSB_JOBINDEX"),
    ("LSB_JOBID",),
    ("JOB_ID", "SGE_TASK_ID"),
    ("JOB_ID",),
)


@dataclass(frozen=True)
class Writer:
    """A process that fills an archive.

    Attributes
    ----------
    host, process
        Name of its machine, and its number there.
    job
        Number of its job, empty outside of a batch system.
    first, stop
        Its units: the number of the first one, and that after the last one.
    began
        When it began, as a text (ISO 8601, UTC).
    """

    host: str
    process: int
    job: str
    first: int
    stop: int
    began: str

    @classmethod
    def here(cls, units: range) -> Writer:
        """This process, which does some units."""
        return cls(socket.gethostname(), os.getpid(), _job(), units.start, units.stop, moment_text(datetime.now(UTC)))

    @property
    def name(self) -> str:
        """A name that no other process has."""
        return f"{self.host}-{self.process}-{self.first}"

    def to_bytes(self) -> bytes:
        """The note."""
        return json.dumps(asdict(self)).encode()


def read_writers(notes: Iterable[bytes]) -> list[Writer]:
    """The processes that have left these notes, in the order of their units; torn notes are left out."""
    found = []
    for note in notes:
        try:
            found.append(Writer(**json.loads(note)))
        except (ValueError, TypeError):
            continue
    return sorted(found, key=lambda writer: (writer.first, writer.began))


def moment_text(moment: datetime) -> str:
    """A moment as a text, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _job() -> str:
    for names in _JOBS:
        if all(os.environ.get(name) for name in names):
            return "_".join(os.environ[name] for name in names)
    return ""
