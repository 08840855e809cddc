"""Invariant: what a result or a refusal says holds for what was asked, and a refusal names the call that helps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes import timeseries

PROMPT = "German: der Hund sieht die Katze. English: the"
TOP = "Where no target was given, the model's own top prediction is explained."
AT_LAST = "At the last position no target was given: there the model's own top prediction is explained."
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
CHAT = [{"role": "user", "content": PROMPT}]


def test_a_matrix_does_not_say_of_its_rows_what_holds_for_the_last(demo_model: Any) -> None:
    found = tls.attribution_matrix(demo_model, PROMPT)
    assert found.top_target_flagged
    assert [note for note in found.notes if "top prediction" in note] == []


@pytest.mark.parametrize("call", ["semantic_scope", "input_x_gradient", "leave_one_out"])
def test_of_a_span_the_top_prediction_is_said_of_its_last_position(call: str, demo_model: Any) -> None:
    explain = getattr(tls, call)
    for pos, note in ((-1, TOP), ([-2, -1], AT_LAST), ([-3, -2], None)):
        said = [n for n in explain(demo_model, PROMPT, pos=pos).notes if "top prediction" in n]
        assert said == ([note] if note else [])


def test_the_title_names_the_moment_once(demo_model: Any) -> None:
    for moment in ("mean", "variance"):
        found = tls.scopes(demo_model, "1, 2, 3", methods=["moment"], moment=moment)["moment"]
        assert found.view().title.startswith(f"Moment Scope ({moment}): which tokens")


def test_a_chat_without_bos_says_so_where_other_prompts_have_one(demo_model: Any) -> None:
    def notes(template: str, **how: Any) -> list[str]:
        found = tls.semantic_scope(demo_model, CHAT, chat_options={"chat_template": template}, **how)
        return [note for note in found.notes if "chat template" in note]

    (said,) = notes(TEMPLATE)
    assert "prepend_bos=True puts one there" in said
    assert notes(TEMPLATE, prepend_bos=True) == notes(TEMPLATE, prepend_bos=False) == []
    assert notes("{{ bos_token }}" + TEMPLATE) == []


@pytest.mark.parametrize("prompt", [5, None, 2.5, {5}])
def test_what_is_no_prompt_is_refused_in_one_short_sentence(prompt: Any, demo_model: Any) -> None:
    for call in (tls.semantic_scope, tls.attribution_matrix):
        with pytest.raises(TypeError, match=r"expected a text, token ids, a chat \(a list of messages\)") as refused:
            call(demo_model, prompt)
        assert len(str(refused.value)) < 180 and str(refused.value).count(" or ") < 3


def test_a_baseline_of_another_position_says_which_one_fits(demo_model: Any) -> None:
    other = tls.positional_baseline(demo_model, PROMPT + " dog", unrelated=2)
    found = tls.semantic_scope(demo_model, PROMPT)
    with pytest.raises(ValueError, match=rf"positional_baseline\(model, prompt, method='semantic', pos={found.pos}\)"):
        found.html(baseline=other)


def test_a_series_that_its_scale_does_not_hold_says_that_forecasts_take_the_encoded_one(demo_model: Any) -> None:
    series = timeseries.lorenz(61, seed=1)
    with pytest.raises(ValueError, match=r"rolling_forecast take what encode\(\) gave"):
        timeseries.rolling_forecast(demo_model, series)


def test_a_file_without_numbers_is_not_told_to_name_a_column(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b,c\nx,1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"2 numeric columns; name one of \['b', 'c'\]"):
        timeseries.read_column(file)
    file.write_text("a\nx\n", encoding="utf-8")
    with pytest.raises(ValueError, match="none of its columns .* is numeric"):
        timeseries.read_column(file)


def test_a_chain_prints_no_empty_table_and_no_unit_twice(demo_model: Any) -> None:
    short = str(tls.chain(demo_model, (PROMPT, " dog"), units="word"))
    assert "passes it" not in short
    own = {PROMPT[8:16]: (8, 16), "rest": (17, 46)}
    text = str(tls.chain(demo_model, (PROMPT, " dog sees"), units="word", prompt_units=own))
    assert f"{PROMPT[8:16]} {PROMPT[8:16]}" not in text and "rest " in text


def test_a_verified_chain_counts_in_words(demo_model: Any) -> None:
    found = tls.chain(demo_model, (PROMPT, " dog sees"), units="word", prompt_units="sentence")
    checked = tls.verify_chain(demo_model, found)
    one = replace(checked, drawn=checked.drawn[:1], texts=checked.texts[:3], exhaustive=True)
    assert "the only other unit " in one.sentence
    assert set(one.to_frame()["removed"]) == {"nothing", "strongest", "other"}
    assert "True" not in one.html() and "False" not in one.html()
    assert json.dumps(one.to_dict())
