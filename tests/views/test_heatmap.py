"""Invariant: a heat map shows every value once, in a colour that follows it, its tokens as text, offline.

Without a browser the cells are read from the HTML and from matplotlib's image; the last tests hover in Chromium.
"""

from __future__ import annotations

import io
import itertools
import re
from html import unescape

import every_result
import numpy as np
import pytest
import torch
from chromium import picture_shows
from samples import HOSTILE, attribution, matrix, some_map

from tl_scopes import views
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.views.canvas.colours import BELOW_ZERO, FULL, blend
from tl_scopes.views.canvas.heatmap import MOST_CELLS, MOST_COLUMNS, HeatMap, heatmap
from tl_scopes.views.canvas.heatmap_figure import draw_heatmap, heatmap_figure
from tl_scopes.views.canvas.names import LONGEST_LABEL, cut_names
from tl_scopes.views.wording import visible

pytestmark = pytest.mark.one_lens

CELL = re.compile(r'<td (?:style="background:(#[0-9a-f]{6})"|class="(tls-hid)") title="([^"]*)">')


def cells(one: HeatMap) -> list[tuple[str, str, str]]:
    return CELL.findall(heatmap(one).html())


def hexed(share: float, full: str = FULL) -> str:
    return "#{:02x}{:02x}{:02x}".format(*blend(float(share), full))


def test_each_value_has_its_cell_its_colour_and_its_number() -> None:
    found = cells(some_map())
    assert [c[0] for c in found] == [hexed(v / 4) for v in (0, 1, 2, 4, 0.5, 0.25)]
    assert unescape(found[3][2]) == "layer 0 · token '<bos>' (0): 4"
    assert unescape(found[2][2]) == "layer 1 · token ' b' (2): 2"


def test_signed_values_are_orange_below_zero_and_equally_strong() -> None:
    found = cells(some_map(values=torch.tensor([[-2.0, 1.0, 2.0], [0.0, -1.0, 0.5]]), signed=True))
    wanted = [hexed(1, BELOW_ZERO), hexed(0.5), hexed(1), hexed(0), hexed(0.5, BELOW_ZERO), hexed(0.25)]
    assert [c[0] for c in found] == wanted


def test_hidden_columns_have_no_colour_and_do_not_set_the_scale() -> None:
    found = cells(some_map(hidden=frozenset({0}), positions=(7, 8, 9)))
    assert [c[1] for c in found] == ["tls-hid", "", ""] * 2
    assert [c[0] for c in found] == ["", hexed(0.5), hexed(1), "", hexed(0.25), hexed(0.125)]
    assert unescape(found[0][2]) == "layer 1 · token '<bos>' (7): 0 · left out"


def test_wide_ranges_are_on_a_log_scale_and_say_so() -> None:
    wide = some_map(values=torch.tensor([[1000.0, 1.0, 2.0], [1.0, 3.0, 0.0]]))
    assert wide.colour_scale.log
    html = heatmap(wide).html()
    assert "log scale" in html and "linear scale" not in html
    assert "linear scale" in heatmap(some_map()).html()


def test_matplotlib_draws_the_same_colours() -> None:
    from matplotlib.figure import Figure

    for one in (
        some_map(),
        some_map(values=torch.tensor([[-2.0, 1.0, 2.0], [0.0, -1.0, 0.5]]), signed=True),
        some_map(values=torch.tensor([[1000.0, 1.0, 2.0], [1.0, 3.0, 0.0]])),
    ):
        axes = Figure().subplots()
        draw_heatmap(one, axes)
        (image,) = axes.images
        drawn = image.cmap(image.norm(image.get_array()))[..., :3].reshape(-1, 3) * 255
        wanted = [[int(c[0][i : i + 2], 16) for i in (1, 3, 5)] for c in cells(one)]
        assert abs(drawn - torch.tensor(wanted).numpy()).max() <= 4, "colour steps of 1/256"


