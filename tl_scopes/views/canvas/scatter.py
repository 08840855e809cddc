"""Predicted against measured, with the identity line: a matplotlib figure, and a view whose points can be read out."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tl_scopes.views.canvas.figures import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.wording import number

KINDS = {
    "": ("as predicted", COLOURS[0], "o"),
    "size": ("size off", COLOURS[1], "s"),
    "sign": ("wrong sign", COLOURS[5], "X"),
    "joint": ("several tokens", COLOURS[2], "D"),
}
"""Label, colour and marker of each kind of point."""
MOST_NAMED = 12
"""Points that carry their token's text: the ones furthest out."""


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


@dataclass(frozen=True)
class Scatter:
    """What both renderers draw."""

    title: str
    unit: str
    caption: str
    points: tuple[Point, ...]
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Range of each axis, 0 included; they differ, or a prediction far too small would hide all points."""
        return _range([p.predicted for p in self.points]), _range([p.measured for p in self.points])

    @property
    def named(self) -> list[Point]:
        """Points that carry their text: single tokens first, the outer ones, as long as texts do not overlap."""
        (left, right), (low, high) = self.limits
        kept: list[Point] = []
        for p in sorted(self.points, key=lambda p: (p.mark == "joint", -p.size)):
            overlap = any(
                abs(p.measured - q.measured) < 0.045 * (high - low)
                and abs(p.predicted - q.predicted) < 0.16 * (right - left)
                for q in kept
            )
            if not overlap and len(kept) < MOST_NAMED:
                kept.append(p)
        return kept


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(*values, 0.0), max(*values, 0.0)
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, 0 among them, four to nine in the range."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def figure(scatter: Scatter) -> Any:
    """A matplotlib figure."""
    from tl_scopes.views.canvas.figures import Figure

    out = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = out.subplots()
    (left, right), (low, high) = scatter.limits
    axes.axline((0, 0), slope=1, color="#999999", linewidth=1, linestyle="--", label="measured = predicted")
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
    for p in scatter.named:
        axes.annotate(
            p.label.replace("$", r"\$"),
            (p.predicted, p.measured),
            (5, 4),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.set_xlabel(f"predicted to first order ({scatter.unit})")
    axes.set_ylabel(f"measured ({scatter.unit})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(scatter.title.replace("$", r"\$"), fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="best")
    out.supxlabel(scatter.caption, fontsize=8)
    return out


_SIDE, _EDGE = 420, 46
"""Side of the square plot and room for its labels, in SVG units."""


def view(scatter: Scatter, plain: Callable[[], str]) -> View:
    """The plot, the line that reads out the point under the mouse or the keyboard, its caption, and the table."""
    head = "".join(f'<th class="{_side(h)}">{html.escape(h)}</th>' for h in scatter.headers)
    lines = "".join(
        "<tr>"
        + "".join(
            f'<td class="{_side(h)}">{html.escape(value)}</td>' for h, value in zip(scatter.headers, row, strict=True)
        )
        + "</tr>"
        for row in scatter.rows
    )
    body = (
        f'<div class="tls tls-scatter">{heading(scatter.title)}{_svg(scatter)}'
        '<p class="tls-small tls-read" aria-live="polite">Point at a mark for its figures, or walk them by the arrow '
        f'keys.</p><p class="tls-small">{html.escape(scatter.caption)}</p><div class="tls-scroll">'
        f'<table class="tls-numbers"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></div>'
    )
    return View(scatter.title, body, plain)


def _side(header: str) -> str:
    return "tls-text" if header in ("token", "flag") else ""


def _svg(scatter: Scatter) -> str:
    (x0, x1), (y0, y1) = scatter.limits
    width, height = _SIDE + 2 * _EDGE + 60, _SIDE + 2 * _EDGE

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            round(_EDGE + (x - x0) / (x1 - x0) * _SIDE, 1),
            round(10 + (y1 - y) / (y1 - y0) * _SIDE, 1),
        )

    left, bottom = at(x0, y0)
    right, top = at(x1, y1)
    zero = at(0.0, 0.0)
    ends = [at(v, v) for v in (max(x0, y0), min(x1, y1))]
    parts = [
        f'<rect class="tls-axis" x="{left}" y="{top}" width="{_SIDE}" height="{_SIDE}"/>',
        f'<path class="tls-axis" d="M{zero[0]} {top}V{bottom}M{left} {zero[1]}H{right}"/>',
        f'<line class="tls-identity" x1="{ends[0][0]}" y1="{ends[0][1]}" x2="{ends[1][0]}" y2="{ends[1][1]}"/>',
        f'<text x="{left + _SIDE / 2}" y="{bottom + 34}" text-anchor="middle">predicted to first order '
        f"({html.escape(scatter.unit)}); dashed: measured = predicted</text>",
        f'<text transform="translate(10 {top + _SIDE / 2}) rotate(-90)" text-anchor="middle">measured '
        f"({html.escape(scatter.unit)})</text>",
    ]
    for value in ticks(x0, x1):
        parts.append(f'<text x="{at(value, 0.0)[0]}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>')
    for value in ticks(y0, y1):
        parts.append(f'<text x="{left - 4}" y="{at(0.0, value)[1] + 4}" text-anchor="end">{value:g}</text>')
    for p in scatter.points:
        x, y = at(p.predicted, p.measured)
        tip = f"{p.label}: predicted {number(p.predicted)}, measured {number(p.measured)}"
        tip += f" ({KINDS[p.more][0]})" if p.more else ""
        colour = KINDS[p.mark][1]
        parts.append(
            f'<g data-tip="{html.escape(tip)}"><title>{html.escape(tip)}</title><circle class="tls-hit" cx="{x}" '
            f'cy="{y}" r="12"/><circle cx="{x}" cy="{y}" r="5" fill="{colour}"/></g>'
        )
    for p in scatter.named:
        x, y = at(p.predicted, p.measured)
        parts.append(f'<text x="{x + 8}" y="{y - 5}">{html.escape(p.label)}</text>')
    used = [k for k in KINDS if any(p.mark == k for p in scatter.points)]
    for i, kind in enumerate(used):
        x = _EDGE + 118 * i
        parts.append(f'<circle cx="{x}" cy="{bottom + 48}" r="5" fill="{KINDS[kind][1]}"/>')
        parts.append(f'<text x="{x + 9}" y="{bottom + 52}">{KINDS[kind][0]}</text>')
    label = html.escape(f"{scatter.title}; {scatter.caption}")
    return (
        f'<svg class="tls-chart" tabindex="0" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
