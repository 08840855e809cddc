"""Invariant: a figure has the notes that page and terminal have, below all else; nothing lies over what is drawn; and what a
narrow window has no room for scrolls in a box that is seen to go on.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import every_result
import pandas as pd
import pytest
from matplotlib.text import Text
from rich.console import Console
from samples import attribution

from tl_scopes.results.aopc import AOPCTable
from tl_scopes.results.run import Strongest
from tl_scopes.views.aopc import aopc_figure
from tl_scopes.views.canvas.page import View
from tl_scopes.views.canvas.scatter import Point, Scatter, scatter_figure
from tl_scopes.views.canvas.table import table
from tl_scopes.views.influence import influence_lines

pytestmark = pytest.mark.one_lens
NOTE = "The completeness gap is 35 where 18 had to be explained, and of this $x_1$ a reader of the figure has to know, too."


def with_notes() -> dict[str, Any]:
    attr = attribution(notes=(NOTE,))
    return {
        "attribution": attr,
        "rows": replace(every_result.rows(), notes=(NOTE,)),
        "layers": replace(every_result.layers(), attribution=replace(every_result.layers().attribution, notes=(NOTE,))),
        "heads": replace(every_result.heads(), attribution=replace(every_result.heads().attribution, notes=(NOTE,))),
        "sinks": replace(every_result.sinks(), notes=(NOTE,)),
        "split": replace(every_result.split(), notes=(NOTE,)),
        "removals": replace(every_result.verification(), attribution=attr),
        "swaps": replace(every_result.swaps(), attribution=attr),
    }


def said(figure: Any) -> str:
    return " ".join(" ".join(t.get_text().split()) for t in figure.findobj(Text)).replace(r"\$", "$")


@pytest.mark.parametrize("name", with_notes())
def test_a_figure_has_the_notes_of_its_page_in_lines_that_fit(name: str) -> None:
    result = with_notes()[name]
    figures = [result.plot(), *([result.plot(kind="bars")] if name == "attribution" else [])]
    for figure in figures:
        assert NOTE in said(figure)
        figure.draw_without_rendering()
        edge = figure.bbox
        noted = [t for t in figure.findobj(Text) if NOTE[:10] in t.get_text()]
        for box in (t.get_window_extent() for t in noted):
            assert box.x0 >= 0 and box.x1 <= edge.x1 and box.y0 >= 0
        for axes in figure.axes if name != "attribution" or figure is figures[-1] else []:
            assert axes.get_tightbbox().y0 > noted[0].get_window_extent().y1, "nothing stands on the note"


@pytest.mark.parametrize(
    ("details", "says"),
    [
        ({"rank": 1, "explained_share": 0.114}, "along this direction, 11% of the trace"),
        ({"rank": 3, "explained_share": 0.4, "estimator": "low_rank"}, "along these directions, 40% of the trace"),
        ({"rank": 8, "explained_share": 0.4, "estimator": "sampled"}, None),
        ({"rank": 64, "explained_share": 1.0}, None),
    ],
)
def test_a_prediction_says_what_its_directions_leave_out(details: dict[str, Any], says: str | None) -> None:
    result = replace(every_result.verification(), attribution=attribution(details=details, notes=("Look here.",)))
    for words in (str(result), said(result.plot()), result.html()):
        assert "Look here." in words
        assert "of the trace" not in words if says is None else says in words


def test_notes_of_a_figure_are_on_its_page_once() -> None:
    few = every_result.curves()
    assert few.notes and few.html().count(few.notes[0][:40]) == 1
    assert few.notes[0][:40] in said(few.plot())


@pytest.mark.parametrize("n", [3, 6])
def test_the_names_of_curves_lie_over_none_of_them(n: int) -> None:
    names = tuple(f"integrated_gradients_{i}" for i in range(n))
    one = every_result.curves()
    records = tuple({**r, "deltas": {m: [-0.1, -1.0, -2.0 - i] for i, m in enumerate(names)}} for r in one.records)
    records = tuple({**r, "loo_spearman": {m: None for m in names}} for r in records)
    figure = aopc_figure(AOPCTable(records, {}, names, one.fractions, one.settings, len(records)))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    box = axes.get_legend().get_window_extent()
    assert box.y1 < axes.xaxis.get_tightbbox().y0, "below the axis and its name"
    assert box.y0 >= 0 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_table_without_room_is_shaded_where_it_goes_on(look: Any, dark: bool) -> None:
    wide = table(pd.DataFrame({f"column {i}": [1.234] for i in range(14)}))
    page = look(View("", f'<div class="tls">{wide}</div>', lambda: "").html(), dark=dark)
    page.set_viewport_size({"width": 400, "height": 500})
    box = page.locator(".tls-scroll").bounding_box()
    clip = {"x": box["x"] + box["width"] - 4, "y": box["y"] + 2, "width": 3, "height": 3}
    ground = {"x": box["x"] + box["width"] + 4, "y": box["y"] + 2, "width": 3, "height": 3}
    assert page.screenshot(clip=clip) != page.screenshot(clip=ground), "it goes on"
    page.evaluate("document.querySelector('.tls-scroll').scrollLeft = 10000")
    assert page.screenshot(clip=clip) == page.screenshot(clip=ground), "its end is seen"


@pytest.mark.parametrize("width", [1280, 400])
def test_tables_abreast_are_whole_or_in_the_next_line(look: Any, width: int) -> None:
    run = every_result.many()
    strongest = tuple(Strongest(" lighthouse", 1234, 0.1234567) for _ in range(3))
    methods = tuple(replace(run.methods[0], method=f"integrated_gradients_{i}", strongest=strongest) for i in range(6))
    page = look(replace(run, methods=methods).html())
    page.set_viewport_size({"width": width, "height": 900})
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.eval_on_selector_all(".tls-abreast .tls-scroll", cut) == 0


def test_text_of_charts_is_about_as_large_on_a_telephone_as_on_a_wide_screen(look: Any) -> None:
    size = "all => Math.min(...all.map(e => e.getBoundingClientRect().height).filter(h => h > 0))"
    for result in (every_result.sinks(), every_result.forecast()):
        page = look(result.html())
        heights = {}
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            heights[width] = page.eval_on_selector_all(".tls-chart text", size)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert heights[400] > 0.8 * heights[1280], heights


@pytest.mark.parametrize("n", [4, 20, 110])
def test_names_of_the_curves_beside_a_path_stand_apart(n: int) -> None:
    figure = every_result.path(tokens=[f"t{i}" for i in range(n)]).plot()
    figure.draw_without_rendering()
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes if axes.get_xlabel()]
    boxes = sorted(boxes, key=lambda box: box.x0)
    assert len(boxes) == 3 and all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_points_of_several_tokens_are_named_beside_many_others() -> None:
    singles = [Point(0.01 * i, 0.3 + 0.05 * i, f"t{i}", "") for i in range(14)]
    joint = [Point(-0.05, -1.0 - i, f"top {i}%", "joint") for i in range(3)]
    axes = scatter_figure(Scatter("", "", "", (*singles, *joint), pd.DataFrame())).axes[0]
    assert {f"top {i}%" for i in range(3)} <= {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_line_of_a_terminal_breaks_between_two_tokens_alone(width: int) -> None:
    result = every_result.layers()
    console = Console(width=width, file=io.StringIO())
    console.print(influence_lines(result))
    body = console.file.getvalue().splitlines()
    numbers = re.compile(r"\d+(\.\d+)?(e[-+−]?\d+)?")
    rows = [line[12:].strip() for line in body if re.search(r"  \d", line)]
    assert rows and all(numbers.fullmatch(row.split()[-1]) and not numbers.fullmatch(row.split()[0]) for row in rows)
