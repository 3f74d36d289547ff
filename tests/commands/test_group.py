"""The group of commands: signals end each with one line and the exit code of the shell."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import xarray as xr
from click.testing import CliRunner, Result

import sdaxr
from sdaxr.commands import starting
from sdaxr.commands.cli import main
from sdaxr.commands.group import Commands
from sdaxr.commands.starting import ENDING
from sdaxr.schema import SdaxrError


def command_that(does) -> Commands:
    @click.group(cls=Commands)
    def main() -> None:
        """One command."""

    main.command("work")(lambda: does())
    return main


def ended_by(number: signal.Signals) -> Result:
    def work() -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    return CliRunner().invoke(command_that(work), ["work"])


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """Signals end a process, as they do not where the tests run in the background of a shell or under nohup."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_one_line_and_the_code_of_the_shell(number):
    before = signal.getsignal(number)
    result = ended_by(number)
    assert result.exit_code == 128 + number
    assert result.stderr == f"sdaxr: interrupted by {number.name}; run the same command again to resume\n"
    assert signal.getsignal(number) is before


def test_what_goes_on_after_errors_does_not_go_on_after_a_signal():
    def work() -> None:
        for _ in range(2):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            except Exception:  # as of a unit that has failed
                click.echo("went on")

    result = CliRunner().invoke(command_that(work), ["work"])
    assert (result.exit_code, result.stdout) == (143, "")


@pytest.mark.parametrize("ending", [SdaxrError("what is wrong"), KeyboardInterrupt(), click.UsageError("no such flag")])
def test_reads_that_nobody_waits_for_say_nothing_after_the_one_line(monkeypatch, caplog, ending):
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", False)
    loop = asyncio.new_event_loop()
    failed = [loop.create_future()]
    failed[0].set_exception(OSError("the connection was closed"))

    def work() -> None:
        raise ending

    result = CliRunner().invoke(command_that(work), ["work"])
    failed.clear()
    gc.collect()
    loop.close()
    assert len(result.stderr.split()) > 2 and "connection" not in result.stderr + caplog.text


def test_a_signal_that_the_parent_ignores_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = CliRunner().invoke(command_that(lambda: os.kill(os.getpid(), signal.SIGHUP)), ["work"])
        assert (result.exit_code, result.stderr) == (0, "")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_commands_run_in_any_thread():
    results = []
    thread = threading.Thread(
        target=lambda: results.append(CliRunner().invoke(command_that(lambda: click.echo("done")), ["work"]))
    )
    thread.start()
    thread.join()
    assert (results[0].exit_code, results[0].stdout) == (0, "done\n")


def test_what_is_done_before_sigterm_stays_and_the_same_command_goes_on(tmp_path):
    words = ("generate", "lorenz96", "--trajectories", "12", "--steps", "1500", "--batch", "1", "--quiet")
    command = [sys.executable, "-m", "sdaxr.commands", *words, "--store"]
    store = tmp_path / "a.zarr"
    process = subprocess.Popen([*command, store], stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "a.zarr.partial" / "status" / "c"
    while process.poll() is None and not (partial.exists() and len(list(partial.iterdir())) > 1):
        time.sleep(0.01)
    process.terminate()
    assert process.communicate()[1] == "sdaxr: interrupted by SIGTERM; run the same command again to resume\n"
    assert process.returncode == 143 and not store.exists()
    kept = len(list(partial.iterdir()))
    assert 1 < kept < 12
    for each in (store, tmp_path / "b.zarr"):
        assert CliRunner().invoke(main, [*words, "--store", str(each)]).exit_code == 0
    xr.testing.assert_identical(sdaxr.open_archive(store), sdaxr.open_archive(tmp_path / "b.zarr"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("script", [False, True])
def test_a_signal_ends_a_command_that_is_starting_with_the_same_line(tmp_path, number, script):
    """The first library that is imported is one that is never done."""
    (tmp_path / "xarray.py").write_text(f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(60)\n")
    (tmp_path / "sdaxr").write_text("from sdaxr.commands.cli import main\n\nmain()\n")
    words = [str(tmp_path / "sdaxr")] if script else ["-m", "sdaxr.commands"]
    paths = f"{tmp_path}{os.pathsep}{Path(sdaxr.__file__).parents[1]}"
    ended = subprocess.run(
        [sys.executable, *words, "priors"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert ended.returncode == 128 + number
    assert ended.stderr == f"sdaxr: interrupted by {number.name}; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("run.py", ["python", "run.py"]),
        ("-m", ["python", "-m", "pytest"]),
        ("-c", ["python", "-c", "import sdaxr"]),
        ("bin/sdaxr", ["python", "-c", "a process that the command has made"]),
    ],
)
def test_other_programs_keep_their_signals(monkeypatch, program, line):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", line)
    before = [signal.getsignal(number) for number in ENDING]
    starting.listen()
    assert [signal.getsignal(number) for number in ENDING] == before
