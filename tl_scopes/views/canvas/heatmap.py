"""Heat maps: layer × token, layer × head, or any other table of numbers with names on both axes.

A :class:`HeatMap` says what is drawn; :func:`heatmap` draws it as HTML (hover a cell: its numbers appear), and
:func:`heatmap_figure` with matplotlib. Non-negative maps go from white to blue, signed ones from orange over white to
blue; both pictures share scale and colours, and the columns that are drawn: of a long prompt the strongest, the others
are folded away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.arguments import public_call
from tl_scopes.views.canvas.colours import LOG_FROM, RGB, Scale, ScaleKind, blend, css, quantised
from tl_scopes.views.canvas.names import cut_names
from tl_scopes.views.canvas.page import View, heading, noted
from tl_scopes.views.wording import number, percent, visible

MOST_COLUMNS = 60
"""Columns that a map of tokens draws; of more, the strongest."""
FLAT = 0.8
"""Of an even share: from there on what is folded away is hardly weaker than what is drawn."""
MOST_CELLS = 12_000
"""Cells of a page up to which what is folded away can be unfolded; above, it is in the result's table."""
LONGEST_ROW_NAME, LONGEST_COLUMN_NAME = 20, 28
"""Characters of a row's name, beside the map, and of a column's, upright below it, that a page shows."""
_LEGEND = 11


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A table of numbers to draw.

    Attributes:
        values: ``[row, column]``; the first row is drawn on top. NaN is a place that has no cell.
        rows: name of each row.
        columns: name of each column, e.g. token texts; control characters are made visible by the views.
        title: one line.
        unit: what one unit of a value is.
        row_name: what a row is (``"layer"``).
        column_name: what a column is (``"token"``).
        positions: number of each column for the reader (token positions); None counts from 0.
        signed: values of both signs: orange below 0, blue above.
        scale: how colours follow the sizes of values; ``"auto"`` is linear, or log where the largest is far above the
            median, of all or of a row.
        per_row: colour each row by its own largest size; otherwise one scale for the whole map.
        hidden: columns that are left out of the colours and the scale.
        marked: columns whose name is red, e.g. sinks; they are never folded away before others.
        explained: the column of the explained position: red, and in sight however far a page is scrolled.
        most: columns that are drawn at most, the strongest; None draws all.
        beside: values of the maps that this one is compared with: all have one scale, and the same columns are drawn.
        notes: sentences below the title.
    """

    values: Float[Tensor, "row column"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    title: str
    unit: str = ""
    row_name: str = "row"
    column_name: str = "column"
    positions: tuple[int, ...] | None = None
    signed: bool = False
    scale: ScaleKind = "auto"
    per_row: bool = False
    hidden: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    explained: int | None = None
    most: int | None = MOST_COLUMNS
    beside: tuple[Float[Tensor, "row column"], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for values in (self.values, *self.beside):
            if values.shape != (len(self.rows), len(self.columns)):
                raise ValueError(
                    f"HeatMap: values {tuple(values.shape)} do not fit {len(self.rows)} rows and "
                    f"{len(self.columns)} columns"
                )
        if self.positions is not None and len(self.positions) != len(self.columns):
            raise ValueError(f"HeatMap: {len(self.positions)} positions for {len(self.columns)} columns")

    @property
    def shown(self) -> list[int]:
        """Columns that are coloured."""
        return [c for c in range(len(self.columns)) if c not in self.hidden]

    @property
    def red(self) -> frozenset[int]:
        """Columns whose name is red."""
        return self.marked if self.explained is None else self.marked | {self.explained}

    @cached_property
    def sizes(self) -> Float[Tensor, "row column"]:
        """What colours follow: the size of each value, or its share of the row's largest; 0 where there is no cell."""
        return self._scaled(_size(self.values))

    @cached_property
    def _compared(self) -> Float[Tensor, "row column"]:
        """The largest of the sizes of all maps that are compared, at each place."""
        return self._scaled(self._largest)

    @property
    def _largest(self) -> Float[Tensor, "row column"]:
        return torch.stack([_size(values) for values in (self.values, *self.beside)]).amax(dim=0)

    def _scaled(self, sizes: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
        if not self.per_row or not self.shown:
            return sizes
        largest = self._largest[:, self.shown].amax(dim=1, keepdim=True)
        return sizes / largest.clamp_min(torch.finfo(torch.double).tiny)

    @cached_property
    def colour_scale(self) -> Scale:
        """From a size to a share of the full colour; ``"auto"`` is log where linear would leave a whole row white."""
        table = self._compared[:, self.shown].tolist()
        rows = [sorted(size for size in row if size > 0) for row in table]
        every = [size for row in rows for size in row]
        medians = [row[len(row) // 2] for row in rows if len(row) > 3]
        wide = self.scale == "auto" and any(max(every) > LOG_FROM * low for low in medians)
        return (Scale.around_zero if self.signed else Scale.of)(every, "log" if wide else self.scale)

    @cached_property
    def shares(self) -> list[list[float]]:
        """The share of the full colour of each cell, with the sign of its value; NaN where there is no cell."""
        scale = self.colour_scale
        return [
            [
                value if value != value else scale.share(-size if value < 0 else size)
                for value, size in zip(*of, strict=True)
            ]
            for of in zip(self.values.tolist(), self.sizes.tolist(), strict=True)
        ]

    @cached_property
    def drawn(self) -> list[int]:
        """Columns that are drawn, in their order: all, or the ``most`` with the largest sizes."""
        every = range(len(self.columns))
        if self.most is None or len(every) <= self.most:
            return list(every)
        largest = self._compared.amax(dim=0).tolist() if self.rows else [0.0] * len(every)
        by_size = sorted(every, key=lambda c: (c not in self.red, c in self.hidden, -largest[c], c))
        return sorted(by_size[: self.most])

    @property
    def folded(self) -> str:
        """What is not drawn, in words; empty where all is."""
        drawn = set(self.drawn)
        rest = [c for c in self.shown if c not in drawn]
        if len(drawn) == len(self.columns):
            return ""
        said = f"The {len(drawn)} strongest of {len(self.columns)} {self.column_name}s are drawn"
        out = len(self.columns) - len(drawn) - len(rest)
        if not rest:
            return f"{said}; {'the other is' if out == 1 else f'the {out} others are'} left out."
        if out:
            said += f", {out} {'is' if out == 1 else 'are'} left out"
        sizes = self.sizes[:, self.shown]
        share = float(self.sizes[:, rest].sum() / sizes.sum().clamp_min(torch.finfo(torch.double).tiny))
        even = len(rest) / len(self.shown)
        held = f"{percent(share)} of the sum of all sizes{', each row by its largest' if self.per_row else ''}"
        flat = f"nearly their even share of {percent(even)}: they are hardly weaker" if share > FLAT * even else ""
        told = flat or f"an even share is {percent(even)}"
        largest = float(self.sizes[:, rest].max())
        others = f"the {len(rest)} others hold" if len(rest) > 1 else "the other holds"
        most = "" if self.per_row else f", none above {number(largest)} {self.unit}".rstrip()
        return f"{said}; {others} {held} ({told}){most}."

    def name(self, column: int) -> str:
        """A column for the reader: its name and number, or the number alone where that is its name."""
        at = column if self.positions is None else self.positions[column]
        text = self.columns[column]
        return f"{self.column_name} {text}" if text == str(at) else f"{self.column_name} {visible(text)!r} ({at})"


def compared(maps: Sequence[HeatMap]) -> list[HeatMap]:
    """Maps of the same rows and columns, with one scale and the same columns drawn."""
    return [replace(one, beside=tuple(other.values for other in maps if other is not one)) for one in maps]


@public_call
def heatmap(maps: HeatMap | Sequence[HeatMap]) -> View:
    """One map, or several below each other, as a page or notebook output; hovering a cell shows its numbers."""
    drawn = [maps] if isinstance(maps, HeatMap) else list(maps)
    if not drawn:
        raise ValueError("(maps=[]): give at least one map")
    body = "".join(f'<div class="tls">{heading(m.title)}{map_table(m)}</div>' for m in drawn)
    return View(drawn[0].title, body, lambda: "\n\n".join(_plain(m) for m in drawn))


def map_table(one: HeatMap) -> str:
    """Legend, the map as a table, a line that says what the mouse is on, and the notes; what is folded can be unfolded."""
    columns = list(range(len(one.columns))) if len(one.rows) * len(one.columns) <= MOST_CELLS else one.drawn
    away = set(columns) - set(one.drawn)
    classes = {c: _classes(one, c, away) for c in columns}
    rows = []
    names = cut_names(one.rows, LONGEST_ROW_NAME)
    for r, (name, values) in enumerate(zip(names, one.values.tolist(), strict=True)):
        cells = "".join(_cell(one, r, c, values[c], classes[c]) for c in columns)
        rows.append(f'<tr><th title="{escape(visible(one.rows[r]))}"><bdi>{escape(name)}</bdi></th>{cells}</tr>')
    heads = "".join(
        f"<th{_attribute([*classes[c], *(['tls-mark'] if c in one.red else [])])} "
        f'title="{escape(visible(one.columns[c]))}"><bdi>{escape(name)}</bdi></th>'
        for c, name in zip(columns, cut_names([one.columns[c] for c in columns], LONGEST_COLUMN_NAME), strict=True)
    )
    corner = f"{one.row_name} · {one.column_name}"
    widest = min(max(map(len, (*names, *corner.split()))), LONGEST_ROW_NAME)
    flat = " tls-flat" if is_flat(one) else ""
    dense = " tls-dense" if max(len(one.drawn), len(one.rows)) > MOST_COLUMNS else ""
    table = (
        f'<div class="tls-scroll"><table class="tls-map tls-ink{flat}{dense}" data-unit="{escape(one.unit)}" tabindex="0" '
        f'style="--label:{widest + 1}ch;--drawn:{len(one.drawn)};--all:{len(columns)}" '
        f'aria-label="{escape(one.title)}; arrow keys walk the cells">'
        f"<tbody>{''.join(rows)}</tbody><tfoot><tr><th>{escape(corner)}</th>{heads}"
        '</tr></tfoot></table></div><p class="tls-small tls-read" aria-live="polite">&nbsp;</p>'
    )
    notes = noted(one.notes)
    return _legend(one) + _unfold(one, bool(away)) + table + notes


def _size(values: Tensor) -> Tensor:
    return values.double().abs().nan_to_num(0.0)


def is_flat(one: HeatMap) -> bool:
    """Are the columns' names so short that they need not stand upright?"""
    return max((len(visible(c)) for c in one.columns), default=0) <= 2


def _unfold(one: HeatMap, can: bool) -> str:
    """What is folded away, and the box that unfolds it."""
    if not one.folded:
        return ""
    box = f' <label><input type="checkbox" class="tls-unfold"> draw all {len(one.columns)}</label>' if can else ""
    return f'<p class="tls-small">{escape(one.folded)}{box}</p>'


def _classes(one: HeatMap, column: int, away: set[int]) -> list[str]:
    """Of every cell of a column."""
    return ["tls-fold"] * (column in away) + ["tls-end"] * (column == one.explained)


def _attribute(classes: Sequence[str]) -> str:
    return f' class="{" ".join(classes)}"' if classes else ""


def _cell(one: HeatMap, row: int, column: int, value: float, classes: Sequence[str]) -> str:
    if value != value:
        return f"<td{_attribute(classes)}></td>"
    out = column in one.hidden
    name = f"{one.row_name} {visible(one.rows[row])} · {one.name(column)}"
    tip = escape(f"{name}: {number(value)}{' · left out' if out else ''}")
    if out:
        return f'<td{_attribute(["tls-hid", *classes])} title="{tip}"></td>'
    share = one.shares[row][column]
    r, g, b = blend(quantised(share))
    return f'<td style="background:#{r:02x}{g:02x}{b:02x}" title="{tip}"{_attribute(classes)}></td>'


def _legend(one: HeatMap) -> str:
    """Colours beside the values that they stand for."""
    scale = one.colour_scale
    if scale.high <= 0:
        return '<p class="tls-legend">all shown values are 0</p>'

    def ramp(colours: Sequence[RGB]) -> str:
        cells = "".join(f'<span style="background-color:{css(c)}">&nbsp;</span>' for c in colours)
        return f'<span class="tls-ramp tls-ink" aria-hidden="true">{cells}</span>'

    foot = scale.share(scale.low) if scale.log else 0.0
    if one.signed:
        steps = [foot + (1 - foot) * i / (_LEGEND // 2) for i in range(_LEGEND // 2, 0, -1)]
        colours = [blend(-s) for s in steps] + [blend(0.0)] + [blend(s) for s in reversed(steps)]
        ends = (f"−{number(scale.high)}", number(scale.high))
    else:
        colours = [blend(foot + (1 - foot) * i / (_LEGEND - 1)) for i in range(_LEGEND)]
        ends = (number(scale.low) if scale.log else "0", number(scale.high))
    kind = "log scale, cells without colour are 0" if scale.log else "linear scale"
    if scale.log and one.signed:
        kind = f"log scale from {number(scale.low)} in size, smaller ones alike, cells without colour are 0"
    grey = "; grey: left out" if one.hidden.intersection(one.drawn) else ""
    return (
        f'<p class="tls-legend">{ends[0]} {ramp(colours)} {ends[1]} <span>{escape(scaled_unit(one))} '
        f"({kind}{grey})</span></p>"
    )


def scaled_unit(one: HeatMap) -> str:
    """What the colours stand for."""
    if not one.per_row:
        return one.unit
    return f"share of the {one.row_name}'s own largest{' size' if one.signed else ''}: rows cannot be compared"


def _plain(one: HeatMap, k: int = 5) -> str:
    """The largest values as text."""
    table = one.values.tolist()
    cells = [(abs(row[c]), r, c) for r, row in enumerate(table) for c in one.shown if row[c] == row[c]]
    best = sorted(cells, key=lambda cell: (-cell[0], cell[1], cell[2]))[:k]
    lines = [f"  {one.row_name} {one.rows[r]} · {one.name(c)}: {number(table[r][c])}" for _, r, c in best]
    return "\n".join([f"{one.title} ({one.unit})" if one.unit else one.title, *lines])
