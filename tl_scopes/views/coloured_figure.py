"""The coloured text as a matplotlib figure, for a paper: the cells of the page, in its colours, in lines of one width.

All sizes are points; a figure is as high as its text needs. Text is literal, whatever is in it.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from textwrap import wrap
from typing import Any, Literal

from tl_scopes.results.attribution import Attribution
from tl_scopes.results.completeness import sums_up
from tl_scopes.results.words import characters
from tl_scopes.views.bars import attribution_bars
from tl_scopes.views.blocks import in_blocks, name
from tl_scopes.views.canvas.colours import RED, Scale, ScaleKind, blend, ink
from tl_scopes.views.canvas.figures import NOTE_COLOUR, Figure
from tl_scopes.views.coloured import DIM, Cell, cells, ramp_share, scale_of, scale_words
from tl_scopes.views.rendering import plot
from tl_scopes.views.terminal import predictions
from tl_scopes.views.wording import prompt_and_answer, title, visible

_WIDTH, _WIDEST = 468.0, 936.0
"""Of the lines: 6.5 inches, and of texts of many pages up to twice as much."""
_LONG = 60
"""Lines from which on they grow longer."""
_SIZE, _SMALL = 9.0, 7.0
"""Of the text, and of the words around it."""
_LINE, _BOX, _BELOW = 16.0, 13.0, 3.4
"""From line to line; height of a coloured cell, and how much of it is below the foot of the letters."""
_SMALL_LINE, _TITLE_LINE, _MARGIN, _RAMP, _INSET = 10.0, 13.0, 9.0, 120.0, 3.0
_BAR_ROOM = _RAMP + 14
"""Width of the colour bar, with what is left free beside it."""
_LETTER, _BOLD = 0.56, 0.66
"""Width of a letter of the words around the text, and of the title, in their size."""
_MARK = 48
"""Letters of what is explained, behind the position that is read."""
_MOST_PIXELS = 30_000
"""Of a side of the figure: what matplotlib draws has a limit."""
_PIECES, _LINES = re.compile(r"\s*\S+|\s+"), re.compile(r"[^\n]*\n+|[^\n]+")
_FONTS = (
    *("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Arial Unicode MS", "PingFang SC"),
    *(
        "Hiragino Sans",
        "Microsoft YaHei",
        "WenQuanYi Zen Hei",
        "Noto Sans Arabic",
        "Noto Sans Devanagari",
        "Nirmala UI",
    ),
    *("Noto Emoji", "Symbola"),
)
"""In this order each character takes the first that is installed and has it."""


@dataclass(frozen=True)
class _Box:
    """A cell, or a part of one that is folded, at its place in a line."""

    cell: Cell
    text: str
    x: float
    line: int
    width: float


@plot.register(Attribution)
def attribution_figure(
    attribution: Attribution,
    *,
    kind: Literal["text", "bars"] = "text",
    scale: ScaleKind = "auto",
    signed: bool | None = None,
) -> Any:
    """The coloured text, or a bar for each score."""
    return (
        attribution_bars(attribution, scale, signed)
        if kind == "bars"
        else coloured_figure([attribution], scale, signed)
    )


def coloured_figure(attributions: Sequence[Attribution], scale: ScaleKind = "auto", signed: bool | None = None) -> Any:
    """One text, or several below each other, each with its title, its scale and what the model predicted."""
    width, scales = _WIDTH, [scale_of(a, scale, signed) for a in attributions]
    drawn = [_whole(a, cells(a, own)) for a, own in zip(attributions, scales, strict=True)]
    laid = [_laid(each, width) for each in drawn]
    if (most := max(map(_count, laid))) > _LONG:
        width = min(_WIDEST, width * (most / _LONG) ** 0.5)
        laid = [_laid(each, width) for each in drawn]
    heads = [wrap(visible(title(a)), int(width / _BOLD / _SIZE)) for a in attributions]
    keys = [_key(a, own, width) for a, own in zip(attributions, scales, strict=True)]
    feet = [
        [(line, ink) for said, ink in _said(a, own.signed) for line in wrap(said, int(width / _LETTER / _SMALL))]
        for a, own in zip(attributions, scales, strict=True)
    ]
    heights = [
        _TITLE_LINE * len(head) + _room(key) + 0.8 * _SMALL_LINE + _LINE * _count(boxes) + _SMALL_LINE * (len(foot) + 1)
        for head, key, boxes, foot in zip(heads, keys, laid, feet, strict=True)
    ]
    across, down = width + 2 * _MARGIN, sum(heights) + _MARGIN
    figure = Figure(figsize=(across / 72, down / 72), dpi=min(150.0, _MOST_PIXELS * 72 / max(across, down)))
    top = 0.6 * _MARGIN
    for attribution, own, head, key, boxes, foot, height in zip(
        attributions, scales, heads, keys, laid, feet, heights, strict=True
    ):
        axes = figure.add_axes((_MARGIN / across, 1 - (top + height) / down, width / across, height / down))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        axes.set_label(title(attribution))
        y = 0.0
        for line in head:
            y += _TITLE_LINE
            _write(axes, 0.0, y - 4, line, _SIZE, weight="bold")
        _scale(axes, scale_words(attribution, own)[0], own, key, y)
        y += _room(key)
        for box in boxes:
            _draw(axes, box, y + _LINE * box.line)
        y += _LINE * _count(boxes) + 2
        for line, colour in foot:
            y += _SMALL_LINE
            _write(axes, 0.0, y, line, _SMALL, color=colour)
        top += height
    return figure


def _said(attribution: Attribution, signed: bool) -> list[tuple[str, str]]:
    """What the model predicted, how prompt and answer divide the influence, what signed scores add up to, the notes; and the
    ink of each.
    """
    predicted = predictions(attribution).plain if attribution.top_predictions else ""
    sums = sums_up(attribution.details)
    found = [(said, "black") for said in (predicted, prompt_and_answer(attribution), sums if signed else "") if said]
    return [*found, *((visible(note), NOTE_COLOUR) for note in attribution.notes if note != sums)]


def _whole(attribution: Attribution, drawn: Sequence[Cell]) -> list[Cell]:
    """The cells; where a unit is shown by its name, its own text stands behind that."""
    found = []
    for cell in drawn:
        pos, offsets = cell.pos, attribution.offsets
        if pos is not None and offsets and in_blocks(attribution) and cell.raw == name(attribution, pos):
            text = (attribution.text or "")[slice(*offsets[pos])]
            cell = replace(cell, raw=f"{text[: len(text) - len(text.lstrip())]}{cell.raw}: {text.lstrip()}")
        found.append(cell)
    return found


# -- where everything stands -----------------------------------------------------------------------


def _laid(drawn: Sequence[Cell], width: float) -> list[_Box]:
    """The cells in lines: one that is not whole in a line stands in the next; one of several words folds, as units do."""
    found: list[_Box] = []
    x, line = 0.0, 0
    for cell, end in zip(drawn, _ends(drawn), strict=True):
        if cell.mark == "answer" and x:
            x, line = 0.0, line + 1
        parts = list(_parts(cell, width - x, width))
        for i, text in enumerate(parts):
            behind = end if i == len(parts) - 1 and x else 0.0
            if x and x + (wide := _wide(cell, text)) + (behind if wide + behind <= width else 0.0) > width:
                x, line = 0.0, line + 1
            wide = _wide(cell, text)
            last = found[-1] if found else None
            if last is not None and last.cell is cell and last.line == line:  # a part goes on
                found[-1] = replace(last, text=last.text + text, width=x + wide - last.x)
            else:
                found.append(_Box(cell, text, x, line, wide))
            x += wide
            if "\n" in text:
                x, line = 0.0, line + 1
    return found


def _ends(drawn: Sequence[Cell]) -> list[float]:
    """The width of the marks behind each cell, such as commas, that never begin a line."""
    found = [0.0] * len(drawn)
    for i in range(len(drawn) - 2, -1, -1):
        if not drawn[i].raw.endswith("\n") and (after := drawn[i + 1]).raw and not after.mark and _closes(after.raw):
            found[i] = _wide(after, after.raw) + found[i + 1]
    return found


def _closes(text: str) -> bool:
    """Is it nothing but signs that belong to what stands before them?"""
    return all(unicodedata.category(c) in ("Pe", "Pf", "Po") for c in text.rstrip(" ")) and bool(text.strip())


def _parts(cell: Cell, room: float, width: float) -> Iterator[str]:
    """A cell's lines; what has no room on a line as words, and a word that is wider than all of it as characters."""
    if cell.mark:
        yield cell.raw
        return
    for text in _LINES.findall(cell.raw) or [""]:
        if _wide(cell, text) <= room:
            yield text
        else:
            for word in _PIECES.findall(text):
                yield from [word] if _wide(cell, word) <= width else characters(word)
        room = width


