"""Texts beside the points of a chart, where neither another point nor another text is.

All places and sizes are shares of the axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tl_scopes.views.wording import literal

LETTER, LINE = 0.0125, 0.032
"""Width of a letter and height of a line in axes of 6 by 5 inches."""
FEW_LETTERS = 24
"""Of a token's text in a picture; the rest is in the table."""
_POINT = 0.012
_SIDES = (
    (0.012, 0.0, "left", "center"),
    (-0.012, 0.0, "right", "center"),
    (0.0, 0.02, "center", "bottom"),
    (0.0, -0.02, "center", "top"),
)
"""Where a text may stand beside its point, and its alignment."""
Place = tuple[float, float]
Box = tuple[float, float, float, float]


def short(label: str) -> str:
    """A label as the picture has it."""
    return label if len(label) <= FEW_LETTERS else label[: FEW_LETTERS - 1] + "…"


def label_points(
    axes: Any,
    labels: Sequence[tuple[Place, str]],
    points: Iterable[Place],
    most: int,
    letter: float = LETTER,
    line: float = LINE,
) -> None:
    """Write the first ``most`` labels that have room; ``points`` are all places that texts keep off."""
    taken = [_box(x, y, _POINT, line / 2, "center", "center") for x, y in points]
    written = 0
    for (x, y), label in labels:
        for dx, dy, across, along in _SIDES if written < most else ():
            box = _box(x + dx, y + dy, letter * len(short(label)), line, across, along)
            inside = box[0] >= 0 and box[1] <= 1 and box[2] >= 0 and box[3] <= 1
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                written += 1
                axes.text(
                    x + dx, y + dy, literal(short(label)), fontsize=7, ha=across, va=along, transform=axes.transAxes
                )
                break


def _box(x: float, y: float, width: float, height: float, across: str, along: str) -> Box:
    """Left, right, bottom and top of what is aligned to a place."""
    left = x - width * {"left": 0, "center": 0.5, "right": 1}[across]
    bottom = y - height * {"bottom": 0, "center": 0.5, "top": 1}[along]
    return left, left + width, bottom, bottom + height


def _overlap(a: Box, b: Box) -> bool:
    return bool(a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3])
