"""Heat maps with matplotlib, in the colours of the page; every row and column that is drawn has its name."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10
from textwrap import fill
from typing import Any

from tl_scopes.views.canvas.colours import RED, blend
from tl_scopes.views.canvas.heatmap import HeatMap, is_flat, scaled_unit
from tl_scopes.views.canvas.names import LONGEST_LABEL, LONGEST_ROW, axis_names, cut_names
from tl_scopes.views.wording import literal, number, visible

_COLUMN, _ROW = 0.21, 0.17
"""Inches of a cell where there is room."""
_MOST = 15.0
"""Inches that all columns, or all rows, take together."""
_NARROW = 4.5
"""Inches of a map of few columns above a wider one."""
_LARGE, _SMALL = 7.0, 4.0
"""Points of names, where there is room and where there is least."""
_LINE = 1.2
"""Height of a line of text in its own points."""
_TITLE_LETTERS = 12
"""Of a title on an inch of a map."""
_UNIT_LETTERS = 8
"""Letters of the unit that fit beside a map without rows; each row brings room for four more."""


def heatmap_figure(maps: HeatMap | Sequence[HeatMap]) -> Any:
    """One map, or several below each other, as a matplotlib figure."""
    from tl_scopes.views.canvas.figures import Figure

    drawn = [maps] if isinstance(maps, HeatMap) else list(maps)
    width = max(map(map_width, drawn))
    heights = list(map(map_height, drawn))
    figure = Figure(figsize=(max(width, 5.0), sum(heights)), dpi=150, layout="constrained")
    places = figure.add_gridspec(len(drawn), 1, height_ratios=heights)
    for i, one in enumerate(drawn):
        place = places[i, 0]
        own = max(_NARROW, map_width(one))
        # a few columns are not drawn as wide as a prompt below them
        part = place.subgridspec(1, 2, width_ratios=[own, width - own])[0] if own < width / 2 else place
        draw_heatmap(one, figure.add_subplot(part))
    figure.put_notes(note for one in drawn for note in one.notes)
    return figure


def map_width(one: HeatMap) -> float:
    """Inches of a map with its names and its colour bar."""
    return 2.6 + _inches(len(one.drawn), _COLUMN)


def map_height(one: HeatMap) -> float:
    """Inches of a map with its title and its names."""
    return 1.0 + _inches(len(one.rows), _ROW) + _label_height(one)


def draw_heatmap(one: HeatMap, axes: Any) -> None:
    """One map on matplotlib axes, with its colour bar."""
    import numpy as np
    from matplotlib.colors import ListedColormap, Normalize

    shares = np.array([[row[c] for c in one.drawn] for row in one.shares]).reshape(len(one.rows), len(one.drawn))
    out = [i for i, c in enumerate(one.drawn) if c in one.hidden]
    shares[:, out] = np.nan
    colours = [blend(-i / 128) for i in range(128, 0, -1)] if one.signed else []
    colours += [blend(i / (128 if one.signed else 255)) for i in range(129 if one.signed else 256)]
    cmap = ListedColormap([tuple(c / 255 for c in colour) for colour in colours]).with_extremes(bad="white")
    norm = Normalize(-1 if one.signed else 0, 1)
    picture = axes.imshow(shares, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
    for i in out:
        axes.axvspan(i - 0.5, i + 0.5, color="#dddddd", linewidth=0)
    _name_axis(axes.yaxis, one.rows, _ROW)
    axes.set_ylabel(one.row_name, fontsize=8)
    _name_axis(axes.xaxis, [one.columns[c] for c in one.drawn], _COLUMN, rotation=0 if is_flat(one) else 90)
    for i, c in enumerate(one.drawn):
        if c in one.red and len(axes.get_xticklabels()) == len(one.drawn):
            axes.get_xticklabels()[i].set_color(RED)
    grey = f"; grey: left out ({len(out)})" if out else ""
    fold = "" if len(one.drawn) == len(one.columns) else f", the {len(one.drawn)} strongest of {len(one.columns)}"
    axes.set_xlabel(f"{one.column_name}{fold}{grey}", fontsize=8)
    axes.set_title(literal(fill(visible(one.title), int(_TITLE_LETTERS * max(_NARROW, map_width(one))))), fontsize=9)
    bar = axes.figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label(
        literal(fill(scaled_unit(one), _UNIT_LETTERS + 4 * len(one.rows), break_long_words=False)), fontsize=7
    )
    at, says = _ticks(one)
    bar.set_ticks(at, labels=says)
    bar.ax.tick_params(labelsize=7)


def _ticks(one: HeatMap) -> tuple[list[float], list[str]]:
    """Shares of the full colour at round values, and those values."""
    from matplotlib.ticker import MaxNLocator

    scale = one.colour_scale
    if scale.high <= 0:
        return [0.0], ["0"]
    if scale.log:
        decades = range(ceil(log10(scale.low)), ceil(log10(scale.high)) + 1)
        values = [10.0**k for k in decades if scale.low <= 10.0**k <= scale.high] or [scale.low, scale.high]
    else:
        ticks = map(float, MaxNLocator(5).tick_values(0.0, scale.high))
        values = [v for v in ticks if 0 < v <= scale.high * (1 + 1e-9)]
    at = [(scale.share(v), v) for v in values]
    both = [(-s, -v) for s, v in reversed(at)] + [(0.0, 0.0), *at] if one.signed else [(0.0, 0.0), *at]
    return [s for s, _ in both], [number(v) for _, v in both]


def _inches(n: int, each: float) -> float:
    """That so many cells take."""
    return min(each * n, _MOST)


def _points(n: int, each: float) -> tuple[float, int]:
    """The size of names that stand beside so many cells, and how many cells share one name."""
    room = 72 * _inches(n, each) / max(n, 1) / _LINE
    return min(_LARGE, max(_SMALL, room)), max(1, ceil(_SMALL / room))


def _name_axis(axis: Any, names: Sequence[str], each: float, rotation: int = 0) -> None:
    """Every name beside its cell; where they would stand on each other, every second or third."""
    size, step = _points(len(names), each)
    longest = LONGEST_ROW if axis.axis_name == "y" else LONGEST_LABEL
    axis.set_ticks(range(0, len(names), step), axis_names(names, longest)[::step], fontsize=size)
    for label in axis.get_ticklabels():
        label.set_rotation(rotation)


def _label_height(one: HeatMap) -> float:
    """Inches that the columns' names take when they stand upright."""
    size, _ = _points(len(one.drawn), _COLUMN)
    longest = max(map(len, cut_names([one.columns[c] for c in one.drawn])), default=0)
    return 0.3 if is_flat(one) else 0.2 + 0.065 * longest * size / _LARGE
