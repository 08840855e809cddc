"""A split as a page, a figure and text: exact, carried and looked at, side by side by token, by layer and by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tl_scopes.results.methods import legend
from tl_scopes.results.split import Split
from tl_scopes.results.written import minus
from tl_scopes.views.attribution import compare
from tl_scopes.views.canvas.heatmap import HeatMap, compared, map_table
from tl_scopes.views.canvas.heatmap_figure import draw_heatmap, map_height, map_width
from tl_scopes.views.canvas.page import View, heading, noted
from tl_scopes.views.influence import influence_maps
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.terminal import as_text, in_line
from tl_scopes.views.wording import entry, number, title, unit, visible

NAMES = ("exact", "carried", "looked")
"""Of the three, on the page."""
_MEANING = (
    "carried: with attention frozen, through values alone; looked: the difference of the gradients, through patterns."
)
MOST_TOKENS = 8
"""That the text names."""
LEAST_ABREAST = 2.2
"""Inches of maps beside each other, for their colour bars."""


@view.register(Split)
def split_view(result: Split) -> View:
    """What is carried and looked at in words, maps by token, the coloured text, maps by layer and by head."""
    of_heads = head_maps(result)
    said = "".join(f'<p class="tls-small">{escape(line)}</p>' for line in (*split_sentences(result), _MEANING))
    notes = noted(result.notes)
    parts = [
        f'<div class="tls">{heading(split_title(result))}{said}{notes}</div>',
        *map(_one, token_maps(result)),
        compare(dict(zip(NAMES, result.parts.values(), strict=True))).body,
        *map(_one, layer_maps(result)),
    ]
    if of_heads:
        parts.append(f'<div class="tls tls-abreast">{"".join(map(_one, of_heads))}</div>')
    return View(split_title(result), "\n".join(parts), lambda: str(result))


def _one(one: HeatMap) -> str:
    return f'<div class="tls">{heading(one.title)}{map_table(one)}</div>'


@plot.register(Split)
def split_figure(result: Split) -> Any:
    """The maps below each other, those by head beside each other."""
    from tl_scopes.views.canvas.figures import Figure

    below, beside = [*token_maps(result), *layer_maps(result)], head_maps(result)
    heights = [map_height(one) for one in below] + [max(map_height(one), LEAST_ABREAST) for one in beside[:1]]
    width = max(map_width(below[0]), 2.2 + sum(map_width(one) - 1.4 for one in beside))
    figure = Figure(figsize=(width, sum(heights)), dpi=150, layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for i, one in enumerate(below):
        draw_heatmap(one, figure.add_subplot(grid[i, 0]))
    if beside:
        row = grid[len(below), 0].subgridspec(1, len(beside))
        for i, one in enumerate(beside):
            draw_heatmap(one, figure.add_subplot(row[0, i]))
    figure.put_notes((*result.notes, *result.exact.notes))
    return figure


@text.register(Split)
def split_text(result: Split) -> str:
    """The sentences, the strongest tokens, and the share that is carried from each layer on."""
    return as_text(_lines(result))


def split_title(result: Split) -> str:
    """Which scope, of what."""
    name = title(result.exact).split(":")[0]
    of = "" if result.target_str is None else f" of {visible(result.target_str)!r}"
    return f"{name}{of}: carried, or looked at?"


def split_sentences(result: Split) -> list[str]:
    """The shares, how long each part is beside the whole, and the signed sum where there is one."""
    carried, looked = result.share_carried, result.share_looked
    if carried != carried:
        return ["The exact influence on the shown tokens is 0: there is no share to give."]
    squares = legend(result.method).additive
    scores = [part.scores[result.shown].double() for part in result.parts.values()]
    sizes = [float(s.sum().sqrt() if squares else torch.linalg.vector_norm(s)) for s in scores]
    opposed = " The two work against each other." if min(carried, looked) < -0.0005 else ""
    lines = [
        f"Of the {'' if squares else 'squared '}influence {_share(carried)} is carried through values and {_share(looked)} "
        f"goes through where the model looks.{opposed} Over the shown tokens the parts are {number(sizes[1] / sizes[0])} and "
        f"{number(sizes[2] / sizes[0])} times as long as the whole; lengths do not add."
    ]
    if result.signed is not None:
        whole, frozen, difference = (float(values[result.shown].double().sum()) for values in result.signed)
        sign = "−" if difference < 0 else "+"
        lines.append(
            f"Signed, activation times gradient over the shown tokens: {number(whole)} = {number(frozen)} carried "
            f"{sign} {number(abs(difference))} looked."
        )
    return lines


def token_maps(result: Split) -> list[HeatMap]:
    """The three by token, on one scale; and the signed numbers, where there are."""
    columns = list(range(result.pos + 1))
    scores = torch.stack([part.scores for part in result.parts.values()])
    base = HeatMap(
        values=scores[:, columns],
        rows=NAMES,
        columns=tuple(result.str_tokens[p] for p in columns),
        title=f"By {entry(result.exact.details)}",
        unit=unit(result.exact),
        row_name="gradient",
        column_name=entry(result.exact.details),
        hidden=frozenset(p for p in columns if p in result.exact.hidden),
        explained=result.pos,
    )
    if result.signed is None:
        return [base]
    signed = replace(
        base,
        values=result.signed[:, columns],
        title=f"By {entry(result.exact.details)}, signed: activation times gradient, whose rows add",
        unit=_measure(result),
        signed=True,
    )
    return [base, signed]


def layer_maps(result: Split) -> list[HeatMap]:
    """Each of the three, layer × token, on one scale."""
    return _named("layer", [influence_maps(one)[0] for one in result.by_layer.values()])


def head_maps(result: Split) -> list[HeatMap]:
    """Each of the three, layer × head, on one scale; none where there are no heads."""
    return _named("head", [influence_maps(one)[0] for one in result.by_head.values()])


def _named(by: str, maps: Sequence[HeatMap]) -> list[HeatMap]:
    """With titles that stand side by side; what there is to note is said once, above."""
    return compared([replace(one, title=f"By {by}: {name}", notes=()) for name, one in zip(NAMES, maps, strict=False)])


def _measure(result: Split) -> str:
    return unit(result.exact).split(" per ")[0]


def _share(value: float) -> str:
    return minus(f"{value:.1%}")


def _lines(result: Split) -> RenderableType:
    carried: Sequence[float] = result.share_by_layer.tolist()
    parts: list[RenderableType] = [Text(split_title(result), "bold")]
    parts += [Padding(Text(line), (0, 2)) for line in split_sentences(result)]
    parts += [_table(result), Text(f"{_MEANING} Score: {unit(result.exact)}.", "dim")]
    layers = zip(result.by_layer["exact"].layers, carried, strict=True)
    said = ", ".join(f"{name} {'–' if share != share else _share(share)}" for name, share in layers)
    parts.append(Padding(Text(f"Carried from each layer on: {said}."), (0, 2)))
    notes = dict.fromkeys((*result.notes, *result.exact.notes))
    return Group(*parts, *(Padding(Text(note, "yellow"), (0, 2)) for note in notes))


def _table(result: Split) -> Table:
    """The tokens with the largest exact scores."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
    found.add_column(entry(result.exact.details), no_wrap=True)
    signed = [] if result.signed is None else [f"signed {name}" for name in NAMES]
    for name in (*NAMES, *signed):
        found.add_column(name, justify="right")
    for token in result.exact.top(MOST_TOKENS):
        values = [float(part.scores[token.pos]) for part in result.parts.values()]
        values += [] if result.signed is None else result.signed[:, token.pos].tolist()
        found.add_row(f"{in_line(result.exact.details, token.str_token)} ({token.pos})", *map(number, values))
    return found
