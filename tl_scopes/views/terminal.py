"""Attributions in a terminal: tokens on a background whose depth is the score.

The colour of a token is its score on the scale of the other pictures, from light to full blue; of signed scores it is
orange below 0. The predicted token is red. Special tokens and hidden tokens are dim and without colour unless shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tl_scopes.results.attribution import Attribution
from tl_scopes.results.units import kind_of
from tl_scopes.views.blocks import in_blocks, measured, name, said, strongest_of
from tl_scopes.views.canvas.colours import Scale
from tl_scopes.views.coloured import cells, ranked, scale_of, values_of
from tl_scopes.views.wording import (
    about_score,
    explained_scalar,
    explained_tokens,
    marks_target,
    named,
    number,
    odds_in_title,
    percent,
    plus,
    predicted,
    prompt_and_answer,
    read_after,
    said_together,
    shares,
    shortened,
    title,
    unit,
    visible,
)

LIGHT, DARK = (222, 235, 247), (8, 69, 148)
"""Ends of a single-hue blue ramp (ColorBrewer Blues), legible with any colour vision."""
LIGHT_BELOW, DARK_BELOW = (254, 230, 206), (140, 45, 4)
"""Of signed scores below 0 (ColorBrewer Oranges)."""
_TURN = 0.45
"""Share above which ink is white."""
_BLOCKS = " ▏▎▍▌▋▊▉"
_BAR, _BELOW = "rgb(66,146,198)", "rgb(217,95,14)"
_WIDTH, _SHARE = 20, 10
"""Letters of the longest bar: of the strongest tokens, and of units' shares."""
_LINE_LETTERS = 11
"""Of a unit in a table of many rows."""
MOST_EACH = 12
"""Explained tokens whose own probability is printed."""


def token_styles(attribution: Attribution, scale: Scale | None = None) -> list[Style]:
    """Background of each token by its score, on the scale of the other pictures."""
    shown, scale = set(attribution.shown), scale or scale_of(attribution)
    styles = []
    for p, score in enumerate(values_of(attribution, scale)):
        share = scale.share(score) if p in shown else 0.0
        if abs(share) < 0.02:
            styles.append(Style(dim=p not in shown or p in attribution.special))
            continue
        styles.append(style_of(share))
    return styles


def style_of(share: float) -> Style:
    """Background and ink for a share of the full colour: blue, orange below 0."""
    ends = (LIGHT, DARK) if share >= 0 else (LIGHT_BELOW, DARK_BELOW)
    r, g, b = (round(lo + (hi - lo) * abs(share)) for lo, hi in zip(*ends, strict=True))
    return Style(color="#ffffff" if abs(share) > _TURN else "#000000", bgcolor=f"rgb({r},{g},{b})")


def coloured_tokens(attribution: Attribution, scale: Scale | None = None) -> Text:
    """The prompt, coloured, followed by the explained token after the position that predicts it."""
    text = Text()
    explained, own = attribution.target_str, explained_tokens(attribution)
    if explained is None and attribution.top_predictions:
        explained = attribution.top_predictions[0][0]
    for p, (token, style) in enumerate(zip(attribution.str_tokens, token_styles(attribution, scale), strict=True)):
        if p and p in attribution.answer and p - 1 not in attribution.answer:
            text.append(" →", Style(color="red", bold=True))
        text.append(visible(token), style + Style(color="red", underline=True) if p in own else style)
        if p == attribution.pos and explained is not None and p + 1 not in own and marks_target(attribution):
            text.append(" →")
            text.append(visible(explained), Style(color="red", bold=True))
            text.append(" " if p + 1 < len(attribution) else "")
    return text


def strongest(attribution: Attribution, k: int = 5, scale: Scale | None = None) -> Table:
    """The tokens with the highest scores, with bars on the scale of the highest; of signed scores left and right of 0."""
    scale = scale or scale_of(attribution)
    table, values = Table.grid(padding=(0, 1)), values_of(attribution, scale)
    top = ranked(attribution, scale)[:k]
    highest = max((abs(values[p]) for p in top), default=0.0) or 1.0
    for p in top:
        token = attribution.str_tokens[p]
        label = Text(named(token).strip(), "dim" if p in attribution.special else "bold")
        row = [Text(f"{p:>4}", "dim"), label, _bar_of(values[p] / highest, _WIDTH, scale)]
        table.add_row(*row, Text(plus(values[p]) if scale.signed else number(values[p]), "dim"))
    return table


def unit_rows(attribution: Attribution, scale: Scale | None = None) -> Table:
    """Units of several words below each other, each with its share of the influence, or its signed score; the strongest is
    bold.
    """
    scale = scale or scale_of(attribution)
    table, (part, _) = Table.grid(padding=(0, 1)), measured(attribution, scale)
    best, styles, write = strongest_of(part), token_styles(attribution, scale), plus if scale.signed else percent
    highest = max(map(abs, part.values()), default=1.0) or 1.0
    for cell in cells(attribution, scale):
        if cell.pos is None:
            mark = Text(f"→{cell.text if cell.mark == 'target' else ' ' + cell.tip}", Style(color="red", bold=True))
            table.add_row("", "", "", mark)
            continue
        share = part.get(cell.pos)
        how = styles[cell.pos] + Style(underline=True) if cell.explained else styles[cell.pos]
        table.add_row(
            Text("" if share is None else write(share), "bold" if cell.pos == best else "dim", justify="right"),
            _bar_of((share or 0.0) / highest, _SHARE, scale),
            Text(visible(name(attribution, cell.pos)), "dim"),
            Text(said(attribution, cell.pos), how),
        )
    return table


