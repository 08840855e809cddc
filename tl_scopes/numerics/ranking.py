"""Which tokens are removed: the most influential fraction of the candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Literal

import torch

PAPER_FRACTIONS = (0.05, 0.1, 0.2)


def number_removed(fraction: float, n: int) -> int:
    """``max(1, ⌊k·n⌋)``, with k taken as the decimal number it was written as: 0.29 of 100 is 29."""
    return max(1, math.floor(Fraction(repr(float(fraction))) * n))


def most_influential(scores: Sequence[float], candidates: Sequence[int], m: int) -> list[int]:
    """The m candidates with the highest scores, highest first; ties by position."""
    return sorted(candidates, key=lambda p: (-float(scores[p]), p))[:m]


def require_fractions(fractions: Sequence[float], *, least: Literal[0, 2] = 2) -> tuple[float, ...]:
    """Increasing fractions in (0, 1], at least so many."""
    out = tuple(float(k) for k in fractions)
    if len(out) < least or any(not 0 < k <= 1 for k in out) or any(b <= a for a, b in pairwise(out)):
        many = "at least two " if least else ""
        raise ValueError(f"(fractions={tuple(fractions)}): expected {many}increasing numbers in (0, 1]")
    return out


def other_sets(
    n: int, strongest: Sequence[int], n_random: int, generator: torch.Generator
) -> tuple[list[tuple[int, ...]], bool]:
    """Sets of n things, as large as that of the strongest, drawn without replacement from all of them.

    All other sets, and True, where there are no more than ``n_random``.
    """
    k = len(strongest)
    if math.comb(n, k) - 1 <= n_random:
        return [s for s in combinations(range(n), k) if set(s) != set(strongest)], True
    return [tuple(torch.randperm(n, generator=generator)[:k].tolist()) for _ in range(n_random)], False
