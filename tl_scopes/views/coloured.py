"""A text whose tokens are coloured by their scores: the scale, the tokens with the explained one, the legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from tl_scopes.results.attribution import Attribution
from tl_scopes.views.canvas.colours import (
    BELOW_ZERO,
    FULL,
    RED,
    Scale,
    ScaleKind,
    blend,
    css,
    ink_attributes,
    quantised,
)
from tl_scopes.views.canvas.page import host
from tl_scopes.views.wording import (
    explained_scalar,
    explained_tokens,
    marks_target,
    number,
    odds,
    plus,
    shows_signs,
    unit,
    visible,
)

DIM = "#6b6b6b"
"""Ink of tokens without colour: 5.3:1 on white."""
LONG = 300
"""From this many tokens on, the predictions stay in sight while the text scrolls."""
_HIGH_FLOOR = 0.2
"""Share of the highest score above which the lowest one leaves too little of a scale that starts at 0."""
_KINDS: dict[ScaleKind, str] = {
    "linear": "linear scale",
    "minmax": "linear scale from the lowest score",
    "log": "log scale, cells without colour are 0",
}


def scale_of(attribution: Attribution, kind: ScaleKind = "auto", signed: bool | None = None) -> Scale:
    """How its colours follow its scores; ``"auto"`` starts at the lowest one where that is far above 0.

    A scale around 0 is of its signed scores, which are shown as :func:`tl_scopes.views.wording.shows_signs` says.
    """
    if shows_signs(attribution, signed, kind):
        assert attribution.signed is not None
        return Scale.around_zero([float(attribution.signed[p]) for p in attribution.shown], kind)
    shown = [float(attribution.scores[p]) for p in attribution.shown]
    found = Scale.of(shown, kind)
    if kind == "auto" and not found.log and shown and min(shown) > found.high * _HIGH_FLOOR:
        return Scale.of(shown, "minmax")
    return found


def values_of(attribution: Attribution, scale: Scale) -> list[float]:
    """The numbers that the scale is of, one per token: scores, or signed scores."""
    values = attribution.signed if scale.signed else attribution.scores
    assert values is not None
    return values.double().tolist()


def ranked(attribution: Attribution, scale: Scale) -> list[int]:
    """Shown positions, largest first; ties by position."""
    values = values_of(attribution, scale)
    return sorted(attribution.shown, key=lambda p: (-abs(values[p]), p))


@dataclass(frozen=True)
class Cell:
    """What every picture of the text has, in the order of the text: a token, or a mark between tokens.

    Attributes:
        raw: the token; of a mark its words.
        tip: what is said of it.
        share: of the full colour; below 0 of that of lowest scores.
        pos: position of the token; None of a mark.
        mark: between prompt and answer, or behind the position that is read.
        read: has it a score that is shown?
        out: is it left out, or not read?
        special: is it a special token that is shown?
        explained: is it part of what is explained?
        odds: what a mark of the target says of its probability.
    """

    raw: str
    tip: str
    share: float = 0.0
    pos: int | None = None
    mark: Literal["", "answer", "target"] = ""
    read: bool = False
    out: bool = False
    special: bool = False
    explained: bool = False
    odds: str = ""

    @property
    def text(self) -> str:
        """As it is shown."""
        return visible(self.raw)


def cells(attribution: Attribution, scale: Scale) -> list[Cell]:
    """The tokens and, after the position that is read, the target."""
    rank = {p: i + 1 for i, p in enumerate(ranked(attribution, scale))}
    scores, write = values_of(attribution, scale), plus if scale.signed else number
    measure = unit(attribution)
    explained = explained_tokens(attribution)
    found: list[Cell] = []
    for p, token in enumerate(attribution.str_tokens):
        if p and p in attribution.answer and p - 1 not in attribution.answer:
            found.append(Cell(" answer", "the answer that is explained", mark="answer"))
        if p in rank:
            error = "" if attribution.stderr is None else f" ± {number(float(attribution.stderr[p]))}"
            side = "" if not scale.signed or not scores[p] else " · raises" if scores[p] > 0 else " · lowers"
            tip = f"{write(scores[p])}{error} {measure}{side} · rank {rank[p]} of {len(rank)} · position {p}"
        else:
            why = "left out" if p in attribution.hidden else "after the position that is read"
            tip = f"{why} · score {write(scores[p])} · position {p}"
        last = p == attribution.pos + 1 and p in explained  # nothing reads it, but it is shown for what it is
        found.append(
            Cell(
                token,
                f"{tip} · {explained[p]}" if p in explained else tip,
                quantised(scale.share(scores[p])) if p in rank else 0.0,
                p,
                read=p in rank,
                out=p not in rank and not last,
                special=p in rank and p in attribution.special,
                explained=p in explained,
            )
        )
        if p == attribution.pos and p + 1 not in explained and marks_target(attribution):
            name, tip = _target(attribution)
            found.append(Cell(name, tip, mark="target", odds=odds(attribution)))
    return found


def coloured(attribution: Attribution, scale: Scale) -> str:
    """The :func:`cells` as a line of tokens."""
    drawn = cells(attribution, scale)
    inside = list(map(inner, drawn))
    texts = [cell.text for cell in drawn]
    breaks = [i for i, cell in enumerate(drawn) if "\n" in cell.raw]
    static = [
        f'<span style="background-color:{css(blend(cell.share))}" title="{escape(cell.text)}&#10;{escape(cell.tip)}">{html}'
        f"</span>{'<br>' * (i in breaks)}"
        for i, (cell, html) in enumerate(zip(drawn, inside, strict=True))
    ]
    data = {
        "html": inside,
        "texts": texts,
        "values": [cell.share for cell in drawn],
        "tips": [cell.tip for cell in drawn],
        "breaks": breaks,
        "colour": FULL,
        **({"below": BELOW_ZERO} if scale.signed else {}),
    }
    long = " tls-long" if len(inside) > LONG else ""
    return host("ColoredTokens", data, "".join(static), css=f"tls-tokens tls-ink{long}")


def inner(cell: Cell, text: str | None = None) -> str:
    """A cell's own HTML: the text of a token, here perhaps another one, or the mark of the target or the answer."""
    if cell.mark:
        name = f"<bdi>{escape(cell.text)}</bdi>" if cell.mark == "target" else ""
        how = f'<small class="tls-odds" style="color:{RED}">{cell.odds}</small>' if cell.odds else ""
        return f'<b class="tls-target" style="color:{RED}">→{name}</b>{how}'
    kinds = ["tls-out"] * cell.out + ["tls-special"] * cell.special + ["tls-explained"] * cell.explained
    mark = f' class="{" ".join(kinds)}"' if kinds else ""
    ink = ink_attributes(blend(cell.share)) if cell.read else f'style="color:{DIM}"'
    return f'<bdi data-pos="{cell.pos}"{mark} {ink}>{escape(cell.text if text is None else text)}</bdi>'


