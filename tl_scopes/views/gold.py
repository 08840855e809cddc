"""Gold alignment: a dot with its interval per method and corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_scopes.views.canvas.figures import COLOURS

if TYPE_CHECKING:
    import pandas as pd


def gold_dots(frame: pd.DataFrame) -> Any:
    """Top-1 gold alignment: a panel per corpus, a row per method with its bootstrap interval; dashed is chance."""
    from tl_scopes.views.canvas.figures import Figure

    corpora, methods = list(dict.fromkeys(frame.corpus)), list(dict.fromkeys(frame.method))
    figure = Figure(figsize=(1.8 + 1.35 * len(corpora), 1.1 + 0.27 * len(methods)), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(corpora), sharex=True, sharey=True, squeeze=False)[0]
    for axes, corpus in zip(panels, corpora, strict=True):
        rows = frame[frame.corpus == corpus]
        y = [methods.index(method) for method in rows.method]
        axes.axvline(rows.chance.mean(), color="#555555", linestyle="--", linewidth=1, label="chance")
        axes.hlines(y, rows.top1_low, rows.top1_high, color=COLOURS[0], linewidth=1.2)
        axes.plot(rows.top1, y, "o", color=COLOURS[0], markersize=4.5, clip_on=False)
        axes.set_title(f"{corpus}\nn = {rows.n.max()}", fontsize=9)
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.tick_params(labelsize=8, length=2)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(methods)), [method.replace("_", " ") for method in methods])
    panels[0].invert_yaxis()
    figure.supxlabel("prompts whose known cause ranks first (dashed: a random ranking)", fontsize=9)
    return figure
