"""Predicted against measured, with the identity line, for every result that compares the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.wording import literal, number

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "": ("as predicted", COLOURS[0], "o"),
    "size": ("size off", COLOURS[1], "s"),
    "sign": ("wrong sign", COLOURS[5], "X"),
    "joint": ("several tokens", COLOURS[2], "D"),
}
"""Label, colour and marker of each kind of point."""
MOST_NAMED = 12
"""Points that carry their token's text: the ones furthest out."""
_LETTER, _LINE = 0.0125, 0.032
"""Width of a letter and height of a line, as shares of the axes."""
_SIDES = (
    (0.012, 0.0, "left", "center"),
    (-0.012, 0.0, "right", "center"),
    (0.0, 0.02, "center", "bottom"),
    (0.0, -0.02, "center", "top"),
)
"""Where a text may stand beside its point: shares of the axes, and its alignment."""
_FEW_LETTERS = 24
"""Of a token's text in the picture; the rest is in the table."""
_STEPS = 100
"""Places of the line that texts keep off."""
_WIDER = 2.5
"""Times that an axis may be widened to take the other one in."""


@dataclass(frozen=True)
class Point:
    """One intervention."""

    predicted: float
    measured: float
    label: str
    mark: str
    more: str = ""

    @property
    def size(self) -> float:
        """How far out it lies."""
        return max(abs(self.predicted), abs(self.measured))

    @property
    def says(self) -> str:
        """Its figures in words."""
        flag = f" ({KINDS[self.more][0]})" if self.more else ""
        return f"{self.label}: predicted {number(self.predicted)}, measured {number(self.measured)}{flag}"


@dataclass(frozen=True, eq=False)
class Scatter:
    """What is drawn, and the table below it."""

    title: str
    unit: str
    caption: str
    points: tuple[Point, ...]
    rows: pd.DataFrame

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Range of each axis, 0 included; they differ, or a prediction far too small would hide all points.

        Where one is not far wider than the other it takes that in, so that the line of equal values goes through the picture.
        """
        predicted, measured = _range([p.predicted for p in self.points]), _range([p.measured for p in self.points])
        return _taken_in(predicted, measured), _taken_in(measured, predicted)

    @property
    def named(self) -> list[tuple[Point, tuple[float, float, str, str]]]:
        """Points that carry their text, with its side: single tokens first, the outer ones, where no text or point is."""
        (left, right), (low, high) = self.limits

        def at(p: Point) -> tuple[float, float]:
            return (p.predicted - left) / (right - left), (p.measured - low) / (high - low)

        line = [Point(v, v, "", "") for v in (left + i * (right - left) / _STEPS for i in range(_STEPS + 1))]
        taken = [_box(*at(p), 0.012, _LINE / 2, "center", "center") for p in (*self.points, *line)]
        kept: list[tuple[Point, tuple[float, float, str, str]]] = []
        for p in sorted(self.points, key=lambda p: (p.mark == "joint", -p.size)):
            for side in _SIDES if len(kept) < MOST_NAMED else ():
                (x, y), width = at(p), _LETTER * len(short(p.label))
                box = _box(x + side[0], y + side[1], width, _LINE, *side[2:])
                inside = box[0] >= 0 and box[1] <= 1 and box[2] >= 0 and box[3] <= 1
                if inside and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    kept.append((p, side))
                    break
        return kept


def short(label: str) -> str:
    """A label as the picture has it."""
    return label if len(label) <= _FEW_LETTERS else label[: _FEW_LETTERS - 1] + "…"


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(*values, 0.0), max(*values, 0.0)
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def _taken_in(own: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    both = min(own[0], other[0]), max(own[1], other[1])
    return both if both[1] - both[0] <= _WIDER * (own[1] - own[0]) else own


def _box(x: float, y: float, width: float, height: float, across: str, along: str) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what is aligned to a place."""
    left = x - width * {"left": 0, "center": 0.5, "right": 1}[across]
    bottom = y - height * {"bottom": 0, "center": 0.5, "top": 1}[along]
    return left, left + width, bottom, bottom + height


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def scatter_figure(scatter: Scatter) -> Any:
    """A matplotlib figure."""
    from tl_scopes.views.canvas.figures import Figure

    out = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = out.subplots()
    (left, right), (low, high) = scatter.limits
    axes.axline((0, 0), slope=1, color="#444444", linewidth=1.4, linestyle="--", label="measured = predicted")
    axes.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#dddddd", linewidth=0.8, zorder=0)
    for kind, (label, colour, marker) in KINDS.items():
        chosen = [p for p in scatter.points if p.mark == kind]
        if chosen:
            axes.scatter(
                [p.predicted for p in chosen],
                [p.measured for p in chosen],
                color=colour,
                marker=marker,
                s=34,
                label=label,
                linewidths=0,
                zorder=3,
            )
    for p, (x, y, across, along) in scatter.named:
        place = (p.predicted + x * (right - left), p.measured + y * (high - low))
        axes.text(*place, literal(short(p.label)), fontsize=7, ha=across, va=along)
    for p in scatter.points:
        out.say(axes, p.says, p.predicted, p.measured)
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.set_xlabel(f"predicted to first order ({scatter.unit})")
    axes.set_ylabel(f"measured ({scatter.unit})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(literal(scatter.title), fontsize=9)
    out.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=7)
    out.supxlabel(scatter.caption, fontsize=8)
    return out


def scatter_view(scatter: Scatter, plain: Callable[[], str]) -> View:
    """The figure, its caption, and the table."""
    drawn = scatter_figure(scatter)
    drawn.axes[0].set_title("")
    drawn.supxlabel("")
    body = (
        f'<div class="tls">{heading(scatter.title)}{drawn.chart(f"{scatter.title}; {scatter.caption}")}'
        f'<p class="tls-small">{escape(scatter.caption)}</p>{table(scatter.rows)}</div>'
    )
    return View(scatter.title, body, plain)