def _target(attribution: Attribution) -> tuple[str, str]:
    """Name and tooltip of the mark behind the position that is read."""
    if attribution.target_str is None:
        return " next token", "the prediction that is explained: not one token, the whole distribution"
    tip = "the predicted token that is explained"
    return visible(attribution.target_str), f"{tip} · {said}" if (said := odds(attribution)) else tip


def scale_words(attribution: Attribution, scale: Scale) -> tuple[list[tuple[float, str]], str]:
    """Shares of the full colour with the scores that have them, low to high, and what the scale is."""
    if scale.high <= 0:
        return [], "all shown scores are 0"
    at = [ramp_share(scale, place) for place in (0.0, 0.5, 1.0)]
    ticks = [number(scale.score(share)) for share in at]
    kind = _KINDS[scale.kind]
    if scale.signed:
        ticks = [f"−{ticks[2]}", "0", f"+{ticks[2]}"]
        if scale.log:
            kind = f"log scale from {number(scale.low)} in size, smaller ones alike"
        kind += f"; orange lowers {explained_scalar(attribution)}, blue raises it"
    elif scale.log and any(0 < float(attribution.scores[p]) < scale.low for p in attribution.shown):
        ticks[0] = "≤ " + ticks[0]
    dim = "; hatched: left out" if attribution.hidden else ""
    dim += "; outlined: explained" if explained_tokens(attribution) else ""
    return list(zip(at, ticks, strict=True)), f"{unit(attribution)} ({kind}{dim})"


def ramp_share(scale: Scale, place: float) -> float:
    """The share of the full colour at a place of the scale's ramp, 0 to 1 from its left to its right."""
    foot = scale.share(scale.low) if scale.log or not scale.signed else 0.0
    if not scale.signed:
        return foot + (1 - foot) * place
    side = 2 * place - 1
    return 0.0 if not side else (foot + (1 - foot) * abs(side)) * (1 if side > 0 else -1)


def scale_legend(attribution: Attribution, scale: Scale) -> str:
    """Colours beside the scores that they stand for."""
    ticks, words = scale_words(attribution, scale)
    if not ticks:
        return f'<p class="tls-legend">{words}</p>'

    def ramp(steps: Sequence[int]) -> str:
        colours = [blend(ramp_share(scale, i / 10)) for i in steps]
        cells = "".join(f'<span style="background-color:{css(c)}">&nbsp;</span>' for c in colours)
        return f'<span class="tls-ramp tls-ink" aria-hidden="true">{cells}</span>'

    (_, low), (_, middle), (_, high) = ticks
    ramps = f"{low} {ramp(range(5))} {middle} {ramp(range(6, 11))} {high}"
    return f'<p class="tls-legend">{ramps} <span>{escape(words)}</span></p>'
