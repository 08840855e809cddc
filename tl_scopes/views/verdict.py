"""Verdict: the strongest units' bar beside those of random sets, and single removals by score."""

from __future__ import annotations

from html import escape
from typing import Any

from tl_scopes.results.verdict import Verdict
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.labels import label_points
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import literal, number, visible
from tl_scopes.views.wording import title as title_of

MOST_NAMED = 8
"""Single removals that carry their text: those with the largest effect."""
GREY = "#999999"


@text.register(Verdict)
def verdict_text(result: Verdict) -> str:
    """The sentence."""
    return result.sentence


@view.register(Verdict)
def verdict_view(result: Verdict) -> View:
    """The sentence, the figure, the table."""
    title = f"{title_of(result.attribution)}: does it hold?"
    body = f'<p class="tls-small">{escape(visible(result.sentence))}</p>'
    if result.effect is not None:
        rows = result.to_frame().assign(tokens=lambda f: f.tokens.map(visible))
        body += verdict_figure(result).chart(title) + table(rows.rename(columns={"delta_log_prob": "Δlog p"}))
    return View(title, f'<div class="tls tls-report">{heading(title)}{body}</div>', lambda: str(result))


@plot.register(Verdict)
def verdict_figure(result: Verdict) -> Any:
    """Change of log p without the strongest units (coloured) and without each random set (grey), sorted; right, single
    removals: size of the change against the score.
    """
    from tl_scopes.views.canvas.figures import Figure

    figure = Figure(figsize=(9.0, 3.6), dpi=150, layout="constrained")
    if result.effect is None:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_title(literal(result.sentence), fontsize=8, wrap=True)
        return figure
    left, right = figure.subplots(1, 2)
    bars = [(result.effect, COLOURS[0]), *((v, GREY) for v in result.drawn.tolist())]
    bars.sort(key=lambda bar: bar[0])
    left.bar(range(len(bars)), [v for v, _ in bars], color=[c for _, c in bars], width=0.8)
    for i, (value, colour) in enumerate(bars):
        who = f"the {result.k} strongest" if colour == COLOURS[0] else "a random set"
        figure.say(left, f"without {who}: {number(value)} nats", (i - 0.5, i + 0.5), None)
    left.axhline(0, color=GREY, linewidth=0.8)
    left.set_xticks([])
    left.set_xlabel(f"the {result.k} strongest (blue) among {len(result.drawn)} sets as large (grey)")
    left.set_ylabel(f"change of log p of {literal(repr(visible(result.target_str)))} (nats)")
    sizes = result.single_effects.abs().tolist()
    scores = result.single_scores.tolist()
    right.scatter(scores, sizes, s=26, color=COLOURS[0], linewidths=0)
    names = [visible(result.name(s)) for s in result.singles]
    for score, size, name in zip(scores, sizes, names, strict=True):
        figure.say(right, f"{name}: score {number(score)}, change {number(size)} nats", score, size)
    right.set_xlabel("score")
    right.set_ylabel("size of the change without it alone (nats)")
    right.set_title(f"Spearman {result.rank_correlation:.2f} over {len(sizes)}", fontsize=9)
    right.margins(x=0.14, y=0.1)
    (start, end), (low, high) = right.get_xlim(), right.get_ylim()
    at = [
        ((score - start) / (end - start), (size - low) / (high - low))
        for score, size in zip(scores, sizes, strict=True)
    ]
    ranked = sorted(zip(at, names, sizes, strict=True), key=lambda of: -of[2])
    label_points(right, [(place, name) for place, name, _ in ranked], at, MOST_NAMED, letter=0.022, line=0.05)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
