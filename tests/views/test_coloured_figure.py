"""The coloured text as a figure.

Invariant: a figure has the cells of the page in their order and colours; no cell leaves the lines; the figure is as high as
its text needs; every token is literal.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import attribution

import tl_scopes as tls
from tl_scopes.views import coloured_figure
from tl_scopes.views.canvas.colours import RED, blend
from tl_scopes.views.coloured import cells, scale_of

pytestmark = pytest.mark.one_lens
ANSWER = attribution(
    ["<bos>", "Wer", "?", " Der", " Hund", " da", "."],
    pos=5,
    answer=(4, 5, 6),
    span=(3, 4, 5),
    targets=(4, 5, 6),
    hidden=frozenset({0}),
    target_str=" Hund da.",
)


def boxes(figure: Any) -> list[Any]:
    return list(figure.axes[0].patches)


def written(figure: Any) -> str:
    return "".join(text.get_text() for text in figure.axes[0].texts)


def to_hex(patch: Any, edge: bool = False) -> str:
    colour = patch.get_edgecolor() if edge else patch.get_facecolor()
    return "#" + "".join(f"{round(255 * c):02x}" for c in colour[:3])


@pytest.mark.parametrize("attr", [attribution(), ANSWER])
def test_the_cells_are_those_of_the_page_in_their_order_and_colours(attr: tls.Attribution) -> None:
    drawn = boxes(attr.plot())
    wanted = cells(attr, scale_of(attr))
    assert [b.get_label() for b in drawn] == [c.tip for c in wanted]
    assert [to_hex(b) for b in drawn] == ["#{:02x}{:02x}{:02x}".format(*blend(c.share)) for c in wanted]


def test_the_figure_of_an_answer_outlines_what_is_explained_and_sets_it_apart() -> None:
    drawn = boxes(ANSWER.plot())
    red = [b.get_label() for b in drawn if to_hex(b, edge=True) == RED and "position" in b.get_label()]
    assert [int(re.findall(r"position (\d)", label)[0]) for label in red] == [4, 5, 6]
    tops = [b.get_y() for b in drawn]
    assert len(set(tops[:4])) == 1 and len(set(tops[4:])) == 1 and tops[4] > tops[3], "the answer is a line of its own"
    assert [b.get_hatch() is not None for b in drawn] == [True] + [False] * 7, "BOS is left out"


def test_lines_of_the_text_are_kept() -> None:
    before, newline, after = boxes(attribution(["a", "\n", "b"], pos=2).plot())[:3]
    assert before.get_y() == newline.get_y() < after.get_y() and after.get_x() == 0


def test_the_figure_grows_with_the_text_and_nothing_leaves_its_lines() -> None:
    sizes = []
    for n in (20, 160):
        attr = attribution([f" word{i}" for i in range(n)], pos=n - 1, scores=torch.linspace(0, 1, n))
        figure = attr.plot()
        sizes.append(figure.get_size_inches())
        lines = figure.axes[0].get_xlim()[1]
        assert max(b.get_x() + b.get_width() for b in boxes(figure)) <= lines + 1e-6
        assert written(figure).count("word") >= n
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] > 2 * sizes[0][1]


@pytest.mark.parametrize("unit", ["One sentence that is long. " * 12, "line\n" * 5, "w" * 400])
def test_a_unit_that_is_longer_than_a_line_folds(unit: str) -> None:
    figure = replace(attribution([unit, " end"], pos=1), text=None).plot()
    lines = figure.axes[0].get_xlim()[1]
    rows = [b for b in boxes(figure) if "position 0" in b.get_label()]
    assert len({b.get_y() for b in rows}) == len(rows) > 1
    assert max(b.get_x() + b.get_width() for b in rows) <= lines + 1e-6
    assert re.sub(r"\W", "", unit) in re.sub(r"\W", "", written(figure))


@pytest.mark.filterwarnings("ignore:No font")
def test_dollars_and_emoji_are_literal(tmp_path: Path) -> None:
    figure = attribution(["$", "x^2", "$", r"\frac", "🙂"], pos=4).plot()
    assert r"$x^2$\frac🙂" in written(figure)
    for ending in ("svg", "pdf"):
        figure.savefig(tmp_path / f"text.{ending}")
        assert (tmp_path / f"text.{ending}").stat().st_size > 1000


def test_characters_without_a_font_are_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coloured_figure, "_families", lambda: ("DejaVu Sans",))
    figure = attribution(["犬", "猫", " हिन्दी", " a"], pos=3).plot()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        figure._repr_png_()
    assert len(seen) == 1 and "犬 猫" in str(seen[0].message)


def test_bars_have_the_standard_errors() -> None:
    attr = attribution(stderr=torch.ones(6))
    assert attr.plot(kind="bars").axes[0].containers
    with pytest.raises(ValueError, match=r"^Attribution.plot\(kind='pie'\)"):
        attr.plot(kind="pie")  # type: ignore[arg-type]


def lines(figure: Any) -> list[str]:
    """What is written in each line of the text, from the top."""
    tops: dict[float, str] = {}
    for text in figure.axes[0].texts:
        tops[text.get_position()[1]] = tops.get(text.get_position()[1], "") + text.get_text()
    return list(tops.values())


@pytest.mark.parametrize("length", range(1, 12))
def test_no_line_begins_with_a_sign_that_belongs_to_what_stands_before_it(length: int) -> None:
    tokens = ["<bos>", *[" " + "m" * length, ",", " and", " so", " on", ".", "”"] * 20, " x"]
    found = lines(attribution(tokens, pos=len(tokens) - 1).plot())
    assert not [line for line in found if line.startswith((",", ".", "”"))]


def test_named_units_stand_in_the_figure_with_their_text() -> None:
    text = "Ask the cat, it was said, and go."
    offsets = ((0, 7), (7, 24), (24, 33))
    attr = attribution(
        ["Ask the", "speech", ", and go."], text=text, offsets=offsets, pos=2, special=frozenset(),
        details={"unit": "span", "units": [[0], [1], [2]], "names": ["(rest)", "speech", "(rest)"]},
    )  # fmt: skip
    said = written(attr.plot())
    assert "Ask the speech: cat, it was said, and go." in said
