"""Heat maps: layer × token, layer × head, or any other table of numbers with names on both axes.

A :class:`HeatMap` says what is drawn; :func:`heatmap` draws it as HTML (hover a cell: its numbers appear), and
:func:`heatmap_figure` with matplotlib. Non-negative maps go from white to blue, signed ones from orange over white to
blue; both pictures share scale and colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_scopes.results.words import characters
from tl_scopes.views.canvas.colours import FULL, RED, RGB, Scale, ScaleKind, blend, css, quantised
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.wording import literal, number, visible

BELOW_ZERO = "#a63603"
"""The colour of the lowest value of a signed map (ColorBrewer Oranges): told from the blue with any colour vision."""
MOST_LABELS = 80
"""Columns, and rows, up to which a matplotlib map names each of them."""
LONGEST_LABEL = 18
"""Characters of a name that a matplotlib map shows."""
_UNIT_LETTERS = 8
"""Letters of the unit that fit beside a map without rows; each row brings room for four more."""
_LEGEND = 11


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A table of numbers to draw.

    Attributes:
        values: ``[row, column]``, finite; the first row is drawn on top.
        rows: name of each row.
        columns: name of each column, e.g. token texts; control characters are made visible by the views.
        title: one line.
        unit: what one unit of a value is.
        row_name: what a row is (``"layer"``).
        column_name: what a column is (``"token"``).
        positions: number of each column for the reader (token positions); None counts from 0.
        signed: values of both signs: orange below 0, blue above.
        scale: how colours follow values; ``"auto"`` is linear, or log where the highest is far above the median. Signed
            maps are linear.
        hidden: columns that are left out of the colours and the scale.
        marked: columns whose name is red, e.g. the explained position.
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
    hidden: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.rows), len(self.columns)):
            raise ValueError(
                f"HeatMap: values {tuple(self.values.shape)} do not fit {len(self.rows)} rows and "
                f"{len(self.columns)} columns"
            )
        if self.positions is not None and len(self.positions) != len(self.columns):
            raise ValueError(f"HeatMap: {len(self.positions)} positions for {len(self.columns)} columns")

    @property
    def shown(self) -> list[int]:
        """Columns that are coloured."""
        return [c for c in range(len(self.columns)) if c not in self.hidden]

    @property
    def colour_scale(self) -> Scale:
        """From the size of a value to a share of the full colour."""
        sizes = (abs(v) for row in self.values[:, self.shown].tolist() for v in row)
        return Scale.of(sizes, "linear" if self.signed else self.scale)

    def name(self, column: int) -> str:
        """A column for the reader: its name and number, or the number alone where that is its name."""
        at = column if self.positions is None else self.positions[column]
        text = self.columns[column]
        return f"{self.column_name} {text}" if text == str(at) else f"{self.column_name} {visible(text)!r} ({at})"


def heatmap(maps: HeatMap | Sequence[HeatMap]) -> View:
    """One map, or several below each other, as a page or notebook output; hovering a cell shows its numbers."""
    drawn = [maps] if isinstance(maps, HeatMap) else list(maps)
    if not drawn:
        raise ValueError("heatmap([]): give at least one map")
    body = "".join(f'<div class="tls">{_table(m)}</div>' for m in drawn)
    return View(drawn[0].title, body, lambda: "\n\n".join(_plain(m) for m in drawn))


def heatmap_figure(maps: HeatMap | Sequence[HeatMap]) -> Any:
    """The same as a matplotlib figure, maps below each other."""
    from tl_scopes.views.canvas.figures import Figure

    drawn = [maps] if isinstance(maps, HeatMap) else list(maps)
    width = max(min(16.0, 2.6 + 0.21 * len(m.columns)) for m in drawn)
    heights = [1.0 + min(0.17 * len(m.rows), 16.0) + _label_height(m) for m in drawn]
    figure = Figure(figsize=(max(width, 5.0), sum(heights)), dpi=150, layout="constrained")
    all_axes = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
    for one, axes in zip(drawn, all_axes, strict=True):
        draw_heatmap(one, axes)
    return figure


def draw_heatmap(one: HeatMap, axes: Any) -> None:
    """One map on matplotlib axes, with its colour bar."""
    import numpy as np
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    scale = one.colour_scale
    values = one.values.double().numpy().copy()
    values[:, sorted(one.hidden)] = np.nan
    high = scale.high or 1.0
    if one.signed:
        colours = [blend(i / 128, BELOW_ZERO) for i in range(128, 0, -1)] + [blend(i / 128) for i in range(129)]
        norm: Any = Normalize(-high, high)
    elif scale.log:
        colours = [blend(scale.share(scale.low) * (1 - i / 255) + i / 255) for i in range(256)]
        norm = LogNorm(scale.low, high)
        values = np.where(values > 0, np.maximum(values, scale.low), np.nan)
    else:
        colours, norm = [blend(i / 255) for i in range(256)], Normalize(0, high)
    cmap = ListedColormap([tuple(c / 255 for c in colour) for colour in colours]).with_extremes(bad="white")
    picture = axes.imshow(values, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
    for column in one.hidden:
        axes.axvspan(column - 0.5, column + 0.5, color="#dddddd", linewidth=0)
    if len(one.rows) <= MOST_LABELS:
        axes.set_yticks(range(len(one.rows)), name_columns(one.rows), fontsize=7)
    axes.set_ylabel(one.row_name, fontsize=8)
    if len(one.columns) <= MOST_LABELS:
        axes.set_xticks(
            range(len(one.columns)), name_columns(one.columns), rotation=0 if _flat(one) else 90, fontsize=7
        )
        for column in one.marked:
            axes.get_xticklabels()[column].set_color(RED)
    axes.set_xlabel(one.column_name + (f"; grey: left out ({len(one.hidden)})" if one.hidden else ""), fontsize=8)
    axes.set_title(literal(one.title), fontsize=9)
    bar = axes.figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label(literal(fill(one.unit, _UNIT_LETTERS + 4 * len(one.rows), break_long_words=False)), fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _label_height(one: HeatMap) -> float:
    """Inches that the columns' names take when they stand upright."""
    if len(one.columns) > MOST_LABELS:
        return 0.3
    return 0.3 if _flat(one) else 0.2 + 0.065 * max(len(_short(c)) for c in one.columns)


