"""Invariant: text, page and figure of a chain show its own shares; the page's script, which follows any step by any number of
hops, comes to the same numbers as the solve."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from itertools import pairwise
from typing import Any

import every_result
import pytest
import torch
from samples import HOSTILE

from tl_scopes import Chain
from tl_scopes.results.chain_units import TextUnit
from tl_scopes.views.chain import about_path, chain_maps, drawn_hops, path_words
from tl_scopes.views.wording import percent

pytestmark = pytest.mark.one_lens


def some(n_steps: int = 5, n_sources: int = 4, width: int = 3, seed: int = 0) -> Chain:
    """Sentences of several tokens behind BOS, on which steps rest more and less."""
    n = 1 + width * (n_steps + n_sources)
    strings = ["<bos>", *(f" word{p}" for p in range(1, n))]
    units = [tuple(range(1 + width * i, 1 + width * (i + 1))) for i in range(n_steps + n_sources)]
    texts = [TextUnit("".join(strings[p] for p in unit) + " of a longer sentence.", unit) for unit in units]
    scores = torch.rand(n_steps, n, generator=torch.Generator().manual_seed(seed)) ** 4
    for u, unit in enumerate(units[n_sources:]):
        scores[u, unit[-1] :] = 0
    weights = torch.zeros(n_steps, dtype=torch.float64)
    weights[-1] = 1
    ends = torch.tensor([0, *map(len, strings)]).cumsum(0).tolist()
    return Chain(
        scores=scores, steps=tuple(texts[n_sources:]), sources=tuple(texts[:n_sources]), weights=weights,
        tokens=torch.arange(n), str_tokens=strings, answer_start=1 + width * n_sources, method="semantic",
        special=frozenset({0}), text="".join(strings), offsets=tuple(pairwise(ends)),
    )  # fmt: skip


def shown(page: Any) -> list[str]:
    return page.locator(".tls-part > span:last-child").all_text_contents()


def test_the_terminal_prints_the_path_and_the_shares() -> None:
    chain = every_result.chain()
    text = str(chain)
    assert path_words(chain) in text
    *_, last = chain.path
    assert path_words(chain).endswith(f"{last.share:.2f}")
    for source in chain.top(2):
        assert percent(source.share) in text
    assert "by name: user" in text and "a note <b>" in text


@pytest.mark.parametrize("direct", [0.4, 0.6])
def test_a_path_that_ends_where_most_paths_do_not_says_so(direct: float) -> None:
    """A single link leads to one source, and two paths of two links to the other."""
    chain = some(3, 2, width=1)
    scores = torch.zeros_like(chain.scores)
    scores[:2, 2] = 1
    by_steps = (1 - direct) / 2
    scores[2, [1, 3, 4]] = torch.tensor([direct, by_steps, by_steps]).sqrt()  # shares are of squares
    chain = replace(chain, scores=scores)
    assert chain.path[-1].number == 0
    assert torch.allclose(chain.total, torch.tensor([direct, 1 - direct]).double(), atol=1e-6)
    told = about_path(chain)
    assert told.startswith(f"The strongest single path; it has {percent(direct)} of all.")
    heavy = scores.clone()
    heavy[2, 0] = 3
    special = about_path(replace(chain, scores=heavy))
    assert special.startswith(f"The strongest single path; it has {percent(direct)} of all that special tokens leave.")
    most = "Over all paths 'word2 of a longer sentence.' has most, 60.0%."
    assert told.endswith(most) == (direct < 0.5)
    assert ("Over all" in told) == (direct < 0.5)
    assert " ".join(told.split()) in " ".join(str(chain).split())
    assert escape(told) in chain.html()


def test_maps_hold_hops_that_sum_to_the_last_row_and_every_row() -> None:
    chain = some()
    hops, links = chain_maps(chain)
    assert hops.rows[0] == "direct" and hops.rows[-1] == "all hops"
    assert torch.allclose(hops.values[:-1].sum(0), hops.values[-1], atol=2e-3)
    assert torch.equal(links.values[:, :4], chain.from_prompt)
    assert torch.allclose(links.values.sum(1), torch.ones(5, dtype=torch.float64))


def test_hops_that_hardly_count_are_not_drawn() -> None:
    chain = some(20)
    left = 1 - float(chain.by_hop[drawn_hops(chain)].sum())
    assert len(drawn_hops(chain)) <= 12 < len(chain.by_hop)
    assert left < 0.01
    assert drawn_hops(replace(chain, hops=1)) == [0, 1]


def test_the_page_without_scripts_has_the_shares_of_all_hops() -> None:
    chain = some()
    html = chain.html()
    parts = re.findall(r'<span class="tls-part">.*?<span>([^<]*%)</span></span>', html)
    assert parts == [percent(s) for s in [*chain.total.tolist(), *chain.through.tolist()]]


@pytest.mark.parametrize(
    ("steps", "sources", "width"),
    [(100, 100, 25), pytest.param(2500, 2500, 1, marks=pytest.mark.slow)],
    ids=["sentences", "words"],
)
def test_a_page_of_5000_tokens_is_below_two_megabytes(steps: int, sources: int, width: int) -> None:
    chain = some(steps, sources, width)
    assert len(chain.tokens) == 5001
    if width == 1:
        chain = replace(chain, steps=_words(chain.steps), sources=_words(chain.sources))
    else:
        chain = replace(chain, steps=_whole(chain, chain.steps), sources=_whole(chain, chain.sources))
    assert len(chain.html().encode()) <= 2_000_000


def _words(units: tuple[TextUnit, ...]) -> tuple[TextUnit, ...]:
    return tuple(replace(unit, text=f" word{unit.positions[0]}") for unit in units)


def _whole(chain: Chain, units: tuple[TextUnit, ...]) -> tuple[TextUnit, ...]:
    return tuple(replace(unit, text="".join(chain.str_tokens[p] for p in unit.positions)) for unit in units)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_slider_shows_hops_and_a_step_its_own_sources(look: Any, dark: bool) -> None:
    chain = some()
    page = look(chain.html(), dark=dark)
    total = [percent(s) for s in [*chain.total.tolist(), *chain.through.tolist()]]
    assert _near(shown(page), total)
    slider = page.locator("input[type=range]")
    for k in drawn_hops(chain):
        slider.fill(str(k))
        steps = chain.weights
        for _ in range(k + 1):
            steps = steps @ chain.graph
        assert _near(shown(page), [percent(s) for s in [*chain.by_hop[k].tolist(), *steps.tolist()]])
        assert page.locator("output").text_content() == ("direct" if k == 0 else f"{k} hop{'s' * (k > 1)}")
    slider.fill(str(len(drawn_hops(chain))))
    page.locator(".tls-unit", has_text="step 3").hover()
    other = chain.of(2)
    assert _near(shown(page), [percent(s) for s in [*other.total.tolist(), *other.through.tolist()]])
    assert page.locator(".tls-read").text_content().startswith("Step 3, all hops: ")
    assert page.locator(".tls-goal .tls-name").text_content() == "step 3"
    assert page.locator(".tls-arcs path").count() > 3
    page.locator(".tls-title").hover()
    assert _near(shown(page), total), "elsewhere the answer's sources are shown"
    page.locator(".tls-static").focus()
    page.keyboard.press("Home")
    for _ in range(4 + 1 + 2):  # the prompt's four, the border, two steps
        page.keyboard.press("ArrowDown")
    assert page.locator(".tls-read").text_content().startswith("Step 3, all hops: ")
    page.keyboard.press("Escape")
    assert _near(shown(page), total)


def test_what_the_keyboard_scrolls_under_a_resting_mouse_is_not_pointed_at(look: Any) -> None:
    page = look(some(40).html())
    page.set_viewport_size({"width": 500, "height": 400})
    page.locator(".tls-unit", has_text="step 3").first.hover()
    at, line = page.locator(".tls-static > .tls-at .tls-name"), page.locator(".tls-read")
    assert at.text_content() == "step 3"
    page.locator(".tls-static").focus()
    page.keyboard.press("End")
    page.wait_for_timeout(500)  # browsers tell of the mouse again when something has come to lie under it
    assert at.text_content() == "step 40"
    assert line.text_content().startswith("Step 40, ")
    page.mouse.move(250, 200)
    page.mouse.move(252, 200)
    assert at.text_content() != "step 40"


def test_arcs_pass_under_the_line_below_the_cards(look: Any) -> None:
    page = look(some(40).html())
    page.set_viewport_size({"width": 500, "height": 400})
    box = page.locator(".tls-read").bounding_box()
    inside = box | {"y": box["y"] + 2, "height": box["height"] - 2}  # without the row of pixels that it shares
    with_arcs = page.screenshot(clip=inside)
    page.eval_on_selector(".tls-arcs", "arcs => arcs.style.display = 'none'")
    assert page.screenshot(clip=inside) == with_arcs


def _near(texts: list[str], wanted: list[str]) -> bool:
    """To the parts in which shares are sent to the page."""
    pairs = zip(texts, wanted, strict=True)
    return all(abs(float(a.rstrip("%")) - float(b.rstrip("%"))) <= 0.31 for a, b in pairs)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_the_width_and_shows_hostile_texts_as_texts(look: Any, width: int) -> None:
    chain = some(len(HOSTILE), 3)
    chain = replace(chain, steps=tuple(replace(s, text=t) for s, t in zip(chain.steps, HOSTILE, strict=True)))
    page = look(chain.html())
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth", timeout=5000)
    assert page.locator("img").count() == 0
