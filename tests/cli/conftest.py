"""The command line, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import rich.console
import rich.status  # noqa: F401  # draws a random number when it is first imported: here, not in a test

import tl_scopes as tls
from tl_scopes.cli import main as cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_model: Any) -> Run:
    """`run(*arguments)`: exit code, standard output and standard error, on the demo model that the tests share."""
    monkeypatch.setattr(tls, "load_model", lambda name, **options: demo_model)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tl-scopes", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return command


@pytest.fixture
def answer(run: Run) -> Callable[..., str]:
    """`answer(*arguments)`: what a command that succeeds prints."""

    def command(*arguments: str) -> str:
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return command


@pytest.fixture
def refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`refused(*arguments)`: the one line that says why, after exit code 2; `loads=False`: no model may be loaded before."""

    def command(*arguments: str, loads: bool = False) -> str:
        if not loads:
            monkeypatch.setattr(tls, "load_model", _loaded_too_early)
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1, err
        assert err.startswith("tl-scopes")
        return err

    return command


def _loaded_too_early(name: str, **options: Any) -> Any:
    raise AssertionError(f"{name} was loaded before the mistake was seen")