def name_columns(texts: Sequence[str]) -> list[str]:
    """Names of columns on matplotlib axes, as :func:`draw_heatmap` writes them."""
    return [_short(text) for text in texts]


def _flat(one: HeatMap) -> bool:
    """Are the columns' names so short that they need not stand upright?"""
    return max((len(visible(c)) for c in one.columns), default=0) <= 2


def _short(text: str) -> str:
    """A name on matplotlib axes, cut where it would take the picture's room."""
    shown = visible(text) if text.strip(" ") else "␣" * len(text)
    read = characters(shown)
    return literal(shown if len(read) <= LONGEST_LABEL else "".join(read[: LONGEST_LABEL - 1]) + "…")


# -- HTML --------------------------------------------------------------------------------------------------


def _table(one: HeatMap) -> str:
    """Title, notes, legend, and the map as a table with a line that says what the mouse is on."""
    scale = one.colour_scale
    rows = []
    for name, values in zip(one.rows, one.values.tolist(), strict=True):
        cells = [_cell(one, scale, name, c, value) for c, value in enumerate(values)]
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    heads = "".join(
        f"<th{' class=tls-mark' if c in one.marked else ''}><bdi>{escape(visible(text))}</bdi></th>"
        for c, text in enumerate(one.columns)
    )
    flat = " tls-flat" if _flat(one) else ""
    table = (
        f'<div class="tls-scroll"><table class="tls-map tls-ink{flat}" data-unit="{escape(one.unit)}" tabindex="0" '
        f'aria-label="{escape(one.title)}; arrow keys walk the cells">'
        f"<tbody>{''.join(rows)}</tbody><tfoot><tr><th>{escape(one.row_name)} · {escape(one.column_name)}</th>{heads}"
        '</tr></tfoot></table></div><p class="tls-small tls-read" aria-live="polite">&nbsp;</p>'
    )
    notes = "".join(f'<p class="tls-note">{escape(note)}</p>' for note in one.notes)
    return heading(one.title) + _legend(one, scale) + table + notes


def _cell(one: HeatMap, scale: Scale, row: str, column: int, value: float) -> str:
    tip = escape(
        f"{one.row_name} {row} · {one.name(column)}: {number(value)}" + (" · left out" if column in one.hidden else "")
    )
    if column in one.hidden:
        return f'<td class="tls-hid" title="{tip}"></td>'
    return f'<td style="background:{_colour(one, scale, value)}" title="{tip}"></td>'


def _colour(one: HeatMap, scale: Scale, value: float) -> str:
    share = quantised(scale.share(abs(value)))
    r, g, b = blend(share, BELOW_ZERO if one.signed and value < 0 else FULL)
    return f"#{r:02x}{g:02x}{b:02x}"


def _legend(one: HeatMap, scale: Scale) -> str:
    """Colours beside the values that they stand for."""
    if scale.high <= 0:
        return '<p class="tls-legend">all shown values are 0</p>'

    def ramp(colours: Sequence[RGB]) -> str:
        cells = "".join(f'<span style="background-color:{css(c)}">&nbsp;</span>' for c in colours)
        return f'<span class="tls-ramp tls-ink" aria-hidden="true">{cells}</span>'

    if one.signed:
        steps = [i / (_LEGEND // 2) for i in range(_LEGEND // 2, 0, -1)]
        colours = [blend(s, BELOW_ZERO) for s in steps] + [blend(0.0)] + [blend(s) for s in reversed(steps)]
        ends, kind = (f"−{number(scale.high)}", number(scale.high)), "linear scale"
    else:
        start = scale.share(scale.low) if scale.log else 0.0
        colours = [blend(start + (1 - start) * i / (_LEGEND - 1)) for i in range(_LEGEND)]
        low = number(scale.low) if scale.log else "0"
        ends, kind = (low, number(scale.high)), "log scale, cells without colour are 0" if scale.log else "linear scale"
    grey = "; grey: left out" if one.hidden else ""
    return (
        f'<p class="tls-legend">{ends[0]} {ramp(colours)} {ends[1]} <span>{escape(one.unit)} ({kind}{grey})</span></p>'
    )


def _plain(one: HeatMap, k: int = 5) -> str:
    """The largest values as text."""
    table = one.values.tolist()
    cells = [(abs(table[r][c]), r, c) for r in range(len(one.rows)) for c in one.shown]
    best = sorted(cells, key=lambda cell: (-cell[0], cell[1], cell[2]))[:k]
    lines = [f"  {one.row_name} {one.rows[r]} · {one.name(c)}: {number(table[r][c])}" for _, r, c in best]
    return "\n".join([f"{one.title} ({one.unit})" if one.unit else one.title, *lines])
