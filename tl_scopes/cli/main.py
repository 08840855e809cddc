"""The command line: parse, call, print. Each command has a file of its own in this folder.

Heavy imports wait until the arguments are parsed, so that ``--help`` answers at once. A user's mistake ends with one
line on standard error and exit code 2.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

from tl_scopes import __version__
from tl_scopes.cli import options
from tl_scopes.cli.aopc import aopc
from tl_scopes.cli.app import serve
from tl_scopes.cli.chain import chain
from tl_scopes.cli.check import check
from tl_scopes.cli.gold import gold
from tl_scopes.cli.ig_path import ig_path
from tl_scopes.cli.layers import layers
from tl_scopes.cli.matrix import matrix
from tl_scopes.cli.output import any_terminal
from tl_scopes.cli.patch import patch
from tl_scopes.cli.remedies import in_options
from tl_scopes.cli.run import run
from tl_scopes.cli.series import series
from tl_scopes.cli.sinks import sinks
from tl_scopes.cli.spectrum import spectrum
from tl_scopes.cli.support import quiet
from tl_scopes.cli.trace import trace
from tl_scopes.cli.verify import verify
from tl_scopes.numerics.call_names import call_of

COMMANDS: dict[str, Callable[..., None]] = {
    "trace": trace,
    "matrix": matrix,
    "chain": chain,
    "layers": layers,
    "sinks": sinks,
    "spectrum": spectrum,
    "ig-path": ig_path,
    "verify": verify,
    "patch": patch,
    "gold": gold,
    "aopc": aopc,
    "run": run,
    "series": series,
    "check": check,
    "app": serve,
}
UsageError: Any = typer.BadParameter.__mro__[1]
"""click's error for a wrong command line; typer brings its own copy of click in some versions."""

app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda name: options.RENAMED.get(name, name)},
)


class Refused(Exception):
    """A user's mistake: the command, and what it says of it."""


@app.callback(invoke_without_command=True)
def _start(version: options.Version = False) -> None:
    """Which input tokens caused this prediction? Jacobian Scopes for TransformerLens."""
    if version:
        print(_versions())
        raise typer.Exit
    quiet()


def _versions() -> str:
    """What a report of an error should begin with; imports none of them."""
    from importlib.metadata import version

    names = ("transformer_lens", "torch")
    return f"tl_scopes {__version__} ({', '.join(f'{name} {version(name)}' for name in names)})"


def _named(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose mistakes begin with its name."""

    @functools.wraps(command)
    def named(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except BrokenPipeError:
            raise  # the reader of our output has seen enough
        except (ValueError, TypeError, NotImplementedError, OSError) as error:
            given = [option for option, value in options.items() if value is not None]
            raise Refused(name, in_options(str(error), options_of(name), call_of(error), given)) from error

    return named


def options_of(name: str, program: typer.Typer = app) -> dict[str, str]:
    """What a command's parameters are called on the command line."""
    commands: Any = typer.main.get_command(program)
    return {p.name: p.opts[0] if p.opts[0].startswith("-") else p.metavar for p in commands.commands[name].params}


for _name, _command in COMMANDS.items():
    app.command(_name)(_named(_name, _command))


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    any_terminal()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
    except UsageError as error:
        command = "" if error.ctx is None or error.ctx.parent is None else f" {error.ctx.info_name}"
        reason = error.format_message()
    except Refused as error:
        command, reason = f" {error.args[0]}", error.args[1]
    except typer.Abort:
        sys.exit(130)
    print(f"tl-scopes{command}: {' '.join(reason.split())}", file=sys.stderr)
    sys.exit(2)
