"""Invariant: what stands beside a picture says what it is: short where it is long, marked where nothing of it can be seen,
and by the word for what is shown, a token or a unit of another kind.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from samples import attribution, matrix

from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.views.influence import influence_maps
from tl_scopes.views.share_map import share_map
from tl_scopes.views.wording import named

pytestmark = pytest.mark.one_lens
SENTENCES = [
    "The keeper of the old lighthouse was there when the storm began, and nobody in the village knew why he had come.",
    " The keeper of the old lighthouse was there when the storm ended, and nobody in the village knew why he had come.",
    " Nobody in the village, where somebody had always watched the sea, knew what he wrote in it every single night.",
    " When the spring came, his daughter found the blue notebook under the floor and read it aloud to her brother.",
]
BY_SENTENCE: dict[str, Any] = {"unit": "sentence", "units": [[i] for i in range(len(SENTENCES))]}
BLANK = ["<bos>", " ", "   ", "\n", " x"]


def by_sentence() -> Any:
    return attribution(SENTENCES, details=BY_SENTENCE, special=frozenset(), pos=3)


def inside(tokens: list[str], **changes: Any) -> tuple[LayerInfluence, HeadInfluence]:
    attr = attribution(tokens, **changes)
    scores = 0.1 + torch.rand(3, len(tokens), generator=torch.Generator().manual_seed(0))
    return LayerInfluence(scores, attr, ("a", "b", "c"), scores, 1.0), HeadInfluence(scores[None] - 0.5, attr)


def pages() -> dict[str, Any]:
    layers, heads = inside(SENTENCES, details=BY_SENTENCE, special=frozenset(), pos=3)
    return {
        "matrix": matrix(SENTENCES, details=BY_SENTENCE, special=frozenset()),
        "layers": layers,
        "heads": heads,
    }


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["matrix", "layers", "heads"])
def test_a_page_by_sentence_fits_its_window_and_has_each_name_short_and_whole(look: Any, name: str, width: int) -> None:
    page = look(pages()[name].html())
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    heads = page.locator(".tls-map").last.locator("tfoot th + th")
    short = heads.all_text_contents()
    assert len(set(short)) == len(short) == len(SENTENCES), "sentences that begin alike are told apart"
    assert [heads.nth(i).get_attribute("title") for i in range(len(short))] == SENTENCES
    assert max(heads.nth(i).bounding_box()["height"] for i in range(len(short))) < 250
    cut = """all => all.filter(e => { const box = e.closest('.tls').getBoundingClientRect(), own = e.getBoundingClientRect();
        return own.right > box.right + 1 || own.left < box.left - 1; }).length"""
    page.wait_for_timeout(500)
    assert page.eval_on_selector_all(".tls-targets span, .tls-targets b, .tls-live button bdi", cut) == 0


def test_a_terminal_has_no_whole_sentence_in_a_table_of_many_rows() -> None:
    layers, _ = inside(SENTENCES, details=BY_SENTENCE, special=frozenset(), pos=3)
    for result in (layers, pages()["matrix"]):
        lines = str(result).splitlines()
        assert not any(sentence.strip()[:30] in line for sentence in SENTENCES for line in lines)
        assert "3 When" in str(result), "its number says which"


def test_axes_name_the_unit_that_they_have() -> None:
    layers, heads = inside(SENTENCES, details=BY_SENTENCE, special=frozenset(), pos=3)
    assert influence_maps(layers)[0].column_name == "sentence"
    assert influence_maps(heads)[1].column_name == "query sentence"
    assert "strongest sentences" in str(layers)
    assert by_sentence().plot(kind="bars").axes[0].get_xlabel().startswith("sentence")
    assert share_map({"a": by_sentence()}, "title").column_name == "sentence"
    assert influence_maps(inside(BLANK)[0])[0].column_name == "token"


def test_a_token_of_spaces_is_seen_wherever_it_stands_alone() -> None:
    assert [named(text) for text in ("", " ", "  ", " a", "\n")] == ["", "␣", "␣␣", " a", "⏎"]
    attr = attribution(BLANK, top_predictions=[("  ", 0.5), (" x", 0.1)], target_str="  ")
    of_all = matrix(BLANK, top_predictions=tuple([("  ", 0.5)] for _ in BLANK))
    layers, _ = inside(BLANK, pos=4)
    for shown in (attr, of_all, layers):
        assert "␣␣␣" in str(shown)
        assert "␣␣␣" in shown.html()
    assert "␣␣" in attr.html().split("Predicted after")[1]
    assert '["␣␣","50.0%"' in of_all.html()


def test_names_of_a_map_are_those_of_the_page_and_the_figure(look: Any) -> None:
    layers, _ = inside(BLANK, pos=4)
    page = look(layers.html())
    assert page.locator(".tls-map tfoot bdi").all_text_contents() == list(map(named, BLANK))
    assert [t.get_text() for t in layers.plot().axes[0].get_xticklabels()] == list(map(named, BLANK))
    of_all = replace(matrix(BLANK), hidden=frozenset({0}))
    rows = look(of_all.html()).locator(".tls-map tbody th").all_text_contents()
    assert rows == [*map(named, BLANK[1:]), " end"]
