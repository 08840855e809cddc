"""Gold alignment: a dot with its interval per method and corpus."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

from tl_scopes.numerics.statistics import LEAST_PROMPTS
from tl_scopes.results.gold import GoldAlignment
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view


@plot.register(GoldAlignment)
def gold_figure(result: GoldAlignment) -> Any:
    """Top-1 gold alignment: a panel per corpus, a row per method with its bootstrap interval; dashed is chance."""
    from tl_scopes.views.canvas.figures import Figure

    frame = result.to_frame()
    corpora, methods = list(dict.fromkeys(frame.corpus)), list(dict.fromkeys(frame.method))
    figure = Figure(figsize=(1.8 + 1.35 * len(corpora), 1.1 + 0.27 * len(methods)), dpi=150, layout="constrained")
    panels = figure.subplots(1, max(len(corpora), 1), sharex=True, sharey=True, squeeze=False)[0]
    for axes, corpus in zip(panels, corpora, strict=False):
        rows = frame[frame.corpus == corpus]
        y = [methods.index(method) for method in rows.method]
        axes.axvline(rows.chance.mean(), color="#555555", linestyle="--", linewidth=1, label="chance")
        axes.hlines(y, rows.top1_low, rows.top1_high, color=COLOURS[0], linewidth=1.2)
        axes.plot(rows.top1, y, "o", color=COLOURS[0], markersize=4.5, clip_on=False)
        for at, (_, row) in zip(y, rows.iterrows(), strict=True):
            figure.say(axes, f"{corpus}, {row.method}: {_interval(row, 'top1').strip()}", float(row.top1), float(at))
        axes.set_title(f"{corpus}\nn = {rows.n.max()}", fontsize=9)
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.tick_params(labelsize=7, length=2)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(methods)), [method.replace("_", " ") for method in methods])
    panels[0].invert_yaxis()
    figure.supxlabel("prompts whose known cause ranks first (dashed: a random ranking)", fontsize=9)
    return figure


@view.register(GoldAlignment)
def gold_view(result: GoldAlignment) -> View:
    """The figure and its numbers."""
    title, frame = "How often the known cause ranks first", result.to_frame()
    names = {"top1": "top‑1", "top1_low": "low", "top1_high": "high", "mrr": "MRR", "top1_in_source": "in source"}
    columns = ["corpus", "method", "n", "top1", "top1_low", "top1_high", "mrr", "mrr_low", "mrr_high", "top1_in_source"]
    names |= {"mrr_low": "low", "mrr_high": "high"}
    rows = table(frame[[*columns, "chance"]].rename(columns=names))
    body = (
        f'<div class="tls">{heading(title)}{gold_figure(result).chart(title)}{rows}'
        f'<p class="tls-small">{escape(_candidates(result))}</p></div>'
    )
    return View(title, body, lambda: str(result))


@text.register(GoldAlignment)
def gold_text(result: GoldAlignment) -> str:
    """A line per corpus and method, with intervals."""
    frame = result.to_frame()
    width = 2 + max(map(len, ("method", *frame.method)))
    lines = [f"{'corpus':<13}{'method':<{width}}{'n':>5}  {'top-1 [95 %]':<25}{'MRR [95 %]':<25}in source  chance"]
    for _, row in frame.iterrows():
        lines.append(
            f"{row.corpus:<13}{row.method:<{width}}{row.n:>5}  {_interval(row, 'top1'):<25}{_interval(row, 'mrr'):<25}"
            f"{row.top1_in_source:8.1%}  {row.chance:6.1%}"
        )
    return "\n".join([*lines, _candidates(result)])


def _candidates(result: GoldAlignment) -> str:
    right = ", ".join(f"{c} {a:.0%}" for c, a in result.accuracy.items())
    counted = Counter(corpus for corpus, _ in {(r.corpus, r.index) for r in result.records})
    few = ", ".join(f"{c} {n}" for c, n in sorted(counted.items()) if n < LEAST_PROMPTS)
    explained = "the explained one" if result.answers == "token" else "the answer, which is explained as a whole,"
    return (
        f"Candidates: all tokens up to {explained} except special tokens. Answered right: {right}."
        + f" Prompts too few to compare methods by (below {LEAST_PROMPTS}): {few}; their intervals are too narrow."
        * bool(few)
    )


def _interval(row: Any, name: str) -> str:
    return f"{row[name]:6.1%} [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"
