"""A chain as text and as a figure: the path of the answer, the prompt's units with their shares, the steps between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tl_scopes.results.chain import Chain
from tl_scopes.results.chain_units import TextUnit
from tl_scopes.results.methods import legend
from tl_scopes.views.canvas.heatmap import HeatMap
from tl_scopes.views.canvas.heatmap_figure import heatmap_figure
from tl_scopes.views.rendering import plot, text
from tl_scopes.views.terminal import as_text
from tl_scopes.views.wording import linearised, percent, shortened, visible

MEANING = "Shares of squares, which add up to 1 whatever the model does, unless a row is all 0."
"""What is said of the numbers."""
MOST_LINES = 8
"""Prompt units, and steps, that the text names."""
NOT_ALL = 0.01
"""Of the answer's row: what special tokens must have for shares to be called those of the rest."""
FADED = 0.001
"""Share of the answer below which further hops are drawn no more."""
MOST_HOPS = 12
"""Hops that are drawn one by one."""


@text.register(Chain)
def chain_text(chain: Chain) -> str:
    """The path, the strongest units of the prompt, the steps that most of the influence passes."""
    return as_text(_lines(chain))


@plot.register(Chain)
def chain_figure(chain: Chain) -> Any:
    """Shares of the prompt's units, directly, by hops and in all; and what every step rests on."""
    first, *others = chain_maps(chain)
    return heatmap_figure([replace(first, notes=notes_of(chain)), *others])


def chain_title(chain: Chain) -> str:
    """Which scope, of what."""
    steps = ", ".join(str(u + 1) for u in chain.answer)
    where = f" (step {steps} of {len(chain.steps)})"
    return f"{scope_name(chain)}: what {shortened(chain.answer_text)!r}{where} rests on{linearised(chain.details)}"


def scope_name(chain: Chain) -> str:
    """The method as headings have it."""
    method = chain.method.replace("_", " ").capitalize()
    return legend(chain.method).title.split(":")[0].format(method=method)


def called(unit: TextUnit) -> str:
    """Its name, else its text."""
    return visible(unit.name) if unit.name else repr(shortened(unit.text))


def path_words(chain: Chain) -> str:
    """``' forest' ← step 2 ' that' 0.11 ← ' hears' 0.31``: the way with the largest product of shares."""
    if not chain.path:
        return "Nothing leads back to the prompt: all its shares are 0."
    said = [repr(shortened(chain.path[0].text))]
    for link in chain.path[1:]:
        unit = (chain.sources if link.part == "prompt" else chain.steps)[link.number]
        where = called(unit) if link.part == "prompt" else f"step {link.number + 1} {called(unit)}"
        said.append(f"{where} {link.share:.2f}")
    return " ← ".join(said)


def path_share(chain: Chain) -> float:
    """What the path has of the whole: the product of its shares."""
    product = 1.0
    for link in chain.path:
        product *= link.share
    return product if chain.path else 0.0


def about_path(chain: Chain) -> str:
    """What the path has of the whole; and the unit that has most over all paths, where it does not end there."""
    if not chain.path:
        return ""
    whole = "all that special tokens leave" if _on_special(chain) >= NOT_ALL else "all"
    said = f"The strongest single path; it has {percent(path_share(chain))} of {whole}."
    (most,) = chain.top(1)
    if most.number == chain.path[-1].number:
        return said
    return f"{said} Over all paths {called(chain.sources[most.number])} has most, {percent(most.share)}."


def drawn_hops(chain: Chain) -> list[int]:
    """Numbers of the hops that are drawn one by one: until what is left of the answer is hardly there."""
    few = replace(chain, hops=min(MOST_HOPS - 1, max(chain.answer) if chain.hops is None else chain.hops)).by_hop
    left = float(chain.total.sum()) - few.sum(dim=1).cumsum(0)
    until = next((k for k, rest in enumerate(left.tolist()) if rest < FADED), len(few) - 1)
    return list(range(until + 1))


def hop_name(k: int) -> str:
    """What a number of hops is called."""
    return "direct" if k == 0 else f"{k} hop{'s' * (k > 1)}"


