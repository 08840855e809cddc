"""The command line: parse, call, print.

Heavy imports wait until the arguments are parsed, so that ``--help`` answers at once. A user's mistake ends with one
line on standard error and exit code 2. Each command has a file of its own in this folder.
"""

from __future__ import annotations

import sys

import typer

from tl_scopes.cli.aopc import aopc
from tl_scopes.cli.app import serve
from tl_scopes.cli.gold import gold
from tl_scopes.cli.ig_path import ig_path
from tl_scopes.cli.layers import layers
from tl_scopes.cli.matrix import matrix
from tl_scopes.cli.series import series
from tl_scopes.cli.sinks import sinks
from tl_scopes.cli.spectrum import spectrum
from tl_scopes.cli.support import UsageError
from tl_scopes.cli.trace import trace

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which input tokens caused this prediction? Jacobian Scopes for TransformerLens.",
)


@app.callback()
def _options() -> None:
    """Which input tokens caused this prediction? Jacobian Scopes for TransformerLens."""


for command in (trace, gold, matrix, spectrum, aopc, ig_path, layers, sinks, series, serve):
    app.command("app" if command is serve else command.__name__.replace("_", "-"))(command)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UsageError as error:
        reason = error.format_message()
    except typer.Abort:
        sys.exit(130)
    except (ValueError, TypeError, OSError) as error:
        reason = str(error)
    print("tl-scopes: " + " ".join(reason.split()), file=sys.stderr)
    sys.exit(2)
