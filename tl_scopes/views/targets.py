"""The text of a matrix in which each explained token is a target to click: the text above takes the colours of its sources.

For matrices that explain a part of a text, an answer say, and for long ones; every other cell of the text is a source alone.
"""

from __future__ import annotations

from html import escape

from tl_scopes.results.attribution import Attribution
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.views.canvas.colours import RED, RGB, blend, css, inks
from tl_scopes.views.canvas.page import data_script
from tl_scopes.views.coloured import DIM
from tl_scopes.views.wording import named, number, percent, predicted, quoted, read_text, visible

_RAMP = 100
"""Steps between white and the colour of the highest score."""
MOST_SCORES = 300_000
"""Of a page: about two megabytes."""
_PREDICTED = 5


def can_be_clicked(attributions: AttributionMatrix) -> bool:
    """Are there targets whose places in the text are known, and not too many numbers for a page?"""
    return 0 < len(attributions) * len(attributions.tokens) <= MOST_SCORES and "axis" not in attributions.details


def clickable_text(attributions: AttributionMatrix, rows: list[Attribution], names: list[str]) -> str:
    """The text in the colours of the first target's sources, and what a script needs for the others."""
    of = {row.pos + 1: i for i, row in enumerate(rows)}
    steps = [_steps(row) for row in rows]
    ramp = [blend(step / _RAMP) for step in range(_RAMP + 1)]
    cells = [_cell(attributions, p, of.get(p), ramp[max(step, 0)], step >= 0) for p, step in enumerate(steps[0])]
    end = len(attributions.tokens)
    if end in of:
        name = (
            f'<b class="tls-target" data-row="{of[end]}" style="color:{RED}">→<bdi>{escape(names[of[end]])}</bdi></b>'
        )
        cells.append(f'<span title="what follows the text">{name}</span>')
    data = {
        "ramp": [inks(colour) for colour in ramp],
        "dim": DIM,
        "steps": [[step if step >= 0 else None for step in row] for row in steps],
        "scores": [[number(s) for s in row.scores[: row.pos + 1].tolist()] for row in rows],
        "says": [_says(row, name) for row, name in zip(rows, names, strict=True)],
    }
    return (
        '<div class="tls-pick"><div class="tls-tokens tls-ink"><div class="tls-static" tabindex="0" role="group" '
        'aria-label="text; arrow keys walk it, Enter shows the sources of an outlined token">'
        f'{"".join(cells)}</div></div><p class="tls-small tls-read" aria-live="polite">&nbsp;</p>'
        f'<p class="tls-small tls-says" aria-live="polite">{escape(_says(rows[0], names[0]))}</p>'
        f"{data_script(data, 'tls-pick-data')}</div>"
    )


def _steps(row: Attribution) -> list[int]:
    """Of the ramp, for each token; −1 for what is no source."""
    shown = set(row.shown)
    scores = row.scores.tolist()
    highest = max((scores[p] for p in shown), default=0.0) or 1.0
    return [round(_RAMP * max(score, 0.0) / highest) if p in shown else -1 for p, score in enumerate(scores)]


def _cell(attributions: AttributionMatrix, p: int, row: int | None, colour: RGB, source: bool) -> str:
    """One token; of a target with the number of its row."""
    text = attributions.str_tokens[p]
    kinds = ["tls-out"] * (p in attributions.hidden) + ["tls-explained"] * (row is not None)
    kinds += ["tls-picked"] * (row == 0)
    mark = f' class="{" ".join(kinds)}"' if kinds else ""
    target = "" if row is None else f' data-row="{row}"'
    shade, flip = inks(colour)[1:] if source else (DIM, "")
    flipped = f' data-flip="{flip}"' if flip else ""
    shown, after = escape(visible(text)), "<br>" if "\n" in text else ""
    return (
        f'<span style="background-color:{css(colour)}" title="{shown}&#10;position {p}">'
        f'<bdi data-pos="{p}"{target}{mark} style="color:{shade}"{flipped}>{shown}</bdi></span>{after}'
    )


def _says(row: Attribution, name: str) -> str:
    """What is said of a target that is chosen: its strongest sources, and what was predicted where it stands."""
    top = " · ".join(f"{named(t.str_token).strip()} {number(t.score)}" for t in row.top(5))
    words = " · ".join(f"{text.strip()} {percent(p)}" for text, p, _ in predicted(row, _PREDICTED))
    after = f" Predicted after {quoted(read_text(row))}: {words}." if words else ""
    return f"Sources of {name!r}: {top or 'none'}.{after}"
