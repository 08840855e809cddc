"""How much a patch recovers: by layer beside random tokens, and a map of the single cells."""

from __future__ import annotations

from html import escape
from typing import Any

from tl_scopes.results.patching import PatchTop
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.heatmap import HeatMap, heatmap
from tl_scopes.views.canvas.heatmap_figure import draw_heatmap
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import counted, linearised, visible
from tl_scopes.views.wording import title as title_of

SIZE = (5.2, 3.4)
"""Inches of the chart on a page."""


def cells_map(result: PatchTop) -> HeatMap:
    """Recovered by every cell, tokens in the order of the prompt, the last layer on top."""
    order = sorted(range(len(result.positions)), key=lambda i: result.positions[i])
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
        notes=result.notes,
    )


@view.register(PatchTop)
def recovery_view(result: PatchTop) -> View:
    """The summary, all tokens together by layer, and the map of the cells; the numbers are folded away."""
    from tl_scopes.views.canvas.figures import Figure

    held = linearised(result.attribution.details)
    title = f"Patching {result.component} where the {title_of(result.attribution).split(':')[0]} points{held}"
    figure = Figure(figsize=SIZE, layout="constrained")
    _by_layer(figure.subplots(), result)
    rows = table(result.by_layer())
    rows = rows if rows.startswith("<details>") else f"<details><summary>By layer as numbers</summary>{rows}</details>"
    about = f"{heading(title)}<p class='tls-small'>{escape(visible(result.summary))}</p>"
    chart = f'<div class="tls">{about}{figure.chart(title)}{rows}</div>'
    return View(title, chart + heatmap(cells_map(result)).body, lambda: str(result))


@text.register(PatchTop)
def recovery_text(result: PatchTop) -> str:
    """One sentence, and a line per layer."""
    rows = result.by_layer().to_string(index=False, float_format=lambda v: minus(f"{v:.2f}"))
    held = linearised(result.attribution.details)
    return "\n".join([result.summary, *([f"Tokens chosen by gradients{held}."] if held else []), *result.notes, rows])


@plot.register(PatchTop)
def recovery_figure(result: PatchTop) -> Any:
    """Left: all tokens together by layer, beside the random draws. Right: the map of the cells."""
    from tl_scopes.views.canvas.figures import Figure

    width = 4.6 + max(2.8, 0.5 * len(result.positions))
    figure = Figure(figsize=(width, max(3.2, 1.6 + 0.28 * len(result.layers))), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3.6, max(2.2, 0.45 * len(result.positions))]})
    _by_layer(left, result)
    draw_heatmap(cells_map(result), right)
    right.set_title("one token at a time", fontsize=9)
    figure.put_notes(result.notes)
    return figure


def _by_layer(axes: Any, result: PatchTop) -> None:
    """What all tokens together recover, beside as many random ones."""
    from matplotlib.ticker import MaxNLocator

    rows = result.by_layer()
    axes.axhline(0, color="#dddddd", linewidth=0.8)
    axes.axhline(1, color="#dddddd", linewidth=0.8)
    axes.fill_between(
        rows.layer, rows.random_low, rows.random_high, color=COLOURS[7], alpha=0.15, linewidth=0,
        label="random, 95 % of draws",
    )  # fmt: skip
    axes.plot(
        rows.layer, rows.random_mean, color="#777777", marker="o", markersize=3, linewidth=1, label="random, mean"
    )
    axes.plot(rows.layer, rows.recovered, color=COLOURS[0], marker="o", markersize=4, label="attributed tokens")
    axes.set_xlabel("layer")
    axes.set_ylabel("recovered share")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, columnspacing=1
    )
    axes.set_title(f"{counted(len(result.positions), 'token')} together", fontsize=9, pad=16)
