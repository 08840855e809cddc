"""Static figures with matplotlib, from frames of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, told apart with any colour vision."""


def gold_bars(frame: pd.DataFrame) -> Any:
    """Top-1 gold alignment by corpus and method, with bootstrap intervals; a dashed line marks chance."""
    from matplotlib.figure import Figure

    corpora, methods = list(dict.fromkeys(frame.corpus)), list(dict.fromkeys(frame.method))
    figure = Figure(figsize=(1.6 + 1.3 * len(corpora), 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(methods)
    for m, method in enumerate(methods):
        rows = frame[frame.method == method]
        x = [corpora.index(c) - 0.4 + (m + 0.5) * width for c in rows.corpus]
        errors = [rows.top1 - rows.top1_low, rows.top1_high - rows.top1]
        axes.bar(x, rows.top1, width * 0.92, yerr=errors, color=COLOURS[m], label=method, error_kw={"elinewidth": 0.8})
    for i, corpus in enumerate(corpora):
        chance = frame[frame.corpus == corpus].chance.mean()
        label = "chance" if i == 0 else None
        axes.plot([i - 0.45, i + 0.45], [chance, chance], color="#555555", linestyle="--", linewidth=1, label=label)
    counts = frame.groupby("corpus", sort=False).n.max()
    axes.set_xticks(range(len(corpora)), [f"{c}\nn = {counts[c]}" for c in corpora])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("known cause ranks first")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(methods) + 1, frameon=False)
    return figure


def spectrum_curves(eigenvalues: Any, share: Any) -> Any:
    """Left: eigenvalues of each prompt on log-log axes; right: mean cumulative share with one standard deviation."""
    import numpy as np
    from matplotlib.figure import Figure

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
