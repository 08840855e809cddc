"""An attribution as bars, with the standard error of each score; of signed scores above and below 0."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from tl_scopes.results.attribution import Attribution
from tl_scopes.views.canvas.colours import BELOW_ZERO, FULL, RED, ScaleKind
from tl_scopes.views.canvas.names import axis_names, cut_names, name_some
from tl_scopes.views.coloured import ranked, scale_of, values_of
from tl_scopes.views.wording import (
    entry,
    explained_scalar,
    explained_tokens,
    literal,
    percent,
    predicted,
    said_together,
    title,
    unit,
    visible,
)

_MOST_BARS = 12
"""Explained tokens whose probability has a bar."""


def attribution_bars(attribution: Attribution, scale: ScaleKind = "auto", signed: bool | None = None) -> Any:
    """A bar per token, and beside them the most probable next tokens; the explained one is red."""
    from tl_scopes.views.canvas.figures import Figure

    n, kind = len(attribution), scale_of(attribution, scale, signed)
    together, each = said_together(attribution)
    words = ([(name, p, True) for name, p in each[:_MOST_BARS]] or predicted(attribution, 7))[::-1]
    labels = 0.065 * max(map(len, cut_names(attribution.str_tokens)))
    wide = max(3.2, min(12.0, 0.6 + 0.21 * n))
    figure = Figure(figsize=(wide + (2.6 if words else 0.0), 2.6 + labels), dpi=150, layout="constrained")
    axes, *beside = figure.subplots(1, 2 if words else 1, squeeze=False, width_ratios=[wide, 2.0] if words else None)[0]
    shown = set(attribution.shown)
    values = values_of(attribution, kind)
    colours = [(BELOW_ZERO if value < 0 else FULL) if p in shown else "#cccccc" for p, value in enumerate(values)]
    error = None if attribution.stderr is None or kind.signed else attribution.stderr.double().numpy()
    axes.bar(range(n), values, yerr=error, color=colours, width=0.8, capsize=2)
    if kind.signed:
        axes.axhline(0, color="#999999", linewidth=0.8)
        if kind.log:
            axes.set_yscale("symlog", linthresh=kind.low)
    elif kind.log:
        axes.set_yscale("log")
        axes.set_ylim(bottom=kind.low / 2)
    axes.set_xlim(-0.7, n - 0.3)
    reds = [*explained_tokens(attribution)] or [attribution.pos]
    name_some(axes.xaxis, attribution.str_tokens, [*reds[:_MOST_BARS], *ranked(attribution, kind)], reds, wide)
    grey = "grey: left out; " if attribution.hidden else ""
    grey += f"blue raises {literal(explained_scalar(attribution))}, orange lowers it; " if kind.signed else ""
    red = "explained" if explained_tokens(attribution) else "read here"
    axes.set_xlabel(fill(f"{entry(attribution.details)} ({grey}red: {red})", int(14 * wide)), fontsize=8)
    axes.set_ylabel(unit(attribution), fontsize=8)
    axes.set_title(fill(literal(visible(title(attribution))), int(13 * wide)), fontsize=9, loc="left")
    for other in beside:
        bars = [RED if explained else "#3182bd" for *_, explained in words]
        other.barh(range(len(words)), [p for _, p, _ in words], color=bars)
        names = [
            f"{name} {percent(p)}" for name, (_, p, _) in zip(axis_names([w for w, *_ in words]), words, strict=True)
        ]
        other.set_yticks(range(len(words)), names, fontsize=7)
        other.set_xlim(0, 1)
        other.set_xlabel("probability", fontsize=8)
        other.set_title("explained" if together else "predicted", fontsize=9)
    for each in (axes, *beside):
        each.tick_params(axis="both", labelsize=7)
        each.spines[["top", "right"]].set_visible(False)
    figure.put_notes(attribution.notes)
    return figure
