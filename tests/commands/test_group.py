"""The group of commands: signals end each with one line and the exit code of the shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import click
import pytest
import xarray as xr
from click.testing import CliRunner, Result

import sdaxr
from sdaxr.commands.group import Commands


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
    words = ("generate", "lorenz96", "--trajectories", "12", "--steps", "3000", "--batch", "1", "--quiet")
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
    subprocess.run([*command, store], check=True)
    subprocess.run([*command, tmp_path / "b.zarr"], check=True)
    xr.testing.assert_identical(sdaxr.open_archive(store), sdaxr.open_archive(tmp_path / "b.zarr"))
