"""Fisher spectra: cumulative explained share against rank."""

from __future__ import annotations

from typing import Any

from tl_scopes.views.canvas.figures import COLOURS


def spectrum_curves(eigenvalues: Any, share: Any) -> Any:
    """Left: eigenvalues of each prompt on log-log axes; right: mean cumulative share with one standard deviation."""
    import numpy as np

    from tl_scopes.views.canvas.figures import Figure

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
