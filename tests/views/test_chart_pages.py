"""Invariant: a chart's marks are read out by mouse and by keyboard alike, its tokens are text, and it loads nothing.

The pages of ``verify``, ``substitutions`` and ``patch_top`` in Chromium, and the keyboard on maps and series.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import HOSTILE, attribution, some_map

from tl_scopes.results.aopc import AOPCTable
from tl_scopes.results.patching import PatchTop
from tl_scopes.results.substitutions import Substitutions
from tl_scopes.results.verification import Verification
from tl_scopes.views.canvas.heatmap import heatmap
from tl_scopes.views.canvas.scatter import KINDS
from tl_scopes.views.wording import visible

pytestmark = pytest.mark.one_lens


def verification() -> Verification:
    n = len(HOSTILE)
    predicted = torch.linspace(-2.0, 3.0, n)
    flags = tuple("sign" if i == 0 else "size" if i == 1 else "" for i in range(n))
    measured = 0.5 * predicted + 0.25
    return Verification(
        attribution(HOSTILE), tuple((i,) for i in range(n)), (None,) * n, predicted, measured, measured, measured,
        flags, f"logit of {HOSTILE[1]!r}", "logits", True, "zero", 1.0, 0.5, 1e-6, HOSTILE[1],
    )  # fmt: skip


def swaps() -> Substitutions:
    n = len(HOSTILE)
    predicted = torch.linspace(3.0, -1.0, n)
    return Substitutions(
        attribution(HOSTILE), 1, HOSTILE[1], torch.arange(n), tuple(HOSTILE), predicted, 2 * predicted, predicted,
        predicted, f"logit of {HOSTILE[2]!r}", "logits",
    )  # fmt: skip


def patch() -> PatchTop:
    attr = attribution(HOSTILE)
    cells = torch.tensor([[0.5, 1.0, 0.1], [0.25, 2.0, 0.0]])
    return PatchTop(
        attr, (2, 0, 1), (0, 1), "resid_pre", f"logit of {HOSTILE[1]!r}", 2.0, 0.0, cells, cells, cells.sum(1),
        torch.rand(2, 5, generator=torch.Generator().manual_seed(0)), ((0, 1, 2),) * 5, 20,
    )  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("made", [verification, swaps])
def test_a_scatter_reads_out_the_hovered_point(look: Any, made: Any, dark: bool) -> None:
    result = made()
    page = look(result.html(), dark=dark)
    marks = page.locator(".tls-chart [data-tip]")
    assert marks.count() == len(HOSTILE)
    before = page.locator(".tls-read").text_content()
    clear = marks.nth(1).locator(".tls-hit").evaluate("e => getComputedStyle(e).fill")
    marks.nth(1).hover()
    line = page.locator(".tls-read").text_content()
    assert line != before
    assert line.startswith(f"{visible(HOSTILE[1])}: predicted {float(result.predicted[1]):.3g}")
    assert marks.nth(1).locator(".tls-hit").evaluate("e => getComputedStyle(e).fill") != clear, "the mark lights up"
    cells = page.locator("tbody td.tls-text").all_text_contents()
    assert [visible(text) for text in HOSTILE] == [c for c in cells if c in [visible(t) for t in HOSTILE]]
    assert page.locator("img").count() == 0
    colour = page.evaluate("getComputedStyle(document.querySelector('.tls-chart text')).fill")
    assert colour == ("rgb(228, 228, 228)" if dark else "rgb(26, 26, 26)")


def test_flagged_points_have_their_colour_and_their_word(look: Any) -> None:
    page = look(verification().html())
    fills = page.eval_on_selector_all(
        ".tls-chart [data-tip] circle:not(.tls-hit)", "a => a.map(e => e.getAttribute('fill'))"
    )
    assert fills[0] == KINDS["sign"][1]
    assert fills[1] == KINDS["size"][1]
    assert set(fills[2:]) == {KINDS[""][1]}
    page.locator(".tls-chart [data-tip]").first.hover()
    assert "wrong sign" in page.locator(".tls-read").text_content()


def test_scatter_without_scripts_is_whole(look: Any) -> None:
    page = look(verification().html(), scripts=False)
    assert page.locator(".tls-chart title").count() == len(HOSTILE)
    assert page.locator("tbody tr").count() == len(HOSTILE)


def test_the_patching_page_reads_out_its_cells(look: Any) -> None:
    page = look(patch().html())
    assert page.locator(".tls-map td").count() == 6
    page.locator(".tls-map td").nth(4).hover()
    # the columns stand in the order of the prompt: positions 0, 1, 2
    assert page.locator(".tls-read").text_content() == (
        f"layer 1 · token {visible(HOSTILE[1])!r} (1): 0 share of clean − corrupt"
    )
    assert page.locator("tfoot bdi").all_text_contents() == [visible(t) for t in HOSTILE[:3]]
    assert page.locator("img").count() == 0


def curves() -> AOPCTable:
    """Three methods on four passages; one with a name that is markup."""
    methods, generator = ("semantic", "<img src=x onerror=alert(1)>", "random"), torch.Generator().manual_seed(0)
    records = [
        {
            "index": i, "n": 9, "truth": 1, "top": 1, "target": 1, "scored": 1, "log_prob": -1.0,
            "deltas": {m: (-torch.rand(3, generator=generator) * (3 - j)).tolist() for j, m in enumerate(methods)},
        }
        for i in range(4)
    ]  # fmt: skip
    return AOPCTable(tuple(records), {}, methods, (0.05, 0.1, 0.2), {}, 4)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_perturbation_curves_read_out_their_marks(look: Any, dark: bool) -> None:
    table = curves()
    page = look(table.html(), dark=dark)
    frame = table.curves()
    marks = page.locator(".tls-chart [data-tip]")
    assert marks.count() == 9
    said = [f"{r.method}, {100 * r.fraction:g} % removed: {r.delta:.3g} ± {r.sem:.2g} nats" for r in frame.itertuples()]
    marks.nth(1).hover()
    assert page.locator(".tls-read").text_content() == said[1]
    page.locator(".tls-chart").focus()
    page.keyboard.press("End")
    assert page.locator(".tls-read").text_content() == said[-1]
    heights = page.eval_on_selector_all(
        ".tls-chart [data-tip] circle:not(.tls-hit)", "all => all.map(e => +e.getAttribute('cy'))"
    )
    order = sorted(range(9), key=lambda i: frame.delta[i])
    assert [heights[i] for i in order] == sorted(heights, reverse=True), "lower is lower"
    first = page.locator("tbody tr").first.locator("td").all_text_contents()
    assert first[0] == table.best
    assert float(first[2]) == pytest.approx(table.mean[table.best], rel=1e-3)
    assert page.locator("img").count() == 0
    assert "4 prompts" in page.locator(".tls-curves").inner_text()


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
    result = verification()
    page = look(result.html())
    page.keyboard.press("Tab")
    for key, i in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", len(HOSTILE) - 1)):
        page.keyboard.press(key)
        said = page.locator(".tls-read").text_content()
        assert said.startswith(f"{visible(HOSTILE[i])}: predicted {float(result.predicted[i]):.3g}"), key
