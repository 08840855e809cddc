"""Attributions as coloured tokens: one method, several methods to switch between, and the paper's figure layout.

The tokens are HTML; in a notebook CircuitsVis draws them again, in the same colours. Around them stand the scale, the
target and the predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tl_scopes.directions.by_name import scope_of
from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.sinks import PositionalBaseline
from tl_scopes.views.blocks import blocks, in_blocks
from tl_scopes.views.canvas.colours import Scale, ScaleKind
from tl_scopes.views.canvas.page import READ_TOKENS, View, heading, noted, switch
from tl_scopes.views.coloured import coloured, ranked, scale_legend, scale_of, values_of
from tl_scopes.views.rendering import text, view
from tl_scopes.views.terminal import as_text, attribution_text
from tl_scopes.views.terminal import view as terminal_view
from tl_scopes.views.wording import (
    counted,
    named,
    number,
    percent,
    plus,
    predicted,
    prompt_and_answer,
    read_after,
    said_together,
    shows_signs,
    size_of_score,
    title,
    visible,
)

_ALONE = "Each token's sources, to click: <code>attribution_matrix(model, attr.tokens, positions=attr.span)</code>."
text.register(Attribution, attribution_text)


@view.register(Attribution)
@public_call
def tokens(
    attribution: Attribution,
    *,
    scale: ScaleKind = "auto",
    baseline: PositionalBaseline | None = None,
    signed: bool | None = None,
) -> View:
    """One attribution: coloured tokens, true scale, target, strongest tokens and predictions.

    Args:
        attribution: what to show; hidden tokens and those after ``pos`` are hatched and without colour.
        scale: how colours follow scores: ``"linear"`` from 0, ``"minmax"`` from the lowest shown score, ``"log"``.
            ``"auto"`` is log where the highest score is more than 50 times the median, minmax where the lowest is above a
            fifth of the highest (with a box to tick for 0), else linear. The legend says which.
        baseline: of :func:`tl_scopes.positional_baseline`; a box to tick shows each token's share over the one that its
            position gets on unrelated prompts.
        signed: blue and orange around 0 for signed scores; None is where they add up (with a box to tick for sizes).

    Raises:
        ValueError: signs are asked for where there are none.
    """
    body = _row(heading(title(attribution)) + _panel(attribution, scale, baseline, signed), attribution)
    return View(title(attribution), f'<div class="tls">{body}</div>', lambda: attribution_text(attribution, signed))


@public_call
def compare(
    attributions: Mapping[str, Attribution],
    *,
    scale: ScaleKind = "auto",
    baselines: Mapping[str, PositionalBaseline] | None = None,
    signed: bool | None = None,
) -> View:
    """Several methods on one text, with a button for each; every method has its own scale, and its own positional baseline.

    The buttons are radio buttons (arrow keys work) and need no script. Those whose signed scores add up show their signs;
    ``signed=False`` shows sizes of all. Raises ``ValueError`` when there is nothing to compare, the texts differ, or signs
    are asked for where there are none.
    """
    if not attributions:
        raise ValueError("(attributions={}): give at least one attribution")
    first = next(iter(attributions.values()))
    for name, attribution in attributions.items():
        if attribution.str_tokens != first.str_tokens or attribution.pos != first.pos:
            raise ValueError(
                f"(attributions=...): {name!r} has other tokens or another pos than {next(iter(attributions))!r}; "
                "use stack() for different texts"
            )
    panels = [
        heading(title(a)) + _panel(a, scale, (baselines or {}).get(name), signed) for name, a in attributions.items()
    ]
    form = switch(attributions, panels, css="tls-compare", label="method")
    several = list(attributions.values())
    return View(
        f"{len(several)} methods on one text",
        f'<div class="tls">{_row(form, first)}</div>',
        lambda: as_text(terminal_view(several, signed=signed)),
    )


@public_call
def figure(
    attributions: Attribution | Sequence[Attribution],
    *,
    k: int = 7,
    scale: ScaleKind = "auto",
    signed: bool | None = None,
) -> View:
    """The layout of the paper's figures 3 to 5: tokens on the left, the top ``k`` predicted words on the right.

    Several attributions (the same text at several positions, say) make one row each. The target is red, influence is
    blue; every row has its own scale, and is of signed scores (blue raises, orange lowers) where these add up, or as
    ``signed`` says for all.
    """
    rows = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    if not rows:
        raise ValueError("(attributions=[]): give at least one attribution")
    if k < 1:
        raise ValueError(f"(k={k}): k must be 1 or more")
    names = [f'<p class="tls-small"><b>{escape(title(a))}</b></p>' if len(rows) > 1 else "" for a in rows]
    body = "".join(_row(name + _tokens(a, scale, signed, ""), a, k) for name, a in zip(names, rows, strict=True))
    return View(
        title(rows[0]),
        f'<div class="tls tls-figure">{body}</div>',
        lambda: "\n\n".join(attribution_text(row, signed) for row in rows),
    )


def _row(left: str, attribution: Attribution, k: int = 7) -> str:
    """Text on the left, predictions on the right."""
    right = f'<div class="tls-right">{_predictions(attribution, k)}</div>' if attribution.top_predictions else ""
    return f'<div class="tls-row"><div class="tls-left">{left}</div>{right}</div>'


def _panel(attribution: Attribution, kind: ScaleKind, baseline: PositionalBaseline | None, signed: bool | None) -> str:
    """Everything about one attribution but its title and the predictions."""
    notes = noted(attribution.notes)
    apart = _ALONE if attribution.answer and attribution.span and scope_of(attribution.method) else ""
    said = " ".join(filter(None, (prompt_and_answer(attribution), apart)))
    divided = f'<p class="tls-small">{said}</p>' if said else ""
    return _choice(attribution, kind, baseline, signed) + divided + notes + _more(attribution)


def _choice(attribution: Attribution, kind: ScaleKind, baseline: PositionalBaseline | None, signed: bool | None) -> str:
    """The tokens; boxes to tick for sizes where nobody chose signs, for colours from 0, where they start higher, and for
    scores over the baseline.
    """
    panes = [("", _pane(attribution, kind, signed))]
    if signed is None and shows_signs(attribution, None, kind):
        panes.append((f"{size_of_score(attribution)}, without signs", _pane(attribution, kind, False)))
    elif kind == "auto" and scale_of(attribution, kind, signed).kind == "minmax":
        panes.append(("colours from 0", _pane(attribution, "linear", signed)))
    if baseline is not None:
        label = f"over the mean share of each position on {counted(baseline.n_prompts, 'unrelated prompt')}"
        panes.append((label, _pane(baseline.corrected(attribution), kind)))
    if len(panes) == 1:
        return panes[0][1]
    boxes = "".join(f'<label><input type="checkbox"> {escape(label)}</label>' for label, _ in panes[1:])
    shown = "".join(f'<div class="tls-pane">{pane}</div>' for _, pane in panes)
    return f'<div class="tls-choice"><p class="tls-small">{boxes}</p>{shown}</div>'


def _pane(attribution: Attribution, kind: ScaleKind, signed: bool | None = None) -> str:
    """The tokens, and the strongest of them."""
    strongest = "" if in_blocks(attribution) else _strongest(attribution, scale_of(attribution, kind, signed))
    return _tokens(attribution, kind, signed) + strongest


def _tokens(attribution: Attribution, kind: ScaleKind, signed: bool | None = None, line: str = READ_TOKENS) -> str:
    """Legend, tokens, and the line that reads them out."""
    scale = scale_of(attribution, kind, signed)
    if in_blocks(attribution):
        return scale_legend(attribution, scale) + blocks(attribution, scale) + line.replace("a token", "a unit")
    return scale_legend(attribution, scale) + coloured(attribution, scale) + line


def _strongest(attribution: Attribution, scale: Scale, k: int = 5) -> str:
    """The strongest tokens as text, for readers who do not see colour."""
    values, write = values_of(attribution, scale), plus if scale.signed else number
    items = " · ".join(
        f"<bdi>{escape(named(token).strip())}</bdi> {write(values[p])}"
        for p in ranked(attribution, scale)[:k]
        for token in (attribution.str_tokens[p],)
    )
    return f'<p class="tls-small">Strongest: {items}</p>' if items else ""


def _predictions(attribution: Attribution, k: int) -> str:
    """The most probable next tokens; the explained one is red, and is added when it is not among them. Of several, each."""
    items = []
    together, each = said_together(attribution)
    if together:
        items = [_bar(f"<b><bdi>{escape(text)}</bdi></b>", p) for text, p in each]
        return f'<p class="tls-small">{together}</p><ol class="tls-pred">{"".join(items)}</ol>'
    for found, probability, explained in predicted(attribution, k):
        name = f"<b><bdi>{escape(found)}</bdi></b>" if explained else f"<span><bdi>{escape(found)}</bdi></span>"
        items.append(_bar(name, probability))
    return (
        f'<p class="tls-small">Predicted after <bdi>{escape(read_after(attribution))}</bdi></p>'
        f'<ol class="tls-pred">{"".join(items)}</ol>'
    )


def _bar(name: str, probability: float) -> str:
    """One token with its probability."""
    bar = f'<span class="tls-track"><span class="tls-bar" style="width:{100 * probability:.1f}%"></span></span>'
    return f"<li>{name} {bar} <span>{percent(probability)}</span></li>"


def _more(attribution: Attribution) -> str:
    """Numbers behind the scores and the state of the model, folded away."""
    plain = {
        key: value
        for key, value in {**attribution.details, **attribution.provenance}.items()
        if isinstance(value, str | int | float | bool) or (isinstance(value, list) and len(repr(value)) < 200)
    }
    if not plain:
        return ""
    rows = " · ".join(
        f"{escape(key)} {escape(number(v) if isinstance(v, float) else visible(str(v)))}" for key, v in plain.items()
    )
    return f"<details><summary>Numbers and provenance</summary>{rows}</details>"
