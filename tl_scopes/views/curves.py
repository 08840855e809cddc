"""Figures of faithfulness runs and of integrated-gradient paths, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_scopes.views.plots import COLOURS

if TYPE_CHECKING:
    from tl_scopes.paths import IGPath
    from tl_scopes.perturbation import AOPCTable

MOST_LABELS = 60
"""Tokens up to which each column of a map carries its text."""


def aopc_figure(table: AOPCTable) -> Any:
    """Perturbation curves on the left, mean AOPC with its standard error by method on the right."""
    from tl_scopes.views.figures import Figure

    curves, frame = table.curves(), table.to_frame().sort_values("aopc", ascending=False)
    figure = Figure(figsize=(9.5, 3.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    colour = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(table.methods)}
    dash = {m: ("-", "--", ":")[i // len(COLOURS) % 3] for i, m in enumerate(table.methods)}
    for method in table.methods:
        rows = curves[curves.method == method]
        left.errorbar(
            100 * rows.fraction,
            rows.delta,
            yerr=rows["sem"],
            color=colour[method],
            linestyle=dash[method],
            marker="o",
            markersize=3,
            linewidth=1.2,
            capsize=2,
            label=method,
        )
    left.set_xticks([100 * k for k in table.fractions], [f"{100 * k:g}" for k in table.fractions])
    left.set_xlabel("tokens removed (%)")
    left.set_ylabel("change of log p (nats)")
    left.axhline(0, color="#999999", linewidth=0.8)
    right.barh(
        range(len(frame)),
        frame.aopc,
        xerr=frame["sem"],
        color=[colour[m] for m in frame.method],
        error_kw={"elinewidth": 0.9},
    )
    marks = frame.get("indistinguishable_from_best", [False] * len(frame))
    right.set_yticks(range(len(frame)), [f"{m} =" if same else m for m, same in zip(frame.method, marks, strict=True)])
    right.set_xlabel("AOPC (nats; = cannot be told from the best)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=7)
    figure.suptitle(f"n = {len(table.records)} prompts, mean ± SEM over prompts", fontsize=9)
    return figure


def rank_figure(table: AOPCTable) -> Any:
    """AOPC against the Fisher Scope's rank, the other methods as dashed lines; right, the paired difference from rank 1."""
    from tl_scopes.views.figures import Figure

    frame = table.by_rank()
    figure = Figure(figsize=(9.5, 3.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = {"color": COLOURS[0], "marker": "o", "markersize": 4, "capsize": 3, "linewidth": 1.2}
    left.errorbar(frame["rank"], frame.aopc, yerr=frame["sem"], label="fisher", **bars)
    others = [m for m in table.methods if table.fisher_rank(m) is None]
    for i, method in enumerate(others):
        colour = COLOURS[1 + i % (len(COLOURS) - 1)]
        left.axhline(table[method].mean, color=colour, linestyle="--", linewidth=1.2, label=method)
    left.set_ylabel("AOPC (nats)")
    if others:
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    right.errorbar(frame["rank"], frame.difference, yerr=frame.difference_sem, **bars)
    right.axhline(0, color="#999999", linewidth=0.8)
    right.set_ylabel(f"AOPC less that of rank {frame['rank'].iloc[0]}, paired (nats)")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(frame["rank"].tolist(), [str(r) for r in frame["rank"]])
        axes.minorticks_off()
        axes.set_xlabel("rank of the Fisher Scope")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"n = {len(table.records)} prompts, mean ± SEM over prompts", fontsize=9)
    return figure


def path_figure(path: IGPath) -> Any:
    """The α × token map of gradient norms, with the target's logit, entropy and sink share beside it."""
    from tl_scopes.views.figures import Figure

    norms = path.grad_norms[:, : path.pos + 1]
    width = min(14.0, 4.5 + 0.22 * norms.shape[1])
    figure = Figure(figsize=(width, 4.2), dpi=150, layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=[max(4.0, 0.16 * norms.shape[1]), 1, 1, 1])
    main = figure.add_subplot(grid[0])
    alphas = path.alphas.tolist()
    picture = main.pcolormesh(
        range(norms.shape[1]), alphas, norms.clamp_min(1e-12).log10().numpy(), cmap="viridis", shading="nearest"
    )
    figure.colorbar(picture, ax=main, label="log10 gradient norm", location="left")
    labels = [s.replace("\n", "\\n").replace("$", r"\$") for s in path.str_tokens[: path.pos + 1]]
    if len(labels) <= MOST_LABELS:
        main.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    main.set_ylabel("α")
    target = path.target_str.replace("$", r"\$")
    main.set_title(f"gradient of the logit of {target!r} on the path α·x", fontsize=9)
    for i, (name, values) in enumerate(
        (("logit", path.logits), ("entropy (nats)", path.entropy), ("sink share", path.sink_share))
    ):
        axes = figure.add_subplot(grid[i + 1], sharey=main)
        axes.plot(values.tolist(), alphas, color=COLOURS[i], linewidth=1.2)
        axes.set_xlabel(name, fontsize=8)
        axes.tick_params(labelleft=False, labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"completeness residual {path.completeness_residual:.2g} logits (trapezoid on the grid)", fontsize=8
    )
    return figure
