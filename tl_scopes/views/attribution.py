"""Attributions as coloured tokens: one method, several methods to switch between, and the paper's figure layout.

The tokens are HTML; in a notebook CircuitsVis draws them again, in the same colours. Around them stand the scale, the
target and the predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tl_scopes.results.attribution import Attribution
from tl_scopes.views.canvas.colours import FULL, RED, Scale, ScaleKind, blend, css, ink_attributes, quantised
from tl_scopes.views.canvas.heatmap_figure import MOST_LABELS, name_columns
from tl_scopes.views.canvas.page import READ_TOKENS, View, heading, host
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.terminal import as_text, attribution_text
from tl_scopes.views.terminal import view as terminal_view
from tl_scopes.views.wording import literal, number, percent, predicted, read_text, title, unit, visible

_DIM = "#6b6b6b"
"""Ink of tokens without colour: 5.3:1 on white."""
_LONG = 300
"""From this many tokens on, the predictions stay in sight while the text scrolls."""

text.register(Attribution, attribution_text)


@view.register(Attribution)
def tokens(attribution: Attribution, *, scale: ScaleKind = "auto") -> View:
    """One attribution: coloured tokens, true scale, target, strongest tokens and predictions.

    Args:
        attribution: what to show; hidden tokens and those after ``pos`` are dim and without colour.
        scale: how colours follow scores; ``"auto"`` is linear, or log where the highest score is more than 50 times
            the median. The legend says which.
    """
    body = _row(heading(title(attribution)) + _panel(attribution, scale), attribution)
    return View(title(attribution), f'<div class="tls">{body}</div>', lambda: attribution_text(attribution))


def compare(attributions: Mapping[str, Attribution], *, scale: ScaleKind = "auto") -> View:
    """Several methods on one text, with a button for each; every method has its own scale.

    The buttons are radio buttons (arrow keys work) and need no script. Raises ``ValueError`` when there is nothing to
    compare or the texts differ.
    """
    if not attributions:
        raise ValueError("compare({}): give at least one attribution")
    first = next(iter(attributions.values()))
    for name, attribution in attributions.items():
        if attribution.str_tokens != first.str_tokens or attribution.pos != first.pos:
            raise ValueError(
                f"compare(...): {name!r} has other tokens or another pos than {next(iter(attributions))!r}; "
                "use stack() for different texts"
            )
    buttons = "".join(
        f'<label><input type="radio" name="method" value="{i}"{" checked" if i == 0 else ""}>{escape(name)}</label>'
        for i, name in enumerate(attributions)
    )
    panels = "".join(f"<section>{heading(title(a))}{_panel(a, scale)}</section>" for a in attributions.values())
    rules = "".join(
        f".tls-compare:has(.tls-switch > label:nth-of-type({i}) > :checked) > section:not(:nth-of-type({i}))"
        "{display:none}"
        for i in range(1, len(attributions) + 1)
    )
    form = (
        f'<form class="tls-compare" method="dialog"><style>{rules}</style>'
        f'<div class="tls-switch" role="radiogroup" aria-label="method">{buttons}</div>{panels}</form>'
    )
    several = list(attributions.values())
    return View(
        f"{len(several)} methods on one text",
        f'<div class="tls">{_row(form, first)}</div>',
        lambda: as_text(terminal_view(several)),
    )


def figure(attributions: Attribution | Sequence[Attribution], *, k: int = 7, scale: ScaleKind = "auto") -> View:
    """The layout of the paper's figures 3 to 5: tokens on the left, the top ``k`` predicted words on the right.

    Several attributions (the same text at several positions, say) make one row each. The target is red, influence is
    blue; every row has its own scale.
    """
    rows = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    if not rows:
        raise ValueError("figure([]): give at least one attribution")
    if k < 1:
        raise ValueError(f"figure(k={k}): k must be 1 or more")
    body = "".join(_row(_coloured(a, s) + _legend(a, s), a, k) for a, s in ((a, _scale(a, scale)) for a in rows))
    return View(
        title(rows[0]), f'<div class="tls tls-figure">{body}</div>', lambda: "\n\n".join(map(attribution_text, rows))
    )


@plot.register(Attribution)
def attribution_figure(attribution: Attribution, *, scale: ScaleKind = "auto") -> Any:
    """A bar per token, and beside them the most probable next tokens; the explained one is red."""
    from tl_scopes.views.canvas.figures import Figure

    n, kind = len(attribution), _scale(attribution, scale)
    words = predicted(attribution, 7)[::-1]
    labels = 0.065 * max(map(len, name_columns(attribution.str_tokens))) if n <= MOST_LABELS else 0.0
    wide = max(3.2, min(12.0, 0.6 + 0.21 * n))
    figure = Figure(figsize=(wide + (2.6 if words else 0.0), 2.6 + labels), dpi=150, layout="constrained")
    axes, *beside = figure.subplots(1, 2 if words else 1, squeeze=False, width_ratios=[wide, 2.0] if words else None)[0]
    shown = set(attribution.shown)
    colours = [FULL if p in shown else "#cccccc" for p in range(n)]
    error = None if attribution.stderr is None else attribution.stderr.double().numpy()
    axes.bar(range(n), attribution.scores.double().numpy(), yerr=error, color=colours, width=0.8, capsize=2)
    if kind.log:
        axes.set_yscale("log")
        axes.set_ylim(bottom=kind.low / 2)
    axes.set_xlim(-0.7, n - 0.3)
    if n <= MOST_LABELS:
        axes.set_xticks(range(n), name_columns(attribution.str_tokens), rotation=90, fontsize=7)
        axes.get_xticklabels()[attribution.pos].set_color(RED)
    grey = "grey: left out; " if attribution.hidden else ""
    axes.set_xlabel(f"token ({grey}red: read here)", fontsize=8)
    axes.set_ylabel(unit(attribution), fontsize=8)
    axes.set_title(literal(visible(title(attribution))), fontsize=9, loc="left")
    for other in beside:
        bars = [RED if explained else "#3182bd" for *_, explained in words]
        other.barh(range(len(words)), [p for _, p, _ in words], color=bars)
        names = [
            f"{name} {percent(p)}" for name, (_, p, _) in zip(name_columns([w for w, *_ in words]), words, strict=True)
        ]
        other.set_yticks(range(len(words)), names, fontsize=7)
        other.set_xlim(0, 1)
        other.set_xlabel("probability", fontsize=8)
        other.set_title("predicted", fontsize=9)
    for each in (axes, *beside):
        each.tick_params(axis="both", labelsize=7)
        each.spines[["top", "right"]].set_visible(False)
    return figure


def _row(left: str, attribution: Attribution, k: int = 7) -> str:
    """Text on the left, predictions on the right."""
    right = f'<div class="tls-right">{_predictions(attribution, k)}</div>' if attribution.top_predictions else ""
    return f'<div class="tls-row"><div class="tls-left">{left}</div>{right}</div>'


def _panel(attribution: Attribution, kind: ScaleKind) -> str:
    """Everything about one attribution but its title and the predictions."""
    scale = _scale(attribution, kind)
    notes = "".join(f'<p class="tls-note">{escape(note)}</p>' for note in attribution.notes)
    parts = (_legend(attribution, scale), _coloured(attribution, scale), READ_TOKENS, _strongest(attribution))
    return "".join(parts) + notes + _more(attribution)


def _scale(attribution: Attribution, kind: ScaleKind) -> Scale:
    return Scale.of((float(attribution.scores[p]) for p in attribution.shown), kind)


def _coloured(attribution: Attribution, scale: Scale) -> str:
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

    for p, token in enumerate(attribution.str_tokens):
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
        mark = "" if p not in attribution.special else ' class="tls-special"' if p in rank else ' class="tls-out"'
        add(text, f'<bdi data-pos="{p}"{mark} {colour}>{escape(text)}</bdi>', share, tip, "\n" in token)
        if p == attribution.pos:
            name, tip = _target(attribution)
            add(name, f'<b class="tls-target" style="color:{RED}">→<bdi>{escape(name)}</bdi></b>', 0.0, tip, False)
    long = " tls-long" if len(inner) > _LONG else ""
    data = {"html": inner, "texts": texts, "values": values, "tips": tips, "breaks": breaks, "colour": FULL}
    return host("ColoredTokens", data, "".join(static), css=f"tls-tokens tls-ink{long}")


def _target(attribution: Attribution) -> tuple[str, str]:
    """Name and tooltip of the mark behind the position that is read."""
    if attribution.target_str is None:
        return " next token", "the prediction that is explained: not one token, the whole distribution"
    tip = "the predicted token that is explained"
    probability = attribution.details.get("target_probability")
    return visible(attribution.target_str), tip + (
        f" · probability {percent(probability)}" if isinstance(probability, float) else ""
    )


def _legend(attribution: Attribution, scale: Scale) -> str:
    """Colours beside the scores that they stand for."""
    if scale.high <= 0:
        return '<p class="tls-legend">all shown scores are 0</p>'

    def ramp(shares: Sequence[float]) -> str:
        cells = "".join(f'<span style="background-color:{css(blend(s))}">&nbsp;</span>' for s in shares)
        return f'<span class="tls-ramp tls-ink" aria-hidden="true">{cells}</span>'

    start = scale.share(scale.low) if scale.log else 0.0
    at = [start + (1 - start) * i / 10 for i in range(11)]
    ticks = [number(scale.score(at[i])) for i in (0, 5, 10)]
    kind = "log scale, cells without colour are 0" if scale.log else "linear scale"
    if scale.log and any(0 < float(attribution.scores[p]) < scale.low for p in attribution.shown):
        ticks[0] = "≤ " + ticks[0]
    dim = "; grey: left out" if attribution.hidden else ""
    return (
        f'<p class="tls-legend">{ticks[0]} {ramp(at[:5])} {ticks[1]} {ramp(at[6:])} {ticks[2]} '
        f"<span>{escape(unit(attribution))} ({kind}{dim})</span></p>"
    )


def _strongest(attribution: Attribution, k: int = 5) -> str:
    """The strongest tokens as text, for readers who do not see colour."""
    items = " · ".join(
        f"<bdi>{escape(visible(t.str_token).strip() or repr(t.str_token))}</bdi> {number(t.score)}"
        for t in attribution.top(k)
    )
    return f'<p class="tls-small">Strongest: {items}</p>' if items else ""


def _predictions(attribution: Attribution, k: int) -> str:
    """The most probable next tokens; the explained one is red, and is added when it is not among them."""
    items = []
    for word, probability, explained in predicted(attribution, k):
        name = f"<b><bdi>{escape(word)}</bdi></b>" if explained else f"<span><bdi>{escape(word)}</bdi></span>"
        bar = f'<span class="tls-track"><span class="tls-bar" style="width:{100 * probability:.1f}%"></span></span>'
        items.append(f"<li>{name} {bar} <span>{percent(probability)}</span></li>")
    return (
        f'<p class="tls-small">Predicted after <bdi>{escape(repr(read_text(attribution)))}</bdi> '
        f'(position {attribution.pos})</p><ol class="tls-pred">{"".join(items)}</ol>'
    )


def _more(attribution: Attribution) -> str:
    """Numbers behind the scores and the state of the model, folded away."""
    plain = {
        key: value
        for key, value in {**attribution.details, **attribution.provenance}.items()
        if isinstance(value, str | int | float | bool) or (isinstance(value, list) and len(repr(value)) < 200)
    }
    if not plain:
        return ""
    rows = " · ".join(
        f"{escape(key)} {escape(number(v) if isinstance(v, float) else str(v))}" for key, v in plain.items()
    )
    return f"<details><summary>Numbers and provenance</summary>{rows}</details>"
