"""The group of commands: their order, and errors of one line."""

from __future__ import annotations

import sys
from typing import Any

import click

from sdaxr.schema import SdaxrError, nearest


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
        except (click.Abort, KeyboardInterrupt):
            click.echo("sdaxr: interrupted; run the same command again to resume", err=True)
            sys.exit(130)
        # Without standalone mode --help and --version return their exit code.
        sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str) -> None:
    click.echo(f"sdaxr: {' '.join(message.split())}", err=True)
    sys.exit(2)