def test_the_figure_names_rows_and_tokens_and_marks_the_explained_one() -> None:
    figure = heatmap_figure([some_map(marked=frozenset({2}), columns=("$x$", "a\n", "b" * 40)), some_map()])
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["1", "0"]
    assert [t.get_text() for t in axes.get_xticklabels()] == [r"\$x\$", "a⏎", "b" * 17 + "…"]
    assert axes.get_xticklabels()[2].get_color() == "#b2182b"
    figure.savefig(io.BytesIO())


def test_nothing_of_a_small_map_with_a_long_unit_is_cut() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    columns = ("<|endoftext|>", *[" political"] * 21)
    unit = "share of the row's highest score"
    figure = heatmap_figure(some_map(values=torch.ones(2, 22), columns=columns, unit=unit))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all(), "text runs over the edge of the picture"


def long_map(n: int = 100, rows: int = 2, **changes: object) -> HeatMap:
    """The value of column c is c + 1 in the last row, and a tenth of it in the others; BOS has the largest by far."""
    values = torch.arange(1.0, n + 1).repeat(rows, 1)
    values[:, 0] = 1e4
    values[:-1] /= 10
    names = tuple(f" t{c}" for c in range(n))
    return some_map(
        **{"values": values, "rows": tuple(map(str, range(rows))), "columns": names, "hidden": frozenset({0})} | changes
    )


def test_of_a_long_prompt_the_strongest_columns_are_drawn_and_the_others_are_folded_and_said() -> None:
    one = long_map(explained=7, marked=frozenset({3}))
    assert one.drawn == [3, 7, *range(42, 100)], "the red ones, and the 58 largest that are not left out"
    away = sum(c + 1 for c in range(1, 100) if c not in one.drawn) / sum(range(2, 101))
    told = f"the 39 others hold {away:.1%} of the sum of all sizes (an even share is 39.4%), none above 42 nats."
    assert f"The 60 strongest of 100 tokens are drawn, 1 is left out; {told}" in heatmap(one).body
    assert len(long_map(most=None).drawn) == 100 and not long_map(most=None).folded
    assert not long_map(MOST_COLUMNS).folded
    by_row = long_map(per_row=True)
    away = sum(range(2, 41)) / sum(range(2, 101))
    assert f"the 39 others hold {away:.1%} of the sum of all sizes, each row by its largest (an even" in by_row.folded
    flat = some_map(values=torch.ones(2, 100) + torch.eye(2, 100), columns=tuple(map(str, range(100))))
    assert flat.folded.endswith("(nearly their even share of 40.0%: they are hardly weaker), none above 1 nats.")


@pytest.mark.slow
def test_folded_columns_are_on_the_page_unless_it_grows_too_large() -> None:
    assert heatmap(long_map()).body.count("tls-fold") > 0
    large = heatmap(long_map(rows=MOST_CELLS // 100 + 1)).body
    assert "tls-unfold" not in large and large.count("<td") == 60 * (MOST_CELLS // 100 + 1)


def test_each_row_has_its_own_scale_on_request() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0], [400.0, 50.0, 25.0]])
    one = some_map(values=values, per_row=True, hidden=frozenset({0}))
    assert [c[0] for c in cells(one)] == ["", hexed(0.5), hexed(1), "", hexed(1), hexed(0.5)]
    assert unescape(cells(one)[5][2]).endswith(": 25"), "the number is the value"
    assert "rows cannot be compared" in heatmap(one).body


def test_signed_values_of_a_wide_range_keep_their_colour() -> None:
    wide = some_map(values=torch.tensor([[-100.0, 1.0, -1.0], [-1.5, 0.0, 0.001]]), signed=True)
    assert wide.colour_scale.log and wide.colour_scale.low == 1.0
    share = wide.shares
    assert share[0][0] == -1 and share[0][1] == -share[0][2] == share[1][2] > 0 == share[1][1]
    assert "−100" in heatmap(wide).body and "log scale from 1 in size" in heatmap(wide).body


