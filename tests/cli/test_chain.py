"""Invariant: the command follows what the model writes, or the text that it is given, back to the prompt with the library's
numbers; a mistake is one line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import torch

import tl_scopes as tls

PROMPT = "German: der Hund sieht die Katze. English: the"


def test_without_a_prompt_it_follows_a_translation_word_by_word(answer) -> None:
    out = answer("chain")
    assert out.startswith("Semantic Scope: what 'cat' (step 4 of 4) rests on")
    assert " ← " in out.splitlines()[1] and "all hops" in out


def test_it_writes_the_librarys_numbers_of_a_given_text_and_goes_on(answer, demo_model, tmp_path: Path) -> None:
    page, rows = tmp_path / "x.html", tmp_path / "rows"
    given = (
        "chain",
        PROMPT,
        "--text",
        " dog sees the cat",
        "--unit",
        "word",
        "--prompt-unit",
        "sentence",
        "--frozen",
        "all",
    )
    saved = json.loads(answer(*given, "--answer", "sees", "--json", "-", "--html", str(page), "--out", str(rows)))
    options = {"units": "word", "prompt_units": "sentence", "frozen": "all"}
    found = tls.chain(demo_model, (PROMPT, " dog sees the cat"), answer="sees", **options)
    assert torch.equal(tls.Chain.from_dict(saved).scores, found.scores)
    assert saved["weights"] == found.to_dict()["weights"]
    assert "what &#x27;sees&#x27; (step 2 of 4) rests on" in page.read_text(encoding="utf-8")
    assert len(list(rows.glob("shard-*.jsonl"))) == 1


def test_it_writes_again_without_the_strongest(answer) -> None:
    out = answer("chain", PROMPT, "--generate", "4", "--unit", "word", "--verify")
    assert "Regenerated, removing the strongest unit of the prompt" in out


def test_it_takes_baselines_and_a_foil(answer, demo_model) -> None:
    given = ("chain", PROMPT, "--text", " dog sees", "--unit", "word", "--json", "-")
    for own, options in (
        (("--method", "gradient_norm"), {"method": "gradient_norm"}),
        (("--method", "contrast", "--foil", " cat"), {"method": "contrast", "foil": " cat"}),
    ):
        found = tls.chain(demo_model, (PROMPT, " dog sees"), units="word", **options)
        assert torch.equal(tls.Chain.from_dict(json.loads(answer(*given, *own))).scores, found.scores)


def test_mistakes_are_one_line(refused) -> None:
    assert "not in the written text" in refused("chain", PROMPT, "--text", " dog sees", "--answer", "wolf", loads=True)
    with mock.patch.object(tls, "chain", side_effect=AssertionError("rows were made")):
        said = refused("chain", "the dog sees", "--text", " the cat. the dog", "--verify", loads=True)
    assert "this one has 1 that may go: give a finer --prompt-unit, e.g. word" in said
    assert "leave out --generate" in refused("chain", PROMPT, "--text", " dog", "--generate", "3")
    assert "--text comes after a prompt" in refused("chain", "--text", " dog")
    assert "--unit turn is for chats" in refused("chain", PROMPT, "--unit", "turn")
    assert "method 'contrast' needs a foil: give --foil" in refused("chain", PROMPT, "--method", "contrast")
    assert "--rank: method 'gradient_norm' does not" in refused(
        "chain", PROMPT, "--method", "gradient_norm", "--rank", "2"
    )
    assert "--frozen: method 'leave_one_out' does not" in refused(
        "chain", PROMPT, "--method", "leave_one_out", "--frozen", "all"
    )
    assert "'random'; expected semantic, " in refused("chain", PROMPT, "--method", "random")
    assert "unknown method" in refused("chain", PROMPT, "--method", "nothing")


def test_the_help_says_how_much_is_written_where_nothing_is_asked_for(run, demo_model, monkeypatch) -> None:
    written: list[int] = []
    real = tls.generate

    def count(model, prompt, *, max_new_tokens: int):
        written.append(max_new_tokens)
        return real(model, prompt, max_new_tokens=2)

    monkeypatch.setattr(tls, "generate", count)
    for given in ([], [PROMPT], [PROMPT, "--generate", "3"]):
        assert run("chain", *given, "--unit", "word")[0] == 0
    assert written == [4, 40, 3]
    said = " ".join(run("chain", "--help")[1].replace("│", " ").split())
    assert "each unit of them is explained" in said and "Default: 40; of the demo 4." in said
    assert "as a whole" not in said and "default: 0" not in said.split("--generate")[1].split("--answer")[0]
