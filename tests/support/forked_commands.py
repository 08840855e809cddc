"""Each command in a process of its own, at the price of what libraries take to be imported once: forked from one process
that has imported them, and nothing of this package.

    python forked_commands.py FOLDER '{"trace": [], "layers": ["--heads"]}'

writes FOLDER/<command>.<encoding>: what each prints where standard output has that encoding. An error at the end names the
commands that failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

ENCODINGS = ("ascii", "cp1252")


def print_into(folder: Path, name: str, given: list[str]) -> None:
    """Run one command in this process, with each encoding."""
    from tl_scopes.cli.main import main

    sys.argv = ["tl-scopes", name, *given]
    for encoding in ENCODINGS:
        sys.stderr.reconfigure(encoding=encoding)  # type: ignore[union-attr]
        with (folder / f"{name}.{encoding}").open("w", encoding=encoding) as out, contextlib.redirect_stdout(out):
            try:
                main()
            except SystemExit as stop:
                if stop.code:
                    raise


def print_all_into(folder: Path, commands: dict[str, list[str]]) -> None:
    import transformer_lens.model_bridge  # noqa: F401

    assert "tl_scopes" not in sys.modules
    failed = []
    for name, given in commands.items():
        child = os.fork()
        if not child:
            print_into(folder, name, given)
            return
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    print_all_into(Path(sys.argv[1]), json.loads(sys.argv[2]))
