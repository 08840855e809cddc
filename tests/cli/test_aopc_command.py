"""Invariant: ``aopc`` and ``ig-path`` answer offline, continue a stopped run, and a mistake is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rich.console
import rich.status  # noqa: F401  # draws a random number when it is first imported: here, not in a test
from typer.testing import CliRunner

import tl_scopes as tls
from tl_scopes.cli.main import app
from tl_scopes.evaluation.aopc import load_aopc


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, demo_model: Any) -> Any:
    monkeypatch.setattr(tls, "load_model", lambda name, **options: demo_model)

    def command(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return command


def test_aopc_prints_the_table_and_continues_the_same_run(run: Any, tmp_path: Path) -> None:
    arguments = ["aopc", "demo:translation", "-n", "3", "--method", "semantic", "--method", "random", "--rank", "2"]
    arguments += ["--out", str(tmp_path / "run")]
    files = ["--csv", str(tmp_path / "t.csv"), "--plot", str(tmp_path / "t.svg")]
    first = run(*arguments, *files, "--rank-plot", str(tmp_path / "r.svg"))
    for text in ("semantic", "random", "fisher@2", "3 prompts"):
        assert text in first
    assert run(*arguments) == first
    assert str(load_aopc(tmp_path / "run")) in first
    assert (tmp_path / "t.csv").read_text().startswith("method,n,aopc,sem")
    for name in ("t.svg", "r.svg"):
        assert (tmp_path / name).stat().st_size > 1000


def test_aopc_of_several_models_has_a_folder_each(run: Any, tmp_path: Path) -> None:
    out = run("aopc", "-n", "6", "--model", "a/b", "--model", "demo", "--method", "random", "--out", str(tmp_path))
    assert "a/b" in out
    assert {p.name for p in tmp_path.iterdir()} == {"a--b", "demo"}


def test_ig_path_prints_the_path_and_writes_the_page(run: Any, tmp_path: Path) -> None:
    out = run("ig-path", "--html", str(tmp_path / "p.html"), "--csv", str(tmp_path / "p.csv"), "--points", "11")
    assert "' dog'" in out
    assert "residual" in out
    assert 'type="range"' in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 12


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("aopc", "no-such-data"), "no such file"),
        (("aopc", "--method", "magic"), "unknown method 'magic'"),
        (("aopc", "--plot", "/nowhere/x.png"), "there is no folder"),
        (("aopc", "--rank-plot", "x.png"), "give --rank"),
        (("aopc", "--preset", "paper", "--ablation", "mean"), "contradicts"),
        (("ig-path", "--points", "1"), "at least 2"),
        (("ig-path", "--model", "gpt2"), "give a PROMPT with --model"),
        (("ig-path", "--target", "doggish"), "a target is one token"),
    ],
)
def test_a_mistake_is_said(run: Any, arguments: tuple[str, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        run(*arguments)


def test_several_processes_need_a_folder(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="give --out FOLDER"):
        run("aopc")
