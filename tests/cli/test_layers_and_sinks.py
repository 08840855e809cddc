"""Invariant: ``layers`` and ``sinks`` answer offline with the library's numbers; a mistake is one line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
import tl_scopes.views.terminal
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.sinks import AttentionSinks

QUICK = ["--method", "semantic", "--unrelated", "0"]

PROMPT = "German: der Hund sieht die Katze. English: the"


def test_layers_shows_every_layer_and_writes_what_was_asked_for(run: Any, demo_model: Any, tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"l.{name}") for name in ("html", "png", "json")}
    code, out, err = run(
        "layers", PROMPT, "--target", " dog", "--html", files["html"], "--plot", files["png"], "--json", files["json"]
    )
    assert code == 0, err
    assert "Semantic Scope by layer: ' dog'" in out
    for layer in ("final_post", "0_pre"):
        assert layer in out
    saved = LayerInfluence.load(files["json"])
    assert saved.relative
    wanted = tls.layer_influence(demo_model, PROMPT, target=" dog", relative=True)
    assert saved.scores.tolist() == wanted.scores.tolist()
    assert "tls-map" in Path(files["html"]).read_text(encoding="utf-8")
    assert Path(files["png"]).stat().st_size > 5000


def test_heads_signed_and_as_sensitivity(run: Any, demo_model: Any, tmp_path: Path) -> None:
    file = tmp_path / "h.json"
    code, out, err = run("layers", "--heads", "--json", str(file))
    assert code == 0, err
    assert "by head" in out
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    wanted = tls.head_influence(demo_model, shown.prompt, target=shown.target)
    assert HeadInfluence.load(file).scores.tolist() == wanted.scores.tolist()
    code, out, _ = run("layers", "--heads", "--sensitivity", "--method", "fisher", "--rank", "2", "--json", "-")
    assert code == 0
    assert json.loads(out)["kind"] == "sensitivity"


def test_sinks_prints_shares_and_writes_what_was_asked_for(run: Any, tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"s.{name}") for name in ("html", "png", "json")}
    code, out, err = run("sinks", *QUICK, "--html", files["html"], "--plot", files["png"], "--json", files["json"])
    assert code == 0, err
    for text in ("Share of influence", "semantic", "n_bos"):
        assert text in out
    assert str(AttentionSinks.load(files["json"])) in out
    assert "sinks left out" in Path(files["html"]).read_text(encoding="utf-8")
    assert Path(files["png"]).stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["layers", PROMPT, "--method", "temperature", "--target", " dog"], "does not read it"),
        (["layers", PROMPT, "--heads", "--raw"], "--raw is about layers"),
        (["layers", PROMPT, "--sensitivity"], "give --heads too"),
        (["layers", PROMPT, "--heads", "--method", "fisher", "--rank", "2"], "kind='sensitivity'"),
        (["layers", PROMPT, "--method", "contrast"], "needs a foil"),
        (["layers", "--model", "gpt2"], "give a PROMPT"),
        (["layers", PROMPT, "--html", "/no/such/folder/x.html"], "there is no folder"),
        (["sinks", PROMPT, "--n-first", "0", *QUICK], "n_first=0"),
        (["sinks", PROMPT, "--multiple", "0.5", *QUICK], "above 1"),
        (["sinks", "", *QUICK], "prompt is empty"),
        (["sinks", PROMPT, "--json", "/no/such/folder/x.json"], "there is no folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run: Any, arguments: list[str], reason: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in out + err
