"""Invariant: what stands beside a picture says what it is: short where it is long, marked where nothing of it can be seen,
and by the word for what is shown, a token or a unit of another kind.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import every_result
import pandas as pd
import pytest
import torch
from samples import attribution, matrix

from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.spectrum import FisherSpectrum
from tl_scopes.views.canvas.colours import RED
from tl_scopes.views.canvas.heatmap import HeatMap
from tl_scopes.views.canvas.table import table
from tl_scopes.views.influence import influence_maps
from tl_scopes.views.share_map import share_map
from tl_scopes.views.wording import named, title

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


LONG_ANSWER = (
    " The keeper of the old lighthouse, whose cat was called Minnie, wrote in a blue notebook every single night."
)


def inside_the_picture(figure: Any) -> bool:
    """Is all text of a figure within its edges?"""
    figure.draw_without_rendering()
    words = [*figure.texts, *(t for a in figure.axes for t in (a.title, a.xaxis.label, a.yaxis.label, *a.texts))]
    boxes = [t.get_window_extent() for t in words if t.get_text()]
    edge = figure.bbox
    return all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= edge.x1 + 1 and b.y1 <= edge.y1 + 1 for b in boxes)


def test_the_figure_of_a_verdict_has_its_title_and_its_sentence_and_nothing_of_a_long_answer_is_cut() -> None:
    verdict = every_result.judged()
    of = replace(verdict.attribution, target_str=LONG_ANSWER)
    for result in (verdict, replace(verdict, target_str=LONG_ANSWER, attribution=of)):
        figure = result.plot()
        assert inside_the_picture(figure)
        assert "does it hold?" in figure.get_suptitle()
    few = torch.zeros(0)
    without = replace(
        verdict, effect=None, drawn=few, singles=(), single_scores=few, single_effects=few, strongest=(),
        scalar=None, scalar_unit=None, scalar_effect=None, scalar_drawn=None,
    )  # fmt: skip
    figure = without.plot()
    assert figure.get_suptitle().replace("\n", " ").endswith(without.sentence)
    assert inside_the_picture(figure) and figure.get_size_inches()[1] < 1.5


def test_long_answers_are_quoted_short_and_tokens_as_they_are() -> None:
    assert "' dog'" in title(attribution())
    assert len(title(attribution(target_str=LONG_ANSWER))) < 120


def test_bars_of_a_long_text_name_the_strongest_token_and_the_one_that_is_read() -> None:
    n = 181
    scores = torch.full((n,), 0.01)
    scores[100] = 3.0
    attr = attribution(["<bos>", *(f" t{p}" for p in range(1, n))], scores=scores, pos=n - 1)
    axes = attr.plot(kind="bars").axes[0]
    axes.figure.draw_without_rendering()
    names = {t.get_text(): t for t in axes.get_xticklabels()}
    assert names[" t180"].get_color() == RED
    assert " t100" in names
    boxes = sorted(t.get_window_extent().x0 for t in names.values())
    assert min(b - a for a, b in pairwise(boxes)) >= 7 * axes.figure.dpi / 72, "names stand on each other"
    assert inside_the_picture(axes.figure)


def test_counts_of_what_is_drawn_folded_and_left_out_add_up() -> None:
    values = torch.rand(2, 181, generator=torch.Generator().manual_seed(0))
    one = HeatMap(values, ("a", "b"), tuple(map(str, range(181))), "", column_name="token", hidden=frozenset({0, 5}))
    drawn, whole, out, others = map(int, re.findall(r"\b(\d+)\b(?= strongest| tokens| are left| others)", one.folded))
    assert drawn + out + others == whole == 181 and out == 2


def test_the_axes_of_a_spectrum_are_plain_numbers_that_do_not_meet() -> None:
    eigenvalues = torch.tensor([[0.16, 0.07, 0.055, 0.047, 0.035, 0.022, 0.02, 0.019]])
    result = FisherSpectrum(eigenvalues[:, :6], eigenvalues.sum(1), torch.ones(1), [[]], ["one"])
    for spectrum in (result, replace(result, eigenvalues=eigenvalues)):
        figure = spectrum.plot()
        figure.draw_without_rendering()
        for axes in figure.axes:
            shown = [t for t in axes.get_xticklabels(which="both") if t.get_text()]
            inside = [t for t in shown if axes.get_xlim()[0] <= t.get_position()[0] <= axes.get_xlim()[1]]
            assert [t.get_text() for t in inside] == ["1", "2", "4", "8"][: len(inside)]
            boxes = [t.get_window_extent() for t in inside]
            assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
        assert figure.axes[0].get_title() == "1 prompt"
        assert "1 prompts" not in spectrum.html() + str(spectrum) + repr(spectrum)


def test_a_text_without_letters_is_an_empty_cell() -> None:
    frame = pd.DataFrame({"flag": ["", " ", "sign"], "value": [1.0, float("nan"), 2.0]})
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table(frame))
    assert cells == ["", "1", "<bdi>␣</bdi>", "–", "<bdi>sign</bdi>", "2"]
