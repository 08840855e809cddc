"""Invariant: ``sinks`` answers offline with the library's numbers; a mistake is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tl_scopes.results.sinks import AttentionSinks

QUICK = ["--method", "semantic", "--unrelated", "0"]
PROMPT = "German: der Hund sieht die Katze. English: the"


@pytest.mark.slow
@pytest.mark.one_lens
def test_it_prints_shares_and_writes_what_was_asked_for(answer: Callable[..., str], tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"s.{name}") for name in ("html", "png", "json", "csv")}
    arguments = ["--html", files["html"], "--plot", files["png"], "--json", files["json"], "--csv", files["csv"]]
    out = answer("sinks", *QUICK, *arguments)
    for text in ("Share of influence", "semantic", "0 BOS"):
        assert text in out
    saved = AttentionSinks.load(files["json"])
    assert out == f"{saved}\n"
    assert Path(files["csv"]).read_text(encoding="utf-8") == saved.to_frame().to_csv(index=False)
    assert "sinks left out" in Path(files["html"]).read_text(encoding="utf-8")
    assert Path(files["png"]).stat().st_size > 5000


def test_it_fits_in_a_terminal_of_80_columns(answer: Callable[..., str]) -> None:
    assert max(map(len, answer("sinks", "--unrelated", "0").splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--n-first", "0"], "--n-first"),
        (["--unrelated", "-1"], "--unrelated"),
        (["--method", "magic"], "unknown method"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("sinks", PROMPT, *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([PROMPT, "--multiple", "0.5"], "above 1"),
        ([""], "prompt is empty"),
        ([PROMPT, "--rank", "2"], "does not read it"),
    ],
)
def test_what_the_library_refuses_is_one_line(refused: Callable[..., str], arguments: list[str], reason: str) -> None:
    assert reason in refused("sinks", *arguments, *QUICK, loads=True)