def _shown(cell: Cell, text: str) -> str:
    """A part of a cell as it is written."""
    if cell.mark == "answer":
        return "→"
    if not cell.mark:
        return visible(text)
    name = visible(text)
    return f"→{name if len(name) <= _MARK else name[: _MARK - 1] + '…'} {cell.odds}".rstrip()


def _wide(cell: Cell, text: str) -> float:
    """Its width, with some room around marks."""
    return _measured(_shown(cell, text), bool(cell.mark), cell.special) + (2 * _INSET if cell.mark else 0.0)


def _count(boxes: Sequence[_Box]) -> int:
    """Lines."""
    return max((box.line for box in boxes), default=0) + 1


@cache
def _families() -> tuple[str, ...]:
    """The fonts that are there."""
    from matplotlib.font_manager import get_font_names

    known = set(get_font_names())
    return tuple(name for name in _FONTS if name in known)


@cache
def _font(size: float, weight: str = "normal", italic: bool = False) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(_families()), size=size, weight=weight, style="italic" if italic else "normal")


@lru_cache(4096)
def _measured(text: str, bold: bool, italic: bool) -> float:
    """The width of a text."""
    from matplotlib.textpath import text_to_path

    if not text:
        return 0.0
    font = _font(_SIZE, "bold" if bold else "normal", italic)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # said once, when it is drawn
        return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


