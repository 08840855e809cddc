"""Figures of faithfulness runs and of integrated-gradient paths, with matplotlib."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tl_scopes.views.canvas.figures import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.scatter import ticks

if TYPE_CHECKING:
    from tl_scopes.results.aopc import AOPCTable

_LEFT, _TOP, _WIDTH, _HEIGHT, _KEY = 52, 10, 380, 250, 200
_PALETTE = tuple("currentColor" if colour == "#000000" else colour for colour in COLOURS)
_DASHES = ("", "6 3", "2 3")
_COLUMNS = {
    "method": "method",
    "n": "n",
    "aopc": "AOPC",
    "sem": "± SEM",
    "comprehensiveness": "compr.",
    "sufficiency": "suff.",
    "loo_spearman": "LOO ρ",
    "loo_top5_hit": "LOO hit",
}


def aopc_view(table: AOPCTable) -> View:
    """Curves of all methods with their errors, and one row per method."""
    title = f"What removing the most influential tokens costs: mean over {len(table.records)} prompts"
    says = "".join(
        f'<p class="tls-small">{escape(line)}</p>' for line in str(table).splitlines()[len(table.methods) + 1 :]
    )
    if not table.records:
        return View(title, f'<div class="tls">{heading(title)}<p>{escape(str(table))}</p></div>', lambda: str(table))
    body = (
        f'<div class="tls tls-curves">{heading(title)}{_svg(table)}<p class="tls-small tls-read" aria-live="polite">Point at '
        f"a mark for its figures, or walk them by the arrow keys.</p>{_rows(table)}{says}</div>"
    )
    return View(title, body, lambda: str(table))


def _svg(table: AOPCTable) -> str:
    """Mean change of log p against the share of tokens removed, whiskers of one standard error."""
    curves = table.curves()
    low, high = (
        float((curves.delta - curves["sem"].fillna(0)).min()),
        float((curves.delta + curves["sem"].fillna(0)).max()),
    )
    low, high = min(low, 0.0), max(high, 0.0)
    low, high = low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1)
    most = 1.05 * max(table.fractions)

    def at(fraction: float, delta: float) -> tuple[float, float]:
        return round(_LEFT + _WIDTH * fraction / most, 1), round(_TOP + _HEIGHT * (high - delta) / (high - low), 1)

    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    parts = [f'<path class="tls-grid" d="M{_LEFT} {at(0.0, 0.0)[1]}H{right}"/>']
    parts += [f'<text x="{_LEFT - 6}" y="{at(0.0, v)[1] + 4}" text-anchor="end">{v:g}</text>' for v in ticks(low, high)]
    parts += [
        f'<text x="{at(k, 0.0)[0]}" y="{bottom + 15}" text-anchor="middle">{100 * k:g}</text>' for k in table.fractions
    ]
    parts.append(
        f'<text x="{_LEFT + _WIDTH / 2}" y="{bottom + 32}" text-anchor="middle">tokens removed (%)</text>'
        f'<text transform="translate(11 {_TOP + _HEIGHT / 2}) rotate(-90)" text-anchor="middle">change of log p (nats)'
        "</text>"
    )
    marks: list[str] = []  # above all lines, so that each can be pointed at
    for i, method in enumerate(table.methods):
        rows = curves[curves.method == method]
        colour, dash = _PALETTE[i % len(_PALETTE)], _DASHES[i // len(_PALETTE) % len(_DASHES)]
        line = " ".join(f"{x},{y}" for x, y in (at(r.fraction, r.delta) for r in rows.itertuples()))
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        parts.append(f'<polyline points="{line}" fill="none" {style} stroke-width="1.6"/>')
        for row in rows.itertuples():
            (x, y), error = at(row.fraction, row.delta), row.sem if row.sem == row.sem else 0.0
            tip = escape(f"{method}, {100 * row.fraction:g} % removed: {row.delta:.3g} ± {error:.2g} nats")
            whisker = f"M{x} {at(0.0, row.delta - error)[1]}V{at(0.0, row.delta + error)[1]}"
            parts.append(f'<path d="{whisker}" stroke="{colour}"/>')
            marks.append(
                f'<g data-tip="{tip}"><title>{tip}</title><circle class="tls-hit" cx="{x}" cy="{y}" r="7"/>'
                f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/></g>'
            )
        x, y = right + 18, _TOP + 10 + 18 * i
        parts.append(f'<path d="M{x} {y}h22" {style} stroke-width="2"/>')
        parts.append(f'<text x="{x + 28}" y="{y + 4}">{escape(method)}</text>')
    height = max(bottom + 40, _TOP + 18 * len(table.methods) + 10)
    return (
        f'<svg class="tls-chart" tabindex="0" viewBox="0 0 {right + _KEY} {height}" role="img" '
        f'aria-label="perturbation curves of {len(table.methods)} methods">{"".join(parts + marks)}</svg>'
    )


def _rows(table: AOPCTable) -> str:
    """The table, most faithful first."""
    frame = table.to_frame().sort_values("aopc", kind="stable")
    shown = [name for name in _COLUMNS if name in frame]
    head = "".join(f"<th>{_COLUMNS[name]}</th>" for name in shown)
    lines = []
    for row in frame.to_dict("records"):
        same = "=" if row.get("indistinguishable_from_best") is True else ""
        cells = [
            escape(row[name]) if name == "method" else str(row[name]) if name == "n" else f"{row[name]:.4g}"
            for name in shown
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f"<td>{same}</td></tr>")
    return (
        f'<div class="tls-scroll"><table class="tls-numbers"><thead><tr>{head}<th></th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


MOST_LABELS = 60
"""Tokens up to which each column of a map carries its text."""


def aopc_figure(table: AOPCTable) -> Any:
    """Perturbation curves on the left, mean AOPC with its standard error by method on the right."""
    from tl_scopes.views.canvas.figures import Figure

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
    from tl_scopes.views.canvas.figures import Figure

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
