"""Invariant: a chart's marks are read out by mouse and by keyboard alike, its tokens are text, and it loads nothing.

The pages of ``verify``, ``substitutions``, ``patch_top`` and ``aopc`` in Chromium, and the keyboard on maps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import every_result
import pytest
from samples import HOSTILE, some_map

from tl_scopes.results.written import minus
from tl_scopes.views.canvas.heatmap import heatmap
from tl_scopes.views.canvas.scatter import KINDS
from tl_scopes.views.wording import visible

pytestmark = pytest.mark.one_lens


FIGURES = {
    "verification": lambda: replace(every_result.verification(tokens=HOSTILE), verdict=None),
    "substitutions": lambda: every_result.swaps(tokens=HOSTILE),
}


def visible_marks(page: Any) -> list[tuple[float, float]]:
    """Centres of the places that are read out, in the SVG's own units."""
    return page.eval_on_selector_all(
        ".tls-chart .tls-hit", "all => all.map(e => e.getBBox()).map(b => [b.x + b.width / 2, b.y + b.height / 2])"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_scatter_reads_out_the_hovered_point(look: Any, name: str, dark: bool) -> None:
    result = FIGURES[name]()
    page = look(result.html(), dark=dark)
    marks = page.locator(".tls-chart .tls-mark")
    assert marks.count() == len(result.predicted)
    before = page.locator(".tls-read").text_content()
    clear = marks.nth(1).locator(".tls-hit").evaluate("e => getComputedStyle(e).fillOpacity")
    marks.nth(1).hover()
    line = page.locator(".tls-read").text_content()
    assert line != before
    assert line.startswith(minus(f"{visible(HOSTILE[1])}: predicted {float(result.predicted[1]):.3g}"))
    lit = marks.nth(1).locator(".tls-hit").evaluate("e => getComputedStyle(e).fillOpacity")
    assert lit > clear, "the mark lights up"
    cells = page.locator("tbody td.tls-text").all_text_contents()
    assert [visible(text) for text in HOSTILE] == [c for c in cells if c in [visible(t) for t in HOSTILE]]
    assert page.locator("img, .tls-chart image").count() == 0
    turned = page.evaluate("getComputedStyle(document.querySelector('.tls-chart')).filter")
    assert turned == ("invert(1) hue-rotate(180deg)" if dark else "none")


@pytest.mark.parametrize("name", FIGURES)
def test_places_are_where_matplotlib_drew_the_points(look: Any, name: str) -> None:
    result = FIGURES[name]()
    page = look(result.html())
    drawn = page.eval_on_selector_all(
        ".tls-chart use",
        """(all, colours) => all.filter(e => colours.some(c => e.outerHTML.includes(c))).map(e => [+e.getAttribute('x'),
        +e.getAttribute('y')])""",
        [colour.lower() for _, colour, _ in KINDS.values()],
    )
    places = visible_marks(page)
    assert len(places) == len(result.predicted)
    for x, y in places:
        assert min(abs(x - a) + abs(y - b) for a, b in drawn) < 0.2
    right = [x for x, _ in places]
    order = result.predicted.argsort().tolist()
    assert [right[i] for i in order] == sorted(right), "predicted grows to the right"


def test_hostile_tokens_are_text_in_a_figure(look: Any) -> None:
    page = look(FIGURES["verification"]().html())
    written = page.locator(".tls-chart text").all_text_contents()
    assert {visible(text) for text in ("</script>", "<img src=x onerror=alert(1)>")} & set(written)
    assert not [text for text in written if "\u202e" in text or "\x1b" in text]


def test_a_flagged_point_says_so(look: Any) -> None:
    page = look(FIGURES["verification"]().html())
    page.locator(".tls-chart .tls-mark").first.hover()
    assert "wrong sign" in page.locator(".tls-read").text_content()


def test_scatter_without_scripts_is_whole(look: Any) -> None:
    result = FIGURES["verification"]()
    page = look(result.html(), scripts=False)
    assert page.locator(".tls-chart title").count() == len(result.predicted)
    assert page.locator("tbody tr").count() == len(result.predicted)


def test_the_patching_page_reads_out_its_cells(look: Any) -> None:
    page = look(every_result.patch(tokens=HOSTILE).html())
    assert page.locator(".tls-map td").count() == 6
    page.locator(".tls-map td").nth(4).hover()
    # the columns stand in the order of the prompt: positions 0, 1, 2
    assert page.locator(".tls-read").text_content() == (
        f"layer 0 · token {visible(HOSTILE[1])!r} (1): 0.05 share of clean − corrupt"
    )
    assert page.locator("tfoot bdi").all_text_contents() == [visible(t) for t in HOSTILE[:3]]
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_perturbation_curves_read_out_their_marks(look: Any, dark: bool) -> None:
    table = every_result.curves()
    page = look(table.html(), dark=dark)
    frame = table.curves()
    marks = page.locator(".tls-chart .tls-mark")
    assert marks.count() == 9
    said = [
        minus(f"{r.method}, {100 * r.fraction:g} % removed: {r.delta:.3g} ± {r.sem:.2g} nats")
        for r in frame.itertuples()
    ]
    marks.nth(1).hover()
    assert page.locator(".tls-read").text_content() == said[1]
    page.locator(".tls-chart").focus()
    page.keyboard.press("End")
    assert page.locator(".tls-read").text_content() == said[-1]
    heights = [y for _, y in visible_marks(page)]
    order = sorted(range(9), key=lambda i: frame.delta[i])
    assert [heights[i] for i in order] == sorted(heights, reverse=True), "lower is lower"
    first = page.locator("tbody tr").first.locator("td").all_text_contents()
    assert first[0] == table.best
    assert float(first[2].replace("−", "-")) == pytest.approx(table.mean[table.best], rel=1e-3)
    assert page.locator("img").count() == 0
    assert "4 prompts" in page.locator("body").inner_text()


def test_the_keyboard_walks_the_cells_of_a_map(look: Any) -> None:
    page = look(heatmap(some_map()).html())
    page.keyboard.press("Tab")
    line = page.locator(".tls-read")
    for key, said in (
        ("ArrowRight", "layer 1 · token '<bos>' (0): 0 nats"),
        ("ArrowRight", "layer 1 · token ' a' (1): 1 nats"),
        ("ArrowDown", "layer 0 · token ' a' (1): 0.5 nats"),
        ("ArrowDown", "layer 0 · token ' a' (1): 0.5 nats"),
        ("End", "layer 0 · token ' b' (2): 0.25 nats"),
        ("ArrowUp", "layer 1 · token ' b' (2): 2 nats"),
        ("Home", "layer 1 · token '<bos>' (0): 0 nats"),
        ("ArrowLeft", "layer 1 · token '<bos>' (0): 0 nats"),
    ):
        page.keyboard.press(key)
        assert line.text_content() == said, key
    assert page.locator(".tls-at").count() == 1
    outline = page.evaluate("getComputedStyle(document.querySelector('.tls-at')).outlineColor")
    assert outline == "rgb(217, 95, 14)"


def test_the_keyboard_walks_the_points_of_a_scatter(look: Any) -> None:
    result = FIGURES["substitutions"]()
    page = look(result.html())
    page.keyboard.press("Tab")
    for key, i in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", len(HOSTILE) - 1)):
        page.keyboard.press(key)
        said = page.locator(".tls-read").text_content()
        assert said.startswith(minus(f"{visible(HOSTILE[i])}: predicted {float(result.predicted[i]):.3g}")), key
