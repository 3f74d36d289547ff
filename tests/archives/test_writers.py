"""What a process leaves in an archive about itself."""

from __future__ import annotations

import os
import socket

import pytest

from sdaxr.archives.writers import Writer, read_writers


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
        ({"PBS_JOBID": "5[2].host"}, "5[2].host"),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "1"}, "5_1"),
    ],
)
def test_a_process_knows_its_job(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM", "PBS", "LSB", "JOB_ID", "SGE")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    writer = Writer.here(range(4, 8))
    assert (writer.host, writer.process, writer.job) == (socket.gethostname(), os.getpid(), job)
    assert (writer.first, writer.stop) == (4, 8)


def test_notes_are_read_in_the_order_of_units_and_torn_ones_left_out() -> None:
    first, second = Writer.here(range(4)), Writer.here(range(4, 8))
    torn = [b"", first.to_bytes()[:20], b"[]", b'{"host": "a"}', b"\xff"]
    assert read_writers([second.to_bytes(), *torn, first.to_bytes()]) == [first, second]