def _bar(share: float, width: int) -> str:
    """Of so many letters at most."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _bar_of(share: float, width: int, scale: Scale) -> Text:
    """A bar; of a scale around 0 it begins in the middle and goes left or right."""
    if not scale.signed:
        return Text(_bar(share, width), _BAR)
    halves = round(max(-share, 0.0) * width)
    left = "▐" * (halves % 2) + "█" * (halves // 2)
    return Text.assemble((f"{left:>{width // 2}}", _BELOW), (_bar(max(share, 0.0), width // 2), _BAR))


def predictions(attribution: Attribution, k: int = 5) -> Text:
    """The model's most probable next tokens; the explained one is red. Of several, what it thought of each."""
    together, each = said_together(attribution)
    if together:
        line = Text(f"{together}:" if each else together, "bold")
        for i, (text, probability) in enumerate(each[:MOST_EACH]):
            line.append(" · " if i else " ", Style(dim=True, bold=False)).append(text.strip(), Style(color="red"))
            line.append(f" {percent(probability)}", Style(dim=True, bold=False))
        return line.append(
            f" · {len(each) - MOST_EACH} more" if len(each) > MOST_EACH else "", Style(dim=True, bold=False)
        )
    line = Text(f"Next token after {read_after(attribution)}:", "bold")
    for i, (text, probability, explained) in enumerate(predicted(attribution, k)):
        line.append(" · " if i else " ", Style(dim=True, bold=False))
        line.append(text.strip(), Style(color="red") if explained else Style(bold=False))
        line.append(f" {percent(probability)}", Style(dim=True, bold=False))
    return line


def view(attributions: Sequence[Attribution], k: int = 3, signed: bool | None = None) -> RenderableType:
    """Several methods on one prompt: predictions once, then each method's coloured tokens, its ``k`` strongest, its unit.

    ``signed`` as in every picture: None is signs where they add up.
    """
    parts: list[RenderableType] = [predictions(attributions[0], k)]
    for i, attribution in enumerate(attributions):
        heading = Text(title(attribution) + odds_in_title(attribution), "bold")
        scale = scale_of(attribution, signed=signed)
        by_token = [coloured_tokens(attribution, scale), strongest(attribution, k, scale)]
        shown: list[str | Text | Table] = [
            *([unit_rows(attribution, scale)] if in_blocks(attribution) else by_token),
            Text(_meaning(attribution, scale), "dim"),
        ]
        parts += [*([Text()] if i else []), heading, *(Padding(part, (0, 2)) for part in shown)]
        parts += [Padding(Text(note, "yellow"), (0, 2)) for note in attribution.notes]
    return Group(*parts)


def _meaning(attribution: Attribution, scale: Scale) -> str:
    """What a score is, and which tokens have none."""
    if scale.signed:
        kind = (
            f"Signed score: {unit(attribution)}; blue, + raises {explained_scalar(attribution)}, orange, − lowers it."
        )
    else:
        kind = about_score(attribution)
    hidden = ", ".join(named(attribution.str_tokens[p]) for p in sorted(attribution.hidden))
    words = [
        f"Bars: share of the {shares(attribution)[1]}." if in_blocks(attribution) and not scale.signed else "",
        kind,
        f"Left out: {hidden}." if hidden else "",
        prompt_and_answer(attribution),
    ]
    return " ".join(filter(None, words))


def attribution_text(attribution: Attribution, signed: bool | None = None) -> str:
    """What ``print(attribution)`` shows: ANSI colours in a terminal, plain text in a file."""
    return as_text(view([attribution], signed=signed))


def in_line(details: Mapping[str, Any], text: str, pos: int | None = None) -> str:
    """A token as a terminal's table has it; of a unit of several words its number, where it has one, and how it begins."""
    if kind_of(details) in (None, "word"):
        return named(text)
    short = shortened(text, _LINE_LETTERS)
    return short if pos is None else f"{pos} {short}"


def as_text(shown: RenderableType) -> str:
    """What ``print`` shows of a picture of rich: ANSI colours in a terminal, lines without padding in a file."""
    buffer = StringIO()
    reference = Console()
    console = Console(
        file=buffer,
        force_terminal=reference.is_terminal,
        color_system=reference.color_system if reference.is_terminal else None,  # type: ignore[arg-type]
        width=reference.width if reference.is_terminal else 100,
    )
    console.print(shown)
    lines = buffer.getvalue().rstrip("\n").split("\n")
    return "\n".join(lines if reference.is_terminal else (line.rstrip() for line in lines))
