"""What signals do while the command is starting: its libraries take seconds to import, before it can catch anything.

The package imports this module first; it imports nothing itself. In any other program it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

# From the keyboard, from a scheduler before the time is up, and from a terminal that is closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def last_words(number: int | None = None) -> str:
    """The line that a command says when a signal ends it."""
    how = "" if number is None else f" by {signal.Signals(number).name}"
    return f"sdaxr: interrupted{how}; run the same command again to resume"


def listen() -> None:
    """End with one line, and the exit code of the shell, until the command does so itself (`sdaxr.commands.group`)."""
    if not _is_command():
        return
    for number in ENDING:
        # What the parent has told this process to ignore, as nohup does, stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _is_command() -> bool:
    """Whether this process is ``sdaxr`` or ``python -m sdaxr.commands``, and not one that such a process has made."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # until the module is found
        return "-msdaxr.commands" in "".join(sys.orig_argv)
    return os.path.basename(program) == "sdaxr" and program in sys.orig_argv


def _end(number: int, frame: FrameType | None) -> None:
    # An exception would end as a traceback of whatever is being imported; nothing is open yet.
    os.write(2, f"{last_words(number)}\n".encode())
    os._exit(128 + number)