def test_a_place_without_a_value_has_no_cell() -> None:
    gap = some_map(values=torch.tensor([[1.0, torch.nan, 2.0], [4.0, 1.0, 1.0]]))
    assert heatmap(gap).body.count("<td></td>") == 1 and gap.colour_scale.high == 4
    assert "nan" not in gap.name(1) + heatmap(gap).plain()
    axes = heatmap_figure(gap).axes[0]
    assert axes.images[0].get_array().mask.tolist() == [[False, True, False], [False] * 3]


@pytest.mark.slow
def test_every_row_and_column_of_a_figure_has_its_name() -> None:
    for one, columns in ((long_map(), 60), (long_map(106, 106, most=None), 106)):
        figure = heatmap_figure(one)
        figure.draw_without_rendering()
        axes = figure.axes[0]
        assert [t.get_text() for t in axes.get_xticklabels()] == cut_names([one.columns[c] for c in one.drawn])
        assert [t.get_text() for t in axes.get_yticklabels()] == list(one.rows)
        assert len(one.drawn) == columns
        for labels, along in ((axes.get_xticklabels(), "x0"), (axes.get_yticklabels(), "y0")):
            at = sorted(getattr(t.get_window_extent(), along) for t in labels)
            size = 0.7 * labels[0].get_fontsize() * figure.dpi / 72
            assert min(b - a for a, b in itertools.pairwise(at)) > size, "names stand on each other"
    assert "the 60 strongest of 100" in heatmap_figure(long_map()).axes[0].get_xlabel()


def test_a_map_of_zeros_is_white_and_says_so() -> None:
    zeros = some_map(values=torch.zeros(2, 3))
    assert "all shown values are 0" in heatmap(zeros).html()
    heatmap_figure(zeros).draw_without_rendering()


def test_text_lists_the_largest_values() -> None:
    assert heatmap(some_map(hidden=frozenset({0}))).plain().splitlines()[:2] == [
        "A <title> (nats)",
        "  layer 1 · token ' b' (2): 2",
    ]


def test_pages_without_circuitsvis_do_not_carry_it() -> None:
    alone = heatmap(some_map()).html()
    assert len(alone) < 50_000
    assert "tlScopesHover" in alone
    both = views.stack(views.matrix(matrix()), heatmap(some_map())).html()
    assert len(both) > 1_000_000 and "tlScopesHover" in both


@pytest.mark.parametrize("changes", [{"rows": ("1",)}, {"columns": ("a",)}, {"positions": (1,)}])
def test_names_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="HeatMap: "):
        some_map(**changes)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_hovering_shows_the_value(look, dark: bool) -> None:
    page = look(heatmap([some_map(), some_map(title="second")]).html(), dark=dark)
    page.locator(".tls-map td").nth(2).hover()
    assert page.locator(".tls-read").nth(0).text_content() == "layer 1 · token ' b' (2): 2 nats"
    page.locator(".tls-map").nth(1).locator("td").nth(3).hover()
    assert page.locator(".tls-read").nth(1).text_content() == "layer 0 · token '<bos>' (0): 4 nats"
    ink = page.evaluate("getComputedStyle(document.querySelector('.tls-map')).filter")
    assert ink == ("invert(1) hue-rotate(180deg)" if dark else "none")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "static"])
def test_hostile_tokens_are_text(look, scripts: bool) -> None:
    hostile = HeatMap(torch.ones(1, len(HOSTILE)), (HOSTILE[1],), tuple(HOSTILE), HOSTILE[0], HOSTILE[5])
    page = look(heatmap(hostile).html(), scripts=scripts)
    assert page.locator("tfoot bdi").all_text_contents() == [visible(text) for text in HOSTILE]
    assert page.locator("img").count() == 0
    sizes = page.eval_on_selector_all(".tls-map td", "all => all.map(e => e.getBoundingClientRect().width)")
    assert min(sizes) >= 15


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_layer_and_head_pages_open_and_hover(look, dark: bool) -> None:
    attr = attribution(HOSTILE).without("special")
    scores = torch.rand(3, len(HOSTILE), generator=torch.Generator().manual_seed(0))
    layers = LayerInfluence(scores, attr, ("a", "b", "c"), scores, 1.0)
    heads = HeadInfluence(torch.stack([scores - 0.5, scores - 0.2]), attr)
    for result, row in ((layers, "layer final_post · token "), (heads, "layer 1 · head 1: ")):
        page = look(result.html(), dark=dark)
        page.locator(".tls-map td").nth(1).hover()
        assert page.locator(".tls-read").first.text_content().startswith(row)
        picture_shows(page, attr)
        assert page.locator("img").count() == 0


