"""Faithfulness: perturbation curves and AOPC of one method and of several, and AOPC against the Fisher Scope's rank."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from tl_scopes.numerics.statistics import LEAST_PROMPTS, standard_error
from tl_scopes.results.aopc import AOPC, AOPCTable, is_right
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table as numbers
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import counted

MOST_PROMPTS = 100
"""Prompts whose own curves are drawn behind the mean."""
_COLUMNS = {
    "comprehensiveness": "compr.",
    "sufficiency": "suff.",
    "loo_spearman": "LOO rho",
    "loo_top5_hit": "LOO hit",
}
"""What may be asked for beside AOPC."""
_ABREAST = 3
"""Names of methods in a line below the curves."""
_LESS = "less the best [95 %]"


def _less_the_best(row: Any) -> str:
    """The paired difference from the best method with its interval; nothing for the best itself."""
    if row.difference == row.low == row.high == 0:
        return ""
    if np.isnan(row.low):
        return minus(f"{row.difference:.3f}")
    return minus(f"{row.difference:.3f} [{row.low:.3f}, {row.high:.3f}]").replace("inf", "∞")


@view.register(AOPCTable)
def aopc_view(table: AOPCTable) -> View:
    """The figure, and one row per method, most faithful first."""
    title = f"What removing the most influential tokens costs: mean over {counted(len(table.records), 'prompt')}"
    if not table.records:
        return View(title, f'<div class="tls">{heading(title)}<p>{escape(str(table))}</p></div>', lambda: str(table))
    frame = table.to_frame().sort_values("aopc", kind="stable")
    frame = frame.assign(**{_LESS: [_less_the_best(row) for _, row in frame.iterrows()]})
    named = frame.rename(columns={"aopc": "AOPC", "sem": "± SEM", **_COLUMNS})[
        ["method", "n", "AOPC", "± SEM", _LESS, *(label for name, label in _COLUMNS.items() if name in frame)]
    ].assign(**{"": ["=" if mark else "" for mark in frame.indistinguishable_from_best]})
    says = "".join(
        f'<p class="tls-small">{escape(line)}</p>' for line in str(table).splitlines()[len(table.methods) + 1 :]
    )
    label = f"perturbation curves of {len(table.methods)} methods"
    body = f'<div class="tls">{heading(title)}{aopc_figure(table, notes=False).chart(label)}{numbers(named, 4)}{says}</div>'
    return View(title, body, lambda: str(table))


@plot.register(AOPCTable)
def aopc_figure(table: AOPCTable, *, notes: bool = True) -> Any:
    """Perturbation curves on the left, mean AOPC with its standard error by method on the right."""
    from tl_scopes.views.canvas.figures import Figure

    frame = table.to_frame().sort_values("aopc", ascending=False)
    figure = Figure(figsize=(9.5, 3.8 + 0.17 * -(-len(frame) // _ABREAST)), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    colour = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(table.methods)}
    dash = {m: ("-", "--", ":")[i // len(COLOURS) % 3] for i, m in enumerate(table.methods)}
    for method in table.methods:
        _curve(figure, left, method, table[method], color=colour[method], linestyle=dash[method])
    right.barh(
        range(len(frame)),
        frame.aopc,
        xerr=frame["sem"],
        color=[colour[m] for m in frame.method],
        error_kw={"elinewidth": 0.9},
    )
    marks = [bool(m) for m in frame.get("indistinguishable_from_best", [False] * len(frame))]
    right.set_yticks(range(len(frame)), [f"{m} =" if same else m for m, same in zip(frame.method, marks, strict=True)])
    right.set_xlabel(f"AOPC (nats{'; = cannot be told from the best' * any(marks)})")
    right.spines[["top", "right"]].set_visible(False)
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.17), "ncols": _ABREAST}  # nothing is drawn there
    left.legend(frameon=False, fontsize=7, borderaxespad=0.0, **below)
    figure.put_notes(table.notes if notes else ())
    few = ", too few to tell methods apart" * (0 < len(table.records) < LEAST_PROMPTS)
    bos = ", BOS left out" * any("without_bos" in r for r in table.records)
    figure.suptitle(f"n = {counted(len(table.records), 'prompt')}{few}{bos}, mean ± SEM over prompts", fontsize=9)
    return figure


def _curve(figure: Any, axes: Any, name: str, measured: AOPC, **style: Any) -> None:
    """Mean change of log p against the share of tokens removed, with its standard error; each mark says its figures."""
    percent = [100 * k for k in measured.fractions]
    means = measured.deltas.mean(axis=0) if len(measured) else np.full(len(percent), np.nan)
    errors = [standard_error(column) for column in measured.deltas.T]
    bars: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.2, "capsize": 2}
    axes.errorbar(percent, means, yerr=errors, label=name, **bars, **style)
    for k, mean, error in zip(percent, means, errors, strict=True):
        of = "" if np.isnan(error) else f" ± {error:.2g}"
        figure.say(axes, minus(f"{name}, {k:g} % removed: {mean:.3g}{of} nats"), float(k), float(mean))
    axes.set_xticks(percent, [f"{k:g}" for k in percent])
    axes.set_xlabel("tokens removed (%)")
    axes.set_ylabel("change of log p (nats)")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


@text.register(AOPCTable)
def aopc_text(table: AOPCTable) -> str:
    """One line per method, most faithful first, and what is to be known of them."""
    if not table.records:
        none = "the one prompt was not measured" if table.total == 1 else f"none of {table.total} prompts was measured"
        reasons = "".join(f"\n  prompt {i}: {reason}" for i, reason in list(table.failures.items())[:5])
        return f"AOPC: {none}{':' * bool(reasons)}{reasons}"
    frame = table.to_frame()
    beside = [(name, label) for name, label in _COLUMNS.items() if name in frame]
    width = max(8, *(len(m) for m in table.methods)) + 2
    head = f"{'method':<{width}}{'AOPC':>9}{'± SEM':>10}  {_LESS:<24}  "
    lines = [head + "".join(f"{label:>9}" for _, label in beside)]
    for _, row in frame.sort_values("aopc", kind="stable").iterrows():
        mark = "=" if row.indistinguishable_from_best else ""
        own = f"{row.aopc:>9.4f}{'± ' + format(row['sem'], '.4f'):>10}  {_less_the_best(row):<24}{mark:<2}"
        lines.append(f"{row.method:<{width}}" + minus(own + "".join(f"{row[name]:>9.3f}" for name, _ in beside)))
    top = np.mean([is_right(r) for r in table.records])
    n = counted(len(table.records), "prompt")
    lines.append(f"{n}; nats, more negative is more faithful; SEM over prompts; differences by paired bootstrap.")
    if frame.indistinguishable_from_best.any():
        lines.append("'=' cannot be told from the best.")
    lines += table.notes
    said = "answer, token by token," if any("answer" in r for r in table.records) else "token"
    lines.append(f"The top prediction is the true {said} on {top:.0%} of them.")
    if table.failures:
        lines.append(f"Left out: {counted(len(table.failures), 'prompt')}, e.g. {next(iter(table.failures.values()))}")
    if not table.complete:
        left = table.total - len(table.records) - len(table.failures)
        lines.append(f"Not complete: {counted(left, 'prompt')} still to run.")
    return "\n".join(lines)


@plot.register(AOPC)
def single_figure(measured: AOPC) -> Any:
    """The method's curve, with those of the prompts behind it, and the prompts' AOPC."""
    from tl_scopes.views.canvas.figures import Figure

    figure = Figure(figsize=(8.4, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for row in measured.deltas[:MOST_PROMPTS]:
        left.plot([100 * k for k in measured.fractions], row, color="#999999", alpha=0.4, linewidth=0.8)
    _curve(figure, left, "mean", measured, color=COLOURS[0])
    left.set_title(f"each prompt (grey), mean ± SEM over {len(measured)}", fontsize=9)
    if len(measured):
        right.hist(measured.per_prompt, bins="auto", color=COLOURS[0], alpha=0.6)
        right.axvline(measured.mean, color=COLOURS[5], linewidth=1.2)
    right.set_title(minus(f"AOPC {measured.mean:.4f} ± {measured.sem:.4f}"), fontsize=9)
    right.set_xlabel("AOPC of a prompt (nats)")
    right.set_ylabel("prompts")
    right.locator_params(axis="y", integer=True)
    right.spines[["top", "right"]].set_visible(False)
    return figure


@view.register(AOPC)
def single_view(measured: AOPC) -> View:
    """The figure and its numbers."""
    import pandas as pd

    title = f"AOPC of one method over {counted(len(measured), 'prompt')}"
    columns = {f"Δ at {k:g}": column for k, column in zip(measured.fractions, measured.deltas.T, strict=True)}
    rows = pd.DataFrame({"prompt": range(len(measured)), "AOPC": measured.per_prompt, **columns})
    body = f'<div class="tls">{heading(title)}{single_figure(measured).chart(title)}{numbers(rows)}</div>'
    return View(title, body, lambda: str(measured))


@text.register(AOPC)
def single_text(measured: AOPC) -> str:
    """Mean, standard error, and of what."""
    return repr(measured)


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
    figure.suptitle(f"n = {counted(len(table.records), 'prompt')}, mean ± SEM over prompts", fontsize=9)
    return figure
