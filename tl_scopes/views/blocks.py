"""Units as blocks below each other: the text of each, its name if it has one, and a bar of its share of the influence, or
left or right of 0 of its signed score.

Turns stand as in a chat, a column of messages with their roles.
"""

from __future__ import annotations

from html import escape

from tl_scopes.model.units import TEMPLATE
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.units import REST, kind_of
from tl_scopes.views.canvas.colours import Scale, blend, css
from tl_scopes.views.coloured import LONG, Cell, cells, inner, values_of
from tl_scopes.views.wording import explained_scalar, in_lines, percent, plus, shares, visible

_TITLE = 60
"""Letters of a unit that the line below repeats."""


def in_blocks(attribution: Attribution) -> bool:
    """Are its entries units of several words?"""
    return kind_of(attribution.details) not in (None, "word")


def said(attribution: Attribution, p: int) -> str:
    """The text of a unit, also where it is shown by its name."""
    start, end = attribution.offsets[p] if attribution.offsets else (0, 0)
    return in_lines((attribution.text or "")[start:end] or attribution.str_tokens[p])


def name(attribution: Attribution, p: int) -> str:
    """The role of a turn, or what the caller named it; empty for what nobody named."""
    found = str(attribution.details.get("names", {p: ""})[p])
    return "" if found == REST else found


def strongest_of(part: dict[int, float]) -> int | None:
    """The unit with the largest share, where there are others."""
    return max(part, key=lambda p: abs(part[p])) if len(part) > 1 else None


def measured(attribution: Attribution, scale: Scale) -> tuple[dict[int, float], str]:
    """The number of each unit that its bar shows, a share or a signed score, and what bars are."""
    if scale.signed:
        values = values_of(attribution, scale)
        said = f"Bars: signed scores; left of the middle lowers {explained_scalar(attribution)}, right raises it."
        return {p: values[p] for p in attribution.shown}, said
    part, what = shares(attribution)
    return part, f"Bars: share of the {what}." if part else ""


def blocks(attribution: Attribution, scale: Scale) -> str:
    """The units in the order of the text, with their shares; the strongest is marked."""
    part, words = measured(attribution, scale)
    chat = " tls-chat" if kind_of(attribution.details) == "turn" else ""
    drawn = cells(attribution, scale)
    long = " tls-long" if len(drawn) > LONG else ""
    body = "".join(_mark(cell) if cell.mark else _block(attribution, cell, part, scale) for cell in drawn)
    said = " ".join(filter(None, (words, "Small: what the chat's template wrote." if chat else "")))
    explained = f'<p class="tls-small">{escape(said)}</p>' if said else ""
    return (
        f'{explained}<div class="tls-tokens tls-units{chat}{long}"><div class="tls-static" tabindex="0" role="group" '
        f'aria-label="units; arrow keys walk them">{body}</div></div>'
    )


def _mark(cell: Cell) -> str:
    """Behind what is read the target; before an answer a line of its own."""
    words = f" {escape(cell.tip)}" if cell.mark == "answer" else ""
    tip = f"{escape(cell.text)}&#10;{escape(cell.tip)}"
    return f'<span class="tls-unit tls-between" title="{tip}"><span class="tls-ink">{inner(cell)}</span>{words}</span>'


def _bar(value: float, largest: float, signed: bool) -> str:
    """On the scale of the largest; of signed scores left or right of the middle."""
    width = 100 * abs(value) / (largest or 1.0)
    if not signed:
        return f'<span class="tls-track"><span class="tls-bar" style="width:{width:.1f}%"></span></span>'
    place = f"width:{width / 2:.1f}%;margin-left:{50 - width / 2 * (value < 0):.1f}%"
    below = " tls-below" if value < 0 else ""
    return f'<span class="tls-track tls-both"><span class="tls-bar{below}" style="{place}"></span></span>'


def _block(attribution: Attribution, cell: Cell, part: dict[int, float], scale: Scale) -> str:
    """One unit."""
    assert cell.pos is not None
    text, called = said(attribution, cell.pos), name(attribution, cell.pos)
    best = strongest_of(part)
    label = f'<b class="tls-name"><bdi>{escape(visible(called))}</bdi></b>' if called not in ("", TEMPLATE) else ""
    kinds = ["tls-unit", *["tls-by-template"] * (called == TEMPLATE), *["tls-strongest"] * (cell.pos == best)]
    share, write = part.get(cell.pos), plus if scale.signed else percent
    if share is None:
        bar = "<span></span><span>left out</span>" if cell.pos in attribution.hidden else ""
    else:
        number = f"<b>{write(share)}</b>" if cell.pos == best else write(share)
        bar = f"{_bar(share, max(map(abs, part.values())), scale.signed)}<span>{number}</span>"
    flat = ": ".join(filter(None, (called, text.replace("\n", " "))))
    title = flat if len(flat) <= _TITLE else flat[: _TITLE - 1] + "…"
    tip = cell.tip if share is None or scale.signed else f"{percent(share)} · {cell.tip}"
    return (
        f'<span class="{" ".join(kinds)}" title="{escape(title)}&#10;{escape(tip)}">{label}'
        f'<span class="tls-said tls-ink" style="background-color:{css(blend(cell.share))}">{inner(cell, text)}</span>'
        f'<span class="tls-part">{bar}</span></span>'
    )