def test_sinks_page_opens_and_switches_to_the_corrected_view(look) -> None:
    sinks = every_result.sinks(tokens=HOSTILE)
    page = look(sinks.html())
    assert page.locator(".tls-map").count() == 4
    picture_shows(page, sinks.attributions["semantic"])
    assert not page.get_by_text("Sink-corrected view").first.is_visible()
    page.get_by_label("semantic, sinks left out").check()
    picture_shows(page, sinks.attributions["semantic"].without("sinks"), index=1)
    assert page.get_by_text("Sink-corrected view").first.is_visible()
    assert page.locator("img").count() == 0
    assert "residual norm 9.0 times the median" in page.locator("body").inner_text()
    sinks.plot().draw_without_rendering()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_explained_column_and_the_names_are_in_sight_however_far_it_is_scrolled(look, width: int) -> None:
    page = look(heatmap([long_map(explained=99), some_map()]).html())
    page.set_viewport_size({"width": width, "height": 900})
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    inside = """end => { const e = [...document.querySelectorAll(end)].filter(e => e.offsetParent), box = e[0].closest(
        '.tls-scroll').getBoundingClientRect(); return e.every(e => { const r = e.getBoundingClientRect();
        return r.width > 5 && r.left >= box.left - 1 && r.right <= box.right + 1; }); }"""
    for unfolded in (False, True):
        page.locator(".tls-unfold").set_checked(unfolded)
        assert page.locator(".tls-map >> nth=0 >> tbody tr >> nth=0 >> td:visible").count() == (100 if unfolded else 60)
        for left in (0, 10_000):
            page.evaluate(f"document.querySelector('.tls-scroll').scrollLeft = {left}")
            assert page.evaluate(fits), "the page itself is not scrolled"
            assert page.evaluate(inside, ".tls-map .tls-end") and page.evaluate(inside, ".tls-scroll th:first-child")
    if width == 1280:
        page.locator(".tls-unfold").uncheck()
        assert page.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.tls-scroll'))"), "it fits"


def test_the_keyboard_walks_over_what_is_folded_away(look) -> None:
    page = look(heatmap(long_map(most=2, explained=99)).html())
    page.locator(".tls-map").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert "' t99' (99)" in page.locator(".tls-read").text_content()


def test_labels_of_matplotlib_show_spaces_and_are_never_cut_inside_a_character() -> None:
    assert cut_names([" the", " ", "\u00a0", ""]) == [" the", "␣", "‹NBSP›", ""]
    family = "👩\u200d👩\u200d👧"
    (cut,) = cut_names([family * 20])
    assert cut == family * (LONGEST_LABEL - 1) + "…"
    text = "The keeper of the old lighthouse was there."
    first, second = cut_names([text, "short", text[:-1] + "?"])[::2]
    assert first.endswith("there.")
    assert second.endswith("there?"), "what begins alike is cut in its middle"
    assert len(first) == LONGEST_LABEL
    assert cut_names([text, text]) == cut_names([text]) * 2, "nothing tells the same texts apart"


def test_a_long_title_stays_on_the_picture_and_a_cut_quotation_is_closed() -> None:
    title = "Semantic Scope: what 'The capital of the United Kingdom is London' (step 3 of 3) rests on, and more words"
    said = repr("The capital of France is Paris, which is a city")
    figure = heatmap_figure(HeatMap(torch.arange(4.0).reshape(2, 2), ("a", "b"), (said, "x"), title, "share"))
    figure.savefig(io.BytesIO())
    axes = figure.axes[0]
    box = axes.title.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert axes.get_title().replace("\n", " ") == title
    assert axes.get_xticklabels()[0].get_text().endswith("…'")
