"""Units as blocks, turns as a chat.

Invariant: every unit is one block, in the order of the text, with the share of the influence that its score has; shares of
shown units add up to 1; the strongest is marked; what is explained stands apart.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from samples import attribution

import tl_scopes as tls
from tl_scopes.model.units import Unit
from tl_scopes.views.blocks import blocks
from tl_scopes.views.coloured import scale_of

pytestmark = pytest.mark.one_lens
TEXT = ["<bos>", "<u>", " Who", " is", " it", "?", "</u>", "<a>", " A", " <b>dog", ".", " No", "."]
AT = [0, *torch.tensor([len(t) for t in TEXT[1:]]).cumsum(0).tolist()]
PLACES = {"user": (2, 6), "assistant": (8, 13)}


def chat(**changes: Any) -> tls.Attribution:
    """A user's turn, and an answer of two sentences that is explained."""
    answer = range(8, 13)
    whole = {
        "tokens": torch.arange(13),
        "scores": torch.tensor([9.0, 1, 2, 2, 2, 2, 0, 1, 1, 1, 1, 1, 0]),
        "pos": 11,
        "text": "".join(TEXT[1:]),
        "offsets": ((0, 0), *itertools.pairwise(AT)),
        "units": tuple(Unit(name, AT[a - 1], AT[b - 1]) for name, (a, b) in PLACES.items()),
        "answer": tuple(answer),
        "span": tuple(p - 1 for p in answer),
        "targets": tuple(answer),
        "target": None,
        "target_str": " A dog. No.",
        "top_predictions": [],
    }
    return attribution(TEXT, **(whole | changes)).without("special")


def drawn_blocks(units: tls.Attribution) -> list[str]:
    drawn = blocks(units, scale_of(units))
    assert drawn in units.html()
    return re.findall(r'<span class="tls-unit[^"]*"(?:(?!<span class="tls-unit).)*', drawn, re.DOTALL)


def test_bars_are_as_long_as_their_shares_and_the_strongest_is_full() -> None:
    units = chat().by_unit("sentence")
    squares = units.scores.double().square()
    widths = [float(w) for w in re.findall(r"tls-bar\" style=\"width:([\d.]+)%", "".join(drawn_blocks(units)))]
    lengths = [100 * float(squares[p] / max(squares[q] for q in units.shown)) for p in units.shown]
    assert widths == pytest.approx(lengths, abs=0.06)
    assert max(widths) == 100


@pytest.mark.parametrize("unit", ["sentence", "turn", [("question", "Who is it?")]])
def test_each_unit_is_a_block_with_its_share(unit: Any) -> None:
    units = chat().by_unit(unit)
    drawn = drawn_blocks(units)
    kept = [b for b in drawn if "data-pos" in b]
    assert [int(re.findall(r'data-pos="(\d+)"', b)[0]) for b in kept] == list(range(len(units)))
    squares = units.scores.double().square()
    total = float(squares[units.shown].sum())
    for p, block in enumerate(kept):
        said = re.findall(r"(?:<b>|<span>)([\d.]+%)", block)
        assert said == ([f"{float(squares[p]) / total:.1%}"] if p in units.shown else []), units.str_tokens[p]
        assert ("tls-strongest" in block) == (p == units.top(1)[0].pos)
    text = str(units)
    assert all(f"{float(squares[p]) / total:.1%}" in text for p in units.shown)


def test_turns_are_a_chat_with_roles_and_the_answer_apart() -> None:
    units = chat().by_unit("turn")
    drawn = drawn_blocks(units)
    roles = [re.findall(r'class="tls-name"><bdi>(.*?)</bdi>', b) for b in drawn]
    assert [r for role in roles for r in role] == ["user", "assistant"], "a template has no label"
    assert sum("tls-by-template" in b for b in drawn) == 2
    (between,) = [i for i, b in enumerate(drawn) if "tls-between" in b]
    assert "the answer that is explained" in drawn[between] and "tls-explained" in drawn[between + 1]
    assert sum("tls-explained" in b for b in drawn) == 1
    assert re.search(r"user +Who is it\?", str(units)) and re.search(r"assistant +A <b>dog\. No\.", str(units))


def test_what_a_unit_says_is_literal_and_its_lines_are_kept() -> None:
    assert "A &lt;b&gt;dog." in chat().by_unit("turn").html()
    text = ["One\n", "two", "\x1b", " end"]
    ends = [0, 4, 7, 8, 12]
    lines = attribution(text, pos=3, special=frozenset(), text="".join(text), offsets=tuple(itertools.pairwise(ends)))
    assert "One\ntwo␛ end</bdi>" in lines.by_unit("paragraph").html()


def test_a_named_part_shows_its_name_and_its_text() -> None:
    drawn = [b for b in drawn_blocks(chat().by_unit([("question", "Who is it?")])) if "tls-name" in b]
    assert len(drawn) == 1 and "question" in drawn[0] and "Who is it?</bdi>" in drawn[0]


def test_tokens_and_words_stay_a_line_of_chips() -> None:
    for one in (chat(), chat().by_word()):
        assert "tls-unit" not in re.sub(r"<(style|script)\b.*?</\1>", "", one.html(), flags=re.DOTALL)


def test_an_answer_typed_behind_a_chat_is_the_assistants_turn(demo_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    monkeypatch.setattr(demo_model.tokenizer, "chat_template", template, raising=False)
    found = tls.semantic_scope(demo_model, [{"role": "user", "content": "the dog"}], target=" sees the cat")
    assert [u.name for u in found.units] == ["user", "assistant"]
    turns = found.by_unit("turn")
    assert turns.details["names"][-1] == "assistant" and turns.str_tokens[-1] == " sees the cat"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_blocks_fit_and_are_legible(look: Any, dark: bool, width: int) -> None:
    page = look(chat().by_unit("turn").html(scale="linear"), dark=dark)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [b.bounding_box() for b in page.locator(".tls-said").all()]
    assert len({round(b["x"]) for b in boxes}) == 1, "one column"
    assert all(b["y"] >= a["y"] + a["height"] for a, b in itertools.pairwise(boxes))
    widest = page.locator(".tls-strongest .tls-bar").bounding_box()["width"]
    assert widest == max(b.bounding_box()["width"] for b in page.locator(".tls-bar").all())
    page.locator(".tls-units .tls-static").focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert "user: Who is it?" in page.locator(".tls-read").text_content()
