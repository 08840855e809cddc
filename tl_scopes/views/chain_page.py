"""A chain as a page: the units of the text as cards with their shares, arcs to what they rest on, a slider over hops.

The cards as they stand in the file show all hops of the answer; the script shows any hops, of any step that is pointed at,
from the rows of the graph. Of a row, shares below a quarter of a thousandth are left off, and all but the largest of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_scopes.results.chain import Chain
from tl_scopes.results.chain_units import TextUnit
from tl_scopes.views.canvas.colours import blend, css, ink_attributes, inks
from tl_scopes.views.canvas.page import View, data_script, heading, noted
from tl_scopes.views.chain import MEANING, about_path, chain_title, drawn_hops, hop_name, left_out, notes_of, path_words
from tl_scopes.views.rendering import view
from tl_scopes.views.wording import in_lines, percent, visible

_STEPS = 100
"""Colours of the ramp."""
_FINEST = 20_000
"""Shares are sent to the page in parts of this."""
MOST_LINKS = 48
"""Sources of one row that are sent to the page."""
WORD = 16
"""Mean letters of units below which they are shown as words."""
MANY = 400
"""Cards from which on rows are thinned further."""
_MEANING = f"Numbers: shares of what is pointed at; colours and bars on the scale of the largest. {MEANING}"
_READ = (
    '<p class="tls-small tls-read" aria-live="polite">Point at a step, or walk the cards by the arrow keys: its sources '
    "light up. Elsewhere those of the answer do.</p>"
)


@view.register(Chain)
def chain_view(chain: Chain) -> View:
    """The path in words, the slider, the cards with the line that stays in sight beside them, and over nothing else."""
    notes = noted(notes_of(chain))
    body = (
        f'<div class="tls tls-steps">{heading(chain_title(chain))}'
        f'<p class="tls-small"><b><bdi>{escape(path_words(chain))}</bdi></b> <bdi>{escape(about_path(chain))}</bdi></p>'
        f"{_names(chain)}{notes}"
        f"{_slider(chain)}<div>{_cards(chain)}{_READ}</div>"
        f'<p class="tls-small">{escape(f"{_MEANING} {left_out(chain)}")}</p>'
        f"{data_script(_data(chain), 'tls-steps-data')}</div>"
    )
    return View(chain_title(chain), body, lambda: str(chain))


def _names(chain: Chain) -> str:
    """The prompt's documents or turns."""
    if not any(source.name for source in chain.sources):
        return ""
    said = ", ".join(f"<bdi>{escape(visible(n))}</bdi> <b>{percent(s)}</b>" for n, s in chain.shares().items())
    return f'<p class="tls-small">All hops, by name: {said}.</p>'


def _slider(chain: Chain) -> str:
    """Direct, one hop, … and, last, all of them."""
    last = len(drawn_hops(chain))
    return (
        f'<p class="tls-slider"><label>Hops: <output>all hops</output> <input type="range" min="0" max="{last}" step="1" '
        f'value="{last}" aria-valuetext="all hops" disabled></label></p>'
    )


def _cards(chain: Chain) -> str:
    """Units of the prompt, then steps, in one list that arrow keys walk."""
    direct, total = (chain.weights.double() @ chain.graph).tolist(), chain.total.tolist()
    through, from_prompt = chain.through.tolist(), chain.direct.tolist()
    largest = max([*total, *through]) or 1.0
    small = _small(chain.sources)
    cards = []
    for q, source in enumerate(chain.sources):
        said = f"all hops {percent(total[q])}, direct {percent(from_prompt[q])}"
        cards.append(_card(source, f"prompt {q + 1}", said, total[q], total[q] / largest, small=small))
    cards.append('<span class="tls-unit tls-between"><b class="tls-target">written</b></span>')
    small = _small(chain.steps)
    for u, step in enumerate(chain.steps):
        said = f"{percent(through[u])} of the answer passes it, direct {percent(direct[u])}"
        goal = u in chain.answer
        cards.append(_card(step, f"step {u + 1}", said, through[u], through[u] / largest, small=small, goal=goal))
    return (
        '<div class="tls-tokens tls-units"><svg class="tls-arcs" aria-hidden="true"></svg><div class="tls-static" '
        f'tabindex="0" role="group" aria-label="units; arrow keys walk them">{"".join(cards)}</div></div>'
    )


def _small(units: Sequence[TextUnit]) -> bool:
    """Are they words, which stand behind each other without bars?"""
    return sum(len(unit.text) for unit in units) < WORD * len(units) and not any(unit.name for unit in units)


def _card(
    unit: TextUnit, number: str, tip: str, share: float, colour: float, *, small: bool, goal: bool = False
) -> str:
    """One unit; colour and bar are on the scale of the largest share."""
    name = f" {escape(visible(unit.name))}" if unit.name else ""
    paper = blend(round(min(max(colour, 0.0), 1.0) * _STEPS) / _STEPS)
    kinds = ["tls-unit", *["tls-chip"] * small, *["tls-goal"] * goal]
    said = (
        f'<span class="tls-said tls-ink" style="background-color:{css(paper)}">'
        f"<bdi {ink_attributes(paper)}>{escape(in_lines(unit.text))}</bdi></span>"
    )
    if not small:
        bar = f'<span class="tls-track"><span class="tls-bar" style="width:{100 * colour:.1f}%"></span></span>'
        part = f'<span class="tls-part">{bar}<span>{percent(share)}</span></span>'
        said = f'<b class="tls-name"><bdi>{number}{name}</bdi></b>{said}{part}'
    return f'<span class="{" ".join(kinds)}" title="{number}{name}&#10;{escape(tip)}">{said}</span>'


def _data(chain: Chain) -> dict[str, Any]:
    """Rows of the graph, the answer, the names of hops, the colours."""
    most = MOST_LINKS if len(chain.steps) + len(chain.sources) <= MANY else MOST_LINKS // 3
    return {
        "sources": len(chain.sources),
        "prompt": [_sparse(row, most) for row in chain.from_prompt],
        "earlier": [_sparse(row, most) for row in chain.graph],
        "answer": [[u, float(chain.weights[u])] for u in chain.answer],
        "hops": [hop_name(k) for k in drawn_hops(chain)],
        "finest": _FINEST,
        "ramp": [inks(blend(s / _STEPS)) for s in range(_STEPS + 1)],
    }


def _sparse(row: Float[Tensor, " source"], most: int) -> list[int]:
    """Its largest shares as ``[place, parts, place, parts, …]``."""
    largest = row.topk(min(most, len(row)))
    parts = (_FINEST * largest.values).round().int()
    kept = sorted(zip(largest.indices[parts > 0].tolist(), parts[parts > 0].tolist(), strict=True))
    return [n for pair in kept for n in pair]