# -- drawing ---------------------------------------------------------------------------------------


def _draw(axes: Any, box: _Box, y: float) -> None:
    """One cell, or one line of it, in the line that begins at ``y``."""
    from matplotlib.patches import Rectangle

    cell, foot = box.cell, y + _LINE - _BELOW - 1
    place = (box.x, foot + _BELOW - _BOX), box.width, _BOX
    colour = blend(cell.share)
    patch = Rectangle(*place, facecolor=_rgb(colour), edgecolor="#d0d0d0", linewidth=0.4, label=cell.tip)
    if cell.out:
        patch.set(hatch="/////", edgecolor="#c4c4c4")
        patch.set_linewidth(0.0)
    if cell.mark or cell.explained:
        patch.set(edgecolor=RED, linewidth=0.9, zorder=1.5)
    axes.add_patch(patch)
    if cell.explained:
        axes.plot(
            [box.x, box.x + box.width], [foot + _BELOW - 0.6] * 2, color=RED, linewidth=1.4, solid_capstyle="butt"
        )
    shade = RED if cell.mark else ink(colour) if cell.read else DIM
    x = box.x + (_INSET if cell.mark else 0.0)
    for word in _PIECES.findall(_shown(cell, box.text)):  # apart: a renderer may round the widths of letters
        _write(axes, x, foot, word, _SIZE, "bold" if cell.mark else "normal", cell.special, color=shade)
        x += _measured(word, bool(cell.mark), cell.special)


def _key(attribution: Attribution, scale: Scale, width: float) -> list[str]:
    """What the colours stand for, as lines beside the colour bar, where there is one."""
    ticks, words = scale_words(attribution, scale)
    return wrap(words, int((width - _BAR_ROOM * bool(ticks)) / _LETTER / _SMALL))


def _room(key: Sequence[str]) -> float:
    """Height of the colour bar and the lines beside it."""
    return _SMALL_LINE * max(2.4, len(key) + 0.9)


def _scale(axes: Any, ticks: Sequence[tuple[float, str]], scale: Scale, key: Sequence[str], y: float) -> None:
    """The colour bar with its values, and the lines beside it."""
    top = y + 2.0
    if ticks:
        colours = [blend(ramp_share(scale, i / 98)) for i in range(99)]
        axes.imshow([colours], extent=(0, _RAMP, top + 8, top), aspect="auto", interpolation="nearest", zorder=0)
        for (_, value), x, side in zip(ticks, (0.0, _RAMP / 2, _RAMP), ("left", "center", "right"), strict=True):
            _write(axes, x, top + 17, value, _SMALL, ha=side)
    for i, line in enumerate(key):
        _write(axes, _BAR_ROOM * bool(ticks), top + 7 + _SMALL_LINE * i, line, _SMALL)


def _write(
    axes: Any, x: float, y: float, text: str, size: float, weight: str = "normal", italic: bool = False, **how: Any
) -> None:
    """Text at the foot of its letters, without formulas."""
    axes.text(x, y, text, fontproperties=_font(size, weight, italic), va="baseline", parse_math=False, **how)


def _rgb(colour: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(c / 255 for c in colour)
