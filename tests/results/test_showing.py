"""Invariant: every result shows itself in the same ways: as text, in a notebook, as a page that needs nothing else, as a
figure. Results know no view: their pictures are found by name.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import every_result
import pytest
import torch
from samples import HOSTILE

from tl_scopes import views
from tl_scopes.results.base import Displayable, Picture
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.figures import Figure
from tl_scopes.views.wording import visible

pytestmark = pytest.mark.one_lens

CLASSES = [name for name, result in every_result.every_result().items() if isinstance(result, Displayable)]
WITH_CIRCUITSVIS = ("AttributionMatrix",)
"""Whose pages light up rows under the mouse."""
MOST = 300_000
"""Characters of a page that does not."""
BUNDLE = "window.CircuitsVis ="
WITH_TOKENS: dict[str, Callable[..., Any]] = {
    "Attribution": every_result.single,
    "AttributionMatrix": every_result.rows,
    "LayerInfluence": every_result.layers,
    "HeadInfluence": every_result.heads,
    "Split": every_result.split,
    "AttentionSinks": every_result.sinks,
    "PatchTop": every_result.patch,
    "Verdict": every_result.judged,
    "Verification": every_result.verification,
    "Substitutions": every_result.swaps,
    "IGPath": every_result.path,
}


def test_every_class_of_result_is_in_the_list() -> None:
    assert every_result.classes(Displayable) == {*CLASSES, "Displayable"}


def test_a_number_below_zero_has_one_sign_and_zero_has_none() -> None:
    text = "-0.41 (-0.5 to -0.0), slope -13, -inf, R² -0.00, -0%, +2, rank-1, 2-5, 1e-05, -1e-05, fisher@-2"
    assert minus(text) == "−0.41 (−0.5 to 0.0), slope −13, −inf, R² 0.00, 0%, +2, rank-1, 2-5, 1e-05, −1e-05, fisher@−2"


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_no_reader_sees_two_minus_signs(name: str) -> None:
    result = below_zero(every_result.every_result()[name])
    page = re.sub(r"<(style|script|title)\b.*?</\1>", "", result.view().html(), flags=re.DOTALL)
    drawn = re.findall(r"<!-- (.*?) -->", result.view().html())
    texts = [str(result), " ".join(re.findall(r">([^<]*)<", page)), *drawn]
    assert [re.findall(r".{0,20}(?<![\w.{])-[\d.]\d*", text) for text in texts] == [[] for _ in texts]


def below_zero(result: Any) -> Any:
    """With numbers below 0 wherever a result may have them."""
    names = {"predicted", "measured", "delta_logit", "delta_log_prob", "cells", "joint", "random", "logits", "slopes"}
    names |= {"drawn", "single_effects", "target_effects"}
    changed = {
        f.name: -value
        for f in fields(result)
        if f.name in names and isinstance(value := getattr(result, f.name), torch.Tensor)
    }
    return replace(result, **changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_it_has_every_form(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = every_result.every_result()[name]
    view = result.view()
    assert isinstance(view, views.View)
    assert isinstance(view, Picture), "what annotations promise is what a view has"
    assert view.title
    assert str(result).strip()
    assert str(result) == views.text(result)
    result.show()
    assert capsys.readouterr().out == f"{result}\n", "outside a notebook it prints what print() prints"
    figure = result.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert any(
        axes.get_xlabel() + axes.get_ylabel() + axes.get_title() + axes.get_title("left") + axes.get_label()
        for axes in figure.axes
    )
    placed = [legend._get_loc() for axes in figure.axes if (legend := axes.get_legend())]
    assert 0 not in placed, "the best place is looked for at length: legends have theirs"
    shown = result._repr_html_()
    assert view.body in shown, "the same result has the same picture"
    assert "tlScopes" in shown


@pytest.mark.parametrize("name", CLASSES)
def test_its_page_stands_alone(name: str, look: Any) -> None:
    html = every_result.every_result()[name].html()
    assert html.startswith("<!doctype html>")
    assert (BUNDLE in html) == (name in WITH_CIRCUITSVIS)
    own = re.sub(r"window\.CircuitsVis = .*?\n\}\)\(\);", "", html, flags=re.DOTALL)
    assert len(own) < MOST
    assert "http" not in own
    assert not re.search(r"url\((?!#)|@import|\bimport\(|\bfetch\(|<(img|script|link|iframe)\b[^>]*\b(src|href)=", own)
    assert set(re.findall(r"href=\"(.{5})", own)) <= {"data:"} | {m[:5] for m in re.findall(r"href=\"(#[^\"]*)", own)}
    for dark in (False, True):  # `look` fails on a message on the console and on any request but the page
        page = look(html, dark=dark)
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, "what is wide scrolls in its own box"
        assert page.locator(".tls-title").first.is_visible()
        shown = page.locator("svg.tls-chart, .tls-tokens, .tls-map, .tls-targets, .tls-report, .tls-generated")
        boxes = [shown.nth(i).bounding_box() for i in range(shown.count()) if shown.nth(i).is_visible()]
        assert boxes and all(b["width"] > 60 and b["height"] > 15 for b in boxes)


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_hostile_tokens_are_text_in_every_form(name: str, look: Any) -> None:
    result = WITH_TOKENS[name](tokens=HOSTILE)
    figure = result.plot()
    figure.draw_without_rendering()
    assert "\x1b" not in result._repr_html_() + result.html()
    page = look(result.html())
    assert page.locator("img").count() == 0
    body = page.locator("body").text_content()
    assert visible("</script>") in body


@pytest.mark.parametrize("name", ["Attribution", "AttributionMatrix"])
def test_figures_show_the_scores(name: str) -> None:
    result = every_result.every_result()[name]
    axes = (result.plot(kind="bars") if name == "Attribution" else result.plot()).axes[0]
    if name == "Attribution":
        heights = torch.tensor([bar.get_height() for bar in axes.patches], dtype=torch.float64)
        assert torch.equal(heights, result.scores.double())
        grey = [i for i, bar in enumerate(axes.patches) if len(set(bar.get_facecolor()[:3])) == 1]
        assert grey == [p for p in range(len(result)) if p not in result.shown]
    else:
        drawn = torch.as_tensor(axes.images[0].get_array().filled(0.0))  # no cell after the position that is read
        shown = [p for p in range(len(result.tokens)) if p not in result.hidden]
        scores = result.scores[:, shown].double()
        wanted = scores / scores.amax(dim=1, keepdim=True).clamp_min(1e-30)
        assert torch.allclose(drawn[:, shown].double(), wanted, atol=1e-6)


@pytest.mark.slow
def test_long_prompts_have_figures_too(unchecked: None) -> None:
    n = 600
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0)) ** 9
    long = every_result.attribution([" token"] * n, scores=scores)
    for figure in (long.plot(), long.plot(kind="bars"), every_result.matrix([" token"] * n).plot()):
        width, height = figure.get_size_inches()
        assert width < 20 and height < 20
        figure.draw_without_rendering()


def test_results_know_no_view() -> None:
    code = (
        "import sys, importlib, pkgutil, tl_scopes.results as r\n"
        "for m in pkgutil.iter_modules(r.__path__): importlib.import_module('tl_scopes.results.' + m.name)\n"
        "found = [m for m in sys.modules if m.startswith(('tl_scopes.views', 'tl_scopes.kernel', 'matplotlib', 'rich'))]\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_no_result_is_refused() -> None:
    for show in (views.view, views.plot, views.text):
        with pytest.raises(TypeError, match=r"\(int\): expected a result of this package"):
            show(3)


def test_an_alignment_without_a_right_answer_still_shows_itself() -> None:
    result = replace(every_result.gold(), records=())
    assert "Answered right" in str(result)
    assert result.html()
    assert result.plot()._repr_png_()


def test_a_table_of_failures_alone_still_shows_itself() -> None:
    result = replace(every_result.curves(), records=(), total=1)
    assert str(result)
    assert result.html()
    assert result.plot()._repr_png_()
