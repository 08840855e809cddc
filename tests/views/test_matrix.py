"""Invariant: a matrix is drawn whole: a labelled row for each target, in the blue of every other picture, nothing cut."""

from __future__ import annotations

import re

import pytest
import torch
from samples import HOSTILE, matrix

from tl_scopes.views.canvas.colours import blend, css, quantised
from tl_scopes.views.matrix import MAX_TOKENS, matrix_map
from tl_scopes.views.wording import visible

pytestmark = pytest.mark.one_lens
DANTE = [
    "<bos>",
    "Nel",
    "mezzo",
    "del",
    "cam",
    "min",
    "di",
    "nostra",
    "vita",
    "mi",
    "ritrov",
    "ai",
    "per",
    "una",
    "sel",
]
DANTE += ["va", "oscura", ",", "ché", "la", "di", "ritta", "via", "era"]
"""24 targets."""


def test_the_map_has_a_row_for_each_target_and_no_cell_after_what_is_read() -> None:
    one = matrix_map(matrix(DANTE).without("special"))
    assert one.rows == (*DANTE[1:], " end") and one.columns == tuple(DANTE)
    assert one.values.isnan().tolist() == torch.ones(24, 24).triu(1).bool().tolist()
    shares = torch.tensor(one.shares).nan_to_num(0.0)[:, 1:]
    assert shares.amax(dim=1)[1:].tolist() == [1.0] * 23, "each row has its own scale"
    assert len(matrix_map(matrix([" t"] * 100)).drawn) == 100, "no source is folded away"


@pytest.mark.slow
def test_long_matrices_have_their_list_alone() -> None:
    assert "tls-map" in matrix([" t"] * 20).html()
    assert '<table class="tls-map' not in matrix([" t"] * (MAX_TOKENS + 1)).html()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_all_targets_are_in_sight_without_an_inner_box(look, width: int, dark: bool) -> None:
    page = look(matrix(DANTE).without("special").html(), dark=dark)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    cut = """all => all.filter(e => { const box = e.getBoundingClientRect(); for (let p = e.parentElement; p; p =
        p.parentElement) { const r = p.getBoundingClientRect(), s = getComputedStyle(p);
        if (s.overflowY !== 'visible' && p !== document.body && p !== document.documentElement &&
            (box.top < r.top - 1 || box.bottom > r.bottom + 1)) return true; } return box.height < 5; }).length"""
    rows = page.locator(".tls-map tbody tr")
    assert rows.count() == 24 and page.locator(".tls-targets > b").count() == 24
    assert page.eval_on_selector_all(".tls-map tbody tr, .tls-targets > b", cut) == 0
    assert rows.locator("th").all_text_contents() == [*DANTE[1:], " end"]
    assert not page.locator(".tls-live canvas").first.is_visible(), "one map, not two"


def test_hovered_sources_and_the_map_have_one_blue(look) -> None:
    shown = matrix(DANTE).without("special")
    page = look(shown.html())
    last = shown.row(-1).scores
    shares = [quantised(float(s) / float(last[1:].max())) if p else 0.0 for p, s in enumerate(last)]
    buttons = page.eval_on_selector_all(".tls-live .tokens button", "all => all.map(e => e.style.backgroundColor)")
    for button, share in zip(buttons, shares, strict=False):
        found, wanted = ([int(c) for c in re.findall(r"\d+", text)] for text in (button, css(blend(share))))
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 4, "in hundredths of the full colour"
    assert page.evaluate("getComputedStyle(document.querySelector('.tls-live')).filter") == "none"


def test_hovering_the_map_reads_the_score(look) -> None:
    page = look(matrix(DANTE).without("special").html())
    page.locator(".tls-map tbody tr >> nth=2 >> td >> nth=2").hover()
    assert (
        page.locator(".tls-map-box .tls-read").text_content().startswith("target del · source token 'mezzo' (2): 51 ")
    )


def test_hostile_words_on_the_map_are_text(look) -> None:
    page = look(matrix(HOSTILE).html())
    assert page.locator("tfoot bdi").all_text_contents() == [visible(text) for text in HOSTILE]
    assert page.locator("img").count() == 0


def test_the_figure_names_targets_and_sources() -> None:
    axes = matrix(DANTE).without("special").plot().axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == [*DANTE[1:], " end"]
    assert [t.get_text() for t in axes.get_xticklabels()] == DANTE
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target", "source token; grey: left out (1)")
    words = matrix(DANTE).by_word().plot().axes[0]
    assert (words.get_ylabel(), words.get_xlabel()) == ("target word", "source word")
