"""Verdict: the strongest units' bar beside those of random sets, and single removals by score."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

from tl_scopes.results.verdict import Verdict
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.labels import label_points
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import literal, number, quoted, visible
from tl_scopes.views.wording import title as title_of

MOST_NAMED = 8
"""Single removals that carry their text: those with the largest effect."""
_ANSWER, _LETTERS = 30, 120
"""Letters of an answer that a label quotes, and of a line above the charts."""
GREY = "#999999"
SIZE = (4.5, 3.6)
"""Inches of each chart."""


@text.register(Verdict)
def verdict_text(result: Verdict) -> str:
    """The sentence."""
    return result.sentence


@view.register(Verdict)
def verdict_view(result: Verdict) -> View:
    """The sentence, two charts that stand below each other where there is no room, the table."""
    from tl_scopes.views.canvas.figures import Figure

    title = f"{title_of(result.attribution)}: does it hold?"
    body = f'<p class="tls-small">{escape(visible(result.sentence))}</p>'
    if result.effect is not None:
        charts = []
        for draw, what in ((_sets, "removed sets"), (_singles, "single removals")):
            figure = Figure(figsize=SIZE, layout="constrained")
            draw(figure, figure.subplots(), result)
            charts.append(f"<div>{figure.chart(f'{title} {what}')}</div>")
        rows = result.to_frame().assign(tokens=lambda f: f.tokens.map(visible))
        body += f'<div class="tls-charts">{"".join(charts)}</div>' + table(
            rows.rename(columns={"delta_log_prob": "Δlog p"})
        )
    return View(title, f'<div class="tls tls-report">{heading(title)}{body}</div>', lambda: str(result))


@plot.register(Verdict)
def verdict_figure(result: Verdict) -> Any:
    """Change of log p without the strongest units (coloured) and without each random set (grey), sorted; right, single
    removals: size of the change against the score.
    """
    from tl_scopes.views.canvas.figures import Figure

    title = f"{title_of(result.attribution)}: does it hold?"
    head = [line for said in (title, result.sentence) for line in wrap(visible(said), _LETTERS)]
    height = (0.3 if result.effect is None else SIZE[1]) + 0.16 * len(head)
    figure = Figure(figsize=(2 * SIZE[0], height), dpi=150, layout="constrained")
    figure.suptitle(literal("\n".join(head)), fontsize=8.5, x=0.02, ha="left")
    if result.effect is None:
        return figure
    left, right = figure.subplots(1, 2)
    _sets(figure, left, result)
    _singles(figure, right, result)
    return figure


def _sets(figure: Any, axes: Any, result: Verdict) -> None:
    """Bars: the strongest units among random sets as large."""
    assert result.effect is not None
    bars = [(result.effect, COLOURS[0]), *((v, GREY) for v in result.drawn.tolist())]
    bars.sort(key=lambda bar: bar[0])
    axes.bar(range(len(bars)), [v for v, _ in bars], color=[c for _, c in bars], width=0.8)
    for i, (value, colour) in enumerate(bars):
        who = f"the {result.k} strongest" if colour == COLOURS[0] else "a random set"
        figure.say(axes, f"without {who}: {number(value)} nats", (i - 0.5, i + 0.5), None)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks([])
    axes.set_xlabel(f"the {result.k} strongest (blue) among {len(result.drawn)} sets as large (grey)")
    axes.set_ylabel(f"change of log p (nats) of\n{literal(quoted(visible(result.target_str), _ANSWER))}")
    axes.spines[["top", "right"]].set_visible(False)


def _singles(figure: Any, axes: Any, result: Verdict) -> None:
    """Points: units that were removed alone."""
    sizes, scores = result.single_effects.abs().tolist(), result.single_scores.tolist()
    names = [visible(result.name(s)) for s in result.singles]
    axes.scatter(scores, sizes, s=26, color=COLOURS[0], linewidths=0)
    for score, size, name in zip(scores, sizes, names, strict=True):
        figure.say(axes, f"{name}: score {number(score)}, change {number(size)} nats", score, size)
    axes.set_xlabel("score")
    axes.set_ylabel("size of the change without it alone (nats)")
    axes.set_title(minus(f"Spearman {result.rank_correlation:.2f} over {len(sizes)}"), fontsize=9)
    axes.margins(x=0.14, y=0.1)
    (start, end), (low, high) = axes.get_xlim(), axes.get_ylim()
    at = [((x - start) / (end - start), (y - low) / (high - low)) for x, y in zip(scores, sizes, strict=True)]
    ranked = sorted(zip(at, names, sizes, strict=True), key=lambda of: -of[2])
    label_points(axes, [(place, name) for place, name, _ in ranked], at, MOST_NAMED, letter=0.022, line=0.05)
    axes.spines[["top", "right"]].set_visible(False)
