"""Names beside rows, columns and bars, cut where a whole sentence would take the picture's room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tl_scopes.results.words import characters
from tl_scopes.views.canvas.colours import RED
from tl_scopes.views.wording import literal, named, visible

MOST_LABELS = 120
"""Tokens up to which a chart with a place for each of them names them all."""
MOST_NAMED = 16
"""Names of a chart that has more."""
_ROOM = 0.15
"""Inches from name to name."""
LONGEST_LABEL, LONGEST_ROW = 18, 32
"""Characters of the name of a column, which may stand upright, and of a row, that a matplotlib picture shows."""


def cut_names(texts: Sequence[str], longest: int = LONGEST_LABEL) -> list[str]:
    """Names cut to a length: those that begin alike in their middle; those that end alike, too, are numbered."""
    each = dict.fromkeys(texts)
    cut = {text: _cut(text, longest) for text in each}
    times = Counter(cut.values())
    cut = {text: _cut(text, longest, times[name] > 1) for text, name in cut.items()}
    times, seen = Counter(cut.values()), Counter[str]()
    for text, name in cut.items():
        seen[name] += 1
        if times[name] > 1 and name != named(text):
            cut[text] = _cut(text, longest - 4, True) + f" ({seen[name]})"
    return [cut[text] for text in texts]


def axis_names(texts: Sequence[str], longest: int = LONGEST_LABEL) -> list[str]:
    """:func:`cut_names` that matplotlib does not take for formulas."""
    return [literal(name) for name in cut_names(texts, longest)]


def apart(places: Sequence[int], room: float) -> list[int]:
    """Of places on an axis, in the order of their weight, those that are so many steps from all before them; in order."""
    chosen: list[int] = []
    for place in places:
        if all(abs(place - other) >= room for other in chosen):
            chosen.append(place)
    return sorted(chosen)


def name_some(axis: Any, texts: Sequence[str], first: Sequence[int], red: Iterable[int], inches: float) -> None:
    """Names below a chart with a place for each of many texts: of all, or of the first that have room, some in red."""
    n, red = len(texts), frozenset(red)
    places = range(n) if n <= MOST_LABELS else apart(first[:MOST_NAMED], _ROOM * n / inches)
    axis.set_ticks(places, axis_names([texts[p] for p in places]), rotation=90, fontsize=7)
    for p, label in zip(places, axis.get_ticklabels(), strict=True):
        if p in red:
            label.set_color(RED)


def _cut(text: str, longest: int, middle: bool = False) -> str:
    """One name, at its end or in its middle."""
    shown = named(text)
    if len(characters(shown)) <= longest:
        return shown
    shown = visible(text.strip())  # the space before a sentence is none of its name
    read = characters(shown)
    if len(read) <= longest:
        return shown
    if middle:
        half = longest // 2
        return "".join([*read[: longest - 1 - half], "…", *read[-half:]])
    end = "…" + read[0] * (read[0] in "'\"" and read[0] == read[-1])  # a quotation is closed
    return "".join(read[: longest - len(end)]) + end
