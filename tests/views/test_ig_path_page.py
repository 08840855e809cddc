"""Invariant: the page of an IG path shows, at every α, that α's numbers and colours, by mouse and by keyboard.

The page is opened in Chromium offline; nothing is on the console, nothing is asked for but the page. Without scripts it
shows α = 1.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from samples import HOSTILE

from tl_scopes.results.ig_path import IGPath
from tl_scopes.views.canvas.colours import blend, css, inverted
from tl_scopes.views.wording import visible

pytestmark = [pytest.mark.enable_socket, pytest.mark.one_lens]  # the browser is driven through a local pipe


def path(texts: list[str] | None = None) -> IGPath:
    """Five α, uneven; token t is the strongest at α number t, so that every step changes the colours."""
    texts = ["<bos>", " a", " b", " c", " d", " after"] if texts is None else texts
    n, alphas = len(texts), torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
    distance = (torch.arange(n)[None] - torch.arange(5)[:, None]).abs()
    norms = 8.0 / (1 + distance).double() ** 2
    norms[:, n - 1 :] = 0
    return IGPath(
        alphas=alphas,
        grad_norms=norms,
        logits=torch.tensor([0.5, 3.0, 2.0, 7.25, 6.0], dtype=torch.float64),
        entropy=torch.tensor([5.0, 4.0, 2.5, 1.0, 0.25], dtype=torch.float64),
        sink_share=torch.tensor([0.9, 0.5, 0.25, 0.1, 0.05], dtype=torch.float64),
        slopes=torch.ones(5, dtype=torch.float64),
        tokens=torch.arange(n),
        str_tokens=texts,
        pos=n - 2,
        target=3,
        target_str=" c",
    )


def shows(page: Any, shown: IGPath, i: int) -> None:
    """Everything on the page is that of α number i."""
    value = page.locator("#tls-value").text_content
    assert value() == f"{float(shown.alphas[i]):.3f}"
    assert page.locator("#tls-logit").text_content() == f"{float(shown.logits[i]):.2f}"
    assert page.locator("#tls-entropy").text_content() == f"{float(shown.entropy[i]):.2f}"
    assert page.locator("#tls-sink").text_content() == f"{float(shown.sink_share[i]):.0%}"
    row = shown.grad_norms[i, : shown.pos + 1]
    wanted = [css(blend(round(100 * float(v)) / 100)) for v in row / row.max()]
    page.wait_for_function(  # colours fade over
        "w => JSON.stringify([...document.querySelectorAll('.tls-token')].map(e => "
        "getComputedStyle(e).backgroundColor)) === w",
        arg=json.dumps(wanted, separators=(",", ":")),
        timeout=15_000,
    )
    dots = page.eval_on_selector_all("[data-curve] circle", "all => all.map(e => +e.getAttribute('cx'))")
    x = 6 + 288 * float(shown.alphas[i] - shown.alphas[0]) / float(shown.alphas[-1] - shown.alphas[0])
    assert dots == pytest.approx([x] * 3, abs=0.01)
    titles = page.eval_on_selector_all(".tls-token", "all => all.map(e => e.title)")
    assert titles == [f"position {t}: {float(v):.3g}" for t, v in enumerate(row)]


def test_slider_by_keyboard(look) -> None:
    shown = path()
    page = look(shown.html())
    shows(page, shown, 4)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tls-alpha", "the first stop of the Tab key"
    for key, i in (("ArrowLeft", 3), ("ArrowLeft", 2), ("Home", 0), ("ArrowRight", 1), ("End", 4)):
        page.keyboard.press(key)
        shows(page, shown, i)
    assert page.locator("#tls-alpha").get_attribute("aria-valuetext") == "α = 1.000"


def test_slider_and_curves_by_mouse(look) -> None:
    shown = path()
    page = look(shown.html())
    box = page.locator("#tls-alpha").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shows(page, shown, 2)
    curve = page.locator("[data-curve=entropy]").bounding_box()
    page.mouse.click(curve["x"] + 0.62 * curve["width"], curve["y"] + 10)
    shows(page, shown, 3)
    page.mouse.down()
    page.mouse.move(curve["x"] + 0.02 * curve["width"], curve["y"] + 10, steps=4)
    page.mouse.up()
    shows(page, shown, 0)
    page.mouse.move(curve["x"] + 0.9 * curve["width"], curve["y"] + 10)
    shows(page, shown, 0)


@pytest.mark.parametrize("scripts", [True, False], ids=["drawn", "static"])
def test_hostile_tokens_are_text(look, scripts: bool) -> None:
    shown = replace(path([*HOSTILE, " end", " after"]), target_str=HOSTILE[1])
    html = shown.html()
    assert html.count("</script>") == 2, "no text of the prompt ends a script"
    assert not {c for c in "\u202e\x1b" if c in html}
    page = look(html, scripts=scripts)
    assert page.locator(".tls-token").all_text_contents() == [visible(t) for t in [*HOSTILE, " end"]]
    assert page.locator(".tls-next").text_content() == f"→{visible(HOSTILE[1])}"
    assert page.locator("img").count() == 0
    assert page.locator("#tls-value").text_content() == "1.000"
    assert page.locator("#tls-alpha").is_disabled() != scripts, "without scripts the slider could not do anything"


def test_dark_mode_has_the_inverted_colours(look) -> None:
    page = look(path().html(), dark=True)
    style = "e => [getComputedStyle(e).filter, getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    turned, ink, paper = page.locator(".tls-token").nth(4).evaluate(style)
    assert turned == "invert(1) hue-rotate(180deg)"
    assert paper == css(blend(1.0))
    light = sum(inverted(blend(1.0))) > 3 * 128
    assert sum(int(c) for c in re.findall(r"\d+", ink)) == (765 if light else 0), "black on light, after the inversion"
