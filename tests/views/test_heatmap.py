"""Invariant: a heat map shows every value once, in a colour that follows it, its tokens as text, offline.

Without a browser the cells are read from the HTML and from matplotlib's image; the last tests hover in Chromium.
"""

from __future__ import annotations

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
from tl_scopes.views.canvas.colours import FULL, blend
from tl_scopes.views.canvas.heatmap import (
    BELOW_ZERO,
    LONGEST_LABEL,
    HeatMap,
    draw_heatmap,
    heatmap,
    heatmap_figure,
    name_columns,
)
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
    figure.canvas.draw()


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


def test_a_map_of_zeros_is_white_and_says_so() -> None:
    zeros = some_map(values=torch.zeros(2, 3))
    assert "all shown values are 0" in heatmap(zeros).html()
    heatmap_figure(zeros).canvas.draw()


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
    sinks.plot().canvas.draw()


def test_labels_of_matplotlib_show_spaces_and_are_never_cut_inside_a_character() -> None:
    assert name_columns([" the", " ", "\u00a0", ""]) == [" the", "␣", "‹NBSP›", ""]
    family = "👩\u200d👩\u200d👧"
    (cut,) = name_columns([family * 20])
    assert cut == family * (LONGEST_LABEL - 1) + "…"
