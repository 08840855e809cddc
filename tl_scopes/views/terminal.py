"""Attributions in a terminal: tokens on a background whose depth is the score.

The colour of a token is its score on the scale of the other pictures, from light to full blue. The predicted token is
red. Special tokens and hidden tokens are dim and without colour unless shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tl_scopes.directions.by_name import scope_of
from tl_scopes.results.attribution import Attribution
from tl_scopes.views.blocks import in_blocks, name, said, strongest_of
from tl_scopes.views.coloured import cells, scale_of
from tl_scopes.views.wording import (
    explained_tokens,
    number,
    odds,
    percent,
    predicted,
    prompt_and_answer,
    said_together,
    shares,
    title,
    unit,
    visible,
)

LIGHT, DARK = (222, 235, 247), (8, 69, 148)
"""Ends of a single-hue blue ramp (ColorBrewer Blues), legible with any colour vision."""
_BLOCKS = " ▏▎▍▌▋▊▉"
_BAR = "rgb(66,146,198)"
_WIDTH, _SHARE = 20, 10
"""Letters of the longest bar: of the strongest tokens, and of units' shares."""
MOST_EACH = 12
"""Explained tokens whose own probability is printed."""


def token_styles(attribution: Attribution) -> list[Style]:
    """Background of each token by its score, on the scale of the other pictures."""
    shown, scale = set(attribution.shown), scale_of(attribution)
    styles = []
    for p, score in enumerate(attribution.scores.tolist()):
        share = scale.share(score) if p in shown else 0.0
        if share < 0.02:
            styles.append(Style(dim=p not in shown or p in attribution.special))
            continue
        r, g, b = (round(lo + (hi - lo) * share) for lo, hi in zip(LIGHT, DARK, strict=True))
        ink = "#ffffff" if share > 0.45 else "#000000"
        styles.append(Style(color=ink, bgcolor=f"rgb({r},{g},{b})"))
    return styles


def coloured_tokens(attribution: Attribution) -> Text:
    """The prompt, coloured, followed by the explained token after the position that predicts it."""
    text = Text()
    explained, own = attribution.target_str, explained_tokens(attribution)
    if explained is None and attribution.top_predictions:
        explained = attribution.top_predictions[0][0]
    for p, (token, style) in enumerate(zip(attribution.str_tokens, token_styles(attribution), strict=True)):
        if p and p in attribution.answer and p - 1 not in attribution.answer:
            text.append(" →", Style(color="red", bold=True))
        text.append(visible(token), style + Style(color="red", underline=True) if p in own else style)
        if p == attribution.pos and explained is not None and p + 1 not in own and not attribution.answer:
            text.append(" →")
            text.append(visible(explained), Style(color="red", bold=True))
            text.append(" " if p + 1 < len(attribution) else "")
    return text


def strongest(attribution: Attribution, k: int = 5) -> Table:
    """The tokens with the highest scores, with bars on the scale of the highest."""
    table = Table.grid(padding=(0, 1))
    top = attribution.top(k)
    highest = max((t.score for t in top), default=0.0) or 1.0
    for token in top:
        label = Text(visible(token.str_token).strip() or repr(token.str_token))
        label.stylize("dim" if token.pos in attribution.special else "bold")
        table.add_row(
            Text(f"{token.pos:>4}", "dim"),
            label,
            Text(_bar(token.score / highest, _WIDTH), _BAR),
            Text(number(token.score), "dim"),
        )
    return table


def unit_rows(attribution: Attribution) -> Table:
    """Units of several words below each other, each with its share of the influence; the strongest is bold."""
    table = Table.grid(padding=(0, 1))
    part, _ = shares(attribution)
    best, highest, styles = strongest_of(part), max(part.values(), default=1.0), token_styles(attribution)
    for cell in cells(attribution, scale_of(attribution)):
        if cell.pos is None:
            mark = Text(f"→{cell.text if cell.mark == 'target' else ' ' + cell.tip}", Style(color="red", bold=True))
            table.add_row("", "", "", mark)
            continue
        share = part.get(cell.pos)
        how = styles[cell.pos] + Style(underline=True) if cell.explained else styles[cell.pos]
        table.add_row(
            Text("" if share is None else percent(share), "bold" if cell.pos == best else "dim", justify="right"),
            Text("" if share is None else _bar(share / highest, _SHARE), _BAR),
            Text(visible(name(attribution, cell.pos)), "dim"),
            Text(said(attribution, cell.pos), how),
        )
    return table


def _bar(share: float, width: int) -> str:
    """Of so many letters at most."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def predictions(attribution: Attribution, k: int = 5) -> Text:
    """The model's most probable next tokens; the explained one is red. Of several, what it thought of each."""
    together, each = said_together(attribution)
    if together:
        line = Text(f"{together}:" if each else together, "bold")
        for i, (text, probability) in enumerate(each[:MOST_EACH]):
            line.append(" · " if i else " ", Style(dim=True, bold=False)).append(
                text.strip() or repr(text), Style(color="red")
            )
            line.append(f" {percent(probability)}", Style(dim=True, bold=False))
        return line.append(
            f" · {len(each) - MOST_EACH} more" if len(each) > MOST_EACH else "", Style(dim=True, bold=False)
        )
    read = visible(attribution.str_tokens[attribution.pos])
    line = Text(f"Next token after {read!r} (position {attribution.pos}):", "bold")
    for i, (text, probability, explained) in enumerate(predicted(attribution, k)):
        line.append(" · " if i else " ", Style(dim=True, bold=False))
        line.append(visible(text).strip() or repr(text), Style(color="red") if explained else Style(bold=False))
        line.append(f" {percent(probability)}", Style(dim=True, bold=False))
    return line


def view(attributions: Sequence[Attribution], k: int = 3) -> RenderableType:
    """Several methods on one prompt: predictions once, then each method's coloured tokens, its ``k`` strongest, its unit."""
    parts: list[RenderableType] = [predictions(attributions[0], k)]
    for i, attribution in enumerate(attributions):
        heading = Text(title(attribution), "bold")
        if known := odds(attribution):
            heading.append(f" ({known})")
        by_unit = in_blocks(attribution)
        shown: list[str | Text | Table] = [
            *([unit_rows(attribution)] if by_unit else [coloured_tokens(attribution), strongest(attribution, k)]),
            Text(_meaning(attribution), "dim"),
        ]
        parts += [*([Text()] if i else []), heading, *(Padding(part, (0, 2)) for part in shown)]
        parts += [Padding(Text(note, "yellow"), (0, 2)) for note in attribution.notes]
    return Group(*parts)


def _meaning(attribution: Attribution) -> str:
    """What a score is, and which tokens have none."""
    effect = "largest first-order effect, " if scope_of(attribution.method) else ""
    hidden = ", ".join(visible(attribution.str_tokens[p]) for p in sorted(attribution.hidden))
    words = [
        f"Bars: share of the {shares(attribution)[1]}." if in_blocks(attribution) else "",
        f"Score: {effect}{unit(attribution)}.",
        f"Left out: {hidden}." if hidden else "",
        prompt_and_answer(attribution),
    ]
    return " ".join(filter(None, words))


def attribution_text(attribution: Attribution) -> str:
    """What ``print(attribution)`` shows: ANSI colours in a terminal, plain text in a file."""
    return as_text(view([attribution]))


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
