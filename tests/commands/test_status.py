"""What `sdaxr status` and `sdaxr finish` print."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner, Result
from safetensors.numpy import save_file
from toy_archive import CONFIG, template, values

from sdaxr.archives.creation import create_archive
from sdaxr.archives.progress import Progress
from sdaxr.archives.writers import Writer
from sdaxr.commands.cli import main
from sdaxr.commands.status import text_of


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_what_is_done_and_by_whom_is_a_table() -> None:
    moments = {0: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 4: datetime(2026, 1, 2, 3, 14, 5, tzinfo=UTC)}
    writers = [
        Writer("node1", 12, "81_0", 0, 4, "2026-01-02T03:00:00Z"),
        Writer("node2", 7, "", 4, 8, "2026-01-02T02:00:00Z"),
    ]
    found = Progress(
        "p.zarr", "member", False, [0, 1, 4], [2, 3, 5, 6], {7: "DivergenceError:\ntoo large"}, moments, writers
    )
    assert text_of(found).splitlines() == [
        "p.zarr: not finished, 3 of 8 units (member) are complete",
        "complete       3  0-1, 4",
        "pending        4  2-3, 5-6",
        "failed         7  DivergenceError: too large",
        "written from 2026-01-02T03:04:05Z to 2026-01-02T03:14:05Z (member 4)",
        "",
        " process  job                began units complete",
        " node2:7      2026-01-02T02:00:00Z   4:8      1/4",
        "node1:12 81_0 2026-01-02T03:00:00Z   0:4      2/4",
    ]


def test_an_archive_is_followed_to_its_end(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    archive = create_archive(store, template(), "member", CONFIG)
    archive.write(0, values(0))
    archive.fail(2, "DivergenceError: too large")
    assert "not finished, 1 of 4 units" in run("status", store).stdout
    # Under the name of what is there, too.
    assert run("status", f"{store}.partial").stdout == run("status", store).stdout
    missing = run("finish", store)
    assert missing.exit_code == 2 and missing.stdout == ""
    assert missing.stderr.count("\n") == 1
    assert "1, 3 are pending. 1 failed (2: DivergenceError: too large)" in missing.stderr
    for unit in (1, 2, 3):
        archive.write(unit, values(unit))
    assert "all units are complete: run the same command again, or 'sdaxr finish'" in run("status", store).stdout
    done = run("finish", store)
    assert done.exit_code == 0 and "a.zarr: finished, 4 of 4 units (member) are complete" in done.stdout
    assert run("status", store).stdout == done.stdout


def test_a_training_tells_its_steps(tmp_path: Path) -> None:
    prior = tmp_path / "p.safetensors"
    nothing = run("status", prior)
    assert nothing.exit_code == 2 and "nor a checkpoint beside it" in nothing.stderr
    save_file({}, f"{prior}.checkpoint", {"progress": '{"step": 1200, "seconds": 90}'})
    assert "not finished, 1200 steps in 1.5 minutes" in run("status", prior).stdout
    Path(f"{prior}.checkpoint").write_bytes(b"torn")
    assert "is no checkpoint of sdaxr" in run("status", prior).stderr
    Path(f"{prior}.checkpoint").unlink()
    save_file({}, prior)
    assert run("status", prior).stdout == f"{prior}: finished\n"
