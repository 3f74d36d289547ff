"""The group of commands: their order, and errors and signals that end with one line."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import click

from sdaxr.commands.starting import ENDING, last_words
from sdaxr.schema import SdaxrError, nearest


class Ended(BaseException):
    """A signal asks the process to end.

    No `Exception`, so that nothing that goes on after errors goes on after it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Commands(click.Group):
    """Commands are listed in the order of the work; errors are one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"found the command {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        if not standalone_mode:
            return super().main(*args, **extra)
        try:
            with _signals_raised():
                result = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            _fail(error.format_message())
        except SdaxrError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
        except Ended as ended:
            _end(last_words(ended.number), 128 + ended.number)
        except (click.Abort, KeyboardInterrupt):
            _end(last_words(), 128 + signal.SIGINT)
        # Without standalone mode --help and --version return their exit code.
        sys.exit(result if isinstance(result, int) else 0)


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Signals that ask to end raise `Ended`: what is being written is removed, and what is complete stays."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals.
        yield
        return
    # What the parent has told this process to ignore, as nohup does, stays ignored.
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _raise) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(number)


def _fail(message: str) -> NoReturn:
    _end(f"sdaxr: {' '.join(message.split())}", 2)


def _end(words: str, code: int) -> NoReturn:
    # Reads and writes that nobody waits for any more, which it reports when the process ends.
    logging.getLogger("asyncio").disabled = True
    click.echo(words, err=True)
    sys.exit(code)
