"""Targets that are clicked in the text: those of an answer, and of long texts.

Invariant: exactly the explained tokens can be picked; after each pick every token has the colour of its score in that row, on
the row's own scale; mouse and keyboard do the same; text is literal.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from samples import HOSTILE, matrix

import tl_scopes as tls
from tl_scopes.views.canvas.colours import blend, css
from tl_scopes.views.matrix import MAX_TOKENS
from tl_scopes.views.targets import can_be_clicked

TOKENS = ["<bos>", " a", "\n", " b", " c", " d"]


def of_answer(tokens: list[str] = TOKENS, **changes: Any) -> tls.AttributionMatrix:
    """Rows for the last two tokens alone, scores falling with the position in one and rising in the other."""
    n = len(tokens)
    scores = torch.zeros(2, n)
    scores[0, : n - 2] = torch.linspace(1, 5, n - 2)
    scores[1, : n - 1] = torch.linspace(9, 2, n - 1)
    own = {"scores": scores, "positions": (n - 3, n - 2), "targets": (n - 2, n - 1), "target_strs": tuple(tokens[-2:])}
    return matrix(tokens, **(own | {"top_target_flagged": False, "details": {}} | changes)).without("special")


def data_of(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.findall(r'class="tls-pick-data">(.*?)</script>', page, re.DOTALL)[0])
    return found


@pytest.mark.one_lens
def test_the_explained_tokens_and_no_others_are_targets() -> None:
    page = of_answer().html()
    assert re.findall(r'data-pos="(\d+)" data-row="(\d+)"', page) == [("4", "0"), ("5", "1")]
    assert 'data-component="' not in page, "no library is needed"
    whole = matrix([" a", " b", " c"]).html()
    assert 'class="tls-pick"' not in whole, "all targets of a short text have CircuitsVis"


@pytest.mark.one_lens
def test_what_follows_the_text_is_a_target_too() -> None:
    page = replace(of_answer(), positions=(3, 5), scores=torch.ones(2, 6).tril(3), target_strs=(" c", " <end>")).html()
    assert re.search(r'<b class="tls-target" data-row="1"[^>]*>→<bdi> &lt;end&gt;</bdi></b>', page)


@pytest.mark.one_lens
def test_colours_are_shares_of_the_highest_shown_score_of_the_row() -> None:
    one = of_answer()
    data = data_of(one.html())
    for row, steps in enumerate(data["steps"]):
        shown = one.row(row).shown
        assert [p for p, step in enumerate(steps) if step is not None] == shown
        scores = one.scores[row, shown]
        assert [steps[p] for p in shown] == (100 * scores / scores.max()).round().int().tolist()
        assert one.row(row).top(1)[0].str_token.strip() in data["says"][row]


@pytest.mark.one_lens
def test_long_texts_are_clicked_and_very_large_ones_are_lists() -> None:
    long = of_answer([" t"] * (MAX_TOKENS + 1))
    assert 'class="tls-pick"' in long.html()
    assert not can_be_clicked(matrix([" t"] * 600)), "a page of megabytes"
    assert not can_be_clicked(long.by_unit("line", axis="rows")), "a unit has no one place among tokens"


def test_rows_of_what_was_generated_are_those_of_its_answer(demo_model: Any) -> None:
    said = tls.generate(demo_model, "German: der Hund sieht die Katze. English: the", 3)
    alone = tls.attribution_matrix(demo_model, said)
    assert alone.positions == tuple(p - 1 for p in said.answer_positions)
    assert "".join(map(str, alone.target_strs)) == said.answer
    assert len(tls.attribution_matrix(demo_model, said, positions=range(len(said)))) == len(said)
    assert len(tls.attribution_matrix(demo_model, said.text)) == len(said), "a text is a text"
    page = tls.semantic_scope(demo_model, said).html()
    assert "attribution_matrix(model, attr.tokens, positions=attr.span)" in page
    attr = tls.semantic_scope(demo_model, said)
    assert torch.equal(tls.attribution_matrix(demo_model, attr.tokens, positions=attr.span).scores, alone.scores)


@pytest.mark.one_lens
@pytest.mark.parametrize("dark", [False, True])
def test_a_click_and_enter_colour_the_text_by_the_sources(look: Any, dark: bool) -> None:
    one = of_answer()
    page = look(one.html(), dark=dark)
    page.set_viewport_size({"width": 400, "height": 800})

    def shows(row: int) -> None:
        steps = data_of(one.html())["steps"][row]
        cells = page.locator(".tls-pick .tls-static > span").all()
        for p, step in enumerate(steps):
            if p != one.positions[row] + 1:
                colour = cells[p].evaluate("e => getComputedStyle(e).backgroundColor")
                assert colour == css(blend((step or 0) / 100)), (row, p)
        assert page.locator(".tls-picked").get_attribute("data-row") == str(row)
        assert f"Sources of {one.target_strs[row]!r}" in page.locator(".tls-says").text_content()

    shows(0)
    page.locator('[data-row="1"]').click()
    shows(1)
    page.locator(".tls-pick .tls-static").focus()
    for key in ("End", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    shows(0)
    page.locator('[data-pos="1"]').click()
    shows(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.one_lens
def test_hostile_tokens_are_text(look: Any) -> None:
    page = look(of_answer(HOSTILE).html())
    assert page.locator("img").count() == 0
    page.locator('[data-row="1"]').click()
    assert page.locator("img").count() == 0 and "Sources of" in page.locator(".tls-says").text_content()
