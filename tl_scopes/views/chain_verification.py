"""Verification of a chain: the sentence, and what was written each time."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

from tl_scopes.results.chain_verification import ChainVerification
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import literal, shortened, visible

_TITLE = "Written again without what the answer rests on"
_LETTERS = 110
GREY = "#999999"


@text.register(ChainVerification)
def verification_text(result: ChainVerification) -> str:
    """The sentence."""
    return result.sentence


@view.register(ChainVerification)
def verification_view(result: ChainVerification) -> View:
    """The sentence, and a table of all that was written."""
    said = f'<p class="tls-small">{escape(visible(result.sentence))}</p>'
    rows = result.to_frame()
    rows["changed"] = ["yes" if changed else "no" for changed in rows["changed"]]
    body = f'<div class="tls tls-report">{heading(_TITLE)}{said}{table(rows)}</div>'
    return View(_TITLE, body, lambda: str(result))


@plot.register(ChainVerification)
def verification_figure(result: ChainVerification) -> Any:
    """One line for each text: what was taken out, and what was written then; coloured where the answer is gone."""
    from tl_scopes.views.canvas.figures import Figure

    rows = list(result.to_frame().itertuples(index=False))
    lines = [
        (line, COLOURS[0] if row.removed == "strongest" else GREY if not row.changed else "#1a1a1a", row.changed)
        for row in rows
        for line in wrap(f"{row.removed} {shortened(row.units)!r}: {shortened(row.text, 90)}", _LETTERS) or [""]
    ]
    heads = wrap(visible(result.sentence), _LETTERS)
    figure = Figure(figsize=(9.0, 0.5 + 0.2 * (len(lines) + len(heads))), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(len(lines), -0.5))
    axes.set_axis_off()
    axes.set_title(literal("\n".join(heads)), fontsize=8, loc="left")
    for y, (line, colour, changed) in enumerate(lines):
        axes.text(0.0, y, literal(line), color=colour, fontsize=7, va="top", weight="bold" if changed else "normal")
    return figure
