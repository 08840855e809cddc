"""Names beside rows, columns and bars, cut where a whole sentence would take the picture's room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tl_scopes.results.words import characters
from tl_scopes.views.wording import literal, named, visible

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
