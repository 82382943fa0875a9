"""How the command line tells users of their mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

USAGE_ERROR = 2


class OneLineErrors(TyperGroup):
    """Turns a user's mistakes into one line on stderr and exit code 2, without a traceback."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the options."""
        if not args:  # prints the help
            return super().make_context(info_name, args, parent, **extra)
        with _one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _one_line_errors():
            return super().invoke(ctx)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        message = str(error)
    except Exception as error:
        # click's own errors, by their method: where their class lives depends on typer's version.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
    else:
        return
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(USAGE_ERROR)