def chain_maps(chain: Chain) -> list[HeatMap]:
    """Hop × prompt unit, and step × what it rests on."""
    hops = drawn_hops(chain)
    names = tuple(called(source) for source in chain.sources)
    by_hop = HeatMap(
        values=torch.cat([replace(chain, hops=hops[-1]).by_hop, chain.total[None]]),
        rows=(*map(hop_name, hops), "all hops"),
        columns=names,
        title=chain_title(chain),
        unit="share of the answer",
        row_name="hops",
        column_name="prompt unit",
        scale="linear",
    )
    steps = tuple(f"{u + 1} {shortened(step.text, 14)}" for u, step in enumerate(chain.steps))
    links = HeatMap(
        values=torch.cat([chain.from_prompt, chain.graph], dim=1),
        rows=steps,
        columns=(*names, *(f"step {name}" for name in steps)),
        title="What each step rests on: units of the prompt, and earlier steps",
        unit="share of the step",
        row_name="step",
        column_name="source",
        scale="linear",
    )
    return [by_hop, links]


def notes_of(chain: Chain) -> tuple[str, ...]:
    """Its notes, and which steps lead nowhere."""
    reached = chain.through + chain.weights.double()
    if not (steps := [u for u in chain.rootless if reached[u] > 0]):
        return chain.notes
    several = len(steps) > 1
    said = ", ".join(str(u + 1) for u in steps[:MOST_LINES]) + ", …" * (len(steps) > MOST_LINES)
    return (
        *chain.notes,
        f"No unit before step{'s' * several} {said} has a share in {'them' if several else 'it'}, so nothing leads on from "
        f"there, and the shares of the prompt add up to {float(chain.total.sum()):.2g}.",
    )


def _on_special(chain: Chain) -> float:
    """What special tokens had of the answer's row."""
    return float(chain.weights.double() @ chain.special_share)


def left_out(chain: Chain) -> str:
    """What was taken out of the rows before they add up to 1, of the answer's own."""
    own = float(chain.weights.double() @ chain.self_share)
    return (
        f"Left out of the answer's row: special tokens, {percent(_on_special(chain))} of it, and of the rest its own "
        f"earlier tokens, {percent(own)}."
    )


def _lines(chain: Chain) -> RenderableType:
    parts: list[RenderableType] = [Text(chain_title(chain), "bold"), Padding(Text(path_words(chain)), (0, 2))]
    if chain.path:
        parts.append(Text(about_path(chain), "dim"))
    parts += [Padding(table, (0, 2)) for table in (_sources(chain), _steps(chain)) if table.row_count]
    if any(source.name for source in chain.sources):
        named = ", ".join(f"{visible(name)} {percent(share)}" for name, share in chain.shares().items())
        parts.append(Padding(Text(f"All hops, by name: {named}."), (0, 2)))
    parts.append(Text(f"{MEANING} {left_out(chain)}", "dim"))
    return Group(*parts, *(Padding(Text(note, "yellow"), (0, 2)) for note in notes_of(chain)))


def _table(*heads: str) -> Table:
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads[:-1]:
        found.add_column(head, justify="right", no_wrap=True)
    found.add_column(heads[-1], no_wrap=True)
    return found


def _sources(chain: Chain) -> Table:
    found, direct = _table("all hops", "direct", "prompt"), chain.direct.tolist()
    for source in chain.top(MOST_LINES):
        unit = chain.sources[source.number]
        said = unit.name.split() != unit.text.split()
        name = Text(f"{visible(unit.name)} ", "dim") if unit.name and said else Text()
        found.add_row(percent(source.share), percent(direct[source.number]), name + Text(shortened(unit.text)))
    return found


def _steps(chain: Chain) -> Table:
    """The steps that most of the influence passes."""
    found, through = _table("passes it", "direct", "step"), chain.through.tolist()
    direct = (chain.weights.double() @ chain.graph).tolist()
    for u in sorted(range(len(through)), key=lambda u: (-through[u], u))[:MOST_LINES]:
        if through[u] > 0:
            name = Text(f"{u + 1} ", "dim")
            found.add_row(percent(through[u]), percent(direct[u]), name + Text(shortened(chain.steps[u].text)))
    return found
