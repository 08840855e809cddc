"""A run of many prompts: counts, where each method's influence lies, what it puts first, what failed."""

from __future__ import annotations

from html import escape
from typing import Any

from tl_scopes.results.run import BINS, RunReport
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import counted, literal, visible

MOST_NAMED = 3
"""Units of each method that the text names."""


@text.register(RunReport)
def run_text(result: RunReport) -> str:
    """Counts, a line per method, the first failures."""
    lines = [_counts(result)]
    width = 2 + max(map(len, ("method", *(m.method for m in result.methods))))
    unit = result.settings.get("unit", "token")
    lines.append(f"{'method':<{width}}{'prompts':>8}  {'on the first':>12}  ranks first most often")
    for own in result.methods:
        most = ", ".join(f"{visible(s.text)!r} {s.times}" for s in own.strongest[:MOST_NAMED])
        lines.append(f"{own.method:<{width}}{own.prompts:>8,}  {own.top_share:>12.1%}  {most}")
    lines.append(f"On the first: the mean share of a prompt's influence on the {unit} that ranks first.")
    lines += [
        f"{own.method}: {counted(own.unsaid, 'prompt')} without influence." for own in result.methods if own.unsaid
    ]
    if result.failed:
        number, name, reason = result.first_failed[0]
        called = f"row {number}" if name is None else f"row {number} ({visible(name)})"
        lines.append(f"Failed: {result.failed:,}, e.g. {called}: {visible(reason)}")
    if result.left:
        lines.append(f"{_left(result)}; the same call goes on.")
    return minus("\n".join(lines))


def _counts(result: RunReport) -> str:
    """One line."""
    rate = f", {result.explained / result.seconds:.3g} prompts/s of one process" if result.seconds else ""
    return (
        f"{counted(result.rows, 'row')}: {result.explained:,} explained, {result.failed:,} failed, "
        f"{result.duplicates:,} asked before; {result.seconds:,.0f} s{rate}."
    )


def _left(result: RunReport) -> str:
    """What is still to be done."""
    return f"Not complete: {counted(result.left, 'row')} {'is' if result.left == 1 else 'are'} left to other processes"


@plot.register(RunReport)
def run_figure(result: RunReport) -> Any:
    """Share of influence by tenths of the prompt, a line per method; dashed: spread evenly."""
    from tl_scopes.views.canvas.figures import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    middle = [(i + 0.5) / BINS for i in range(BINS)]
    for i, own in enumerate(result.methods):
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": ("-", "--", ":")[i // len(COLOURS) % 3],
        }
        axes.plot(middle, own.by_position, marker="o", markersize=3, linewidth=1.2, label=literal(own.method), **style)
        for x, share in zip(middle, own.by_position, strict=True):
            figure.say(axes, f"{own.method}, {x - 0.05:.0%} to {x + 0.05:.0%} of the prompt: {share:.1%}", x, share)
    axes.axhline(1 / BINS, color="#999999", linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="place in the prompt", ylabel="mean share of influence")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{round(100 * value, 1):g}%")
    axes.spines[["top", "right"]].set_visible(False)
    if result.methods:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure


@view.register(RunReport)
def run_view(result: RunReport) -> View:
    """Counts, the figure, what ranks first by method, reasons and rows of failures, where the numbers are from."""
    import pandas as pd

    title = f"{counted(result.explained, 'prompt')}, {counted(len(result.methods), 'method')}"
    parts = [f"<p>{escape(_counts(result))}</p>"]
    if result.left:
        parts.append(f"<p>{_left(result)}.</p>")
    if result.explained:
        parts.append(run_figure(result).chart("share of influence by place in the prompt"))
    frame = result.to_frame().drop(columns="strongest")
    parts.append(table(frame.rename(columns={"units": "units per prompt", "top_share": "share of the first"})))
    strongest = []
    for own in result.methods:
        if own.strongest:
            rows = pd.DataFrame([(s.text, s.times, s.share) for s in own.strongest])
            rows.columns = ["ranks first", "prompts", "mean share then"]
            strongest.append(f"<div><p><b>{escape(visible(own.method))}</b></p>{table(rows)}</div>")
    parts.append(f'<div class="tls-abreast">{"".join(strongest)}</div>')
    if result.failed:
        reasons = pd.DataFrame(list(result.reasons.items()), columns=["reason", "rows"])
        failed = pd.DataFrame(result.first_failed, columns=["row", "id", "reason"])
        parts.append(f"<p><b>Failed rows</b>, by reason and the first {len(failed)}</p>{table(reasons)}{table(failed)}")
    parts.append(f'<p class="tls-small">{escape(_origin(result))}</p>')
    return View(title, f'<div class="tls tls-report">{heading(title)}{"".join(parts)}</div>', lambda: str(result))


def _origin(result: RunReport) -> str:
    """The model and the versions that the run is of."""
    model, versions = result.settings.get("model", {}), result.settings.get("versions", {})
    said = [str(model.get(name)) for name in ("model_name", "model_class", "dtype") if model.get(name)]
    said += [f"weights {model['weights']}"] if model.get("weights") else []
    said += [f"tl_scopes {model['tl_scopes']}"] if model.get("tl_scopes") else []
    return ", ".join([*said, *(f"{name} {number}" for name, number in versions.items())])
