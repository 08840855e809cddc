"""A text whose tokens are coloured by their scores: the scale, the tokens with the explained one, the legend."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tl_scopes.results.attribution import Attribution
from tl_scopes.views.canvas.colours import FULL, RED, Scale, ScaleKind, blend, css, ink_attributes, quantised
from tl_scopes.views.canvas.page import host
from tl_scopes.views.wording import explained_tokens, number, odds, unit, visible

_DIM = "#6b6b6b"
"""Ink of tokens without colour: 5.3:1 on white."""
_LONG = 300
"""From this many tokens on, the predictions stay in sight while the text scrolls."""
_HIGH_FLOOR = 0.2
"""Share of the highest score above which the lowest one leaves too little of a scale that starts at 0."""
_KINDS: dict[ScaleKind, str] = {
    "linear": "linear scale",
    "minmax": "linear scale from the lowest score",
    "log": "log scale, cells without colour are 0",
}


def scale_of(attribution: Attribution, kind: ScaleKind = "auto") -> Scale:
    """How its colours follow its scores; ``"auto"`` starts at the lowest one where that is far above 0."""
    shown = [float(attribution.scores[p]) for p in attribution.shown]
    found = Scale.of(shown, kind)
    if kind == "auto" and not found.log and shown and min(shown) > found.high * _HIGH_FLOOR:
        return Scale.of(shown, "minmax")
    return found


def coloured(attribution: Attribution, scale: Scale) -> str:
    """The tokens and, after the position that is read, the target."""
    shown = attribution.shown
    rank = {p: i + 1 for i, p in enumerate(sorted(shown, key=lambda p: (-float(attribution.scores[p]), p)))}
    scores = attribution.scores.tolist()
    measure = unit(attribution)
    static: list[str] = []
    inner: list[str] = []
    texts: list[str] = []
    values: list[float] = []
    tips: list[str] = []
    breaks: list[int] = []

    def add(text: str, html: str, share: float, tip: str, newline: bool) -> None:
        static.append(
            f'<span style="background-color:{css(blend(share))}" title="{escape(text)}&#10;{escape(tip)}">{html}</span>'
            + ("<br>" if newline else "")
        )
        if newline:
            breaks.append(len(inner))
        inner.append(html)
        texts.append(text)
        values.append(share)
        tips.append(tip)

    explained = explained_tokens(attribution)
    for p, token in enumerate(attribution.str_tokens):
        if p and p in attribution.answer and p - 1 not in attribution.answer:
            add(
                " answer",
                f'<b class="tls-target" style="color:{RED}">→</b>',
                0.0,
                "the answer that is explained",
                False,
            )
        share = quantised(scale.share(scores[p])) if p in rank else 0.0
        text = visible(token)
        if p in rank:
            colour = ink_attributes(blend(share))
            error = "" if attribution.stderr is None else f" ± {number(float(attribution.stderr[p]))}"
            tip = f"{number(scores[p])}{error} {measure} · rank {rank[p]} of {len(shown)} · position {p}"
        else:
            colour = f'style="color:{_DIM}"'
            why = "left out" if p in attribution.hidden else "after the position that is read"
            tip = f"{why} · score {number(scores[p])} · position {p}"
        last = p == attribution.pos + 1 and p in explained  # nothing reads it, but it is shown for what it is
        kinds = ["tls-out"] * (p not in rank and not last) + ["tls-special"] * (p in rank and p in attribution.special)
        if p in explained:
            kinds.append("tls-explained")
            tip = f"{tip} · {explained[p]}"
        mark = f' class="{" ".join(kinds)}"' if kinds else ""
        add(text, f'<bdi data-pos="{p}"{mark} {colour}>{escape(text)}</bdi>', share, tip, "\n" in token)
        if p == attribution.pos and p + 1 not in explained and not attribution.answer:
            name, tip = _target(attribution)
            how = f'<small class="tls-odds" style="color:{RED}">{said}</small>' if (said := odds(attribution)) else ""
            add(name, f'<b class="tls-target" style="color:{RED}">→<bdi>{escape(name)}</bdi></b>{how}', 0.0, tip, False)
    long = " tls-long" if len(inner) > _LONG else ""
    data = {"html": inner, "texts": texts, "values": values, "tips": tips, "breaks": breaks, "colour": FULL}
    return host("ColoredTokens", data, "".join(static), css=f"tls-tokens tls-ink{long}")


def _target(attribution: Attribution) -> tuple[str, str]:
    """Name and tooltip of the mark behind the position that is read."""
    if attribution.target_str is None:
        return " next token", "the prediction that is explained: not one token, the whole distribution"
    tip = "the predicted token that is explained"
    return visible(attribution.target_str), f"{tip} · {said}" if (said := odds(attribution)) else tip


def scale_legend(attribution: Attribution, scale: Scale) -> str:
    """Colours beside the scores that they stand for."""
    if scale.high <= 0:
        return '<p class="tls-legend">all shown scores are 0</p>'

    def ramp(shares: Sequence[float]) -> str:
        cells = "".join(f'<span style="background-color:{css(blend(s))}">&nbsp;</span>' for s in shares)
        return f'<span class="tls-ramp tls-ink" aria-hidden="true">{cells}</span>'

    start = scale.share(scale.low)
    at = [start + (1 - start) * i / 10 for i in range(11)]
    ticks = [number(scale.score(at[i])) for i in (0, 5, 10)]
    kind = _KINDS[scale.kind]
    if scale.log and any(0 < float(attribution.scores[p]) < scale.low for p in attribution.shown):
        ticks[0] = "≤ " + ticks[0]
    dim = "; hatched: left out" if attribution.hidden else ""
    dim += "; outlined: explained" if explained_tokens(attribution) else ""
    return (
        f'<p class="tls-legend">{ticks[0]} {ramp(at[:5])} {ticks[1]} {ramp(at[6:])} {ticks[2]} '
        f"<span>{escape(unit(attribution))} ({kind}{dim})</span></p>"
    )
