"""Words that every renderer shares: titles, units, and token text with its control characters made visible."""

from __future__ import annotations

from tl_scopes.results.attribution import Attribution
from tl_scopes.results.methods import legend

_ZERO_WIDTH = "\u200c\u200d"
"""Joiners that make one emoji or one ligature out of several characters: invisible and harmless."""


def visible(text: str) -> str:
    """A token's text with its control characters made visible, so that one token stays on one line."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
    return "".join(c if c.isprintable() or c in _ZERO_WIDTH else "�" for c in shown)


def literal(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def title(attribution: Attribution) -> str:
    """One line: which scope, and what it explains."""
    method = attribution.method.replace("_", " ").capitalize()
    return legend(attribution.method).title.format(target=repr(attribution.target_str), method=method)


def unit(attribution: Attribution) -> str:
    """What one unit of the score is."""
    if "normalized_by" in attribution.details:
        return "share of the shown tokens' sum"
    at = str(attribution.details.get("at", "hook_embed"))
    source = "embedding" if at == "hook_embed" else at
    return legend(attribution.method).unit.format(at=source)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(probability: float) -> str:
    """``99.1%``; small ones with one significant digit."""
    return f"{probability:.1%}" if probability >= 0.001 else f"{100 * probability:.1g}%"


def read_text(attribution: Attribution) -> str:
    """The token after which the prediction is made."""
    return visible(attribution.str_tokens[attribution.pos])


def predicted(attribution: Attribution, k: int) -> list[tuple[str, float, bool]]:
    """The ``k`` most probable next tokens, their probabilities, and which is explained: added if it is not among them."""
    rows = [(text, p) for text, p in attribution.top_predictions[:k]]
    target, own = attribution.target_str, attribution.details.get("target_probability")
    if rows and target is not None and isinstance(own, float) and target not in [text for text, _ in rows]:
        rows.append((target, own))
    return [(visible(text), p, text == target) for text, p in rows]
