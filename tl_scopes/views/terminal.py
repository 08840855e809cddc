"""Attributions in a terminal: tokens on a background whose depth is the score.

The colour of a token is its score as a share of the highest score shown, linear, from the terminal's own background
to full blue. The predicted token is red. Special tokens and hidden tokens are dim and without colour unless shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tl_scopes.results.attribution import Attribution
from tl_scopes.views.wording import predicted, title, visible

LIGHT, DARK = (222, 235, 247), (8, 69, 148)
"""Ends of a single-hue blue ramp (ColorBrewer Blues), legible with any colour vision."""
_BLOCKS = " ▏▎▍▌▋▊▉"
_BAR = "rgb(66,146,198)"


def token_styles(attribution: Attribution) -> list[Style]:
    """Background of each token by its share of the highest shown score."""
    shown = set(attribution.shown)
    highest = max((float(attribution.scores[p]) for p in shown), default=0.0)
    styles = []
    for p, score in enumerate(attribution.scores.tolist()):
        if p not in shown or highest <= 0:
            styles.append(Style(dim=True))
            continue
        share = score / highest
        if share < 0.02:
            styles.append(Style(dim=p in attribution.special))
            continue
        r, g, b = (round(lo + (hi - lo) * share) for lo, hi in zip(LIGHT, DARK, strict=True))
        ink = "#ffffff" if share > 0.45 else "#000000"
        styles.append(Style(color=ink, bgcolor=f"rgb({r},{g},{b})"))
    return styles


def coloured_tokens(attribution: Attribution) -> Text:
    """The prompt, coloured, followed by the explained token after the position that predicts it."""
    text = Text()
    explained = attribution.target_str
    if explained is None and attribution.top_predictions:
        explained = attribution.top_predictions[0][0]
    for p, (token, style) in enumerate(zip(attribution.str_tokens, token_styles(attribution), strict=True)):
        text.append(visible(token), style)
        if p == attribution.pos and explained is not None:
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
        eighths = round(token.score / highest * 20 * 8)
        bar = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
        name = Text(visible(token.str_token).strip() or repr(token.str_token))
        name.stylize("dim" if token.pos in attribution.special else "bold")
        table.add_row(Text(f"{token.pos:>4}", "dim"), name, Text(bar, _BAR), Text(f"{token.score:.3g}", "dim"))
    return table


def predictions(attribution: Attribution, k: int = 5) -> Table:
    """The model's most probable next tokens."""
    table = Table.grid(padding=(0, 1))
    for text, probability, explained in predicted(attribution, k)[:k]:
        style = "bold red" if explained else ""
        bar = "█" * max(1, round(probability * 20)) if probability >= 0.025 else "▏"
        table.add_row(Text(text, style), Text(bar, "red dim"), Text(f"{probability:6.1%}", "dim"))
    return table


def view(attributions: Sequence[Attribution]) -> RenderableType:
    """Several methods on one prompt: predictions once, then each method's coloured tokens and strongest tokens."""
    first = attributions[0]
    read = first.str_tokens[first.pos]
    parts: list[RenderableType] = [
        Text(f"Next token after {visible(read)!r} (position {first.pos})", "bold"),
        Padding(predictions(first), (0, 2)),
    ]
    for attribution in attributions:
        parts += [
            Text(),
            Text(title(attribution), "bold"),
            Padding(coloured_tokens(attribution), (0, 2)),
            Padding(strongest(attribution), (0, 2)),
        ]
        parts += [Padding(Text(note, "yellow"), (0, 2)) for note in attribution.notes]
    hidden = sorted(first.hidden)
    if hidden:
        names = ", ".join(visible(first.str_tokens[p]) for p in hidden)
        parts.append(Text(f"Left out of colours and ranking: {names}", "dim"))
    return Group(*parts)


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
