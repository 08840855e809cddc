"""What signed scores add up to, in one line: every part of the explained scalar by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tl_scopes.results.written import minus

TOKENS, ROUNDING, WHOLE = "tokens", "rounding", "whole"
"""Entries of ``details["completeness"]`` beside the parts that are no token's."""
_DIGITS = 4


def adds_up(details: Mapping[str, Any]) -> bool:
    """Do the signed scores of a result add up, with what is named beside them, to the explained scalar?"""
    return "completeness" in details


def without_sum(details: Mapping[str, Any], notes: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Details and notes of a result whose scores are divided by something: they add up no more, and nothing says so."""
    said = sums_up(details)
    kept = {name: value for name, value in details.items() if name != "completeness"}
    return kept, tuple(note for note in notes if note != said or not said)


def sums_up(details: Mapping[str, Any]) -> str:
    """``Signed scores 11.9 + positions 0.1 + biases 0.3 = logit 12.3.``; empty where nothing adds up."""
    if not adds_up(details):
        return ""
    parts = dict(details["completeness"])
    whole = parts.pop(WHOLE)
    largest = max(abs(whole), *map(abs, parts.values()))
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(largest))) if largest else 0
    shown = {name: f"{part:.{decimals}f}" for name, part in parts.items()}
    if not float(shown.get(ROUNDING, 0)):
        shown.pop(ROUNDING, None)
    tokens = shown.pop(TOKENS)
    rest = "".join(f" + {name} {part}" for name, part in shown.items())
    several = len(details.get("target_log_probs") or ()) > 1
    scalar = "summed logits" if several else "logit"
    if details.get("of") == "log_prob":
        scalar += f" less {'those' if several else 'that'} expected of all tokens"
    return minus(f"Signed scores {tokens}{rest} = {scalar} {whole:.{decimals}f}.")
