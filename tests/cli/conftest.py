"""The command line, run in this process."""

from __future__ import annotations

import sys

import pytest

import tl_scopes as tls
from tl_scopes.cli import main as cli


@pytest.fixture
def run(monkeypatch, capsys, demo_model):
    """Run the command line in this process on the demo model that the tests share."""
    monkeypatch.setattr(tls, "load_model", lambda name, **options: demo_model)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tl-scopes", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return command
