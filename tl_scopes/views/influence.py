"""Layer and head influence as heat maps, with the scope itself under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.units import kind_of
from tl_scopes.views.attribution import tokens
from tl_scopes.views.canvas.heatmap import HeatMap, heatmap
from tl_scopes.views.canvas.heatmap_figure import heatmap_figure
from tl_scopes.views.canvas.page import View, stack
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.terminal import as_text, in_line, style_of
from tl_scopes.views.wording import entry, linearised, number, quoted, title, unit

MOST_HEADS = 12
"""Heads that the head × token map shows."""
_GAP = 3
"""Letters between two names in a line of a terminal."""
_LONG = 3
"""Units of several words that a line of a terminal has room for."""


@view.register(LayerInfluence)
@view.register(HeadInfluence)
def influence(result: LayerInfluence | HeadInfluence, *, per_row: bool = False) -> View:
    """The maps, and the scope's own coloured tokens."""
    pages = stack(heatmap(influence_maps(result, per_row)), tokens(result.attribution))
    return replace(pages, plain=lambda: str(result))


@text.register(LayerInfluence)
@text.register(HeadInfluence)
def influence_text(result: LayerInfluence | HeadInfluence) -> str:
    """:func:`influence_lines` as text."""
    return as_text(influence_lines(result))


@plot.register(LayerInfluence)
@plot.register(HeadInfluence)
def influence_figure(result: LayerInfluence | HeadInfluence, *, per_row: bool = False) -> Any:
    """The maps as a matplotlib figure."""
    first, *others = influence_maps(result, per_row)
    return heatmap_figure([replace(first, notes=(*first.notes, *result.attribution.notes)), *others])


def influence_maps(result: LayerInfluence | HeadInfluence, per_row: bool = False) -> list[HeatMap]:
    """Layer × token; or layer × head, and head × token of the strongest heads. The last layer is on top."""
    maps = [_layers(result)] if isinstance(result, LayerInfluence) else [_heads(result), _heads_by_token(result)]
    return [replace(one, per_row=per_row) for one in maps]


def _layers(result: LayerInfluence) -> HeatMap:
    columns = range(result.pos + 1)
    by = "relative change of the residual stream" if result.relative else "unit of the residual stream"
    return HeatMap(
        values=result.scores[:, list(columns)].flip(0),
        rows=result.layers[::-1],
        columns=tuple(result.str_tokens[p] for p in columns),
        title=_title(result, "layer"),
        unit=f"{_measure(result)} per {by}",
        row_name="layer",
        column_name=entry(result.attribution.details),
        hidden=frozenset(p for p in columns if p in result.attribution.hidden),
        explained=result.pos,
        notes=(
            *(() if result.relative else ("Raw rows are not comparable across depth; relative=True makes them so.",)),
            *result.notes,
        ),
    )


def _heads(result: HeadInfluence) -> HeatMap:
    table = result.by_head()
    signed = result.signed
    return HeatMap(
        values=table.flip(0),
        rows=tuple(str(layer) for layer in reversed(result.layers)),
        columns=tuple(str(head) for head in range(table.shape[1])),
        title=_title(result, "head"),
        unit=_head_unit(result) + (", sum over positions" if signed else ", over positions"),
        row_name="layer",
        column_name="head",
        signed=signed,
        most=None,
        notes=result.notes,
    )


def _heads_by_token(result: HeadInfluence) -> HeatMap:
    chosen = sorted(result.top_heads(MOST_HEADS), key=lambda t: (-t.layer, t.head))
    columns = range(result.pos + 1)
    rows = [result.scores[result.layers.index(t.layer), t.head, list(columns)] for t in chosen]
    return HeatMap(
        values=torch.stack(rows),
        rows=tuple(f"{t.layer}.{t.head}" for t in chosen),
        columns=tuple(result.str_tokens[p] for p in columns),
        title=f"The {len(chosen)} strongest heads, by query position",
        unit=_head_unit(result),
        row_name="head",
        column_name=f"query {entry(result.attribution.details)}",
        signed=result.signed,
        hidden=frozenset(p for p in columns if p in result.attribution.hidden),
        explained=result.pos,
    )


def _title(result: LayerInfluence | HeadInfluence, by: str) -> str:
    """Which scope, by what, of what."""
    name = title(result.attribution).split(":")[0]
    target = "" if result.target_str is None else f": {quoted(result.target_str)}"
    return f"{name} by {by}{target}{linearised(result.attribution.details)}"


def _measure(result: LayerInfluence | HeadInfluence) -> str:
    """What the scope's scalar is measured in."""
    return unit(result.attribution).split(" per ")[0]


def _head_unit(result: HeadInfluence) -> str:
    return _measure(result) if result.signed else f"{_measure(result)} per unit of hook_z"


@dataclass(frozen=True)
class _Pairs:
    """Names with their numbers, as many to a line as it holds: a line breaks between two pairs alone."""

    pairs: Sequence[Text]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widths = [pair.cell_len for pair in self.pairs] or [0]
        return Measurement(max(widths), sum(widths) + _GAP * (len(widths) - 1)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = Text()
        for pair in self.pairs:
            if line and line.cell_len + _GAP + pair.cell_len > options.max_width:
                yield line
                line = Text()
            line.append(" " * _GAP if line else "").append_text(pair)
        yield line


def influence_lines(result: LayerInfluence | HeadInfluence, k: int = 6) -> RenderableType:
    """One line per layer, last layer first: its strongest tokens, or its heads."""
    one = influence_maps(result)[0]
    by_pos = isinstance(result, LayerInfluence)
    k = k if kind_of(result.attribution.details) in (None, "word") or not by_pos else min(k, _LONG)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(one.row_name, no_wrap=True)
    table.add_column(f"strongest {one.column_name}s: {one.unit}")
    for name, values, shares in zip(one.rows, one.values.tolist(), one.shares, strict=True):
        pairs = []
        for c in sorted((c for c in one.shown if values[c]), key=lambda c: (-abs(values[c]), c))[:k]:
            said = in_line(result.attribution.details, one.columns[c], c) if by_pos else one.columns[c]
            pairs.append(Text.assemble((f"{said} ", style_of(shares[c])), (f" {number(values[c])}", "dim")))
        table.add_row(name, _Pairs(pairs))
    parts: list[RenderableType] = [Text(one.title, "bold"), table]
    notes = (*one.notes, *result.attribution.notes)
    return Group(*parts, *(Padding(Text(note, "yellow"), (0, 2)) for note in notes))
