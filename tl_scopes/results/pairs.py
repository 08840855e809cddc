"""Every pair of methods on the same prompts, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from tl_scopes.numerics.statistics import Comparison, Values, holm

if TYPE_CHECKING:
    import pandas as pd

PAIR_COLUMNS = ["first", "second", "difference", "low", "high", "p", "p_holm", "indistinguishable"]


Test = Callable[[Values, Values], Comparison]
"""Of two methods' numbers on the same prompts."""


def all_pairs(per_prompt: Mapping[str, Values], test: Test) -> pd.DataFrame:
    """The test of first − second for each pair; ``p_holm`` counts all of them."""
    import pandas as pd

    pairs = list(combinations(per_prompt, 2))
    found = [test(per_prompt[a], per_prompt[b]) for a, b in pairs]
    rows = [
        [first, second, c.difference, c.low, c.high, c.p, together, c.indistinguishable]
        for (first, second), c, together in zip(pairs, found, holm([c.p for c in found]), strict=True)
    ]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)
