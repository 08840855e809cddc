"""Invariant: the page of an IG path shows, at every α, that α's numbers and colours, by mouse and by keyboard.

The page is opened in Chromium offline; nothing is on the console, nothing is asked for but the page. Without scripts it
shows α = 1.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import every_result
import pytest
import torch
from samples import HOSTILE

from tl_scopes import views
from tl_scopes.results.ig_path import IGPath
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import blend, css, ink, ink_before_inversion
from tl_scopes.views.wording import visible

pytestmark = [pytest.mark.enable_socket, pytest.mark.one_lens]  # the browser is driven through a local pipe

TOKENS = ".tls-static > span[title]"


def shows(page: Any, shown: IGPath, i: int, root: str = "") -> None:
    """Everything on the page is that of α number i."""
    alpha = f"{float(shown.alphas[i]):.3f}"
    assert page.locator(f"{root} output").text_content() == alpha
    line = page.locator(f"{root} .tls-read").text_content()
    assert line == minus(
        f"α = {alpha}: logit of the target {float(shown.logits[i]):.2f}, entropy {float(shown.entropy[i]):.2f} nats, "
        f"{float(shown.sink_share[i]):.0%} of the gradient on the first token"
    )
    row = shown.grad_norms[i, : shown.pos + 1]
    colours = [blend(round(100 * float(v)) / 100) for v in row / row.max()]
    style = "all => all.map(e => [getComputedStyle(e).backgroundColor, e.firstChild.style.color, e.firstChild.dataset.flip])"
    found = page.eval_on_selector_all(f"{root} {TOKENS}", style)
    black = {"#000": "rgb(0, 0, 0)", "#fff": "rgb(255, 255, 255)"}
    assert found == [[css(c), black[ink(c)], ink_before_inversion(c)[1:]] for c in colours]
    titles = page.eval_on_selector_all(f"{root} {TOKENS}", "all => all.map(e => e.title)")
    assert titles == [f"position {t}: {float(v):.3g}" for t, v in enumerate(row)]
    marked = page.eval_on_selector_all(
        f"{root} .tls-mark", "all => all.map((e, i) => e.classList.contains('tls-now') ? i : -1).filter(i => i >= 0)"
    )
    assert marked == [i], "the figure marks it"


def test_slider_by_keyboard(look: Any) -> None:
    shown = every_result.path()
    page = look(shown.html())
    shows(page, shown, 4)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range", "the first stop of the Tab key"
    for key, i in (("ArrowLeft", 3), ("ArrowLeft", 2), ("Home", 0), ("ArrowRight", 1), ("End", 4)):
        page.keyboard.press(key)
        shows(page, shown, i)
    assert page.locator("input").get_attribute("aria-valuetext") == "α = 1.000"


def test_slider_and_figure_by_mouse(look: Any) -> None:
    shown = every_result.path()
    page = look(shown.html())
    box = page.locator("input").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shows(page, shown, 2)
    places = [page.locator(".tls-mark rect").nth(i).bounding_box() for i in range(5)]
    middle = [(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in places]
    assert [y for _, y in middle] == sorted((y for _, y in middle), reverse=True), "α grows upwards"
    page.mouse.click(*middle[3])
    shows(page, shown, 3)
    page.mouse.down()
    page.mouse.move(*middle[0], steps=8)
    page.mouse.up()
    shows(page, shown, 0)
    page.mouse.move(*middle[2])
    assert page.locator("output").text_content() == "0.000", "no button is held"


@pytest.mark.parametrize(
    ("decades", "clipped"), [((0.0, 3.5), "neither"), ((-20.0, 0.0, 1.0), "min"), ((0.0, 1.0, 9.0), "max")]
)
def test_colours_span_four_decades_and_an_arrow_marks_what_lies_outside(
    decades: tuple[float, ...], clipped: str
) -> None:
    shown = every_result.path()
    norms = torch.ones_like(shown.grad_norms)
    for row, decade in enumerate(decades):
        norms[row] = 10**decade
    bar = replace(shown, grad_norms=norms).plot().axes[0].collections[0].colorbar
    assert bar.extend == clipped
    assert bar.vmax - bar.vmin <= 4
    assert bar.vmin <= 0 <= bar.vmax, "where most of the values are"
    assert ("clipped" in bar.ax.get_ylabel()) == (clipped != "neither")


def test_a_path_from_elsewhere_says_whence_and_what_was_done(look: Any) -> None:
    shown = replace(
        every_result.path(), baseline="mean", notes=("a note <b>",), alphas=torch.tensor([1e-5, 0.1, 0.3, 0.6, 1])
    )
    page = look(shown.html())
    assert "move from the mean of its embeddings" in page.locator(".tls-path").text_content()
    assert page.locator(".tls-note").text_content() == "a note <b>"
    page.locator("input").press("Home")
    assert page.locator("output").text_content() == "1e-05"
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_two_paths_on_one_page_move_alone(look: Any) -> None:
    one, two = every_result.path(), replace(every_result.path(), logits=every_result.path().logits + 1)
    page = look(views.stack(one.view(), two.view()).html())
    page.locator("input").nth(1).press("Home")
    shows(page, one, 4, ".tls-path:nth-of-type(1)")
    shows(page, two, 0, ".tls-path:nth-of-type(2)")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "static"])
def test_hostile_tokens_are_text(look: Any, scripts: bool) -> None:
    shown = replace(every_result.path(tokens=[*HOSTILE, " end", " after"]), target_str=HOSTILE[1])
    html = shown.html()
    assert html.count("</script>") == 2, "no text of the prompt ends a script"
    assert not {c for c in "\u202e\x1b" if c in html}
    page = look(html, scripts=scripts)
    assert page.locator(TOKENS).all_text_contents() == [visible(t) for t in [*HOSTILE, " end"]]
    assert page.locator(".tls-target").text_content() == f"→{visible(HOSTILE[1])}"
    assert page.locator("img").count() == 0
    assert page.locator("output").text_content() == "1.000"
    assert page.locator("input").is_disabled() != scripts, "without scripts the slider could not do anything"


def test_dark_mode_inverts_tokens_and_figure(look: Any) -> None:
    page = look(every_result.path().html(), dark=True)
    for place in (".tls-tokens", ".tls-chart"):
        turned = page.evaluate(f"getComputedStyle(document.querySelector({json.dumps(place)})).filter")
        assert turned == "invert(1) hue-rotate(180deg)"
    ink_now = page.locator(TOKENS).nth(4).locator("bdi").evaluate("e => getComputedStyle(e).color")
    wanted = ink_before_inversion(blend(1.0))
    assert ink_now == {"#000": "rgb(0, 0, 0)", "#fff": "rgb(255, 255, 255)"}[wanted]
