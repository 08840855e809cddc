"""Predicted against measured, with the identity line, for every result that compares the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.labels import label_points
from tl_scopes.views.canvas.page import View, heading, noted
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
"""Points that carry their token's text: the ones furthest out; those of several tokens do besides."""
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
    notes: tuple[str, ...] = ()

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Range of each axis, 0 included; they differ, or a prediction far too small would hide all points.

        Where one is not far wider than the other it takes that in, so that the line of equal values goes through the picture.
        """
        predicted, measured = _range([p.predicted for p in self.points]), _range([p.measured for p in self.points])
        return _taken_in(predicted, measured), _taken_in(measured, predicted)


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(*values, 0.0), max(*values, 0.0)
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def _taken_in(own: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    both = min(own[0], other[0]), max(own[1], other[1])
    return both if both[1] - both[0] <= _WIDER * (own[1] - own[0]) else own


def scatter_figure(scatter: Scatter, *, notes: bool = True) -> Any:
    """A matplotlib figure; a page has title, caption and notes of its own."""
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

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - left) / (right - left), (y - low) / (high - low)

    line = [left + i * (right - left) / _STEPS for i in range(_STEPS + 1)]
    ranked = sorted(scatter.points, key=lambda p: (p.mark != "joint", -p.size))
    label_points(
        axes,
        [(at(p.predicted, p.measured), p.label) for p in ranked],
        [*(at(p.predicted, p.measured) for p in scatter.points), *(at(v, v) for v in line)],
        MOST_NAMED + sum(p.mark == "joint" for p in scatter.points),
    )
    for p in scatter.points:
        out.say(axes, p.says, p.predicted, p.measured)
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.set_xlabel(f"predicted from the gradient ({scatter.unit})")
    axes.set_ylabel(f"measured ({scatter.unit})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(literal(scatter.title) if notes else "", fontsize=9)
    out.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=7)
    out.put_notes((scatter.caption, *scatter.notes) if notes else ())
    return out


def scatter_view(scatter: Scatter, plain: Callable[[], str]) -> View:
    """The figure, its caption, and the table."""
    drawn = scatter_figure(scatter, notes=False).chart(f"{scatter.title}; {scatter.caption}")
    notes = noted(scatter.notes)
    body = (
        f'<div class="tls">{heading(scatter.title)}{drawn}'
        f'<p class="tls-small">{escape(scatter.caption)}</p>{notes}{table(scatter.rows)}</div>'
    )
    return View(scatter.title, body, plain)
