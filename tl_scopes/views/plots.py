"""Static figures with matplotlib, from frames of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, told apart with any colour vision."""


def gold_dots(frame: pd.DataFrame) -> Any:
    """Top-1 gold alignment: a panel per corpus, a row per method with its bootstrap interval; dashed is chance."""
    from tl_scopes.views.figures import Figure

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


def spectrum_curves(eigenvalues: Any, share: Any) -> Any:
    """Left: eigenvalues of each prompt on log-log axes; right: mean cumulative share with one standard deviation."""
    import numpy as np

    from tl_scopes.views.figures import Figure

    figure = Figure(figsize=(8.4, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    rank = np.arange(1, eigenvalues.shape[1] + 1)
    for values in eigenvalues[:10]:
        left.plot(rank, np.where(values > 0, values, np.nan), color=COLOURS[0], alpha=0.5, linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="i", ylabel="eigenvalue λ_i (nats per squared unit of y)")
    left.set_title(f"{min(len(eigenvalues), 10)} of {len(eigenvalues)} prompts", fontsize=9)
    mean = share.mean(axis=0)
    right.plot(rank, mean, color=COLOURS[0])
    if len(share) > 1:
        spread = share.std(axis=0, ddof=1)
        low, high = np.clip(mean - spread, 0, 1), np.clip(mean + spread, 0, 1)
        right.fill_between(rank, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="± 1 σ over prompts")
        right.legend(frameon=False, loc="lower right")
    right.plot(1, mean[0], "o", color=COLOURS[5])
    right.annotate(f"rank 1: {mean[0]:.0%}", (1, mean[0]), (8, -4), textcoords="offset points", color=COLOURS[5])
    right.set(xscale="log", xlabel="rank r", ylabel="share of tr F", ylim=(0, 1.02))
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
