"""What a model wrote: the prompt, and behind it the answer."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

from tl_scopes.results.generation import Generation
from tl_scopes.views.canvas.colours import RED
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import literal, visible

_TITLE = "What the model wrote"
_LINE, _LETTERS = 0.2, 88
"""Inches of a line, and letters that fit on it."""
_WHY = {"length": "as many as were asked for", "eos": "until its end-of-sequence token", "stop": "until a stop string"}


@view.register(Generation)
def generation_view(result: Generation) -> View:
    """Both texts as one, the answer red."""
    body = (
        f'<div class="tls">{heading(_TITLE)}<p class="tls-generated"><bdi>{_shown(result.prompt)}</bdi>'
        f'<b><bdi>{_shown(result.answer)}</bdi></b></p><p class="tls-small">{_summary(result)}</p></div>'
    )
    return View(_TITLE, body, lambda: result.answer)


@plot.register(Generation)
def generation_figure(result: Generation) -> Any:
    """The same texts as a matplotlib figure."""
    from tl_scopes.views.canvas.figures import Figure

    blocks = [wrap(literal(visible(part)), _LETTERS) or [""] for part in (result.prompt, result.answer)]
    figure = Figure(figsize=(9.0, 0.6 + _LINE * sum(map(len, blocks))), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(sum(map(len, blocks)), -0.5))
    axes.set_axis_off()
    axes.set_title(f"{_TITLE}: {_summary(result)}", fontsize=9, loc="left")
    for lines, y, colour in ((blocks[0], 0, "#444444"), (blocks[1], len(blocks[0]), RED)):
        for i, line in enumerate(lines):
            axes.text(0.0, y + i, line, color=colour, fontsize=8, va="top")
    return figure


@text.register(Generation)
def generation_text(result: Generation) -> str:
    """The answer."""
    return result.answer


def _summary(result: Generation) -> str:
    return f"{len(result.answer_positions)} tokens after {result.answer_start}, {_WHY[result.stopped]}"


def _shown(part: str) -> str:
    """Lines as lines; what else cannot be seen, by its mark."""
    return "\n".join(escape(visible(line)) for line in part.split("\n"))
