"""All targets of a text at once, by CircuitsVis' attention view: hover a target, its sources light up. Of long texts, and of
some targets alone (those of an answer), each target is clicked in the text (:mod:`tl_scopes.views.targets`).

CircuitsVis reads its matrix as [destination, source]. The destination is the token whose prediction is explained,
one to the right of the position that is read; the prediction after the last token stands behind the text. Below it is
the map, a row per target and a column per source, which is also the figure, and the strongest sources as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tl_scopes.results.attribution import Attribution
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.views.canvas.colours import Scale, blend, css, ink_attributes, quantised
from tl_scopes.views.canvas.heatmap import HeatMap, map_table
from tl_scopes.views.canvas.heatmap_figure import heatmap_figure
from tl_scopes.views.canvas.names import cut_names
from tl_scopes.views.canvas.page import View, heading, host, noted
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.targets import can_be_clicked, clickable_text
from tl_scopes.views.terminal import as_text, in_line, style_of
from tl_scopes.views.wording import (
    LONGEST,
    counted,
    entry,
    linearised,
    named,
    number,
    percent,
    predicted,
    read_after,
    unit,
    visible,
)

MAX_TOKENS = 256
"""Above this many tokens hovering becomes slow in CircuitsVis, and the map has no room: targets are clicked in the text."""
MOST_LISTED = 40
"""Targets whose sources are listed below the map; of more the list is folded."""
_RAMP = 200
"""Steps between white and the colour of the highest score."""
_SOURCES = 5
_PREDICTED = 7


@view.register(AttributionMatrix)
def matrix(attributions: AttributionMatrix) -> View:
    """Targets and their sources. Each row is divided by its highest shown score, and the view says so."""
    rows = [attributions.row(i) for i in range(len(attributions))]
    name = _title(attributions)
    short = cut_names(attributions.str_tokens, LONGEST)
    table = map_table(matrix_map(attributions)) if rows and len(attributions.tokens) <= MAX_TOKENS else ""
    listed = f'<div class="tls-targets">{"".join(_sources(row, short) for row in rows)}</div>'
    if table and len(rows) > MOST_LISTED:
        static = (
            f"{table}<details><summary>Strongest sources of each of {len(rows)} targets</summary>{listed}</details>"
        )
    else:
        static = f'{table}<p class="tls-small">Strongest sources of each target</p>{listed}'
    flagged = " The last target is the model's top prediction." if attributions.top_target_flagged else ""
    all_of_it = len(rows) >= len(attributions.tokens) - 1 and len(attributions.tokens) <= MAX_TOKENS
    if all_of_it and rows and "axis" not in attributions.details:
        content = host("AttentionPatterns", _pattern(attributions, rows), "", css="tls-pattern-host", keep=True)
        beside = '<div class="tls-right tls-beside" aria-live="polite"></div>' if attributions.top_predictions else ""
        content = f'<div class="tls-row"><div class="tls-left">{content}</div>{beside}</div>'
        content += f'<div class="tls-map-box">{static}</div>'
        hint = '<span class="tls-hint">Hover a token: what its prediction came from lights up; click to keep it.</span>'
    elif can_be_clicked(attributions):
        content = clickable_text(attributions, rows, [*map(_target, rows)]) + f'<div class="tls-static">{static}</div>'
        hint = "Click an outlined token (or arrow keys, then Enter): the text takes the colours of its sources."
    else:
        content, hint = f'<div class="tls-static">{static}</div>', ""
    measure = f" ({unit(rows[0])})" if rows else ""
    scale = (
        f"Colours: each row divided by its highest shown score{measure}; cells without colour are 0. "
        "Rows cannot be compared."
    )
    hidden = ", ".join(f"<bdi>{escape(named(attributions.str_tokens[p]))}</bdi>" for p in sorted(attributions.hidden))
    parts = [
        heading(name),
        f'<p class="tls-small">{hint}{flagged} {escape(scale)}</p>',
        f'<p class="tls-small">Left out as sources: {hidden}</p>' if hidden else "",
        noted(_notes(attributions)),
        content,
    ]
    return View(name, f'<div class="tls">{"".join(parts)}</div>', lambda: matrix_text(attributions))


@plot.register(AttributionMatrix)
def matrix_figure(attributions: AttributionMatrix) -> Any:
    """:func:`matrix_map` with matplotlib."""
    return heatmap_figure(replace(matrix_map(attributions), notes=tuple(_notes(attributions))))


def matrix_map(attributions: AttributionMatrix) -> HeatMap:
    """Targets down, sources across, each row by its highest shown score; no cell after the position that is read."""
    rows = [attributions.row(i) for i in range(len(attributions))]
    columns = torch.arange(len(attributions.tokens))
    later = columns[None, :] > torch.tensor(attributions.positions, dtype=torch.long)[:, None]
    source, target = (unit_of(attributions, axis) for axis in ("columns", "rows"))
    return HeatMap(
        values=attributions.scores.masked_fill(later, torch.nan),
        rows=tuple(map(_target, rows)),
        columns=tuple(attributions.str_tokens),
        title=_title(attributions),
        unit=unit(rows[0]) if rows else "",
        row_name="target" if target == "token" else f"target {target}",
        column_name=f"source {source}",
        scale="linear",
        per_row=True,
        hidden=attributions.hidden,
        most=None,
    )


def unit_of(attributions: AttributionMatrix, axis: str) -> str:
    """What a row or column stands for: a token, or a unit of some kind."""
    details = attributions.details
    if details.get("axis", axis) != axis:
        return "token"
    return str(details.get("row_unit") or entry(details))


@text.register(AttributionMatrix)
def matrix_text(attributions: AttributionMatrix) -> str:
    """:func:`matrix_lines` as text."""
    return as_text(matrix_lines(attributions))


def _notes(attributions: AttributionMatrix) -> list[str]:
    """Of all rows, and of some with how many these are."""
    by_row = attributions.details.get("notes", ()) if "notes" in attributions.details.get("by_row", ()) else ()
    some = Counter(note for notes in by_row for note in dict.fromkeys(notes))
    return [*attributions.notes, *(f"{note} ({n} of {len(attributions)} rows)" for note, n in some.items())]


def _title(attributions: AttributionMatrix) -> str:
    name = attributions.method.replace("_", " ").capitalize()
    return f"{name}: sources of {counted(len(attributions), 'target')}{linearised(attributions.details)}"


def _target(row: Attribution) -> str:
    """The token or unit whose prediction a row explains."""
    if "axis" in row.details and row.target_str is not None:  # only one axis is in units
        return named(row.target_str)
    if row.pos + 1 < len(row):
        return named(row.str_tokens[row.pos + 1])
    return named(row.target_str) if row.target_str is not None else " next token"


def _pattern(attributions: AttributionMatrix, rows: list[Attribution]) -> dict[str, object]:
    """Tokens and the [destination, source] matrix that CircuitsVis draws."""
    texts = [visible(text) for text in attributions.str_tokens]
    ends = [row for row in rows if row.pos + 1 == len(row)]
    html = [f"<bdi>{escape(text)}</bdi>" for text in texts]
    html += [f'<b class="tls-target">→<bdi>{escape(_target(row))}</bdi></b>' for row in ends]
    size = len(html)
    values = [[0.0] * size for _ in range(size)]
    for row in rows:
        scale = Scale.of((float(row.scores[p]) for p in row.shown), "linear")
        for p in row.shown:
            values[row.pos + 1][p] = quantised(scale.share(float(row.scores[p])))
    beside = {str(row.pos + 1): _beside(row) for row in rows} if attributions.top_predictions else {}
    ramp = [css(blend(step / _RAMP)) for step in range(_RAMP + 1)]
    return {"html": html, "attention": [values], "focus": rows[-1].pos + 1, "beside": beside, "ramp": ramp}


def _beside(row: Attribution) -> dict[str, object]:
    """What the model predicted where this target stands: shown while the target is hovered."""
    words = [[text, percent(p), round(100 * p, 1), explained] for text, p, explained in predicted(row, _PREDICTED)]
    return {"title": f"Predicted after {read_after(row)}", "words": words}


def _sources(row: Attribution, short: Sequence[str]) -> str:
    """One target with its strongest sources, by their short names, coloured by their share of the highest."""
    top = [t for t in row.top(_SOURCES) if t.score > 0]
    scale = Scale.of((t.score for t in top), "linear")
    cells = []
    for source in top:
        colour = blend(quantised(scale.share(source.score)))
        whole = "" if short[source.pos] == named(source.str_token) else f"{escape(visible(source.str_token))}&#10;"
        tip = f"{whole}{number(source.score)} · position {source.pos}"
        text = f"<bdi {ink_attributes(colour)}>{escape(short[source.pos])}</bdi>"
        cells.append(f'<span style="background-color:{css(colour)}" title="{tip}">{text}</span>')
    arrow = "→" if row.pos + 1 == len(row) else ""
    sources = f'<span class="tls-ink">{" ".join(cells)}</span>' if cells else "<span>–</span>"
    target = _target(row)
    (said,) = cut_names([target], LONGEST) if row.pos + 1 == len(row) or "axis" in row.details else [short[row.pos + 1]]
    return f'<b title="{escape(target)}">{arrow}<bdi>{escape(said)}</bdi></b>{sources}'


def matrix_lines(matrix: AttributionMatrix, k: int = 3) -> RenderableType:
    """One line per explained position: the predicted token and its strongest sources."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("pos", "target", f"strongest {k} sources, share of the row's highest"):
        table.add_column(name, no_wrap=True)
    for i in range(len(matrix)):
        row = matrix.row(i)
        top = row.top(k)
        highest = max((t.score for t in top), default=0.0) or 1.0
        sources = Text()
        for token in top:
            share = token.score / highest
            sources.append(f"{in_line(matrix.details, token.str_token, token.pos)} ", style_of(share))
            sources.append(f" {share:.2f}   ", "dim")
        if not top:
            sources.append("–", "dim")
        following = row.str_tokens[row.pos + 1] if row.pos + 1 < len(row) else "next token"
        target = in_line(matrix.details, following if row.target_str is None else row.target_str)
        flag = " (top prediction)" if matrix.top_target_flagged and row.pos == len(row) - 1 else ""
        table.add_row(f"{row.pos}", Text(target, "bold red") + Text(flag, "dim"), sources)
    return Group(Text(f"{_title(matrix)}, each row on its own scale", "bold"), table)
