"""Invariant: ``matrix`` shows a row per target, and its files are the library's matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS

PROMPT = "German: der Hund sieht die Katze. English: the dog"


def test_it_shows_every_target_and_writes_what_was_asked_for(
    answer: Callable[..., str], demo_model: Any, tmp_path: Path
) -> None:
    page, table, saved = tmp_path / "m.html", tmp_path / "m.csv", tmp_path / "m.json"
    out = answer("matrix", "--html", str(page), "--csv", str(table), "--json", str(saved))
    assert "sieht" in out
    assert "top prediction" in out
    assert "<html" in page.read_text(encoding="utf-8")
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    wanted = tls.attribution_matrix(demo_model, shown.prompt + shown.target).without("special")
    assert table.read_text(encoding="utf-8") == wanted.to_frame().to_csv()
    assert tls.AttributionMatrix.load(saved).to_dict() == wanted.to_dict()
    assert saved.read_bytes() == wanted.save(tmp_path / "w.json").read_bytes()


def test_json_on_standard_output_is_alone_there(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    out = answer("matrix", PROMPT, "--method", "fisher", "--rank", "2", "--bos", "--json", "-")
    wanted = tls.attribution_matrix(demo_model, PROMPT, method="fisher", rank=2).without("nothing")
    assert out == wanted.save(tmp_path / "w.json").read_text(encoding="utf-8")


def test_frozen_parts_are_those_of_every_command(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    saved = tmp_path / "m.json"
    assert "(everything frozen)" in answer("matrix", PROMPT, "--bos", "--frozen", "all", "--json", str(saved))
    wanted = tls.attribution_matrix(demo_model, PROMPT, frozen="all").without("nothing")
    assert tls.AttributionMatrix.load(saved).to_dict() == wanted.to_dict()
    page = tmp_path / "t.html"
    for command, more in {
        "trace": ("--no-verdict", "--by-position", "2", "--html", str(page)),
        "layers": (),
        "verify": ("--top", "1"),
        "sinks": ("--unrelated", "0", "--method", "semantic"),
    }.items():
        out = answer(command, PROMPT, "--frozen", "norms", "--frozen", "attention", *more)
        assert "(norms and attention frozen)" in out, command
    assert "over the mean share" in page.read_text(encoding="utf-8")
    out = answer("patch", "--k", "2", "--n-random", "2", "--layer", "0", "--frozen", "all")
    assert "(everything frozen)" in out


def test_rows_and_columns_by_word(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    saved = tmp_path / "w.json"
    out = answer("matrix", PROMPT, "--words", "--json", str(saved), "--plot", str(tmp_path / "w.png"))
    wanted = tls.attribution_matrix(demo_model, PROMPT).by_word()
    assert tls.AttributionMatrix.load(saved).to_dict() == wanted.to_dict()
    assert f"sources of {len(wanted)} targets" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "gpt2"], "give a PROMPT with --model"),
        ([PROMPT, "--method", "magic"], "unknown method 'magic'; expected semantic, contrast"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("matrix", *arguments)
