"""How much a patch recovers: by layer beside random tokens, and a map of the single cells."""

from __future__ import annotations

from typing import Any

from tl_scopes.results.patching import PatchTop, whole_percent
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.heatmap import HeatMap, heatmap
from tl_scopes.views.canvas.heatmap_figure import draw_heatmap
from tl_scopes.views.canvas.page import View
from tl_scopes.views.rendering import plot, text, view


def cells_map(result: PatchTop) -> HeatMap:
    """Recovered by every cell, tokens in the order of the prompt, the last layer on top."""
    order = sorted(range(len(result.positions)), key=lambda i: result.positions[i])
    table = result.by_layer()
    by_layer = "; ".join(
        f"layer {row.layer}: {whole_percent(row.recovered)} (random {whole_percent(row.random_mean)} "
        f"[{whole_percent(row.random_low)}, {whole_percent(row.random_high)}])"
        for row in table.itertuples()
    )
    return HeatMap(
        values=result.recovered(result.cells)[:, order].flip(0),
        rows=tuple(str(layer) for layer in reversed(result.layers)),
        columns=tuple(result.attribution.str_tokens[result.positions[i]] for i in order),
        title=f"Recovered change of {result.scalar} by patching {result.component}, token by token",
        unit="share of clean − corrupt",
        row_name="layer",
        column_name="token",
        positions=tuple(result.positions[i] for i in order),
        signed=True,
        scale="linear",
        notes=(result.summary, f"All tokens together, by layer: {by_layer}."),
    )


@view.register(PatchTop)
def recovery_view(result: PatchTop) -> View:
    """The map as a page."""
    return View(cells_map(result).title, heatmap(cells_map(result)).body, lambda: str(result))


@text.register(PatchTop)
def recovery_text(result: PatchTop) -> str:
    """One sentence, and a line per layer."""
    table = result.by_layer().to_string(index=False, float_format=lambda v: minus(f"{v:.2f}"))
    return f"{result.summary}\n{table}"


@plot.register(PatchTop)
def recovery_figure(result: PatchTop) -> Any:
    """Left: all tokens together by layer, beside the random draws. Right: the map of the cells."""
    from tl_scopes.views.canvas.figures import Figure

    table = result.by_layer()
    width = 4.6 + max(2.8, 0.5 * len(result.positions))
    figure = Figure(figsize=(width, max(3.2, 1.6 + 0.28 * len(result.layers))), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3.6, max(2.2, 0.45 * len(result.positions))]})
    left.axhline(0, color="#dddddd", linewidth=0.8)
    left.axhline(1, color="#dddddd", linewidth=0.8)
    left.fill_between(
        table.layer, table.random_low, table.random_high, color=COLOURS[7], alpha=0.15, linewidth=0,
        label="random, 95 % of draws",
    )  # fmt: skip
    left.plot(
        table.layer, table.random_mean, color="#777777", marker="o", markersize=3, linewidth=1, label="random, mean"
    )
    left.plot(table.layer, table.recovered, color=COLOURS[0], marker="o", markersize=4, label="attributed tokens")
    left.set_xlabel("layer")
    left.set_ylabel("recovered share")
    left.set_xticks(list(result.layers))
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=7, loc="best")
    left.set_title(f"{len(result.positions)} tokens together", fontsize=9)
    draw_heatmap(cells_map(result), right)
    right.set_title("one token at a time", fontsize=9)
    return figure
