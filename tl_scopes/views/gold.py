"""Gold alignment: a dot with its interval per method and corpus or task; methods by substitution in a block of their own."""

from __future__ import annotations

from collections import Counter
from html import escape
from textwrap import fill
from typing import Any

from tl_scopes.numerics.statistics import LEAST_PROMPTS
from tl_scopes.results.gold import BLOCKS, LEAST_ACCEPTED, GoldAlignment
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import counted

SUBSTITUTION = "by substitution, as the acceptance of prompts is:"
"""Heads the methods of that block."""
PANELS = 7
"""Of one row of the figure."""


@plot.register(GoldAlignment)
def gold_figure(result: GoldAlignment) -> Any:
    """Top-1 gold alignment: a panel per corpus or task, a row per method with its bootstrap interval; dashed is chance."""
    from tl_scopes.views.canvas.figures import Figure

    frame = result.to_frame()
    frame = frame[frame.n > 0]
    apart = [m for m in result.methods if result.acceptance and result.block(m) == "substitution"]
    methods = [*(m for m in result.methods if m not in apart), *apart]
    place = {m: i + GAP * (m in apart) for i, m in enumerate(methods)}
    names = list(dict.fromkeys(frame[result.kind]))
    rows = -(-max(len(names), 1) // PANELS)
    columns = -(-max(len(names), 1) // rows)
    size = (1.8 + 1.35 * columns, rows * (1.1 + 0.27 * (len(methods) + GAP * bool(apart))))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        _panel(figure, axes, frame[frame[result.kind] == name], name, place)
        if apart:
            axes.axhline(len(methods) - len(apart) - 0.5 + GAP / 2, color="#bbbbbb", linewidth=0.8)
    for n, axes in enumerate(panels.flat[len(names) :], start=len(names)):
        axes.set_visible(False)
        panels.flat[n - columns].tick_params(labelbottom=True)  # nothing below it has the percentages
    first = panels[0, 0]
    first.set_yticks(list(place.values()), [m.replace("_", " ") for m in place])
    first.invert_yaxis()
    below = "; below the line: methods by substitution, as the acceptance is" * bool(apart)
    said = f"prompts whose known cause ranks first (dashed: a random ranking){below}"
    figure.supxlabel(fill(said, int(14 * size[0])), fontsize=9)
    if without := _without_figures(result):
        figure.suptitle(fill(without, int(14 * size[0])), fontsize=8)
    return figure


GAP = 0.8
"""Between the blocks of methods, in rows."""


def _panel(figure: Any, axes: Any, rows: Any, name: str, place: dict[str, float]) -> None:
    """One corpus or task."""
    y = [place[method] for method in rows.method]
    axes.axvline(rows.chance.mean(), color="#555555", linestyle="--", linewidth=1, label="chance")
    axes.hlines(y, rows.top1_low, rows.top1_high, color=COLOURS[0], linewidth=1.2)
    axes.plot(rows.top1, y, "o", color=COLOURS[0], markersize=4.5, clip_on=False)
    for at, (_, row) in zip(y, rows.iterrows(), strict=True):
        figure.say(axes, f"{name}, {row.method}: {_interval(row, 'top1').strip()}", float(row.top1), float(at))
    axes.set_title(f"{name}\nn = {rows.n.max()}", fontsize=9)
    axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


@view.register(GoldAlignment)
def gold_view(result: GoldAlignment) -> View:
    """The figure and its numbers."""
    title, frame = "How often the known cause ranks first", result.to_frame()
    columns = {result.kind: result.kind, "method": "method", "n": "n"}
    columns |= {
        "top1": "top‑1",
        "top1_low": "low",
        "top1_high": "high",
        "mrr": "MRR",
        "mrr_low": "low",
        "mrr_high": "high",
    }
    columns |= {"recall": "recall"} if result.acceptance else {}
    columns |= {"top1_in_source": "in source", "chance": "chance"}
    if result.acceptance:
        frame = frame.assign(less=[_less_the_best(row) for _, row in frame.iterrows()], same=_marks(frame))
        columns |= {"less": "top‑1 less the best [95 %]", "same": ""}
    parts = []
    for head, rows in _blocks(result, frame[frame.n > 0]):
        parts += [f"<p>Methods {escape(head)}</p>"] * bool(head) + [table(rows[list(columns)].rename(columns=columns))]
    figure = gold_figure(result).chart(title) if len(result.records) else ""
    says = "".join(f'<p class="tls-small">{escape(line)}</p>' for line in _notes(result))
    return View(title, f'<div class="tls">{heading(title)}{figure}{"".join(parts)}{says}</div>', lambda: str(result))


@text.register(GoldAlignment)
def gold_text(result: GoldAlignment) -> str:
    """A line per corpus or task and method, with intervals."""
    frame = result.to_frame()
    width = 2 + max(map(len, ("method", *frame.method)))
    wide = max(13, 2 + max(map(len, result.accuracy), default=0))
    head = f"{result.kind:<{wide}}{'method':<{width}}{'n':>5}  {'top-1 [95 %]':<22}"
    if not result.acceptance:
        lines = [f"{head}   {'MRR [95 %]':<25}in source  chance"]
        for _, row in frame.iterrows():
            lines.append(
                f"{row.corpus:<{wide}}{row.method:<{width}}{row.n:>5}  {_interval(row, 'top1'):<25}"
                f"{_interval(row, 'mrr'):<25}{row.top1_in_source:8.1%}  {row.chance:6.1%}"
            )
        return "\n".join([*lines, *_notes(result)])
    lines = [f"{head}{'less the best [95 %]':<26}    MRR  recall  in source  chance"] * bool(result.records)
    for title, rows in _blocks(result, frame[frame.n > 0]):
        lines += [title] * bool(title)
        for (_, row), same in zip(rows.iterrows(), _marks(rows), strict=True):
            lines.append(
                minus(
                    f"{row.task:<{wide}}{row.method:<{width}}{row.n:>5}  {_interval(row, 'top1'):<22}"
                    f"{_less_the_best(row):<24}{same:<2}{row.mrr:7.2f} {row.recall:7.1%}   {row.top1_in_source:8.1%}  "
                    f"{row.chance:6.1%}"
                )
            )
    return "\n".join([*lines, *_notes(result)])


def _blocks(result: GoldAlignment, frame: Any) -> list[tuple[str, Any]]:
    """The rows of each block with its heading; of corpora, which no test by substitution has chosen, all in one."""
    if not result.acceptance:
        return [("", frame)]
    found = [(SUBSTITUTION if b == "substitution" else "", frame[frame.block == b]) for b in BLOCKS]
    return [(head, rows) for head, rows in found if len(rows)]


def _notes(result: GoldAlignment) -> list[str]:
    """What is to be known of the figures."""
    if not result.acceptance:
        return [_candidates(result)]
    wide = 2 + max(map(len, result.acceptance))
    lines = ["Accepted prompts:", *(f"  {task:<{wide}}{found}" for task, found in result.acceptance.items())]
    lines += [without] if (without := _without_figures(result)) else []
    if result.records:
        lines.append(
            "Candidates: all tokens of the prompt except special tokens. Differences of top-1 from the best of the block, "
            "over the same prompts (McNemar's test, Agresti and Min's interval)."
        )
        if any(_marks(result.to_frame())):
            lines.append("'=' cannot be told from the best, all pairs of a task counted (Holm).")
    for task, failed in result.failures.items():
        number, reason = next(iter(failed.items()))
        lines.append(f"Left out of {task}: {counted(len(failed), 'prompt')}, e.g. {number}: {reason}")
    if result.left:
        lines.append(f"Not complete: {result.left} accepted prompts still to be scored.")
    return lines


def _without_figures(result: GoldAlignment) -> str:
    """The tasks without figures, by name."""
    few = ", ".join(f"{task} ({result.acceptance[task].accepted})" for task in result.without_figures)
    return f"No figure, fewer than {LEAST_ACCEPTED} accepted prompts: {few}." if few else ""


def _marks(rows: Any) -> list[str]:
    """An equals sign for those that cannot be told from the best, which is not one of them."""
    best = (rows.difference == 0) & (rows.low == 0) & (rows.high == 0)
    return [
        "=" if same is True and not own else ""
        for same, own in zip(rows.indistinguishable_from_best, best, strict=True)
    ]


def _less_the_best(row: Any) -> str:
    """The paired difference from the best method of the block with its interval, in points; nothing for the best itself."""
    if row.difference == row.low == row.high == 0:
        return ""
    return minus(f"{100 * row.difference:5.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]")


def _candidates(result: GoldAlignment) -> str:
    right = ", ".join(f"{c} {a:.0%}" for c, a in result.accuracy.items())
    counted = Counter(corpus for corpus, _ in {(r.corpus, r.index) for r in result.records})
    few = ", ".join(f"{c} {n}" for c, n in sorted(counted.items()) if n < LEAST_PROMPTS)
    explained = "the explained one" if result.answers == "token" else "the answer, which is explained as a whole,"
    return (
        f"Candidates: all tokens up to {explained} except special tokens. Answered right: {right}."
        + f" Prompts too few to compare methods by (below {LEAST_PROMPTS}): {few}; their intervals are too narrow."
        * bool(few)
    )


def _interval(row: Any, name: str) -> str:
    return f"{row[name]:6.1%} [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"
