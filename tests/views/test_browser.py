"""Invariant: what a reader sees in Chromium has every token's text, and colours in the order of the scores.

As a page and as a notebook's output, which CircuitsVis draws again; with scripts and without, light and dark, alone, with
others on one page, and in an executed notebook. A blank page must fail: `picture_shows` is itself tested on broken pages.
No message on the console, no request but the page.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import chromium
import pytest
import torch
from chromium import WAIT, picture_shows, unavailable
from samples import HOSTILE, attribution, matrix

import tl_scopes as tls
from tl_scopes import views
from tl_scopes.views.canvas.colours import blend, inverted
from tl_scopes.views.wording import visible

pytestmark = [pytest.mark.enable_socket, pytest.mark.one_lens]  # the browser is driven through a local pipe

LIVE = ".tls-live .colored-tokens"


def output(result: Any) -> str:
    """A page that holds what a notebook shows."""
    return f'<!doctype html><meta charset="utf-8"><title>output</title><body>{result._repr_html_()}</body>'


# -- one attribution ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "static"])
@pytest.mark.parametrize("notebook", [True, False], ids=["output", "page"])
def test_tokens_and_colours(look, notebook: bool, scripts: bool, dark: bool) -> None:
    attr = attribution().without("special")
    page = look(output(attr) if notebook else attr.html(), scripts=scripts, dark=dark)
    picture_shows(page, attr)
    drawn = notebook and scripts
    assert page.locator(LIVE).count() == drawn, "CircuitsVis draws a notebook's output, and no page"
    assert page.locator(".tls-static").count() == (not drawn), "and what it drew replaces the static picture"
    assert page.locator(".tls-read").is_visible() == (not drawn), "it has words of its own for what the mouse is on"
    style = "getComputedStyle(document.{}).{}"
    if not notebook:
        assert page.evaluate(style.format("body", "backgroundColor")) == (
            "rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)"
        )
    assert page.evaluate(style.format("querySelector('.tls-ink')", "filter")) == (
        "invert(1) hue-rotate(180deg)" if dark else "none"
    )


def test_dark_mode_shows_the_colours_that_are_tested_for_contrast(look) -> None:
    try:
        from PIL import Image
    except ImportError:
        unavailable("pillow is not installed: pip install pillow")
    attr = attribution().without("special")
    page = look(output(attr), dark=True)
    cell = page.locator(f'{LIVE} bdi[data-pos="3"]').element_handle().evaluate_handle("e => e.parentElement")
    pixels = Image.open(io.BytesIO(cell.as_element().screenshot())).convert("RGB").getcolors(100_000)
    colour = max(pixels)[1]
    assert max(abs(a - b) for a, b in zip(colour, inverted(blend(1.0)), strict=True)) <= 2


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_real_scores_on_both_scales(look, demo_model, kind: str) -> None:

    attr = tls.semantic_scope(demo_model, "German: der Hund sieht die Katze. English: the", target=" dog")
    picture_shows(look(attr.html(scale=kind)), attr, kind=kind)  # type: ignore[arg-type]


def test_colours_start_at_the_lowest_score_or_at_zero_or_stand_over_a_baseline(look) -> None:
    attr = attribution(scores=torch.tensor([9.0, 5.0, 6.0, 10.0, 8.0, 0.0])).without("special")
    share = attr.scores[:5] / attr.scores[:5].sum()
    baseline = tls.PositionalBaseline(share.flip(0), 0 * share, attr.method, 8)
    page = look(views.tokens(attr, baseline=baseline).html())
    picture_shows(page, attr, index=0)
    assert page.locator(".tls-pane:visible").count() == 1
    page.get_by_label("colours from 0").check()
    picture_shows(page, attr, index=1, kind="linear")
    page.get_by_label("on 8 unrelated prompts").check()
    assert page.locator(".tls-pane:visible").count() == 1
    picture_shows(page, baseline.corrected(attr), index=2)
    assert "times the mean share of its position" in page.locator(".tls-pane:visible").text_content()


def test_words(look) -> None:
    attr = attribution(["<s>", " un", "believ", "able", ".", " x"]).by_word()
    picture_shows(look(attr.html()), attr)


def test_hovering_a_token_shows_its_text_and_true_score(look) -> None:
    attr = attribution(["<bos>", "a", "b", " <b>&amp;", "\n", " x"])
    page = look(output(attr))
    page.hover(f'{LIVE} bdi[data-pos="3"]')
    tooltip = page.wait_for_selector("text=rank 1 of 5", timeout=WAIT)
    assert tooltip.inner_text().split("\n")[-1] == "10 logit per unit of embedding · rank 1 of 5 · position 3"
    assert "<b>&amp;" in tooltip.inner_text()


def test_on_a_page_the_line_below_reads_out_tokens_by_mouse_and_by_keyboard(look) -> None:
    attr = attribution(["<bos>", "a", "b", " <b>&amp;", "\n", " x"])
    page = look(attr.html())
    line = page.locator(".tls-read")
    page.hover('bdi[data-pos="3"]')
    assert line.text_content() == " <b>&amp;: 10 logit per unit of embedding · rank 1 of 5 · position 3"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "tls-static"
    for key, said in (("End", " x: "), ("Home", "<bos>: 4 "), ("ArrowRight", "a: 0.5 "), ("ArrowLeft", "<bos>: 4 ")):
        page.keyboard.press(key)
        assert line.text_content().startswith(said), key
    assert page.locator(".tls-at").count() == 1


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "static"])
@pytest.mark.parametrize("notebook", [True, False], ids=["output", "page"])
def test_hostile_tokens_are_text(look, notebook: bool, scripts: bool) -> None:
    attr = attribution(HOSTILE, target_str=HOSTILE[1], top_predictions=[(text, 0.1) for text in HOSTILE])
    page = look(output(attr) if notebook else attr.html(), scripts=scripts)
    picture_shows(page, attr)
    assert page.locator("img").count() == 0
    assert [e.text_content() for e in page.query_selector_all(".tls-pred bdi")] == [visible(t) for t in HOSTILE[:7]]


def test_2000_tokens(look) -> None:
    n = 2000
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0)) ** 4
    attr = attribution([" token"] * n, scores=scores)
    page = look(output(attr))
    picture_shows(page, attr)
    assert page.evaluate("performance.now()") < WAIT


# -- broken pages ------------------------------------------------------------------------------------------


def without_static(html: str) -> str:
    return re.sub(r'(<div class="tls-static"[^>]*>).*?</div>', r"\1</div>", html, flags=re.DOTALL)


def without_drawing(html: str) -> str:
    return html.replace("window.CircuitsVis.render(", "(() => {})(")


def test_either_picture_alone_is_enough(look) -> None:
    html = output(attribution())
    picture_shows(look(without_static(html)), attribution())
    picture_shows(look(without_drawing(html), drawn=0), attribution())


def test_a_bundle_that_fails_leaves_the_static_picture(look) -> None:
    page = look(output(attribution()).replace("window.CircuitsVis.render(", "window.CircuitsVis.gone("), drawn=0)
    picture_shows(page, attribution())
    assert any("could not draw" in message for message in page.trouble)
    page.trouble.clear()


def test_a_blank_page_fails(look) -> None:
    for blank in (without_drawing(without_static(output(attribution()))), without_static(attribution().html())):
        with pytest.raises(AssertionError):
            picture_shows(look(blank, drawn=0), attribution())
    with pytest.raises(AssertionError, match="no tokens"):
        picture_shows(look("<!doctype html><title>x</title>"), attribution())


@pytest.mark.parametrize(
    "scores",
    [[4.0, 3.0, 0.5, 10.0, 1.5, 0.0], [4.0, 0.5, 3.0, 9.0, 10.0, 0.0]],
    ids=["two in the middle", "highest"],
)
def test_swapped_colours_fail(look, scores: list[float]) -> None:
    with pytest.raises(AssertionError):
        picture_shows(look(attribution().html()), attribution(scores=torch.tensor(scores)))


def test_a_message_on_the_console_and_a_request_are_noticed(look) -> None:
    page = look(
        "<!doctype html><link rel=icon href=data:><script>console.error('x')</script><img src=gone.png>", drawn=0
    )
    page.wait_for_load_state("networkidle")
    assert {message.split(":")[0] for message in page.trouble} == {"error", "request"}
    page.trouble.clear()


# -- several -----------------------------------------------------------------------------------------------


def test_two_views_on_one_page(look) -> None:
    one, two = attribution(), attribution(["<bos>", " x", " y", " z", "\n", " w"], target=None, target_str=None)
    page = look(views.stack(views.tokens(one), views.tokens(two)).html())
    picture_shows(page, one)
    picture_shows(page, two, index=1)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "static"])
@pytest.mark.parametrize("notebook", [True, False], ids=["output", "page"])
def test_compare_switches_by_button_and_by_keyboard(look, notebook: bool, scripts: bool) -> None:
    one = attribution()
    two = attribution(method="fisher", scores=torch.tensor([1.0, 9, 3, 2, 5, 0]))
    both = views.compare({"semantic": one, "fisher": two})
    page = look(output(both) if notebook else both.html(), scripts=scripts)
    picture_shows(page, one)
    page.get_by_label("fisher").check()
    picture_shows(page, two, index=1)
    assert not page.locator("section").nth(0).is_visible()
    page.get_by_label("fisher").press("ArrowLeft")
    picture_shows(page, one)
    assert not page.locator("section").nth(1).is_visible()


def test_figure_has_tokens_left_and_words_right(look) -> None:
    page = look(views.figure([attribution(), attribution()]).html())
    picture_shows(page, attribution(), index=1)
    left, right = (page.locator(f".tls-{side}").first.bounding_box() for side in ("left", "right"))
    assert left["x"] + left["width"] <= right["x"]


def test_hovering_a_target_lights_up_its_sources(look) -> None:
    page = look(matrix().without("special").html())
    button = ".tls-live .tokens button"
    assert page.locator(button).all_text_contents() == ["<bos>", " a", " b", " c", "→ end"]

    def lightness() -> list[int]:
        colours = page.eval_on_selector_all(button, "all => all.map(e => getComputedStyle(e).backgroundColor)")
        return [sum(int(c) for c in re.findall(r"\d+", colour)) for colour in colours]

    last = lightness()
    assert last[3] < last[2] < last[1] < last[0] == last[4] == 765, "it opens on the last target"
    page.hover(f"{button} >> nth=2")
    page.wait_for_function(f"document.querySelectorAll({button!r})[3].style.backgroundColor === 'rgb(255, 255, 255)'")
    assert lightness() == [765, lightness()[1], 765, 765, 765], "token 2 has one source that is shown: token 1"
    assert lightness()[1] < 765
    assert page.locator(".tls-targets > b").count() == 4


PREDICTED = tuple([(f" word{row}{i}", 0.5 / (i + 1)) for i in range(3)] for row in range(4))


def test_beside_the_matrix_stand_the_predictions_of_the_hovered_target(look) -> None:
    page = look(matrix(top_predictions=PREDICTED).without("special").html())
    beside, button = ".tls-beside bdi", ".tls-live .tokens button"

    def words() -> list[str]:
        return page.locator(beside).all_text_contents()

    assert words() == [" word30", " word31", " word32"], "it opens on the last target"
    page.hover(f"{button} >> nth=2")
    assert words() == [" word10", " word11", " word12"]
    assert "(position 1)" in page.locator(".tls-beside p").text_content()
    page.hover(".tls-title")
    assert words() == [" word30", " word31", " word32"], "the mouse has left: the target that was kept"
    page.click(f"{button} >> nth=1")
    page.hover(".tls-title")
    assert words() == [" word00", " word01", " word02"]
    page.hover(f"{button} >> nth=0")
    assert words() == []
    assert "No prediction" in page.locator(".tls-beside").text_content()


def test_the_keyboard_does_what_the_mouse_does_on_the_matrix(look) -> None:
    page = look(matrix(top_predictions=PREDICTED).without("special").html())
    button = ".tls-live .tokens button"
    page.keyboard.press("Tab")  # the choice of direction
    page.keyboard.press("Tab")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == " b"
    page.wait_for_function(f"document.querySelectorAll({button!r})[3].style.backgroundColor === 'rgb(255, 255, 255)'")
    assert page.locator(".tls-beside bdi").first.text_content() == " word10"
    page.hover(f"{button} >> nth=1")
    assert page.locator(".tls-beside bdi").first.text_content() == " word00"
    page.hover(".tls-title")
    assert page.locator(".tls-beside bdi").first.text_content() == " word10", "where the keyboard is"


def test_hostile_predictions_beside_the_matrix_are_text(look) -> None:
    predicted = tuple([(text, 0.1) for text in HOSTILE[:7]] for _ in range(4))
    page = look(matrix(top_predictions=predicted).html())
    assert page.locator(".tls-beside bdi").all_text_contents() == [visible(text) for text in HOSTILE[:7]]
    assert page.locator("img").count() == 0


def test_hostile_matrix(look) -> None:
    page = look(matrix(HOSTILE).html())
    assert page.locator(".tls-live .tokens button bdi").all_text_contents()[: len(HOSTILE)] == [
        visible(text) for text in HOSTILE
    ]
    assert page.locator("img").count() == 0


# -- notebooks ---------------------------------------------------------------------------------------------

CELLS = [
    "import sys; sys.path.insert(0, {tests!r})\nfrom samples import attribution, matrix",
    "attribution()",
    "attribution().without('special').show()",
    "matrix()",
]


@pytest.mark.slow
def test_a_notebook_executed_and_opened_with_and_without_scripts(look, tmp_path: Path) -> None:
    try:
        import nbclient
        import nbconvert
        import nbformat
    except ImportError as missing:
        unavailable(f"{missing.name} is not installed: pip install nbconvert nbclient ipykernel")
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(code.format(tests=str(Path(chromium.__file__).parent))) for code in CELLS]
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    exporter = nbconvert.HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="", jquery_url="")
    html = exporter.from_notebook_node(book)[0]
    assert html.count("window.CircuitsVis = window.CircuitsVis ||") == 1, "three outputs share one bundle"
    for scripts in (True, False):
        page = look(html, scripts=scripts, drawn=3)
        picture_shows(page, attribution())
        picture_shows(page, attribution().without("special"), index=1)
        assert page.locator(".tls-targets > b").count() == 4
