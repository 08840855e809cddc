"""Invariant: ``layers`` answers offline with the library's numbers; a mistake is one line and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS
from tl_scopes.results.influence import HeadInfluence, LayerInfluence

PROMPT = "German: der Hund sieht die Katze. English: the"


def test_it_shows_every_layer_and_writes_what_was_asked_for(
    answer: Callable[..., str], demo_model: Any, tmp_path: Path
) -> None:
    files = {name: str(tmp_path / f"l.{name}") for name in ("html", "png", "json", "csv")}
    arguments = ["--html", files["html"], "--plot", files["png"], "--json", files["json"], "--csv", files["csv"]]
    out = answer("layers", PROMPT, "--target", " dog", *arguments)
    assert "Semantic Scope by layer: ' dog'" in out
    for layer in ("final_post", "0_pre"):
        assert layer in out
    saved = LayerInfluence.load(files["json"])
    assert saved.relative
    wanted = tls.layer_influence(demo_model, PROMPT, target=" dog", relative=True)
    assert saved.scores.tolist() == wanted.scores.tolist()
    assert Path(files["csv"]).read_text(encoding="utf-8") == saved.to_frame().to_csv(index=False)
    assert "tls-map" in Path(files["html"]).read_text(encoding="utf-8")
    assert Path(files["png"]).stat().st_size > 5000


def test_tokens_without_influence_are_not_among_the_strongest(answer: Callable[..., str]) -> None:
    out = answer("layers", PROMPT, "--target", " dog")
    (last,) = [line for line in out.splitlines() if line.startswith("final_post")]
    assert last.split()[1] == "the"
    assert len(last.split()) == 3, "only the position that is read"


def test_special_tokens_are_left_out_unless_asked_for(answer: Callable[..., str], tmp_path: Path) -> None:
    for option, hidden in (("--no-bos", {0}), ("--bos", set())):
        file = tmp_path / "l.json"
        answer("layers", PROMPT, option, "--json", str(file))
        assert LayerInfluence.load(file).attribution.hidden == hidden


def test_pictures_have_one_scale_per_row_on_request(answer: Callable[..., str], tmp_path: Path) -> None:
    pages = {}
    for option in ("--per-row", "--no-per-row"):
        files = {name: tmp_path / f"l.{name}" for name in ("html", "png", "json", "csv")}
        given = [s for name, f in files.items() for s in ("--plot" if name == "png" else f"--{name}", str(f))]
        answer("layers", PROMPT, option, *given)
        pages[option] = files["html"].read_text(encoding="utf-8")
        saved = LayerInfluence.load(files["json"])
        assert pages[option] == saved.html(per_row=option == "--per-row")
        assert files["csv"].read_text(encoding="utf-8") == saved.to_frame().to_csv(index=False)
    assert "rows cannot be compared" in pages["--per-row"] and pages["--per-row"] != pages["--no-per-row"]


def test_heads_signed_and_as_sensitivity(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    file = tmp_path / "h.json"
    assert "by head" in answer("layers", "--heads", "--json", str(file))
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    wanted = tls.head_influence(demo_model, shown.prompt, target=shown.target)
    assert HeadInfluence.load(file).scores.tolist() == wanted.scores.tolist()
    out = answer("layers", "--heads", "--sensitivity", "--method", "fisher", "--rank", "2", "--json", "-")
    assert json.loads(out)["kind"] == "sensitivity"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([PROMPT, "--heads", "--raw"], "--raw is about layers"),
        ([PROMPT, "--sensitivity"], "give --heads too"),
        ([PROMPT, "--method", "magic"], "unknown method 'magic'"),
        ([PROMPT, "--method", "temperature", "--target", " dog"], "does not read it"),
        (["--model", "gpt2"], "give a PROMPT"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("layers", *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--heads", "--method", "fisher", "--rank", "2"], "--kind sensitivity"),
    ],
)
def test_what_the_library_refuses_is_one_line(refused: Callable[..., str], arguments: list[str], reason: str) -> None:
    assert reason in refused("layers", PROMPT, *arguments, loads=True)
