"""Invariant: ``series`` answers offline, writes what it is told to, and a mistake is one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rich.console
import rich.status  # noqa: F401  # draws a random number when it is first imported: here, not in a test
from typer.testing import CliRunner

import tl_scopes as tls
from tl_scopes.cli.main import app
from tl_scopes.cli.series import System


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, demo_model: Any) -> Any:
    monkeypatch.setattr(tls, "load_model", lambda name, **options: demo_model)

    def command(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["series", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return command


def test_several_scopes_with_figure_page_and_json(run: Any, tmp_path: Path) -> None:
    svg, page, data = (str(tmp_path / name) for name in ("f.svg", "f.html", "f.json"))
    out = run(
        "--length", "20", "--scope", "temperature", "--scope", "semantic", "--plot", svg, "--html", page, "--json", data
    )
    for text in ("temperature: ", "semantic: ", "Forecast: ", "Truth: ", "Proposition 1: "):
        assert text in out
    read = json.loads(Path(data).read_text(encoding="utf-8"))
    assert list(read["influence"]) == ["temperature", "semantic"]
    assert len(read["numbers"]) == 20
    assert Path(svg).stat().st_size > 10_000
    html = Path(page).read_text(encoding="utf-8")
    assert html.count("<title>number ") == 40
    assert "CircuitsVis" not in html, "nothing that it does not need"


@pytest.mark.parametrize("system", [s.value for s in System])
def test_every_system(run: Any, system: str) -> None:
    read = json.loads(run("--system", system, "--length", "12", "--seed", "5", "--json", "-"))
    make = getattr(tls.timeseries, System(system).name)
    assert read["series"] == make(13, seed=5)[:-1].tolist()
    assert read["truth"] == make(13, seed=5)[-1]


def test_a_csv_column(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n" + "".join(f"{i},{(i * 7) % 5}\n" for i in range(12)), encoding="utf-8")
    whole = json.loads(run("--csv", str(file), "--column", "b", "--json", "-"))
    assert (len(whole["series"]), whole["truth"]) == (11, float(11 * 7 % 5))
    part = json.loads(run("--csv", str(file), "--column", "b", "--length", "6", "--json", "-"))
    assert (part["series"], part["truth"]) == (whole["series"][:6], whole["series"][6])


def test_rolling(run: Any, tmp_path: Path) -> None:
    out = run("--system", "periodic", "--length", "14", "--rolling", "--plot", str(tmp_path / "r.png"))
    assert "persistence" in out
    assert len([line for line in out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]) == 8
    assert (tmp_path / "r.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--length", "1"), "needs at least 2 numbers"),
        (("--column", "b"), "give both"),
        (("--csv", "nowhere.csv"), "there is no such file"),
        (("--plot", "/nowhere/x.png"), "there is no folder"),
        (("--length", "200"), "more than the model's context"),
        (("--rolling", "--json", "-"), "--rolling takes one --scope"),
    ],
)
def test_a_mistake_is_said(run: Any, arguments: tuple[str, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        run(*arguments)


def test_too_short_a_column_is_refused(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="need at least 3"):
        run("--csv", str(file))
    file.write_text("a\n1\n2\n3\n4\n", encoding="utf-8")
    with pytest.raises(ValueError, match="at most 3 to see"):
        run("--csv", str(file), "--length", "4")
