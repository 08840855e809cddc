"""Invariant: the command answers offline with the right numbers; a mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import families
import pytest
from rich.console import Console

import tl_scopes as tls
from tl_scopes.cli import main as cli
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS
from tl_scopes.views import terminal

PROMPT = "German: der Hund sieht die Katze. English: the"


def test_without_a_prompt_it_shows_three_scopes_of_a_real_prediction(run) -> None:
    code, out, _ = run("trace")
    assert code == 0
    for title in ("Semantic Scope", "Fisher Scope", "Temperature Scope"):
        assert title in out
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    for word in (*shown.causes, shown.target.strip()):
        assert word in out


def test_the_demo_puts_the_planted_cause_first(run) -> None:
    code, out, _ = run("trace", "--json", "-")
    assert code == 0
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    for method, saved in json.loads(out).items():
        scores = [s if p not in saved["special"] else -1.0 for p, s in enumerate(saved["scores"])]
        strongest = saved["str_tokens"][scores.index(max(scores))]
        assert strongest.strip() in shown.causes, method


def test_json_holds_the_numbers_of_the_library(run, demo_model, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    code, _, _ = run("trace", PROMPT, "--scope", "semantic", "--target", " dog", "--json", str(file))
    assert code == 0
    saved = json.loads(file.read_text())["semantic"]
    assert saved["scores"] == tls.semantic_scope(demo_model, PROMPT, target=" dog").scores.tolist()
    assert saved["target_str"] == " dog"


@pytest.mark.parametrize("prompt", [(), (PROMPT,)], ids=["demo", "given"])
def test_a_target_is_left_out_with_a_word_where_the_scope_has_none(run, prompt: tuple[str, ...]) -> None:
    code, out, err = run("trace", *prompt, "--scope", "fisher", "--target", " dog")
    assert code == 0
    assert "the fisher scope has no target; --target is left out" in err
    assert "Fisher" in out
    code, _, err = run("trace", *prompt, "--scope", "temperature")
    assert (code, "target" in err) == (0, False)


def test_contrast_takes_a_foil(run) -> None:
    code, out, _ = run("trace", PROMPT, "--scope", "contrast", "--target", " dog", "--foil", " cat")
    assert code == 0
    assert "to the foil" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["trace", PROMPT, "--target", "dog"], "Did you mean ' dog', with its leading space?"),
        (["trace", ""], "prompt is empty"),
        (["trace", PROMPT, "--pos", "99"], "pos must be in"),
        (["trace", PROMPT, "--scope", "contrast"], "needs a foil"),
        (["trace", PROMPT, "--rank", "0", "--scope", "fisher"], "rank must be in"),
        (["trace", PROMPT, "--json", "/no/such/folder/file.json"], "there is no folder"),
        (["trace", "--model", "gpt2"], "give a PROMPT"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, arguments, reason) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("arguments", [["trace", "--scope", "nonsense"], ["trace", "--nonsense"], ["nonsense"]])
def test_unknown_options_exit_with_2(run, arguments) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_a_model_that_is_not_there_is_a_mistake_too(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["tl-scopes", "trace", "x", "--model", "/no/such/folder"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_matrix_shows_every_target_and_writes_what_was_asked_for(run, tmp_path: Path) -> None:
    page, table, saved = tmp_path / "m.html", tmp_path / "m.csv", tmp_path / "m.json"
    code, out, _ = run("matrix", "--html", str(page), "--csv", str(table), "--json", str(saved))
    assert code == 0
    assert "sieht" in out
    assert "top prediction" in out
    assert "<html" in page.read_text(encoding="utf-8")
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    tokens = tls.load_model("demo").to_tokens(shown.prompt + shown.target)[0]
    assert len(table.read_text().splitlines()) == 1 + len(tokens)
    assert len(tls.AttributionMatrix.load(saved)) == len(tokens)


def test_spectrum_prints_shares_and_draws_them(run, tmp_path: Path) -> None:
    code, out, _ = run("spectrum", PROMPT, "-k", "4", "--plot", str(tmp_path / "s.png"))
    assert code == 0
    assert "rank-1 share" in out
    assert (tmp_path / "s.png").stat().st_size > 10_000


def test_gold_prints_the_table(run) -> None:
    code, out, _ = run("gold", "--corpus", "translation", "-n", "6", "--method", "semantic")
    assert code == 0
    assert "translation" in out
    assert "chance" in out


@pytest.mark.slow
def test_both_ways_of_calling_it_work_in_a_process_of_their_own() -> None:
    blocked = {**os.environ, "PYTHONPATH": str(Path(families.__file__).parent / "no_network")}
    for command in ([str(Path(sys.executable).with_name("tl-scopes"))], [sys.executable, "-m", "tl_scopes"]):
        done = subprocess.run([*command, "trace"], capture_output=True, text=True, env=blocked, check=False)
        assert done.returncode == 0, done.stderr
        assert "sieht" in done.stdout
        assert "Traceback" not in done.stderr


def test_colours_follow_the_rank_of_the_scores(demo_model) -> None:
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog").without("special")
    styles = terminal.token_styles(attr)
    darkness = [0 if s.bgcolor is None else 765 - sum(s.bgcolor.get_truecolor()) for s in styles]
    ranked = [t.pos for t in attr.top(5)]
    assert [darkness[p] for p in ranked] == sorted((darkness[p] for p in ranked), reverse=True)
    assert darkness[ranked[0]] == max(darkness)
    assert styles[0].bgcolor is None, "BOS is left out"


@pytest.mark.parametrize("text", ["</script>", "<img onerror=x>", "[bold]", "שלום", "🦊", "\n", "\x1b[31m", "\t"])
def test_hostile_token_text_is_shown_as_text(text: str, demo_model) -> None:
    attr = tls.semantic_scope(demo_model, PROMPT)
    object.__setattr__(attr, "str_tokens", [text] * len(attr))
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(terminal.view([attr]))
    shown = console.export_text()
    assert terminal.visible(text) in shown
    assert "\x1b" not in shown


def test_html_holds_a_button_for_each_scope_and_works_alone(run, tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    code, out, _ = run("trace", PROMPT, "--html", str(file))
    assert code == 0
    assert "Semantic Scope" in out
    page = file.read_text(encoding="utf-8")
    assert page.count('<input type="radio"') == page.count('class="tls-target"') == 3
    run("trace", PROMPT, "--scope", "fisher", "--html", str(file))
    page = file.read_text(encoding="utf-8")
    assert page.count('class="tls-target"') == 1
    assert '<input type="radio"' not in page


def test_html_in_a_folder_that_is_not_there_is_refused_before_the_work(run) -> None:
    code, _, err = run("trace", PROMPT, "--html", "/no/such/folder/file.html")
    assert code == 2
    assert "there is no folder /no/such/folder" in err
